"""Activations: NumPy form, kernel form and Lipschitz constant against each other and torch."""

from __future__ import annotations

import numpy as np
import pytest

from eventsim.kernels.activations import activate
from eventsim.neurons import (
    ACTIVATIONS,
    ELU,
    GELU,
    Activation,
    Clip,
    Delta,
    LeakyReLU,
    Quantized,
    activation,
)

pytestmark = pytest.mark.nojit

ALL = [cls() for cls in ACTIVATIONS.values()] + [
    LeakyReLU(0.3),
    LeakyReLU(-2.0),
    ELU(1.7),
    GELU(approximate=True),
    Clip(-0.5, 2.0),
    Quantized("tanh", 2.0**-5, 2**4),
]
U = np.concatenate([np.linspace(-8, 8, 4001), [-745.0, -30.0, 0.0, -0.0, 30.0, 700.0]])


@pytest.mark.parametrize("f", ALL, ids=str)
def test_kernel_and_numpy_forms_agree(f: Activation) -> None:
    kernel = np.array([activate(f.code, *f.parameters, float(u)) for u in U])
    np.testing.assert_allclose(kernel, f(U), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("f", [f for f in ALL if not isinstance(f, Quantized)], ids=str)
def test_the_lipschitz_constant_holds_and_is_tight(f: Activation) -> None:
    u = np.linspace(-8, 8, 200_001)
    slope = np.abs(np.diff(f(u)) / np.diff(u)).max()
    assert slope <= f.lipschitz * (1 + 1e-9)
    assert slope >= f.lipschitz * 0.999


@pytest.mark.parametrize("base", ["tanh", "sigmoid", "relu"])
def test_fixed_point_moves_by_a_quantum_more_at_most(base: str) -> None:
    u = np.linspace(-8, 8, 20_001)
    f = Quantized(base, 2.0**-4, 2**7)
    moved = np.abs(np.diff(f(u)))
    assert (moved <= f.lipschitz * np.diff(u) + f.quantum).all()


@pytest.mark.parametrize("f", ALL, ids=str)
def test_plain_data_rebuilds_the_activation(f: Activation) -> None:
    assert activation(f.to_dict()) == f
    assert activation(f) is f
    assert type(activation(f.name)) is type(f)


def test_codes_are_distinct() -> None:
    assert len({cls.code for cls in ACTIVATIONS.values()}) == len(ACTIVATIONS)
    assert np.isnan(activate(99, 0.0, 0.0, 1.0))


def test_activations_equal_those_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    functional = torch.nn.functional
    u = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    pairs = {
        ELU(1.7): functional.elu(u, 1.7),
        LeakyReLU(0.3): functional.leaky_relu(u, 0.3),
        GELU(): functional.gelu(u),
        GELU(approximate=True): functional.gelu(u, approximate="tanh"),
        Clip(-0.5, 2.0): functional.hardtanh(u, -0.5, 2.0),
        activation("relu"): functional.relu(u),
        activation("tanh"): torch.tanh(u),
        activation("sigmoid"): torch.sigmoid(u),
        activation("softplus"): functional.softplus(u, threshold=100),
        activation("silu"): functional.silu(u),
    }
    for f, expected in pairs.items():
        np.testing.assert_allclose(f(u.numpy()), expected.numpy(), rtol=1e-12, atol=1e-14)


def test_parameters_are_read_only_copies() -> None:
    bias = np.zeros(3)
    neuron = Delta("relu", bias, 0.1)
    bias[:] = 5.0
    assert isinstance(neuron.bias, np.ndarray)
    assert neuron.bias.max() == 0.0
    assert neuron.threshold == 0.1
