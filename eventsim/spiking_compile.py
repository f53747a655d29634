"""Spiking networks in continuous time: network -> flat arrays, and what an engine of them does.

The contract of `SpikingEngine`
-------------------------------
Neurons have one global id in the order of the populations, sources of spikes included. Time is in
seconds since the reset. At one instant things happen in this order:

1. Refractory periods end. A kick at that very instant counts.
2. Delayed spikes arrive, in the order in which they were emitted.
3. Sources spike, in the order of id.
4. Neurons whose voltage has reached the threshold spike, the lowest id first. What such a spike
   causes at the same instant joins them: after every spike the lowest id of those that are due is
   next, and arrivals (1 to 3) go before it. A cascade of more than `SpikingPlan.burst` spikes at
   one instant is a runaway, and an error.

A spike resets its neuron first; then it kicks its targets, itself included if it has an autapse.
The targets of a row are kicked in the order of the row. A kick below the threshold does not
spike; one that reaches it does, at the same instant.

Counters: an event is a spike; an AC is a synapse touched by a spike, counted when it arrives, kicks
lost in refractoriness included; evaluations are ACs and own spikes of the neurons (each moves a
crossing), and 0 for sources.

Engines may differ in representation: the same order of spikes, times to 1e-12 s.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.connectivity import Rows
from eventsim.errors import UnsupportedError
from eventsim.kernels.status import ACS, EVALUATIONS, EVENTS, EXECUTED, N_COUNTERS
from eventsim.network import Network, Projection
from eventsim.spiking_neurons import PoissonInput, SpikeInput, SpikingNeuron

Int = NDArray[np.int64]
Float = NDArray[np.float64]

#: Spikes of sources that one block of `SpikingPlan.external` holds on average.
BLOCK = 65_536


class Status(Enum):
    """Why an engine's `run` came back."""

    TIME = "the next event lies at or beyond the end of the run"
    SPIKES = "as many spikes as asked for, or as the buffer holds"
    QUIET = "nothing will ever happen"


