"""The shipped policies are what their metadata say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eventsim import zoo_build
from eventsim.errors import UnknownNameError
from eventsim.models import zoo
from eventsim.models.rollout import episode, make_env
from tests.conftest import ROOT

NAMES = ("acrobot", "cartpole", "lunarlander", "pendulum")


#: Those that see pictures, whose teachers are too large to ship.
PICTURES = tuple(name for name in zoo.event_driven() if name not in NAMES)


def test_names_and_paths() -> None:
    assert zoo.paired() == NAMES
    assert zoo.event_driven() == tuple(sorted((*NAMES, *PICTURES)))
    assert set(zoo.names()) == {*NAMES, *PICTURES, *(f"{name}-dense" for name in NAMES)}
    for name in zoo.names():
        assert zoo.is_dense(name) == (name not in (*NAMES, *PICTURES))
        assert zoo.path(name).is_file()
        assert zoo.path(name.upper()) == zoo.path(name)
        assert zoo.path(name).stat().st_size < (2_000_000 if name in PICTURES else 50_000)


def test_policies_of_pictures_say_what_they_are_and_lose() -> None:
    for name in PICTURES:
        _check_picture(name)


def _check_picture(name: str) -> None:
    policy, m = zoo.load(name), zoo.metadata(name)
    assert m["name"] == name
    assert policy.encoder.pixels is not None
    assert m["env_id"].startswith(("ALE/", "MinAtar/"))
    assert policy.dense_macs == m["teacher_dense_macs"]
    assert m["reduction"] >= 50.0
    assert m["relative_loss"]["mean"] <= m["optimize"]["max_loss"] <= 0.05
    assert m["returns"]["episodes"] >= 30
    assert m["returns"]["ci95"][0] <= m["returns"]["mean"] <= m["returns"]["ci95"][1]
    assert m["teacher_returns"]["mean"] > 0.0
    assert {"steps", "seed", "versions"} <= set(m["training"])


def test_unknown_names_get_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="'cartpol'; did you mean cartpole"):
        zoo.path("cartpol")
    with pytest.raises(UnknownNameError, match="it has: acrobot, acrobot-dense, breakout"):
        zoo.load("zzz")


@pytest.mark.parametrize("name", NAMES)
def test_metadata_describe_the_network(name: str) -> None:
    policy, m = zoo.load(name), zoo.metadata(name)
    assert (m["name"], m["teacher"]) == (name, zoo.dense_name(name))
    assert m["env_id"] == policy.env_id == m["training"]["env"]
    assert not m["notes"]
    assert not m.get("defaults_taken")
    assert m["algorithm"] == m["training"]["algorithm"]
    assert {"torch", "stable_baselines3", "gymnasium"} <= set(m["training"]["versions"])
    assert policy.dense_macs == m["teacher_dense_macs"]
    assert m["reduction"] == pytest.approx(policy.dense_macs / m["synops_per_step"])
    for key in ("returns", "teacher_returns", "random_returns"):
        figures = m[key]
        first, last = figures["seeds"]
        assert figures["episodes"] == last - first + 1 >= 100
        assert figures["ci95"][0] <= figures["mean"] <= figures["ci95"][1]
        assert figures["seeds"] == m["optimize"]["seeds"]["test"]
    # The advantage by which it was divided is of other episodes.
    lost = m["teacher_returns"]["mean"] - m["returns"]["mean"]
    advantage = m["teacher_returns"]["mean"] - m["random_returns"]["mean"]
    assert m["relative_loss"]["mean"] == pytest.approx(lost / advantage, rel=0.1, abs=1e-9)
    made = m["optimize"]
    assert made["promise_holds"] is True
    assert m["relative_loss"]["upper95"] <= made["max_loss"] == 0.01
    # What it is worth beyond a small network that does as well.
    small = made["small_dense"]
    assert small["macs"] < policy.dense_macs
    assert made["gain_over_small_dense"] == pytest.approx(small["macs"] / m["synops_per_step"])
    assert made["gain_over_small_dense"] > 1.0
    assert np.prod(list(made["factors"].values())) == pytest.approx(m["reduction"])
    assert all(q.weights.dtype == np.float32 for q in policy.network.projections)


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_is_what_it_was_made_from(name: str) -> None:
    dense, m = zoo.load(zoo.dense_name(name)), zoo.metadata(name)
    assert dense.metadata["name"] == zoo.dense_name(name)
    assert dense.dense_macs == m["teacher_dense_macs"]
    assert dense.metadata["returns"] == dense.metadata["teacher_returns"] == m["teacher_returns"]
    assert dense.metadata["training"] == m["training"]
    assert "reduction" not in dense.metadata
    assert [p.size for p in dense.network.populations][1:-1] == [64, 64]
    assert not any(p.parameter("threshold").any() for p in dense.network.populations)


@pytest.mark.parametrize("name", NAMES)
def test_seeds_of_the_report_were_seen_by_no_choice(name: str) -> None:
    m = zoo.metadata(name)
    first, last = m["returns"]["seeds"]
    checkpoint, evaluation = m["training"]["checkpoint"], m["training"]["evaluation"]
    used = [range(s[0], s[1] + 1) for s in (checkpoint["seeds"], evaluation["seeds"])]
    seeds = m["optimize"]["seeds"]
    used += [range(seeds[k][0], seeds[k][1] + 1) for k in ("baseline", "random", "validation")]
    used.append(range(1_000_000_000))  # the search's own
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
    assert synops / steps == pytest.approx(m["synops_per_step"], rel=0.3)


def test_the_documented_table_is_that_of_the_files() -> None:
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert zoo_build.table() in text


def test_a_file_that_was_never_finished_is_no_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pong.safetensors", ".pong-1f2e3d4c.safetensors"):
        (tmp_path / name).touch()
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "__init__.py"))
    assert zoo.names() == ("pong",)
