"""Processes that play episodes for an `Arena`: an episode is a function of policy and seed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from eventsim.errors import EventsimError, InputError

if TYPE_CHECKING:
    from eventsim.models.policy import Policy

#: Return, steps, MACs and ACs of an episode, as the fields of `eventsim.models.arena.Outcome`.
Row: TypeAlias = tuple[float, int, int, int]

#: Libraries that would start a thread a core in every process.
_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Team:
    """So many processes, each with an environment of its own.

    They are begun afresh (not forked, which threads of libraries do not survive): an environment
    must be known to gymnasium by itself or as ``"module:Id"``, and a script that starts them does
    so behind ``if __name__ == "__main__":``.

    Parameters
    ----------
    teacher : Policy
    env_id : str
    size : int
    """

    def __init__(self, teacher: Policy, env_id: str, size: int) -> None:
        # Policies travel as files, whose content is data and never executed.
        self._folder = tempfile.TemporaryDirectory(prefix="eventsim-")
        self._files: dict[str, str] = {}
        self._pool = ProcessPoolExecutor(
            size,
            multiprocessing.get_context("spawn"),
            _begin,
            (self._file("teacher", teacher), env_id),
        )

    def play(self, tasks: Sequence[tuple[str, Policy | None, int]]) -> Iterator[tuple[int, Row]]:
        """Play episodes, yielding each one's number and outcome as they end.

        Parameters
        ----------
        tasks : sequence of (key, policy, seed)
            Of one key is one policy; None for the teacher as an arena plays it.

        Raises
        ------
        InputError
            If a process cannot play, or ended.
        """
        futures: dict[Future[Row | str], int] = {}
        try:
            for number, (key, policy, seed) in enumerate(tasks):
                file = None if policy is None else self._file(key, policy)
                futures[self._pool.submit(_play, file, seed)] = number
            for done in as_completed(futures):
                row = done.result()
                if isinstance(row, str):
                    raise InputError(f"{row} (in a process of its own; try jobs=1)", field="jobs")
                yield futures[done], row
        except BrokenProcessPool as error:
            raise InputError(
                "a process that plays episodes ended: memory may be short, or the script starts "
                'them without an `if __name__ == "__main__":`; mend that, or give jobs=1',
                field="jobs",
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """End the processes, after the episodes that they play."""
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def _file(self, key: str, policy: Policy) -> str:
        if key not in self._files:
            path = Path(self._folder.name) / f"{len(self._files)}.safetensors"
            policy.save(path)
            self._files[key] = str(path)
        return self._files[key]


#: What `_begin` leaves in a process: its arena or why there is none, and the last policy's file.
_MINE: dict[str, Any] = {}


def _begin(teacher: str, env_id: str) -> None:
    """Make ready what a process plays with."""
    # An interruption is the parent's to deal with; with its end, however it came, all is over.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    for name in _THREADED:  # NumPy is not imported before
        os.environ.setdefault(name, "1")
    from eventsim.models.arena import Arena
    from eventsim.models.policy import Policy

    try:
        _MINE["arena"] = Arena(Policy.load(teacher), env_id)
    except EventsimError as error:
        _MINE["error"] = str(error)


def _end_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _play(file: str | None, seed: int) -> Row | str:
    """Play one episode; what is wrong, if it cannot be."""
    if "error" in _MINE:
        return str(_MINE["error"])
    from eventsim.models.policy import Policy

    arena = _MINE["arena"]
    try:
        if file is None:
            one = arena.taught(seed)
        else:
            if _MINE.get("file") != file:
                _MINE["file"], _MINE["policy"] = file, Policy.load(file)
            one = arena.outcome(_MINE["policy"], seed)
    except EventsimError as error:
        return str(error)
    return one.total, one.steps, one.macs, one.acs


__all__ = ["Row", "Team"]
