"""The trace event format of Chrome, held against a file: a checker that knows nothing of eventsim.

By the published description ("Trace Event Format", Duffy and others, Google, 2016): phases, the
fields that each needs, what metadata events say, and slices that nest on their thread. Where
Perfetto is stricter than the text, so is this: it keeps time in whole nanoseconds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

_PHASES = frozenset("BEXiICbnestfPNODMVvRcab()")
_METADATA = {
    "process_name": ("name", str),
    "process_labels": ("labels", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}
Track = tuple[int, int]


def check_trace(data: Any) -> None:
    """Assert that a parsed file is a trace in the JSON object format."""
    assert isinstance(data, dict)
    entries = data.get("traceEvents")
    assert isinstance(entries, list)
    assert data.get("displayTimeUnit", "ms") in ("ms", "ns")
    assert isinstance(data.get("otherData", {}), dict)
    named: dict[tuple[str, int, int], Any] = {}
    open_slices: dict[Track, list[str]] = defaultdict(list)
    complete: dict[Track, list[tuple[int, int]]] = defaultdict(list)
    last: dict[tuple[str, int, Any], float] = {}
    series: dict[tuple[int, str], frozenset[str]] = {}
    for entry in entries:
        assert isinstance(entry, dict)
        phase = entry.get("ph")
        assert phase in _PHASES, entry
        assert isinstance(entry.get("name"), str) or phase == "E", entry
        assert _whole(entry.get("pid")), entry
        assert _whole(entry.get("tid", 0)), entry
        assert isinstance(entry.get("args", {}), Mapping), entry
        if phase == "M":
            key, kind = _METADATA[entry["name"]]
            assert list(entry["args"]) == [key], entry
            assert type(entry["args"][key]) is kind, entry
            place = entry["name"], entry["pid"], entry.get("tid", 0)
            assert place not in named, f"{place} is named twice"
            named[place] = entry["args"][key]
            continue
        start = entry.get("ts")
        assert _time(start), entry
        track = entry["pid"], entry.get("tid", 0)
        line = (phase, entry["pid"], entry["name"] if phase == "C" else entry.get("tid", 0))
        assert start >= last.get(line, 0.0), f"time runs back: {entry}"
        last[line] = start
        if phase in "XBE":
            assert "tid" in entry, entry
        if phase == "X":
            assert _time(entry.get("dur")), entry
            complete[track].append((_ns(start), _ns(start) + _ns(entry["dur"])))
        elif phase == "B":
            open_slices[track].append(entry["name"])
        elif phase == "E":
            assert open_slices[track], f"nothing to end: {entry}"
            assert open_slices[track].pop() == entry.get("name", None) or "name" not in entry
        elif phase == "C":
            values = entry.get("args")
            assert values, entry
            assert all(_number(value) for value in values.values()), entry
            counter = entry["pid"], entry["name"]
            assert series.setdefault(counter, frozenset(values)) == frozenset(values), entry
    assert not any(open_slices.values()), "slices that never end"
    for track, slices in complete.items():
        assert ("thread_name", *track) in named, f"track {track} has no name"
        assert ("process_name", track[0], 0) in named, f"process {track[0]} has no name"
        _check_nesting(slices)
    ranks = [value for (name, *_), value in named.items() if name == "thread_sort_index"]
    assert len(set(ranks)) == len(ranks), "tracks that share a place"


def _check_nesting(slices: list[tuple[int, int]]) -> None:
    """Two slices of a thread lie apart, or one in the other."""
    inside: list[int] = []
    for start, end in sorted(slices, key=lambda s: (s[0], -s[1])):
        while inside and inside[-1] <= start:
            inside.pop()
        assert not inside or end <= inside[-1], f"the slice at {start} ns ends after its parent"
        inside.append(end)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _time(value: Any) -> bool:
    """Microseconds, not below 0, in whole nanoseconds."""
    return _number(value) and value >= 0 and abs(value * 1000 - _ns(value)) < 1e-3


def _ns(microseconds: float) -> int:
    return round(microseconds * 1000)
