"""Every engine gives the reference's events: same order, same bits; and says why it was picked."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from eventsim import engines, plan
from eventsim.connectivity import Sparse
from eventsim.errors import InputError, SimulationError, UnknownNameError, UnsupportedError
from eventsim.kernels import fields
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input, NeuronModel, Scheduling
from eventsim.simulator import PRECISIONS, Simulator
from eventsim.stack import Stack
from eventsim.trace import CounterRecorder, EventRecorder
from tests.strategies import inputs, networks

#: Everything but the reference itself.
FAST = [name for name in engines.ENGINES if name != "reference"]


def assert_equal_to_reference(network: Network, x: np.ndarray, engine: str) -> None:
    """Outputs, counters and events, all bit for bit, stepped and run."""
    traces = []
    for name in ("reference", engine):
        counters, events = CounterRecorder(), EventRecorder()
        simulator = Simulator(network, [counters, events], engine=name)
        half = len(x) // 2
        stepped = [simulator.step(row) for row in x[:half]]
        outputs = np.concatenate([*(row[np.newaxis] for row in stepped), simulator.run(x[half:])])
        silent = Simulator(network, engine=name)
        np.testing.assert_array_equal(silent.run(x), outputs)
        np.testing.assert_array_equal(silent.totals.table, simulator.totals.table)
        np.testing.assert_array_equal(silent.counters.table, counters.table[-1])
        assert silent.peek() == simulator.peek()
        traces.append((outputs, counters.table, events.to_arrays(), simulator.peek()))
    (expected, table, events, peek), (got, fast_table, fast_events, fast_peek) = traces
    np.testing.assert_array_equal(got, expected)
    # The last column is what the host multiplied: its own business, but never less.
    np.testing.assert_array_equal(fast_table[:, :, :4], table[:, :, :4])
    assert (fast_table[:, :, 4] >= table[:, :, 4]).all()
    for key, values in events.items():
        np.testing.assert_array_equal(fast_events[key], values)
    assert fast_peek == peek


@pytest.mark.nojit
@pytest.mark.parametrize("engine", FAST)
@given(st.data())
def test_small_networks_of_every_form(engine: str, data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=data.draw(st.sampled_from([0.0, 0.3]))))
    assert_equal_to_reference(network, data.draw(inputs(network)), engine)


@pytest.mark.parametrize("engine", FAST)
@given(st.data())
def test_wide_layers_with_delays_and_feedback(engine: str, data: st.DataObject) -> None:
    """Wide enough for vectorised passes, several blocks of lanes and every row format."""
    network = data.draw(networks(max_threshold=0.05, max_size=150, max_layers=3))
    assert_equal_to_reference(network, data.draw(inputs(network, max_steps=6)), engine)


@pytest.mark.parametrize("engine", FAST)
@given(st.data())
def test_everything_changes_at_every_step(engine: str, data: st.DataObject) -> None:
    network = data.draw(networks(max_size=80, max_layers=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    assert_equal_to_reference(network, rng.normal(size=(5, network.n_inputs)), engine)


@pytest.mark.parametrize("fill", [0.0, 0.4, 2.0], ids=["dense", "mixed", "indexed"])
@pytest.mark.parametrize("large", [0, fields.LARGE], ids=["blocks", "no-blocks"])
@given(data=st.data())
def test_every_row_format_and_size_class(fill: float, large: int, data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.05, max_size=140, max_layers=2))
    x = data.draw(inputs(network, max_steps=5))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DENSE_FILL", "DENSE_FILL_AMONG_DENSE", "DENSE_FILL_NARROW"):
            patch.setattr(plan, name, fill)
        patch.setattr(fields, "LARGE", large)
        assert_equal_to_reference(network, x, "levels")


@pytest.mark.nojit
def test_parallel_projections_add_event_by_event() -> None:
    """1e16 + 1 - 1e16 shows any other order of the additions."""
    x, y = Population("x", 3, Input()), Population("y", 1, Delta())
    for second in (0, 1):
        network = Network(
            (x, y),
            (
                Projection("x", "y", [[1e16, 1.0, -1e16]], name="a"),
                Projection("x", "y", [[1.0, 1e16, 3.0]], second, name="b"),
            ),
        )
        steps = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 5.0], [0.0, 0.0, 0.0]])
        assert_equal_to_reference(network, steps, "levels")


def test_more_than_65536_targets() -> None:
    rng = np.random.default_rng(3)
    n = 70_000
    fan_out = sparse.random_array((n, 12), density=0.002, rng=rng, format="csc")
    full = rng.normal(size=(n, 1))
    fan_in = sparse.random_array((5, n), density=0.001, rng=rng, format="csc")
    network = Network(
        (
            Population("x", 12, Input()),
            Population("z", 1, Input()),
            Population("h", n, Delta("tanh", rng.normal(size=n), 0.01)),
            Population("y", 5, Delta()),
        ),
        (
            Projection("x", "h", fan_out),
            Projection("z", "h", full),
            Projection("h", "y", fan_in),
        ),
    )
    x = np.concatenate([rng.normal(size=(4, 12)), np.array([[0.0], [0.0], [1.0], [1.0]])], axis=1)
    assert_equal_to_reference(network, x, "levels")


def test_rows_of_a_large_population_in_any_order() -> None:
    """Near one another, far apart and both, and put together by hand in falling order."""
    rng = np.random.default_rng(7)
    n, fan = 9_000, 21
    near = np.sort((1_234 + 300 * np.arange(4)[:, np.newaxis] + np.arange(fan)), axis=1)
    far = np.sort(rng.permutation(n)[: 4 * fan].reshape(4, fan), axis=1)
    both = np.concatenate([near[:, :15], 6_000 + near[:, 15:]], axis=1)
    targets = np.concatenate([near, far, both])
    out = sparse.random_array((3, n), density=0.5, rng=rng, format="csc")
    for rows in (targets, targets[:, ::-1]):
        network = Network(
            (
                Population("x", 12, Input()),
                Population("h", n, Delta("tanh", rng.normal(size=n), 0.01)),
                Population("y", 3, Delta()),
            ),
            (
                Projection(
                    "x",
                    "h",
                    Sparse(
                        (n, 12),
                        np.arange(13) * fan,
                        np.ascontiguousarray(rows).reshape(-1),
                        rng.normal(size=12 * fan),
                    ),
                ),
                Projection("h", "y", out),
            ),
        )
        x = np.where(rng.random((6, 12)) < 0.3, rng.normal(size=(6, 12)), 0.5)
        assert_equal_to_reference(network, x, "levels")


def test_the_buffer_of_event_records_is_drained_within_a_run() -> None:
    rng = np.random.default_rng(5)
    network = Network.from_arrays([rng.normal(size=(600, 9)), rng.normal(size=(3, 600))])
    assert_equal_to_reference(network, rng.normal(size=(40, 9)), "levels")


def test_weights_are_float32_where_nothing_is_lost() -> None:
    weights = np.array([[1.5, 0.25], [0.0, 3.0]] * 20)
    network = Network.from_arrays([weights])
    compiled = plan.compile_plan(network)
    assert compiled.bytes_dense == 40 * 4 * 2 + 8
    exact = plan.compile_plan(Network.from_arrays([weights / 3]))
    assert exact.bytes_dense == 40 * 8 * 2 + 8
    assert plan.compile_plan(network, wide=True).bytes_dense == exact.bytes_dense


def test_kernels_are_float32_where_nothing_is_lost() -> None:
    kernel = np.random.default_rng(0).normal(size=(8, 1, 3, 3)).astype(np.float32)
    network = Stack((1, 5, 5)).convolution(kernel).network()
    compiled = plan.compile_plan(network)
    assert compiled.bytes_dense == 9 * 8 * 4
    assert plan.compile_plan(network, wide=True).bytes_dense == 9 * 8 * 8


def test_precision_of_the_weights() -> None:
    rng = np.random.default_rng(6)
    dense = rng.normal(size=(20, 4))
    network = Network.from_arrays([dense, sparse.csc_array(rng.normal(size=(2, 20)))])
    x = rng.normal(size=(5, 4))
    outputs = {name: Simulator(network, precision=name).run(x) for name in PRECISIONS}
    np.testing.assert_array_equal(outputs["auto"], outputs["float64"])
    assert (outputs["float32"] != outputs["auto"]).any()
    np.testing.assert_allclose(outputs["float32"], outputs["auto"], rtol=1e-5, atol=1e-5)
    by_hand = Network.from_arrays([dense.astype(np.float32), network.projections[1].weights])
    single = Simulator(by_hand, precision="float32")
    np.testing.assert_array_equal(single.run(x), outputs["float32"])
    reference = Simulator(network, engine="reference", precision="float32")
    np.testing.assert_array_equal(reference.run(x), outputs["float32"])
    with pytest.raises(UnknownNameError, match="float64"):
        Simulator(network, precision="half")


@pytest.mark.parametrize(("n_targets", "limit"), [(65_536, 6), (65_537, 8)])
def test_bytes_of_an_indexed_synapse(n_targets: int, limit: int) -> None:
    matrix = sparse.random_array(
        (n_targets, 40), density=1e-3, rng=np.random.default_rng(1), dtype=np.float32
    )
    compiled = plan.compile_plan(Network.from_arrays([matrix]))
    assert compiled.indexed_synapses == matrix.nnz
    assert compiled.bytes_indexed == limit * matrix.nnz


@pytest.mark.nojit
def test_overflow_is_found_at_the_same_neuron() -> None:
    rng = np.random.default_rng(2)
    weights = rng.normal(size=(100, 5))
    weights[37] = 1e300
    weights[91] = 1e305
    network = Network.from_arrays([weights, rng.normal(size=(2, 100))], activation="tanh")
    messages = []
    for name in engines.ENGINES:
        simulator = Simulator(network, engine=name)
        simulator.step(np.zeros(5))
        with pytest.raises(SimulationError) as caught:
            simulator.step(np.full(5, 1e9))
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    assert "neuron 37" in messages[0]


@pytest.mark.parametrize("engine", list(engines.ENGINES))
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_copy_goes_on_by_itself(engine: str, duplicate: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(4)
    network = Network.from_arrays([rng.normal(size=(20, 4)), rng.normal(size=(2, 20))])
    x = rng.normal(size=(6, 4))
    original = Simulator(network, engine=engine)
    original.run(x[:3])
    other = duplicate(original)
    np.testing.assert_array_equal(other.run(x[3:]), original.run(x[3:]))
    other.run(x)
    assert other.step_index == 12
    assert original.step_index == 6


@pytest.mark.parametrize("engine", list(engines.ENGINES))
def test_inputs_of_any_layout(engine: str) -> None:
    network = Network.from_arrays([np.array([[1.0, 2.0, 4.0]])])
    wide = np.arange(12.0).reshape(3, 4).T  # columns of it are strided
    simulator = Simulator(network, engine=engine)
    expected = wide[:, :3] @ np.array([1.0, 2.0, 4.0])
    np.testing.assert_array_equal([simulator.step(row)[0] for row in wide], expected)
    simulator.reset()
    np.testing.assert_array_equal(simulator.run(wide)[:, 0], expected)
    frozen = wide[0].astype(np.float32)
    frozen.flags.writeable = False
    assert simulator.step(frozen)[0] == expected[0]
    assert simulator.step([0, 4, 8])[0] == expected[0]
    assert simulator.run(np.zeros((0, 3))).shape == (0, 1)


def test_a_state_of_the_other_engine_is_refused() -> None:
    network = Network.from_arrays([np.ones((2, 2))])
    state = Simulator(network, engine="reference").get_state()
    with pytest.raises(InputError, match="network or engine"):
        Simulator(network, engine="levels").set_state(state)


def test_auto_picks_the_fast_engine_and_says_why() -> None:
    network = Network.from_arrays([np.ones((2, 2))])
    simulator = Simulator(network)
    assert simulator.engine == "levels"
    assert "fastest" in simulator.engine_reason
    assert Simulator(network, engine="reference").engine_reason == "it was asked for"
    with pytest.raises(UnknownNameError, match="'levels'"):
        Simulator(network, engine="warp")


def test_auto_falls_back_to_the_reference() -> None:
    @dataclass(frozen=True, eq=False)
    class Adder(NeuronModel):
        kind: ClassVar[str] = "adder"
        scheduling: ClassVar[Scheduling] = "on input"

    network = Network(
        (Population("x", 1, Input()), Population("y", 1, Adder())),
        (Projection("x", "y", [[1.0]]),),
    )
    picked, reason = engines.choose(network)
    assert picked is engines.ReferenceEngine
    assert "population 'y'" in reason
    with pytest.raises(UnsupportedError, match="population 'y'"):
        engines.choose(network, "levels")
