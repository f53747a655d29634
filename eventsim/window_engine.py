"""What the window engines have in common: buffers, rings, sources, counters and states."""

from __future__ import annotations

import math
from abc import abstractmethod
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, SimulationError
from eventsim.kernels import window_lif as lif
from eventsim.network import Network, Population
from eventsim.spiking_compile import SpikingEngine, SpikingPlan, Status, counter_table
from eventsim.spiking_neurons import SpikeSource

Int = NDArray[np.int64]
Float = NDArray[np.float64]

#: Spikes that one call of a kernel writes at most.
BUFFER = 1 << 20
#: Spikes on their way, or neurons at rest, that a ring has room for at first.
RING = 1 << 10
#: Time constants that a delay or a refractory period may last; exp() of more overflows.
LONGEST = 300.0
#: Candidates that a window holds at least, if it can.
_FEWEST = 16


def neurons_of(network: Network) -> list[Population]:
    """Return the populations that are no sources."""
    return [p for p in network.populations if not isinstance(p.neuron, SpikeSource)]


def common_value(populations: list[Population], name: str) -> float | None:
    """Value of a parameter that all neurons have, or None."""
    values = np.unique(
        np.concatenate([np.atleast_1d(getattr(p.neuron, name)) for p in populations])
    )
    return float(values[0]) if values.size == 1 else None


def obstacle(network: Network, kind: type, common: tuple[str, ...]) -> str | None:
    """What every window engine asks of a network, or None; ``kind`` is its neuron model."""
    neurons = neurons_of(network)
    if not neurons:
        return "it has no neurons"
    for p in neurons:
        if type(p.neuron) is not kind:
            return f"it has '{p.neuron.kind}' neurons"
    for name in common:
        if common_value(neurons, name) is None:
            return f"it has neurons of different {name}"
    for sources in (True, False):
        found = set()
        for p in network.populations:
            if isinstance(p.neuron, SpikeSource) == sources:
                outgoing = network.outgoing(p.name)
                if any(q.synapse_delays is not None for q in outgoing):
                    return "it has a delay for each synapse"
                found |= {q.delay_seconds for q in outgoing}
        if len(found) > 1:
            return "it has projections of different delays"
        if found and max(found) > LONGEST * float(common_value(neurons, "tau") or 0.0):
            return f"it has a delay of more than {LONGEST:g} time constants"
    return None


