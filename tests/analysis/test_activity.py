"""Single neurons, intervals, inputs and the spread of counts, by hand and against plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import inputs, networks

from eventsim.analysis.activity import (
    NeuronTable,
    input_statistics,
    inter_event_intervals,
    neuron_table,
)
from eventsim.analysis.sparsity import layer_rows, spread_rows, total_row
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder, EventRecorder


@pytest.fixture
def network() -> Network:
    """2-3-1; one weight of the first layer pruned, hidden 1 cut off from the output."""
    return Network.from_arrays(
        [np.array([[-8.0, 2.0], [3.0, 0.0], [4.0, 5.0]]), np.array([[1.0, 0.0, 1.0]])]
    )


# Two episodes of 4 and 3 steps: (episode, step, population, neuron, value).
EVENTS = np.array(
    [
        (0, 0, 0, 0, 1.0),
        (0, 1, 0, 0, -0.5),
        (0, 3, 0, 0, 0.5),
        (0, 0, 1, 2, 2.0),
        (1, 0, 0, 0, 1.0),
        (1, 2, 0, 0, 1.0),
        (1, 2, 1, 2, -4.0),
    ]
)
COLUMNS: dict[str, Any] = {
    name: EVENTS[:, k].astype(np.float64 if name == "value" else np.int64)
    for k, name in enumerate(("episode", "step", "population", "neuron", "value"))
}
LENGTHS = [4, 3]


def test_neurons_by_hand(network: Network) -> None:
    table = neuron_table(network, COLUMNS, episode_lengths=LENGTHS)
    assert isinstance(table, NeuronTable)
    # input 0, input 1, hidden 0 to 2, output
    assert table.events.tolist() == [5, 0, 0, 0, 2, 0]
    assert table.fan_out.tolist() == [3, 2, 1, 0, 1, 0]
    assert table.fan_in.tolist() == [0, 0, 2, 1, 2, 2]
    assert table.synops.tolist() == [15, 0, 0, 0, 2, 0]
    np.testing.assert_allclose(table.activity_sparsity, [2 / 7, 1, 1, np.nan, 5 / 7, np.nan])
    np.testing.assert_allclose(table.connection_sparsity, [np.nan] * 2 + [0, 0.5, 0, 1 / 3])
    np.testing.assert_allclose(table.mean_change, [0.8, np.nan, np.nan, np.nan, 3.0, np.nan])
    # Of input 0: steps 0, 1, 3 and 0, 2: intervals 1, 2, 2. Hidden 2: none inside an episode.
    np.testing.assert_array_equal(table.interval, [2.0] + [np.nan] * 5)
    assert table.silent.tolist() == [False, True, True, False, False, False]
    assert not table.saturated.any()
    assert table.summary()[1] == {
        "name": "hidden1", "neurons": 3, "senders": 2, "silent": 1, "saturated": 0,
    }  # fmt: skip


def test_intervals_do_not_cross_episodes(network: Network) -> None:
    gaps = inter_event_intervals(network, COLUMNS, episode_lengths=LENGTHS)
    assert {name: gap.tolist() for name, gap in gaps.items()} == {
        "input": [1, 2, 2],
        "hidden1": [],
        "output": [],
    }
    shuffled = {name: column[::-1] for name, column in COLUMNS.items()}
    again = inter_event_intervals(network, shuffled, episode_lengths=LENGTHS)
    assert again["input"].tolist() == [1, 2, 2]


def test_median_of_an_even_number_of_intervals(network: Network) -> None:
    step = np.array([0, 1, 4, 5, 10])
    column = np.zeros_like(step)
    events = {"step": step, "population": column, "neuron": column, "value": column + 1.0}
    assert neuron_table(network, events).interval[0] == 2.0  # of 1, 1, 3, 5
    assert neuron_table(network, events, steps=11).saturated.tolist() == [False] * 6


def test_saturated_neurons(network: Network) -> None:
    step = np.arange(4)
    column = np.zeros_like(step)
    events = {"step": step, "population": column, "neuron": column, "value": column + 1.0}
    table = neuron_table(network, events, steps=4)
    assert table.saturated.tolist() == [True] + [False] * 5
    assert table.activity_sparsity[0] == 0.0


def test_empty_run(network: Network) -> None:
    none = {name: np.zeros(0, np.int64) for name in ("step", "population", "neuron", "value")}
    table = neuron_table(network, none)
    assert np.isnan(table.activity_sparsity).all()
    assert not table.saturated.any()
    quiet = neuron_table(network, none, steps=5)
    assert quiet.silent.tolist() == [True, True, True, False, True, False]
    assert inter_event_intervals(network, none)["input"].size == 0


def test_dataframe(network: Network) -> None:
    frame = neuron_table(network, COLUMNS, episode_lengths=LENGTHS).to_dataframe()
    assert frame["population"].tolist() == ["input"] * 2 + ["hidden1"] * 3 + ["output"]
    assert frame["events"].sum() == 7


@given(st.data())
def test_neurons_add_up_to_the_layers(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.3))
    x = data.draw(inputs(network))
    recorder, counters = EventRecorder(), CounterRecorder()
    Simulator(network, hooks=[recorder, counters]).run(x)
    table = neuron_table(network, recorder.to_arrays(), steps=len(x))
    counts = {
        name: counters.table[:, :, k]
        for k, name in enumerate(("evaluations", "events", "macs", "acs"))
    }
    layers = layer_rows(network, **counts)
    for k, row in enumerate(layers):
        mine = table.population == k
        assert table.events[mine].sum() == counts["events"][:, k].sum()
        if row["activity_sparsity"] is not None:
            sparsity = np.nanmean(table.activity_sparsity[mine])
            assert sparsity == pytest.approx(row["activity_sparsity"])
        if all(p.delay == 0 for p in network.projections):
            total = total_row(network, counts["events"], counts["macs"], counts["acs"])
            assert table.synops.sum() == pytest.approx((total["macs"] or 0.0) * len(x))


def test_inputs_by_hand() -> None:
    x = np.array([[0.0, 5.0], [1.0, 5.0], [1.5, 5.0], [9.0, 5.0], [9.0, 6.0]])
    episode = [0, 0, 0, 1, 1]
    found = input_statistics(x, threshold=[0.5, 2.0], episode=episode)
    # Pairs: 0-1, 1-2 and 3-4.
    assert found.pairs == 3
    assert found.within.tolist() == [2 / 3, 1.0]
    assert found.unchanged.tolist() == [1 / 3, 2 / 3]
    assert (found.mean_within, found.mean_unchanged) == (5 / 6, 3 / 6)
    expected = np.corrcoef([0.0, 1.0, 9.0], [1.0, 1.5, 9.0])[0, 1]
    assert found.autocorrelation[0] == pytest.approx(expected)
    assert np.isnan(found.autocorrelation[1])  # the earlier values of the second are constant
    assert found.mean_autocorrelation == pytest.approx(expected)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_inputs_against_a_loop(seed: int, lag: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.round(np.cumsum(rng.normal(size=(30, 3)), axis=0), 1)
    episode = np.repeat([0, 1, 2], [10, 3, 17])
    found = input_statistics(x, 0.5, episode, lag=lag)
    pairs = [(t, t + lag) for t in range(30 - lag) if episode[t] == episode[t + lag]]
    assert found.pairs == len(pairs)
    for i in range(3):
        a, b = (np.array([x[pair[side], i] for pair in pairs]) for side in (0, 1))
        assert found.within[i] == np.mean(np.abs(a - b) <= 0.5)
        assert found.autocorrelation[i] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert -1.0 <= found.mean_autocorrelation <= 1.0


def test_a_slow_signal_is_more_correlated_than_noise(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(500, 4))
    slow = np.cumsum(noise, axis=0)
    assert abs(input_statistics(noise).mean_autocorrelation) < 0.1
    assert input_statistics(slow).mean_autocorrelation > 0.9


def test_too_few_steps_have_no_statistics() -> None:
    found = input_statistics(np.zeros((1, 2)))
    assert found.pairs == 0
    assert np.isnan(found.within).all()
    assert found.mean_within is found.mean_autocorrelation is None


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros(3),), {}, r"'inputs': have shape \(3,\)"),
        ((np.full((3, 2), np.nan),), {}, "not finite"),
        ((np.zeros((3, 2)), [1.0]), {}, "'threshold': has shape"),
        ((np.zeros((3, 2)), -1.0), {}, "'threshold'"),
        ((np.zeros((3, 2)), 0.0, [0]), {}, "'episode': has shape"),
        ((np.zeros((3, 2)),), {"lag": 0}, "'lag': is 0"),
    ],
)
def test_inputs_out_of_order_are_refused(
    arguments: tuple[Any, ...], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        input_statistics(*arguments, **options)


def test_spread_by_hand(network: Network) -> None:
    events = np.array([[2, 1, 0], [0, 1, 0], [1, 0, 0], [1, 4, 0]])
    macs = np.array([[0, 5, 1], [0, 0, 1], [0, 3, 0], [0, 3, 4]])
    rows = spread_rows(network, events, macs, np.zeros_like(macs), episode=[0, 0, 0, 1])
    assert [row["name"] for row in rows] == ["input", "hidden1", "output", "total"]
    assert rows[0]["events"] == {
        "mean": 1.0,
        "std": pytest.approx(np.std([2, 0, 1, 1], ddof=1)),
        "minimum": 0.0,
        "median": 1.0,
        "p95": pytest.approx(1.85),
        "maximum": 2.0,
        "episode_std": 0.0,
        "episode_minimum": 1.0,
        "episode_maximum": 1.0,
    }
    total = rows[3]["synops"]
    assert total["mean"] == pytest.approx(17 / 4)
    assert total["episode_minimum"] == pytest.approx(10 / 3)
    assert total["episode_maximum"] == pytest.approx(7.0)


def test_spread_of_nothing_and_of_one_step(network: Network) -> None:
    none = np.zeros((0, 3), np.int64)
    assert set(spread_rows(network, none, none, none)[0]["events"].values()) == {None}
    single = np.ones((1, 3), np.int64)
    row = spread_rows(network, single, single, single)[0]["synops"]
    assert (row["mean"], row["std"], row["episode_std"]) == (2.0, None, None)
    with pytest.raises(ValueError, match="'episode': has shape"):
        spread_rows(network, single, single, single, episode=[0, 1])
