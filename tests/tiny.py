"""A small policy for CartPole, and environments that fail or stop on purpose."""

from __future__ import annotations

import os
import signal
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.policy import Policy
from eventsim.network import Network


def cartpole_policy(threshold: float = 0.01) -> Policy:
    """Balances the pole by hand-made weights, most of which are zero."""
    hidden = np.zeros((8, 4))
    hidden[:4] = [
        [0.0, 0.0, 1.0, 0.5],
        [0.0, 0.0, -1.0, -0.5],
        [0.1, 0.2, 1.0, 1.0],
        [-0.1, -0.2, -1.0, -1.0],
    ]
    output = np.zeros((2, 8))
    output[:, :4] = [[-1.0, 1.0, -1.0, 1.0], [1.0, -1.0, 1.0, -1.0]]
    network = Network.from_arrays([hidden, output], thresholds=threshold, name="tiny")
    return Policy(Encoder(BoxSpec((4,))), network, Argmax(2), {"env_id": "CartPole-v1"})


class Scripted(gym.Env[Any, Any]):
    """CartPole's spaces; observations, rewards and the end are a function of seed and step.

    Parameters
    ----------
    length : int
        Steps of an episode.
    nan_at, reward_nan_at : int, optional
        Step that gives a NaN observation or reward, counted over all episodes.
    interrupt_at : (int, int), optional
        Seed of the episode and step in it before which Ctrl-C is pressed.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 50}

    def __init__(
        self,
        length: int = 20,
        nan_at: int = -1,
        reward_nan_at: int = -1,
        interrupt_at: tuple[int, int] | None = None,
    ) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gym.spaces.Discrete(2)
        self._length, self._nan_at, self._reward_nan_at = length, nan_at, reward_nan_at
        self._interrupt_at = interrupt_at
        self._total = 0
        self._seed: int | None = None
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._seed, self._t = seed, 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if (self._seed, self._t) == self._interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        observation = self._observe()
        reward = float(action) + 0.5
        if self._total == self._nan_at:
            observation = np.full(4, np.nan)
        if self._total == self._reward_nan_at:
            reward = float("nan")
        self._t += 1
        self._total += 1
        return observation, reward, self._t >= self._length, False, {}

    def _observe(self) -> Any:
        # Steps of different size, some of them none.
        return np.round(self.np_random.normal(size=4).cumsum(), 1)


gym.register("Tiny-v0", entry_point=Scripted)
gym.register(
    "TinyInterrupted-v0", entry_point=lambda **kwargs: Scripted(interrupt_at=(1, 10), **kwargs)
)
gym.register("ShortPole-v0", "gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=60)
