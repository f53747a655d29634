"""Runs on disk: recorded while they go on, opened lazily, and opened after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsim import runner
from eventsim.errors import FileFormatError, InputError, OutputError, UnknownNameError
from eventsim.network import Network
from eventsim.recording import ParquetRecorder
from eventsim.records import Trace
from eventsim.result import Run
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder, EventRecorder
from tests.tiny import cartpole_policy

ROOT = Path(__file__).resolve().parent.parent
SCRIPTED = "tests.tiny:Tiny-v0"
NETWORK = Network.from_arrays([np.ones((5, 3)), np.ones((2, 5))], thresholds=0.1)


def walk(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(steps, 3)).cumsum(axis=0)


def record(folder: Path, rows: int, steps: int = 300) -> tuple[EventRecorder, CounterRecorder]:
    """Record two episodes, in memory and on disk."""
    events, counters = EventRecorder(), CounterRecorder()
    with ParquetRecorder(folder, rows=rows) as recorder:
        simulator = Simulator(NETWORK, hooks=[events, counters, recorder], dt=0.25)
        simulator.run(walk(steps))
        simulator.reset()
        simulator.reset()
        for x in walk(7, 1):
            simulator.step(x)
    assert recorder.n_steps == steps + 7
    assert recorder.n_events == len(events)
    return events, counters


@settings(max_examples=15)
@given(rows=st.integers(1, 3000))
def test_recorded_is_what_happened(rows: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("recorded")
    events, counters = record(folder, rows, steps=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace = Trace(folder)
    assert trace.complete
    assert trace.notes == ()
    found, expected = trace.events.to_numpy(), events.to_arrays()
    # A reset without steps in between begins no episode.
    expected["episode"] = np.where(expected["episode"] == expected["episode"].min(), 0, 1)
    assert list(found) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column)
        assert found[name].dtype == column.dtype
    table = trace.counters.to_numpy()
    for k, name in enumerate(("evaluations", "events", "macs", "acs")):
        np.testing.assert_array_equal(
            table[name].reshape(-1, 3), getattr(trace_counters(counters), name), err_msg=str(k)
        )
    parts = sorted((folder / "events").glob("*.parquet"))
    assert len(parts) == len(list((folder / "events").iterdir()))


def trace_counters(counters: CounterRecorder) -> object:
    from eventsim.result import StepCounters

    names = tuple(p.name for p in NETWORK.populations)
    reward = np.zeros(len(counters.steps))
    return StepCounters(names, counters.episodes, counters.steps, reward, counters.table)


@pytest.fixture(scope="module")
def run() -> Run:
    return runner.run(cartpole_policy(0.3), SCRIPTED, episodes=3, progress=False)


@pytest.fixture
def saved(run: Run, tmp_path: Path) -> Path:
    run.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_saved_run_opens_with_all_its_arrays(run: Run, saved: Path) -> None:
    trace = Trace(saved)
    assert trace.data == run.to_dict()
    assert trace.populations == run.counters.populations
    assert trace.sizes.tolist() == [4, 8, 2]
    assert trace.step_seconds == 0.02
    assert run.events is not None
    for name, column in trace.events.to_numpy().items():
        np.testing.assert_array_equal(column, run.events[name])
    counters = trace.counters.to_numpy(["events", "macs"])
    np.testing.assert_array_equal(counters["events"].reshape(-1, 3), run.counters.events)
    frame = trace.events.to_pandas()
    assert list(frame["population"].cat.categories) == list(trace.populations)
    assert len(frame) == trace.events.to_arrow().num_rows == len(trace.events)
    joules = trace.counters.to_pandas()["joules_loihi"]
    np.testing.assert_array_equal(joules.to_numpy().reshape(-1, 3), run.joules["loihi"])
    assert "3 populations" in repr(trace)
    assert "<th" in trace._repr_html_()


def test_a_choice_reads_only_its_rows(run: Run, saved: Path) -> None:
    assert run.events is not None
    chosen = Trace(saved).events.select(episode=1, population="hidden1").select(steps=(3, 9))
    kept = (
        (run.events["episode"] == 1)
        & (run.events["population"] == 1)
        & (run.events["step"] >= 3)
        & (run.events["step"] < 9)
    )
    assert 0 < kept.sum() == len(chosen)
    found = chosen.to_numpy(["value", "population"])
    np.testing.assert_array_equal(found["value"], run.events["value"][kept])
    assert set(found["population"]) == {1}
    none = chosen.select(episode=99)
    assert len(none) == 0
    assert none.to_numpy()["value"].dtype == np.float64
    with pytest.raises(UnknownNameError, match="no population 'hidden9'"):
        chosen.select(population="hidden9")
    with pytest.raises(UnknownNameError, match="no column 'volume'; there are episode, step"):
        chosen.to_numpy(["volume"])


def test_chunks_are_bounded_and_whole(run: Run, saved: Path) -> None:
    chunks = list(Trace(saved).events.chunks(["value"], rows=7))
    assert max(len(chunk["value"]) for chunk in chunks) <= 7
    assert run.events is not None
    together = np.concatenate([chunk["value"] for chunk in chunks])
    np.testing.assert_array_equal(together, run.events["value"])


def test_a_killed_run_opens_up_to_its_last_whole_part(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
import numpy as np
from eventsim.recording import ParquetRecorder
from eventsim.simulator import Simulator
from tests.test_records import NETWORK, walk
recorder = ParquetRecorder({str(tmp_path / "run")!r}, rows=500)
simulator = Simulator(NETWORK, hooks=[recorder])
for x in walk(1000):
    simulator.step(x)
    if recorder.n_events > 1800:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert killed.returncode == -9
    with pytest.warns(UserWarning, match="the recording was cut short: "):
        trace = Trace(tmp_path / "run")
    assert not trace.complete
    assert "cut short" in repr(trace)
    expected = EventRecorder()
    Simulator(NETWORK, hooks=[expected]).run(walk(1000))
    found = trace.events.to_numpy()
    for name, column in expected.to_arrays().items():
        if name != "episode":
            np.testing.assert_array_equal(found[name], column[: len(trace.events)])
    # At most a buffer is lost.
    assert 1300 <= len(trace.events) <= 1800
    # The counters went to disk with the events: they end at the step of the last whole part.
    assert abs(trace.counters.to_numpy()["step"].max() - found["step"].max()) <= 1


def test_an_exception_leaves_what_was_recorded(tmp_path: Path) -> None:
    recorder = ParquetRecorder(tmp_path)
    simulator = Simulator(NETWORK, hooks=[recorder])
    simulator.run(walk(10))
    with pytest.raises(InputError, match="finite"), recorder:
        simulator.step(np.full(3, np.nan))
    with pytest.warns(UserWarning, match="cut short"):
        trace = Trace(tmp_path)
    assert len(trace.events) == recorder.n_events > 0


def test_parts_after_a_damaged_one_are_left_out(tmp_path: Path) -> None:
    record(tmp_path, 100)
    parts = sorted((tmp_path / "events").glob("*.parquet"))
    parts[2].write_bytes(parts[2].read_bytes()[:-20])
    with pytest.warns(UserWarning, match=r"events end before part-000002.parquet, which is dam"):
        trace = Trace(tmp_path)
    assert len(trace.events) == 200
    assert not trace.complete


def test_a_new_recording_replaces_an_earlier_run(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    record(saved, 50, steps=100)
    record(saved, 5000, steps=10)
    assert len(list((saved / "events").iterdir())) == 1
    assert Trace(saved).data is None
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_recorder_serves_one_simulator_once(tmp_path: Path) -> None:
    with ParquetRecorder(tmp_path) as recorder:
        simulator = Simulator(NETWORK, hooks=[recorder])
        with pytest.raises(InputError, match="already has a simulator"):
            Simulator(NETWORK, hooks=[recorder])
    with pytest.raises(InputError, match="is closed"):
        simulator.step(np.ones(3))
    recorder.close()
    with pytest.raises(InputError, match="rows"):
        ParquetRecorder(tmp_path, rows=0)


def test_a_recording_needs_a_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        Simulator(NETWORK, hooks=[ParquetRecorder(tmp_path / "file" / "run")])


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"neither run\.json nor"):
        Trace(tmp_path)
    with pytest.raises(UnknownNameError, match="not a folder"):
        Trace(tmp_path / "absent")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "other/2"}, "field 'schema': is 'other/2', not 'eventsim-run/1'"),
        ({"steps": "many"}, "field 'steps': is 'many', not of type integer"),
        ({"layers": [{"name": 3}]}, "layers.0"),
        ({"total": None}, "field 'total'"),
        ({"energy": [{"device": "x"}]}, "energy.0"),
    ],
)
def test_a_foreign_run_json_is_refused_by_field(
    saved: Path, change: dict[str, object], said: str
) -> None:
    path = saved / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(FileFormatError) as caught:
        Trace(saved)
    assert said in str(caught.value)
    assert "run.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\x00", "[" * 100_000])
def test_a_broken_run_json_is_refused(saved: Path, text: str) -> None:
    (saved / "run.json").write_text(text)
    with pytest.raises(FileFormatError, match=r"run\.json"):
        Trace(saved)


def test_damaged_and_foreign_parquet_is_refused(saved: Path) -> None:
    events = saved / "events.parquet"
    whole = events.read_bytes()
    events.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match=r"events\.parquet: is not a whole Parquet file"):
        Trace(saved)
    events.write_bytes((saved / "counters.parquet").read_bytes())
    with pytest.raises(FileFormatError, match="has no column time, neuron, value"):
        Trace(saved)
    events.unlink()
    trace = Trace(saved)
    assert not trace.has_events
    with pytest.raises(InputError, match="has no events"):
        _ = trace.events


def test_bytes_damaged_inside_a_file_are_said(saved: Path) -> None:
    path = saved / "events.parquet"
    data = bytearray(path.read_bytes())
    data[40:200] = bytes(160)
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"events\.parquet: cannot be read"):
        Trace(saved).events.to_numpy()


def test_a_run_records_to_disk_instead_of_to_memory(run: Run, tmp_path: Path) -> None:
    with ParquetRecorder(tmp_path / "run", rows=50) as recorder:
        streamed = runner.run(
            cartpole_policy(0.3),
            SCRIPTED,
            episodes=3,
            progress=False,
            record_events=False,
            hooks=[recorder],
            out=tmp_path / "run",
        )
    assert streamed.events is None
    trace = Trace(tmp_path / "run")
    assert trace.complete
    assert trace.data == run.to_dict()
    assert run.events is not None
    for name, column in trace.events.to_numpy().items():
        np.testing.assert_array_equal(column, run.events[name])


def test_pandas_reads_the_parts_as_they_stand(tmp_path: Path) -> None:
    import pandas as pd

    events, _ = record(tmp_path, 100)
    total = events.to_arrays()["value"].sum()
    assert pd.read_parquet(tmp_path / "events")["value"].sum() == pytest.approx(total)
