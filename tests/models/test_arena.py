"""Episodes by seed: played once, kept on disk, the same in every order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eventsim.errors import InputError, OutputError
from eventsim.models.arena import Arena, digest
from eventsim.models.policy import Policy
from eventsim.models.rollout import RandomActor, episode, make_env
from tests.fake_search import ENV, linear, teacher

FALLS = [0.0, 0.0, 1.0, 0.0]


def test_pairs_are_the_returns_of_both_on_the_same_seeds() -> None:
    policy = linear(FALLS, 0.1)
    with Arena(teacher(), ENV) as arena:
        arena.measure(range(5), range(10))
        pairs = arena.pairs(policy, [7, 8, 9])
        work = arena.work(policy, [7, 8, 9])
        assert not arena.is_mujoco
    totals, synops = [], 0
    for seed in (7, 8, 9):
        env = make_env(ENV)
        session = policy.session()
        one = episode(session, env, seed)
        totals.append(one.total)
        synops += session.simulator.totals.synops
    assert pairs.policy.tolist() == totals
    assert pairs.teacher.tolist() == [60.0] * 3
    assert work.steps == sum(totals)
    assert work.synops == synops / work.steps
    assert work.acs == 0.0


def test_the_baseline() -> None:
    with Arena(teacher(), ENV) as arena:
        found = arena.measure(range(5), range(20))
        pairs = arena.pairs(teacher(), [50])
    random = []
    env = make_env(ENV)
    for seed in range(20):
        actor = RandomActor(env.action_space)
        actor.seed(seed)
        random.append(episode(actor, env, seed).total)
    assert found.teacher == 60.0
    assert found.random == np.mean(random) == pairs.random[0]
    assert found.scale.floor == min(random)
    assert found.scale.ceiling == 60.0
    assert found.scale.advantage == pytest.approx(60.0 - np.mean(random))
    assert found.spread == 0.0
    assert found.seconds > 0.0


def test_fewer_episodes_are_a_baseline_where_they_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventsim.models.arena.FEWEST", 3)
    with Arena(teacher(), ENV) as arena:
        assert arena.measure(range(5), range(20)).episodes == (5, 20)
        # The teacher's take 60 steps each.
        monkeypatch.setattr("eventsim.models.arena.AMPLE_STEPS", 200)
        assert arena.measure(range(5), range(20)).episodes[0] == 4
        monkeypatch.setattr("eventsim.models.arena.AMPLE_STEPS", 1)
        assert arena.measure(range(5), range(20)).episodes == (3, 3)


def test_an_episode_is_played_once_and_found_again(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    played: list[int] = []
    policy = linear(FALLS)
    with Arena(teacher(), ENV, log=log, on_episode=lambda: played.append(1)) as arena:
        first = [arena.outcome(policy, seed) for seed in (1, 2, 1)]
    assert len(played) == 2
    assert first[0] == first[2] != first[1]
    # A cut last line is dropped, and its episode played again.
    log.write_text(log.read_text() + '["half')
    with Arena(teacher(), ENV, log=log, on_episode=lambda: played.append(1)) as arena:
        assert [arena.outcome(policy, seed) for seed in (2, 1)] == first[1::-1]
        assert len(played) == 2
        arena.outcome(policy, 3)
    assert len(played) == 3
    assert len(log.read_text().splitlines()) == 3


def test_a_fingerprint_is_of_what_a_policy_does(tmp_path: Path) -> None:
    policy = linear(FALLS, 0.1)
    assert digest(policy) == digest(linear(FALLS, 0.1))
    assert digest(policy) == digest(policy.with_metadata(name="another"))
    policy.save(tmp_path / "p.safetensors")
    assert digest(policy) == digest(Policy.load(tmp_path / "p.safetensors"))
    assert digest(policy) != digest(linear(FALLS, 0.2))
    assert digest(policy) != digest(linear([0.0, 0.0, 1.0, 1e-9], 0.1))


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with Arena(teacher(), ENV) as arena, pytest.raises(InputError, match="at least one seed"):
        arena.pairs(teacher(), [])
    with pytest.raises(InputError, match="name one by env"):
        Arena(replace(teacher(), metadata={}))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(OutputError, match="choose another workdir"):
        Arena(teacher(), ENV, log=tmp_path / "folder.jsonl")
