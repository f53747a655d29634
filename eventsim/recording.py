"""Record a run to disk while it goes on: Parquet parts, from buffers that are filled and drained.

A part is one row group in a file of its own, renamed when it is whole. A kill therefore costs the
rows of the last buffer and no more, and `eventsim.records.Trace` opens the rest.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, OutputError
from eventsim.output import Coded, prepare_folder, write_atomically, write_parquet, write_text
from eventsim.trace import Counters, Events, Hook

if TYPE_CHECKING:
    from eventsim.simulator import Simulator

SCHEMA = "eventsim-recording/1"
HEADER = "recording.json"
STARTED, NETWORK = "run.part.json", "network.safetensors"
EVENTS, COUNTERS = "events", "counters"

EVENT_COLUMNS = ("episode", "step", "time", "population", "neuron", "value")
COUNTER_COLUMNS = ("episode", "step", "population", "evaluations", "events", "macs", "acs")
_FLOATS = ("time", "value", "reward", "action")

# What an earlier run may have left in the folder: none of it belongs to the new one.
_EARLIER = (
    *("run.json", "counters.parquet", "events.parquet", "raster.png"),
    *(HEADER, STARTED, NETWORK),
)
_PART = re.compile(r"part-\d{6}\.parquet|\.part-\d{6}\.tmp")


class ParquetRecorder(Hook):
    """Write every event and every step's counters to a folder, in bounded memory.

    Rows go into buffers that are allocated once; a full buffer becomes a Parquet file of one row
    group, ``events/part-000000.parquet`` and so on, which pandas, Polars and DuckDB read as they
    stand. An episode is what lies between two resets; resets without a step in between count once.

    Parameters
    ----------
    folder : path
        Made if need be. The files that `Run.save` or an earlier recording left there are removed
        when the recording begins, since they tell of another run; nothing else is touched.
    rows : int, optional
        Rows of a part. A row of events takes 48 bytes of memory, and as much again for a moment
        while it is compressed.
    populations : sequence of str, optional
        Those whose events are recorded; default all. Counters are of all.

    Attributes
    ----------
    n_events, n_steps : int
        Recorded until now.

    Raises
    ------
    InputError
        If `rows` is below 1, or the recorder is given to a second simulator or used after `close`.
    OutputError
        If the folder or a file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network, Simulator
    >>> from eventsim.recording import ParquetRecorder
    >>> from eventsim.records import Trace
    >>> with ParquetRecorder("recorded") as recorder:
    ...     simulator = Simulator(Network.from_arrays([np.ones((3, 2))]), hooks=[recorder])
    ...     _ = simulator.run(np.array([[1.0, 2.0], [1.0, 3.0]]))
    >>> Trace("recorded").events.to_numpy(["step", "neuron", "value"])["value"]
    array([1., 2., 1.])
    """

    records_events: ClassVar[bool] = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        rows: int = 1 << 20,
        populations: Sequence[str] | None = None,
    ) -> None:
        if rows < 1:
            raise InputError(f"is {rows}; give at least 1", field="rows")
        self.folder = Path(folder)
        self._rows = int(rows)
        self._populations = None if populations is None else tuple(populations)
        self._chosen: NDArray[np.bool_] | None = None
        self._episode = -1
        self._fresh = True
        self._open = True
        self._written = (0, 0)  # parts of events and of counters
        self._header: dict[str, Any] = {}
        self._events: _Parts | None = None
        self._counters: _Parts | None = None

    @property
    def n_events(self) -> int:
        """Events recorded until now."""
        return 0 if self._events is None else self._events.n_rows

    @property
    def n_steps(self) -> int:
        """Steps recorded until now."""
        if self._counters is None:
            return 0
        return self._counters.n_rows // len(self._counters.names)

    def on_attach(self, simulator: Simulator) -> None:
        """Prepare the folder for the simulator's populations."""
        if self._events is not None:
            raise InputError(f"the recorder of {self.folder} already has a simulator; make another")
        self._prepare(simulator, COUNTER_COLUMNS)

    def _prepare(self, simulator: Simulator, counters: tuple[str, ...]) -> None:
        """Clear the folder, write the header and allocate the buffers."""
        populations = simulator.network.populations
        names = tuple(p.name for p in populations)
        if self._populations is not None:
            for name in self._populations:
                if name not in names:
                    raise InputError(
                        f"names {name!r}; the network has {', '.join(names)}", field="populations"
                    )
            self._chosen = np.array([name in self._populations for name in names])
        prepare_folder(self.folder)
        _clear(self.folder)
        self._header = {
            "schema": SCHEMA,
            "populations": [{"name": p.name, "neurons": p.size} for p in populations],
            "step_seconds": simulator.dt,
            "complete": False,
        }
        self._write_header()
        self._events = _Parts(self.folder / EVENTS, EVENT_COLUMNS, names, self._rows)
        self._counters = _Parts(self.folder / COUNTERS, counters, names, self._rows)

    def on_reset(self) -> None:
        """Let the next step begin a new episode."""
        self._fresh = True

    def on_events(self, events: Events) -> None:
        """Take the events of one or several steps."""
        parts = self._parts(self._events)
        self._begin()
        columns = {name: getattr(events, name) for name in EVENT_COLUMNS[1:]}
        count = len(events)
        if self._chosen is not None:
            mine = self._chosen[events.population]
            columns = {name: column[mine] for name, column in columns.items()}
            count = int(mine.sum())
        parts.extend(count, {"episode": self._episode, **columns})

    def on_step(self, step: int, counters: Counters) -> None:
        """Take the counters of a step, a row for each population."""
        parts = self._parts(self._counters)
        self._begin()
        size = len(parts.names)
        parts.extend(
            size,
            {
                "episode": self._episode,
                "step": step,
                "population": np.arange(size),
                "evaluations": counters.evaluations,
                "events": counters.events,
                "macs": counters.macs,
                "acs": counters.acs,
            },
        )
        self._together()

    def flush(self) -> None:
        """Write what the buffers hold, as parts that may be small."""
        for parts in (self._events, self._counters):
            if parts is not None:
                parts.flush()

    def close(self) -> None:
        """Write what is left, and mark the recording as complete; may be called twice."""
        if not self._open:
            return
        self._open = False
        self.flush()
        if self._events is not None:
            self._header |= {"complete": True, "events": self.n_events, "steps": self.n_steps}
            self._write_header()

    def __enter__(self) -> ParquetRecorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            # What was recorded is kept, but it is not the whole run.
            self._open = False
            self.flush()

    def _together(self) -> None:
        """Let one buffer follow when the other has gone to disk.

        After a kill, counters and events then end within one chunk of steps of each other.
        """
        if self._events is None or self._counters is None:
            return
        written = (self._events.number, self._counters.number)
        if written[0] != self._written[0]:
            self._counters.flush()
        elif written[1] != self._written[1]:
            self._events.flush()
        self._written = (self._events.number, self._counters.number)

    def _begin(self) -> None:
        if self._fresh:
            self._episode += 1
            self._fresh = False

    def _parts(self, parts: _Parts | None) -> _Parts:
        if parts is None or not self._open:
            raise InputError(
                f"the recorder of {self.folder} is closed, or has no simulator; make another"
            )
        return parts

    def _write_header(self) -> None:
        text = json.dumps(self._header, indent=2) + "\n"
        write_atomically(self.folder / HEADER, lambda path: write_text(path, text))


