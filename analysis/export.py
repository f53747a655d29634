"""Runs for other tools: Chrome trace JSON, which Perfetto opens, and Neo blocks.

Parquet needs no export: the files of a run's folder are Parquet, which pandas, Polars and DuckDB
read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.analysis.report_data import Finished, Source
from eventsim.errors import InputError, MissingDependencyError
from eventsim.output import write_atomically
from eventsim.records import Trace

if TYPE_CHECKING:
    import neo

_COUNTS = ("evaluations", "events", "macs", "acs")


def to_chrome_trace(run: Source, out: str | os.PathLike[str]) -> Path:
    """Write a run in the Chrome trace format: a track per layer, steps as slices.

    Time is simulated time; a step whose duration is not known takes one millisecond, and the
    file's ``otherData`` says so. A slice has the step's counters as arguments, and a counter
    track shows the synaptic operations of every layer.

    Parameters
    ----------
    run : Run, Trace or path
    out : path
        Such as ``trace.json``; open it at ui.perfetto.dev, or in chrome://tracing.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If there are no counters of single steps.
    UnknownNameError, FileFormatError
        If a folder holds no run, or a damaged one.
    OutputError
        If `out` cannot be written.
    """
    opened = _open(run)
    target = Path(out)

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            other = json.dumps({"tool": "eventsim", **opened.about})
            file.write(f'{{"displayTimeUnit":"ms","otherData":{other},"traceEvents":[\n')
            for k, entry in enumerate(_entries(opened)):
                file.write((",\n" if k else "") + json.dumps(entry, separators=(",", ":")))
            file.write("\n]}\n")

    write_atomically(target, write)
    return target


def to_neo(run: Source, episodes: list[int] | None = None) -> neo.Block:
    """Return a run as a Neo block: a segment per episode, a spike train per neuron.

    Each train has the transmitted changes as array annotation ``value``, and its ``population``
    and ``neuron`` as annotations; neurons without events have empty trains. Without a known
    duration of a step, times count steps, as the block's annotation ``time_unit`` then says.

    Parameters
    ----------
    run : Run, Trace or path
    episodes : list of int, optional
        Default all.

    Raises
    ------
    MissingDependencyError
        If Neo is not installed.
    InputError
        If events or counters were not recorded, or there is no such episode.
    """
    try:
        import neo
        import quantities as pq
    except ImportError as error:
        raise MissingDependencyError(
            "spike trains need Neo; install it with pip install 'eventsim[spikes]'"
        ) from error
    opened = _open(run)
    events = opened.events()
    lengths: dict[int, int] = {}
    for episode, step, _ in opened.steps():
        lengths[episode] = max(lengths.get(episode, 0), step + 1)
    chosen = sorted(lengths) if episodes is None else episodes
    missing = [k for k in chosen if k not in lengths]
    if missing:
        raise InputError(
            f"there is no episode {missing[0]}; there are {len(lengths)}, from 0", field="episodes"
        )
    seconds = opened.seconds or 1.0
    unit = "s" if opened.seconds else "steps"
    block = neo.Block(name=opened.about.get("policy"), time_unit=unit, **_texts(opened.about))
    first = np.cumsum([0, *opened.sizes])
    overall = first[events["population"]] + events["neuron"]
    order = np.lexsort((events["step"], overall, events["episode"]))
    key = events["episode"][order] * first[-1] + overall[order]
    for episode in chosen:
        segment = neo.Segment(name=f"episode {episode}", index=episode)
        stop = lengths[episode] * seconds * pq.s
        bounds = np.searchsorted(key, episode * first[-1] + np.arange(first[-1] + 1))
        for population, name in enumerate(opened.names):
            for neuron in range(opened.sizes[population]):
                k = int(first[population]) + neuron
                mine = order[bounds[k] : bounds[k + 1]]
                train = neo.SpikeTrain(
                    events["step"][mine] * seconds * pq.s,
                    t_stop=stop,
                    name=f"{name}[{neuron}]",
                    array_annotations={"value": events["value"][mine]},
                    population=name,
                    neuron=neuron,
                )
                segment.spiketrains.append(train)
        block.segments.append(segment)
    return block


@dataclass(frozen=True, eq=False)
class _Opened:
    """A run in memory or on disk, asked for the same things."""

    run: Finished | Trace
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    seconds: float | None
    about: dict[str, Any]

    def steps(self) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
        """Episode, step and counts, shape (P, 4), of every step."""
        if not isinstance(self.run, Trace):
            counters = self.run.counters
            tables = np.stack([getattr(counters, name) for name in _COUNTS], axis=2)
            yield from zip(counters.episode.tolist(), counters.step.tolist(), tables, strict=True)
            return
        n = len(self.names)
        columns = ("episode", "step", *_COUNTS)
        rest = np.zeros((0, len(columns)), np.int64)
        for chunk in self.run.counters.chunks(columns):
            rows = np.concatenate([rest, np.stack([chunk[name] for name in columns], axis=1)])
            whole = len(rows) // n * n
            rest = rows[whole:]
            for table in rows[:whole].reshape(-1, n, len(columns)):
                yield int(table[0, 0]), int(table[0, 1]), table[:, 2:]

    def events(self) -> dict[str, NDArray[Any]]:
        """Return all events."""
        names = ["episode", "step", "population", "neuron", "value"]
        if isinstance(self.run, Trace):
            return self.run.events.to_numpy(names)
        events = self.run.events
        if events is None:
            raise InputError("the events of this run were not recorded; use record_events=True")
        return {name: events[name] for name in names}


def _open(run: Source) -> _Opened:
    if isinstance(run, str | os.PathLike):
        run = Trace(run)
    if isinstance(run, Trace):
        names, sizes = run.populations, tuple(int(n) for n in run.sizes)
        data, seconds = run.data or run.started or {}, run.step_seconds
    else:
        names = tuple(p.name for p in run.network.populations)
        sizes = tuple(p.size for p in run.network.populations)
        data, seconds = run.data, run.data["step_seconds"]
    told = ("policy", "env", "seed", "versions")
    about: dict[str, Any] = {name: data[name] for name in told if name in data}
    return _Opened(run, names, sizes, seconds, about)


def _entries(run: _Opened) -> Iterator[dict[str, Any]]:
    """Trace events: names of the tracks, then slices; times in microseconds."""
    duration = 1e9 * run.seconds if run.seconds else 1e6  # of a step, in ns
    title = " in ".join(str(run.about[k]) for k in ("policy", "env") if k in run.about)
    unit = "" if run.seconds else " (a step is shown as 1 ms: its duration is not known)"
    yield _meta("process_name", 0, {"name": f"{title or 'eventsim run'}{unit}"})
    for k, name in enumerate(("episodes", *run.names)):
        yield _meta("thread_name", k, {"name": name})
        yield _meta("thread_sort_index", k, {"sort_index": k})
    at, began, last = 0, 0, None

    def slice_of(name: str, track: int, first: int, end: int, **arguments: Any) -> dict[str, Any]:
        # Whole nanoseconds, as Perfetto keeps them: a slice ends where the next one begins.
        start, stop = round(first * duration), round(end * duration)
        return {
            **{"name": name, "ph": "X", "pid": 1, "tid": track, "ts": start / 1e3},
            "dur": (stop - start) / 1e3,
            **({"args": arguments} if arguments else {}),
        }

    for episode, step, table in run.steps():
        if last is not None and episode != last:
            yield slice_of(f"episode {last}", 0, began, at)
            began = at
        last = episode
        for k, counts in enumerate(table.tolist()):
            arguments = dict(zip(_COUNTS, counts, strict=True))
            yield slice_of(f"step {step}", k + 1, at, at + 1, episode=episode, **arguments)
        synops = {name: int(row[2] + row[3]) for name, row in zip(run.names, table, strict=True)}
        time = round(at * duration) / 1e3
        yield {"name": "synops", "ph": "C", "pid": 1, "ts": time, "args": synops}
        at += 1
    if last is not None:
        yield slice_of(f"episode {last}", 0, began, at)


def _meta(name: str, track: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": 1, "tid": track, "args": arguments}


def _texts(about: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in about.items() if isinstance(v, str | int)}
