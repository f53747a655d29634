"""Atari's games side by side, by ale-py's vector environment.

It plays all of them in one call outside of Python, and shows what gymnasium's AtariPreprocessing
and FrameStackObservation show. Only idle and sticky actions are drawn by another generator, and an
episode may begin without idle actions too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import gymnasium as gym

    Env: TypeAlias = gym.Env[Any, Any]

_ENTRY = "ale_py.env:AtariEnv"
#: Arguments of a game that the vector environment takes as well.
_OF_GAME = ("game", "repeat_action_probability", "full_action_space")
_FRAMES = "max_num_frames_per_episode"
#: What it shows, in the words of AtariPreprocessing.
_SHOWN = {
    "screen_size": 84,
    "terminal_on_life_loss": False,
    "grayscale_obs": True,
    "grayscale_newaxis": False,
    "scale_obs": False,
}


class Screens:
    """N games of one kind; each begins anew when its episode is over.

    Parameters
    ----------
    arguments : mapping
        Of ale-py's vector environment.
    n : int
    padded : bool
        Whether copies of an episode's first frame stand before it, instead of empty ones.

    Attributes
    ----------
    finals : uint8 array of shape (n, frames, rows, columns)
        What the episodes that the last step ended would have gone on from, their newest frame as it
        was when they were cut; other rows mean nothing.
    """

    def __init__(self, arguments: Mapping[str, Any], n: int, padded: bool) -> None:
        from ale_py.vector_env import AtariVectorEnv

        self._padded = padded
        self._env: AtariVectorEnv = AtariVectorEnv(
            num_envs=n,
            num_threads=min(n, _cores()),
            autoreset_mode="SameStep",
            reward_clipping=False,
            use_fire_reset=False,
            **arguments,
        )
        self._clocks = np.zeros(n, np.int64)
        self.finals = np.zeros(0, np.uint8)

    @staticmethod
    def arguments_of(env: Env, longest: int) -> tuple[dict[str, Any], bool] | None:
        """Arguments of the vector environment that plays as `env` does, and how it is padded.

        Parameters
        ----------
        env : gymnasium.Env
            Untouched.
        longest : int
            Steps after which an episode is cut, idle ones included.

        Returns
        -------
        dict and bool, or None
            As `Screens` takes them; None if `env` is another kind of environment, or wrapped
            otherwise.
        """
        spec = env.spec
        if (
            spec is None
            or spec.entry_point != _ENTRY
            or spec.max_episode_steps is not None
            or len(spec.additional_wrappers) != 2
        ):
            return None
        first, last = spec.additional_wrappers
        shown, stacked = dict(first.kwargs or {}), dict(last.kwargs or {})
        game = dict(spec.kwargs)
        frames = game.pop(_FRAMES, None) or math.inf  # 0 is without end there, but not here
        skipped = game.pop("frameskip", None)
        noop_max, skip = shown.pop("noop_max", None), shown.pop("frame_skip", None)
        depth, padding = stacked.pop("stack_size", None), stacked.pop("padding_type", None)
        if (
            (first.name, last.name) != ("AtariPreprocessing", "FrameStackObservation")
            or set(game) != set(_OF_GAME)
            or skipped != 1
            or shown != _SHOWN
            or stacked
            or None in (noop_max, depth)
            # Of one frame alone there is no largest value of the last two.
            or not (isinstance(skip, int) and skip > 1)
            or padding not in ("reset", "zero")
        ):
            return None
        arguments = {
            **game,
            _FRAMES: int(min(frames, skip * longest)),
            "noop_max": noop_max + 1 if noop_max else 0,  # of which there is one less at most
            "frameskip": skip,
            "stack_num": depth,
        }
        return arguments, padding == "reset"

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """Begin the games, the k-th one by the seed ``seed + k``.

        Returns
        -------
        uint8 array of shape (n, frames, rows, columns)
        """
        self._clocks[:] = 0
        shown: NDArray[np.uint8] = self._env.reset(seed=seed)[0]
        return self._filled(shown)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        """Act.

        Returns
        -------
        What is seen then, of a new episode where one ended, rewards, and which episodes ended by
        themselves or were cut.
        """
        shown, rewards, over, cut, info = self._env.step(np.ascontiguousarray(actions, np.int64))
        self._clocks += 1
        self.finals = info.get("final_obs", self.finals)
        self._clocks[over | cut] = 0
        return self._filled(shown), rewards, over, cut

    def close(self) -> None:
        """Close the games."""
        self._env.close()

    def _filled(self, shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Put an episode's first frame where there is none before it, in place, if it is padded."""
        if not self._padded:
            return shown
        depth = shown.shape[1]
        for k in np.flatnonzero(self._clocks < depth - 1):
            first = depth - 1 - self._clocks[k]
            shown[k, :first] = shown[k, first]
        return shown


def _cores() -> int:
    """Cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed else os.cpu_count() or 1


__all__ = ["Screens"]
