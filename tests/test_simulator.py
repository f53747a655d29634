"""The simulator's promises: exact at threshold 0, bounded above it, counted, repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.dense import DenseForward
from eventsim.errors import InputError, SimulationError, UnknownNameError
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input
from eventsim.simulator import CHUNK, Simulator
from eventsim.trace import CounterRecorder, EventRecorder
from tests.oracle import Twin
from tests.strategies import inputs, networks

pytestmark = pytest.mark.nojit


def small_network(threshold: float = 0.0) -> Network:
    weights = [np.array([[1.0, 0.0], [0.5, -1.0]]), np.array([[1.0, 2.0]])]
    return Network.from_arrays(weights, [None, [0.25]], "relu", threshold)


@given(st.data())
def test_zero_threshold_equals_the_dense_forward_pass(data: st.DataObject) -> None:
    network = data.draw(networks())
    x = data.draw(inputs(network))
    dense = DenseForward(network)
    expected = dense.run(x)
    scale = max(1.0, *(float(np.abs(u).max()) for u in dense.pre_activations.values()))
    np.testing.assert_allclose(Simulator(network).run(x), expected, rtol=0, atol=1e-11 * scale)


@given(st.data())
def test_events_counters_and_outputs_equal_the_twin(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.3))
    x = data.draw(inputs(network))
    counters, events = CounterRecorder(), EventRecorder()
    outputs = Simulator(network, hooks=[counters, events]).run(x)
    twin = Twin(network)
    np.testing.assert_array_equal(outputs, twin.run(x))
    names = [p.name for p in network.populations]
    for t, count in enumerate(twin.counts):
        for k, name in enumerate(names):
            expected = [count[name][key] for key in ("evaluations", "events", "macs")]
            assert counters.table[t, k, :3].tolist() == expected
            assert counters.table[t, k, 3] == 0
    arrays = events.to_arrays()
    got = list(
        zip(
            arrays["step"].tolist(),
            [names[k] for k in arrays["population"]],
            arrays["neuron"].tolist(),
            arrays["value"].tolist(),
            strict=True,
        )
    )
    assert got == twin.events


@given(st.data())
def test_error_bound_above_zero_threshold(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.5, outputs_all=True))
    x = data.draw(inputs(network))
    simulator, dense = Simulator(network), DenseForward(network)
    order = sorted(network.populations, key=lambda p: network.ranks[p.name])
    # history[t][name]: bound of |true a - s| after step t
    history: list[dict[str, np.ndarray]] = []
    for row in x:
        values = simulator.step(row)
        dense.step(row)
        first = 0
        got = {}
        for name in network.outputs:
            got[name] = values[first : first + network[name].size]
            first += network[name].size
        now: dict[str, np.ndarray] = {}
        for p in order:
            if p.is_input:
                du, lipschitz = np.zeros(p.size), 1.0
            else:
                assert isinstance(p.neuron, Delta)
                lipschitz = p.neuron.activation.lipschitz
                du = np.zeros(p.size)
                for q in network.incoming(p.name):
                    if q.delay == 0:
                        du += np.abs(q.weights.to_dense()) @ now[q.source]
                    elif q.delay <= len(history):
                        du += np.abs(q.weights.to_dense()) @ history[-q.delay][q.source]
            error = np.abs(got[p.name] - dense.activations[p.name])
            slack = 1e-9 * (1 + np.abs(dense.activations[p.name]).max() + du.max())
            assert (error <= lipschitz * du + slack).all()
            now[p.name] = p.parameter("threshold") + lipschitz * du
        history.append(now)


@given(st.data())
def test_a_repeat_is_bit_identical_however_it_is_stepped(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.2))
    x = data.draw(inputs(network))
    recorder = EventRecorder()
    simulator = Simulator(network, hooks=[recorder])
    first = simulator.run(x)
    simulator.reset()
    second = np.stack([simulator.step(row) for row in x])
    np.testing.assert_array_equal(first, second)
    arrays = recorder.to_arrays()
    for key in ("step", "time", "population", "neuron", "value"):
        np.testing.assert_array_equal(
            arrays[key][arrays["episode"] == 0], arrays[key][arrays["episode"] == 1]
        )


@given(st.data())
def test_a_snapshot_continues_bit_identically(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.2))
    x = data.draw(inputs(network))
    cut = data.draw(st.integers(0, len(x)))
    simulator, other = Simulator(network), Simulator(network)
    simulator.run(x[:cut])
    state = simulator.get_state()
    expected = simulator.run(x[cut:])
    other.run(x[::-1])
    other.set_state(state)
    assert other.step_index == cut
    np.testing.assert_array_equal(other.run(x[cut:]), expected)


def test_a_neuron_transmits_only_above_its_threshold() -> None:
    events = EventRecorder()
    simulator = Simulator(small_network(threshold=0.5), hooks=[events])
    simulator.run(np.array([[1.0, 0.0], [1.5, 0.0], [1.6, 0.0]]))
    arrays = events.to_arrays()
    # Input 0 moves 1.0, then to exactly the threshold (silent), then 0.6 in all.
    of_input = arrays["population"] == 0
    np.testing.assert_array_equal(arrays["step"][of_input], [0, 2])
    np.testing.assert_allclose(arrays["value"][of_input], [1.0, 0.6])


def test_every_neuron_is_evaluated_once_in_the_first_step() -> None:
    simulator = Simulator(small_network())
    simulator.step([0.0, 0.0])
    assert simulator.counters.evaluations.tolist() == [2, 2, 1]
    assert simulator.counters.events.tolist() == [0, 0, 0]
    simulator.step([0.0, 0.0])
    assert simulator.counters.evaluations.tolist() == [0, 0, 0]
    assert simulator.counters.input_comparisons == 2


def test_peek_says_when_the_next_event_is_due() -> None:
    network = Network(
        (Population("x", 1, Input()), Population("y", 1, Delta())),
        (Projection("x", "y", [[2.0]], delay=3),),
    )
    simulator = Simulator(network, dt=0.5)
    assert simulator.peek() == 0.0
    assert simulator.step([1.0]).tolist() == [0.0]
    assert simulator.peek() == 1.5
    assert simulator.run(np.ones((2, 1))).tolist() == [[0.0], [0.0]]
    assert simulator.peek() == 1.5
    assert simulator.step([1.0]).tolist() == [2.0]
    assert simulator.peek() == np.inf


def test_two_delays_of_one_neuron_arrive_in_order_of_transmission() -> None:
    """1e16 + 1 - 1e16 depends on the order of the additions: the earlier one comes first."""
    network = Network(
        (Population("x", 1, Input()), Population("y", 1, Delta())),
        (
            Projection("x", "y", [[1.0]], delay=1, name="short"),
            Projection("x", "y", [[1e16]], delay=2, name="long"),
        ),
    )
    x = np.array([[1.0], [0.0], [0.0], [0.0]])
    outputs = Simulator(network).run(x)
    twin = Twin(network).run(x)
    np.testing.assert_array_equal(outputs, twin)
    # step 2: the earlier +1e16 (delay 2), then -1 (delay 1), onto the 1 of step 1.
    assert outputs[2, 0] == (1.0 + 1e16) - 1.0


def test_totals_are_sums_and_reset_clears_them() -> None:
    simulator = Simulator(small_network())
    x = np.random.default_rng(0).normal(size=(2 * CHUNK + 3, 2))
    simulator.run(x)
    assert simulator.totals.events[0] == 2 * len(x)
    assert simulator.totals.input_comparisons == 2 * len(x)
    assert simulator.totals.executed_macs.sum() == simulator.totals.synops
    simulator.reset()
    assert simulator.totals.synops == 0
    assert simulator.counters.input_comparisons == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_input_is_refused_and_changes_nothing(bad: float) -> None:
    simulator, other = Simulator(small_network()), Simulator(small_network())
    simulator.step([1.0, 2.0])
    other.step([1.0, 2.0])
    with pytest.raises(InputError, match=r"input 1 of step 1 is -?(nan|inf)"):
        simulator.step([3.0, bad])
    np.testing.assert_array_equal(simulator.step([0.5, 0.5]), other.step([0.5, 0.5]))


def test_wrong_shapes_are_refused() -> None:
    simulator = Simulator(small_network())
    with pytest.raises(InputError, match=r"\(3,\), expected \(2,\)"):
        simulator.step([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match=r"expected \(steps, 2\)"):
        simulator.run(np.zeros(2))


def test_overflow_names_the_neuron() -> None:
    network = Network.from_arrays([np.array([[1e200], [1.0]]), np.array([[1e200, 1.0]])])
    with pytest.raises(SimulationError, match="neuron 0 of population 'output'"):
        Simulator(network).step([1e10])


def test_overflow_is_not_hidden_by_a_saturating_activation() -> None:
    network = Network.from_arrays([[[1e300]]], output_activation="tanh")
    with pytest.raises(SimulationError, match="no longer finite"):
        Simulator(network).step([1e300])


def test_unknown_engine_and_bad_dt() -> None:
    with pytest.raises(UnknownNameError, match="use 'auto' or 'reference'"):
        Simulator(small_network(), engine="warp")
    with pytest.raises(InputError, match="dt"):
        Simulator(small_network(), dt=0.0)


def test_state_of_another_network_is_refused() -> None:
    other = Simulator(Network.from_arrays([np.ones((1, 5))]))
    with pytest.raises(InputError, match="another network"):
        Simulator(small_network()).set_state(other.get_state())


def test_neurons_without_surviving_synapses_emit_nothing() -> None:
    network = Network.from_arrays([np.eye(2), np.array([[1.0, 0.0]])], activation="identity")
    simulator = Simulator(network)
    simulator.run(np.random.default_rng(1).normal(size=(5, 2)))
    assert simulator.totals.events.tolist() == [10, 5, 0]
    assert simulator.totals.evaluations.tolist() == [10, 10, 5]
