"""Neurons with one variable as two tabulated functions: voltage to time to the spike, and back.

For ``dV/dt = f(V) > 0`` the time from V to the spike is ``T(V) = integral of 1 / f from V to the
threshold``. 1 / f is interpolated by Chebyshev polynomials on pieces that are halved until the last
coefficients vanish, and integrated; the inverse of T is solved for by Newton's method at the nodes
of its own pieces (Trefethen, Approximation Theory and Approximation Practice, 2013, ch. 4, 19).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import NetworkError

Float = NDArray[np.float64]
Function: TypeAlias = Callable[[Float], Float]

#: Degree of the polynomials of T and of its inverse.
DEGREE = 16
_MAX_PIECES = 20_000
_NODES = chebyshev.chebpts1(DEGREE)
_VALUES_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_NODES, DEGREE - 1))


@dataclass(frozen=True, eq=False)
class Pieces:
    """A function as Chebyshev polynomials on adjoining intervals.

    Parameters
    ----------
    edges : float64 array of shape (pieces + 1,), ascending
    coefficients : float64 array of shape (pieces, DEGREE + 1)
        In the variable that runs from -1 to 1 over the piece.
    """

    edges: Float
    coefficients: Float

    def __call__(self, x: ArrayLike) -> Float:
        """Evaluate elementwise; beyond the ends the outer pieces go on."""
        values = np.asarray(x, np.float64)
        piece = np.searchsorted(self.edges, values, side="right") - 1
        piece = np.clip(piece, 0, len(self.coefficients) - 1)
        low, high = self.edges[piece], self.edges[piece + 1]
        u = (2.0 * values - low - high) / (high - low)
        c = self.coefficients[piece]
        b1 = b2 = np.zeros_like(u)
        for k in range(DEGREE, 0, -1):
            b1, b2 = c[..., k] + 2.0 * u * b1 - b2, b1
        return np.asarray(c[..., 0] + u * b1 - b2)


@dataclass(frozen=True, eq=False)
class ResponseTable:
    """What an engine knows of a tabulated neuron.

    Parameters
    ----------
    threshold, reset, lowest : float
        The table covers lowest <= V <= threshold.
    accuracy : float
        Relative to `period`, of times to the spike.
    period : float
        Seconds from reset to threshold.
    time : Pieces
        Seconds from V to the spike.
    voltage : Pieces
        V from the seconds that are left to the spike.
    """

    threshold: float
    reset: float
    lowest: float
    accuracy: float
    period: float
    time: Pieces
    voltage: Pieces


def from_ode(
    right_side: Function,
    threshold: float,
    reset: float,
    lowest: float,
    accuracy: float,
    where: str,
    edges: Float | None = None,
) -> ResponseTable:
    """Tabulate ``dV/dt = right_side(V)``.

    Parameters
    ----------
    right_side : callable
        Array of voltages to array of rates of change per second, > 0 from lowest to threshold.
    threshold, reset, lowest : float
    accuracy : float
        Of times to the spike, relative to the time from reset to threshold.
    where : str
        The model, for error messages.
    edges : array, optional
        Voltages between lowest and threshold at which the right side is not smooth.

    Raises
    ------
    NetworkError
        If the numbers are out of order, the right side is not positive, or the accuracy is out of
        reach in double precision.
    """
    if not (np.isfinite([threshold, reset, lowest]).all() and lowest <= reset < threshold):
        raise NetworkError(
            f"{lowest:g}, {reset:g}, {threshold:g} must ascend: lowest <= reset < threshold",
            where=where,
            field="threshold",
        )
    if not 1e-15 <= accuracy < 1.0:
        raise NetworkError(f"is {accuracy}; give 1e-15 to 1", where=where, field="accuracy")

    def density(v: Float) -> Float:
        rate = np.asarray(right_side(v), np.float64)
        if rate.shape != v.shape or not (np.isfinite(rate).all() and (rate > 0.0).all()):
            at = float(v[~(rate > 0.0)][0]) if rate.shape == v.shape and (rate <= 0).any() else None
            raise NetworkError(
                "must give a positive number for every voltage of an array"
                + ("" if at is None else f", but is {float(rate[v == at][0]):g} at V = {at:g}")
                + "; a tabulated neuron has to spike without input",
                where=where,
                field="right_side",
            )
        return 1.0 / rate

    start = np.array([lowest, threshold] if edges is None else edges, np.float64)
    grid = np.linspace(reset, threshold, 20_001)
    rough = density(grid)
    period = float(np.trapezoid(rough, grid))
    slowest = float(rough.max())
    time = _integral(density, start, accuracy * period, where)
    total = float(time(lowest))
    # An error dV makes at most an error dV / min f in the time after a kick.
    tolerance = max(accuracy * period / slowest, 4e-16 * max(abs(lowest), abs(threshold)))
    voltage = _inverse(time, density, total, tolerance, where)
    period = float(time(reset))
    return ResponseTable(threshold, reset, lowest, accuracy, period, time, voltage)


def from_response(
    phases: ArrayLike, response: ArrayLike, period: float, accuracy: float, where: str
) -> ResponseTable:
    """Tabulate a neuron from its response to small kicks; see `Tabulated.from_phase_response`."""
    from scipy.interpolate import CubicSpline

    phase, advance = np.asarray(phases, np.float64), np.asarray(response, np.float64)
    if phase.ndim != 1 or phase.shape != advance.shape or phase.size < 4:
        raise NetworkError(
            f"have shapes {phase.shape} and {advance.shape}; give at least 4 pairs",
            where=where,
            field="phases",
        )
    if not (np.diff(phase) > 0.0).all() or phase[0] > 0.0 or phase[-1] != 1.0:
        raise NetworkError("must ascend from 0 or below to 1", where=where, field="phases")
    if not ((advance > 0.0) & np.isfinite(advance)).all():
        raise NetworkError("must be finite and above 0", where=where, field="response")
    if not (np.isfinite(period) and period > 0.0):
        raise NetworkError(f"is {period}; give seconds > 0", where=where, field="period")
    spline = CubicSpline(phase, np.log(advance))

    def slope(p: Float) -> Float:  # dV / dphase
        return np.asarray(np.exp(-spline(p)))

    left = _integral(slope, phase, 1e-15, where)  # voltage from the phase up to the spike
    total = float(left(phase[0]))
    back = _inverse(left, slope, total, 1e-15, where, left(phase)[::-1])
    threshold = float(left(0.0))
    knots = threshold - left(phase)
    knots[-1] = threshold

    def right_side(v: Float) -> Float:
        return slope(np.clip(back(threshold - v), phase[0], 1.0)) / period

    return from_ode(right_side, threshold, 0.0, float(knots[0]), accuracy, where, knots)


def _fit(values: Float) -> Float:
    return _VALUES_TO_COEFFICIENTS @ values


def _nodes(low: float, high: float) -> Float:
    return np.asarray(0.5 * (low + high) + 0.5 * (high - low) * _NODES)


def _integral(density: Function, edges: Float, tolerance: float, where: str) -> Pieces:
    """Integral of a positive function from x to the last edge."""
    todo = list(pairwise(edges))[::-1]
    done: list[tuple[float, float, Float]] = []
    while todo:
        low, high = todo.pop()
        c = _fit(density(_nodes(low, high)))
        half = 0.5 * (high - low)
        rounding = 1e-14 * abs(c[0])
        if np.abs(c[-3:]).max() * half <= max(0.1 * tolerance, rounding * half):
            done.append((low, high, half * chebyshev.chebint(c)))
            continue
        _halve(todo, done, low, high, where)
    right = 0.0
    coefficients = np.zeros((len(done), DEGREE + 1))
    for k in range(len(done) - 1, -1, -1):
        g = done[k][2]
        end = float(g.sum())  # at u = 1
        coefficients[k] = -g
        coefficients[k, 0] += end + right
        right += end - float(chebyshev.chebval(-1.0, g))
    return Pieces(np.array([low for low, *_ in done] + [done[-1][1]]), coefficients)


def _inverse(
    forward: Pieces,
    density: Function,
    total: float,
    tolerance: float,
    where: str,
    edges: Float | None = None,
) -> Pieces:
    """Inverse of a falling function that ends at 0, whose derivative is ``-density``."""
    ends = np.asarray(forward(forward.edges))
    if edges is None:
        edges = ends[::-1].copy()
    edges = edges.copy()
    edges[0], edges[-1] = 0.0, total

    def solve(y: Float) -> Float:
        k = np.clip(np.searchsorted(-ends, -y, side="right") - 1, 0, ends.size - 2)
        low, high = forward.edges[k].copy(), forward.edges[k + 1].copy()
        x = 0.5 * (low + high)
        for _ in range(200):
            off = forward(x) - y
            low = np.where(off > 0.0, x, low)
            high = np.where(off > 0.0, high, x)
            step = x + off / density(x)
            step = np.where((step > low) & (step < high), step, 0.5 * (low + high))
            moved = float(np.abs(step - x).max())
            x = step
            if moved <= 4e-16 * float(np.abs(x).max()):
                break
        return x

    todo = list(pairwise(edges))[::-1]
    done: list[tuple[float, float, Float]] = []
    while todo:
        low, high = todo.pop()
        c = _fit(solve(_nodes(low, high)))
        if np.abs(c[-3:]).max() <= max(0.3 * tolerance, 1e-15 * np.abs(c).max()):
            done.append((low, high, np.append(c, 0.0)))
            continue
        _halve(todo, done, low, high, where)
    return Pieces(
        np.array([low for low, *_ in done] + [done[-1][1]]), np.stack([c for *_, c in done])
    )


def _halve(
    todo: list[tuple[float, float]], done: list[tuple[float, float, Float]], low: float,
    high: float, where: str,
) -> None:  # fmt: skip
    middle = 0.5 * (low + high)
    if len(done) + len(todo) > _MAX_PIECES or not low < middle < high:
        raise NetworkError(
            "is out of reach in double precision, or the equation is not smooth; ask for less",
            where=where,
            field="accuracy",
        )
    todo += [(middle, high), (low, middle)]
