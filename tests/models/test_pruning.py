"""Pruning cuts exactly what it is asked to, never what the caps protect."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import sparse

from eventsim import DenseForward, Network, Population, Projection
from eventsim.errors import InputError, UnknownNameError
from eventsim.models.pruning import (
    connection_sparsity,
    erk_sparsities,
    input_importance,
    packed,
    polynomial_sparsity,
    prune,
    rewind,
)
from eventsim.neurons import Delta, Input


@st.composite
def layered(draw: st.DrawFn, *, ties: bool = False) -> Network:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    scale = 10.0 ** rng.uniform(-2, 2, len(sizes) - 1)
    weights = [
        (rng.integers(-2, 3, (m, n)) if ties else rng.normal(size=(m, n))) * s
        for n, m, s in zip(sizes, sizes[1:], scale, strict=False)
    ]
    if rng.random() < 0.3:
        weights[0] = sparse.csr_array(weights[0] * (rng.random(weights[0].shape) < 0.6))
    return Network.from_arrays(
        [w if rng.random() < 0.5 else w.astype(np.float32) for w in weights],
        [rng.normal(size=m) for m in sizes[1:]],
        thresholds=0.1,
    )


def uncapped(network: Network, sparsity: float, **options: object) -> Network:
    return prune(
        network,
        sparsity,
        max_column_sparsity=1.0,
        max_row_sparsity=1.0,
        max_layer_sparsity=1.0,
        **options,
    )


def dense(network: Network) -> list[np.ndarray]:
    return [q.weights.to_dense() for q in network.projections]


def flat(network: Network) -> np.ndarray:
    return np.concatenate([w.ravel().astype(np.float64) for w in dense(network)])


@given(layered(), st.floats(0.0, 0.999))
def test_prunes_the_smallest_exactly(network: Network, sparsity: float) -> None:
    before, after = flat(network), flat(uncapped(network, sparsity))
    zeros = max(round(sparsity * before.size), int((before == 0.0).sum()))
    assert int((after == 0.0).sum()) == zeros
    kept = after != 0.0
    assert (after[kept] == before[kept]).all()
    if kept.any() and not kept.all():
        assert np.abs(before[kept]).min() >= np.abs(before[~kept]).max()


@given(layered(ties=True), st.floats(0.0, 0.999))
def test_ties_are_broken_by_index(network: Network, sparsity: float) -> None:
    before, after = flat(network), flat(uncapped(network, sparsity))
    order = np.argsort(np.abs(before), kind="stable")
    expected = before.copy()
    expected[order[: round(sparsity * before.size)]] = 0.0
    assert (after == expected).all()


@given(layered(), st.floats(0.0, 0.999))
def test_by_layer_every_layer_gets_the_same_sparsity(network: Network, sparsity: float) -> None:
    pruned = uncapped(network, sparsity, scope="layer")
    for before, after in zip(dense(network), dense(pruned), strict=True):
        zeros = max(round(sparsity * before.size), int((before == 0.0).sum()))
        assert int((after == 0.0).sum()) == zeros


@given(
    layered(),
    st.floats(0.0, 0.95),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.sampled_from(["global", "layer"]),
)
def test_caps_hold(
    network: Network, sparsity: float, column: float, row: float, layer: float, scope: str
) -> None:
    try:
        pruned = prune(
            network,
            sparsity,
            scope=scope,
            max_column_sparsity=column,
            max_row_sparsity=row,
            max_layer_sparsity=layer,
        )
    except InputError:  # the caps allow less, see below
        assume(False)
    for q, before, after in zip(network.projections, dense(network), dense(pruned), strict=True):
        kept = after != 0.0
        assert (after[kept] == before[kept]).all()
        limits = [(kept.reshape(1, -1), before.reshape(1, -1), layer)]
        if q.source == "input":
            limits.append((kept.T, before.T, column))
        if q.target == "output":
            limits.append((kept, before, row))
        for group, weights, cap in limits:
            keep = math.ceil((1.0 - cap) * group.shape[1] - 1e-9)
            alive = (weights != 0.0).sum(axis=1)
            assert (group.sum(axis=1) >= np.minimum(keep, alive)).all()
            # Those that stay for the cap's sake are the largest.
            for mask, w in zip(group, np.abs(weights), strict=True):
                largest = np.argsort(-w, kind="stable")[: min(keep, int((w > 0).sum()))]
                assert mask[largest].all()
    if scope == "global":
        zeros = max(round(sparsity * flat(network).size), int((flat(network) == 0.0).sum()))
        assert int((flat(pruned) == 0.0).sum()) == zeros


@given(layered(), st.floats(0.0, 0.99), st.data())
def test_the_sparsity_that_the_message_names_works(
    network: Network, sparsity: float, data: st.DataObject
) -> None:
    caps = {
        name: data.draw(st.floats(0.0, 1.0))
        for name in ("max_column_sparsity", "max_row_sparsity", "max_layer_sparsity")
    }
    try:
        prune(network, sparsity, **caps)
    except InputError as error:
        allowed = float(str(error).split("no more than ")[1].split(";")[0])
        prune(network, allowed, **caps)
    else:
        assume(False)


def test_caps_save_an_input_of_small_scale() -> None:
    rng = np.random.default_rng(3)
    first = rng.normal(size=(16, 3))
    first[:, 1] *= 1e-3
    network = Network.from_arrays([first, rng.normal(size=(2, 16))])
    column = dense(uncapped(network, 0.5))[0][:, 1]
    assert not column.any()
    saved = dense(prune(network, 0.5))[0][:, 1]
    assert (saved != 0.0).sum() == 4  # (1 - (1 + 0.5) / 2) of 16
    assert set(np.flatnonzero(saved)) == set(np.argsort(-np.abs(first[:, 1]))[:4])


def test_caps_leave_no_layer_empty() -> None:
    rng = np.random.default_rng(4)
    network = Network.from_arrays(
        [rng.normal(size=(8, 4)), 1e-3 * rng.normal(size=(8, 8)), rng.normal(size=(2, 8))]
    )
    assert uncapped(network, 0.6).projections[1].weights.n_synapses == 0
    assert prune(network, 0.6).projections[1].weights.n_synapses == 13  # ceil(0.2 * 64)


def test_what_is_not_weights_stays() -> None:
    rng = np.random.default_rng(5)
    network = Network.from_arrays(
        [rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(3, 6))],
        [rng.normal(size=6), rng.normal(size=3)],
        "tanh",
        [0.1, 0.2],
    )
    pruned = prune(network, 0.7)
    assert pruned.dense_macs() == network.dense_macs() == 42
    assert connection_sparsity(pruned) == pytest.approx(round(0.7 * 42) / 42)
    assert pruned.populations == network.populations
    assert [q.weights.dtype for q in pruned.projections] == [np.float32, np.float64]
    assert prune(pruned, 0.7).n_synapses == pruned.n_synapses


def test_weights_that_are_zero_already_count() -> None:
    network = Network.from_arrays([np.array([[0.0, 0.0, 1.0, 2.0]])])
    assert dense(prune(network, 0.25))[0].tolist() == [[0.0, 0.0, 1.0, 2.0]]
    assert dense(uncapped(network, 0.75))[0].tolist() == [[0.0, 0.0, 0.0, 2.0]]


def test_excluded_projections_are_neither_pruned_nor_counted() -> None:
    network = Network.from_arrays([np.full((4, 2), 0.1), np.full((4, 4), 5.0)])
    pruned = uncapped(network, 0.5, exclude=["input->hidden1"])
    assert pruned.projections[0] is network.projections[0]
    assert pruned.projections[1].weights.n_synapses == 8
    assert uncapped(network, 0.5, exclude="input->hidden1").n_synapses == pruned.n_synapses
    everything = [q.name for q in network.projections]
    assert prune(network, 0.9, exclude=everything).n_synapses == network.n_synapses


def test_importance_takes_the_place_of_magnitude() -> None:
    network = Network.from_arrays([np.array([[1.0, 2.0], [3.0, 4.0]])])
    pruned = uncapped(network, 0.5, importance={"input->output": [[4.0, 3.0], [2.0, 1.0]]})
    assert dense(pruned)[0].tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_input_importance_by_hand() -> None:
    network = Network.from_arrays(
        [np.array([[1.0, -2.0]]), np.array([[3.0]])], [[0.0], [1.0]], "relu"
    )
    x = np.array([[3.0, 1.0], [1.0, 1.0]])
    found = input_importance(network, x)
    assert found["input->hidden1"] == pytest.approx(np.array([[np.sqrt(5.0), 2.0]]))
    assert found["hidden1->output"] == pytest.approx(np.array([[3.0 * np.sqrt(0.5)]]))


def test_skips_delays_and_several_outputs() -> None:
    rng = np.random.default_rng(6)
    populations = (
        Population("x", 5, Input()),
        Population("h", 7, Delta("tanh")),
        Population("y", 3, Delta()),
        Population("z", 2, Delta()),
    )
    projections = (
        Projection("x", "h", rng.normal(size=(7, 5))),
        Projection("h", "h", rng.normal(size=(7, 7)), 2),
        Projection("h", "y", rng.normal(size=(3, 7))),
        Projection("x", "y", 1e-6 * rng.normal(size=(3, 5)), 1, name="skip"),
        Projection("h", "z", rng.normal(size=(2, 7))),
    )
    pruned = prune(Network(populations, projections, ("y", "z")), 0.8)
    weights = {q.name: q.weights.to_dense() for q in pruned.projections}
    assert (weights["skip"] != 0.0).any(axis=0).all()  # columns of an input
    for name in ("h->y", "skip", "h->z"):
        assert (weights[name] != 0.0).any(axis=1).all()  # rows of an output
    assert [q.delay for q in pruned.projections] == [0, 2, 0, 1, 0]


def test_packs_sparse_where_that_is_smaller() -> None:
    w = np.zeros((64, 64), np.float32)
    w.flat[:1300] = 1.0
    assert packed(w).kind == "sparse"
    w.flat[:1400] = 1.0
    assert packed(w) is w
    x = np.random.default_rng(0).normal(size=(5, 4))
    network = Network.from_arrays([np.random.default_rng(1).normal(size=(50, 4))])
    pruned = prune(network, 0.7)
    assert pruned.projections[0].weights.kind == "sparse"
    expected = x @ pruned.projections[0].weights.to_dense().T
    assert DenseForward(pruned).run(x) == pytest.approx(expected)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, 1.5, float("nan")])
def test_refuses_a_sparsity_out_of_range(sparsity: float) -> None:
    network = Network.from_arrays([np.ones((2, 2))])
    with pytest.raises(InputError, match=r"'sparsity': is .*give a number at least 0 and below"):
        prune(network, sparsity)


@pytest.mark.parametrize("name", ["max_column_sparsity", "max_row_sparsity", "max_layer_sparsity"])
@pytest.mark.parametrize("cap", [-0.1, 1.1, float("nan")])
def test_refuses_a_cap_out_of_range(name: str, cap: float) -> None:
    with pytest.raises(InputError, match=f"'{name}': is .*; give a number from 0 to 1"):
        prune(Network.from_arrays([np.ones((2, 2))]), 0.5, **{name: cap})


def test_refuses_what_makes_no_sense() -> None:
    network = Network.from_arrays([np.ones((4, 4)), np.ones((2, 4))])
    with pytest.raises(InputError, match="scope"):
        prune(network, 0.5, scope="rows")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"exclude.*'nothing'; there are: hidden1->output"):
        prune(network, 0.5, exclude=["nothing"])
    with pytest.raises(UnknownNameError, match="importance"):
        prune(network, 0.5, importance={"nothing": np.ones(2)})
    with pytest.raises(InputError, match=r"has shape \(2,\), expected \(4, 4\)"):
        prune(network, 0.5, importance={"input->hidden1": np.ones(2)})
    with pytest.raises(InputError, match="give numbers >= 0"):
        prune(network, 0.5, importance={"input->hidden1": -np.ones((4, 4))})
    with pytest.raises(InputError, match=r"projection 'input->hidden1'.*no more than 0\.25"):
        prune(network, 0.9, scope="layer", max_column_sparsity=0.5, max_layer_sparsity=0.25)


def test_refuses_more_than_the_caps_allow() -> None:
    network = Network.from_arrays([np.ones((4, 4)) + np.eye(4)])
    with pytest.raises(InputError, match=r"is 0\.9, but the caps .* allow no more than 0\.75"):
        prune(network, 0.9, max_row_sparsity=0.75, max_column_sparsity=0.75, max_layer_sparsity=1.0)


def test_erk_gives_the_whole_its_sparsity_and_small_layers_more() -> None:
    network = Network.from_arrays([np.ones((64, 4)), np.ones((64, 64)), np.ones((2, 64))])
    shares = erk_sparsities(network, 0.9)
    cut = sum(shares[q.name] * q.weights.n_positions for q in network.projections)
    assert cut == pytest.approx(0.9 * sum(q.weights.n_positions for q in network.projections))
    assert shares["hidden1->hidden2"] > shares["input->hidden1"]
    assert min(shares.values()) >= 0.0


def test_the_polynomial_schedule_is_monotone_and_ends_where_it_shall() -> None:
    values = [polynomial_sparsity(k, 10, 0.9, 0.3) for k in range(11)]
    assert values[0] == pytest.approx(0.3)
    assert values[-1] == pytest.approx(0.9)
    assert values == sorted(values)
    with pytest.raises(InputError, match="step"):
        polynomial_sparsity(11, 10, 0.9)


def test_a_lottery_ticket_has_the_mask_of_one_and_the_weights_of_the_other() -> None:
    rng = np.random.default_rng(0)
    initial = Network.from_arrays([rng.normal(size=(5, 4)), rng.normal(size=(2, 5))])
    trained = Network.from_arrays([rng.normal(size=(5, 4)), rng.normal(size=(2, 5))])
    ticket = rewind(uncapped(trained, 0.5), initial)
    for q, p, w in zip(
        ticket.projections, uncapped(trained, 0.5).projections, dense(initial), strict=True
    ):
        np.testing.assert_array_equal(
            q.weights.to_dense(), np.where(p.weights.to_dense() != 0, w, 0)
        )
    with pytest.raises(InputError, match="other projections"):
        rewind(trained, Network.from_arrays([np.ones((3, 4))]))
