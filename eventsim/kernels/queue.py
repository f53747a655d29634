"""Indexed binary heap of neurons, ordered by (time, order).

Arrays, all of length n: ``time[k]`` and ``neuron[k]`` are the heap, ``place[i]`` is where neuron i
stands in it, -1 if it does not. ``order[i]`` breaks ties of time; it is the neuron's position by
(rank, id), so two entries are never equal. The number of entries is ``size[0]``.
"""

from __future__ import annotations

from typing import Any

from numba import njit


@njit(cache=True)
def push(time: Any, neuron: Any, place: Any, size: Any, order: Any, i: int, t: float) -> None:
    """Enter neuron i at time t; if it is pending already, move it to the earlier time."""
    k = place[i]
    if k < 0:
        k = size[0]
        size[0] += 1
    elif time[k] <= t:
        return
    _sift_up(time, neuron, place, order, k, i, t)


@njit(cache=True)
def pop(time: Any, neuron: Any, place: Any, size: Any, order: Any) -> int:
    """Remove and return the first neuron; the heap must not be empty."""
    first = neuron[0]
    place[first] = -1
    size[0] -= 1
    n = size[0]
    if n > 0:
        _sift_down(time, neuron, place, order, n, neuron[n], time[n])
    return int(first)


@njit(cache=True)
def _sift_up(time: Any, neuron: Any, place: Any, order: Any, k: int, i: int, t: float) -> None:
    while k > 0:
        parent = (k - 1) >> 1
        j = neuron[parent]
        if time[parent] < t or (time[parent] == t and order[j] < order[i]):
            break
        time[k] = time[parent]
        neuron[k] = j
        place[j] = k
        k = parent
    time[k] = t
    neuron[k] = i
    place[i] = k


@njit(cache=True)
def _sift_down(time: Any, neuron: Any, place: Any, order: Any, n: int, i: int, t: float) -> None:
    k = 0
    while True:
        child = 2 * k + 1
        if child >= n:
            break
        right = child + 1
        if right < n and (
            time[right] < time[child]
            or (time[right] == time[child] and order[neuron[right]] < order[neuron[child]])
        ):
            child = right
        j = neuron[child]
        if t < time[child] or (t == time[child] and order[i] < order[j]):
            break
        time[k] = time[child]
        neuron[k] = j
        place[j] = k
        k = child
    time[k] = t
    neuron[k] = i
    place[i] = k
