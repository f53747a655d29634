"""A run that records to its folder while it goes on: the same figures, and what a kill leaves."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import cli, run_recording, runner
from eventsim.analysis.figures import run_data
from eventsim.analysis.report import report
from eventsim.errors import FileFormatError, InputError
from eventsim.network import Network
from eventsim.recording import ParquetRecorder
from eventsim.records import Records, Trace
from eventsim.result import FILES, Run
from eventsim.run_recording import RunRecorder
from eventsim.simulator import Simulator
from tests.conftest import ROOT
from tests.run_schema import validate
from tests.test_runner import SCRIPTED, Press
from tests.tiny import cartpole_policy


def scripted(episodes: int = 3, threshold: float = 0.3, **options: Any) -> Run:
    options = {"devices": ["cpu", "loihi2"], "progress": False, **options}
    return runner.run(cartpole_policy(threshold), SCRIPTED, episodes=episodes, **options)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a few rows, so that a short run has many."""
    monkeypatch.setattr(runner, "RunRecorder", functools.partial(RunRecorder, rows=37))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("at", [None, 20, 33])
@pytest.mark.parametrize("carry_state", [False, True])
def test_a_run_on_disk_is_that_in_memory(at: int | None, carry_state: bool, tmp_path: Path) -> None:
    def press() -> list[Press]:
        return [] if at is None else [Press(at)]

    held = scripted(carry_state=carry_state, hooks=press())
    run = scripted(carry_state=carry_state, hooks=press(), out=tmp_path / "disk")
    held.save(tmp_path / "memory")
    assert run.to_json() == held.to_json()
    assert isinstance(run.recorded, Records)
    assert len(run.recorded) == held.counters.events.sum()
    assert run.events is not None
    assert held.events is not None
    for name, column in held.events.items():
        np.testing.assert_array_equal(run.events[name], column)
        assert run.events[name].dtype == column.dtype
    np.testing.assert_array_equal(run.counters.table, held.counters.table)
    np.testing.assert_array_equal(run.counters.action, held.counters.action)
    # Nothing else is left, and what is left is the same.
    for folder in ("disk", "memory"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == set(FILES)
    traces = [Trace(tmp_path / folder) for folder in ("disk", "memory")]
    for kind in ("events", "counters"):
        one, two = (getattr(trace, kind).to_pandas() for trace in traces)
        assert one.equals(two)
    assert report(run) == report(held)
    for name in ("network.safetensors", "run.json", "raster.png"):
        assert (tmp_path / "disk" / name).read_bytes() == (tmp_path / "memory" / name).read_bytes()


def test_a_run_on_disk_can_be_saved_elsewhere(tmp_path: Path) -> None:
    run = scripted(out=tmp_path / "a")
    run.save(tmp_path / "b")
    one, two = (Trace(tmp_path / name).events.to_pandas() for name in "ab")
    assert one.equals(two)
    run.save(tmp_path / "a")
    assert Trace(tmp_path / "a").events.to_pandas().equals(one)


def test_where_a_part_ends_is_not_seen_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_recording, "_GROUP", 50)
    scripted(out=tmp_path / "a")
    monkeypatch.setattr(run_recording, "FLUSH_SECONDS", 0.0)
    scripted(out=tmp_path / "b")
    one, two = ((tmp_path / name / "events.parquet").read_bytes() for name in "ab")
    assert one == two


KILLED = """
import sys
from eventsim import run_recording, runner
from eventsim.trace import Hook
from tests.tiny import cartpole_policy

class Wait(Hook):
    steps = 0
    def on_step(self, step, counters):
        Wait.steps += 1
        if Wait.steps == 46:
            print("ready", flush=True)
            sys.stdin.read()

run_recording.FLUSH_SECONDS = float(sys.argv[2])
runner.run(cartpole_policy(0.3), "tests.tiny:Tiny-v0", episodes=9, devices=["cpu", "loihi"],
           hooks=[Wait()], out=sys.argv[1], progress=False)
"""


