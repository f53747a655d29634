"""A batch of copies equals as many simulators."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.batch import BatchSimulator
from eventsim.errors import InputError, SimulationError
from eventsim.network import Network
from eventsim.simulator import Simulator
from tests.strategies import networks


def small_network() -> Network:
    rng = np.random.default_rng(0)
    return Network.from_arrays([rng.normal(size=(9, 3)), rng.normal(size=(2, 9))], thresholds=0.1)


@given(st.data(), st.integers(1, 5), st.integers(1, 3))
def test_each_copy_equals_a_simulator(data: st.DataObject, batch: int, threads: int) -> None:
    network = data.draw(networks(max_threshold=0.2))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = np.cumsum(rng.normal(size=(batch, 7, network.n_inputs)), axis=1)
    simulator = BatchSimulator(network, batch, threads=threads)
    stepped = np.stack([simulator.step(x[:, t]) for t in range(3)], axis=1)
    got = np.concatenate([stepped, simulator.run(x[:, 3:])], axis=1)
    totals = np.zeros_like(simulator.totals.table)
    for b in range(batch):
        alone = Simulator(network)
        np.testing.assert_array_equal(got[b], alone.run(x[b]))
        np.testing.assert_array_equal(simulator.tables[b], alone.counters.table)
        totals += alone.totals.table
    np.testing.assert_array_equal(simulator.totals.table, totals)
    np.testing.assert_array_equal(simulator.counters.table, simulator.tables.sum(axis=0))
    assert simulator.totals.input_comparisons == 7 * batch * network.n_inputs


@pytest.mark.parametrize("which", [[False, True, False], [1]])
def test_single_copies_are_reset(which: list[int]) -> None:
    simulator, fresh = BatchSimulator(small_network(), 3), Simulator(small_network())
    x = np.random.default_rng(1).normal(size=(3, 4, 3))
    simulator.run(x)
    simulator.reset(which)
    assert simulator.step_index.tolist() == [4, 0, 4]
    np.testing.assert_array_equal(simulator.step(x[:, 0])[1], fresh.step(x[1, 0]))


def test_states_pass_between_copies_and_simulators() -> None:
    simulator, alone = BatchSimulator(small_network(), 2), Simulator(small_network())
    x = np.random.default_rng(2).normal(size=(2, 6, 3))
    simulator.run(x)
    alone.set_state(simulator.get_state(1))
    other = copy.deepcopy(simulator)
    other.set_state(0, alone.get_state())
    assert alone.step_index == 6
    np.testing.assert_array_equal(other.step(x[:, 0])[0], alone.step(x[0, 0]))
    with pytest.raises(InputError, match="another network"):
        simulator.set_state(0, Simulator(Network.from_arrays([np.ones((1, 99))])).get_state())


def test_bad_input_touches_no_copy() -> None:
    simulator = BatchSimulator(small_network(), 2)
    with pytest.raises(InputError, match="copy 1"):
        simulator.step([[0.0, 0.0, 0.0], [0.0, np.nan, 0.0]])
    assert simulator.step_index.tolist() == [0, 0]
    with pytest.raises(InputError, match=r"expected \(2, 3\) = \(batch, inputs\)"):
        simulator.step(np.zeros(3))
    with pytest.raises(InputError, match="batch, steps, inputs"):
        simulator.run(np.zeros((2, 3)))
    with pytest.raises(InputError, match="batch is 0"):
        BatchSimulator(small_network(), 0)


def test_overflow_names_the_copy() -> None:
    network = Network.from_arrays([np.array([[1e200], [1.0]]), np.array([[1e200, 1.0]])])
    simulator = BatchSimulator(network, 3, threads=2)
    with pytest.raises(SimulationError, match="neuron 0 of population 'output' of copy 2"):
        simulator.run([[[1e-150]], [[1e-150]], [[1e10]]])
