"""Fixed point: bits that do not drift, the bound of the rounding, sizes by hand, clear errors."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from eventsim.dense import DenseForward
from eventsim.errors import InputError, NetworkError, UnsupportedError
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder, FixedPoint
from eventsim.models.policy import Policy
from eventsim.models.quantization import quantize, size_bytes
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input, Quantized, activation
from eventsim.simulator import Simulator
from tests.test_engines import FAST, assert_equal_to_reference


def make(
    sizes: tuple[int, ...] = (5, 12, 9, 3),
    seed: int = 0,
    f: str = "tanh",
    kept: float = 0.6,
    threshold: float = 0.0,
) -> Policy:
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(size=(m, n)) * (rng.random((m, n)) < kept) / np.sqrt(n)
        for n, m in itertools.pairwise(sizes)
    ]
    biases = [rng.normal(size=m) for m in sizes[1:]]
    network = Network.from_arrays(weights, biases, f, threshold)
    return Policy(Encoder(BoxSpec((sizes[0],))), network, Argmax(sizes[-1]))


def steps_of(policy: Policy, name: str) -> np.ndarray:
    """Steps of what a population sends."""
    population = policy.network[name]
    if isinstance(population.neuron, Delta):
        assert isinstance(population.neuron.activation, Quantized)
        return np.full(population.size, population.neuron.activation.quantum)
    assert policy.encoder.fixed_point is not None
    return np.asarray(policy.encoder.fixed_point.quanta)


def walk(steps: int, n: int, seed: int = 0) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).normal(size=(steps, n)) * 0.1, axis=0)


@given(
    st.sampled_from(["tanh", "relu", "sigmoid", "identity"]),
    st.sampled_from([2, 4, 8]),
    st.integers(3, 16),
    st.integers(0, 1000),
)
@settings(max_examples=25)
def test_by_events_it_is_the_dense_pass_bit_for_bit(
    f: str, weight_bits: int, activation_bits: int, seed: int
) -> None:
    policy = make(f=f, seed=seed)
    x = walk(300, 5, seed)
    fixed = quantize(policy, weight_bits, x, activation_bits=activation_bits)
    inputs = fixed.encoder.encode_batch(x)
    dense = DenseForward(fixed.network)
    simulator = Simulator(fixed.network)
    expected = np.array([dense.step(row) for row in inputs])
    np.testing.assert_array_equal(simulator.run(inputs), expected)
    # Order does not matter to sums without rounding, nor does what was added and taken away.
    np.testing.assert_array_equal(simulator.run(inputs[::-1]), expected[::-1])


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("f", ["tanh", "relu"])
def test_engines_agree_on_a_quantised_network(engine: str, f: str) -> None:
    policy = make((5, 90, 70, 3), f=f, threshold=0.05)
    x = walk(60, 5)
    fixed = quantize(policy, 8, x, activation_bits=6)
    assert_equal_to_reference(fixed.network, fixed.encoder.encode_batch(x), engine)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_integers_of_few_bits_times_a_power_of_two(bits: int) -> None:
    fixed = quantize(make(), bits, walk(50, 5))
    for q in fixed.network.projections:
        for row in q.weights.to_dense() * steps_of(fixed, q.source):
            if not row.any():
                continue
            scale = 2.0 ** np.floor(np.log2(np.abs(row).max()))
            integers = row / scale * 2 ** (bits - 2)
            np.testing.assert_array_equal(integers, np.rint(integers))
            assert np.abs(integers).max() <= 2 ** (bits - 1) - 1


def test_rounding_is_within_half_a_step_unless_it_saturates() -> None:
    policy = make(kept=1.0)
    fixed = quantize(policy, 8, walk(50, 5))
    for q, p in zip(policy.network.projections, fixed.network.projections, strict=True):
        w = q.weights.to_dense() * steps_of(fixed, q.source)
        largest = np.abs(w).max(axis=1, keepdims=True)
        step = 2.0 ** np.ceil(np.log2(largest / 127))
        error = np.abs(p.weights.to_dense() * steps_of(fixed, q.source) - w)
        assert (np.square(error).sum(axis=1) <= np.square(0.5 * step[:, 0]) * w.shape[1]).all()


def test_many_bits_change_little() -> None:
    policy = make()
    x = walk(200, 5)
    fixed = quantize(policy, 16, x, activation_bits=20)
    got = Simulator(fixed.network).run(fixed.encoder.encode_batch(x))
    np.testing.assert_allclose(got, Simulator(policy.network).run(x), atol=2e-3)


def test_an_input_of_small_range_keeps_its_say() -> None:
    network = Network.from_arrays([np.array([[1.0, 500.0]])])
    policy = Policy(Encoder(BoxSpec((2,))), network, Argmax(1))
    x = walk(100, 2) * [10.0, 0.02]
    fixed = quantize(policy, 8, x)
    got = Simulator(fixed.network).run(fixed.encoder.encode_batch(x))[:, 0]
    np.testing.assert_allclose(got, x @ [1.0, 500.0], atol=0.02 * np.abs(x @ [1.0, 500.0]).max())


def test_sparse_weights_stay_sparse() -> None:
    w = sparse.random_array((6, 5), density=0.4, rng=np.random.default_rng(0))
    network = Network(
        (Population("x", 5, Input()), Population("y", 6, Delta())), (Projection("x", "y", w),)
    )
    policy = Policy(Encoder(BoxSpec((5,))), network, Argmax(6))
    fixed = quantize(policy, 8, walk(20, 5))
    dense = Network.from_arrays([w.toarray()])
    other = quantize(Policy(policy.encoder, dense, policy.decoder), 8, walk(20, 5))
    assert fixed.network.projections[0].weights.kind == "sparse"
    np.testing.assert_array_equal(
        fixed.network.projections[0].weights.to_dense(),
        other.network.projections[0].weights.to_dense(),
    )


def test_thresholds_on_the_grid_decide_alike() -> None:
    policy = make(threshold=0.07)
    x = walk(200, 5)
    fixed = quantize(policy, 8, x)
    unrounded = fixed.network.with_thresholds(0.07)
    inputs = fixed.encoder.encode_batch(x)
    first, second = Simulator(fixed.network), Simulator(unrounded)
    np.testing.assert_array_equal(first.run(inputs), second.run(inputs))
    np.testing.assert_array_equal(first.totals.table, second.totals.table)


def test_a_quantised_policy_comes_back_from_its_file(tmp_path: Path) -> None:
    policy = quantize(make(threshold=0.02), 4, walk(100, 5))
    policy.save(tmp_path / "p.safetensors")
    again = Policy.load(tmp_path / "p.safetensors")
    assert again.metadata["weight_bits"] == 4
    x = walk(50, 5, 1)
    np.testing.assert_array_equal(again.encoder.encode_batch(x), policy.encoder.encode_batch(x))
    for a, b in zip(again.network.populations, policy.network.populations, strict=True):
        if isinstance(a.neuron, Delta) and isinstance(b.neuron, Delta):
            assert a.neuron.activation == b.neuron.activation
    np.testing.assert_array_equal(again.encoder.encode(x[0]), again.encoder.encode_batch(x)[0])


def test_the_size_by_hand() -> None:
    w1 = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0], [3.0, 0.0]])
    network = Network.from_arrays([w1, np.ones((1, 4))], thresholds=[0.1, 0.2])
    size = size_bytes(network)
    assert size.dense == 4 * 12 + 4 * 5
    # 3 weights; places by the bitmap, 8 bits (indices: 3 x 2 + 2 x 3 bits, more); 4 weights
    # without gaps; biases of hidden 0, 1, 3 and the third, which feeds the output; thresholds one
    # a layer.
    assert size.sparse == (3 * 32 + 8 + 4 * 32) // 8 + 4 * (4 + 1) + 4 * 2
    assert size_bytes(network, 8).dense == 12 + 5 * 5


def test_values_beyond_the_recorded_range_saturate() -> None:
    fixed = quantize(make(), 8, walk(50, 5))
    high = fixed.encoder.encode(np.full(5, 1e6))
    assert fixed.encoder.fixed_point is not None
    np.testing.assert_array_equal(high, 127 * fixed.encoder.fixed_point.quanta)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"weight_bits": 1}, "weight_bits': is 1; give a whole number from 2 to 16"),
        ({"activation_bits": 40}, "activation_bits"),
        ({"input_bits": True}, "input_bits"),
    ],
)
def test_bits_out_of_range_are_refused(options: dict[str, int], match: str) -> None:
    with pytest.raises(InputError, match=match):
        quantize(make(), inputs=walk(5, 5), **options)


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="record some"):
        quantize(make())
    with pytest.raises(UnsupportedError, match="without parameters"):
        quantize(make(f="elu"), 8, walk(5, 5))
    with pytest.raises(UnsupportedError, match="fewer activation_bits"):
        quantize(make((5, 900, 3)), 16, walk(50, 5), activation_bits=32)
    with pytest.raises(InputError, match="has 2 values for 5 network inputs"):
        Encoder(BoxSpec((5,)), fixed_point=FixedPoint([0.5, 0.5], 8))
    with pytest.raises(InputError, match="quanta"):
        FixedPoint([0.0], 8)
    with pytest.raises(InputError, match="levels"):
        FixedPoint([0.5], 0)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"base": "clip"}, "without parameters"),
        ({"quantum": 0.3}, "power of two"),
        ({"quantum": -0.5}, "power of two"),
        ({"levels": 0}, "levels"),
    ],
)
def test_a_bad_fixed_point_activation_is_refused(fields: dict[str, object], match: str) -> None:
    with pytest.raises(NetworkError, match=match):
        activation({"name": "quantized", **fields})


def test_the_fixed_point_activation_rounds_and_saturates() -> None:
    f = Quantized("identity", 0.25, 8)
    np.testing.assert_array_equal(
        f([0.1, 0.125, 0.375, 0.3, 5.0, -5.0]), [0.0, 0.0, 0.5, 0.25, 1.75, -2.0]
    )


def test_the_gradient_passes_the_rounding() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    from eventsim.models.quantization import straight_through

    w = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    straight_through(w, 8).sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), np.ones((4, 6)))
    fixed = quantize(
        Policy(Encoder(BoxSpec((6,))), Network.from_arrays([w.detach().numpy()]), Argmax(4)),
        8,
        walk(10, 6),
    )
    rounded = straight_through(w, 8, steps_of(fixed, "input"))
    np.testing.assert_array_equal(
        rounded.detach().numpy(), fixed.network.projections[0].weights.to_dense()
    )
