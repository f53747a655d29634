"""Network -> flat arrays.

Neurons have one global id in the order of the populations. Synapses are sorted by projection,
then source, then target; a source neuron's synapses in projection q are
``row[proj_row[q] + i] : row[proj_row[q] + i + 1]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import UnsupportedError
from eventsim.network import Network, Population
from eventsim.neurons import Delta

Int = NDArray[np.int64]
Float = NDArray[np.float64]


class Arrays(NamedTuple):
    """A compiled network: flat arrays only, so that kernels take it as it is.

    P populations, N neurons, Q projections, S surviving synapses, L delay lines. An accumulator
    is one sum u; a population has one a neuron and receptor, receptor after receptor.
    """

    pop_start: Int  # (P + 1,) first neuron id
    pop_rank: Int  # (P,)
    pop_activation: Int  # (P,) code
    pop_p0: Float  # (P,) activation parameters
    pop_p1: Float
    pop_graded: NDArray[np.bool_]  # (P,) a synapse of a graded source costs a MAC, else an AC
    pop_out: Int  # (P + 1,) slice of out_proj
    out_proj: Int  # (Q,) projections by source population, in order of declaration
    pop_line: Int  # (P + 1,) slice of the delay lines
    neuron_pop: Int  # (N,)
    order: Int  # (N,) position by (rank, id)
    threshold: Float  # (N,)
    transmits: NDArray[np.bool_]  # (N,) has a surviving outgoing synapse
    initial: Float  # (accumulators,) u after a reset: the bias
    proj_target: Int  # (Q,) population
    proj_accumulator: Int  # (Q,) first accumulator of the target's receptor
    proj_neuron: Int  # (Q,) first neuron of the target
    proj_line: Int  # (Q,) delay line, -1 without delay
    proj_row: Int  # (Q,) first entry of row
    row: Int  # (sum of source sizes + Q,) slice of the synapses
    syn_target: NDArray[np.uint32]  # (S,) index inside the target population
    syn_weight: Float  # (S,)
    line_delay: Int  # (L,) steps
    line_start: Int  # (L + 1,) first entry; a line has delay + 1 slots of its source's size
    line_slot: Int  # (L + 1,) first slot
    line_pop: Int  # (L,) source population
    input_neuron: Int  # (n_inputs,)
    output_neuron: Int  # (n_outputs,)


def compile(network: Network) -> Arrays:
    """Compile a network of "on input" populations for the step-by-step engines.

    Parameters
    ----------
    network : Network

    Returns
    -------
    Arrays

    Raises
    ------
    UnsupportedError
        If a population is in a scheduling class that no engine offers.
    """
    for population in network.populations:
        if population.neuron.scheduling != "on input":
            raise UnsupportedError(
                f"scheduling class '{population.neuron.scheduling}' has no engine yet",
                where=f"population '{population.name}'",
                field="neuron",
            )
    populations, projections = network.populations, network.projections
    index = {p.name: k for k, p in enumerate(populations)}
    sizes = np.array([p.size for p in populations], np.int64)
    start = _offsets(sizes)
    accumulators = _offsets(
        np.array([p.size * max(1, len(p.neuron.receptors)) for p in populations], np.int64)
    )
    rank = np.array([network.ranks[p.name] for p in populations], np.int64)
    neuron_pop = np.repeat(np.arange(len(populations)), sizes)
    order = np.empty(int(start[-1]), np.int64)
    # A stable sort keeps ids in order inside a rank.
    order[np.argsort(rank[neuron_pop], kind="stable")] = np.arange(order.size)

    source = np.array([index[q.source] for q in projections], np.int64)
    target = np.array([index[q.target] for q in projections], np.int64)
    receptor = [
        network[q.target].neuron.receptors.index(q.receptor) * network[q.target].size
        for q in projections
    ]
    lines = sorted({(index[q.source], q.delay) for q in projections if q.delay > 0})
    line_delay = np.array([delay for _, delay in lines], np.int64)
    line_pop = np.array([k for k, _ in lines], np.int64)
    out_proj = np.argsort(source, kind="stable").astype(np.int64)

    row, syn_target, syn_weight, transmits = _synapses(network, start)
    codes = [_activation(p) for p in populations]
    return Arrays(
        pop_start=start,
        pop_rank=rank,
        pop_activation=np.array([c[0] for c in codes], np.int64),
        pop_p0=np.array([c[1] for c in codes], np.float64),
        pop_p1=np.array([c[2] for c in codes], np.float64),
        pop_graded=np.array([p.neuron.graded for p in populations], np.bool_),
        pop_out=_offsets(np.bincount(source, minlength=len(populations))),
        out_proj=out_proj,
        pop_line=_offsets(np.bincount(line_pop, minlength=len(populations))),
        neuron_pop=neuron_pop.astype(np.int64),
        order=order,
        threshold=np.concatenate([p.parameter("threshold") for p in populations]),
        transmits=transmits,
        initial=np.concatenate([_initial(p) for p in populations]),
        proj_target=target,
        proj_accumulator=accumulators[target] + np.array(receptor, np.int64),
        proj_neuron=start[target],
        proj_line=np.array(
            [lines.index((index[q.source], q.delay)) if q.delay else -1 for q in projections],
            np.int64,
        ),
        proj_row=_offsets(sizes[source] + 1)[:-1],
        row=row,
        syn_target=syn_target,
        syn_weight=syn_weight,
        line_delay=line_delay,
        line_start=_offsets((line_delay + 1) * sizes[line_pop]),
        line_slot=_offsets(line_delay + 1),
        line_pop=line_pop,
        input_neuron=_ids(network, network.inputs, start, index),
        output_neuron=_ids(network, network.outputs, start, index),
    )


def _synapses(
    network: Network, start: Int
) -> tuple[Int, NDArray[np.uint32], Float, NDArray[np.bool_]]:
    n_synapses = network.n_synapses
    syn_target = np.empty(n_synapses, np.uint32)
    syn_weight = np.empty(n_synapses, np.float64)
    transmits = np.zeros(int(start[-1]), np.bool_)
    rows: list[Int] = [np.empty(0, np.int64)]
    first = 0
    index = {p.name: k for k, p in enumerate(network.populations)}
    for projection in network.projections:
        pointers, targets, weights = projection.weights.rows()
        last = first + int(pointers[-1])
        syn_target[first:last] = targets
        syn_weight[first:last] = weights
        rows.append(pointers + first)
        base = start[index[projection.source]]
        transmits[base : base + pointers.size - 1] |= np.diff(pointers) > 0
        first = last
    return np.concatenate(rows), syn_target, syn_weight, transmits


def _offsets(counts: NDArray[np.int64]) -> Int:
    result = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=result[1:])
    return result


def _ids(network: Network, names: tuple[str, ...], start: Int, index: dict[str, int]) -> Int:
    ranges = [np.arange(start[index[n]], start[index[n] + 1], dtype=np.int64) for n in names]
    return np.concatenate(ranges)


def _activation(population: Population) -> tuple[int, float, float]:
    neuron = population.neuron
    if isinstance(neuron, Delta):
        return (neuron.activation.code, *neuron.activation.parameters)
    return (0, 0.0, 0.0)


def _initial(population: Population) -> Float:
    if isinstance(population.neuron, Delta):
        # -0.0 + 0.0 is 0.0: u is never -0.0, so that adding a zero leaves it alone.
        return population.parameter("bias") + 0.0
    return np.zeros(population.size)
