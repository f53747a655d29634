"""The kernels' own tanh against long double arithmetic, and against itself over lanes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eventsim.kernels.activations import activate, activate_lanes, tanh

pytestmark = pytest.mark.nojit

RNG = np.random.default_rng(7)
U = np.concatenate(
    [
        RNG.uniform(-25, 25, 2000),
        RNG.normal(size=4000),
        RNG.uniform(0.1, 0.6, 4000),  # where 2 u passes ln(2) / 2 and the reduction begins
        10.0 ** RNG.uniform(-300, 0, 2000),
        -(10.0 ** RNG.uniform(-18, 2, 2000)),
    ]
)


def test_it_is_within_two_and_a_half_units_in_the_last_place() -> None:
    got = np.array([tanh(float(u)) for u in U])
    exact = np.tanh(U.astype(np.longdouble))
    # Where long double is no more than double, the exact value has an error of its own.
    slack = 0.0 if np.finfo(np.longdouble).nmant > 60 else 2.5
    error = np.abs(got - exact) / np.spacing(np.abs(exact).astype(np.float64))
    assert float(error.max()) <= 2.5 + slack


@pytest.mark.parametrize("u", [0.0, -0.0, 5e-324, -5e-324, 22.1, -22.1, 1e308, math.inf, -math.inf])
def test_its_limits(u: float) -> None:
    got = tanh(u)
    assert got == math.tanh(u)
    assert math.copysign(1.0, got) == math.copysign(1.0, u)


def test_it_is_odd_bounded_and_monotone_but_for_rounding() -> None:
    u = np.linspace(0.0, 20.0, 4001)
    up = np.array([tanh(float(x)) for x in u])
    down = np.array([tanh(-float(x)) for x in u])
    np.testing.assert_array_equal(up, -down)
    assert np.diff(up).min() >= -np.spacing(1.0)
    assert up.max() == 1.0


def test_nan_stays_nan() -> None:
    assert math.isnan(tanh(math.nan))


@pytest.mark.parametrize("code", range(10))
@pytest.mark.parametrize("n_flagged", [3, 64])
def test_lanes_give_the_bits_of_single_calls(code: int, n_flagged: int) -> None:
    p0, p1 = (-0.5, 0.7) if code == 9 else (0.3, 0.0)
    values = np.concatenate([RNG.normal(size=64) * 3, np.zeros(64)])
    activate_lanes(code, p0, p1, values, 0, 64, np.uint64(2**n_flagged - 1), 64)
    expected = [activate(code, p0, p1, float(u)) for u in values[:n_flagged]]
    np.testing.assert_array_equal(values[64 : 64 + n_flagged], expected)
