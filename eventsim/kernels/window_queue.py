"""What the window engines share: candidates in order, and a small heap beside them.

A window is a stretch of time that holds some of the next spikes. Its candidates are sorted once;
neurons that kicks bring in or move lie in a binary heap of (key, id). Both end with a key of
infinity, so that looking at the next one needs no test.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eventsim.kernels.jit import kernel

Unsigned = np.uint64

#: Steps of the insertion sort for each candidate before the merge sort takes over.
PATIENCE = 16


@kernel
def heap_push(keys: Any, ids: Any, n: int, key: float, i: int) -> int:
    """Enter (key, i) in a heap of n entries; there must be room for the entry and the sentinel.

    Returns
    -------
    entries : int
    """
    k = n
    while k > 0:
        parent = (k - 1) >> 1
        other = keys[parent]
        if other < key or (other == key and ids[parent] < i):
            break
        keys[k] = other
        ids[k] = ids[parent]
        k = parent
    keys[k] = key
    ids[k] = i
    return n + 1


@kernel
def heap_pop(keys: Any, ids: Any, n: int) -> int:
    """Remove the first of n > 0 entries.

    Returns
    -------
    entries : int
    """
    n -= 1
    key, i = keys[n], ids[n]
    k = 0
    while True:
        child = 2 * k + 1
        if child >= n:
            break
        right = child + 1
        if right < n and (
            keys[right] < keys[child] or (keys[right] == keys[child] and ids[right] < ids[child])
        ):
            child = right
        other = keys[child]
        if key < other or (key == other and i < ids[child]):
            break
        keys[k] = other
        ids[k] = ids[child]
        k = child
    if n > 0:
        keys[k] = key
        ids[k] = i
    else:
        keys[0] = math.inf
    return n


@kernel
def order(
    low: float, high: float, m: int, key: Any, member: Any, counts: Any, keys: Any, ids: Any
) -> None:
    """Sort m candidates by (key, place): into buckets of equal width, then by insertion.

    Parameters
    ----------
    low, high : float
        Keys lie between them, but for rounding.
    m : int
    key, member : float64 and int32 arrays of at least m entries
        The candidates; they serve as scratch space, too.
    counts : int32 array of at least m + 1 entries
        Scratch space.
    keys, ids : float64 and int32 arrays of at least m + 1 entries
        Filled with the candidates in order; ``keys[m]`` is infinity.
    """
    factor = m / (high - low)
    last = m - 1
    for b in range(m + 1):
        counts[Unsigned(b)] = 0
    for c in range(m):
        b = min(max(int((key[Unsigned(c)] - low) * factor), 0), last)
        counts[Unsigned(b + 1)] += 1
    total = 0
    for b in range(m):
        total += counts[Unsigned(b)]
        counts[Unsigned(b)] = total
    for c in range(m):
        value = key[Unsigned(c)]
        b = min(max(int((value - low) * factor), 0), last)
        place = counts[Unsigned(b)]
        counts[Unsigned(b)] = place + 1
        keys[Unsigned(place)] = value
        ids[Unsigned(place)] = member[Unsigned(c)]
    keys[m] = math.inf
    patience = PATIENCE * m + 64
    for c in range(1, m):
        value = keys[Unsigned(c)]
        if value >= keys[Unsigned(c - 1)]:
            continue
        i = ids[Unsigned(c)]
        k = c
        while k > 0 and keys[Unsigned(k - 1)] > value:
            keys[Unsigned(k)] = keys[Unsigned(k - 1)]
            ids[Unsigned(k)] = ids[Unsigned(k - 1)]
            k -= 1
        keys[Unsigned(k)] = value
        ids[Unsigned(k)] = i
        patience -= c - k
        if patience < 0:
            merge_sort(m, keys, ids, key, member)
            return


@kernel
def merge_sort(m: int, keys: Any, ids: Any, spare_keys: Any, spare_ids: Any) -> None:
    """Sort the first m entries by key, stably, whatever they are like."""
    width = 1
    while width < m:
        start = 0
        while start < m:
            middle = min(start + width, m)
            end = min(start + 2 * width, m)
            a, b = start, middle
            for k in range(start, end):
                if a < middle and (b >= end or keys[a] <= keys[b]):
                    spare_keys[k] = keys[a]
                    spare_ids[k] = ids[a]
                    a += 1
                else:
                    spare_keys[k] = keys[b]
                    spare_ids[k] = ids[b]
                    b += 1
            start = end
        for k in range(m):
            keys[k] = spare_keys[k]
            ids[k] = spare_ids[k]
        width *= 2
