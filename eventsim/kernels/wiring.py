"""Random graphs, row by row, with generators that are keyed by the row.

A row is drawn twice where that saves a copy: once to count, once to fill. Random numbers are those
of splitmix64 (Steele, Lea & Flood 2014), whose state is seed and row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eventsim.kernels.jit import kernel

Unsigned = np.uint64
_GOLDEN = Unsigned(0x9E3779B97F4A7C15)
_A, _B = Unsigned(0xBF58476D1CE4E5B9), Unsigned(0x94D049BB133111EB)
_30, _27, _31, _32, _11 = (Unsigned(k) for k in (30, 27, 31, 32, 11))
_LOW = Unsigned(0xFFFFFFFF)


@kernel
def _mix(z: Any) -> Any:
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


@kernel
def _key(seed: int, row: int) -> Any:
    """State of the generator of a row."""
    return _mix(_mix(Unsigned(seed) + _GOLDEN) + Unsigned(row) * _GOLDEN)


@kernel
def _uniform(state: Any) -> float:
    """A number in (0, 1] from a state."""
    return (float(_mix(state) >> _11) + 1.0) * 2.0**-53


@kernel
def _sort(row: Any, first: int, n: int) -> None:
    """Sort ``row[first:first + n]``, with Ciura's gaps."""
    for g in (701, 301, 132, 57, 23, 10, 4, 1):
        for k in range(first + g, first + n):
            value = row[k]
            j = k
            while j - g >= first and row[j - g] > value:
                row[j] = row[j - g]
                j -= g
            row[j] = value


@kernel
def draw_distinct(seed: int, row: int, size: int, k: int, skip: int, out: Any, first: int) -> None:
    """Fill ``out[first:first + k]`` with k distinct numbers below `size`, ascending.

    `skip` is left out if it is one of them; then `size` counts those that remain.
    """
    state = _key(seed, row)
    if 3 * k > size:  # selection sampling (Knuth, vol. 2, algorithm S)
        found = 0
        for j in range(size):
            state += _GOLDEN
            if (size - j) * (1.0 - _uniform(state)) < k - found:
                out[first + found] = j
                found += 1
                if found == k:
                    break
    else:
        fresh = 0
        while fresh < k:
            for c in range(first + fresh, first + k):
                state += _GOLDEN
                # 32 random bits times the size: a bias of size / 2**32 at most
                out[c] = ((_mix(state) >> _32) * Unsigned(size)) >> _32
            _sort(out, first, k)
            fresh = 1  # keep one of those that are equal
            for c in range(first + 1, first + k):
                if out[c] != out[first + fresh - 1]:
                    out[first + fresh] = out[c]
                    fresh += 1
    if skip >= 0:
        for c in range(first, first + k):
            if out[c] >= skip:
                out[c] += 1


@kernel
def fixed_out(seed: int, size: int, k: int, autapses: bool, targets: Any) -> None:
    """K distinct targets below `size` for every source, ``targets`` of shape (sources * k,)."""
    for row in range(targets.shape[0] // k):
        skip = -1 if autapses or row >= size else row
        draw_distinct(seed, row, size - (skip >= 0), k, skip, targets, row * k)


@kernel
def fixed_in(
    seed: int, n_sources: int, n_targets: int, k: int, autapses: bool, one: Any, place: Any,
    targets: Any,
) -> None:  # fmt: skip
    """K distinct sources for every target.

    With an empty `targets` the synapses of every source are counted in ``place[1:]``; else
    ``place`` holds where the next target of every source goes. `one` has room for k numbers.
    """
    fills = targets.shape[0] > 0
    for j in range(n_targets):
        skip = -1 if autapses or j >= n_sources else j
        draw_distinct(seed, j, n_sources - (skip >= 0), k, skip, one, 0)
        for c in range(k):
            i = one[c]
            if fills:
                targets[place[i]] = j
                place[i] += 1
            else:
                place[i + 1] += 1


@kernel
def bernoulli(
    seed: int, n_targets: int, p: float, autapses: bool, pointers: Any, targets: Any
) -> None:
    """Every pair with probability p; with an empty `targets`, degrees go to ``pointers[1:]``."""
    fills = targets.shape[0] > 0
    scale = 1.0 / math.log1p(-p) if p < 1.0 else 0.0
    for i in range(pointers.shape[0] - 1):
        state = _key(seed, i)
        j, found = -1, 0
        while True:
            state += _GOLDEN
            leap = math.log(_uniform(state)) * scale
            if not leap < n_targets - 1 - j:  # before it becomes an integer: it may be huge
                break
            j += 1 + int(leap)
            if j == i and not autapses:
                continue
            if fills:
                targets[pointers[i] + found] = j
            found += 1
        if not fills:
            pointers[i + 1] = found
