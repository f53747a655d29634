"""An environment in which an episode is a function of the actor and the seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from eventsim.models.rollout import Actor, Episode, episode

if TYPE_CHECKING:
    import gymnasium as gym

    Env: TypeAlias = gym.Env[Any, Any]

#: Modules of environments whose reset forgets all.
FORGETFUL = ("gymnasium.envs.classic_control", "gymnasium.envs.mujoco", "gymnasium.envs.toy_text")


class Playground:
    """Play episodes in an environment that is as good as new for each of them.

    Where a reset forgets all that was before, one environment serves every episode. Others are
    made anew each time: a Box2D world remembers its past, and then a return would depend on more
    than the policy and the seed.

    Parameters
    ----------
    make : callable
        Makes the environment; called when one is needed, and has the errors.
    """

    def __init__(self, make: Callable[[], Env]) -> None:
        self._make = make
        self._env: Env | None = None
        self._used = False

    @property
    def env(self) -> Env:
        """The environment, as the next episode or the last one finds it."""
        if self._env is None:
            self._env = self._make()
            self._used = False
        return self._env

    def play(
        self, actor: Actor, seed: int, *, record: bool = False, most: float = math.inf
    ) -> Episode:
        """Run one episode, see `eventsim.models.rollout.episode`."""
        if self._used and not self._forgets():
            self.close()
        env = self.env
        self._used = True
        return episode(actor, env, seed, record=record, most=most)

    @property
    def is_mujoco(self) -> bool:
        """Whether the environment is one of Gymnasium's on MuJoCo."""
        return self._entry().startswith("gymnasium.envs.mujoco")

    @property
    def is_atari(self) -> bool:
        """Whether the environment is one of the Arcade Learning Environment."""
        return self._entry().startswith("ale_py")

    def close(self) -> None:
        """Close the environment; a further episode makes another."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _forgets(self) -> bool:
        return self._entry().startswith(FORGETFUL)

    def _entry(self) -> str:
        """Module of the environment, or nothing."""
        spec = self.env.spec
        entry = None if spec is None else spec.entry_point
        return entry if isinstance(entry, str) else ""
