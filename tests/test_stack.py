"""Networks built layer by layer; test_torch_modules.py compares with torch."""

from __future__ import annotations

import numpy as np
import pytest

from eventsim.dense import DenseForward
from eventsim.errors import NetworkError, UnsupportedError
from eventsim.neurons import Delta
from eventsim.stack import Stack, channels_last


def test_linear_columns_are_in_torchs_order() -> None:
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(3, 4, 5)), rng.normal(size=(2, 60))
    network = Stack((3, 4, 5)).flatten().linear(weights).network()
    np.testing.assert_allclose(
        DenseForward(network).step(channels_last(x).ravel()), weights @ x.ravel()
    )


def test_the_scale_goes_into_the_first_weights_alone() -> None:
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(2, 1, 2, 2)).astype(np.float32), rng.normal(size=(3, 8))]
    networks = [
        Stack((1, 3, 3), scale=scale).convolution(weights[0]).flatten().linear(weights[1]).network()
        for scale in (1.0, 1.0 / 255.0)
    ]
    assert networks[1].projections[0].weights.dtype == np.float32
    np.testing.assert_array_equal(
        networks[0].projections[1].weights.to_dense(), networks[1].projections[1].weights.to_dense()
    )
    x = rng.integers(0, 256, 9).astype(np.float64)
    np.testing.assert_allclose(
        DenseForward(networks[1]).step(x), DenseForward(networks[0]).step(x / 255.0), rtol=1e-6
    )


def test_one_bias_a_channel_and_thresholds_by_name() -> None:
    stack = Stack((2, 3)).convolution(np.ones((2, 2, 2)), [1.0, 2.0]).activation("tanh")
    network = stack.flatten().linear(np.ones((1, 4))).network({"conv1": 0.5}, "small")
    conv = network["conv1"]
    assert conv.shape == (1, 2, 2)
    np.testing.assert_array_equal(conv.parameter("bias"), [1.0, 2.0, 1.0, 2.0])
    np.testing.assert_array_equal(conv.parameter("threshold"), np.full(4, 0.5))
    assert isinstance(conv.neuron, Delta)
    assert conv.neuron.activation.name == "tanh"
    assert network.name == "small"


def test_names_what_does_not_fit() -> None:
    with pytest.raises(NetworkError, match="flatten it first"):
        Stack((1, 2, 2)).linear(np.ones((1, 4)))
    with pytest.raises(NetworkError, match="needs a picture"):
        Stack((4,)).convolution(np.ones((1, 1, 1, 1)))
    with pytest.raises(NetworkError, match="gives 4"):
        Stack((1, 2, 2)).flatten().linear(np.ones((1, 5)))
    with pytest.raises(NetworkError, match="axes"):
        Stack((1, 2, 2)).convolution(np.ones((1, 1, 2)))
    with pytest.raises(NetworkError, match="bias"):
        Stack((1, 2, 2)).convolution(np.ones((1, 1, 2, 2)), [1.0, 2.0])
    with pytest.raises(NetworkError, match="no layers"):
        Stack((4,)).network()
    with pytest.raises(NetworkError, match="shape"):
        Stack((1, 2, 3, 4))
    with pytest.raises(UnsupportedError, match="another activation"):
        Stack((4,)).linear(np.ones((1, 4))).activation("relu").activation("tanh")
    with pytest.raises(UnsupportedError, match="max_pool"):
        Stack((1, 2, 2)).convolution(np.ones((1, 1, 1, 1))).max_pool(2).activation("silu")
    with pytest.raises(UnsupportedError, match="input"):
        Stack((4,)).activation("relu")
    with pytest.raises(UnsupportedError, match="padding"):
        Stack((1, 4, 4)).convolution(np.ones((1, 1, 2, 2)), padding="same", stride=2)
