"""Network -> the two buffers of the level-ordered engine, see `eventsim.kernels.fields`.

Each source neuron's row of a projection is stored dense (one weight a target, zeros included) or
indexed (one weight and one index a synapse), whichever is faster to add; weights are float32 where
all weights of the projection are float32 numbers, indices uint16 up to 65,536 targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.compile import column
from eventsim.connectivity import Dense
from eventsim.convolution import Local, MaxWindow
from eventsim.kernels import fields as f
from eventsim.kernels.status import ACS, MACS, N_COUNTERS
from eventsim.kernels.window_lanes import LISTED
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta
from eventsim.windows import MAX_CHANNELS, WindowRows

Int = NDArray[np.int64]

#: Share of surviving synapses from which a row is stored dense, if few rows around it are: measured
#: (docs/performance.md).
DENSE_FILL = 0.25
#: The same in a projection of which the rows are `DENSE_MEAN` full on average: dense rows that
#: follow one another are added four at a time, in two thirds of the time.
DENSE_FILL_AMONG_DENSE = 0.1
DENSE_MEAN = 0.18
#: The same for fewer targets than a vector pass is worth.
DENSE_FILL_NARROW = 0.75
#: Event records that a state has room for at least: what a processor's second cache holds, since
#: each time that they are handed over costs some microseconds.
LOGGED = 1 << 14
#: Source neurons that are converted at a time: what bounds the memory that compiling needs.
_CHUNK_SYNAPSES = 1 << 22


@dataclass(frozen=True, eq=False)
class Plan:
    """A compiled network: where its state stands, and its rows.

    Attributes
    ----------
    buffer : int64 array
        The plan for the kernel.
    size : int
        Words of a state.
    index : int64 array of shape (P,)
        Population of each level.
    """

    buffer: Int
    size: int
    index: Int
    indexed_synapses: int = 0
    dense_positions: int = 0
    bytes_indexed: int = 0
    bytes_dense: int = 0

    def new_state(self) -> Int:
        """Return a state buffer, not yet reset."""
        return _aligned(self.size)

    def new_states(self, n: int) -> Int:
        """Return n state buffers as rows, not yet reset; each starts at a cache line."""
        return _aligned(n * self.size).reshape(n, self.size)

    def reset(self, state: Int) -> None:
        """Start afresh: u at the bias, s at 0, every neuron pending, nothing delayed or counted."""
        plan = self.buffer
        state[: plan[f.LOG_STEP]] = 0
        n = plan[f.S] - plan[f.U]
        state[plan[f.U] : plan[f.U] + n] = plan[plan[f.INITIAL] : plan[f.INITIAL] + n]
        touched = plan[f.TOUCHED]
        state[touched : touched + plan[f.N_POPULATIONS]] = f.ALL

    def next_time(self, state: Int) -> float:
        """Step of the next pending evaluation or delayed delta; inf if there is none."""
        step = int(state[f.STEP])
        if step == 0:
            return 0.0
        best = math.inf
        for number in range(int(self.buffer[f.N_LINES])):
            line = int(self.buffer[f.LINES]) + number * f.W_LINE
            delay, counts = int(self.buffer[line + f.L_DELAY]), int(self.buffer[line + f.L_COUNT])
            # A slot holds what was transmitted in one of the last `delay` steps.
            for sent in range(max(step - delay, 0), step):
                if state[counts + sent % (delay + 1)] > 0:
                    best = min(best, float(sent + delay))
        return best


def supported(network: Network) -> str:
    """Why the level-ordered engine cannot run the network; empty if it can."""
    for population in network.populations:
        if population.neuron.kind not in ("input", "delta", "max_pool"):
            return f"population '{population.name}' has neurons of model {population.neuron.kind}"
    for projection in network.projections:
        weights = projection.weights
        if isinstance(weights, Local) and weights.n_channels > MAX_CHANNELS:
            return f"projection '{projection.name}' has more than {MAX_CHANNELS:,} channels"
    return ""


def compile_plan(
    network: Network, *, n_tables: int = 1, log: bool = False, wide: bool = False
) -> Plan:
    """Compile a network of input and delta neurons.

    Parameters
    ----------
    network : Network
    n_tables : int, optional
        Steps whose counters the state keeps.
    log : bool, optional
        Whether the state has room for event records: at least those of four steps.
    wide : bool, optional
        Store all weights as float64.
    """
    populations, ranks = network.populations, network.ranks
    levels = sorted(range(len(populations)), key=lambda k: (ranks[populations[k].name], k))
    level_of = {populations[k].name: level for level, k in enumerate(levels)}
    direct, delayed = _by_source(network, levels)
    lines = [(level, delay) for level, delay, _ in delayed]

    words = _Words(f.W_HEADER)
    n_populations = len(populations)
    at_populations = words.take(n_populations * f.W_POPULATION)
    ordered = [q for group in direct for q in group] + [q for _, _, group in delayed for q in group]
    at_projections = words.take(len(ordered) * f.W_PROJECTION)
    at_lines = words.take(len(lines) * f.W_LINE)
    sizes = np.array([populations[k].size for k in levels], np.int64)
    padded = -(-sizes // f.PAD) * f.PAD
    lane = _offsets(padded)
    n_lanes = int(lane[-1])
    at_threshold, at_initial = words.take(n_lanes), words.take(n_lanes)
    stored = [
        WindowRows(q.weights, wide) if isinstance(q.weights, Local) else _Rows(q, wide)
        for q in ordered
    ]
    at_rows = [words.take(f.W_ROW * rows.n_rows) for rows in stored]
    windows = {k: rows for k, rows in enumerate(stored) if isinstance(rows, WindowRows)}
    at_windows = {k: words.take(rows.window_words) for k, rows in windows.items()}
    at_weights = [words.take(rows.weight_words) for rows in stored]
    at_indices = [words.take(rows.index_words) for rows in stored]
    at_masks = [words.take(rows.mask_words) for rows in stored]

    plan = _aligned(words.size)
    header = plan[: f.W_HEADER]
    header[f.N_POPULATIONS] = n_populations
    header[f.N_INPUTS] = network.n_inputs
    header[f.N_OUTPUTS] = network.n_outputs
    header[f.N_NEURONS] = network.n_neurons
    header[f.N_LINES] = len(lines)
    header[f.POPULATIONS], header[f.PROJECTIONS] = at_populations, at_projections
    header[f.LINES] = at_lines
    header[f.THRESHOLD], header[f.INITIAL] = at_threshold, at_initial

    floats = plan.view(np.float64)
    transmits = np.zeros(n_lanes, np.bool_)
    for q, rows in zip(ordered, stored, strict=True):
        first = lane[level_of[q.source]]
        transmits[first : first + rows.n_sources] |= rows.counts > 0
    for number, (q, rows) in enumerate(zip(ordered, stored, strict=True)):
        place = at_projections + number * f.W_PROJECTION
        plan[place + f.Q_TARGET] = level_of[q.target]
        plan[place + f.Q_ROWS] = at_rows[number]
        plan[place + f.Q_WIDE] = rows.wide
        plan[place + f.Q_LONG] = rows.long
        plan[place + f.Q_WINDOW] = at_windows.get(number, -1)
        plan[place + f.Q_SOURCE] = level_of[q.source]
        plan[place + f.Q_COLUMN] = column(network, q)
        first = lane[level_of[q.source]]
        plan[place + f.Q_KIND] = rows.kind(transmits[first : first + rows.n_sources])
        table = plan[at_rows[number] : at_rows[number] + f.W_ROW * rows.n_rows]
        rows.store(
            plan,
            table.reshape(-1, f.W_ROW),
            at_weights[number],
            at_indices[number],
            at_masks[number],
        )

    state = _Words(f.W_STATE)
    # What a window touches lies together, so that whole blocks are worth computing.
    local = np.zeros(n_populations, np.bool_)
    local[[level_of[ordered[k].target] for k in windows]] = True
    large = (padded > f.LARGE) & ~local
    blocks = _offsets(np.where(large, 8 * -(-padded // (8 * f.BLOCK)), 0))
    supers = _offsets(np.where(large, -(-padded // f.BLOCK**2), 0))
    header[f.U] = state.take(n_lanes)
    header[f.S] = state.take(n_lanes)
    header[f.FLAGS] = 8 * state.take(n_lanes // 8)
    header[f.TOUCHED] = state.take(n_populations)
    bits = _offsets(-(-padded // f.BLOCK))
    header[f.BITS] = state.take(int(bits[-1]))
    header[f.BLOCKS] = 8 * state.take(-(-int(blocks[-1]) // 8))
    header[f.SUPERS] = 8 * state.take(-(-int(supers[-1]) // 8))
    header[f.OUTPUTS] = state.take(network.n_outputs)
    header[f.MIRROR] = 8 * state.take(-(-network.n_inputs // 8))
    for number, (level, delay) in enumerate(lines):
        place = at_lines + number * f.W_LINE
        plan[place + f.L_DELAY] = delay
        plan[place + f.L_COUNT] = state.take(delay + 1)
        plan[place + f.L_CURSOR] = state.take(1)
        plan[place + f.L_NEURON] = state.take((delay + 1) * int(sizes[level]))
        plan[place + f.L_VALUE] = state.take((delay + 1) * int(sizes[level]))
    header[f.KEPT] = state.size
    header[f.TOTALS] = state.take(n_populations * N_COUNTERS)
    header[f.TABLES] = state.take(n_tables * n_populations * N_COUNTERS)
    header[f.TABLE_ROWS] = n_tables
    # Eight more than fit: eight neurons are listed before it is known which of them transmit; and
    # so many are compared at a time.
    header[f.EVENT_NEURON] = state.take(int(padded.max()) + LISTED)
    header[f.EVENT_VALUE] = state.take(int(padded.max()) + 8)
    header[f.WORK] = state.take(f.BLOCK)
    capacity = max(4 * network.n_neurons, LOGGED) if log else 0
    header[f.LOG_STEP] = state.take(capacity)
    header[f.LOG_NEURON] = state.take(capacity)
    header[f.LOG_VALUE] = state.take(capacity)
    header[f.LOG_CAPACITY] = capacity
    for number, window in windows.items():
        window.store_window(plan, at_windows[number], at_rows[number])
    watched = {
        level_of[q.target]: k for k, q in enumerate(ordered) if isinstance(q.weights, MaxWindow)
    }

    first_neuron = _offsets(np.array([p.size for p in populations], np.int64))
    inputs = _places(network, network.inputs)
    outputs = _places(network, network.outputs)
    first_projection = _offsets(np.array([len(group) for group in direct], np.int64))
    first_delayed = len(ordered) - sum(len(group) for _, _, group in delayed)
    for number, (_, _, group) in enumerate(delayed):
        place = at_lines + number * f.W_LINE
        plan[place + f.L_PROJECTION] = first_delayed
        first_delayed += len(group)
        plan[place + f.L_PROJECTION_END] = first_delayed
    for level, k in enumerate(levels):
        p = populations[k]
        place = at_populations + level * f.W_POPULATION
        code, p0, p1 = activation_code(p)
        mine = [number for number, line in enumerate(lines) if line[0] == level]
        targets = [(q.target, q.receptor) for q in direct[level]]
        plan[place + f.P_INDEX] = k
        plan[place + f.P_SIZE] = p.size
        plan[place + f.P_LANE] = lane[level]
        plan[place + f.P_PADDED] = padded[level]
        plan[place + f.P_NEURON] = first_neuron[k]
        plan[place + f.P_CODE] = code
        floats[place + f.P_P0], floats[place + f.P_P1] = p0, p1
        plan[place + f.P_INPUT] = inputs.get(p.name, -1)
        plan[place + f.P_OUTPUT] = outputs.get(p.name, -1)
        plan[place + f.P_PROJECTION] = first_projection[level]
        plan[place + f.P_PROJECTION_END] = first_projection[level + 1]
        plan[place + f.P_LINE] = mine[0] if mine else 0
        plan[place + f.P_LINE_END] = mine[-1] + 1 if mine else 0
        plan[place + f.P_COLUMN] = MACS if p.neuron.graded else ACS
        plan[place + f.P_WATCH] = watched.get(level, -1)
        plan[place + f.P_MERGED] = len(set(targets)) < len(targets)
        plan[place + f.P_LARGE] = large[level]
        plan[place + f.P_BITS] = bits[level]
        plan[place + f.P_BLOCK], plan[place + f.P_SUPER] = blocks[level], supers[level]
        here = slice(int(lane[level]), int(lane[level]) + p.size)
        floats[at_threshold : at_threshold + n_lanes][here] = np.where(
            transmits[here], p.parameter("threshold"), np.inf
        )
        limits = floats[at_threshold : at_threshold + n_lanes][here]
        plan[place + f.P_THRESHOLDS] = (limits != limits[0]).any()
        if isinstance(p.neuron, Delta):
            # -0.0 + 0.0 is 0.0: u is never -0.0, so that adding a zero leaves it alone.
            floats[at_initial : at_initial + n_lanes][here] = p.parameter("bias") + 0.0
    return Plan(
        buffer=plan,
        size=state.size,
        index=np.array(levels, np.int64),
        indexed_synapses=sum(rows.n_indexed for rows in stored),
        dense_positions=sum(rows.n_dense for rows in stored),
        bytes_indexed=sum(rows.bytes_indexed for rows in stored),
        bytes_dense=sum(rows.bytes_dense for rows in stored),
    )


class _Rows:
    """How the rows of one projection are stored."""

    def __init__(self, projection: Projection, wide: bool) -> None:
        weights = projection.weights
        self.n_targets, self.n_sources = weights.shape
        self._dense: NDArray[Any] | None = None
        if isinstance(weights, Dense):
            self._dense = weights.weights
            self.counts = np.count_nonzero(self._dense, axis=0).astype(np.int64)
            values: NDArray[Any] = self._dense
        else:
            self._pointers, self._targets, values = _ascending(*weights.rows())
            self._values = values
            self.counts = np.diff(self._pointers)
        self.wide = wide or not _is_float32(values)
        self.long = self.n_targets > 1 << 16
        self.dense = self.counts >= _dense_fill(self.counts / self.n_targets, self.n_targets) * (
            self.n_targets
        )
        itemsize = 8 if self.wide else 4
        self.n_weights = np.where(self.dense, self.n_targets, self.counts)
        n_indexed = int(self.counts[~self.dense].sum())
        self.n_rows = self.n_sources
        self.n_indexed = n_indexed
        self.n_dense = int(self.dense.sum()) * self.n_targets
        self.bytes_indexed = n_indexed * (itemsize + (4 if self.long else 2))
        self.bytes_dense = int(self.dense.sum()) * self.n_targets * itemsize
        self.weight_words = -(-int(self.n_weights.sum()) * itemsize // 8)
        self._masked = np.flatnonzero(self.dense & (self.counts < self.n_targets))
        self._mask_size = -(-self.n_targets // 64)
        self.mask_words = self._masked.size * self._mask_size
        self.bytes_dense += 8 * self.mask_words
        self.index_words = -(-n_indexed * (4 if self.long else 2) // 8)

    def kind(self, transmits: NDArray[np.bool_]) -> int:
        """How the rows of the neurons that transmit to anybody are stored."""
        if (self.counts == self.n_targets)[transmits].all():
            return f.FULL
        return f.DENSE if self.dense[transmits].all() else f.MIXED

    def store(self, plan: Int, table: Int, at_weights: int, at_indices: int, at_masks: int) -> None:
        """Fill the rows table and the rows."""
        weights: NDArray[Any] = plan.view(np.float64 if self.wide else np.float32)
        indices: NDArray[Any] = plan.view(np.uint32 if self.long else np.uint16)
        at_weights *= 1 if self.wide else 2
        at_indices *= 2 if self.long else 4
        table[:, f.R_WEIGHT] = at_weights + _offsets(self.n_weights)[:-1]
        starts = at_indices + _offsets(np.where(self.dense, 0, self.counts))[:-1]
        table[:, f.R_INDEX] = np.where(self.dense, -1, starts)
        table[:, f.R_COUNT] = self.counts
        table[self._masked, f.R_MASK] = at_masks + self._mask_size * np.arange(self._masked.size)
        if self._dense is not None:
            self._store_dense(plan, weights, indices, table)
            return
        self._store_sparse(plan, weights, indices, table)

    def _mask(self, plan: Int, row: Int, survives: NDArray[np.bool_]) -> None:
        """Fill the bits of a dense row, unless it has all its synapses."""
        if row[f.R_COUNT] < self.n_targets:
            place = int(row[f.R_MASK])
            bits = np.packbits(survives, bitorder="little")
            plan[place : place + self._mask_size].view(np.uint8)[: bits.size] = bits

    def _store_dense(
        self, plan: Int, weights: NDArray[Any], indices: NDArray[Any], table: Int
    ) -> None:
        if self._dense is None:
            return
        if (self.counts == self.n_targets).all():
            first, size = int(table[0, f.R_WEIGHT]), self._dense.size
            weights[first : first + size].reshape(self.n_sources, -1)[...] = self._dense.T
            return
        for i in np.flatnonzero(self.counts):
            column, first = self._dense[:, i], int(table[i, f.R_WEIGHT])
            if self.dense[i]:
                weights[first : first + self.n_targets] = column
                self._mask(plan, table[i], column != 0)
                continue
            targets = np.flatnonzero(column)
            weights[first : first + targets.size] = column[targets]
            place = int(table[i, f.R_INDEX])
            indices[place : place + targets.size] = targets

    def _store_sparse(
        self, plan: Int, weights: NDArray[Any], indices: NDArray[Any], table: Int
    ) -> None:
        # Runs of indexed rows are contiguous on both sides, and are copied at once.
        for i in np.flatnonzero(self.dense):
            row = slice(int(self._pointers[i]), int(self._pointers[i + 1]))
            first = int(table[i, f.R_WEIGHT])
            weights[first : first + self.n_targets] = 0
            weights[first + self._targets[row]] = self._values[row]
            self._mask(plan, table[i], weights[first : first + self.n_targets] != 0)
        edges = np.flatnonzero(np.diff(self.dense, prepend=True, append=True))
        for i, end in zip(edges[::2], edges[1::2], strict=True):
            first, last = int(self._pointers[i]), int(self._pointers[end])
            weight, index = int(table[i, f.R_WEIGHT]), int(table[i, f.R_INDEX])
            for a in range(first, last, _CHUNK_SYNAPSES):
                b = min(a + _CHUNK_SYNAPSES, last)
                weights[weight + a - first : weight + b - first] = self._values[a:b]
                indices[index + a - first : index + b - first] = self._targets[a:b]


def _dense_fill(share: NDArray[np.float64], n_targets: int) -> float:
    """Share of surviving synapses from which a row is stored dense."""
    if n_targets < f.NARROW:
        return DENSE_FILL_NARROW
    mean = float(share[share > 0].mean()) if (share > 0).any() else 0.0
    return DENSE_FILL_AMONG_DENSE if mean >= DENSE_MEAN else DENSE_FILL


def _ascending(pointers: Int, targets: Int, weights: NDArray[Any]) -> tuple[Int, Int, NDArray[Any]]:
    """Rows whose targets ascend, as those are that no one has put together by hand."""
    n = targets.size
    starts = np.zeros(n + 1, np.bool_)
    starts[pointers] = True
    if all(
        ((np.diff(targets[k : k + _CHUNK_SYNAPSES + 1]) > 0) | starts[k + 1 : k + 1 + m]).all()
        for k in range(0, n - 1, _CHUNK_SYNAPSES)
        for m in (min(_CHUNK_SYNAPSES, n - 1 - k),)
    ):
        return pointers, targets, weights
    order = np.lexsort((targets, np.repeat(np.arange(pointers.size - 1), np.diff(pointers))))
    return pointers, targets[order], weights[order]


class _Words:
    """Hands out places in a buffer, cache line by cache line."""

    def __init__(self, header: int) -> None:
        self.size = 0
        self.take(header)

    def take(self, n: int) -> int:
        place = self.size
        self.size += -(-int(n) // 8) * 8
        return place


def activation_code(population: Population) -> tuple[int, float, float]:
    """Code and parameters of a population's activation; those of the identity for inputs."""
    neuron = population.neuron
    if isinstance(neuron, Delta):
        return (neuron.activation.code, *neuron.activation.parameters)
    return (0, 0.0, 0.0)


