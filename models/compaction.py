"""Take out of a pruned network what cannot matter, without changing what it computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.connectivity import Dense, Sparse
from eventsim.convolution import Convolution
from eventsim.models.pruning import packed
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta

Mask: TypeAlias = NDArray[np.bool_]
Float: TypeAlias = NDArray[np.float64]


def compact(network: Network) -> Network:
    """Remove hidden neurons that hear nothing or that nobody hears, until none is left.

    A neuron without live inputs sends once, in the first step: ``f(b)``, or nothing where
    ``|f(b)| <= threshold``. What it sends is folded into the biases of its targets. A neuron
    without live outputs goes. Outputs, at any thresholds, stay the same but for the rounding of
    one addition (1e-12 relative); so do the events of the neurons that stay. Inputs and outputs
    keep their sizes, and dense MACs stay those of the network before pruning.

    Left alone: neurons whose constant would arrive late, over a delayed projection, and one
    neuron of a population that would be empty.

    Parameters
    ----------
    network : Network

    Returns
    -------
    Network

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network
    >>> from eventsim.models.compaction import compact
    >>> w = [np.array([[1.0], [0.0], [2.0]]), np.array([[1.0, 3.0, 0.0]])]
    >>> small = compact(Network.from_arrays(w, [np.array([0.0, 0.5, 0.0]), None]))
    >>> [p.size for p in small.populations], small["output"].parameter("bias")
    ([1, 1, 1], array([1.5]))
    """
    weights = {q.name: q.weights.to_dense() for q in network.projections}
    biases = {
        p.name: p.parameter("bias").astype(np.float64)
        for p in network.populations
        if isinstance(p.neuron, Delta)
    }
    kept = {p.name: np.ones(p.size, np.bool_) for p in network.populations}
    removable = [
        p
        for p in network.populations
        if isinstance(p.neuron, Delta) and p.name not in network.outputs
    ]
    changed = True
    while changed:
        changed = False
        for population in removable:
            gone = _removed(network, population, weights, biases, kept)
            if gone.any():
                kept[population.name] &= ~gone
                for q in network.incoming(population.name):
                    weights[q.name] = _without(weights[q.name], rows=gone)
                for q in network.outgoing(population.name):
                    weights[q.name] = _without(weights[q.name], columns=gone)
                changed = True
    if all(k.all() for k in kept.values()):
        return network.with_weights({})
    populations = tuple(_smaller(p, kept[p.name], biases.get(p.name)) for p in network.populations)
    projections = tuple(
        Projection(
            q.source,
            q.target,
            packed(weights[q.name][np.ix_(kept[q.target], kept[q.source])]),
            q.delay,
            q.receptor,
            q.name,
            q.dense_macs,
        )
        for q in network.projections
    )
    return replace(network, populations=populations, projections=projections)


def unrolled(network: Network) -> Network:
    """Return the network with every convolution as synapses of their own.

    So single positions of a feature map can be left out, which a shared kernel computes whether
    anybody hears them or not. Steps, events and counts are the same; dense MACs stay.
    """
    weights = {
        q.name: Sparse(q.weights.shape, *q.weights.rows())
        for q in network.projections
        if isinstance(q.weights, Convolution)
    }
    return network.with_weights(weights) if weights else network


def shortened(network: Network) -> Network:
    """Return the network with matrices of few synapses as lists of these.

    A file of it is mostly smaller; the rows that an engine adds are the same.

    Parameters
    ----------
    network : Network

    Returns
    -------
    Network
    """
    weights = {
        q.name: packed(q.weights.weights)
        for q in network.projections
        if isinstance(q.weights, Dense)
    }
    return network.with_weights(weights) if weights else network


def _removed(
    network: Network,
    population: Population,
    weights: dict[str, NDArray[Any]],
    biases: dict[str, Float],
    kept: dict[str, Mask],
) -> Mask:
    """Neurons of a population to take out now; what they send has gone into the biases."""
    here = kept[population.name]
    incoming = network.incoming(population.name)
    outgoing = network.outgoing(population.name)
    hears = np.zeros(population.size, np.bool_)
    for q in incoming:
        hears |= (weights[q.name] != 0).any(axis=1)
    heard = np.zeros(population.size, np.bool_)
    late = np.zeros(population.size, np.bool_)
    for q in outgoing:
        alive = (weights[q.name] != 0).any(axis=0)
        heard |= alive
        if q.delay:
            late |= alive
    neuron = population.neuron
    if not isinstance(neuron, Delta):
        return np.zeros(population.size, np.bool_)
    sent = neuron.activation(biases[population.name])
    sent = np.where(np.abs(sent) > population.parameter("threshold"), sent, 0.0)
    gone = here & (~heard | (~hears & (~late | (sent == 0.0))))
    if gone.any() and (gone == here).all():
        gone[np.flatnonzero(here)[0]] = False
    constant = np.where(gone & heard, sent, 0.0)
    if constant.any():
        for q in outgoing:
            biases[q.target] = biases[q.target] + weights[q.name].astype(np.float64) @ constant
    return np.asarray(gone, np.bool_)


def _without(
    weights: NDArray[Any], rows: Mask | None = None, columns: Mask | None = None
) -> NDArray[Any]:
    result = weights.copy()
    if rows is not None:
        result[rows] = 0
    if columns is not None:
        result[:, columns] = 0
    return result


def _smaller(population: Population, kept: Mask, bias: Float | None) -> Population:
    neuron = population.neuron
    if not isinstance(neuron, Delta) or bias is None:
        return population
    small = Delta(
        neuron.activation, bias[kept], np.asarray(population.parameter("threshold"))[kept]
    )
    size = int(kept.sum())
    shape = population.shape if size == population.size else (size,)
    return Population(population.name, size, small, shape)
