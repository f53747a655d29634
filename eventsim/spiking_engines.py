"""The engines for continuous time that `Simulator` can pick from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, SimulationError, UnknownNameError, UnsupportedError
from eventsim.kernels import crossing
from eventsim.kernels import crossing_neurons as cells
from eventsim.network import Network, Population
from eventsim.response import ResponseTable
from eventsim.spiking_compile import (
    SpikingEngine,
    SpikingPlan,
    Status,
    counter_table,
)
from eventsim.spiking_neurons import EIF, LIF, QIF, SpikeSource, Tabulated
from eventsim.spiking_window import WindowLIF, WindowQIF

Int = NDArray[np.int64]
Float = NDArray[np.float64]

AUTO = "auto"
#: Spikes that one call of a kernel may give.
_CHUNK = 1 << 17


class CrossingEngine(SpikingEngine):
    """The readable heap of crossings of `eventsim.kernels.crossing`; it runs every network."""

    name = "reference"

    @classmethod
    def supports(cls, network: Network) -> str | None:
        """Every network in continuous time, unless a model is not its own."""
        for p in network.populations:
            if not isinstance(p.neuron, LIF | QIF | EIF | Tabulated | SpikeSource):
                return f"population '{p.name}' has neurons '{p.neuron.kind}'"
        return None

    def __init__(self, plan: SpikingPlan) -> None:
        self.plan = plan
        n, populations = plan.n_neurons, plan.network.populations
        self._tau = common_tau(plan.network)
        self._code = np.zeros(n, np.int8)
        self._keeps = np.zeros(n, np.int8)
        self._cell = np.zeros((n, cells.N_COLUMNS))
        self._population = np.repeat(
            np.arange(len(populations), dtype=np.int32), [p.size for p in populations]
        )
        tables: list[ResponseTable] = []
        for k, p in enumerate(populations):
            here = slice(int(plan.start[k]), int(plan.start[k + 1]))
            self._fill(p, self._code[here], self._cell[here], tables)
            self._keeps[here] = getattr(p.neuron, "refractory_kicks", "lost") == "kept"
        self._initial = self._cell.copy() if n <= 1 << 16 else None
        self._tables = _flatten(tables)
        self._pop_bundle = np.searchsorted(
            plan.bundle_population, np.arange(len(populations) + 1)
        ).astype(np.int64)
        self._bundle_delay, self._delays = plan.bundle_delay, plan.delays
        if self._tau:
            self._bundle_delay = _exp(plan.bundle_delay / self._tau)
            self._delays = _exp(plan.delays / self._tau)
        self._keys, self._heap = np.zeros(n), np.zeros(n, np.int64)
        self._place = np.zeros(n, np.int64)
        self._spike_time, self._spike_id = np.zeros(_CHUNK), np.zeros(_CHUNK, np.int64)
        self._numbers = np.zeros(crossing.N_NUMBERS, np.int64)
        self._reals = np.zeros(crossing.N_REALS)
        self._counts = np.zeros((len(populations), 2), np.int64)
        self._fresh = True
        self.status = Status.TIME
        self.reset()

    def _fill(
        self, population: Population, code: Any, cell: Float, tables: list[ResponseTable]
    ) -> None:
        """Set the codes, parameters and first states of a population's neurons."""
        model = population.neuron

        def value(name: str) -> Float:
            return np.full(population.size, getattr(model, name), np.float64)

        if isinstance(model, SpikeSource):
            code[:] = cells.SOURCE
            return
        cell[:, cells.REST] = value("refractory")
        initial = value("initial")
        if isinstance(model, LIF):
            tau, drive = value("tau"), value("drive")
            threshold, reset = value("threshold"), value("reset")
            if self._tau:
                above = drive > threshold
                code[:] = np.where(above, cells.LIF_ABOVE, cells.LIF_BELOW)
                room = np.where(above, drive - threshold, 1.0)
                cell[:, cells.P0] = np.where(above, -1.0 / room, threshold - drive)
                cell[:, cells.P1] = np.where(above, (drive - reset) / room, reset - drive)
                cell[:, cells.P2], cell[:, cells.P3] = drive, threshold
                cell[:, cells.X] = np.where(above, (drive - initial) / room, initial - drive)
                cell[:, cells.REST] = _exp(cell[:, cells.REST] / self._tau)
                return
            code[:] = cells.LIF
            columns: tuple[Any, ...] = (tau, drive, threshold, reset)
        elif isinstance(model, QIF):
            tau, drive = value("tau"), value("drive")
            threshold, reset = value("threshold"), value("reset")
            above = drive > 0.0
            code[:] = np.where(above, cells.QIF_ABOVE, cells.QIF_BELOW)
            root = np.sqrt(np.abs(drive))
            safe = np.where(above, root, 1.0)
            columns = (
                root,
                np.where(above, root / tau, tau),
                np.where(above, np.arctan(threshold / safe), threshold),
                np.where(above, np.arctan(reset / safe), reset),
            )
            initial = np.where(above, np.arctan(initial / safe), initial)
        else:
            assert isinstance(model, EIF | Tabulated)  # noqa: S101 - as `supports` has seen
            table = model.table
            code[:] = cells.TABLE
            columns = (float(len(tables)), table.period, table.threshold, table.lowest)
            tables.append(table)
            initial = table.time(initial)
        cell[:, cells.X] = initial
        for k, column in zip(range(cells.P0, cells.P3 + 1), columns, strict=True):
            cell[:, k] = column

    def reset(self) -> None:
        if not self._fresh:
            if self._initial is not None:
                self._cell[...] = self._initial
            else:  # large networks keep no second copy
                self._cell[...] = 0.0
                tables: list[ResponseTable] = []
                for k, p in enumerate(self.plan.network.populations):
                    here = slice(int(self.plan.start[k]), int(self.plan.start[k + 1]))
                    self._fill(p, self._code[here], self._cell[here], tables)
        self._fresh = False
        self._numbers[:] = 0
        self._numbers[crossing.N_BURST] = self.plan.burst
        self._reals[:] = 0.0
        self._reals[crossing.R_TAU] = self._tau
        self._reals[crossing.R_NOW] = 1.0 if self._tau else 0.0
        self._counts[:] = 0
        self.now = 0.0
        crossing.start(self._code, self._cell, self._keys, self._reals[crossing.R_NOW])
        self._heap[:] = np.argsort(self._keys, kind="stable")  # a sorted array is a heap
        self._place[self._heap] = np.arange(self._heap.size)
        room = 1024
        self._arrival_time, self._arrival_item = np.zeros((room, 2)), np.zeros((room, 3), np.int64)
        self._taken = 0
        self._load(0)

    def _load(self, block: int) -> None:
        self._block = block
        self._external_time, self._external_id, horizon = self.plan.external(block)
        self._numbers[crossing.N_EXTERNAL] = 0
        self._numbers[crossing.N_EXTERNALS] = self._external_time.size
        self._reals[crossing.R_HORIZON] = horizon
        self._taken = 0
        self._passed: tuple[list[Float], list[Int]] = ([], [])

    def run(self, until: float, spikes: int) -> tuple[Float, Int]:
        plan, numbers = self.plan, self._numbers
        self._reals[crossing.R_STOP] = until
        size = min(spikes, _CHUNK)
        times, ids = self._spike_time[:size], self._spike_id[:size]
        found = 0
        while True:
            status = crossing.run(
                self._code,
                self._keeps,
                self._cell,
                self._keys,
                self._heap,
                self._place,
                self._population,
                plan.start,
                self._pop_bundle,
                self._bundle_delay,
                self.plan.bundle_delay,
                plan.bundle_row,
                plan.pointers,
                plan.targets,
                plan.weights,
                plan.row_weight,
                self._delays,
                *self._tables,
                self._arrival_time,
                self._arrival_item,
                self._external_time,
                self._external_id,
                self._counts,
                numbers,
                self._reals,
                times[found:],
                ids[found:],
            )
            found += int(numbers[crossing.N_SPIKES])
            if status == crossing.EXTERNAL:
                self._next_block()
            elif status == crossing.DELAY_FULL:
                self._arrival_time = np.concatenate([self._arrival_time] * 2)
                self._arrival_item = np.concatenate([self._arrival_item] * 2)
            else:
                break
        last = crossing.to_seconds(
            self._tau, int(numbers[crossing.N_FOLDS]), float(self._reals[crossing.R_NOW])
        ) if self._reals[crossing.R_NOW] > 0.0 else 0.0  # fmt: skip
        self.now = max(self.now, last)
        if status == crossing.FULL:
            self.status = Status.SPIKES
        elif status in (crossing.STOPPED, crossing.QUIET):
            self.status = Status.QUIET if status == crossing.QUIET else Status.TIME
            if math.isfinite(until):
                self.now = max(self.now, until)
        else:
            raise SimulationError(self._error(status))
        return times[:found].copy(), ids[:found].copy()

    def _next_block(self) -> None:
        times, ids = self._untaken()
        self._load(self._block + 1)
        self._passed[0].append(times)
        self._passed[1].append(ids)

    def _untaken(self) -> tuple[Float, Int]:
        here = slice(self._taken, int(self._numbers[crossing.N_EXTERNAL]))
        return (
            np.concatenate([*self._passed[0], self._external_time[here]]),
            np.concatenate([*self._passed[1], self._external_id[here]]),
        )

    def external(self) -> tuple[Float, Int]:
        times, ids = self._untaken()
        self._taken = int(self._numbers[crossing.N_EXTERNAL])
        self._passed = ([], [])
        return times, ids

    def _error(self, status: int) -> str:
        neuron = int(self._numbers[crossing.N_DETAIL])
        k = int(self._population[neuron])
        who = (
            f"neuron {neuron - int(self.plan.start[k])} of population "
            f"'{self.plan.network.populations[k].name}'"
        )
        if status == crossing.RUNAWAY:
            return (
                f"a runaway: more than {self.plan.burst} spikes at the instant {self.now:.9g} s, "
                f"the last one of {who}; weaken the excitation, or give it a delay or the neurons "
                "a refractory period"
            )
        if status == crossing.BELOW_TABLE:
            return (
                f"{who} was inhibited below the lowest voltage of its table after {self.now:.9g} "
                "s; build the neuron model with a lower `lowest`"
            )
        return f"{who} is no longer finite after {self.now:.9g} s; scale the weights down"

    def peek(self) -> float:
        numbers, reals = self._numbers, self._reals
        folds = int(numbers[crossing.N_FOLDS])
        due = float(self._keys[self._heap[0]]) if self._keys.size else math.inf
        if numbers[crossing.N_ARRIVALS]:
            due = min(due, float(self._arrival_time[0, 0]))
        first = crossing.to_seconds(self._tau, folds, due) if due < math.inf else math.inf
        while True:
            k = int(numbers[crossing.N_EXTERNAL])
            if k < numbers[crossing.N_EXTERNALS]:
                return min(first, float(self._external_time[k]))
            if first < reals[crossing.R_HORIZON] or math.isinf(reals[crossing.R_HORIZON]):
                return first
            self._next_block()

    @property
    def totals(self) -> Int:
        return counter_table(self.plan, self._counts[:, 0], self._counts[:, 1])

    def voltages(self) -> Float:
        tables, _, _, edges, coefficients = self._tables
        folds = int(self._numbers[crossing.N_FOLDS])
        clock = crossing.to_clock(self._tau, folds, self.now)
        found = np.empty(self._code.size)
        crossing.voltages(self._code, self._cell, clock, tables, edges, coefficients, found)
        return found

    def get_state(self) -> tuple[NDArray[Any], ...]:
        n = int(self._numbers[crossing.N_ARRIVALS])
        return (
            _form(self.plan),
            self._cell[:, : cells.UNTIL + 1].copy(),
            self._keys.copy(),
            self._heap.copy(),
            self._arrival_time[:n].copy(),
            self._arrival_item[:n].copy(),
            self._counts.copy(),
            self._numbers.copy(),
            self._reals.copy(),
            np.array([self.now]),
            np.array([self._block], np.int64),
        )

    def set_state(self, arrays: tuple[NDArray[Any], ...]) -> None:
        mine = self.get_state()
        fits = len(arrays) == len(mine) and all(
            a.dtype == b.dtype and (a.shape == b.shape or k in (4, 5))
            for k, (a, b) in enumerate(zip(arrays, mine, strict=True))
        )
        if not fits or not np.array_equal(arrays[0], mine[0]):
            raise InputError(
                "the state belongs to another network or engine; use one of this simulator's"
            )
        _, state, keys, heap, arrival_time, arrival_item, counts, numbers, reals, now, block = (
            arrays
        )
        self._load(int(block[0]))
        self._cell[:, : cells.UNTIL + 1] = state
        self._keys[:], self._heap[:], self._counts[:] = keys, heap, counts
        self._place[self._heap] = np.arange(self._heap.size)
        self._numbers[:], self._reals[:] = numbers, reals
        room = max(1024, 2 * len(arrival_time))
        self._arrival_time, self._arrival_item = np.zeros((room, 2)), np.zeros((room, 3), np.int64)
        self._arrival_time[: len(arrival_time)] = arrival_time
        self._arrival_item[: len(arrival_item)] = arrival_item
        self.now = float(now[0])
        self._taken = int(numbers[crossing.N_EXTERNAL])


