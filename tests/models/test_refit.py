"""Refitting mends what pruning broke, and only that."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from eventsim import DenseForward, Network
from eventsim.errors import InputError, NetworkError
from eventsim.models.activity import activity
from eventsim.models.pruning import connection_sparsity, prune
from eventsim.models.refit import prune_and_refit, refit


def teacher(
    rng: np.random.Generator, dtype: type = np.float64, activation: str = "relu"
) -> Network:
    sizes = (4, 24, 24, 3)
    return Network.from_arrays(
        [(rng.normal(size=(m, n)) / np.sqrt(n)).astype(dtype) for n, m in pairwise(sizes)],
        [rng.normal(size=m) for m in sizes[1:]],
        activation,
        thresholds=[0.1, 0.2, 0.3],
    )


def error(network: Network, other: Network, x: np.ndarray) -> float:
    return float(((DenseForward(network).run(x) - DenseForward(other).run(x)) ** 2).mean())


def test_is_the_least_squares_solution(rng: np.random.Generator) -> None:
    whole = Network.from_arrays([rng.normal(size=(2, 5))], [rng.normal(size=2)])
    cut = prune(whole, 0.4, max_column_sparsity=1.0)
    x = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    mended = refit(cut, whole, x, ridge=0.0)
    weights = mended.projections[0].weights.to_dense()
    targets = DenseForward(whole).run(x)
    for j in range(2):
        alive = np.flatnonzero(cut.projections[0].weights.to_dense()[j])
        columns = np.column_stack([x[:, alive], np.ones(len(x))])
        expected = np.linalg.lstsq(columns, targets[:, j], rcond=None)[0]
        assert weights[j, alive] == pytest.approx(expected[:-1])
        assert mended["output"].parameter("bias")[j] == pytest.approx(expected[-1])


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_beats_pruning_alone(rng: np.random.Generator, activation: str) -> None:
    whole = teacher(rng, activation=activation)
    x, fresh = rng.normal(size=(2, 500, 4))
    cut = prune(whole, 0.6)
    mended = refit(cut, whole, x)
    rounds = prune_and_refit(whole, 0.6, x)
    before, after = error(cut, whole, fresh), error(mended, whole, fresh)
    assert after < 0.5 * before
    assert error(rounds, whole, fresh) < after
    assert connection_sparsity(rounds) == connection_sparsity(cut)


def test_an_unpruned_network_stays(rng: np.random.Generator) -> None:
    whole = teacher(rng)
    x = rng.normal(size=(100, 4))
    same = refit(whole, whole, x)
    for a, b in zip(same.projections, whole.projections, strict=True):
        assert a.weights.to_dense() == pytest.approx(b.weights.to_dense(), abs=1e-12)
    assert error(same, whole, x) < 1e-20


@given(st.data())
def test_keeps_zeros_thresholds_and_dense_macs(data: st.DataObject) -> None:
    whole = data.draw(strategies.networks(max_threshold=0.5))
    inputs = [data.draw(strategies.inputs(whole)) for _ in range(2)]
    names = {q.name for q in whole.projections}
    cut = prune(
        whole,
        0.5,
        max_column_sparsity=1.0,
        max_row_sparsity=1.0,
        max_layer_sparsity=1.0,
        exclude=set(data.draw(st.lists(st.sampled_from(sorted(names)), max_size=1))),
    )
    mended = refit(cut, whole, inputs)
    assert mended.dense_macs() == whole.dense_macs()
    for a, b in zip(mended.projections, cut.projections, strict=True):
        zero = b.weights.to_dense() == 0.0
        assert not a.weights.to_dense()[zero].any()
        assert a.weights.dtype == b.weights.dtype
    for p in whole.populations:
        assert mended[p.name].parameter("threshold").tolist() == p.parameter("threshold").tolist()
    # Every neuron's pre-activation has the teacher's mean, feedback and rounding aside.
    if not any(q.delay for q in whole.projections):
        wanted, found = activity(whole, inputs), activity(mended, inputs)
        for q in whole.projections:
            scale = 1.0 + np.abs(wanted.pre_activations[q.target]).max()
            assert found.pre_activations[q.target].mean(axis=0) / scale == pytest.approx(
                wanted.pre_activations[q.target].mean(axis=0) / scale, abs=1e-6
            )


def test_a_neuron_without_inputs_gets_the_mean(rng: np.random.Generator) -> None:
    whole = Network.from_arrays([np.array([[1.0, 2.0], [3.0, 4.0]])])
    cut = whole.with_weights({"input->output": np.array([[0.0, 0.0], [3.0, 4.0]])})
    x = rng.normal(size=(30, 2))
    mended = refit(cut, whole, x)
    assert mended.projections[0].weights.to_dense()[0].tolist() == [0.0, 0.0]
    assert mended["output"].parameter("bias")[0] == pytest.approx((x @ [1.0, 2.0]).mean())


def test_inputs_that_never_move_keep_their_weights() -> None:
    whole = Network.from_arrays([np.array([[1.0, 2.0, 4.0]])])
    cut = whole.with_weights({"input->output": np.array([[1.0, 2.0, 0.0]])})
    x = np.array([[1.0, 5.0, 1.0], [2.0, 5.0, 2.0], [3.0, 5.0, 3.0]])
    mended = refit(cut, whole, x)
    assert mended.projections[0].weights.to_dense()[0] == pytest.approx([5.0, 2.0, 0.0], rel=1e-3)
    assert DenseForward(mended).run(x) == pytest.approx(DenseForward(whole).run(x), rel=1e-3)


def test_float32_and_repeat(rng: np.random.Generator) -> None:
    whole = teacher(rng, np.float32)
    x = rng.normal(size=(200, 4))
    first, again = (prune_and_refit(whole, 0.8, x) for _ in range(2))
    for a, b in zip(first.projections, again.projections, strict=True):
        assert a.weights.dtype == np.float32
        assert (a.weights.to_dense() == b.weights.to_dense()).all()


def test_rounds_reach_the_sparsity_exactly(rng: np.random.Generator) -> None:
    whole = teacher(rng)
    x = rng.normal(size=(50, 4))
    total = sum(q.weights.n_positions for q in whole.projections)
    for sparsity in (0.0, 0.3, 0.77):
        found = prune_and_refit(whole, sparsity, x, rounds=3)
        assert total - found.n_synapses == round(sparsity * total)
    further = prune_and_refit(found, 0.9, x, teacher=whole, rounds=2)
    assert total - further.n_synapses == round(0.9 * total)
    assert prune_and_refit(further, 0.5, x, teacher=whole).n_synapses == further.n_synapses


def test_steps_may_count_differently(rng: np.random.Generator) -> None:
    whole = teacher(rng)
    cut = prune(whole, 0.6)
    x = rng.normal(size=(60, 4))
    counts = rng.integers(0, 3, 60)
    weighted = refit(cut, whole, x, step_weights=counts)
    repeated = refit(cut, whole, np.repeat(x, counts, axis=0))
    for a, b in zip(weighted.projections, repeated.projections, strict=True):
        assert a.weights.to_dense() == pytest.approx(b.weights.to_dense(), rel=1e-6, abs=1e-9)
    even = prune_and_refit(whole, 0.6, x, step_weights=np.full(60, 7.0))
    plain = prune_and_refit(whole, 0.6, x)
    assert even.projections[0].weights.to_dense() == pytest.approx(
        plain.projections[0].weights.to_dense()
    )


def test_refuses_what_makes_no_sense(rng: np.random.Generator) -> None:
    whole = teacher(rng)
    other = Network.from_arrays([np.ones((3, 4))])
    x = rng.normal(size=(5, 4))
    with pytest.raises(NetworkError, match="refit what was pruned from this teacher"):
        refit(whole, other, x)
    with pytest.raises(InputError, match="ridge"):
        refit(whole, whole, x, ridge=-1.0)
    with pytest.raises(InputError, match="expected"):
        refit(whole, whole, x[:, :2])
    for weights in (np.ones(4), -np.ones(5), np.zeros(5), np.full(5, np.nan)):
        with pytest.raises(InputError, match="step_weights"):
            refit(whole, whole, x, step_weights=weights)
    with pytest.raises(InputError, match="rounds"):
        prune_and_refit(whole, 0.5, x, rounds=0)
