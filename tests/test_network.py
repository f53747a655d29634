"""The description: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from eventsim.connectivity import Sparse
from eventsim.errors import NetworkError, UnknownNameError
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Clip, Delta, Input, LeakyReLU
from tests.strategies import networks

X = Population("x", 2, Input())
Y = Population("y", 3, Delta("relu"))


def test_from_arrays_names_layers_and_spreads_thresholds() -> None:
    network = Network.from_arrays(
        [np.ones((4, 3)), np.ones((2, 4)), np.ones((1, 2))],
        [None, [1.0, 2.0], None],
        ["tanh", LeakyReLU(0.1)],
        [0.1, [0.2] * 4, 0.3],
    )
    assert [p.name for p in network.populations] == ["input", "hidden1", "hidden2", "output"]
    assert network["hidden1"].parameter("threshold").tolist() == [0.2] * 4
    assert network["hidden2"].parameter("bias").tolist() == [1.0, 2.0]
    assert network["output"].parameter("threshold").tolist() == [0.0]
    assert network.ranks == {"input": 0, "hidden1": 1, "hidden2": 2, "output": 3}
    assert network.dense_macs() == 12 + 8 + 2
    assert network.dense_macs("hidden2") == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": []}, "at least one layer"),
        ({"weights": [np.ones(3)]}, r"layer 0 has shape \(3,\)"),
        ({"weights": [np.ones((2, 3)), np.ones((2, 3))]}, r"'hidden1->output', field 'weights'"),
        ({"weights": [np.ones((2, 3))], "biases": [[1.0]]}, "population 'output', field 'bias'"),
        ({"weights": [np.ones((2, 3))], "biases": []}, "has 0 entries for 1 layers"),
        ({"weights": [np.ones((2, 3))], "activation": ["relu"]}, "expected 0"),
        ({"weights": [np.ones((2, 3))], "thresholds": -0.1}, "'threshold': is below 0"),
        ({"weights": [np.full((2, 3), np.nan)]}, "NaN or infinity"),
        ({"weights": [np.ones((2, 3))], "biases": [[np.inf, 0]]}, "'bias': holds NaN"),
        ({"weights": [[["a"]]]}, "'input->output', field 'weights': are not real numbers"),
    ],
)
def test_from_arrays_refuses(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        Network.from_arrays(**arguments)  # type: ignore[arg-type]


def test_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="'swoosh' is not known; use one of clip, elu"):
        Delta("swoosh")
    with pytest.raises(NetworkError, match="only its own parameters"):
        Delta({"name": "relu", "alpha": 1.0})
    with pytest.raises(NetworkError, match="swap them"):
        Clip(1.0, -1.0)
    with pytest.raises(NetworkError, match="finite"):
        LeakyReLU(np.inf)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Population("", 1, Input()), "field 'name'"),
        (lambda: Population("x", 0, Input()), "population 'x', field 'size': is 0"),
        (lambda: Population("x", 1.5, Input()), "must be an integer"),  # type: ignore[arg-type]
        (lambda: Population("x", 4, Input(), (3, 2)), r"\(3, 2\) does not hold 4"),
        (lambda: Population("x", 4, Input([0.1, 0.2])), "2 values for 4 neurons"),
        (lambda: Population("x", 1, "relu"), "must be a neuron model"),  # type: ignore[arg-type]
        (lambda: Input([[0.1]]), r"shape \(1, 1\)"),
        (lambda: Input("a lot"), "not numeric"),  # type: ignore[arg-type]
        (lambda: Projection("x", "y", [[1.0]], delay=-1), "'x->y', field 'delay': is -1"),
        (lambda: Projection("x", "y", [[1.0]], delay=0.5), "whole number"),  # type: ignore[arg-type]
        (lambda: Projection("x", "y", [[1.0]], delay=2**70), "from 0 to 1,000,000"),
        (lambda: Projection("x", "y", [[1.0]], delay=float("nan")), "whole number"),  # type: ignore[arg-type]
        (lambda: Projection("x", "y", [[1.0]], dense_macs=-1), "dense_macs"),
        (lambda: Network((X, X), ()), "population 'x' is declared twice"),
        (lambda: Network((Y,), ()), "at least one population of Input"),
        (lambda: Network((X, Y), (Projection("x", "z", np.ones((3, 2))),)), "'z' does not exist"),
        (lambda: Network((X, Y), (Projection("y", "x", np.ones((2, 3))),)), "takes no synapses"),
        (
            lambda: Network((X, Y), (Projection("x", "y", np.ones((3, 2)), receptor="soma"),)),
            "'soma' is not a port of 'y', which has: input",
        ),
        (
            lambda: Network((X, Y), (Projection("x", "y", np.ones((2, 3))),)),
            r"have shape \(2, 3\), expected \(3, 2\)",
        ),
        (
            lambda: Network(
                (X, Y),
                (Projection("x", "y", np.ones((3, 2))), Projection("y", "y", np.ones((3, 3)))),
            ),
            "cycle without delay runs through population.s. 'y'",
        ),
        (
            lambda: Network(
                (X, Y),
                (Projection("x", "y", np.ones((3, 2))), Projection("y", "y", np.eye(3), 1)),
            ),
            "name the output populations",
        ),
        (lambda: Network((X, Y), (), ("y", "y")), "output 'y' is declared twice"),
    ],
)
def test_bad_descriptions_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NetworkError, match=message):
        make()


def test_a_population_without_synapses_is_an_output_at_its_bias() -> None:
    network = Network((X, Y), ())
    assert network.outputs == ("y",)
    assert network.n_synapses == 0


def test_descriptions_cannot_be_changed() -> None:
    weights = np.ones((3, 2))
    projection = Projection("x", "y", weights)
    weights[:] = 7.0
    assert projection.weights.to_dense().max() == 1.0
    with pytest.raises(ValueError, match="read-only"):
        projection.weights.to_dense()[0, 0] = 2.0
    with pytest.raises(AttributeError):
        X.size = 3  # type: ignore[misc]


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_sparse_and_dense_weights_hold_the_same_synapses(seed: int, single: bool) -> None:
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(rng.integers(1, 6), rng.integers(1, 6)))
    w[rng.random(w.shape) < 0.5] = 0.0
    if single:
        w = w.astype(np.float32)
    dense, coo = Projection("a", "b", w).weights, Projection("a", "b", sparse.coo_array(w)).weights
    assert dense.n_synapses == coo.n_synapses == np.count_nonzero(w)
    assert dense.dtype == coo.dtype == w.dtype
    for got, expected in zip(dense.rows(), coo.rows(), strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(coo.to_dense(), w)
    x = rng.normal(size=w.shape[1])
    np.testing.assert_allclose(dense @ x, coo @ x, atol=1e-12)


def test_sparse_input_sums_duplicates_and_drops_zeros() -> None:
    matrix = sparse.coo_array(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    weights = Projection("a", "b", matrix).weights
    assert weights.n_synapses == 1
    assert weights.to_dense().tolist() == [[0.0, 3.0], [0.0, 0.0]]


def test_pruned_weights_keep_the_dense_macs_they_are_compared_with() -> None:
    network = Network.from_arrays([np.ones((3, 2)), np.ones((1, 3))])
    pruned = network.with_weights({"input->hidden1": np.array([[1.0, 0], [0, 0], [0, 0]])})
    assert pruned.n_synapses == 4
    assert pruned.dense_macs() == 9
    assert pruned.projections[0].connection_sparsity == pytest.approx(5 / 6)
    with pytest.raises(NetworkError, match="'nothing'"):
        network.with_weights({"nothing": np.ones((1, 1))})


def test_thresholds_are_set_and_scaled() -> None:
    network = Network.from_arrays([np.ones((3, 2)), np.ones((1, 3))], thresholds=0.2)
    assert network.scale_thresholds(0.5)["hidden1"].parameter("threshold").tolist() == [0.1] * 3
    changed = network.with_thresholds({"input": [0.0, 1.0]})
    assert changed["input"].parameter("threshold").tolist() == [0.0, 1.0]
    assert changed["hidden1"].parameter("threshold").tolist() == [0.2] * 3
    assert network.with_thresholds(0.4)["input"].parameter("threshold").tolist() == [0.4] * 2
    with pytest.raises(NetworkError, match="'cortex' does not exist"):
        network.with_thresholds({"cortex": 0.1})
    with pytest.raises(NetworkError, match="threshold scale"):
        network.scale_thresholds(-1.0)


@given(networks())
def test_ranks_are_topological_and_the_graph_agrees(network: Network) -> None:
    import networkx as nx

    for q in network.projections:
        if q.delay == 0:
            assert network.ranks[q.source] < network.ranks[q.target]
    graph = network.to_networkx()
    assert set(graph) == {p.name for p in network.populations}
    assert graph.number_of_edges() == len(network.projections)
    assert sum(d["synapses"] for *_, d in graph.edges(data=True)) == network.n_synapses
    immediate = nx.DiGraph((a, b) for a, b, d in graph.edges(data=True) if d["delay"] == 0)
    assert nx.is_directed_acyclic_graph(immediate)
    if immediate:
        assert max(network.ranks.values()) == nx.dag_longest_path_length(immediate)


@pytest.mark.parametrize(
    ("pointers", "targets", "weights", "field"),
    [
        ([0, 1, 1], [2], [1.0], "targets"),
        ([0, 1, 1], [-1], [1.0], "targets"),
        ([0, 2, 1], [0], [1.0], "pointers"),
        ([1, 1, 1], [0], [1.0], "pointers"),
        ([0, 1], [0], [1.0], "pointers"),
        ([0, 1, 1], [0], [1.0, 2.0], "weights"),
    ],
)
def test_sparse_arrays_that_contradict_each_other_are_refused(
    pointers: list[int], targets: list[int], weights: list[float], field: str
) -> None:
    with pytest.raises(NetworkError, match=f"connectivity, field '{field}'"):
        Sparse((2, 2), np.array(pointers), np.array(targets), np.array(weights))
