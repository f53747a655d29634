"""The shipped policies are what their metadata say, and their maker keeps its promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eventsim import Network, Policy
from eventsim.errors import EventsimError, FileFormatError, InputError, UnknownNameError
from eventsim.models import zoo
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.pruning import connection_sparsity
from eventsim.models.rollout import episode, make_env
from eventsim.models.zoo import build
from eventsim.models.zoo.search import Settings
from tests.conftest import ROOT

NAMES = ("acrobot", "cartpole", "lunarlander", "pendulum")
TRAINING = {
    "schema": "eventsim-training/1",
    "env": "CartPole-v1",
    "agent": "CartPole-v1.zip",
    "seed": 0,
    "evaluation": {"mean": 500.0, "per_episode": [500.0]},
}
QUICK = Settings(
    sparsities=(0.5, 0.7),
    scales=(0.1, 0.3),
    rounds=2,
    recorded=500,
    visits=2,
    visited=500,
    kept=1000,
    screened=2,
    screened_steps=500,
    validated=3,
    confirmed=3,
    tested=4,
)


def cartpole(gains: tuple[float, ...] = (0.2, 0.5, 3.0, 1.0)) -> Policy:
    """A known controller, in more neurons than it needs: push towards the side it falls to."""
    rng = np.random.default_rng(1)
    k = np.array(gains)
    first = np.concatenate([[k, -k], 0.05 * rng.normal(size=(6, 4))])
    second = 0.01 * rng.normal(size=(8, 8))
    second[0, :2], second[1, :2] = (1.0, 0.0), (0.0, 1.0)
    third = 0.01 * rng.normal(size=(2, 8))
    third[:, :2] = (-1.0, 1.0), (1.0, -1.0)
    network = Network.from_arrays([w.astype(np.float32) for w in (first, second, third)])
    return Policy(Encoder(BoxSpec((4,))), network, Argmax(2), {"env_id": "CartPole-v1"})


def test_names_and_paths() -> None:
    assert zoo.names() == NAMES
    for name in NAMES:
        assert zoo.path(name).is_file()
        assert zoo.path(name.upper()) == zoo.path(name)
        assert zoo.path(name).stat().st_size < 50_000


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="'cartpol'; did you mean cartpole"):
        zoo.path("cartpol")
    with pytest.raises(UnknownNameError, match="it has: acrobot, cartpole, lunarlander, pendulum"):
        zoo.load("zzz")


@pytest.mark.parametrize("name", NAMES)
def test_metadata_describe_the_network(name: str) -> None:
    policy, m = zoo.load(name), zoo.metadata(name)
    assert m["name"] == name
    assert m["env_id"] == policy.env_id == m["training"]["env"]
    assert not m["notes"]
    assert not m.get("defaults_taken")
    assert m["algorithm"] == m["training"]["algorithm"]
    assert {"torch", "stable_baselines3", "gymnasium"} <= set(m["training"]["versions"])
    assert m["calibration"]["sparsity"] == pytest.approx(connection_sparsity(policy.network))
    assert policy.dense_macs == m["teacher_dense_macs"]
    assert m["reduction"] == pytest.approx(policy.dense_macs / m["synops_per_step"])
    assert m["reduction"] > 5.0
    for key in ("returns", "teacher_returns", "random_returns"):
        figures = m[key]
        first, last = figures["seeds"]
        assert figures["episodes"] == last - first + 1 >= 100
        assert figures["ci95"][0] <= figures["mean"] <= figures["ci95"][1]
    lost = m["teacher_returns"]["mean"] - m["returns"]["mean"]
    advantage = m["teacher_returns"]["mean"] - m["random_returns"]["mean"]
    assert m["relative_loss"]["mean"] == pytest.approx(lost / advantage, abs=1e-9)
    assert m["relative_loss"]["mean"] <= m["search"]["settings"]["max_loss"]
    assert all(q.weights.dtype == np.float32 for q in policy.network.projections)
    senders = {q.source for q in policy.network.projections}
    assert all(policy.network[s].parameter("threshold").any() for s in senders)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_of_the_report_were_seen_by_no_choice(name: str) -> None:
    m = zoo.metadata(name)
    first, last = m["returns"]["seeds"]
    checkpoint, evaluation = m["training"]["checkpoint"], m["training"]["evaluation"]
    used = [range(s[0], s[1] + 1) for s in (checkpoint["seeds"], evaluation["seeds"])]
    starts = m["search"]["seeds"]
    used += [range(starts[k], starts[k] + 10_000) for k in starts if k != "test"]
    assert not any(seed in one for one in used for seed in (first, last))


@pytest.mark.parametrize("name", NAMES)
def test_the_first_run_holds_return_and_reduction(name: str) -> None:
    if name == "lunarlander":
        pytest.importorskip("Box2D", reason="LunarLander-v3 needs the extra 'box2d'")
    policy, m = zoo.load(name), zoo.metadata(name)
    env = make_env(m["env_id"])
    session = policy.session()
    returns, steps, synops = [], 0, 0
    for seed in range(5):
        one = episode(session, env, seed)
        returns.append(one.total)
        steps += one.steps
        synops += session.simulator.totals.synops
    env.close()
    spread = m["returns"]["std"] / np.sqrt(len(returns))
    assert np.mean(returns) >= m["returns"]["mean"] - 4.0 * spread - 1e-6
    assert policy.dense_macs * steps / synops == pytest.approx(m["reduction"], rel=0.3)


def test_the_documented_table_is_that_of_the_files() -> None:
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert build.table() in text


def test_build_holds_the_return_and_says_all() -> None:
    teacher = cartpole()
    made = build.build(teacher, TRAINING, QUICK)
    m = made.metadata
    assert m["name"] == "cartpole"
    assert m["training"]["evaluation"] == {"mean": 500.0}
    assert m["teacher_returns"]["mean"] == m["returns"]["mean"] == 500.0
    assert m["random_returns"]["mean"] < 100.0
    assert m["relative_loss"]["mean"] == 0.0
    assert m["returns"]["episodes"] == 4
    assert m["calibration"]["sparsity"] == connection_sparsity(made.network) >= 0.5
    assert m["calibration"]["threshold_scale"] in QUICK.scales
    assert m["search"]["settings"]["tested"] == 4
    assert m["reduction"] > 2.0
    assert made.dense_macs == teacher.dense_macs == 112
    again = build.build(teacher, TRAINING, QUICK)
    drop = "build_seconds"
    assert {k: v for k, v in again.metadata.items() if k != drop} == {
        k: v for k, v in m.items() if k != drop
    }


def test_build_refuses_a_teacher_that_knows_nothing() -> None:
    falls = cartpole((-0.2, -0.5, -3.0, -1.0))
    with pytest.raises(InputError, match=r"'CartPole-v1': the teacher is not better than random"):
        build.build(falls, TRAINING, QUICK)


def test_build_says_when_nothing_holds() -> None:
    none = Settings(**{**vars(QUICK), "scales": (5.0,), "sparsities": (0.5,)})
    with pytest.raises(InputError, match=r"no candidate holds the return within 0\.01"):
        build.build(cartpole(), TRAINING, none)


def test_teachers_are_found_by_their_records(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"holds no training\.json"):
        build.teachers(tmp_path)
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text(json.dumps(TRAINING))
    assert build.teachers(tmp_path) == {"cartpole": (folder / "CartPole-v1.zip", TRAINING)}
    (tmp_path / "training.json").write_text(json.dumps(TRAINING))
    with pytest.raises(FileFormatError, match="second teacher of CartPole-v1"):
        build.teachers(tmp_path)
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(FileFormatError, match="no record of a training"):
        build.teachers(tmp_path)


def test_table_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    assert build.main(["--table", str(page)]) == 0
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    assert [line.split("`")[1] for line in lines if line.startswith("| `")] == list(NAMES)
    assert [f.name for f in tmp_path.iterdir()] == ["page.md"]
    page.write_text("nothing")
    with pytest.raises(FileFormatError, match="lacks the marks"):
        build.write_table(page)
    with pytest.raises(EventsimError, match="cannot be read"):
        build.write_table(tmp_path / "absent.md")


def test_command_line_says_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--teachers", str(tmp_path)], "--teachers needs --out"),
        (["--teachers", str(tmp_path), "--out", str(tmp_path)], "holds no training.json"),
    ):
        with pytest.raises(SystemExit) as stop:
            build.main(arguments)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
