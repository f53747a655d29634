"""The command line: what it prints where, its files, its exit codes, its start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import eventsim
from eventsim import cli
from eventsim.models.policy import Policy
from eventsim.result import FILES
from tests.run_schema import validate
from tests.tiny import cartpole_policy

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("numba", "gymnasium", "scipy", "matplotlib", "pandas", "pyarrow", "torch", "networkx")
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile the kernels first, or some command would say that it waits for them."""
    cartpole_policy().session().simulator.step(np.zeros(4))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*arguments: object, columns: int = 80) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["eventsim", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    cartpole_policy(0.3).with_metadata(env_id="tests.tiny:Tiny-v0").save(path)
    return path


def separate(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "import eventsim",
        "from eventsim import cli",
        "import sys; sys.argv = ['eventsim', '--help']; from eventsim import cli\n"
        "try: cli.main()\nexcept SystemExit as stop: assert not stop.code",
        "import sys; sys.argv = ['eventsim', 'run', '--help']; from eventsim import cli\n"
        "try: cli.main()\nexcept SystemExit as stop: assert not stop.code",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code: str) -> None:
    code += f"\nimport sys; sys.exit(str([m for m in {HEAVY} if m in sys.modules] or ''))"
    result = separate("-W", "error", "-c", code)
    assert result.returncode in (0, 1)
    assert result.stderr.strip() == ""


def test_version_and_help(call: Call) -> None:
    assert call("--version") == (0, f"eventsim {eventsim.__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0
    for command in ("run", "import", "calibrate", "info", "zoo"):
        assert command in out
    code, out, _ = call("run", "--help", columns=100)
    assert code == 0
    for option in ("--env", "--episodes", "--seed", "--threshold", "--threshold-scale",
                   "--carry-state", "--no-dense", "--out", "--json", "--device",
                   "--normalization", "--algorithm"):  # fmt: skip
        assert option in out


@pytest.mark.parametrize("columns", [80, 120])
def test_run_prints_its_tables(call: Call, policy: Path, columns: int) -> None:
    code, out, err = call("run", policy, "--env", "CartPole-v1", "--episodes", 2, columns=columns)
    assert code == 0
    assert err == ""
    lines = out.splitlines()
    assert max(map(len, lines)) <= columns
    # Nothing is cut off.
    assert "…" not in out
    cells = [line.split() for line in lines]
    hidden = next(row for row in cells if row[:2] == ["hidden1", "8"])
    assert len(hidden) == 11
    total = next(row for row in cells if row[:2] == ["total", "14"])
    assert total[2] == "48"
    assert total[-1].endswith("x")
    for word in ("event-driven", "dense", "random", "Relative loss", "loihi", "spinnaker2",
                 "seneca", "cmos45-fp32-memory", "cpu", "gpu", "Not priced", "--out"):  # fmt: skip
        assert word in out
    names = ["connection", "evaluations"] if columns == 120 else ["conn.", "evals"]
    assert all(name in out for name in names)


def test_json_is_alone_on_stdout(call: Call, policy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code, out, err = call("run", policy, "--episodes", 1, "--out", folder, "--json")
    assert code == 0
    data = json.loads(out)
    validate(data)
    assert json.loads((folder / "run.json").read_text(encoding="utf-8")) == data
    assert "Work per step" in err
    assert "raster.png" in err
    assert data["policy"] == str(policy)


def test_options_reach_the_run(call: Call, policy: Path) -> None:
    code, out, _ = call(
        "run", policy, "--env", "CartPole-v1", "--episodes", 2, "--seed", 7, "--threshold", 0.2,
        "--carry-state", "--no-dense", "--device", "loihi", "--device", "cpu",
        "--step-seconds", 0.5, "--json",
    )  # fmt: skip
    assert code == 0
    data = json.loads(out)
    assert data["env"] == "CartPole-v1"
    assert (data["seed"], data["threshold"], data["carry_state"]) == (7, 0.2, True)
    assert data["dense_return"] is None
    assert [row["device"] for row in data["energy"]] == ["loihi", "cpu"]
    assert data["step_seconds"] == 0.5
    _, out, _ = call("run", policy, "--episodes", 1, "--threshold-scale", 2, "--json")
    assert json.loads(out)["threshold_scale"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "cartpol"], "there is no policy 'cartpol'"),
        (["run", "absent.safetensors"], "absent.safetensors"),
        (["run", "{policy}", "--env", "CartPole-v9"], "did you mean CartPole-v1"),
        (["run", "{policy}", "--env", "Acrobot-v1"], "shape (6,)"),
        (["run", "{policy}", "--threshold", 1, "--threshold-scale", 1], "not both"),
        (["run", "{policy}", "--threshold", -1], "threshold"),
        (["run", "{policy}", "--device", "lohi"], "did you mean loihi"),
        (["run", "{policy}", "--device", "absent.toml"], "absent.toml"),
        (["run", "{policy}", "--out", "{policy}/out"], "cannot be written"),
        (["run", "{policy}", "--algorithm", "PPO"], "algorithm"),
        (["run", "{policy}", "--max-steps", 3, "--no-time-feature"], "not both"),
        (["run", "{text}"], "text.zip"),
        (["import", "{text}", "--out", "x.safetensors"], "text.zip"),
        (["info", "{text}"], "text.zip"),
        (["calibrate", "{text}", "--threshold-scale", 1, "--out", "x"], "text.zip"),
    ],
)
def test_the_users_mistakes(
    call: Call, policy: Path, tmp_path: Path, arguments: list[Any], text: str
) -> None:
    (tmp_path / "text.zip").write_text("this is no zip")
    names = {"policy": policy, "text": tmp_path / "text.zip"}
    code, out, err = call(*(str(a).format(**names) for a in arguments))
    assert code == 2
    assert out == ""
    assert text in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1


