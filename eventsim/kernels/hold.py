"""Holding values until they have moved by more than a threshold, for windows of a training."""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.kernels.jit import kernel

Unsigned = np.uint64


@kernel
def hold(values: Any, before: Any, limits: Any, first: int, sent: Any, counts: Any) -> None:
    """Write what is sent of each value in turn, and count how often it changed.

    Parameters
    ----------
    values : float32 array of shape (windows * steps * size,)
        Step by step.
    before : float32 array of shape (windows * size,)
        What is held before the first step; what is held after the last one when it returns.
    limits : float32 array of shape (size,)
    first : int
        Step from which on changes are counted.
    sent : float32 array, as `values`
    counts : int64 array of shape (size,)
        Added to.
    """
    size = limits.shape[0]
    windows = before.shape[0] // size
    steps = values.shape[0] // before.shape[0]
    for w in range(windows):
        b = Unsigned(w * size)
        for t in range(steps):
            v = Unsigned((w * steps + t) * size)
            counted = np.int64(t >= first)
            for k in range(size):
                j = Unsigned(k)
                now, held = values[v + j], before[b + j]
                moved = abs(now - held) > limits[j]
                held = now if moved else held
                before[b + j] = held
                sent[v + j] = held
                counts[j] += counted & np.int64(moved)
