"""Network -> flat arrays.

Neurons have one global id in the order of the populations. Synapses are sorted by projection,
then source, then target; a source neuron's synapses in projection q are
``row[proj_row[q] + i] : row[proj_row[q] + i + 1]``. A projection with a window has its rows by tap
and source channel instead, onto the channels of one target position: it is never unrolled.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.convolution import GEOMETRY, Local, MaxWindow, geometry
from eventsim.errors import UnsupportedError
from eventsim.kernels.status import ACS, MACS
from eventsim.network import Network, Population, Projection
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
    pop_watch: Int  # (P,) projection whose source's s it takes the maximum of, -1 for none
    pop_out: Int  # (P + 1,) slice of out_proj
    out_proj: Int  # (Q,) projections by source population, in order of declaration
    pop_line: Int  # (P + 1,) slice of the delay lines
    neuron_pop: Int  # (N,)
    order: Int  # (N,) position by (rank, id)
    threshold: Float  # (N,)
    transmits: NDArray[np.bool_]  # (N,) has a surviving outgoing synapse
    initial: Float  # (accumulators,) u after a reset: the bias
    proj_source: Int  # (Q,) population
    proj_target: Int  # (Q,) population
    proj_column: Int  # (Q,) counter of its synapses: a graded source costs MACs, others ACs
    proj_window: Int  # (Q,) row of windows, -1 for synapses from neuron to neuron
    proj_accumulator: Int  # (Q,) first accumulator of the target's receptor
    proj_neuron: Int  # (Q,) first neuron of the target
    proj_line: Int  # (Q,) delay line, -1 without delay
    proj_row: Int  # (Q,) first entry of row
    row: Int  # slice of the synapses of each source neuron, or tap and channel, and an end
    windows: Int  # (windows, 15) numbers of `eventsim.convolution.GEOMETRY`
    syn_target: NDArray[np.uint32]  # (S,) index inside the target population, or position
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

    proj_row, row, syn_target, syn_weight, transmits = _synapses(network, start)
    local = [q.weights if isinstance(q.weights, Local) else None for q in projections]
    geometries = [geometry(w) for w in local if w is not None]
    watches = np.full(len(populations), -1, np.int64)
    for k, weights in enumerate(local):
        if isinstance(weights, MaxWindow):
            watches[target[k]] = k
    codes = [_activation(p) for p in populations]
    return Arrays(
        pop_start=start,
        pop_rank=rank,
        pop_activation=np.array([c[0] for c in codes], np.int64),
        pop_p0=np.array([c[1] for c in codes], np.float64),
        pop_p1=np.array([c[2] for c in codes], np.float64),
        pop_watch=watches,
        pop_out=_offsets(np.bincount(source, minlength=len(populations))),
        out_proj=out_proj,
        pop_line=_offsets(np.bincount(line_pop, minlength=len(populations))),
        neuron_pop=neuron_pop.astype(np.int64),
        order=order,
        threshold=np.concatenate([p.parameter("threshold") for p in populations]),
        transmits=transmits,
        initial=np.concatenate([_initial(p) for p in populations]),
        proj_source=source,
        proj_target=target,
        proj_column=np.array([column(network, q) for q in projections], np.int64),
        proj_window=np.where(
            [w is None for w in local], -1, _offsets([w is not None for w in local])[:-1]
        ),
        proj_accumulator=accumulators[target] + np.array(receptor, np.int64),
        proj_neuron=start[target],
        proj_line=np.array(
            [lines.index((index[q.source], q.delay)) if q.delay else -1 for q in projections],
            np.int64,
        ),
        proj_row=proj_row,
        row=row,
        windows=np.array(geometries, np.int64).reshape(-1, len(GEOMETRY)),
        syn_target=syn_target,
        syn_weight=syn_weight,
        line_delay=line_delay,
        line_start=_offsets((line_delay + 1) * sizes[line_pop]),
        line_slot=_offsets(line_delay + 1),
        line_pop=line_pop,
        input_neuron=_ids(network, network.inputs, start, index),
        output_neuron=_ids(network, network.outputs, start, index),
    )


def column(network: Network, projection: Projection) -> int:
    """Counter column in which a projection's synapses count: MACS, or ACS without a product."""
    graded = network[projection.source].neuron.graded
    return MACS if graded and not isinstance(projection.weights, MaxWindow) else ACS


def _synapses(
    network: Network, start: Int
) -> tuple[Int, Int, NDArray[np.uint32], Float, NDArray[np.bool_]]:
    targets: list[NDArray[np.uint32]] = [np.empty(0, np.uint32)]
    values: list[Float] = [np.empty(0)]
    transmits = np.zeros(int(start[-1]), np.bool_)
    rows: list[Int] = [np.empty(0, np.int64)]
    first = 0
    index = {p.name: k for k, p in enumerate(network.populations)}
    for projection in network.projections:
        weights = projection.weights
        if isinstance(weights, Local):
            pointers, indices, numbers = weights.kernel_rows()
            fan_out = weights.fan_out()
        else:
            pointers, indices, numbers = weights.rows()
            fan_out = np.diff(pointers)
        targets.append(indices.astype(np.uint32))
        values.append(numbers.astype(np.float64))
        rows.append(pointers + first)
        base = start[index[projection.source]]
        transmits[base : base + fan_out.size] |= fan_out > 0
        first += indices.size
    proj_row = _offsets([part.size for part in rows[1:]])[:-1]
    return (
        proj_row,
        np.concatenate(rows),
        np.concatenate(targets),
        np.concatenate(values),
        transmits,
    )


def _offsets(counts: ArrayLike) -> Int:
    values = np.asarray(counts, np.int64)
    result = np.zeros(values.size + 1, np.int64)
    np.cumsum(values, out=result[1:])
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
