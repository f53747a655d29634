"""The dense baseline, against plain formulas and torch."""

from __future__ import annotations

import numpy as np
import pytest

from eventsim.dense import DenseForward
from eventsim.errors import InputError
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input


def test_equals_torch_on_a_perceptron(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    layers = [torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)]
    model = torch.nn.Sequential(*layers).double()
    network = Network.from_arrays(
        [layers[0].weight.detach().numpy(), layers[2].weight.detach().numpy()],
        [layers[0].bias.detach().numpy(), layers[2].bias.detach().numpy()],
        "tanh",
    )
    x = rng.normal(size=(7, 5))
    with torch.no_grad():
        expected = model(torch.as_tensor(x)).numpy()
    np.testing.assert_allclose(DenseForward(network).run(x), expected, rtol=1e-12)


def test_delays_and_feedback_follow_the_recurrence(rng: np.random.Generator) -> None:
    w, v = rng.normal(size=(3, 2)), 0.5 * rng.normal(size=(3, 3))
    network = Network(
        (Population("x", 2, Input()), Population("h", 3, Delta("tanh", 0.1))),
        (Projection("x", "h", w, delay=2), Projection("h", "h", v, delay=1)),
        ("h",),
    )
    x = rng.normal(size=(6, 2))
    h, expected = np.zeros(3), []
    for t in range(6):
        u = np.full(3, 0.1) + (v @ h if t >= 1 else 0) + (w @ x[t - 2] if t >= 2 else 0)
        h = np.tanh(u)
        expected.append(h)
    dense = DenseForward(network)
    np.testing.assert_allclose(dense.run(x), expected, rtol=1e-12)
    dense.reset()
    over = dense.activations_over(x)
    np.testing.assert_allclose(over["h"], expected, rtol=1e-12)
    np.testing.assert_array_equal(over["x"], x)


def test_bad_inputs_are_refused() -> None:
    dense = DenseForward(Network.from_arrays([np.ones((1, 2))]))
    with pytest.raises(InputError, match=r"expected \(2,\)"):
        dense.step([1.0])
    with pytest.raises(InputError, match="NaN"):
        dense.step([1.0, np.nan])
    assert dense.run(np.zeros((0, 2))).shape == (0, 1)
