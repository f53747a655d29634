"""A window of inhibitory LIF neurons in two passes, the second of which threads can share.

An inhibitory kick cannot bring a neuron into the window. So the spikes of a window follow from its
candidates alone: the first pass goes through them in order and kicks candidates only, which a table
of bits tells apart. The second kicks all others. They do not meet until the next window; what one
neuron receives stays in the order of the spikes, hence every bit is that of `window_lif`, however
the neurons are shared out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eventsim.kernels.bits import prefetch
from eventsim.kernels.jit import kernel
from eventsim.kernels.window_lif import AHEAD, below
from eventsim.kernels.window_queue import heap_pop, heap_push, order

Unsigned = np.uint64


@kernel
def candidates(
    b: Any, low: float, limit: float, keys: Any, ids: Any, scratch: Any, member: Any, counts: Any
) -> int:
    """Collect the neurons below the limit and order them; how many they are."""
    found = below(b, b, False, limit, scratch, member)
    if found > 0:
        order(low, limit, found, scratch, member, counts, keys, ids)
    keys[found] = math.inf
    return int(found)


@kernel
def spikes_of_window(
    b: Any,
    ratio: float,
    targets: Any,
    degree: int,
    scale: float,
    limit: float,
    found: int,
    keys: Any,
    ids: Any,
    heap_keys: Any,
    heap_ids: Any,
    flags: Any,
    spike_key: Any,
    spike_id: Any,
) -> int:
    """Go through the candidates in order, with the kicks among them; how many spikes there are.

    Parameters
    ----------
    flags : uint8 array of shape (neurons / 8 + 1,), zeros
        Its bits tell the candidates; they are left set.
    spike_key, spike_id : float64 and int32 arrays of at least `found` entries
        A candidate fires once at most: its reset lies beyond the window. Filled; keys are E.
    """
    for c in range(found):
        i = ids[Unsigned(c)]
        flags[Unsigned(i >> 3)] |= np.uint8(1 << (i & 7))
    heaped, place, spikes = 0, 0, 0
    heap_keys[0] = math.inf
    while True:
        key, top = keys[place], heap_keys[0]
        if top < key or (top == key and top < math.inf and heap_ids[0] < ids[place]):
            key = top
            i = heap_ids[0]
            heaped = heap_pop(heap_keys, heap_ids, heaped)
        else:
            if key == math.inf:
                return spikes
            i = ids[place]
            place += 1
            if place + AHEAD < found:
                later = ids[place + AHEAD]
                prefetch(b, Unsigned(later))
                for line in range(degree // 16 + 1):
                    prefetch(targets, Unsigned(later * degree + 16 * line))
        value = b[i]
        if value != key:
            if value < limit:
                heaped = heap_push(heap_keys, heap_ids, heaped, value, i)
            continue
        spike_key[spikes] = key
        spike_id[spikes] = i
        spikes += 1
        b[i] = ratio * key
        kick = scale * key
        start = Unsigned(i * degree)
        for e in range(degree):
            j = Unsigned(targets[start + Unsigned(e)])
            if (flags[j >> Unsigned(3)] >> np.uint8(j & Unsigned(7))) & np.uint8(1):
                b[j] += kick


@kernel
def kick_others(
    b: Any,
    targets: Any,
    degree: int,
    scale: float,
    flags: Any,
    spikes: int,
    spike_key: Any,
    spike_id: Any,
    first: int,
    last: int,
) -> None:
    """Kick the targets from `first` to before `last` that are no candidates; rows ascend."""
    for s in range(spikes):
        if s + AHEAD < spikes:
            later = spike_id[Unsigned(s + AHEAD)] * degree
            for line in range(degree // 16 + 1):
                prefetch(targets, Unsigned(later + 16 * line))
        kick = scale * spike_key[Unsigned(s)]
        start = spike_id[Unsigned(s)] * degree
        a, z = start, start + degree
        if first > 0:
            end = z
            while a < end:  # the first target that is not before
                middle = (a + end) >> 1
                if targets[Unsigned(middle)] < first:
                    a = middle + 1
                else:
                    end = middle
        for e in range(a, z):
            j = Unsigned(targets[Unsigned(e)])
            if j >= Unsigned(last):
                break
            if not (flags[j >> Unsigned(3)] >> np.uint8(j & Unsigned(7))) & np.uint8(1):
                b[j] += kick


@kernel
def clear(flags: Any, found: int, ids: Any) -> None:
    """Take the bits of the candidates away."""
    for c in range(found):
        flags[Unsigned(ids[Unsigned(c)] >> 3)] = 0
