"""Open a run's folder and read from it what is needed, when it is needed."""

from __future__ import annotations

import html
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import FileFormatError, InputError, UnknownNameError
from eventsim.recording import (
    COUNTER_COLUMNS,
    COUNTERS,
    EVENT_COLUMNS,
    EVENTS,
    HEADER,
    NETWORK,
    SCHEMA,
    STARTED,
)
from eventsim.run_json import read_json, read_run

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from eventsim.network import Network


class Trace:
    """A run's folder, opened lazily: as `Run.save` or a `ParquetRecorder` wrote it.

    Opening reads run.json and the footers of the Parquet files, no rows. A recording that was
    cut short, by a kill say, opens up to its last whole part: `complete` is then False, `notes`
    say what is missing, and a warning does.

    Parameters
    ----------
    folder : path

    Attributes
    ----------
    folder : Path
    data : dict or None
        run.json; None if there is none, as after a kill: `eventsim.analysis.figures.run_data` then
        makes it from what was recorded.
    started : dict or None
        run.part.json, which a run leaves until it has figures.
    populations : tuple of str
        Names, in network order.
    sizes : int64 array of shape (P,)
        Neurons of each.
    step_seconds : float or None
    complete : bool
    notes : tuple of str

    Raises
    ------
    UnknownNameError
        If there is no such folder, or no run in it.
    FileFormatError
        If a file is damaged or foreign; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network, Simulator
    >>> from eventsim.recording import ParquetRecorder
    >>> from eventsim.records import Trace
    >>> with ParquetRecorder("a-run") as recorder:
    ...     simulator = Simulator(Network.from_arrays([np.ones((3, 2))]), hooks=[recorder])
    ...     _ = simulator.run(np.array([[1.0, 2.0], [1.0, 3.0]]))
    >>> trace = Trace("a-run")
    >>> trace
    <Trace 'a-run': 2 populations, 3 events, 2 steps>
    >>> trace.events.select(population="input", steps=(1, 2)).to_numpy(["neuron", "value"])
    {'neuron': array([1]), 'value': array([1.])}
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UnknownNameError(
                f"there is no run in '{self.folder}': it is not a folder; give the DIR of "
                "`eventsim run --out DIR`"
            )
        self.notes: tuple[str, ...] = ()
        self.complete = True
        run, header = self.folder / "run.json", self.folder / HEADER
        self.data: dict[str, Any] | None = read_run(run) if run.is_file() else None
        started = self.folder / STARTED
        self.started = read_json(started) if started.is_file() else None
        recorded = _read_header(header) if header.is_file() else None
        if self.data is not None:
            rows = [(layer["name"], layer["neurons"]) for layer in self.data["layers"]]
            self.step_seconds: float | None = self.data["step_seconds"]
        elif recorded is not None:
            rows = [(row["name"], row["neurons"]) for row in recorded["populations"]]
            self.step_seconds = recorded["step_seconds"]
        else:
            raise UnknownNameError(
                f"there is no run in '{self.folder}': neither run.json nor {HEADER} is there"
            )
        self.populations = tuple(str(name) for name, _ in rows)
        self.sizes = np.array([n for _, n in rows], np.int64)
        self._events = self._open(EVENTS, EVENT_COLUMNS)
        self._counters = self._open(COUNTERS, COUNTER_COLUMNS)
        # With both, the run ended before it could remove what its figures have replaced.
        ended = self.data is not None and self.started is not None
        if recorded is not None and not recorded["complete"] and not ended:
            self.complete = False
            self.notes += (
                f"the recording was cut short: {len(self._events or ())} events and "
                f"{len(self._counters or ()) // max(len(rows), 1)} steps are in whole parts, and "
                "what came after them is lost",
            )
        if self.data is not None and self.data["interrupted"]:
            self.notes += ("the run was interrupted: its last episode is not whole",)
        if not self.complete:
            warnings.warn(f"{self.folder}: {'; '.join(self.notes)}", stacklevel=2)

    @property
    def events(self) -> Records:
        """A row per event: episode, step, time (s), population, neuron and value.

        Raises
        ------
        InputError
            If the run has none.
        """
        if self._events is None:
            raise InputError(
                f"the run in '{self.folder}' has no events; run it with --out DIR, or with "
                "record_events=True"
            )
        return self._events

    @property
    def network(self) -> Network | None:
        """The network as it ran; None if the folder does not hold it.

        Raises
        ------
        FileFormatError
            If its file is damaged, or of another run.
        """
        path = self.folder / NETWORK
        if not path.is_file():
            return None
        from eventsim import files

        network = files.load(path).network
        found = [(p.name, p.size) for p in network.populations]
        if found != list(zip(self.populations, self.sizes.tolist(), strict=True)):
            raise FileFormatError("is of another run: its populations differ", where=str(path))
        return network

    @property
    def has_events(self) -> bool:
        """Whether events were recorded."""
        return self._events is not None

    @property
    def counters(self) -> Records:
        """A row per step and population: evaluations, events, MACs, ACs; reward, joules if known.

        Raises
        ------
        InputError
            If the run has none.
        """
        if self._counters is None:
            raise InputError(f"the run in '{self.folder}' has no counters; run it again with --out")
        return self._counters

    @property
    def has_counters(self) -> bool:
        """Whether counters are there."""
        return self._counters is not None

    def _open(self, kind: str, columns: tuple[str, ...]) -> Records | None:
        single = self.folder / f"{kind}.parquet"
        if single.is_file():
            paths: list[Path] = [single]
        else:
            paths = sorted((self.folder / kind).glob("part-*.parquet"))
            if not paths and not (self.folder / kind).is_dir():
                return None
        whole: list[Path] = []
        n_rows = 0
        for path in paths:
            rows = _rows(path, columns)
            if rows is None:
                if path == single:
                    raise FileFormatError(
                        "is not a whole Parquet file; run again, or restore it from a copy",
                        where=str(path),
                    )
                self.complete = False
                self.notes += (
                    f"{kind} end before {path.name}, which is damaged "
                    f"({len(paths) - len(whole)} of {len(paths)} parts are left out)",
                )
                break
            whole.append(path)
            n_rows += rows
        return Records(tuple(whole), self.populations, columns, n_rows)

    def __repr__(self) -> str:
        counts = [f"{len(self.populations)} populations"]
        counts += [f"{len(self._events)} events"] if self._events is not None else []
        if self._counters is not None:
            counts.append(f"{len(self._counters) // max(len(self.populations), 1)} steps")
        cut = "" if self.complete else ", cut short"
        return f"<Trace '{self.folder}': {', '.join(counts)}{cut}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left">{html.escape(name)}</th>'
            f"<td>{size}</td></tr>"
            for name, size in zip(self.populations, self.sizes, strict=True)
        )
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (
            f"<div><p><b>{html.escape(repr(self))}</b></p><table><thead><tr>"
            '<th scope="col">population</th><th scope="col">neurons</th></tr></thead>'
            f"<tbody>{rows}</tbody></table>{notes}</div>"
        )


@dataclass(frozen=True, eq=False)
class Records:
    """Rows on disk, and a choice among them; nothing is read until one of ``to_...`` is called.

    Parameters
    ----------
    paths : tuple of Path
        Parquet files, in order.
    populations : tuple of str
    columns : tuple of str
        Those every file has; a file may have more.
    n_rows : int
        Of all files, before any choice.
    """

    paths: tuple[Path, ...]
    populations: tuple[str, ...]
    columns: tuple[str, ...]
    n_rows: int
    _episode: int | None = None
    _population: str | None = None
    _steps: tuple[int, int] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Columns that the files have."""
        return tuple(self._named(None))

    def __len__(self) -> int:
        if self._chosen() is None:
            return self.n_rows
        return int(self._dataset().count_rows(filter=self._chosen())) if self.paths else 0

    def select(
        self,
        *,
        episode: int | None = None,
        population: str | None = None,
        steps: tuple[int, int] | None = None,
    ) -> Records:
        """Choose rows; what is None stays as it was chosen before.

        Parameters
        ----------
        episode : int, optional
        population : str, optional
        steps : (int, int), optional
            First step, and the one after the last.

        Raises
        ------
        UnknownNameError
            If there is no such population.
        """
        if population is not None and population not in self.populations:
            raise UnknownNameError(
                f"there is no population {population!r}; there are {', '.join(self.populations)}"
            )
        return replace(
            self,
            _episode=self._episode if episode is None else int(episode),
            _population=self._population if population is None else population,
            _steps=self._steps if steps is None else (int(steps[0]), int(steps[1])),
        )

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read as an Arrow table; populations are a dictionary of names.

        Raises
        ------
        UnknownNameError
            If there is no such column.
        FileFormatError
            If a file is damaged.
        """
        import pyarrow as pa

        if not self.paths:
            empty = {name: np.zeros(0, np.int64) for name in self._named(columns)}
            return pa.table(empty)
        with _reading(self.paths):
            return self._dataset().to_table(columns=self._named(columns), filter=self._chosen())

    def to_numpy(self, columns: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """Read as arrays; populations are indices into `populations`, as in `EventRecorder`.

        Raises
        ------
        UnknownNameError
            If there is no such column.
        FileFormatError
            If a file is damaged, or names a population that the run does not have.
        """
        parts = list(self.chunks(columns))
        if parts:
            return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {
            name: np.zeros(0, np.float64 if name in ("time", "value") else np.int64)
            for name in self._named(columns)
        }

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read as a DataFrame; populations are a categorical column."""
        import pandas as pd

        frame: pd.DataFrame = self.to_arrow(columns).to_pandas()
        if "population" in frame.columns:
            kind = pd.CategoricalDtype(list(self.populations))
            frame["population"] = frame["population"].astype(kind)
        return frame

    def chunks(
        self, columns: Sequence[str] | None = None, rows: int = 1 << 20
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Read as in `to_numpy`, at most `rows` rows at a time."""
        if not self.paths:
            return
        names = self._named(columns)
        with _reading(self.paths):
            # Little is read ahead, so that memory is bounded by the rows asked for.
            scanner = self._dataset().scanner(
                columns=names,
                filter=self._chosen(),
                batch_size=rows,
                batch_readahead=1,
                fragment_readahead=1,
            )
            for batch in scanner.to_batches():
                if batch.num_rows:
                    yield {name: self._array(name, batch.column(name)) for name in names}

    def _named(self, columns: Sequence[str] | None) -> list[str]:
        available = list(self.columns)
        if self.paths:
            available = self._dataset().schema.names
        if columns is None:
            return available
        for name in columns:
            if name not in available:
                raise UnknownNameError(f"no column {name!r}; there are {', '.join(available)}")
        return list(columns)

    def _dataset(self) -> Any:
        import pyarrow.dataset as ds

        layout = ds.ParquetFileFormat(dictionary_columns=["population"])
        return ds.dataset([str(path) for path in self.paths], format=layout)

    def _chosen(self) -> Any:
        """Return the choice as an expression that also skips row groups, or None."""
        import pyarrow.compute as pc

        terms = []
        if self._episode is not None:
            terms.append(pc.field("episode") == self._episode)
        if self._population is not None:
            terms.append(pc.field("population").cast("string") == self._population)
        if self._steps is not None:
            terms.append(pc.field("step") >= self._steps[0])
            terms.append(pc.field("step") < self._steps[1])
        chosen = None
        for term in terms:
            chosen = term if chosen is None else chosen & term
        return chosen

    def _array(self, name: str, column: Any) -> NDArray[Any]:
        if name != "population":
            array: NDArray[Any] = column.to_numpy(zero_copy_only=False)
            return array
        known = {text: k for k, text in enumerate(self.populations)}
        codes = [known.get(text, -1) for text in column.dictionary.to_pylist()]
        indices = column.indices.to_numpy(zero_copy_only=False)
        found = np.array(codes, np.int64)[indices] if codes else np.zeros(0, np.int64)
        if (found < 0).any():
            raise FileFormatError(
                "names a population that the run does not have; the files are of different runs",
                where=str(self.paths[0].parent),
            )
        return found


class _reading:  # noqa: N801
    """Turn what Arrow raises while it reads into an error that names the place."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._where = str(paths[0] if len(paths) == 1 else paths[0].parent)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        import pyarrow as pa

        if isinstance(error, pa.ArrowException | OSError):
            reason = str(error).splitlines()[0]
            raise FileFormatError(f"cannot be read ({reason})", where=self._where) from error


def _rows(path: Path, columns: tuple[str, ...]) -> int | None:
    """Rows of a Parquet file from its footer; None if it is not whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names, rows = file.schema_arrow.names, int(file.metadata.num_rows)
    except (pa.ArrowException, OSError):
        return None
    missing = [name for name in columns if name not in names]
    if missing:
        raise FileFormatError(
            f"has no column {', '.join(missing)}; it was not written by eventsim", where=str(path)
        )
    return rows


def _read_header(path: Path) -> Mapping[str, Any]:
    header = read_json(path)
    populations = header.get("populations")
    fits = (
        header.get("schema") == SCHEMA
        and isinstance(header.get("complete"), bool)
        and isinstance(header.get("step_seconds"), int | float)
        and isinstance(populations, list)
        and all(
            isinstance(p, dict)
            and isinstance(p.get("name"), str)
            and isinstance(p.get("neurons"), int)
            for p in populations
        )
    )
    if not fits:
        raise FileFormatError(f"is not of the schema {SCHEMA}", where=str(path))
    return header