@dataclass(frozen=True, eq=False)
class SpikingPlan:
    """A compiled spiking network.

    A bundle is all synapses of a source population with one delay: a row for each of its neurons.
    Every population has at least one bundle, in the order of the populations, so that row and
    neuron have one number where no population has two (`one_row`).

    Parameters
    ----------
    network : Network
        For the parameters of the neurons.
    start : int64 array of shape (P + 1,)
        First id of every population.
    bundle_population : int64 array of shape (L,)
    bundle_delay : float64 array of shape (L,)
        Seconds; NaN where every synapse has its own.
    bundle_row : int64 array of shape (L + 1,)
        First row of every bundle.
    pointers : int64 array of shape (rows + 1,)
        Synapses of row r are ``pointers[r]:pointers[r + 1]``.
    targets : uint32 array of shape (S,)
        Global ids.
    weights : float32 or float64 array of shape (S,), or (0,)
        Of every synapse; empty if rows have one weight each, or all have one.
    row_weight : float64 array of shape (rows,), or (0,)
        Empty if `weights` is not.
    delays : float64 array of shape (S,), or (0,)
        Seconds; ascending within a row. Empty if no projection has a delay for each synapse.
    """

    network: Network
    start: Int
    bundle_population: Int
    bundle_delay: Float
    bundle_row: Int
    pointers: Int
    targets: NDArray[np.uint32]
    weights: NDArray[np.float32] | NDArray[np.float64]
    row_weight: Float
    delays: Float

    @property
    def n_neurons(self) -> int:
        """Neurons, sources included."""
        return int(self.start[-1])

    @property
    def one_row(self) -> bool:
        """Whether row r belongs to neuron r."""
        return self.bundle_population.size == len(self.network.populations)

    @property
    def burst(self) -> int:
        """Spikes at one instant that are still no runaway: ten for each neuron."""
        return 10 * max(self.n_neurons, 100)

    @cached_property
    def degrees(self) -> NDArray[np.int32]:
        """Synapses of every row into every population, shape (rows, P)."""
        rows, populations = self.pointers.size - 1, len(self.network.populations)
        if populations == 1:
            return np.diff(self.pointers).astype(np.int32)[:, None]
        counts = np.zeros((rows, populations), np.int32)
        chunk = 1 << 16
        for first in range(0, rows, chunk):
            last = min(first + chunk, rows)
            a, b = int(self.pointers[first]), int(self.pointers[last])
            row = np.repeat(np.arange(last - first), np.diff(self.pointers[first : last + 1]))
            target = np.searchsorted(self.start, self.targets[a:b], side="right") - 1
            flat = np.bincount(row * populations + target, minlength=(last - first) * populations)
            counts[first:last] = flat.reshape(-1, populations)
        return counts

    @cached_property
    def _sources(self) -> list[tuple[int, int, Any, float]]:
        """First id, place, model and summed rate of every population of sources."""
        found: list[tuple[int, int, Any, float]] = []
        for k, p in enumerate(self.network.populations):
            if isinstance(p.neuron, PoissonInput):
                found.append((int(self.start[k]), k, p.neuron, float(p.parameter("rate").sum())))
            elif isinstance(p.neuron, SpikeInput):
                found.append((int(self.start[k]), k, p.neuron, 0.0))
        return found

    @cached_property
    def block_seconds(self) -> float:
        """Duration of a block of external spikes; inf if there are no Poisson sources."""
        rate = sum(rate for *_, rate in self._sources)
        return BLOCK / rate if rate > 0.0 else math.inf

    def external(self, block: int) -> tuple[Float, Int, float]:
        """Spikes of the sources in a block of time, by (time, id); the same at every call.

        Parameters
        ----------
        block : int
            Counts from 0; block k covers ``k d <= t < (k + 1) d``, d being `block_seconds`.

        Returns
        -------
        times : float64 array, seconds
        ids : int64 array, global
        horizon : float
            End of the block; inf if no block comes after it.
        """
        seconds = self.block_seconds
        endless = math.isinf(seconds)
        first = 0.0 if block == 0 else block * seconds
        last = math.inf if endless else (block + 1) * seconds
        times, ids = [np.zeros(0)], [np.zeros(0, np.int64)]
        for start, place, model, rate in self._sources:
            if isinstance(model, SpikeInput):
                if endless and block > 0:
                    continue
                when, who = model.spikes
                a, b = np.searchsorted(when, [first, last])
                times.append(when[a:b])
                ids.append(who[a:b] + start)
            elif rate > 0.0:
                size = int(self.start[place + 1]) - start
                random = np.random.default_rng([model.seed, place, block])
                n = int(random.poisson(rate * seconds))
                when = first + random.random(n) * seconds
                each = np.asarray(model.rate)
                if each.ndim == 0:
                    who = random.integers(0, size, n)
                else:
                    share = np.cumsum(each)
                    who = np.searchsorted(share, random.random(n) * share[-1], side="right")
                times.append(np.minimum(when, np.nextafter(last, 0.0)))
                ids.append(np.minimum(who, size - 1) + start)
        when, who = np.concatenate(times), np.concatenate(ids)
        order = np.lexsort((who, when))
        return when[order], who[order], last