def kill(folder: Path, flush_seconds: float) -> Path:
    """Begin a run in a process of its own and kill it in its 46th step."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(flush_seconds)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert process.returncode == -9
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kill(tmp_path_factory.mktemp("killed") / "run", 0.0)


def test_a_killed_run_opens_with_the_figures_of_its_steps(killed: Path) -> None:
    assert not (killed / "run.json").exists()
    with pytest.warns(UserWarning, match="cut short: .* 45 steps are in whole parts"):
        trace = Trace(killed)
    whole = scripted(episodes=3, devices=["cpu", "loihi"])
    data = run_data(trace)
    validate(data)
    assert data["interrupted"]
    assert data["steps"] == 45
    # The third episode had begun.
    assert data["return"]["per_episode"] == whole.returns.tolist()[:2]
    assert data["dense_return"] is data["random_return"] is data["relative_loss"] is None
    cut = scripted(episodes=3, devices=["cpu", "loihi"], hooks=[Press(45)])
    for key in ("layers", "projections", "energy", "env", "versions", "step_seconds"):
        assert data[key] == cut.data[key]
    unknown = {"reduction_at_zero_threshold": None}
    assert data["total"] == cut.data["total"] | unknown
    assert cut.events is not None
    for name, column in trace.events.to_numpy().items():
        np.testing.assert_array_equal(column, cut.events[name])
    counters = trace.counters.to_numpy(["reward", "action"])
    np.testing.assert_array_equal(counters["reward"], np.repeat(cut.counters.reward, 3))
    np.testing.assert_array_equal(counters["reward"], counters["action"] + 0.5)
    network = trace.network
    assert network is not None
    assert [p.name for p in network.populations] == ["input", "hidden1", "output"]


def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[str, str]:
    monkeypatch.setattr("sys.argv", ["eventsim", *map(str, words)])
    # The command shows warnings in its own way, which ends with it.
    monkeypatch.setattr("warnings.showwarning", None)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(SystemExit) as stop:
            cli.main()
    assert not stop.value.code, capsys.readouterr().err
    text = capsys.readouterr()
    return text.out, text.err


def test_the_commands_take_a_killed_run_and_say_so(
    killed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, err = command(monkeypatch, capsys, "energy", killed, "--device", "loihi")
    assert "cut short" in out
    assert "45 steps, seed 0 (interrupted)" in out
    assert "loihi" in out
    assert "warning: " in err
    page = tmp_path / "page.html"
    _, err = command(monkeypatch, capsys, "report", killed, "-o", page)
    assert "cut short" in err
    text = page.read_text(encoding="utf-8")
    assert "the recording was cut short" in text
    assert "Layers laid in order onto the cores" in text
    assert f"eventsim run tiny --env {SCRIPTED} --episodes 9 --seed 0 --device cpu" in text
    assert "--no-dense" not in text
    command(monkeypatch, capsys, "export", killed, "-o", tmp_path / "trace.json")


def test_a_run_killed_before_its_first_part_says_so(tmp_path: Path) -> None:
    folder = kill(tmp_path / "run", 1e9)
    with pytest.warns(UserWarning, match="0 steps are in whole parts"):
        trace = Trace(folder)
    with pytest.raises(InputError, match="before its first part was on disk"):
        run_data(trace)
    # The next run to that folder leaves nothing of it.
    run = scripted(record_events=False, out=folder)
    assert {path.name for path in folder.iterdir()} == set(FILES) - {"events.parquet", "raster.png"}
    trace = Trace(folder)
    assert trace.complete
    assert trace.data == run.to_dict()


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "run.part.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*cut short")
def test_a_foreign_run_part_json_is_refused_by_field(killed: Path, tmp_path: Path) -> None:
    import shutil

    for k, (change, text) in enumerate(
        [
            (lambda d: d.update(seed="x"), r"run\.part\.json, field 'seed'"),
            (lambda d: d.pop("policy"), r"run\.part\.json, field 'policy'"),
            (lambda d: d.update(step_seconds=-1), r"run\.part\.json, field 'step_seconds'"),
            (lambda d: d.update(asked=7), r"run\.part\.json, field 'asked'"),
            (lambda d: d.update(versions=3), r"run\.part\.json, field 'versions'"),
        ]
    ):
        folder = tmp_path / str(k)
        shutil.copytree(killed, folder)
        edited(folder, change)
        with pytest.raises(FileFormatError, match=text):
            run_data(Trace(folder))
    folder = tmp_path / "own device"
    shutil.copytree(killed, folder)
    edited(folder, lambda d: d.update(devices=["cpu", "of my own"]))
    trace = Trace(folder)
    assert [row["device"] for row in run_data(trace)["energy"]] == ["cpu"]
    assert "of my own" in " ".join(trace.notes)
    report(trace)
    (folder / "network.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no run\.json, nor"):
        run_data(Trace(folder))


@pytest.mark.filterwarnings("ignore:.*cut short")
def test_an_error_leaves_what_was_recorded(tmp_path: Path) -> None:
    import gymnasium as gym

    from tests.tiny import Scripted

    env: gym.Env[Any, Any] = Scripted(nan_at=30)
    with pytest.raises(InputError, match="finite"):
        runner.run(cartpole_policy(0.3), env, episodes=3, dense=False, progress=False, out=tmp_path)
    assert run_data(Trace(tmp_path))["steps"] == 31


def test_a_run_without_a_step_leaves_the_earlier_one(tmp_path: Path) -> None:
    scripted(out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        scripted(hooks=[Press(0)], out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_kill_at_the_very_end_leaves_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsim.result.clear_parts", lambda _: None)
    run = scripted(out=tmp_path)
    assert (tmp_path / "run.part.json").is_file()
    trace = Trace(tmp_path)
    assert trace.complete
    assert trace.data == run.to_dict()
    assert len(trace.events) == run.counters.events.sum()


def test_one_folder_has_one_recorder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two recorders would write"):
        scripted(hooks=[ParquetRecorder(tmp_path)], out=tmp_path)
    scripted(hooks=[ParquetRecorder(tmp_path / "other")], out=tmp_path)


def test_a_recorder_is_used_as_it_should(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path)
    with pytest.raises(InputError, match="has seen no step"):
        recorder.commit(1.0)
    network = Network.from_arrays([np.ones((1, 2))])
    Simulator(network, hooks=[recorder])
    with pytest.raises(InputError, match="already has a simulator"):
        Simulator(network, hooks=[recorder])
