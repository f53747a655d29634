"""The scripts behind the tables of optimised teachers that see pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import optimize_run
from tests import pictures_page, pictures_table
from tests.fake_search import ENV, FakeSearch, teacher


def trained(folder: Path, **changed: Any) -> Path:
    """What a training leaves."""
    folder.mkdir()
    record = {
        "game": "short_pole", "env_id": ENV, "seed": 3, "steps": 2_000, "seconds": 90.0,
        "algorithm": "PPO", "returns": [59.0, 61.0],
    } | changed  # fmt: skip
    (folder / "training.json").write_text(json.dumps(record))
    teacher().save(folder / "policy.safetensors")
    return folder


def test_a_teacher_is_optimised_and_told_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train', whose version it notes")
    monkeypatch.setattr(optimize_run, "_own_search", lambda *_: FakeSearch)
    monkeypatch.setattr("os.nice", lambda by: 0)
    arguments = [
        "--teacher", str(trained(tmp_path / "one")), "--max-loss", "0.1", "--budget", "5m",
        "--episodes", "3", "--out", str(tmp_path / "data"), "--policies", str(tmp_path / "made"),
    ]  # fmt: skip
    assert pictures_table.main(arguments) == 0
    assert "short_pole-tests.tiny:shortpole-v0-0.1:" in capsys.readouterr().out
    (file,) = (tmp_path / "data").glob("*.json")
    content = json.loads(file.read_text())
    data = content["outcome"]
    assert data["promise_holds"]
    assert content["teacher"]["sticky"]["mean"] == 60.0
    assert content["returns"]["episodes"] == 3
    assert content["file_bytes"] == (tmp_path / "made" / data["policy"]).stat().st_size
    assert sum(layer["synops"] for layer in content["layers"]) > 0.0
    assert str(tmp_path) not in json.dumps(content["outcome"])
    found = pictures_page.measured(tmp_path / "data")
    assert found == [content]
    text = pictures_page.text(found)
    assert f"| {ENV} | 2,000 steps of PPO, 2 min | 60 (" in text
    assert f"| {ENV} | 10% | " in text


def test_a_teacher_of_atari() -> None:
    facts = {
        "game": "pong", "env_id": "ALE/Pong-v5", "steps": 5_000, "seconds": 60.0,
        "imitation_steps": 8_192, "sticky": {
            "mean": 18.0, "ci95": [17.0, 19.0], "episodes": 30, "human_normalised": 1.29,
        },
        "not_sticky": {"mean": 20.0, "ci95": None, "episodes": 30, "human_normalised": 1.36},
    }  # fmt: skip
    row = pictures_page._teacher({"teacher": facts, "outcome": {"dense_macs": 9_344_512}})
    assert row == [
        "ALE/Pong-v5", "8,192 steps of imitation, 5,000 steps of PPO, 1 min",
        "18 (17 to 19), 30 episodes", "20", "129%", "9,344,512",
    ]  # fmt: skip


def test_evaluations_are_taken_over(tmp_path: Path) -> None:
    folder = trained(tmp_path / "pong", imitation=[{"steps": 8}, {"steps": 16}])
    one = {"returns": [1.0, 3.0], "mean_return": 2.0, "human_normalised": 0.5}
    (folder / "evaluation.json").write_text(
        json.dumps({"protocol": {"frame_skip": 4}, "sticky": one, "not_sticky": one})
    )
    facts = pictures_table.teacher_of(folder)
    assert facts["imitation_steps"] == 16
    assert facts["protocol"] == {"frame_skip": 4}
    assert facts["not_sticky"]["mean"] == 2.0
    assert np.mean(facts["sticky"]["ci95"]) == pytest.approx(2.0)
    assert facts["sticky"]["human_normalised"] == 0.5


def test_settings_are_told_in_words() -> None:
    assert pictures_table.effort_of(["own_after=0", "own_cut_share=0.4"]) == {
        "own_after": 0,
        "own_cut_share": 0.4,
    }
