"""Figures of returns: means with intervals by Student's t, and the relative loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def t_interval(values: Sequence[float]) -> list[float] | None:
    """Two-sided 95 % interval of the mean by Student's t.

    ``mean +- t(0.975, n - 1) sd / sqrt(n)``, sd with n - 1 in the denominator.

    Returns
    -------
    [low, high], or None for fewer than two values.
    """
    n = len(values)
    if n < 2:
        return None
    from scipy.special import stdtrit

    mean, std = _mean(values), _std(values)
    half = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return [mean - half, mean + half]


def returns(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1), 95 % interval and the values themselves.

    None stands for a mean of no values and for a spread of fewer than two.
    """
    return {
        "mean": _mean(values) if values else None,
        "std": _std(values) if len(values) > 1 else None,
        "ci95": t_interval(values),
        "per_episode": [float(v) for v in values],
    }


def relative_loss(
    event: Sequence[float], dense: Sequence[float], random: Sequence[float]
) -> dict[str, Any] | None:
    """Share of the dense policy's advantage over random actions that was lost.

    ``(dense_i - event_i) / (mean dense - mean random)``, paired by episode: episode i of all
    three starts from the same seed. Positive is worse than dense. The interval is that of the
    mean of the paired differences by Student's t; the denominator is taken as it was measured.

    Parameters
    ----------
    event, dense, random : sequence of float
        Returns; only as many as all three have are used.

    Returns
    -------
    dict with ``mean`` and ``ci95`` ([low, high], None for one episode), or None if there are no
    returns or the dense policy is not better than random actions: then there is nothing to lose.
    """
    n = min(len(event), len(dense), len(random))
    if n == 0:
        return None
    dense_mean, random_mean = _mean(dense[:n]), _mean(random[:n])
    advantage = dense_mean - random_mean
    if advantage <= 1e-9 * max(abs(dense_mean), abs(random_mean), 1e-300):
        return None
    losses = [(d - e) / advantage for d, e in zip(dense[:n], event[:n], strict=True)]
    return {"mean": _mean(losses), "ci95": t_interval(losses)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _std(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
