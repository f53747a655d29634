"""How a neuron in continuous time runs, is kicked and reset: the reference engine's models.

The clock shows E = exp(t / tau) where all neurons are leaky with one tau, and seconds otherwise. A
neuron is a row of `cell`: its state, and its parameters P0 to P3 by the code of its model.

=================  =================================  ============================================
code               state                              parameters
=================  =================================  ============================================
LIF_ABOVE (E)      B: it spikes when E reaches B      -1 / (I - theta), R = (I - V_r)/(I - theta),
                                                      I, theta
LIF_BELOW (E)      A = (V - I) E: spikes when         theta - I, V_r - I, I, theta
                   A >= (theta - I) E
LIF (seconds)      V at S                             tau, I, theta, V_r
QIF_ABOVE          psi at S, V = sqrt(I) tan(psi)     sqrt(I), sqrt(I) / tau, psi of theta, of V_r
QIF_BELOW          V at S                             sqrt(-I), tau, theta, V_r
TABLE              seconds left to the spike, at S    table, time left at the reset, theta, lowest V
=================  =================================  ============================================

With V = I - (I - theta) B / E a kick w of LIF_ABOVE is B -= w E / (I - theta); it spikes when E
reaches B, so B = E is the threshold. I <= theta makes that singular; then A += w E.
"""

from __future__ import annotations

import math
from typing import Any

from eventsim.kernels.jit import kernel

SOURCE, LIF_ABOVE, LIF_BELOW, LIF, QIF_ABOVE, QIF_BELOW, TABLE = range(7)
X, S, UNTIL, P0, P1, P2, P3, REST = range(8)
N_COLUMNS = 8

DEGREE = 16  # as in eventsim.response


@kernel
def evaluate(edges: Any, coefficients: Any, first: int, last: int, x: float) -> float:
    """Evaluate the table with the edges first:last at x.

    Row k of `coefficients` belongs to the piece from edge k to k + 1; the last row is unused.
    """
    low, high = first, last - 1  # edges; the piece is between two of them
    while high - low > 1:
        middle = (low + high) >> 1
        if edges[middle] <= x:
            low = middle
        else:
            high = middle
    a, b = edges[low], edges[low + 1]
    u = (2.0 * x - a - b) / (b - a)
    b1 = b2 = 0.0
    for k in range(DEGREE, 0, -1):
        b1, b2 = coefficients[low, k] + 2.0 * u * b1 - b2, b1
    return float(coefficients[low, 0] + u * b1 - b2)


@kernel
def qif_flow(s: float, v: float, x: float) -> float:
    """V after x time constants of dV/dx = V**2 - s**2."""
    if x <= 0.0:
        return v
    if s == 0.0:
        return -1.0 / x if v == -math.inf else v / (1.0 - v * x)
    t = math.tanh(s * x)
    return -s / t if v == -math.inf else s * (v - s * t) / (s - v * t)


@kernel
def qif_time(s: float, v: float, threshold: float) -> float:
    """Time constants from V to the threshold; inf if it is never reached."""
    if v >= threshold:
        return 0.0
    if not (v > s or threshold < -s):
        return math.inf
    if s == 0.0:
        return 1.0 / v - (0.0 if threshold == math.inf else 1.0 / threshold)
    here = math.log((v - s) / (v + s)) if v != -math.inf else 0.0
    there = math.log((threshold - s) / (threshold + s)) if threshold != math.inf else 0.0
    return (there - here) / (2.0 * s)


@kernel
def due(code: int, cell: Any, i: int, now: float) -> float:
    """Time of the clock at which neuron i crosses its threshold if nothing kicks it."""
    x, start = cell[i, X], cell[i, S]
    if code == LIF_ABOVE:
        return float(max(x, cell[i, UNTIL]))
    if code == LIF_BELOW:
        at = max(now, cell[i, UNTIL])
        return at if x >= cell[i, P0] * at else math.inf
    if code == LIF:
        drive, threshold = cell[i, P1], cell[i, P2]
        if x >= threshold:
            return float(start)
        if drive <= threshold:
            return math.inf
        return float(start + cell[i, P0] * math.log((drive - x) / (drive - threshold)))
    if code == QIF_ABOVE:
        return float(start + max(cell[i, P2] - x, 0.0) / cell[i, P1])
    if code == QIF_BELOW:
        return float(start + cell[i, P1] * qif_time(cell[i, P0], x, cell[i, P2]))
    if code == TABLE:
        return float(start + x)
    return math.inf


