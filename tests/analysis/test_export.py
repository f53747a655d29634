"""Runs in the formats of other tools say what the run says."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import runner
from eventsim.analysis.export import to_chrome_trace, to_neo
from eventsim.errors import InputError, MissingDependencyError
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input
from eventsim.recording import ParquetRecorder
from eventsim.result import Run
from eventsim.simulator import Simulator
from tests.tiny import cartpole_policy
from tests.trace_format import check_trace

SCRIPTED = "tests.tiny:Tiny-v0"


@pytest.fixture(scope="module")
def run() -> Run:
    return runner.run(cartpole_policy(0.3), SCRIPTED, episodes=3, progress=False)


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Path:
    run.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_timeline_has_a_track_per_layer_and_a_slice_per_step(run: Run, tmp_path: Path) -> None:
    written = to_chrome_trace(run, tmp_path / "trace.json")
    data = json.loads(written.read_text(encoding="utf-8"))
    entries = data["traceEvents"]
    assert {e["ph"] for e in entries} == {"M", "X", "C"}
    tracks = {e["tid"]: e["args"]["name"] for e in entries if e["name"] == "thread_name"}
    assert tracks == {0: "episodes", 1: "input", 2: "hidden1", 3: "output"}
    for track in (1, 2, 3):
        slices = [e for e in entries if e["ph"] == "X" and e["tid"] == track]
        assert len(slices) == 60
        assert [e["args"]["events"] for e in slices] == run.counters.events[:, track - 1].tolist()
        assert all(e["dur"] == pytest.approx(20_000) for e in slices)
        ends = [e["ts"] + e["dur"] for e in slices]
        assert ends[:-1] == pytest.approx([e["ts"] for e in slices[1:]])
    episodes = [e for e in entries if e["ph"] == "X" and e["tid"] == 0]
    assert [e["name"] for e in episodes] == ["episode 0", "episode 1", "episode 2"]
    assert sum(e["dur"] for e in episodes) == pytest.approx(60 * 20_000)
    counted = [e["args"] for e in entries if e["ph"] == "C"]
    assert [sum(row.values()) for row in counted] == run.counters.synops.tolist()
    assert data["otherData"]["policy"] == "tiny"
    check_trace(data)
    for name in ("evaluations", "events", "macs", "acs"):
        total = sum(e["args"][name] for e in entries if e["ph"] == "X" and e["tid"])
        assert total == getattr(run.counters, name).sum()


@pytest.mark.parametrize("seconds", [1 / 60, 1 / 3, 1e-6 / 7, 0.1, 1e3 / 7, None])
def test_a_timeline_keeps_to_the_format(seconds: float | None, run: Run, tmp_path: Path) -> None:
    data = run.to_dict() | {"step_seconds": seconds}
    timed = Run(data, run.network, run.counters, run.joules, run.events)
    written = json.loads(to_chrome_trace(timed, tmp_path / "trace.json").read_text())
    check_trace(written)
    slices = [e for e in written["traceEvents"] if e["ph"] == "X" and e["tid"] == 1]
    duration = 1e6 * (seconds or 1e-3)
    assert [e["ts"] for e in slices] == pytest.approx(
        [k * duration for k in range(60)], rel=0, abs=1e-3
    )


def test_strange_names_keep_to_the_format(tmp_path: Path) -> None:
    names = ('"\\', "\u202e</script>", "e\u0301 \U0001f9e0")
    populations = tuple(
        Population(n, 2, Input() if not k else Delta()) for k, n in enumerate(names)
    )
    projections = tuple(Projection(a, b, np.ones((2, 2))) for a, b in itertools.pairwise(names))
    with ParquetRecorder(tmp_path / "run") as recorder:
        Simulator(Network(populations, projections), hooks=[recorder]).run(np.eye(2))
    path = to_chrome_trace(tmp_path / "run", tmp_path / "trace.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    check_trace(data)
    tracks = [e["args"]["name"] for e in data["traceEvents"] if e["name"] == "thread_name"]
    assert tracks == ["episodes", *names]


BAD: list[tuple[str, dict[str, Any]]] = [
    ("phase", {"ph": "Q"}),
    ("thread", {"tid": "1"}),
    ("process", {"pid": None}),
    ("start", {"ts": -1}),
    ("duration", {"dur": float("nan")}),
    ("order", {"ts": 5.0}),
    ("overlap", {"dur": 15.0}),
    ("track", {"tid": 9}),
]


@pytest.mark.parametrize("change", [change for _, change in BAD], ids=[name for name, _ in BAD])
def test_the_checker_finds_what_is_wrong(change: dict[str, Any]) -> None:
    def meta(name: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"ph": "M", "pid": 1, "tid": 0, "name": name, "args": args}

    def slice_(start: float) -> dict[str, Any]:
        return {"ph": "X", "pid": 1, "tid": 0, "name": "s", "ts": start, "dur": 10.0, "args": {}}

    good = [meta("process_name", {"name": "p"}), meta("thread_name", {"name": "t"})]
    good += [slice_(10.0), slice_(20.0), slice_(30.0)]
    check_trace({"traceEvents": good})
    bad = [*good[:3], good[3] | change, good[4]]
    with pytest.raises(AssertionError):
        check_trace({"traceEvents": bad})


def test_a_folder_gives_the_same_timeline(run: Run, saved: Path, tmp_path: Path) -> None:
    one = to_chrome_trace(run, tmp_path / "one.json").read_bytes()
    assert to_chrome_trace(saved, tmp_path / "two.json").read_bytes() == one


def test_a_recording_without_figures_has_a_timeline(tmp_path: Path) -> None:
    network = Network.from_arrays([np.ones((3, 2))])
    with ParquetRecorder(tmp_path / "run", rows=5) as recorder:
        Simulator(network, hooks=[recorder], dt=0.5).run(np.arange(8.0).reshape(4, 2))
    path = to_chrome_trace(tmp_path / "run", tmp_path / "trace.json")
    slices = [e for e in json.loads(path.read_text())["traceEvents"] if e["ph"] == "X"]
    assert len(slices) == 4 * 2 + 1


def test_spike_trains_are_the_events(run: Run, saved: Path) -> None:
    pytest.importorskip("neo", reason="needs Neo (extra spikes)")
    events = run.events
    assert events is not None
    for block in (to_neo(run), to_neo(saved)):
        assert [s.name for s in block.segments] == ["episode 0", "episode 1", "episode 2"]
        assert block.annotations["env"] == SCRIPTED
        for episode, segment in enumerate(block.segments):
            assert len(segment.spiketrains) == 14
            for train in segment.spiketrains:
                name, neuron = train.annotations["population"], train.annotations["neuron"]
                mine = (
                    (events["episode"] == episode)
                    & (events["population"] == run.counters.populations.index(name))
                    & (events["neuron"] == neuron)
                )
                seconds = train.rescale("s").magnitude
                np.testing.assert_allclose(seconds, events["time"][mine], atol=1e-12)
                np.testing.assert_array_equal(
                    train.array_annotations["value"], events["value"][mine]
                )
                assert float(train.t_stop.rescale("s")) == pytest.approx(0.4)
    (only,) = to_neo(run, episodes=[2]).segments
    assert only.index == 2
    with pytest.raises(InputError, match="no episode 3; there are 3, from 0"):
        to_neo(run, episodes=[3])


def test_without_neo_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "neo", None)
    with pytest.raises(MissingDependencyError, match=r"eventsim\[spikes\]"):
        to_neo(run)


def test_what_was_not_recorded_is_said(tmp_path: Path) -> None:
    pytest.importorskip("neo", reason="needs Neo (extra spikes)")
    run = runner.run(
        cartpole_policy(0.3), SCRIPTED, episodes=1, progress=False, record_events=False
    )
    with pytest.raises(InputError, match="not recorded"):
        to_neo(run)
    run.save(tmp_path)
    (tmp_path / "counters.parquet").unlink()
    with pytest.raises(InputError, match="no counters"):
        to_chrome_trace(tmp_path, tmp_path / "trace.json")
    assert not (tmp_path / "trace.json").exists()