def common_tau(network: Network) -> float:
    """The time constant that all neurons share if all are `LIF`, else 0."""
    found = set()
    for p in network.populations:
        if isinstance(p.neuron, LIF):
            found |= set(np.unique(p.neuron.tau).tolist())
        elif not isinstance(p.neuron, SpikeSource):
            return 0.0
    return float(found.pop()) if len(found) == 1 else 0.0


def _form(plan: SpikingPlan) -> Int:
    """Sizes and wiring, to know the states of one network from those of another."""
    return np.array([*plan.start, *plan.bundle_row, plan.targets.size], np.int64)


def _exp(values: Float) -> Float:
    """exp, the system's own.

    NumPy's may differ in its last bit, by processor; engines must agree on when a spike arrives.
    """
    different, places = np.unique(values, return_inverse=True)
    # A NaN stands for delays of the synapses' own.
    found = [math.exp(x) if x < 709.0 else x * math.inf for x in different.tolist()]
    return np.asarray(np.array(found, np.float64)[places].reshape(np.shape(values)))


def _flatten(tables: list[ResponseTable]) -> tuple[Int, Float, Float, Float, Float]:
    """Slices of the edges; edges and coefficients of the times, and of the voltages."""
    slices = np.zeros((max(len(tables), 1), 4), np.int64)
    parts: list[list[Float]] = [[], [], [], []]
    for k, table in enumerate(tables):
        for c, pieces in ((0, table.time), (2, table.voltage)):
            first = sum(map(len, parts[c]))
            slices[k, c : c + 2] = first, first + pieces.edges.size
            parts[c].append(pieces.edges)
            # One row for every edge, so that piece k has row k.
            parts[c + 1].append(np.vstack([pieces.coefficients, np.zeros(cells.DEGREE + 1)]))
    empty = (np.zeros(0), np.zeros((0, cells.DEGREE + 1)))
    joined = [np.concatenate([empty[c % 2], *part]) for c, part in enumerate(parts)]
    return slices, joined[0], joined[1], joined[2], joined[3]


