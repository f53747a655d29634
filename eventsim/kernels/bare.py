"""The yardstick of the benchmarks: adding given rows, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.kernels.bits import fma
from eventsim.kernels.jit import kernel

Unsigned = np.uint64


@kernel
def scatter_add(
    pointers: Any, targets: Any, weights: Any, rows: Any, values: Any, u: Any, first: Any
) -> None:
    """Add row after row: ``u[first[k] + target] += weight * values[k]`` over synapses of rows[k].

    Parameters
    ----------
    pointers : int64 array; row i is ``pointers[i]:pointers[i + 1]``
    targets : unsigned integer array of shape (synapses,)
    weights : float array of shape (synapses,)
    rows, values, first : arrays of shape (additions,)
    u : float64 array
    """
    for k in range(rows.shape[0]):
        d, base = values[Unsigned(k)], Unsigned(first[Unsigned(k)])
        start = Unsigned(pointers[rows[Unsigned(k)]])
        for i in range(pointers[rows[Unsigned(k)] + 1] - pointers[rows[Unsigned(k)]]):
            s = start + Unsigned(i)
            j = base + Unsigned(targets[s])
            u[j] = fma(weights[s], d, u[j])
