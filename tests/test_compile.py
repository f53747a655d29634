"""Flat arrays: what they hold, and that nothing is lost on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given

from eventsim.compile import compile
from eventsim.errors import UnsupportedError
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Input, NeuronModel, Scheduling
from tests.strategies import networks


@given(networks(max_threshold=0.3))
def test_every_synapse_is_found_by_its_source(network: Network) -> None:
    net = compile(network)
    assert net.syn_weight.size == network.n_synapses
    for q, projection in enumerate(network.projections):
        dense = np.zeros(projection.weights.shape)
        for i in range(dense.shape[1]):
            row = net.proj_row[q] + i
            k = slice(net.row[row], net.row[row + 1])
            assert (np.diff(net.syn_target[k].astype(int)) > 0).all()
            dense[net.syn_target[k], i] = net.syn_weight[k]
        np.testing.assert_array_equal(dense, projection.weights.to_dense())


@given(networks(max_threshold=0.3))
def test_order_is_by_rank_then_id(network: Network) -> None:
    net = compile(network)
    keys = [
        (network.ranks[p.name], net.pop_start[k] + i)
        for k, p in enumerate(network.populations)
        for i in range(p.size)
    ]
    expected = sorted(range(len(keys)), key=lambda i: keys[i])
    np.testing.assert_array_equal(np.argsort(net.order), expected)


@given(networks())
def test_a_neuron_transmits_if_a_synapse_survives(network: Network) -> None:
    net = compile(network)
    for k, population in enumerate(network.populations):
        alive = np.zeros(population.size, bool)
        for q in network.outgoing(population.name):
            alive |= (q.weights.to_dense() != 0).any(axis=0)
        got = net.transmits[net.pop_start[k] : net.pop_start[k + 1]]
        np.testing.assert_array_equal(got, alive)


def test_a_scheduling_class_without_engine_is_refused() -> None:
    @dataclass(frozen=True, eq=False)
    class Clocked(NeuronModel):
        kind: ClassVar[str] = "clocked"
        scheduling: ClassVar[Scheduling] = "every step"

    network = Network(
        (Population("x", 1, Input()), Population("y", 1, Clocked())),
        (Projection("x", "y", [[1.0]]),),
    )
    with pytest.raises(UnsupportedError, match=r"population 'y', field 'neuron': .*'every step'"):
        compile(network)
