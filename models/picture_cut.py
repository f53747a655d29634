"""Prune students of pictures: kernel weights, shared by all positions, and whole channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.models.picture_distill import Watched, ever_sent, watch
from eventsim.models.picture_student import PictureStudent
from eventsim.models.student import Demonstrations, Float, sent_by_silent

#: Added to event rates, so that what never sends is not free.
_IDLE = 0.02


def with_picture_thresholds(
    student: PictureStudent, demonstrations: Demonstrations, scale: float
) -> PictureStudent:
    """Set the threshold of each channel and hidden neuron to a multiple of its spread.

    A picture of truth values sends every change: any other threshold would send none.
    """
    result = student.copy()
    spreads = _spreads(student, watch(student, demonstrations))
    result.thresholds = [scale * np.maximum(s, 1e-3) for s in spreads]
    if student.scale == 1.0:
        result.thresholds[0] = np.zeros(student.shape[0])
    return result


def cut_pictures(
    student: PictureStudent, demonstrations: Demonstrations, share: float
) -> PictureStudent:
    """Prune a share of the surviving weights, the least important for what they cost.

    As `eventsim.models.student.cut`: importance is the variance that a weight adds to its targets'
    sums, over its multiplications a step; both are summed over the positions where a kernel's
    weight is used. Every output keeps a synapse; a pixel need not.

    Parameters
    ----------
    student : PictureStudent
    demonstrations : Demonstrations
        Of films.
    share : float
        In [0, 1).

    Returns
    -------
    PictureStudent
        Without the channels and neurons that no longer matter, see `compact_pictures`.
    """
    result = student.copy()
    seen = watch(student, demonstrations)
    spreads = _spreads(student, seen)
    scores = []
    for k, (w, mask) in enumerate(zip(student.weights, student.masks, strict=True)):
        variance = _where_used(student, k, seen[k].variance)
        uses = _where_used(student, k, np.ones_like(seen[k].variance))
        work = _where_used(student, k, seen[k].rate) + _IDLE * uses
        added = np.square(w) * variance
        last = k + 1 == len(student.weights)
        if last:
            # Outputs are read, not sent: their spread is that of their sums.
            target = np.sqrt(added.sum(axis=1, where=mask))
        else:
            target = spreads[k + 1]
        part = added / np.square(np.maximum(target, 1e-3)).reshape(-1, *[1] * (w.ndim - 1))
        score = np.where(mask, part / np.maximum(work, 1e-12), np.inf)
        if last:
            best = np.where(mask, part, -1.0).argmax(axis=1)
            score[np.arange(len(w)), best] = np.inf
        scores.append(score)
    flat = np.concatenate([s.ravel() for s in scores])
    alive = sum(int(m.sum()) for m in student.masks)
    available = np.flatnonzero(np.isfinite(flat))
    count = min(round(share * alive), available.size)
    gone = np.zeros(flat.size, np.bool_)
    gone[available[np.argsort(flat[available], kind="stable")[:count]]] = True
    first = 0
    for k, mask in enumerate(student.masks):
        here = gone[first : first + mask.size].reshape(mask.shape)
        first += mask.size
        uses = np.maximum(_where_used(student, k, np.ones_like(seen[k].mean)), 1.0)
        means = _where_used(student, k, seen[k].mean) / uses
        lost = np.where(here, student.weights[k] * means, 0.0)
        result.biases[k] = result.biases[k] + lost.reshape(len(mask), -1).sum(axis=1)
        result.masks[k] = mask & ~here
    return compact_pictures(result)


def without_silent(student: PictureStudent, demonstrations: Demonstrations) -> PictureStudent:
    """Drop channels and hidden neurons that nothing in the demonstrations made send.

    In the demonstrations every output stays as it is but for rounding, and elsewhere while they are
    silent. What was sent to them is saved; at threshold 0 they cost as much as those that speak.

    Parameters
    ----------
    student : PictureStudent
    demonstrations : Demonstrations
        Of films.

    Returns
    -------
    PictureStudent
    """
    result = student.copy()
    for k, sent in enumerate(ever_sent(student, demonstrations)):
        result.masks[k][~sent] = False
        result.biases[k][~sent] = 0.0
    return compact_pictures(result)


def compact_pictures(student: PictureStudent) -> PictureStudent:
    """Drop channels and neurons that nobody hears, and fold those that hear nothing into biases.

    A channel without weights sends one constant from every position. Where the next convolution
    is padded, its sums at the border lack a part of it, so that no bias would be exact: such a
    channel stays. Outputs are the same but for rounding.
    """
    result = student.copy()
    changed = True
    while changed:
        changed = False
        for k in range(len(result.weights) - 1):
            heard = _by_source(result.masks[k + 1], len(result.masks[k])).any(axis=(0, 2))
            hears = np.asarray(result.masks[k].reshape(len(result.masks[k]), -1).any(axis=1))
            silent = heard & ~hears
            constant = sent_by_silent(result, k, silent)
            padded = k + 1 < len(result.kernels) and result.kernels[k + 1].padding != (0, 0)
            keep: NDArray[np.bool_] = heard & (hears | (padded & (constant != 0.0)))
            if not keep.any():  # a layer of nothing cannot be; one silent neuron stays
                keep = np.arange(keep.size) == 0
            if keep.all():
                continue
            changed = True
            alive = np.where(result.masks[k + 1], result.weights[k + 1], 0.0)
            after = _by_source(alive, len(keep)).sum(axis=2)
            result.biases[k + 1] = result.biases[k + 1] + after[:, ~keep] @ constant[~keep]
            result.weights[k], result.masks[k] = result.weights[k][keep], result.masks[k][keep]
            result.weights[k + 1] = _narrowed(result.weights[k + 1], keep)
            result.masks[k + 1] = _narrowed(result.masks[k + 1], keep)
            result.biases[k] = result.biases[k][keep]
            result.thresholds[k + 1] = result.thresholds[k + 1][keep]
    return result


def _by_source(values: NDArray[Any], n: int) -> NDArray[Any]:
    """Weights as (target, one of the n channels or neurons before it, all between them)."""
    return values.reshape(len(values), n, -1)


def _narrowed(values: NDArray[Any], keep: NDArray[np.bool_]) -> NDArray[Any]:
    """Weights without those out of channels or neurons that are not kept."""
    rows = _by_source(values, len(keep))[:, keep]
    return np.ascontiguousarray(rows.reshape(len(values), -1, *values.shape[2:]))


def _where_used(student: PictureStudent, k: int, values: Float) -> Float:
    """Sum values of the neurons before layer `k` over the uses of each of its weights.

    Returns an array that broadcasts against the weights: (channels, rows, columns) or (n,).
    """
    if k >= len(student.kernels):
        return values
    channels, height, width = student.maps[k]
    picture = values.reshape(channels, height, width).transpose(1, 2, 0)
    patches = student.windows[k].patches(picture)
    return np.asarray(patches.sum(axis=(0, 1)).transpose(2, 0, 1), np.float64)


def _spreads(student: PictureStudent, seen: Sequence[Watched]) -> list[Float]:
    """Standard deviation of each channel or hidden neuron before each layer, over positions too."""
    result = []
    for k, one in enumerate(seen):
        variance = one.variance
        n = len(student.thresholds[k])
        # The mean variance over time: what differs from place to place alone sends nothing.
        result.append(np.sqrt(variance.reshape(n, -1).mean(axis=1)))
    return result


__all__ = ["compact_pictures", "cut_pictures", "with_picture_thresholds", "without_silent"]