@kernel
def reset(code: int, cell: Any, i: int, now: float) -> float:
    """Reset neuron i at the time `now`, and return when it is due."""
    if code == LIF_ABOVE:
        end = now * cell[i, REST]
        cell[i, UNTIL] = end
        cell[i, X] = cell[i, P1] * end
    elif code == LIF_BELOW:
        end = now * cell[i, REST]
        cell[i, UNTIL] = end
        cell[i, X] = cell[i, P1] * end
    else:
        end = now + cell[i, REST]
        cell[i, UNTIL] = end
        cell[i, S] = end
        cell[i, X] = cell[i, P1] if code == TABLE else cell[i, P3]
    return float(due(code, cell, i, now))


@kernel
def kick(
    code: int,
    keeps: bool,
    cell: Any,
    i: int,
    weight: float,
    now: float,
    key: float,
    tables: Any,
    time_edges: Any,
    time_coefficients: Any,
    volt_edges: Any,
    volt_coefficients: Any,
) -> float:
    """Kick neuron i, due at `key` until now, and return when it is due; NaN: below its table."""
    rests = now < cell[i, UNTIL]
    if rests and not keeps:
        return key
    if code == LIF_ABOVE:
        cell[i, X] += (weight * cell[i, P0]) * now
        # At its threshold it stays, unless what it got in refractoriness is kept until the end.
        # Without a refractory time that end is the spike itself, which may be at this instant.
        if keeps and cell[i, REST] > 1.0 and now <= cell[i, UNTIL]:
            return float(max(cell[i, X], cell[i, UNTIL]))
        cell[i, X] = max(cell[i, X], now)
        return float(cell[i, X])
    if code == LIF_BELOW:
        cell[i, X] += weight * now
        return float(due(code, cell, i, now))
    since = now - cell[i, S]  # below 0 in refractoriness: the state is that at its end
    x = cell[i, X]
    if code == LIF:
        tau, drive = cell[i, P0], cell[i, P1]
        if rests:
            x += weight * math.exp(since / tau)
        else:
            x = drive + (x - drive) * math.exp(-since / tau) + weight
    elif code == QIF_ABOVE:
        psi, top = x, cell[i, P2]
        if not rests:
            psi = min(x + cell[i, P1] * since, top)
            if psi == top and top >= 0.5 * math.pi:
                return key  # V is infinite
        x = math.atan(math.tan(psi) + weight / cell[i, P0])
    elif code == QIF_BELOW:
        if not rests:
            if key <= now and cell[i, P2] == math.inf:
                return key
            x = qif_flow(cell[i, P0], x, since / cell[i, P1])
        x += weight
    else:
        table = int(cell[i, P0])
        left = x if rests else max(x - since, 0.0)
        a, b = tables[table, 2], tables[table, 3]
        v = evaluate(volt_edges, volt_coefficients, a, b, left) + weight
        if v >= cell[i, P2]:
            x = 0.0
        elif v < cell[i, P3]:
            return math.nan
        else:
            a, b = tables[table, 0], tables[table, 1]
            x = max(evaluate(time_edges, time_coefficients, a, b, v), 0.0)
    cell[i, X] = x
    if not rests:
        cell[i, S] = now
    return float(due(code, cell, i, now))


@kernel
def voltage(
    code: int, cell: Any, i: int, now: float, tables: Any, volt_edges: Any, volt_coefficients: Any
) -> float:
    """Voltage of neuron i at the time `now`, no earlier than its last event; NaN for a source."""
    if code == SOURCE:
        return math.nan
    x = cell[i, X]
    if now < cell[i, UNTIL]:  # at the reset
        if code == LIF_ABOVE:
            return float(cell[i, P2] - (cell[i, P2] - cell[i, P3]) * cell[i, P1])
        if code == LIF_BELOW:
            return float(cell[i, P1] + cell[i, P2])
        if code == QIF_ABOVE:
            return float(cell[i, P0] * math.tan(cell[i, P3]))
        if code == TABLE:
            a, b = tables[int(cell[i, P0]), 2], tables[int(cell[i, P0]), 3]
            return float(evaluate(volt_edges, volt_coefficients, a, b, cell[i, P1]))
        return float(cell[i, P3])
    if code == LIF_ABOVE:
        return float(cell[i, P2] - (cell[i, P2] - cell[i, P3]) * (x / now))
    if code == LIF_BELOW:
        return float(cell[i, P2] + x / now)
    since = now - cell[i, S]
    if code == LIF:
        return float(cell[i, P1] + (x - cell[i, P1]) * math.exp(-since / cell[i, P0]))
    if code == QIF_ABOVE:
        return float(cell[i, P0] * math.tan(min(x + cell[i, P1] * since, cell[i, P2])))
    if code == QIF_BELOW:
        return float(qif_flow(cell[i, P0], x, since / cell[i, P1]))
    a, b = tables[int(cell[i, P0]), 2], tables[int(cell[i, P0]), 3]
    return float(evaluate(volt_edges, volt_coefficients, a, b, max(x - since, 0.0)))
