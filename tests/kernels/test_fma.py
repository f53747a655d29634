"""A product and a sum are rounded once, with Numba and without, alone and in a vectorised loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.kernels.bits import fma
from eventsim.kernels.jit import kernel
from tests.oracle import once_rounded

numbers = st.floats(allow_nan=False, allow_infinity=False)


@kernel
def _one(a: Any, b: float, c: float) -> float:
    return fma(a, b, c)  # type: ignore[no-any-return]


@kernel
def _many(a: Any, b: Any, c: Any) -> None:
    for k in range(c.shape[0]):
        c[k] = fma(a[k], b[k], c[k])


def _same(one: float, other: float) -> bool:
    return np.float64(one).tobytes() == np.float64(other).tobytes()


@pytest.mark.nojit
@given(numbers, numbers, st.integers(-3, 3))
def test_it_rounds_once(a: float, b: float, units: int) -> None:
    with np.errstate(all="ignore"):
        # Where the product is nearly cancelled, a rounding of its own shows most.
        c = float(-np.float64(a) * np.float64(b))
    c = c + units * math.ulp(c) if math.isfinite(c) else 1.0
    try:
        expected = once_rounded(a, b, c)
    except OverflowError:
        expected = math.copysign(math.inf, a) * math.copysign(1.0, b)
    assert _same(_one(a, b, c), expected)


@pytest.mark.nojit
@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        (1e200, 1e200, -math.inf, -math.inf),
        (math.inf, 2.0, 1.0, math.inf),
        (1e200, 1e200, 1.0, math.inf),
        (1e200, -1e200, 1.0, -math.inf),
        (0.0, -1.0, -0.0, -0.0),
        (0.0, 1.0, -0.0, 0.0),
        (2.0, 3.0, -6.0, 0.0),
    ],
)
def test_edges(a: float, b: float, c: float, expected: float) -> None:
    assert _same(_one(a, b, c), expected)


@pytest.mark.nojit
def test_what_is_no_number_stays_none() -> None:
    assert math.isnan(_one(math.inf, 0.0, 1.0))
    assert math.isnan(_one(math.inf, 1.0, -math.inf))
    assert math.isnan(_one(1.0, 1.0, math.nan))


@pytest.mark.nojit
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_loop_gives_what_single_calls_do(kind: type) -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=67).astype(kind), rng.normal(size=67), rng.normal(size=67)
    expected = [once_rounded(*one) for one in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)]
    _many(a, b, c)
    np.testing.assert_array_equal(c, expected)
