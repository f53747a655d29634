"""A vector session equals as many single sessions, through the resets of single environments."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from eventsim.errors import InputError, UnknownNameError
from eventsim.models.decoders import Argmax, ClipBox
from eventsim.models.encoders import BoxSpec, Encoder, Normalization, TimeFeature
from eventsim.models.policy import Policy
from eventsim.network import Network

B = 3


def policy() -> Policy:
    """For CartPole: random, with time feature, normalisation and thresholds."""
    rng = np.random.default_rng(3)
    network = Network.from_arrays(
        [rng.normal(size=(20, 5)), rng.normal(size=(2, 20))], None, "tanh", 0.02
    )
    encoder = Encoder(BoxSpec((4,)), Normalization(np.zeros(5), np.ones(5)), TimeFeature(50))
    return Policy(encoder, network, Argmax(2))


def episodes_alone(seeds: list[int], n_steps: int) -> list[list[tuple[int, np.ndarray]]]:
    """What single sessions do: action and outputs of each step, episode after episode."""
    steps: list[list[tuple[int, np.ndarray]]] = []
    for seed in seeds:
        env, session, mine = gym.make("CartPole-v1", max_episode_steps=12), policy().session(), []
        observation, _ = env.reset(seed=seed)
        session.reset()
        for _ in range(n_steps):
            action = session.act(observation)
            mine.append((int(action), session.outputs.copy()))
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset()
                session.reset()
        steps.append(mine)
        env.close()
    return steps


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_each_environment_is_a_session_of_its_own(mode: AutoresetMode) -> None:
    makers = [lambda: gym.make("CartPole-v1", max_episode_steps=12)] * B
    envs = SyncVectorEnv(makers, autoreset_mode=mode)
    session = policy().vector_session(B, autoreset=envs.metadata["autoreset_mode"].value)
    seeds = [5, 6, 7]
    observations, _ = envs.reset(seed=seeds)
    session.reset()
    ended: Any = None
    got: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(B)]
    for _ in range(60):
        actions = session.act(observations, ended)
        for b in range(B):
            # With NextStep the action for the last observation of an episode is ignored.
            if mode != AutoresetMode.NEXT_STEP or ended is None or not ended[b]:
                got[b].append((int(actions[b]), session.outputs[b].copy()))
        observations, _, terminated, truncated, _ = envs.step(actions)
        ended = terminated | truncated
        if mode == AutoresetMode.DISABLED and ended.any():
            observations, _ = envs.reset(options={"reset_mask": ended})
            session.reset(ended)
            ended = None
    envs.close()
    expected = episodes_alone(seeds, 60)
    for mine, alone in zip(got, expected, strict=True):
        assert len(mine) > 40
        for (action, outputs), (other, wanted) in zip(mine, alone, strict=False):
            np.testing.assert_array_equal(outputs, wanted)
            assert action == other


def test_box_actions_of_a_batch() -> None:
    rng = np.random.default_rng(0)
    network = Network.from_arrays([rng.normal(size=(2, 4))], thresholds=0.1)
    continuous = Policy(Encoder(BoxSpec((4,))), network, ClipBox(-1.0, 1.0, (2,)))
    session, singles = continuous.vector_session(2), [continuous.session() for _ in range(2)]
    for x in rng.normal(size=(5, 2, 4)):
        expected = [single.act(row) for single, row in zip(singles, x, strict=True)]
        np.testing.assert_array_equal(session.act(x), expected)
    assert session.t.tolist() == [5, 5]


def test_misuse_is_told_before_anything_moves() -> None:
    session = policy().vector_session(B)
    with pytest.raises(InputError, match="belong to 2 environments, expected 3"):
        session.act(np.zeros((2, 4)))
    with pytest.raises(InputError, match="expected 3 booleans"):
        session.act(np.zeros((B, 4)), [True])
    with pytest.raises(InputError, match="expected 3 booleans"):
        session.reset([0, 1, 2])
    assert session.simulator.step_index.tolist() == [0, 0, 0]
    with pytest.raises(UnknownNameError, match="'SameStep'"):
        policy().vector_session(B, autoreset="never")  # type: ignore[arg-type]
