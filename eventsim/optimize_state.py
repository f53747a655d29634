"""What an optimisation is asked for, how long it has taken, and which seeds are whose."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventsim.errors import FileFormatError, InputError
from eventsim.models.arena import digest
from eventsim.models.policy import Policy
from eventsim.output import write_atomically, write_text

#: Seeds of the environment that only this module uses; a search keeps below the first.
SEEDS_FROM = 1_000_000_000
#: Room for the seeds of each purpose, and for each optimisation seed.
_ROOM, _SPAN = 100_000, 1_000_000
_PURPOSES = ("baseline", "random", "samples", "validation", "test")
#: Seconds between two notes of the time.
_TICK = 2.0


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Parameters
    ----------
    max_loss : float
        Largest relative loss, in (0, 1).
    budget : float
        Seconds, over all runs that continue each other.
    weight_bits : int
        32, 8 or 4.
    seed : int
        Of the optimisation, >= 0.
    jobs : int
        Processes that play the episodes by which candidates are compared and promised; results do
        not depend on it.

    Raises
    ------
    InputError
        If one is out of range.
    """

    max_loss: float = 0.01
    budget: float = 1200.0
    weight_bits: int = 32
    seed: int = 0
    jobs: int = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.max_loss < 1.0:
            raise InputError(
                f"is {self.max_loss}; give a share between 0 and 1, such as 0.01", field="max_loss"
            )
        if not (self.budget > 0.0 and math.isfinite(self.budget)):
            raise InputError(
                f"is {self.budget} s; give a time above 0, such as 20m", field="budget"
            )
        if self.weight_bits not in (32, 8, 4):
            raise InputError(f"is {self.weight_bits}; give 32, 8 or 4", field="weight_bits")
        if self.seed < 0:
            raise InputError(f"is {self.seed}; give 0 or more", field="seed")
        if self.jobs < 1:
            raise InputError(f"is {self.jobs}; give 1 or more", field="jobs")


def seconds_of(text: str | float) -> float:
    """Read a duration: a number of seconds, or such as ``90s``, ``20m``, ``1.5h``, ``1h30m``.

    Raises
    ------
    InputError
        If it is none.

    Examples
    --------
    >>> from eventsim.optimize_state import seconds_of
    >>> seconds_of("1h30m")
    5400.0
    """
    if isinstance(text, int | float):
        return float(text)
    parts = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s?)?", text.strip().lower())
    try:
        if parts is None or not any(parts.groups()):
            raise ValueError
        hours, minutes, seconds = (float(part or 0.0) for part in parts.groups())
    except ValueError as error:
        raise InputError(
            f"is {text!r}; give a time such as 90s, 20m or 1h30m", field="budget"
        ) from error
    return 3600.0 * hours + 60.0 * minutes + seconds


class State:
    """The folder of an optimisation: to whom it belongs, and the seconds spent.

    Parameters
    ----------
    folder : Path
        Exists and can be written.
    policy : Policy
        The teacher.
    env : str or None
    settings : Settings
        All but budget and jobs must be those with which the folder was begun.
    effort : mapping
        As must be this.

    Attributes
    ----------
    pair_seconds : float
        What an episode of a policy and one of its teacher take, one after the other; NaN if not yet
        known.

    Raises
    ------
    InputError
        If the folder belongs to another optimisation.
    FileFormatError
        If its state is damaged.
    OutputError
        If it cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        policy: Policy,
        env: str | None,
        settings: Settings,
        effort: Mapping[str, Any],
    ) -> None:
        self._file = folder / "state.json"
        self._identity = {
            "teacher": digest(policy),
            "env": env or policy.env_id,
            "max_loss": settings.max_loss,
            "weight_bits": settings.weight_bits,
            "seed": settings.seed,
            "effort": {name: repr(value) for name, value in effort.items()},
        }
        self.pair_seconds = math.nan
        self._before = self._searched = 0.0
        self._began = time.monotonic()
        self._search_began: float | None = None
        self._written = -math.inf
        self._read()
        self.tick(force=True)

    @property
    def resumed(self) -> float:
        """Seconds that earlier runs spent."""
        return self._before

    def elapsed(self) -> float:
        """Seconds spent so far, earlier runs included."""
        return self._before + time.monotonic() - self._began

    @contextmanager
    def search(self) -> Iterator[None]:
        """Count what is spent meanwhile as the search's."""
        self._search_began = time.monotonic()
        try:
            yield
        finally:
            self._searched = self._search_seconds()
            self._search_began = None

    def besides(self) -> float:
        """Seconds spent on other things than the search, earlier runs included."""
        return self.elapsed() - self._search_seconds()

    def _search_seconds(self) -> float:
        began = self._search_began
        return self._searched + (0.0 if began is None else time.monotonic() - began)

    def tick(self, force: bool = False) -> None:
        """Write down the seconds, every now and then."""
        now = time.monotonic()
        if not force and now < self._written + _TICK:
            return
        self._written = now
        content = {
            "identity": self._identity,
            "seconds": self.elapsed(),
            "search_seconds": self._search_seconds(),
            "pair_seconds": self.pair_seconds if math.isfinite(self.pair_seconds) else None,
        }
        write_atomically(self._file, lambda path: write_text(path, json.dumps(content) + "\n"))

    def _read(self) -> None:
        if not self._file.exists():
            return
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            identity, seconds = dict(content["identity"]), float(content["seconds"])
            searched = float(content.get("search_seconds", seconds))
            pair = content["pair_seconds"]
            self.pair_seconds = math.nan if pair is None else float(pair)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                "is damaged; delete the folder to begin anew", where=str(self._file)
            ) from error
        differs = [key for key, value in self._identity.items() if identity.get(key) != value]
        if differs:
            raise InputError(
                f"belongs to an optimisation with another {' and '.join(differs)}; choose another "
                "workdir, or delete it to begin anew",
                where=f"folder '{self._file.parent}'",
            )
        self._before, self._searched = seconds, searched


def seeds_of(seed: int) -> dict[str, range]:
    """Return the environment's seeds of every purpose; no two overlap, nor do two optimisations'.

    Optimisation seeds from 1,000 on share theirs with smaller ones, so that every seed of an
    environment fits into 31 bits.
    """
    first = SEEDS_FROM + _SPAN * (seed % 1000)
    return {
        purpose: range(first + _ROOM * k, first + _ROOM * (k + 1))
        for k, purpose in enumerate(_PURPOSES)
    }
