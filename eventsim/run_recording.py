"""Record the run of a policy to disk while it goes on, so that a kill leaves what can be opened."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim import files
from eventsim.errors import InputError, UnsupportedError
from eventsim.output import Coded, parquet_table, write_atomically, write_text
from eventsim.recording import (
    COUNTER_COLUMNS,
    COUNTERS,
    EVENT_COLUMNS,
    EVENTS,
    HEADER,
    NETWORK,
    STARTED,
    ParquetRecorder,
)
from eventsim.trace import Counters, Events

if TYPE_CHECKING:
    from eventsim.network import Network
    from eventsim.simulator import Simulator

#: Schema of run.part.json, which stands in for run.json until there is one.
STARTED_SCHEMA = "eventsim-run-part/1"

#: Seconds after which buffers go to disk even if they are not full.
FLUSH_SECONDS = 10.0

# Rows of a row group of the file that the parts are gathered in.
_GROUP = 1 << 20


_NO_ACTION = np.zeros(0)


def action_names(count: int) -> tuple[str, ...]:
    """Columns of an action of so many numbers."""
    return ("action",) if count == 1 else tuple(f"action_{k}" for k in range(count))


class RunRecorder(ParquetRecorder):
    """The recorder of a closed loop: it is told where episodes begin and which steps count.

    A step is written once it is complete, by `commit`, with its reward; Ctrl-C between a step of
    the network and that of the environment therefore leaves nothing half. The folder is not
    touched before the first complete step.

    Parameters
    ----------
    folder : path
    started : mapping
        What run.part.json tells of the run before it has figures.
    rows : int, optional
        As for `ParquetRecorder`.

    Raises
    ------
    InputError, OutputError
        As `ParquetRecorder`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        started: Mapping[str, Any] | None = None,
        *,
        rows: int = 1 << 20,
    ) -> None:
        super().__init__(folder, rows=rows)
        self.started = dict(started or {})
        self._simulator: Simulator | None = None
        self._before = 0  # steps since the reset, when the episode began
        self._held: list[Events] = []
        self._step: tuple[int, Counters] | None = None
        self._flushed = 0.0

    def on_attach(self, simulator: Simulator) -> None:
        """Keep the simulator; the folder is prepared by the first step."""
        if self._simulator is not None:
            raise InputError(f"the recorder of {self.folder} already has a simulator; make another")
        self._simulator = simulator

    def on_reset(self) -> None:
        """Forget a step that was not complete."""
        self._before = 0
        self._drop()

    def begin_episode(self) -> None:
        """Count steps from 0 again, whether or not the neurons were reset."""
        self._drop()
        self._fresh = True

    def on_events(self, events: Events) -> None:
        """Hold the events until the step is complete."""
        self._held.append(events)

    def on_step(self, step: int, counters: Counters) -> None:
        """Hold the counters until the step is complete."""
        copy = Counters(counters.populations, counters.table.copy(), counters.input_comparisons)
        self._step = step, copy

    def commit(self, reward: float, action: NDArray[np.float64] = _NO_ACTION) -> None:
        """Take the held step, in which `action` earned `reward`."""
        if self._step is None:
            raise InputError(f"the recorder of {self.folder} has seen no step")
        if self._events is None:
            self._start(action_names(action.size))
        events, counters = self._parts(self._events), self._parts(self._counters)
        step, table = self._step
        if self._fresh:
            self._before = step
        self._begin()
        for held in self._held:
            columns = {name: getattr(held, name) for name in EVENT_COLUMNS[1:]}
            columns["step"] = held.step - self._before
            events.extend(len(held), {"episode": self._episode, **columns})
        size = len(counters.names)
        counters.extend(
            size,
            {
                "episode": self._episode,
                "step": step - self._before,
                "population": np.arange(size),
                **{name: getattr(table, name) for name in COUNTER_COLUMNS[3:]},
                "reward": reward,
                **dict(zip(action_names(action.size), action.tolist(), strict=True)),
            },
        )
        self._drop()
        now = time.monotonic()
        if now - self._flushed > FLUSH_SECONDS:
            self.flush()
            self._flushed = now
        self._together()

    def gather(self, n_events: int) -> Path:
        """Put the parts into one file, events.parquet, and return its path.

        Parameters
        ----------
        n_events : int
            Of the steps that count; Ctrl-C may have left more.
        """
        self.flush()
        names = self._parts(self._events).names
        parts = sorted((self.folder / EVENTS).glob("part-*.parquet"))
        target = self.folder / f"{EVENTS}.parquet"
        write_atomically(target, lambda path: gather(parts, path, names, n_events))
        return target

    def _start(self, actions: tuple[str, ...]) -> None:
        if self._simulator is None:
            raise InputError(f"the recorder of {self.folder} has no simulator")
        self._prepare(self._simulator, (*COUNTER_COLUMNS, "reward", *actions))
        save_network(self.folder, self._simulator.network)
        text = json.dumps({"schema": STARTED_SCHEMA, **self.started}, indent=2) + "\n"
        write_atomically(self.folder / STARTED, lambda path: write_text(path, text))
        self._flushed = time.monotonic()

    def _drop(self) -> None:
        self._held.clear()
        self._step = None


def clear_parts(folder: Path) -> None:
    """Remove what a run recorded while it went on; whole files have taken its place."""
    if not (folder / STARTED).is_file():
        return
    for name in (EVENTS, COUNTERS):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (HEADER, STARTED):
        (folder / name).unlink(missing_ok=True)


def save_network(folder: Path, network: Network) -> list[Path]:
    """Write a network into a run's folder; nothing if it holds what has no stored form."""
    path = folder / NETWORK
    try:
        files.save(path, network)
    except UnsupportedError:
        path.unlink(missing_ok=True)
        return []
    return [path]


def gather(
    parts: Sequence[Path], target: Path, names: tuple[str, ...], n_events: int | None = None
) -> None:
    """Copy the first `n_events` rows of event files into one, in bounded memory.

    Its row groups do not depend on where one file ended and the next began.
    """
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        name: np.zeros(0, np.float64 if name in ("time", "value") else np.int64)
        for name in EVENT_COLUMNS
    }
    none = parquet_table({**columns, "population": Coded(columns["population"], names)})
    with pq.ParquetWriter(target, none.schema, compression="zstd") as writer:
        for table in _groups(parts, none, n_events):
            writer.write_table(table)


def _groups(parts: Sequence[Path], none: Any, n_events: int | None) -> Iterator[Any]:
    """Rows of the files in tables of one size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rest, left = none, n_events
    for path in parts:
        with pq.ParquetFile(path) as file:
            for k in range(file.num_row_groups):
                rows = file.read_row_group(k, columns=none.column_names).cast(none.schema)
                if left is not None:
                    rows = rows.slice(0, left)
                    left -= rows.num_rows
                rest = pa.concat_tables([rest, rows])
                while rest.num_rows >= _GROUP:
                    yield rest.slice(0, _GROUP)
                    rest = rest.slice(_GROUP)
    if rest.num_rows:
        yield rest