class _Parts:
    """Columns in preallocated buffers, drained to numbered files."""

    def __init__(
        self, folder: Path, columns: tuple[str, ...], names: tuple[str, ...], rows: int
    ) -> None:
        self.folder = prepare_folder(folder)
        self.names = names
        self.n_rows = 0
        self._buffers: dict[str, NDArray[Any]] = {
            name: np.empty(rows, np.float64 if name.startswith(_FLOATS) else np.int64)
            for name in columns
        }
        self._size = rows
        self._filled = 0
        self.number = 0  # of the next part

    def extend(self, count: int, columns: Mapping[str, Any]) -> None:
        """Append `count` rows; a column is an array of that length, or one value for all."""
        done = 0
        while done < count:
            n = min(count - done, self._size - self._filled)
            place = slice(self._filled, self._filled + n)
            for name, buffer in self._buffers.items():
                column = columns[name]
                whole = isinstance(column, np.ndarray)
                buffer[place] = column[done : done + n] if whole else column
            self._filled += n
            self.n_rows += n
            done += n
            if self._filled == self._size:
                self.flush()

    def flush(self) -> None:
        """Write the filled rows as the next part."""
        if not self._filled:
            return
        columns: dict[str, NDArray[Any] | Coded] = {
            name: buffer[: self._filled] for name, buffer in self._buffers.items()
        }
        columns["population"] = Coded(self._buffers["population"][: self._filled], self.names)
        path = self.folder / f"part-{self.number:06d}.parquet"
        # Not named .parquet before it is whole: a glob for *.parquet must not find it.
        temporary = self.folder / f".{path.stem}.tmp"
        try:
            write_parquet(temporary, columns)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(
                f"cannot be written ({error.strerror or error}); free space or choose another "
                "place: the parts before it are whole",
                where=str(path),
            ) from error
        self.number += 1
        self._filled = 0


def _clear(folder: Path) -> None:
    """Remove the files of an earlier run, by their names."""
    stale = [folder / name for name in _EARLIER]
    for inner in (EVENTS, COUNTERS):
        if (folder / inner).is_dir():
            stale += [path for path in (folder / inner).iterdir() if _PART.fullmatch(path.name)]
    for path in stale:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"is of an earlier run and cannot be removed ({error.strerror or error})",
                where=str(path),
            ) from error
