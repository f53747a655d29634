"""The maker of the zoo says all about what it made, and refuses what it cannot promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim import zoo_build
from eventsim.errors import EventsimError, FileFormatError, InputError
from eventsim.models import zoo
from eventsim.models.policy import Policy
from eventsim.models.rollout import episode, make_env
from eventsim.optimize_state import Settings
from tests.fake_search import ENV, FakeSearch, teacher

TRAINING = {
    "schema": "eventsim-training/1",
    "env": ENV,
    "agent": "ShortPole-v0.zip",
    "seed": 0,
    "evaluation": {"mean": 60.0, "per_episode": [60.0]},
}
SETTINGS = Settings(max_loss=0.06, budget=300.0)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that has its candidates."""
    pytest.importorskip("torch", reason="needs the extra 'train', whose version it notes")
    monkeypatch.setattr("eventsim.optimize_run._own_search", lambda *_: FakeSearch)


@pytest.mark.usefixtures("fake")
def test_a_teacher_and_what_came_of_it(tmp_path: Path) -> None:
    whole = teacher().with_metadata(notes=["guessed"])
    made = zoo_build.build(whole, TRAINING, tmp_path, SETTINGS)
    assert list(made) == ["shortpole", "shortpole-dense"]
    event, dense = made.values()
    m = event.metadata
    assert (m["name"], m["teacher"], m["env_id"]) == ("shortpole", "shortpole-dense", ENV)
    assert m["training"]["evaluation"] == {"mean": 60.0}
    assert not m["notes"]
    first, last = m["returns"]["seeds"]
    assert m["optimize"]["seeds"]["test"] == [first, last]
    for key in ("returns", "teacher_returns", "random_returns"):
        figures = m[key]
        assert figures["seeds"] == [first, last]
        assert figures["episodes"] == last - first + 1 >= 100
        assert figures["ci95"][0] <= figures["mean"] <= figures["ci95"][1]
    assert m["teacher_returns"]["mean"] == 60.0
    assert m["random_returns"]["mean"] < 40.0
    assert m["relative_loss"]["mean"] <= m["relative_loss"]["upper95"] <= 0.06
    assert m["reduction"] == pytest.approx(48 / m["synops_per_step"])
    assert m["teacher_dense_macs"] == whole.dense_macs == 48
    assert m["optimize"]["promise_holds"] is True
    assert m["optimize"]["small_dense"]["shape"] == [4, 2]
    assert m["optimize"]["gain_over_small_dense"] == pytest.approx(8 / m["synops_per_step"])
    assert m["optimize"]["max_loss"] == 0.06
    # The figures are of the policy that is written.
    path = tmp_path / "again.safetensors"
    event.save(path)
    session = Policy.load(path).session()
    env = make_env(ENV)
    totals = [episode(session, env, seed).total for seed in range(first, last + 1)]
    assert np.mean(totals) == m["returns"]["mean"]
    d = dense.metadata
    assert d["name"] == "shortpole-dense"
    assert d["returns"] == m["teacher_returns"]
    assert d["random_returns"] == m["random_returns"]
    assert "reduction" not in d
    assert dense.network.n_synapses == whole.network.n_synapses
    # What is done is not done again.
    log = tmp_path / "shortpole.work" / "episodes.jsonl"
    before = log.read_bytes()
    again = zoo_build.build(whole, TRAINING, tmp_path, SETTINGS)
    assert log.read_bytes() == before
    drop = "optimize"  # its seconds
    assert {k: v for k, v in again["shortpole"].metadata.items() if k != drop} == {
        k: v for k, v in m.items() if k != drop
    }


@pytest.mark.usefixtures("fake")
def test_a_promise_that_does_not_hold_is_not_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsim.optimize_run.MOST_EPISODES", 60)
    monkeypatch.setattr("eventsim.optimize_run.LEAST_EPISODES", 50)
    monkeypatch.setattr("eventsim.optimize_run.describe_need", lambda *_: (10, 10))
    with pytest.raises(InputError, match=r"no policy was shown to lose at most 5%.*larger budget"):
        zoo_build.build(teacher(), TRAINING, tmp_path, Settings(0.05, 300.0))


def test_teachers_are_found_by_their_records(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"holds no training\.json"):
        zoo_build.teachers(tmp_path)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(TRAINING))
    assert zoo_build.teachers(tmp_path) == {"shortpole": (folder / "ShortPole-v0.zip", TRAINING)}
    (tmp_path / "training.json").write_text(json.dumps(TRAINING))
    with pytest.raises(FileFormatError, match="second teacher of"):
        zoo_build.teachers(tmp_path)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(FileFormatError, match="no record of a training"):
        zoo_build.teachers(tmp_path)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: None) -> Path:
    """A zoo of one teacher and what came of it, made by the command."""
    folder, home = tmp_path / "teachers", tmp_path / "zoo"
    folder.mkdir()
    home.mkdir()
    (folder / "training.json").write_text(json.dumps(TRAINING))
    monkeypatch.setattr(zoo_build, "load_policy", lambda path, env: teacher())
    monkeypatch.setattr(zoo_build, "Settings", lambda **_: SETTINGS)
    arguments: list[Any] = ["--teachers", folder, "--out", home, "--work", tmp_path / "work"]
    assert zoo_build.main([*map(str, arguments), "--only", "none"]) == 0
    assert list(home.iterdir()) == []
    assert zoo_build.main([*map(str, arguments), "--budget", "5m"]) == 0
    monkeypatch.setattr(
        zoo, "files", lambda: {path.stem: path for path in sorted(home.iterdir(), reverse=True)}
    )
    return home


def test_the_table_is_written_between_its_marks(shipped: Path, tmp_path: Path) -> None:
    assert zoo.names() == ("shortpole", "shortpole-dense")
    assert zoo.event_driven() == ("shortpole",)
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    assert zoo_build.main(["--table", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "old" not in lines
    (row,) = [line for line in lines if line.startswith("| `")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["`shortpole`", ENV, "60.0 [60.0, 60.0]", "60.0 [60.0, 60.0]"]
    assert cells[6:8] == ["48", "8 (4-2)"]
    page.write_text("nothing")
    with pytest.raises(FileFormatError, match="lacks the marks"):
        zoo_build.write_table(page)
    with pytest.raises(EventsimError, match="cannot be read"):
        zoo_build.write_table(tmp_path / "absent.md")


def test_the_command_line_says_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        (["--teachers", str(tmp_path)], "--teachers needs --out"),
        (["--teachers", str(tmp_path), "--out", str(tmp_path)], "holds no training.json"),
        (
            ["--teachers", str(tmp_path), "--out", str(tmp_path), "--budget", "soon"],
            "such as 90s, 20m or 1h30m",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            zoo_build.main(arguments)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
