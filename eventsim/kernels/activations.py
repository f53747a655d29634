"""Scalar activations, by the codes of `eventsim.neurons`."""

from __future__ import annotations

import math

from numba import njit

_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


@njit(cache=True)
def activate(code: int, p0: float, p1: float, u: float) -> float:
    """f(u) for the activation with this code and parameters; NaN for an unknown code."""
    if code == 0:
        return u
    if code == 1:
        return max(u, 0.0)
    if code == 2:
        return u if u > 0.0 else p0 * u
    if code == 3:
        return u if u > 0.0 else p0 * math.expm1(u)
    if code == 4:
        return math.tanh(u)
    if code == 5:
        return _sigmoid(u)
    if code == 6:
        return max(u, 0.0) + math.log1p(math.exp(-abs(u)))
    if code == 7:
        return u * _sigmoid(u)
    if code == 8:
        if p0 != 0.0:
            return 0.5 * u * (1.0 + math.tanh(_SQRT_2_OVER_PI * (u + 0.044715 * u * u * u)))
        return 0.5 * u * (1.0 + math.erf(u * _SQRT_HALF))
    if code == 9:
        return min(max(u, p0), p1)
    return math.nan


@njit(cache=True)
def _sigmoid(u: float) -> float:
    e = math.exp(-abs(u))
    return (1.0 if u >= 0.0 else e) / (1.0 + e)