class SpikingEngine(ABC):
    """What a simulator asks of an engine for continuous time; see the contract above.

    Parameters
    ----------
    plan : SpikingPlan

    Attributes
    ----------
    name : str
    plan : SpikingPlan
    status : Status
        Of the last `run`.
    now : float
        Seconds: time of the last event, or the end of the last run if nothing is due before it.
    """

    name: ClassVar[str] = ""
    plan: SpikingPlan
    status: Status
    now: float

    @classmethod
    @abstractmethod
    def supports(cls, network: Network) -> str | None:
        """Return what keeps the engine from running the network, or None; "it has ..." ."""

    @abstractmethod
    def __init__(self, plan: SpikingPlan) -> None: ...

    @abstractmethod
    def reset(self) -> None:
        """Start at time 0 from the initial voltages; nothing delayed or counted."""

    @abstractmethod
    def run(self, until: float, spikes: int) -> tuple[Float, Int]:
        """Simulate what happens before `until`, at most `spikes` spikes of neurons.

        May come back earlier, with `Status.SPIKES`, when a buffer is full: call it again. What
        happens, and every bit of the times, must not depend on how a run is cut into calls.

        Parameters
        ----------
        until : float
            Seconds, may be inf. Events at `until` or later stay.
        spikes : int
            >= 0.

        Returns
        -------
        times : float64 array of shape (n,)
            Seconds, of the spikes of neurons; those of sources are told by `external`.
        ids : int64 array of shape (n,)

        Raises
        ------
        SimulationError
            At a runaway, a state that is not finite, or a voltage below its table.
        """

    @abstractmethod
    def external(self) -> tuple[Float, Int]:
        """Take the spikes of sources that happened since the last call: times and ids."""

    @abstractmethod
    def peek(self) -> float:
        """Seconds at which the next event is due: a crossing, an arrival or a source; or inf."""

    @property
    @abstractmethod
    def totals(self) -> Int:
        """Counters since the reset, fresh, shape (P, N_COUNTERS)."""

    @abstractmethod
    def voltages(self) -> Float:
        """Voltages now, shape (n_neurons,); NaN for sources."""

    @abstractmethod
    def get_state(self) -> tuple[NDArray[Any], ...]:
        """Copy the state, counters included, as arrays of numbers."""

    @abstractmethod
    def set_state(self, arrays: tuple[NDArray[Any], ...]) -> None:
        """Continue from a copy; InputError if it is the state of another network or engine."""


def counter_table(plan: SpikingPlan, events: Int, acs: Int) -> Int:
    """Counters of shape (P, N_COUNTERS) from the events and the delivered ACs of populations."""
    table = np.zeros((events.size, N_COUNTERS), np.int64)
    neurons = np.array([isinstance(p.neuron, SpikingNeuron) for p in plan.network.populations])
    table[:, EVENTS], table[:, ACS], table[:, EXECUTED] = events, acs, acs
    table[:, EVALUATIONS] = np.where(neurons, events + acs, 0)
    return table


def compile_spiking(network: Network) -> SpikingPlan:
    """Compile a network in continuous time.

    One projection with `Rows` is taken as it is, without a copy.

    Parameters
    ----------
    network : Network

    Raises
    ------
    UnsupportedError
        If the network is not one in continuous time.
    """
    if not network.continuous:
        raise UnsupportedError("has no populations in continuous time", where="network")
    populations, index = network.populations, {p.name: k for k, p in enumerate(network.populations)}
    start = np.zeros(len(populations) + 1, np.int64)
    np.cumsum([p.size for p in populations], out=start[1:])
    bundles: list[tuple[int, float, list[Projection]]] = []
    for k, population in enumerate(populations):
        outgoing = network.outgoing(population.name)
        own = [q for q in outgoing if q.synapse_delays is not None]
        delays = sorted({q.delay_seconds for q in outgoing if q.synapse_delays is None})
        bundles += [
            (
                k,
                d,
                [q for q in outgoing if q.synapse_delays is None and q.delay_seconds == d],
            )
            for d in delays
        ]
        bundles += [(k, math.nan, own)] if own else []
        if not outgoing:
            bundles.append((k, 0.0, []))
    sizes = [populations[k].size for k, *_ in bundles]
    row = np.zeros(len(bundles) + 1, np.int64)
    np.cumsum(sizes, out=row[1:])
    pointers, targets, weights, row_weight, delays_of = _merge(network, bundles, row, start, index)
    return SpikingPlan(
        network,
        start,
        np.array([k for k, *_ in bundles], np.int64),
        np.array([d for _, d, _ in bundles], np.float64),
        row,
        pointers,
        targets,
        weights,
        row_weight,
        delays_of,
    )