class WindowEngine(SpikingEngine):
    """What the two have in common: buffers, rings, sources and counters."""

    _kernel: ClassVar[ModuleType]
    _toward: ClassVar[int]  # sign of the kicks that bring a neuron closer to its threshold
    _at: ClassVar[dict[str, int]]  # place of an array among the kernel's arguments
    _rings: ClassVar[dict[int, tuple[str, int, int]]]  # status: array, number of head and count

    def __init__(self, plan: SpikingPlan) -> None:
        self.plan = plan
        n = plan.n_neurons
        self._sources = np.zeros(n, np.bool_)
        self._population = np.repeat(np.arange(plan.start.size - 1), np.diff(plan.start))
        delays = {True: 0.0, False: 0.0}
        for k, p in enumerate(plan.network.populations):
            source = isinstance(p.neuron, SpikeSource)
            self._sources[plan.start[k] : plan.start[k + 1]] = source
            for q in plan.network.outgoing(p.name):
                delays[source] = q.delay_seconds
        self._delay, self._source_delay = delays[False], delays[True]
        counts = np.diff(plan.pointers)
        self._degree = int(counts[0]) if (counts == counts[0]).all() else -1
        self._pointers = plan.pointers if self._degree < 0 else np.zeros(1, np.int64)
        self._targets = plan.targets if plan.targets.size else np.zeros(1, np.uint32)
        self.reset()

    # What differs.

    @abstractmethod
    def _initial(self) -> list[NDArray[Any]]:
        """Arguments of the kernel at time 0, with rings of `RING`."""

    @abstractmethod
    def _keys(self) -> Float:
        """Seconds at which each neuron crosses, if nothing happens before; inf for sources."""

    @abstractmethod
    def _live(self) -> list[tuple[int, int]]:
        """Places among the arguments, and how much of each array is the state, rings apart."""

    def _synapses(self, per_kick: Float) -> tuple[list[NDArray[Any]], dict[str, int]]:
        """Weights, scales, excitation and flags, for kicks of ``weight * per_kick[target]``."""
        plan = self.plan
        neurons = per_kick[~self._sources]
        weights: NDArray[Any] = plan.weights
        scale = neurons[:1]
        if not plan.targets.size:
            weights, scale = np.zeros(0), np.zeros(1)
        elif (neurons != neurons[0]).any():
            each = weights if weights.size else np.repeat(plan.row_weight, np.diff(plan.pointers))
            weights, scale = each * per_kick[plan.targets], np.ones(1)
        elif not weights.size:
            rows = plan.row_weight * neurons[0]
            used = rows[np.diff(plan.pointers) > 0]
            same = used.size == 0 or bool((used == used[0]).all())
            scale = used[:1] if same and used.size else rows if rows.size else np.zeros(1)
        weighted = weights.size > 0
        excites = np.zeros(1, np.uint8)
        if weighted:
            excites = self._exciting_rows(weights, (scale[0] > 0.0) == (self._toward > 0))
        flags = {
            "N_DEGREE": self._degree,
            "N_WEIGHTED": int(weighted),
            "N_ROW_SCALES": int(scale.size > 1),
            "N_SIGNED": int(excites.any()),
            "N_TARGET": self._window_size(),
        }
        return [weights if weighted else np.zeros(1, np.float32), scale, excites], flags

    def _exciting_rows(self, weights: NDArray[Any], positive: bool) -> NDArray[np.uint8]:
        """Which rows have a weight that is positive, or else one that is negative."""
        pointers = self.plan.pointers
        filled = np.flatnonzero(np.diff(pointers) > 0)
        excites = np.zeros(pointers.size - 1, np.uint8)
        if positive:
            excites[filled] = np.maximum.reduceat(weights, pointers[filled]) > 0.0
        else:
            excites[filled] = np.minimum.reduceat(weights, pointers[filled]) < 0.0
        return excites

    def _window_size(self) -> int:
        """Candidates that a window should hold.

        The search for them costs a pass over all neurons, their order grows dearer when they
        outgrow the cache, and what more than about two kicks each have hit is likely to have left
        before its turn.
        """
        n = self.plan.n_neurons
        per_neuron = max(self.plan.targets.size / max(n, 1), 1.0)
        return max(int(min(2.0 * math.sqrt(n), 2.0 * n / per_neuron)), _FEWEST)

    # The contract.

    def reset(self) -> None:
        self._arguments = self._initial()
        populations = self.plan.start.size - 1
        self._events = np.zeros(populations, np.int64)
        self._acs = np.zeros(populations, np.int64)  # emitted, not yet arrived ones included
        self.now = 0.0
        self.status = Status.TIME
        self._block = -1
        self._told_block, self._told, self._told_until, self._inclusive = 0, 0, 0.0, False
        self._load(0)

    @property
    def _numbers(self) -> Int:
        return self._arguments[-2]

    @property
    def _reals(self) -> Float:
        return self._arguments[-1]

    def _load(self, block: int) -> None:
        """Hand the sources' spikes of a block to the kernel."""
        self._block = block
        if not self._sources.any():
            return
        times, ids, horizon = self.plan.external(block)
        at = self._at["external"]
        self._arguments[at] = np.append(times + self._source_delay, np.inf)
        self._arguments[at + 1] = np.append(ids, 0).astype(np.int32)
        self._numbers[self._kernel.N_EXTERNAL] = 0
        self._numbers[self._kernel.N_EXTERNALS] = times.size
        self._reals[self._kernel.R_HORIZON] = horizon + self._source_delay

    def run(self, until: float, spikes: int) -> tuple[Float, Int]:
        kernel, size = self._kernel, min(spikes, BUFFER)
        times, ids = np.empty(size), np.empty(size, np.int32)
        done = 0
        self._reals[kernel.R_STOP] = until
        while True:
            used = int(self._numbers[kernel.N_EXTERNAL])
            code = kernel.run(*self._arguments, times[done:], ids[done:])
            done += int(self._numbers[kernel.N_SPIKES])
            self._count_external(used)
            if code == kernel.EXTERNAL:
                self._load(self._block + 1)
            elif code in self._rings:
                self._grow(*self._rings[code])
            else:
                break
        self._count(ids[:done])
        if code not in (kernel.FULL, kernel.STOPPED, lif.QUIET):
            self._fail(code)
        self.status = {kernel.FULL: Status.SPIKES, kernel.STOPPED: Status.TIME}.get(
            code, Status.QUIET
        )
        if code == kernel.STOPPED:
            self.now = self._told_until = max(until, self.now)
            self._inclusive = False
        elif done:
            self.now = self._told_until = float(times[done - 1])
            self._inclusive = True
        if code == lif.QUIET:
            self._told_until, self._inclusive = math.inf, True
            self.now = max(self.now, self._seconds())
        return times[:done].copy(), ids[:done].astype(np.int64)

    def _fail(self, code: int) -> None:
        at = self._seconds()
        if code == lif.RUNAWAY:
            raise SimulationError(
                f"more than {self.plan.burst:,} spikes at the instant {at:.9g} s: excitation "
                "without delay feeds itself; give delays, refractory times or weaker weights",
                where="network",
            )
        raise SimulationError(
            f"a voltage is not finite after {at:.9g} s; give weaker weights", where="network"
        )

    def _grow(self, name: str, head: int, count: int) -> None:
        """Double a ring; nothing in it is lost."""
        numbers = self._numbers
        at, first = self._at[name], int(numbers[head])
        for k in (at, at + 1):
            old = self._arguments[k]
            new = np.zeros(2 * old.size, old.dtype)
            new[: old.size] = np.roll(old, -first)
            self._arguments[k] = new
        numbers[head] = 0

    def _count(self, ids: NDArray[np.int32]) -> None:
        if self._events.size == 1:
            self._events[0] += ids.size
            return
        self._events += np.bincount(self._population[ids], minlength=self._events.size)
        self._acs += self.plan.degrees[ids].sum(axis=0, dtype=np.int64)

    def _count_external(self, used: int) -> None:
        now_used = int(self._numbers[self._kernel.N_EXTERNAL])
        if now_used > used:
            rows = self._arguments[self._at["external"] + 1][used:now_used]
            self._acs += self.plan.degrees[rows].sum(axis=0, dtype=np.int64)

    def external(self) -> tuple[Float, Int]:
        times: list[Float] = [np.zeros(0)]
        ids: list[Int] = [np.zeros(0, np.int64)]
        if self._sources.any():
            while True:
                when, who, horizon = self.plan.external(self._told_block)
                end = max(self._happened(when), self._told)
                times.append(when[self._told : end])
                ids.append(who[self._told : end])
                self._told = end
                if not (end == when.size and horizon <= self._told_until < math.inf):
                    break
                self._told_block, self._told = self._told_block + 1, 0
            told = np.concatenate(ids)
            self._events += np.bincount(self._population[told], minlength=self._events.size)
            return np.concatenate(times), told
        return times[0], ids[0]

    def _happened(self, when: Float) -> int:
        """How many of ascending times are over."""
        if self._inclusive:
            return int(np.searchsorted(when, self._told_until, side="right"))
        return int(np.searchsorted(when, self._told_until, side="left"))

    def peek(self) -> float:
        kernel, numbers = self._kernel, self._numbers
        first = float(self._keys().min(initial=math.inf))
        if numbers[kernel.N_DELAY]:
            ring = self._arguments[self._at["delay"]]
            first = min(first, self._seconds(float(ring[numbers[kernel.N_DELAY_HEAD]])))
        if not self._sources.any():
            return first
        block, used = self._told_block, self._told
        while True:
            when, _, horizon = self.plan.external(block)
            used = max(used, self._happened(when))
            if used < when.size:
                first = min(first, float(when[used]))
            if used < when.size or horizon == math.inf or horizon > first:
                break
            block, used = block + 1, 0
        if self._source_delay and numbers[kernel.N_EXTERNAL] < numbers[kernel.N_EXTERNALS]:
            arrivals = self._arguments[self._at["external"]]
            first = min(first, float(arrivals[numbers[kernel.N_EXTERNAL]]))
        return first

    @property
    def totals(self) -> Int:
        kernel, numbers = self._kernel, self._numbers
        acs = self._acs.copy()
        if self._events.size == 1:
            acs[0] = numbers[kernel.N_SYNAPSES]
        elif numbers[kernel.N_DELAY]:
            ring = self._arguments[self._at["delay"] + 1]
            places = np.arange(numbers[kernel.N_DELAY]) + numbers[kernel.N_DELAY_HEAD]
            on_way = self.plan.degrees[ring[places % ring.size]]
            acs -= on_way.sum(axis=0, dtype=np.int64)
        return counter_table(self.plan, self._events.copy(), acs)

    @abstractmethod
    def _seconds(self, key: float | None = None) -> float:
        """Turn a key into seconds, by default that of the last event."""

    def get_state(self) -> tuple[NDArray[Any], ...]:
        parts = [self._arguments[k][:size].copy() for k, size in self._live()]
        for name, _, _ in self._rings.values():
            at = self._at[name]
            parts += [self._arguments[at].copy(), self._arguments[at + 1].copy()]
        told = [self._block, self._told_block, self._told, int(self._inclusive)]
        told.append(list(Status).index(self.status))
        parts += [self._events.copy(), self._acs.copy(), np.array(told, np.int64)]
        return (
            self._numbers.copy(),
            self._reals.copy(),
            *parts,
            np.array([self.now, self._told_until]),
        )

    def set_state(self, arrays: tuple[NDArray[Any], ...]) -> None:
        fresh = self._initial()
        old = self._arguments
        wrong = InputError(
            "is not the state of this network and engine; give one from its get_state()",
            field="state",
        )
        try:
            numbers, reals, *parts, times = (np.asarray(a) for a in arrays)
            told, acs, events = parts.pop(), parts.pop(), parts.pop()
            fits = numbers.shape == old[-2].shape and reals.shape == old[-1].shape
            constant = [getattr(self._kernel, name) for name in self._constant]
            fits = fits and (numbers[constant] == fresh[-2][constant]).all()
            fits = fits and events.shape == acs.shape == self._events.shape and told.size == 5
            if not fits or times.shape != (2,):
                raise wrong
            fresh[-2][:], fresh[-1][:] = numbers, reals
            self._arguments = fresh
            rings = [self._at[name] + k for name, _, _ in self._rings.values() for k in (0, 1)]
            live = self._live()
            if len(parts) != len(live) + len(rings):
                raise wrong
            for (k, size), part in zip(live, parts[: len(live)], strict=True):
                if part.shape != (size,) or part.dtype != fresh[k].dtype:
                    raise wrong
                fresh[k][:size] = part
            for k, part in zip(rings, parts[len(live) :], strict=True):
                if part.ndim != 1 or part.size < 1 or part.size & (part.size - 1):
                    raise wrong
                fresh[k] = part.astype(fresh[k].dtype)
        except (InputError, IndexError, TypeError, ValueError) as error:
            self._arguments = old
            raise wrong from error
        self._events, self._acs = events.astype(np.int64), acs.astype(np.int64)
        block, self._told_block, self._told, inclusive, status = (int(v) for v in told)
        self._inclusive, self.status = bool(inclusive), list(Status)[status]
        self.now, self._told_until = float(times[0]), float(times[1])
        used = int(numbers[self._kernel.N_EXTERNAL])
        self._load(block)
        self._numbers[self._kernel.N_EXTERNAL] = used

    _constant = ("N_DEGREE", "N_WEIGHTED", "N_ROW_SCALES", "N_SIGNED", "N_TARGET")

    def _parameters(self, flags: dict[str, int], values: dict[str, float]) -> tuple[Int, Float]:
        numbers = np.zeros(self._kernel.N_NUMBERS, np.int64)
        reals = np.zeros(self._kernel.N_REALS)
        for name, number in flags.items():
            numbers[getattr(self._kernel, name)] = number
        for name, value in {**values, "R_STOP": math.inf, "R_HORIZON": math.inf}.items():
            reals[getattr(self._kernel, name)] = value
        return numbers, reals

    def _scratch(self) -> tuple[Any, Any]:
        size = self.plan.n_neurons + 2

        def keys() -> Float:
            array = np.empty(size)
            array[0] = np.inf
            return array

        return keys, lambda: np.empty(size, np.int32)
