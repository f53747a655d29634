"""The scripts behind docs/results.md: what they measure, keep and write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eventsim import optimize_rounding, optimize_run
from eventsim.models.optimize import Settings as Effort
from eventsim.models.rounding import WAYS
from tests import ablation, optimize_table, results_table, rounding
from tests.fake_search import FakeSearch, teacher

TASK = "CartPole-v1"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A short task, and a search that has its candidates; the lines of arguments."""
    monkeypatch.setattr(optimize_run, "_own_search", lambda *_: FakeSearch)
    monkeypatch.setattr(optimize_table, "load_policy", lambda path, env=None: teacher())
    monkeypatch.setattr("os.nice", lambda by: 0)
    quick = {name: replace(way, iterations=5) for name, way in WAYS.items()}
    monkeypatch.setattr(optimize_rounding, "WAYS", quick)
    return [
        "--tasks", TASK, "--max-loss", "0.1", "--budget", "5m", "--out", str(tmp_path / "results"),
        "--policies", str(tmp_path / "policies"), "--agents", str(tmp_path),
    ]  # fmt: skip


def test_a_task_is_measured_once(
    fake: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train', whose version it notes")
    assert optimize_table.main(fake) == 0
    file = tmp_path / "results" / "CartPole-v1-seed0.json"
    before = file.read_bytes()
    content = json.loads(before)
    assert content["outcome"]["policy"] == "CartPole-v1-seed0.safetensors"
    assert content["outcome"]["teacher"] == "dqn/CartPole-v1"
    assert content["outcome"]["promise_holds"]
    assert str(tmp_path) not in before.decode()
    assert content["teacher_bytes"] == 4 * (48 + 10)
    assert optimize_table.main(fake) == 0
    assert file.read_bytes() == before
    assert capsys.readouterr().out.count("CartPole-v1-seed0:") == 1
    # With fewer bits, the teacher's episodes are there already.
    assert optimize_table.main([*fake, "--weight-bits", "8"]) == 0
    few = json.loads((tmp_path / "results" / "CartPole-v1-seed0-int8.json").read_text())
    assert few["outcome"]["weight_bits"] == 8
    logs = [tmp_path / "policies" / f"CartPole-v1-seed0{end}.work" / "episodes.jsonl"
            for end in ("", "-int8")]  # fmt: skip
    assert logs[1].read_bytes().startswith(logs[0].read_bytes())


def test_a_task_outside_of_the_table(
    fake: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train', whose version it notes")
    given = [*fake, "--agent", str(tmp_path / "mine.zip")]
    assert optimize_table.main([*given, "--env", "ShortPole-v0"]) == 0
    content = json.loads((tmp_path / "results" / "ShortPole-v0-seed0.json").read_text())
    assert (content["task"], content["agent"]) == ("ShortPole-v0", "mine.zip")
    assert content["command"].startswith("eventsim optimize mine.zip --env ")
    for arguments, text in ((given, "go together"), ([*given, "--env", TASK], "is in the table")):
        with pytest.raises(SystemExit):
            optimize_table.main(arguments)
        assert text in capsys.readouterr().err


def test_an_error_is_told_and_leaves_no_result(
    fake: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert optimize_table.main([*fake, "--budget", "0.5s", "--max-loss", "0.001"]) == 1
    assert "error: field 'budget'" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_rounding_is_compared_on_the_same_candidates(fake: list[str], tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    assert optimize_table.main(fake) == 0
    out = tmp_path / "rounding.json"
    common = [*fake[2:6], *fake[8:], "--tasks", TASK, "--bits", "8", "--out", str(out)]
    assert rounding.main(common) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["made"] for row in rows] == list(rounding.MADE)
    for row in rows:
        assert (row["task"], row["weight_bits"], row["unchanged"]) == (TASK, 8, False)
        assert row["promise_holds"]
    text = results_table.rounding([rows[0], {**rows[1], "unchanged": True}])
    assert "`python -m tests.rounding --tasks CartPole-v1 --out " in text
    assert "| CartPole-v1 | 8 | rounded afterwards | " in text
    assert "fine-tuned in the loop, the teacher is left" in text


def outcome(task: str, seed: int, bits: int, **changed: Any) -> dict[str, Any]:
    data = {
        "env": task, "dense_macs": 67_072, "macs": 10.0, "acs": 0.0, "reduction": 6707.2,
        "small_dense": {"shape": [4, 4, 2], "macs": 24, "relative_loss": 0.0},
        "gain_over_small_dense": 2.4, "episodes": 400, "promise_holds": True, "seconds": 90.0,
        "factors": {"shrink": 2794.7, "prune": 1.2, "events": 2.0}, "weight_bits": bits,
        "relative_loss": {"mean": 0.001, "upper95": 0.009, "worst_episode": 0.2}, "bytes": 100,
        "seeds": {"optimization": seed},
    } | changed  # fmt: skip
    return {
        "task": task, "outcome": data, "notes": ["N."],
        "agent": optimize_table.TASKS[task].agent if task in optimize_table.TASKS else "own.zip",
        "command": f"eventsim optimize {task}", "teacher_bytes": 268_288,
    }  # fmt: skip


def test_the_page(tmp_path: Path) -> None:
    for one in (
        outcome(TASK, 1, 32),
        outcome(TASK, 0, 32),
        outcome("LunarLander-v3", 0, 32, gain_over_small_dense=9.6, promise_holds=False),
        outcome("Swimmer-v5", 0, 32, gain_over_small_dense=None, small_dense=None),
        outcome(TASK, 0, 8),
        outcome("Another-v0", 0, 32, gain_over_small_dense=100.0),
    ):
        name = f"{one['task']}-{one['outcome']['seeds']['optimization']}"
        optimize_table.write(tmp_path / f"{name}-{one['outcome']['weight_bits']}.json", one)
    found = results_table.results(tmp_path)
    assert [(one["task"], one["outcome"]["weight_bits"]) for one in found] == [
        ("LunarLander-v3", 32),
        ("Swimmer-v5", 32),
        (TASK, 32),
        (TASK, 32),
        (TASK, 8),
        ("Another-v0", 32),
    ]
    rows = [{"task": TASK, "variant": "pruning only", "macs": 700.0, "reduction": 95.8,
             "loss": 0.0, "upper95": 0.02, "episodes": 200}]  # fmt: skip
    text = results_table.page(found, {"rows": rows})
    assert "geometric mean of 2 tasks (first seed of each): 4.8x; the least is 2.4x" in text
    assert "| CartPole-v1 | dqn/CartPole-v1 | 67,072 | 24 (4-4-2) | 10 | 6,707x | " in text
    assert "0.10%, 0.90% | no | 20.0% | 400 | 1.5 min | 0 | **2, 2,400x: missed** |" in text
    assert "1.5 min | 1 | 15, 4,500x |" in text
    inside, _, outside = text.partition("## Outside of the table")
    assert "Another-v0" not in inside
    assert "| Another-v0 | own.zip | 67,072 | 24 (4-4-2) | 10 | 6,707x | " in outside
    assert "    eventsim optimize Another-v0" in outside
    assert "| 100 | 268,288 | 2,683x |" in text
    assert "| CartPole-v1 | pruning only | 700 | 95.8x | 0.00%, 2.00% | 200 |" in text
    assert "Nothing has been measured" in results_table.page([], None)


def test_the_committed_pages_are_what_the_script_writes() -> None:
    for path, text in results_table.generated().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: python -m tests.results_table"


@pytest.mark.slow
def test_the_ablation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="distilling needs the extra 'train'")
    monkeypatch.setattr(ablation, "load_policy", lambda path: teacher())
    monkeypatch.setattr("os.nice", lambda by: 0)
    effort = {
        "recorded_steps": 500, "visits": 0, "starts": 1, "dense_iterations": 100, "screened": 5,
        "event_iterations": 20, "visited_steps": 200, "wider": (0,), "rounds": 2,
    }  # fmt: skip
    assert Effort(**effort)
    out = tmp_path / "ablation.json"
    arguments = ["--tasks", TASK, "--episodes", "20", "--max-loss", "0.1", "--out", str(out),
                 "--workdir", str(tmp_path / "work"), "--agents", str(tmp_path)]  # fmt: skip
    assert ablation.main(arguments, effort) == 0
    content = json.loads(out.read_text())
    assert [row["variant"] for row in content["rows"]] == list(ablation.VARIANTS)
    for row in content["rows"]:
        assert row["tried"] > 0
        assert row["upper95"] >= row["loss"]
        assert row["macs"] <= 48.0
    before = out.read_bytes()
    assert ablation.main(arguments, effort) == 0
    assert out.read_bytes() == before
    assert replace(Effort(), **effort).rounds == 2