def spiking_engines() -> dict[str, type[SpikingEngine]]:
    """Engines for continuous time by name, the fastest first."""
    return {engine.name: engine for engine in (WindowLIF, WindowQIF, CrossingEngine)}


def choose_spiking(network: Network, wanted: str = AUTO) -> tuple[type[SpikingEngine], str]:
    """Pick the engine for a network in continuous time.

    Parameters
    ----------
    network : Network
    wanted : str
        ``"auto"`` or an engine's name.

    Returns
    -------
    engine class, and why it was picked in one sentence

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    UnsupportedError
        If the engine wanted, or every engine, cannot run the network.
    """
    engines = spiking_engines()
    if wanted not in (AUTO, *engines):
        known = " or ".join(repr(name) for name in (AUTO, *engines))
        raise UnknownNameError(
            f"engine {wanted!r} is not known, or not one for continuous time; use {known}"
        )
    obstacles: dict[str, str] = {}
    for name, engine in engines.items():
        if wanted not in (AUTO, name):
            continue
        obstacle = engine.supports(network)
        if obstacle is None:
            if wanted != AUTO:
                return engine, "it was asked for"
            if engine is not CrossingEngine:
                return engine, "it is the fastest that runs such networks"
            said = "; ".join(f"'{other}' does not: {why}" for other, why in obstacles.items())
            return engine, f"it runs every spiking network; {said}"
        obstacles[name] = obstacle
    name, obstacle = list(obstacles.items())[-1]
    raise UnsupportedError(f"{obstacle}, which engine '{name}' does not run; use 'auto'")
