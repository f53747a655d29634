"""A slow twin of the engine for continuous time: no heap, a look at every neuron at every event.

It keeps the order contract of `eventsim.spiking_compile` and calls the same arithmetic for one
neuron (`eventsim.kernels.crossing_neurons`), so that orders can be compared exactly, ties included.
"""

from __future__ import annotations

import math

import numpy as np

from eventsim.kernels import crossing, crossing_neurons
from eventsim.network import Network
from eventsim.spiking_compile import compile_spiking
from eventsim.spiking_engines import CrossingEngine


def simulate(
    network: Network, until: float, spikes: int = 10_000
) -> tuple[list[tuple[float, int]], np.ndarray]:
    """Spikes of neurons as (seconds, id), and (events, ACs) of every population."""
    plan = compile_spiking(network)
    engine = CrossingEngine(plan)  # for the cells' parameters, its initial state, its tables
    code, keeps, cell, tables = engine._code, engine._keeps, engine._cell, engine._tables
    tau = engine._tau
    n = plan.n_neurons
    unfolded = 0  # E is never divided here: runs of the tests are short
    now = 1.0 if tau else 0.0
    due = [crossing_neurons.due(code[i], cell, i, now) for i in range(n)]
    population = np.repeat(np.arange(len(network.populations)), np.diff(plan.start))
    counts = np.zeros((len(network.populations), 2), np.int64)
    times, ids, horizon = plan.external(0)
    outside = list(zip(times.tolist(), ids.tolist(), strict=True))
    block = 0
    on_their_way: list[tuple[float, int, int, int]] = []  # due, number, row, synapse
    emitted = 0
    found: list[tuple[float, int]] = []
    stop = crossing.to_clock(tau, unfolded, until)

    def deliver(row: int, synapses: range) -> None:
        for e in synapses:
            j = int(plan.targets[e])
            weight = float(plan.weights[e]) if plan.weights.size else float(plan.row_weight[row])
            due[j] = crossing_neurons.kick(
                code[j], bool(keeps[j]), cell, j, weight, now, due[j], *tables
            )
            assert due[j] == due[j]
            counts[population[j], 1] += 1

    def emit(i: int) -> None:
        nonlocal emitted
        p = int(population[i])
        counts[p, 0] += 1
        for b in np.flatnonzero(plan.bundle_population == p):
            row = int(plan.bundle_row[b]) + i - int(plan.start[p])
            synapses = range(int(plan.pointers[row]), int(plan.pointers[row + 1]))
            delay = float(plan.bundle_delay[b])
            if delay == 0.0:
                deliver(row, synapses)
            elif len(synapses):
                if math.isnan(delay):
                    for e in synapses:
                        on_their_way.append((later(plan.delays[e]), emitted, row, e))
                else:
                    on_their_way.append((later(delay), emitted, row, -1))
                emitted += 1

    def later(delay: float) -> float:
        return now * float(np.exp(delay / tau)) if tau else now + delay

    while len(found) < spikes:
        while not outside and horizon < math.inf:
            block += 1
            times, ids, horizon = plan.external(block)
            outside = list(zip(times.tolist(), ids.tolist(), strict=True))
        arrival = min(on_their_way, default=(math.inf, 0, 0, 0))
        source = crossing.to_clock(tau, unfolded, outside[0][0]) if outside else math.inf
        key, i = min((due[i], i) for i in range(n))
        if min(key, arrival[0], source) >= stop:
            break
        if arrival[0] <= source and arrival[0] <= key:
            on_their_way.remove(arrival)
            now, _, row, e = arrival
            whole = range(int(plan.pointers[row]), int(plan.pointers[row + 1]))
            deliver(row, whole if e < 0 else range(e, e + 1))
        elif source <= key:
            now = source
            emit(outside.pop(0)[1])
        else:
            now = key
            found.append((crossing.to_seconds(tau, unfolded, now), i))
            due[i] = crossing_neurons.reset(code[i], cell, i, now)
            emit(i)
    return found, counts
