"""Sequential modules of torch: the outputs of their own forward pass."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import eventsim
from eventsim.errors import UnsupportedError
from eventsim.stack import channels_last

torch = pytest.importorskip("torch", reason="needs the extra 'train'")
nn = torch.nn


def assert_same(module: Any, shape: tuple[int, ...], scale: float = 1.0) -> None:
    torch.manual_seed(0)
    x = torch.rand(4, *shape)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of padding that torch pads in two goes
        expected = module.eval()(x).numpy()
    network = eventsim.from_torch(module, shape, scale=1.0 / scale)
    rows = x.numpy() * scale
    if len(shape) == 3:
        rows = channels_last(rows)
    elif len(shape) == 2:
        rows = np.moveaxis(rows, 1, 2)
    outputs = eventsim.Simulator(network, engine="reference").run(rows.reshape(len(rows), -1))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


CASES = {
    "cleanrl": (
        lambda: [nn.Conv2d(2, 8, 8, stride=4), nn.ReLU(), nn.Conv2d(8, 6, 4, stride=2), nn.ReLU(),
                 nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(),
                 nn.Linear(8, 3)],
        (2, 44, 44),
    ),
    "minatar": (
        lambda: [nn.Conv2d(4, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 8), nn.ReLU(),
                 nn.Linear(8, 6)],
        (4, 10, 10),
    ),
    "pools": (
        lambda: [nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.AvgPool2d(2, 1, 1),
                 nn.Tanh(), nn.MaxPool2d((2, 1), (1, 2)), nn.Flatten(), nn.Dropout(),
                 nn.Linear(16, 2)],
        (3, 5, 7),
    ),
    "groups": (
        lambda: [nn.Conv2d(4, 8, (2, 3), dilation=(2, 1), groups=4, bias=False), nn.ELU(0.5),
                 nn.Sequential(nn.Conv2d(8, 3, 2, padding="same"), nn.LeakyReLU(0.2)),
                 nn.Flatten(), nn.Linear(48, 2), nn.Hardtanh()],
        (4, 6, 6),
    ),
    "one axis": (
        lambda: [nn.Conv1d(3, 5, 4, stride=2, padding=2), nn.SiLU(), nn.AvgPool1d(2),
                 nn.MaxPool1d(2), nn.Flatten(), nn.Linear(10, 2), nn.Softplus()],
        (3, 17),
    ),
    "linear": (lambda: [nn.Linear(5, 7), nn.GELU("tanh"), nn.Identity(), nn.Linear(7, 2)], (5,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_outputs(name: str) -> None:
    torch.manual_seed(1)
    layers, shape = CASES[name]
    module = nn.Sequential(*layers())
    assert_same(module, shape, 255.0 if name == "cleanrl" else 1.0)


def test_the_shape_of_a_linear_network_need_not_be_given() -> None:
    assert eventsim.from_torch(nn.Sequential(nn.Linear(4, 2))).n_inputs == 4


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [nn.Conv2d(1, 1, 2)], "input_shape"),
        (lambda: [nn.Linear(4, 4), nn.LayerNorm(4)], r"module '1' \(LayerNorm\)"),
        (lambda: [nn.Linear(4, 4), nn.Softplus(beta=2.0)], "beta"),
        (lambda: [nn.Linear(4, 4), nn.Flatten(0)], "flatten all"),
    ],
)
def test_refuses(layers: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        eventsim.from_torch(nn.Sequential(*layers()))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: nn.Conv2d(1, 1, 2, padding=1, padding_mode="circular"), "padding_mode"),
        (lambda: nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"),
        (lambda: nn.AvgPool2d(2, padding=1, count_include_pad=False), "count_include_pad"),
        (lambda: nn.AvgPool2d(2, divisor_override=3), "divisor_override"),
        (lambda: nn.MaxPool1d(2), "axes"),
        (lambda: nn.BatchNorm2d(1), "BatchNorm2d"),
    ],
)
def test_refuses_options(layer: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        eventsim.from_torch(nn.Sequential(layer()), (1, 6, 6))