def test_options_that_do_not_exist(call: Call, policy: Path) -> None:
    code, out, err = call("run", policy, "--treshold", 1)
    assert (code, out) == (2, "")
    assert "--treshold" in err
    assert call("run", policy, "--episodes", 0)[0] == 2
    assert call("run")[0] == 2


def test_an_unexpected_error_keeps_its_traceback(
    call: Call, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("eventsim.runner.run", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        call("run", policy)


def test_an_interrupt_keeps_what_was_recorded(call: Call, policy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    code, out, err = call(
        "run", policy, "--env", "tests.tiny:TinyInterrupted-v0", "--out", folder, "--json"
    )
    assert code == 130
    data = json.loads(out)
    validate(data)
    assert data["interrupted"]
    assert data["steps"] == 30
    assert "interrupted" in err
    assert {path.name for path in folder.iterdir()} == set(FILES)


def test_an_interrupt_before_the_first_step(
    call: Call, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eventsim.runner.run", pressed)
    code, out, err = call("run", policy)
    assert (code, out) == (130, "")
    assert "before there was anything to report" in err


def test_a_signal_ends_the_process_with_130(policy: Path) -> None:
    result = separate(
        "-m", "eventsim.cli", "run", policy, "--env", "tests.tiny:TinyInterrupted-v0", "--json"
    )
    assert result.returncode == 130
    assert json.loads(result.stdout)["interrupted"]
    assert "Traceback" not in result.stderr


def test_info_shows_what_a_policy_is_made_of(call: Call, policy: Path) -> None:
    code, out, err = call("info", policy)
    assert (code, err) == (0, "")
    for word in (
        "hidden1",
        "relu",
        "0.300",
        "58",
        "tests.tiny:Tiny-v0",
        "box",
        "argmax",
        "levels: it is",
    ):
        assert word in out
    assert max(map(len, out.splitlines())) <= 80


def test_notes_of_an_import_are_news_only_then(call: Call, tmp_path: Path) -> None:
    noted = cartpole_policy().with_metadata(
        notes=["guessed"], defaults_taken={"activation": "Tanh"}
    )
    noted.save(tmp_path / "noted.safetensors")
    code, _, err = call("run", tmp_path / "noted.safetensors", "--episodes", 1, "--no-dense")
    assert (code, err) == (0, "")
    code, _, err = call("run", "cartpole", "--episodes", 1, "--no-dense")
    assert (code, err) == (0, "")


def test_import_writes_a_policy(call: Call, policy: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.safetensors"
    code, out, _ = call("import", policy, "-o", target, "--env", "CartPole-v1")
    assert code == 0
    assert "hidden1" in out
    assert Policy.load(target).env_id == "CartPole-v1"


def test_import_says_what_it_assumed(call: Call, agents_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "lander.safetensors"
    agent = agents_dir / "ppo" / "LunarLander-v2" / "LunarLander-v2.zip"
    code, out, _ = call("import", agent, "-o", target)
    assert code == 0
    assert "LunarLander-v3" in out
    assert Policy.load(target).env_id == "LunarLander-v3"


def test_a_trained_agent_runs(call: Call, agents_dir: Path) -> None:
    pytest.importorskip("Box2D", reason="LunarLander needs the extra box2d")
    agent = agents_dir / "ppo" / "LunarLander-v2" / "LunarLander-v2.zip"
    code, out, _ = call(
        "run", agent, "--env", "LunarLander-v3", "--threshold", 0.1, "--episodes", 2, "--json"
    )
    assert code == 0
    data = json.loads(out)
    validate(data)
    assert data["total"]["reduction"] > 1.5


def test_the_zoo_is_listed(call: Call) -> None:
    code, out, err = call("zoo")
    assert (code, err) == (0, "")
    for name in eventsim.zoo():
        (row,) = (words for words in map(str.split, out.splitlines()) if words[:1] == [name.name])
        assert row[1] == name.env
        assert (row[2] != "–", row[3]) == (True, "±")
        assert (row[5] == "–") == name.name.endswith("-dense")


def test_the_first_run_says_that_it_compiles(
    call: Call, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsim.console.kernels_are_cached", lambda: False)
    _, _, err = call("run", policy, "--episodes", 1)
    assert err.startswith("compiling kernels (first run only)")


def test_compiled_kernels_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventsim import console
    from eventsim.kernels import delta

    if not hasattr(delta.run, "stats"):
        assert console.kernels_are_cached()
        return

    class Fake:
        class stats:  # noqa: N801
            cache_path = str(tmp_path)

    monkeypatch.setattr(delta, "run", Fake)
    assert not console.kernels_are_cached()
    index = tmp_path / "delta.run-1.py311.nbi"
    index.touch()
    assert console.kernels_are_cached()
    os.utime(index, (0, 0))
    assert not console.kernels_are_cached()


def test_calibrate_writes_a_policy(call: Call, policy: Path, tmp_path: Path) -> None:
    target = tmp_path / "calibrated.safetensors"
    code, out, _ = call(
        "calibrate", policy, "--env", "CartPole-v1", "--threshold-scale", 0.3,
        "--sparsity", 0.6, "--episodes", 1, "-o", target,
    )  # fmt: skip
    assert code == 0
    assert "hidden1" in out
    calibrated = Policy.load(target)
    assert calibrated.network["hidden1"].parameter("threshold").max() > 0.0
    assert calibrated.network.n_synapses == round(0.4 * 48)
    code, _, err = call(
        "calibrate", policy, "--threshold-scale", 0.3, "--scope", "rows", "-o", target
    )
    assert code == 2
    assert "rows" in err


def test_bench_times_a_policy_beside_dense_runtimes(policy: Path, call: Call) -> None:
    code, out, err = call("bench", policy, "--steps", 100, "--rounds", 1, "--json")
    assert (code, err) == (0, "")
    data = json.loads(out)
    assert data["schema"] == "eventsim-bench/1"
    assert {"eventsim", "numpy"} <= set(data["microseconds"])
    absent = {"onnxruntime", "torch"} - set(data["microseconds"])
    assert {note.split()[0] for note in data["notes"]} == absent
    assert data["synops"] <= data["dense_macs"]
    code, out, _ = call("bench", policy, "--steps", 100, "--rounds", 1)
    assert code == 0
    assert "over eventsim" in out
    assert "numpy" in out


def test_layers_of_a_network_that_is_smaller_than_its_teacher_name_no_dense_macs() -> None:
    from eventsim import tables

    rows = [
        {"name": "hidden1", "weights": 4, "dense_macs": 4480},
        {"name": "output", "weights": 2, "dense_macs": 0},
    ]
    assert tables.hide_foreign_macs(rows)
    assert [row["dense_macs"] for row in rows] == [None, None]
    own = [{"name": "hidden1", "weights": 4, "dense_macs": 4}]
    assert not tables.hide_foreign_macs(own)
    assert own[0]["dense_macs"] == 4
