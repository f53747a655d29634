"""Magnitude pruning: cut the smallest weights, by layer or over the whole network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.connectivity import Connectivity, Sparse
from eventsim.errors import InputError, UnknownNameError
from eventsim.models.activity import Recording, activity
from eventsim.network import Network, Projection

Scope: TypeAlias = Literal["global", "layer"]
Float: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]


def prune(
    network: Network,
    sparsity: float,
    *,
    scope: Scope = "global",
    max_column_sparsity: float | None = None,
    max_row_sparsity: float | None = None,
    max_layer_sparsity: float | None = None,
    exclude: Iterable[str] = (),
    importance: Mapping[str, ArrayLike] | None = None,
) -> Network:
    """Set the least important weights to zero; the others stay as they are.

    Exactly ``round(sparsity * weights)`` weights are zero afterwards, weights that were zero
    before included (more, if more were): the least important ones, ties broken by projection, row
    and column. What the caps protect is passed over. A rule without caps cuts inputs of a small
    scale off altogether, such as the position of a cart that never gets far, and may empty a
    layer of small weights; so the most important weights of every input column, output row and
    layer stay.

    Thresholds, biases and dense MACs are not touched: a pruned layer is compared with the layer
    that it was made from.

    Parameters
    ----------
    network : Network
    sparsity : float
        Share of the weights that shall be zero, in [0, 1).
    scope : {"global", "layer"}, optional
        One ranking over all layers, or the same sparsity in each.
    max_column_sparsity, max_row_sparsity : float, optional
        Largest share, in [0, 1], of the weights out of an input neuron (a column of a projection
        from an input population), or into an output neuron (a row of a projection to an output
        population), that may be zero. Default ``(1 + sparsity) / 2``. Below 1, at least one
        weight stays; 1 lifts the cap.
    max_layer_sparsity : float, optional
        The same for a projection as a whole.
    exclude : iterable of str, optional
        Projections left alone; their weights are not counted.
    importance : mapping of str to array of shape (target size, source size), optional
        Importance >= 0 of the weights of the projections named, such as `input_importance` gives
        it. Default the magnitude.

    Returns
    -------
    Network
        With dense projections, or sparse ones where these take less memory.

    Raises
    ------
    InputError
        If a number is out of range, an importance has another shape or is not finite, or the caps
        leave too little to prune; the message then names the sparsity that they allow.
    UnknownNameError
        If `exclude` or `importance` names no projection.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network
    >>> from eventsim.models.pruning import prune
    >>> network = Network.from_arrays([np.array([[0.1, -2.0], [0.3, 4.0]])])
    >>> prune(network, 0.25).projections[0].weights.to_dense()
    array([[ 0. , -2. ],
           [ 0.3,  4. ]])
    """
    _share(sparsity, "sparsity", below_one=True)
    if scope not in ("global", "layer"):
        raise InputError(f"is {scope!r}; give 'global' or 'layer'", field="scope")
    half = (1.0 + sparsity) / 2.0
    caps = {
        "max_column_sparsity": max_column_sparsity,
        "max_row_sparsity": max_row_sparsity,
        "max_layer_sparsity": max_layer_sparsity,
    }
    column, row, layer = (
        half if cap is None else _share(cap, name, below_one=False) for name, cap in caps.items()
    )
    excluded = _names(network, exclude, "exclude")
    importance = {} if importance is None else importance
    _names(network, importance, "importance")
    projections = [q for q in network.projections if q.name not in excluded]
    weights = [q.weights.to_dense() for q in projections]
    scores = [
        _scores(q, w, importance.get(q.name)) for q, w in zip(projections, weights, strict=True)
    ]
    protected = [
        _protected(
            s,
            w != 0.0,
            column if network[q.source].is_input else 1.0,
            row if q.target in network.outputs else 1.0,
            layer,
        )
        for q, s, w in zip(projections, scores, weights, strict=True)
    ]
    groups = [range(len(projections))] if scope == "global" else [[k] for k in range(len(weights))]
    pruned: dict[str, Connectivity | NDArray[Any]] = {}
    for group in groups:
        cut = _smallest(
            sparsity,
            np.concatenate([scores[k].ravel() for k in group] or [np.zeros(0)]),
            np.concatenate([weights[k].ravel() != 0.0 for k in group] or [np.zeros(0, bool)]),
            np.concatenate([protected[k].ravel() for k in group] or [np.zeros(0, bool)]),
            f"projection '{projections[group[0]].name}'" if scope == "layer" else None,
        )
        first = 0
        for k in group:
            w = weights[k]
            zero = cut[first : first + w.size].reshape(w.shape)
            first += w.size
            pruned[projections[k].name] = packed(np.where(zero, w.dtype.type(0), w))
    return network.with_weights(pruned)


def input_importance(network: Network, inputs: Recording) -> dict[str, Float]:
    """Importance of every weight from what it carries: ``|w_ji| * rms(a_i)``.

    The root mean square of the source's activation is taken over the recorded steps of the dense
    network (as Sun et al. 2023, "Wanda").

    Parameters
    ----------
    network : Network
    inputs : array of shape (T, n_inputs), or sequence of such arrays
        See `eventsim.models.activity.activity`.

    Returns
    -------
    dict of str to float64 array of shape (target size, source size)
        By projection.

    Raises
    ------
    InputError
        If the inputs do not fit the network.
    """
    activations = activity(network, inputs).activations
    rms = {name: np.sqrt((a * a).mean(axis=0)) for name, a in activations.items()}
    return {
        q.name: np.abs(q.weights.to_dense().astype(np.float64)) * rms[q.source]
        for q in network.projections
    }


def polynomial_sparsity(step: int, steps: int, final: float, initial: float = 0.0) -> float:
    """Sparsity at a step of gradual pruning.

    ``final + (initial - final) (1 - step / steps)^3`` (Zhu & Gupta 2017, arXiv 1710.01878): fast
    at first, where much is redundant, and slow at the end.

    Parameters
    ----------
    step, steps : int
        ``0 <= step <= steps``.
    final, initial : float
        In [0, 1).

    Raises
    ------
    InputError
        If a number is out of range.

    Examples
    --------
    >>> from eventsim.models.pruning import polynomial_sparsity
    >>> [round(polynomial_sparsity(k, 4, 0.9), 3) for k in range(5)]
    [0.0, 0.52, 0.787, 0.886, 0.9]
    """
    if steps < 1 or not 0 <= step <= steps:
        raise InputError(f"is {step} of {steps}; give 0 to {steps}", field="step")
    _share(final, "final", below_one=True)
    _share(initial, "initial", below_one=True)
    return final + (initial - final) * (1.0 - step / steps) ** 3


def erk_sparsities(network: Network, sparsity: float) -> dict[str, float]:
    """Sparsity of each projection by the Erdos-Renyi rule, for a sparsity of the whole.

    The density of a projection of shape (m, n) is proportional to ``(m + n) / (m n)`` (Mocanu et
    al. 2018; Evci et al. 2020, arXiv 1911.11134, whose kernels add their sides), and at most 1.

    Parameters
    ----------
    network : Network
    sparsity : float
        In [0, 1).

    Returns
    -------
    dict of str to float
        By projection; pass each to `prune` with the other projections excluded.

    Raises
    ------
    InputError
        If `sparsity` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network
    >>> from eventsim.models.pruning import erk_sparsities
    >>> network = Network.from_arrays([np.ones((90, 10)), np.ones((10, 90))])
    >>> {k: round(v, 3) for k, v in erk_sparsities(network, 0.8).items()}
    {'input->hidden1': 0.8, 'hidden1->output': 0.8}
    """
    _share(sparsity, "sparsity", below_one=True)
    shapes = {q.name: q.weights.shape for q in network.projections}
    wanted = (1.0 - sparsity) * sum(m * n for m, n in shapes.values())
    full: set[str] = set()
    while True:
        room = wanted - sum(shapes[k][0] * shapes[k][1] for k in full)
        rest = {k: m + n for k, (m, n) in shapes.items() if k not in full}
        factor = room / sum(rest.values()) if rest else 0.0
        over = {k for k, s in rest.items() if factor * s > shapes[k][0] * shapes[k][1]}
        if not over:
            break
        full |= over
    return {
        k: 0.0 if k in full else 1.0 - factor * (m + n) / (m * n) for k, (m, n) in shapes.items()
    }


def rewind(pruned: Network, initial: Network) -> Network:
    """Return the initial weights under the mask of a pruned network: a lottery ticket.

    (Frankle & Carbin 2019, arXiv 1803.03635.) Biases and thresholds are the initial ones too.

    Parameters
    ----------
    pruned, initial : Network
        With the same projections.

    Raises
    ------
    InputError
        If the projections differ.
    """
    masks = {q.name: q.weights.to_dense() != 0 for q in pruned.projections}
    shapes = {q.name: q.weights.shape for q in initial.projections}
    if shapes != {name: mask.shape for name, mask in masks.items()}:
        raise InputError("has other projections than the pruned network", where="initial network")
    return initial.with_weights(
        {
            q.name: packed(np.where(masks[q.name], q.weights.to_dense(), q.weights.dtype.type(0)))
            for q in initial.projections
        }
    )


def connection_sparsity(network: Network) -> float:
    """Share of all weights of the network that are exactly zero."""
    positions = sum(q.weights.n_positions for q in network.projections)
    return 1.0 - network.n_synapses / positions if positions else 0.0


def _scores(projection: Projection, weights: NDArray[Any], given: ArrayLike | None) -> Float:
    if given is None:
        return np.abs(weights.astype(np.float64))
    where = f"importance of projection '{projection.name}'"
    score = np.asarray(given, np.float64)
    if score.shape != weights.shape:
        raise InputError(f"has shape {score.shape}, expected {weights.shape}", where=where)
    if not np.isfinite(score).all() or (score < 0.0).any():
        raise InputError("holds NaN, infinity or negative values; give numbers >= 0", where=where)
    return score


def _protected(score: Float, nonzero: Mask, column: float, row: float, layer: float) -> Mask:
    """Weights that the caps keep: the most important of each column, row and of the layer."""
    return (
        _top(score.T, nonzero.T, column).T
        | _top(score, nonzero, row)
        | _top(score.reshape(1, -1), nonzero.reshape(1, -1), layer).reshape(score.shape)
    )


def _top(score: Float, nonzero: Mask, cap: float) -> Mask:
    """The nonzero ones among the most important of each row that `cap` keeps."""
    length = score.shape[1]
    # 1e-9 takes the rounding of the product back: 0.2 of 5 is one weight, not two.
    keep = math.ceil((1.0 - cap) * length - 1e-9)
    top = np.zeros(score.shape, np.bool_)
    if keep > 0:
        ranking = np.where(nonzero, -score, np.inf)
        best = np.argsort(ranking, axis=1, kind="stable")[:, :keep]
        np.put_along_axis(top, best, True, axis=1)
    return top & nonzero


def _smallest(
    sparsity: float, score: Float, nonzero: Mask, protected: Mask, where: str | None
) -> Mask:
    """Mark what shall be zero in one ranking."""
    count = round(sparsity * score.size)
    available = score.size - int(np.count_nonzero(protected))
    if count > available:
        # Rounded down, so that what the message names does work.
        allowed = math.floor(1e4 * available / score.size) / 1e4
        raise InputError(
            f"is {sparsity:g}, but the caps per column, row and layer allow no more than "
            f"{allowed:g}; lower it or raise max_column_sparsity, max_row_sparsity or "
            "max_layer_sparsity",
            where=where,
            field="sparsity",
        )
    # Stable, so ties go by index; weights that are zero already come first, protected ones last.
    order = np.argsort(np.where(protected, np.inf, np.where(nonzero, score, -1.0)), kind="stable")
    cut = ~nonzero
    cut[order[:count]] = True
    return cut


def packed(weights: NDArray[Any]) -> Connectivity | NDArray[Any]:
    """Return weights as sparse connectivity where that takes less memory, else as they are."""
    listed = np.count_nonzero(weights) * (weights.itemsize + 8) + 8 * (weights.shape[1] + 1)
    if listed >= weights.nbytes:
        return weights
    sources, targets = np.nonzero(weights.T)
    pointers = np.zeros(weights.shape[1] + 1, np.int64)
    np.cumsum(np.bincount(sources, minlength=weights.shape[1]), out=pointers[1:])
    arrays = (pointers, targets.astype(np.int64), weights[targets, sources])
    for array in arrays:
        array.flags.writeable = False
    return Sparse((weights.shape[0], weights.shape[1]), *arrays)


def _names(network: Network, names: Iterable[str], field: str) -> set[str]:
    known = {q.name for q in network.projections}
    chosen = {names} if isinstance(names, str) else set(names)
    if chosen - known:
        raise UnknownNameError(
            f"no projection is called {min(chosen - known)!r}; there are: "
            + ", ".join(sorted(known)),
            field=field,
        )
    return chosen


def _share(value: float, field: str, *, below_one: bool) -> float:
    if not (0.0 <= value <= 1.0) or (below_one and value == 1.0):
        bounds = "at least 0 and below 1" if below_one else "from 0 to 1"
        raise InputError(f"is {value}; give a number {bounds}", field=field)
    return float(value)
