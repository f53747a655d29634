"""Environments are made as seldom as the returns allow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim.models import arena, playground, workbench
from eventsim.models.arena import Arena
from eventsim.models.optimize import Search, Settings
from eventsim.models.playground import Playground
from eventsim.models.rollout import RandomActor, episode, make_env, make_for
from tests.fake_search import ENV, teacher
from tests.tiny import cartpole_policy


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the environments made in playgrounds."""
    names: list[str] = []

    def counted(policy: Any, name: str, **arguments: Any) -> Any:
        names.append(name)
        return make_for(policy, name, **arguments)

    for module in (arena, workbench):
        monkeypatch.setattr(module, "make_for", counted)
    return names


@pytest.mark.parametrize(("name", "expected"), [(ENV, 1), ("tests.tiny:Tiny-v0", 3)])
def test_environments_that_remember_are_made_anew(
    name: str, expected: int, made: list[str]
) -> None:
    with Arena(replace(teacher(), metadata={}), name) as ground:
        for seed in range(3):
            ground.taught(seed)
    assert len(made) == expected


@pytest.mark.parametrize(
    ("name", "module", "expected"),
    [
        ("CartPole-v1", "gymnasium", 1),
        ("CliffWalking-v1", "gymnasium", 1),
        ("HalfCheetah-v5", "mujoco", 1),
        ("InvertedPendulum-v5", "mujoco", 1),
        ("LunarLander-v3", "Box2D", 4),
    ],
)
def test_returns_are_those_of_environments_made_anew(name: str, module: str, expected: int) -> None:
    pytest.importorskip(module)
    anew, reused, made = [], [], []

    def make() -> Any:
        made.append(name)
        return make_env(name)

    ground = Playground(make)
    for seed in (3, 1, 3, 2):
        with make_env(name) as env:
            actor = RandomActor(env.action_space)
            actor.seed(seed)
            anew.append(episode(actor, env, seed).rewards)
        actor = RandomActor(ground.env.action_space)
        actor.seed(seed)
        reused.append(ground.play(actor, seed).rewards)
    ground.close()
    assert len(made) == expected
    for one, two in zip(anew, reused, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_closed_playground_opens_again(made: list[str]) -> None:
    with Arena(cartpole_policy(), "CartPole-v1") as arena:
        first = arena.taught(0)
    assert arena.taught(0) == first
    arena.taught(1)
    arena.close()
    assert len(made) == 2
    assert not arena.is_mujoco
    arena.close()


@pytest.mark.slow
def test_a_search_makes_one_environment(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    small = Settings(
        recorded_steps=600,
        visits=1,
        visited_steps=300,
        dense_iterations=100,
        event_iterations=10,
        starts=1,
        screened=2,
        wider=(0,),
        rounds=1,
        slack=0.5,
        refine_checks=3,
    )

    def returns(folder: Path) -> list[list[float]]:
        made.clear()
        search = Search(cartpole_policy(), "CartPole-v1", workdir=folder, settings=small)
        assert any(name.startswith("refined") for name in search.stages())
        return [search.random_returns.tolist(), *(c.returns.tolist() for c in search.candidates)]

    reused = returns(tmp_path / "reused")
    assert len(made) == 1
    monkeypatch.setattr(playground, "FORGETFUL", ())
    assert returns(tmp_path / "anew") == reused
    assert len(made) > 20
