"""Scalar activations, by the codes of `eventsim.neurons`, and the same over lanes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from eventsim.kernels.bits import first_bit
from eventsim.kernels.jit import inlined

_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)

# expm1(r) = r + r^2 (1/2 + r q(r)) for |r| <= ln(2) / 2: q is the Chebyshev fit of degree 8, whose
# error is below 1e-16 of r.
_Q0 = float.fromhex("0x1.5555555555555p-3")
_Q1 = float.fromhex("0x1.5555555554cb7p-5")
_Q2 = float.fromhex("0x1.1111111110e6ap-7")
_Q3 = float.fromhex("0x1.6c16c1738ff55p-10")
_Q4 = float.fromhex("0x1.a01a01a4b322fp-13")
_Q5 = float.fromhex("0x1.a019c9a5652d3p-16")
_Q6 = float.fromhex("0x1.71de17e40edfep-19")
_Q7 = float.fromhex("0x1.2880411bad1aap-22")
_Q8 = float.fromhex("0x1.af236aac51d05p-26")
_INVERSE_LN2 = 1.0 / math.log(2.0)
# ln(2) in two parts; the high one has 21 zero bits at its end, so that k times it is exact.
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
# Added to a small number it leaves the rounded number in the lowest bits of the sum.
_ROUND = 1.5 * 2.0**52
_EXPONENT_OF_ONE = 1023 << 52
_SIGN = -(1 << 63)
_SATURATED = 44.0  # from 2 u = 38.2 on, tanh(u) rounds to 1

_NO_BITS = np.uint64(0)

#: Added to the code of an activation without parameters: the same, in fixed point.
QUANTIZED = 32


@njit(cache=True, error_model="numpy")
def tanh(u: float) -> float:
    """Hyperbolic tangent, to 2.5 units in the last place.

    Arithmetic only, so that a loop over it is vectorised and gives the same bits as a single call:
    with ``2 |u| = k ln 2 + r`` and ``e = expm1(2 |u|) = 2^k (expm1(r) + 1) - 1`` it is
    ``e / (e + 2)`` with the sign of u.
    """
    y = 2.0 * abs(u)
    y = _SATURATED if y > _SATURATED else y
    t = y * _INVERSE_LN2 + _ROUND
    k = t - _ROUND
    r = (y - k * _LN2_HIGH) - k * _LN2_LOW
    q = (
        (((((((_Q8 * r + _Q7) * r + _Q6) * r + _Q5) * r + _Q4) * r) + _Q3) * r + _Q2) * r + _Q1
    ) * r
    z = r * r * (0.5 + r * (q + _Q0))
    power = np.int64((np.float64(t).view(np.int64) << 52) + _EXPONENT_OF_ONE).view(np.float64)
    # power r + (power - 1) as an unevaluated sum of two: the cancellation would cost a bit.
    m = power - 1.0
    product = power * r
    total = m + product
    e = total + (power * z + (product - (total - m)))
    a = e / (e + 2.0)
    return np.int64(np.float64(a).view(np.int64) | (np.float64(u).view(np.int64) & _SIGN)).view(
        np.float64
    )


@njit(cache=True, error_model="numpy")
def activate(code: int, p0: float, p1: float, u: float) -> float:
    """f(u) for the activation with this code and parameters; NaN for an unknown code.

    Codes from `QUANTIZED` on round that of the remaining code to multiples of p0, and keep them
    between -p1 and p1 - 1 of these.
    """
    if code < QUANTIZED:
        return _activate(code, p0, p1, u)
    if p0 == 0.0:
        return math.nan
    a = _activate(code - QUANTIZED, 0.0, 0.0, u) / p0
    # A comparison with NaN is false, so that it stays NaN and is reported.
    if a > p1 - 1.0:
        return (p1 - 1.0) * p0
    if a < -p1:
        return -p1 * p0
    return float(np.rint(a)) * p0


@njit(cache=True, error_model="numpy")
def _activate(code: int, p0: float, p1: float, u: float) -> float:
    if code == 0:
        return u
    if code == 1:
        return max(u, 0.0)
    if code == 2:
        return u if u > 0.0 else p0 * u
    if code == 3:
        return u if u > 0.0 else p0 * math.expm1(u)
    if code == 4:
        return tanh(u)
    if code == 5:
        return _sigmoid(u)
    if code == 6:
        return max(u, 0.0) + math.log1p(math.exp(-abs(u)))
    if code == 7:
        return u * _sigmoid(u)
    if code == 8:
        if p0 != 0.0:
            return 0.5 * u * (1.0 + tanh(_SQRT_2_OVER_PI * (u + 0.044715 * u * u * u)))
        return 0.5 * u * (1.0 + math.erf(u * _SQRT_HALF))
    if code == 9:
        return min(max(u, p0), p1)
    return math.nan


@inlined
def activate_lanes(
    code: int, p0: float, p1: float, values: Any, u0: int, a0: int, pending: Any, n: int
) -> None:
    """Set n <= 64 values from a0, a multiple of 16, to the activations of those from u0.

    Where `activate` is not vectorised, only the lanes whose bits are set in `pending` are.
    """
    u, a = np.uint64(u0), np.uint64(a0)
    if code == 1:
        for k in range(n):
            j = np.uint64(k)
            values[a + j] = max(values[u + j], 0.0)
    elif code == 4:
        for k in range(n):
            j = np.uint64(k)
            values[a + j] = tanh(values[u + j])
    elif code == 0:
        for k in range(n):
            j = np.uint64(k)
            values[a + j] = values[u + j]
    else:
        while pending != _NO_BITS:
            j = first_bit(pending)
            pending &= pending - np.uint64(1)
            values[a + j] = activate(code, p0, p1, values[u + j])


@njit(cache=True)
def _sigmoid(u: float) -> float:
    e = math.exp(-abs(u))
    return (1.0 if u >= 0.0 else e) / (1.0 + e)
