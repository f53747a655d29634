"""How an event of the reference engine reaches its targets: a row of synapses, or a window's taps.

A window's geometry is one row of the numbers that `eventsim.convolution.GEOMETRY` names; its
weights are rows of synapses by tap and source channel, onto the target channels of one position.
"""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from eventsim.kernels.bits import fma
from eventsim.kernels.queue import push


@njit(cache=True)
def add_row(
    first: int,
    last: int,
    target: Any,
    weight: Any,
    d: float,
    u: Any,
    accumulator: int,
    heap: Any,
    neuron: int,
    now: float,
) -> int:
    """Add w d over synapses first:last, make the targets pending, return how many there are.

    `accumulator` and `neuron` are the numbers of the target population's first ones.
    """
    place = heap[2]
    for k in range(first, last):
        j = target[k]
        u[accumulator + j] = fma(weight[k], d, u[accumulator + j])
        if place[neuron + j] < 0:
            push(heap[0], heap[1], heap[2], heap[3], heap[4], neuron + j, now)
    return last - first


@njit(cache=True)
def add_window(
    g: Any,
    row: Any,
    first_row: int,
    source: int,
    target: Any,
    weight: Any,
    d: float,
    u: Any,
    accumulator: int,
    heap: Any,
    neuron: int,
    now: float,
) -> int:
    """As `add_row` for source neuron `source` of a window: over every position that it reaches."""
    width, channels, columns = g[1], g[2], g[4]
    pixel, channel = source // channels, source % channels
    y, x = pixel // width, pixel % width
    n = 0
    for tap_y in range(g[3]):
        at_y = y + g[7] - tap_y * g[9]
        if at_y < 0 or at_y % g[5] != 0 or at_y // g[5] >= g[11]:
            continue
        for tap_x in range(columns):
            at_x = x + g[8] - tap_x * g[10]
            if at_x < 0 or at_x % g[6] != 0 or at_x // g[6] >= g[12]:
                continue
            offset = ((at_y // g[5]) * g[12] + at_x // g[6]) * g[13]
            k = first_row + (tap_y * columns + tap_x) * channels + channel
            n += add_row(
                row[k],
                row[k + 1],
                target,
                weight,
                d,
                u,
                accumulator + offset,
                heap,
                neuron + offset,
                now,
            )
    return n


@njit(cache=True)
def window_max(g: Any, target: int, s: Any, first: int) -> float:
    """Largest value of s, from `first` on, in the window of target neuron `target`."""
    pixel, channel = target // g[13], target % g[13]
    y, x = pixel // g[12], pixel % g[12]
    best = -math.inf
    for tap_y in range(g[3]):
        at_y = y * g[5] - g[7] + tap_y * g[9]
        if at_y < 0 or at_y >= g[0]:
            continue
        for tap_x in range(g[4]):
            at_x = x * g[6] - g[8] + tap_x * g[10]
            if at_x < 0 or at_x >= g[1]:
                continue
            best = max(best, s[first + (at_y * g[1] + at_x) * g[2] + channel])
    return best
