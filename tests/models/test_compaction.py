"""Compaction changes nothing that can be seen from outside."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eventsim.connectivity import Dense, Sparse
from eventsim.models.compaction import compact, shortened
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input
from eventsim.simulator import Simulator
from tests.strategies import inputs, networks


@given(st.data())
def test_outputs_and_inputs_stay_on_networks_of_every_form(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=data.draw(st.sampled_from([0.0, 0.3]))))
    x = data.draw(inputs(network))
    small = compact(network)
    expected = Simulator(network).run(x)
    got = Simulator(small).run(x)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9 * scale)
    assert small.n_inputs == network.n_inputs
    assert small.dense_macs() == network.dense_macs()
    assert small.n_synapses <= network.n_synapses
    assert compact(small).n_neurons == small.n_neurons


@given(st.integers(0, 500), st.sampled_from(["relu", "tanh"]), st.sampled_from([0.0, 0.2]))
def test_outputs_agree_to_1e12_and_nothing_dead_is_left(seed: int, f: str, theta: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = (4, 12, 9, 3)
    weights = [
        rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.15) for n, m in itertools.pairwise(sizes)
    ]
    biases = [rng.normal(size=m) for m in sizes[1:]]
    network = Network.from_arrays(weights, biases, f, theta)
    small = compact(network)
    x = rng.normal(size=(20, 4))
    np.testing.assert_allclose(
        Simulator(small).run(x), Simulator(network).run(x), rtol=1e-12, atol=1e-12
    )
    for name in ("hidden1", "hidden2"):
        if small[name].size > 1:
            (before,), (after,) = small.incoming(name), small.outgoing(name)
            assert (before.weights.to_dense() != 0).any(axis=1).all()
            assert (after.weights.to_dense() != 0).any(axis=0).all()


def test_a_constant_over_a_delay_is_left_alone() -> None:
    network = Network(
        (
            Population("x", 1, Input()),
            Population("h", 2, Delta("relu", np.array([1.0, 0.0]))),
            Population("y", 1, Delta()),
        ),
        (
            Projection("x", "h", np.array([[0.0], [1.0]])),
            Projection("h", "y", np.array([[5.0, 1.0]]), delay=2),
        ),
        ("y",),
    )
    assert compact(network)["h"].size == 2
    x = np.ones((5, 1))
    np.testing.assert_array_equal(Simulator(compact(network)).run(x), Simulator(network).run(x))


@given(st.data())
def test_lists_of_synapses_give_the_same_bits_and_counts(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.3))
    x = data.draw(inputs(network))
    short = shortened(network)
    one, other = Simulator(network), Simulator(short)
    np.testing.assert_array_equal(one.run(x), other.run(x))
    np.testing.assert_array_equal(one.totals.macs, other.totals.macs)
    assert short.dense_macs() == network.dense_macs()
    assert short.n_synapses == network.n_synapses


def test_a_pruned_matrix_becomes_a_list_and_a_full_one_stays() -> None:
    rng = np.random.default_rng(0)
    thin = rng.normal(size=(40, 50)) * (rng.random((40, 50)) < 0.1)
    network = Network.from_arrays([thin, rng.normal(size=(3, 40))], [np.zeros(40), np.zeros(3)])
    first, second = shortened(network).projections
    assert isinstance(first.weights, Sparse)
    assert isinstance(second.weights, Dense)
