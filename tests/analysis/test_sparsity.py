"""The rows of a run's table against counts made by hand and by the simulator."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks

from eventsim.analysis.sparsity import layer_rows, sending_neurons, total_row
from eventsim.network import Network, Projection
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder


@pytest.fixture
def network() -> Network:
    """2-3-1, one weight of the first layer pruned, hidden 1 cut off from the output."""
    return Network.from_arrays(
        [np.array([[-8.0, 2.0], [3.0, 0.0], [4.0, 5.0]]), np.array([[1.0, 0.0, 1.0]])]
    )


# Three steps, columns input, hidden1, output.
COUNTS = {
    "evaluations": np.array([[2, 3, 1], [1, 2, 1], [0, 0, 0]]),
    "events": np.array([[2, 1, 0], [1, 1, 0], [0, 0, 0]]),
    "macs": np.array([[0, 5, 1], [0, 2, 1], [0, 0, 0]]),
    "acs": np.zeros((3, 3), np.int64),
}


def totals(network: Network, counts: dict[str, np.ndarray], **options: object) -> dict[str, object]:
    return dict(total_row(network, counts["events"], counts["macs"], counts["acs"], **options))


def test_rows_by_hand(network: Network) -> None:
    first, hidden, output = layer_rows(network, **COUNTS)
    assert first == {
        "name": "input",
        "neurons": 2,
        "weights": 0,
        "connection_sparsity": None,
        "dense_macs": 0,
        "macs": 0.0,
        "acs": 0.0,
        "events": 1.0,
        "evaluations": 1.0,
        "activity_sparsity": 0.5,  # 3 events in 6 neuron-steps
    }
    assert hidden["weights"] == hidden["dense_macs"] == 6
    assert hidden["connection_sparsity"] == pytest.approx(1 / 6)
    assert hidden["macs"] == pytest.approx(7 / 3)
    assert hidden["evaluations"] == pytest.approx(5 / 3)
    # Hidden 1 has no surviving outgoing synapse: 2 events in 2 * 3 neuron-steps.
    assert hidden["activity_sparsity"] == pytest.approx(1 - 2 / 6)
    assert output["activity_sparsity"] is None
    assert output["connection_sparsity"] == pytest.approx(1 / 3)


def test_totals_by_hand(network: Network) -> None:
    assert totals(network, COUNTS) == {
        "connection_sparsity": pytest.approx(2 / 9),
        "dense_macs": 9,
        "macs": pytest.approx(3.0),
        "acs": 0.0,
        "activity_sparsity": pytest.approx(1 - 5 / 12),
        "reduction": pytest.approx(27 / 9),
        "reduction_after_first_step": pytest.approx(18 / 3),
    }


def test_every_reset_is_left_out_of_the_reduction_after_first_steps(network: Network) -> None:
    twice = {name: np.concatenate([table[:2], table]) for name, table in COUNTS.items()}
    first = np.array([True, False, True, False, False])
    row = totals(network, twice, first_steps=first)
    assert row["reduction_after_first_step"] == pytest.approx(9 * 3 / 6)
    assert totals(network, twice)["reduction_after_first_step"] == pytest.approx(9 * 4 / 12)


def test_dense_macs_are_the_teachers(network: Network) -> None:
    pruned = network.with_weights({"input->hidden1": np.eye(3, 2)})
    rows = layer_rows(pruned, **COUNTS)
    assert rows[1]["dense_macs"] == 6
    smaller = Network(
        network.populations,
        (Projection("input", "hidden1", np.eye(3, 2), dense_macs=600), network.projections[1]),
    )
    assert layer_rows(smaller, **COUNTS)[1]["dense_macs"] == 600
    assert totals(smaller, COUNTS)["reduction"] == pytest.approx(3 * 603 / 9)


def test_nothing_happened(network: Network) -> None:
    quiet = {name: np.zeros((4, 3), np.int64) for name in COUNTS}
    assert totals(network, quiet)["reduction"] is None
    assert totals(network, quiet)["activity_sparsity"] == 1.0
    no_steps = {name: np.zeros((0, 3), np.int64) for name in COUNTS}
    assert totals(network, no_steps)["macs"] is None
    assert layer_rows(network, **no_steps)[1]["activity_sparsity"] is None


@given(networks(max_threshold=0.3), st.integers(0, 2**32 - 1))
def test_rows_equal_sums_over_a_simulated_run(network: Network, seed: int) -> None:
    recorder = CounterRecorder()
    simulator = Simulator(network, hooks=[recorder])
    rng = np.random.default_rng(seed)
    inputs = np.repeat(rng.normal(size=(4, network.n_inputs)), 2, axis=0)
    simulator.run(inputs)
    table = recorder.table
    counts = SimpleNamespace(
        evaluations=table[:, :, 0], events=table[:, :, 1], macs=table[:, :, 2], acs=table[:, :, 3]
    )
    rows = layer_rows(network, **vars(counts))
    total = total_row(network, counts.events, counts.macs, counts.acs)
    assert sum(row["macs"] for row in rows) == pytest.approx(total["macs"])
    assert sum(row["weights"] for row in rows) == sum(
        p.weights.n_positions for p in network.projections
    )
    for row in rows:
        assert (row["activity_sparsity"] is None) == (
            not sending_neurons(network)[row["name"]].any()
        )
        for name in ("activity_sparsity", "connection_sparsity"):
            assert row[name] is None or 0.0 <= row[name] <= 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"macs": np.zeros((3, 2), np.int64)}, r"'macs': has shape \(3, 2\); give \(steps, 3\)"),
        ({"acs": np.zeros((2, 3), np.int64)}, "differ in their number of steps"),
        ({"events": -COUNTS["events"]}, "'events': must hold whole numbers >= 0"),
        ({"events": COUNTS["events"] + 0.5}, "'events': must hold whole numbers"),
    ],
)
def test_counters_out_of_order_are_refused(
    network: Network, change: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        layer_rows(network, **{**COUNTS, **change})


def test_first_steps_must_fit(network: Network) -> None:
    with pytest.raises(ValueError, match="'first_steps': has shape"):
        totals(network, COUNTS, first_steps=[True])