def _by_source(
    network: Network, levels: list[int]
) -> tuple[list[list[Projection]], list[tuple[int, int, list[Projection]]]]:
    """Projections without delay by level of their source, and (level, delay, projections)."""
    direct: list[list[Projection]] = []
    delayed: list[tuple[int, int, list[Projection]]] = []
    for level, k in enumerate(levels):
        outgoing = network.outgoing(network.populations[k].name)
        direct.append([q for q in outgoing if q.delay == 0])
        delays = sorted({q.delay for q in outgoing if q.delay > 0}, reverse=True)
        delayed += [(level, delay, [q for q in outgoing if q.delay == delay]) for delay in delays]
    return direct, delayed


def _places(network: Network, names: tuple[str, ...]) -> dict[str, int]:
    places, first = {}, 0
    for name in names:
        places[name] = first
        first += network[name].size
    return places


def _offsets(counts: NDArray[Any]) -> Int:
    result = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=result[1:])
    return result


def _is_float32(values: NDArray[Any]) -> bool:
    if values.dtype == np.float32:
        return True
    flat = values.reshape(-1)
    with np.errstate(over="ignore"):
        return all(
            np.array_equal(part.astype(np.float32), part)
            for part in (
                flat[k : k + _CHUNK_SYNAPSES] for k in range(0, flat.size, _CHUNK_SYNAPSES)
            )
        )


def _aligned(n_words: int) -> Int:
    """Zeros at the start of a cache line."""
    raw = np.zeros(n_words + 8, np.int64)
    first = -(raw.ctypes.data // 8) % 8
    return raw[first : first + n_words]
