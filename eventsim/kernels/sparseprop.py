"""Yardsticks of `eventsim.bench_spiking`: the algorithm of SparseProp, and bare loops.

SparseProp (Engelken, NeurIPS 2023, arXiv 2312.17216): neurons that all run through their phase at
the same speed keep their order between spikes, so a heap of phases and one shift common to all
suffice. At a spike the first neuron is taken from the heap, the shift moves on to its crossing, it
is reset, and the phases of its targets go through the phase transition curve of the model. Written
from these equations, over a stored graph.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eventsim.kernels.bits import prefetch
from eventsim.kernels.jit import kernel

Unsigned = np.uint64

_AHEAD = 4


@kernel
def _settle(key: Any, member: Any, place: Any, n: int, k: int) -> None:
    """Move the entry at k, whose key has grown, towards the leaves of the heap."""
    value, i = key[k], member[k]
    while True:
        child = 2 * k + 1
        if child >= n:
            break
        right = child + 1
        if right < n and key[right] < key[child]:
            child = right
        if value <= key[child]:
            break
        key[k] = key[child]
        j = member[child]
        member[k] = j
        place[j] = k
        k = child
    key[k] = value
    member[k] = i
    place[i] = k


@kernel
def heapify(key: Any, member: Any, place: Any) -> None:
    """Order entries (key, member) as a heap with the smallest key first, and note the places."""
    n = key.shape[0]
    for k in range(n):
        place[member[k]] = k
    for k in range(n // 2 - 1, -1, -1):
        _settle(key, member, place, n, k)


@kernel
def lif(
    key: Any,
    member: Any,
    place: Any,
    targets: Any,
    degree: int,
    kick: float,
    speed: float,
    now: Any,
    spike_time: Any,
    spike_id: Any,
) -> None:
    """Inhibitory LIF neurons: a key is the time, counted in phases, at which a neuron fires.

    Parameters
    ----------
    key, member, place : float64, int32, int32 arrays of shape (neurons,)
        The heap. A neuron's phase is ``1 - (key - now)``.
    targets : uint32 array of shape (neurons * degree,)
    kick : float
        ``-weight / (I - theta)``, positive.
    speed : float
        Phases a membrane time constant: ``1 / ln((I - V_r) / (I - theta))``.
    now : float64 array of shape (1,); the shift of all phases
    spike_time, spike_id : float64 and int32 arrays; filled, times in phases
    """
    n = key.shape[0]
    shift = now[0]
    for s in range(spike_id.shape[0]):
        i = member[0]
        shift = key[0]
        spike_time[s] = shift
        spike_id[s] = i
        key[0] = shift + 1.0
        _settle(key, member, place, n, 0)
        start = Unsigned(i * degree)
        for e in range(degree):
            k = place[Unsigned(targets[start + Unsigned(e)])]
            # Time to the crossing through the voltage and back: one exponential, one logarithm.
            key[k] = shift + speed * math.log(math.exp((key[k] - shift) / speed) + kick)
            _settle(key, member, place, n, k)
    now[0] = shift


@kernel
def qif(
    key: Any,
    member: Any,
    place: Any,
    targets: Any,
    degree: int,
    kick: float,
    now: Any,
    spike_time: Any,
    spike_id: Any,
) -> None:
    """Inhibitory QIF neurons; a phase is half an angle, from -pi/2 to pi/2, and so are keys.

    As `lif`; ``kick`` is ``weight / sqrt(I)``, negative.
    """
    n = key.shape[0]
    shift = now[0]
    half = math.pi / 2
    for s in range(spike_id.shape[0]):
        i = member[0]
        shift = key[0]
        spike_time[s] = shift
        spike_id[s] = i
        key[0] = shift + math.pi
        _settle(key, member, place, n, 0)
        start = Unsigned(i * degree)
        for e in range(degree):
            k = place[Unsigned(targets[start + Unsigned(e)])]
            key[k] = shift + half - math.atan(math.tan(half - (key[k] - shift)) + kick)
            _settle(key, member, place, n, k)
    now[0] = shift


@kernel
def scatter(values: Any, targets: Any, degree: int, rows: Any, step: float) -> None:
    """Add a constant to the targets of row after row, and nothing else."""
    for r in range(rows.shape[0]):
        start = Unsigned(rows[r] * degree)
        for e in range(degree):
            values[Unsigned(targets[start + Unsigned(e)])] += step


@kernel
def floor_lif(values: Any, targets: Any, degree: int, rows: Any, step: float) -> None:
    """As `scatter`, with rows asked for in advance: what `window_lif` cannot do without."""
    n = rows.shape[0]
    for r in range(n):
        if r + _AHEAD < n:
            later = rows[r + _AHEAD] * degree
            for line in range(min(degree, 256) // 16 + 1):
                prefetch(targets, Unsigned(later + 16 * line))
        start = Unsigned(rows[r] * degree)
        for e in range(degree):
            values[Unsigned(targets[start + Unsigned(e)])] += step


@kernel
def floor_qif(
    pairs: Any, targets: Any, degree: int, rows: Any, kick: float, cosine: float, sine: float
) -> None:
    """Do the update of a pair for the targets of row after row: the floor of `window_qif`."""
    n = rows.shape[0]
    one = Unsigned(1)
    x, y = kick * cosine, kick * sine
    for r in range(n):
        if r + _AHEAD < n:
            later = rows[r + _AHEAD] * degree
            for line in range(min(degree, 256) // 16 + 1):
                prefetch(targets, Unsigned(later + 16 * line))
        start = Unsigned(rows[r] * degree)
        for e in range(degree):
            j = Unsigned(targets[start + Unsigned(e)]) << one
            p, q = pairs[j], pairs[j + one]
            turned = q * cosine - p * sine
            pairs[j] = p + x * turned
            pairs[j + one] = q + y * turned


@kernel
def random_graph(targets: Any, n: int, degree: int, seed: int, seen: Any) -> None:
    """Draw distinct random targets for each of n neurons, none of them itself.

    Parameters
    ----------
    targets : uint32 array of shape (n * degree,), filled; a row is in no order
    n, degree, seed : int
        ``degree < n``.
    seen : int32 array of shape (n,), filled with -1
    """
    state = Unsigned(seed) * Unsigned(0x9E3779B97F4A7C15) + Unsigned(1)
    for i in range(n):
        seen[i] = i
        drawn = 0
        while drawn < degree:
            state += Unsigned(0x9E3779B97F4A7C15)
            z = state
            z = (z ^ (z >> Unsigned(30))) * Unsigned(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> Unsigned(27))) * Unsigned(0x94D049BB133111EB)
            z = z ^ (z >> Unsigned(31))
            j = ((z >> Unsigned(32)) * Unsigned(n)) >> Unsigned(32)
            if seen[j] != i:
                seen[j] = i
                targets[Unsigned(i * degree + drawn)] = j
                drawn += 1