def _merge(
    network: Network,
    bundles: list[tuple[int, float, list[Projection]]],
    row: Int,
    start: Int,
    index: dict[str, int],
) -> tuple[Int, NDArray[np.uint32], Any, Float, Float]:
    """Pointers, targets, weights, weight of each row, and delays of the synapses."""
    parts = {id(q): q.weights.indexed() for _, _, group in bundles for q in group}
    uniform = all(
        np.ndim(parts[id(q)].weights) == 0 and parts[id(q)].weights == parts[id(group[0])].weights
        for _, _, group in bundles
        for q in group
    )
    row_weight = np.zeros(int(row[-1]) if uniform else 0)
    if uniform:
        for k, (_, _, group) in enumerate(bundles):
            if group:
                row_weight[row[k] : row[k + 1]] = parts[id(group[0])].weights
    alone = [(k, q) for k, (*_, group) in enumerate(bundles) for q in group]
    own = any(q.synapse_delays is not None for _, q in alone)
    if len(alone) == 1 and not own and start[index[alone[0][1].target]] == 0:
        k, q = alone[0]
        part = parts[id(q)]
        pointers = part.pointers
        if len(bundles) > 1:
            pointers = np.concatenate(
                [
                    np.zeros(int(row[k]), np.int64),
                    pointers,
                    np.full(int(row[-1] - row[k + 1]), pointers[-1]),
                ]
            )
        weights = np.zeros(0, np.float32) if uniform else part.weights
        return pointers, part.targets, weights, row_weight, np.zeros(0)
    counts = np.zeros(int(row[-1]), np.int64)
    for k, q in alone:
        counts[row[k] : row[k + 1]] += np.diff(parts[id(q)].pointers)
    pointers = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=pointers[1:])
    n = int(pointers[-1])
    wide = any(
        np.asarray(p.weights).dtype != np.float32 and np.ndim(p.weights) for p in parts.values()
    )
    mixed = not uniform and any(np.ndim(p.weights) == 0 for p in parts.values())
    kind = np.float64 if wide or mixed else np.float32
    targets = np.empty(n, np.uint32)
    weights = np.empty(0 if uniform else n, kind)
    delays = np.zeros(n if own else 0)
    filled = pointers[:-1].copy()
    for k, q in alone:
        part = parts[id(q)]
        base, rows = int(start[index[q.target]]), row[k + 1] - row[k]
        number = np.diff(part.pointers)
        # Rows in blocks, so that the places of the synapses never all stand in memory.
        block = 1 << 16
        for a in range(0, int(rows), block):
            b = min(a + block, int(rows))
            s, e = int(part.pointers[a]), int(part.pointers[b])
            first = np.repeat(filled[row[k] + a : row[k] + b] - part.pointers[a:b], number[a:b])
            place = first + np.arange(s, e)
            targets[place] = part.targets[s:e] + np.uint32(base)
            if not uniform:
                weights[place] = part.weights if np.ndim(part.weights) == 0 else part.weights[s:e]
            if own:
                delays[place] = (
                    q.delay_seconds if q.synapse_delays is None else q.synapse_delays[s:e]
                )
        filled[row[k] : row[k + 1]] += number
    if own:
        for k, (_, delay, _) in enumerate(bundles):
            if math.isnan(delay):
                _by_delay(pointers, row[k], row[k + 1], targets, weights, delays)
    return pointers, targets, weights, row_weight, delays


def _by_delay(
    pointers: Int, first: int, last: int, targets: Any, weights: Any, delays: Float
) -> None:
    """Sort the synapses of rows first:last by delay, stably."""
    block = 1 << 16
    for a in range(int(first), int(last), block):
        b = min(a + block, int(last))
        s, e = int(pointers[a]), int(pointers[b])
        rows = np.repeat(np.arange(b - a), np.diff(pointers[a : b + 1]))
        order = np.lexsort((delays[s:e], rows)) + s
        targets[s:e], delays[s:e] = targets[order], delays[order]
        if weights.size:
            weights[s:e] = weights[order]


__all__ = ["Rows", "SpikingEngine", "SpikingPlan", "Status", "compile_spiking", "counter_table"]
