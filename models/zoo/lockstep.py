"""Episodes of many environments played side by side, so that their actions come from one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def returns(
    make: Callable[[], Any],
    seeds: Sequence[int],
    act: Callable[[NDArray[Any]], NDArray[Any]],
) -> list[float]:
    """Play one episode a seed to its end.

    Parameters
    ----------
    make : callable
        Makes an environment.
    seeds : sequence of int
    act : callable
        Turns observations of shape (B, ...) into B actions.

    Returns
    -------
    list of float
        Undiscounted returns, in the order of the seeds.
    """
    environments = [make() for _ in seeds]
    observations = [env.reset(seed=seed)[0] for env, seed in zip(environments, seeds, strict=True)]
    totals = [0.0] * len(environments)
    alive = list(range(len(environments)))
    while alive:
        actions = act(np.stack([observations[k] for k in alive]))
        left = []
        for k, action in zip(alive, actions, strict=True):
            observations[k], reward, over, cut, _ = environments[k].step(int(action))
            totals[k] += float(reward)
            if over or cut:
                environments[k].close()
            else:
                left.append(k)
        alive = left
    return totals
