"""Training on Atari: advantages, a training that goes on exactly, its policy and its protocol."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eventsim.errors import FileFormatError, InputError
from eventsim.models.policy import Policy
from eventsim.models.rollout import check_spaces, make_for
from eventsim.models.zoo import atari, lockstep
from eventsim.models.zoo.ppo import Batch, Learner, Settings, advantages

SMALL = Settings(n_envs=2, horizon=4, minibatch=4)


@pytest.fixture
def games() -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    pytest.importorskip("cv2", reason="needs the extra 'atari'")
    pytest.importorskip("torch", reason="needs the extra 'train'")


def batch(rng: np.random.Generator, shape: tuple[int, int]) -> Batch:
    return Batch(
        rng.integers(0, 256, (*shape, 4, 84, 84), np.uint8),
        rng.integers(0, 3, shape),
        rng.normal(size=shape).astype(np.float32),
        rng.normal(size=shape).astype(np.float32),
        np.full(shape, np.log(1 / 3), np.float32),
        rng.random(shape) < 0.2,
        rng.normal(size=shape[1]).astype(np.float32),
    )


def test_advantages_are_sums_of_discounted_errors() -> None:
    b = batch(np.random.default_rng(0), (9, 3))
    gamma, trace = 0.9, 0.7
    got = advantages(b, gamma, trace)
    values = np.vstack([b.values, b.last_values])
    for n in range(3):
        for t in range(9):
            total, weight = 0.0, 1.0
            for k in range(t, 9):
                goes_on = 0.0 if b.ends[k, n] else 1.0
                error = b.rewards[k, n] + gamma * goes_on * values[k + 1, n] - values[k, n]
                total += weight * float(error)
                weight *= gamma * trace * goes_on
            assert got[t, n] == pytest.approx(total, abs=1e-5)


def test_unknown_game() -> None:
    assert atari.env_id("space_invaders") == "ALE/SpaceInvaders-v5"
    with pytest.raises(InputError, match="use one of breakout, freeway, pong"):
        atari.env_id("chess")


def test_an_update_makes_a_rewarded_action_likelier() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    for bfloat16 in (False, True):
        settings = replace(SMALL, minibatch=16, epochs=8, bfloat16=bfloat16)
        learner = Learner(3, 0, settings)
        b = batch(np.random.default_rng(1), (8, 4))
        b = replace(b, rewards=(b.actions == 2).astype(np.float32), values=0 * b.values)
        b = replace(b, ends=np.ones_like(b.ends))
        before = _likelihood(learner, b.observations[0])
        losses = learner.update(b, 1e-3)
        assert _likelihood(learner, b.observations[0]) > before + 0.05
        assert 0.0 < losses["entropy"] <= np.log(3) + 1e-6


def _likelihood(learner: Learner, frames: np.ndarray) -> float:
    """Mean probability of action 2."""
    import torch

    with torch.no_grad():
        return float(learner.module(_as_input(frames)).softmax(1)[:, 2].mean())


def _as_input(frames: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(frames) / 255


@pytest.mark.usefixtures("games")
def test_frames_are_those_of_gymnasium_with_empty_ones_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Idle actions and sticky ones are drawn by other generators there, so there are none here.
    monkeypatch.setattr(atari, "NOOP_MAX", 0)
    monkeypatch.setattr(atari, "STICKY", 0.0)
    for game in ("breakout", "pong"):
        vector = atari.Games(game, 1)
        policy = _policy(vector.n_actions)
        with make_for(policy, atari.env_id(game)) as env:
            check_spaces(policy, env)
            theirs, mine = env.reset(seed=0)[0], vector.reset(0)[0]
            rng = np.random.default_rng(0)
            for _ in range(60):
                assert np.array_equal(mine, theirs)
                action = int(rng.integers(vector.n_actions))
                theirs, reward, *_ = env.step(action)
                frames, rewards, _, _ = vector.step(np.array([action]))
                mine = frames[0]
                assert rewards[0] == reward


def _policy(n_actions: int) -> Policy:
    """The policy of a training that never began."""
    record = {"game": "pong", "env_id": "ALE/Pong-v5", "algorithm": "PPO"}
    record |= dict.fromkeys(("seed", "steps", "seconds", "versions"), "")
    return atari.policy_of(Learner(n_actions, 0, SMALL), record)


@pytest.mark.slow
@pytest.mark.usefixtures("games")
def test_a_training_that_was_stopped_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stopped within an era, at its end, and before the next.
    monkeypatch.setattr(atari, "ERA", 3)
    monkeypatch.setattr(atari, "CURVE", 1)
    whole = atari.Training("breakout", 5, tmp_path / "whole", 80, SMALL)
    while not whole.done:
        whole.update()
    for stop in (2, 3, 4):
        folder = tmp_path / str(stop)
        part = atari.Training("breakout", 5, folder, 80, SMALL)
        for _ in range(stop):
            part.update()
        part.save()
        rest = atari.Training("breakout", 5, folder)
        assert rest.settings == SMALL
        while not rest.done:
            rest.update()
        for name, tensor in whole.learner.state().items():
            assert bool((tensor == rest.learner.state()[name]).all()), name
        for key in ("steps", "updates", "episodes"):
            assert rest.record[key] == whole.record[key]
        assert [(p[0], *p[2:]) for p in rest.record["curve"]] == [
            (p[0], *p[2:]) for p in whole.record["curve"]
        ]


@pytest.mark.slow
@pytest.mark.usefixtures("games")
def test_a_short_training_its_policy_and_its_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    lines: list[str] = []
    training = atari.train("pong", 1, tmp_path, 16, settings=SMALL, say=lines.append)
    assert lines[-1].startswith("pong: 16 steps")
    record = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    assert record["steps"] == 16
    assert record["settings"]["horizon"] == 4
    assert {"ale-py", "gymnasium", "numpy", "torch"} == set(record["versions"])
    policy = Policy.load(tmp_path / "policy.safetensors")
    assert policy.env_id == "ALE/Pong-v5"

    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84), np.uint8)
    session = policy.session()
    with torch.no_grad():
        expected = training.learner.module(_as_input(frames)).numpy()
    for frame, logits in zip(frames, expected, strict=True):
        assert session.act(frame) == logits.argmax()
        assert session.outputs == pytest.approx(logits, rel=1e-4, abs=1e-6)

    seen: list[float] = []

    def play(make: Any, seeds: Any, act: Any) -> list[float]:
        with make() as env:
            seen.append(env.unwrapped.spec.kwargs["repeat_action_probability"])
            observation, _ = env.reset(seed=seeds[0])
            assert act(np.stack([observation])).shape == (1,)
        return [1.0 for _ in seeds]

    monkeypatch.setattr(lockstep, "returns", play)
    result = training.evaluate(2)
    assert seen == [0.25, 0.0]
    assert result["protocol"]["frame_skip"] == 4
    assert result["protocol"]["life_loss_ends_episode"] is False
    assert result["sticky"]["mean_return"] == 1.0
    assert result["sticky"]["human_normalised"] == pytest.approx(21.7 / 30.0)

    with pytest.raises(InputError, match="another game or seed"):
        atari.Training("pong", 2, tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"no tensors")
    with pytest.raises(FileFormatError, match="remove it to begin anew"):
        atari.Training("pong", 1, tmp_path)


def test_lockstep_returns_are_in_the_order_of_the_seeds() -> None:
    import gymnasium as gym

    class Counts(gym.Env[np.ndarray, int]):
        """An episode of as many steps of reward 1 as its seed says."""

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.left = seed or 0
            return np.array([self.left]), {}

        def step(self, action: int) -> Any:
            self.left -= 1
            return np.array([self.left]), float(action), self.left == 0, False, {}

    seeds = [3, 1, 2]
    assert lockstep.returns(Counts, seeds, lambda x: np.ones(len(x), np.int64)) == [3.0, 1.0, 2.0]


def test_what_is_shown_does_not_depend_on_threads(games: None) -> None:
    one, two = (atari.Games("pong", 3, threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.reset(5), two.reset(5))
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.integers(0, one.n_actions, 3)
        for mine, theirs in zip(one.step(actions), two.step(actions), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_device_that_is_not_there(games: None) -> None:
    with pytest.raises(InputError, match=r"'cuda:99', which torch cannot use .*; use cpu"):
        Learner(3, 0, SMALL, "cuda:99")
    with pytest.raises(InputError, match=r"'abacus', which torch cannot use .*; use cpu"):
        Learner(3, 0, SMALL, "abacus")


def test_a_checkpoint_of_another_device_goes_on_with_new_draws(games: None) -> None:
    import torch

    one, two = Learner(3, 0, SMALL), Learner(3, 1, SMALL)
    state = one.state()
    generator = state.pop("generator")
    two.load({**state, "generator/cuda": torch.zeros(16, dtype=torch.uint8)})
    for key, value in two.state().items():
        assert torch.equal(value, state[key] if key != "generator" else value)
    assert not torch.equal(two.state()["generator"], generator)
    with pytest.raises(KeyError):
        two.load(state)


def test_more_environments_make_larger_batches_not_more_of_them() -> None:
    options = argparse.Namespace(rate=None, entropy=None, imitate=0, envs=128)
    changed = atari.settings_of(options)
    assert changed is not None
    usual = Settings()
    for s in (usual, changed):
        assert s.n_envs * s.horizon // s.minibatch == 8
    assert changed.n_envs == 128


@pytest.mark.parametrize("option", ["--envs", "--threads"])
def test_environments_and_threads_are_counted_from_1(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["atari", "--game", "pong", "--out", str(tmp_path / "no"), option, "0"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match=f"'{option[2:]}': is 0; give at least 1"):
        atari.main()
    assert not (tmp_path / "no").exists()


def test_what_acts_is_a_copy(games: None) -> None:
    learner = Learner(3, 0, SMALL)
    before = learner.actor.weight.detach().clone()
    learner.module[-1].weight.data.zero_()
    assert (learner.actor.weight == before).all()
