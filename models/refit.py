"""Mend a pruned network without gradients: refit what survives to what the teacher computes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.connectivity import Connectivity
from eventsim.errors import InputError, NetworkError
from eventsim.models.activity import Activity, Float, Recording, activity
from eventsim.models.pruning import connection_sparsity, input_importance, packed, prune
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta

#: Ridge, relative to the variance of each regressor.
RIDGE = 1e-4


def refit(
    network: Network,
    teacher: Network,
    inputs: Recording,
    *,
    step_weights: ArrayLike | None = None,
    ridge: float = RIDGE,
) -> Network:
    """Refit surviving weights and biases to the teacher's pre-activations, layer by layer.

    For every neuron j, with the activations a of its surviving inputs *in the pruned network* and
    the teacher's pre-activation t_j over the recorded steps, the change d of its weights minimises

        mean((t_j - b_j - (w_j + d) a)^2) + ridge * sum(var(a_i) d_i^2)

    b_j being the best bias, means and variances weighted by step if wanted. Layers go in order of
    rank, so each makes up for the errors of those before it. Zeros stay zeros. This is
    least-squares reconstruction as in layer-wise pruning (He et al. 2017, "Channel pruning"); with
    feedback, delayed activations are those before the refit.

    Parameters
    ----------
    network : Network
        Pruned.
    teacher : Network
        With populations and projections of the same names and shapes.
    inputs : array of shape (T, n_inputs), or sequence of such arrays
        Encoded inputs that both see, see `eventsim.models.activity.activity`.
    step_weights : array of shape (T,), optional
        How much each recorded step counts, >= 0; T runs over all episodes. Default all the same.
    ridge : float, optional
        How strongly weights are held, >= 0.

    Returns
    -------
    Network
        With the weights' dtypes, thresholds and dense MACs of `network`.

    Raises
    ------
    NetworkError
        If the networks do not match.
    InputError
        If `inputs` or `step_weights` do not fit, or `ridge` is out of range.
    """
    if not (np.isfinite(ridge) and ridge >= 0.0):
        raise InputError(f"is {ridge}; give a finite number >= 0", field="ridge")
    _check(network, teacher)
    targets = activity(teacher, inputs).pre_activations
    present = activity(network, inputs)
    share = _shares(step_weights, sum(present.lengths))
    ranks = network.ranks
    populations = {p.name: p for p in network.populations}
    weights: dict[str, Connectivity | NDArray[Any]] = {}
    for population in sorted(network.populations, key=lambda p: ranks[p.name]):
        incoming = network.incoming(population.name)
        if incoming and isinstance(population.neuron, Delta):
            new, bias, u = _refit_population(
                incoming, present, targets[population.name], share, ridge
            )
            weights.update({q.name: packed(w) for q, w in zip(incoming, new, strict=True)})
            populations[population.name] = _with_bias(population, bias)
            present.activations[population.name] = population.neuron.activation(u)
    return replace(network, populations=tuple(populations.values())).with_weights(weights)


def prune_and_refit(
    network: Network,
    sparsity: float,
    inputs: Recording,
    *,
    teacher: Network | None = None,
    step_weights: ArrayLike | None = None,
    rounds: int = 8,
    **options: Any,
) -> Network:
    """Prune in rounds of equal size, refitting after each.

    The importance of a weight is its magnitude times the root mean square of its input (see
    `eventsim.models.pruning.input_importance`), taken anew in every round.

    Parameters
    ----------
    network : Network
    sparsity : float
        Share of the weights that shall be zero in the end, in [0, 1).
    inputs : array of shape (T, n_inputs), or sequence of such arrays
    teacher : Network, optional
        Default `network`, as it is before.
    step_weights : array of shape (T,), optional
        As for `refit`.
    rounds : int, optional
    **options
        Those of `eventsim.models.pruning.prune`, but for ``importance``.

    Returns
    -------
    Network

    Raises
    ------
    InputError, NetworkError
        As `prune` and `refit` do, or if `rounds` is below 1.
    """
    if rounds < 1:
        raise InputError(f"is {rounds}; give at least 1", field="rounds")
    teacher = network if teacher is None else teacher
    start = min(connection_sparsity(network), sparsity)
    result = network
    for k in range(1, rounds + 1):
        # The last one is exact: no rounding of the interpolation in the share asked for.
        share = sparsity if k == rounds else start + (sparsity - start) * k / rounds
        result = prune(result, share, importance=input_importance(result, inputs), **options)
        result = refit(result, teacher, inputs, step_weights=step_weights)
    return result


def _check(network: Network, teacher: Network) -> None:
    mine = [(p.name, p.size) for p in network.populations]
    theirs = [(p.name, p.size) for p in teacher.populations]
    links = [
        sorted((q.name, q.source, q.target, q.delay) for q in n.projections)
        for n in (network, teacher)
    ]
    if sorted(mine) != sorted(theirs) or links[0] != links[1]:
        raise NetworkError(
            "the pruned network and its teacher have other populations or projections; refit what "
            "was pruned from this teacher",
            where="refit",
        )


def _shares(step_weights: ArrayLike | None, steps: int) -> Float:
    """What each step counts of the whole."""
    if step_weights is None:
        return np.full(steps, 1.0 / steps)
    weights = np.asarray(step_weights, np.float64)
    if weights.shape != (steps,):
        raise InputError(
            f"has shape {weights.shape}, expected ({steps},)", where="refit", field="step_weights"
        )
    if not np.isfinite(weights).all() or (weights < 0.0).any() or not weights.any():
        raise InputError(
            "holds NaN, infinity, negative values or only zeros; give numbers >= 0",
            where="refit",
            field="step_weights",
        )
    return np.asarray(weights / weights.sum())


def _refit_population(
    incoming: tuple[Projection, ...], present: Activity, target: Float, share: Float, ridge: float
) -> tuple[list[NDArray[Any]], Float, Float]:
    """New weights of each projection, biases, and the pre-activations that follow."""
    before = [q.weights.to_dense() for q in incoming]
    joined = np.concatenate([w.astype(np.float64) for w in before], axis=1)
    sources = np.concatenate([present.delayed(q.source, q.delay) for q in incoming], axis=1)
    mean, target_mean = share @ sources, share @ target
    centred = sources - mean
    weighted = (centred * share[:, np.newaxis]).T
    gram = weighted @ centred
    wanted = weighted @ (target - target_mean)
    for j, row in enumerate(joined):
        alive = np.flatnonzero(row)
        if alive.size:
            row[alive] += _solve(gram[np.ix_(alive, alive)], wanted[alive, j], row[alive], ridge)
    new: list[NDArray[Any]] = []
    for w in np.split(joined, np.cumsum([w.shape[1] for w in before])[:-1], axis=1):
        new.append(w.astype(before[len(new)].dtype))
    # The bias makes up for the rounding of float32 weights too.
    joined = np.concatenate([w.astype(np.float64) for w in new], axis=1)
    bias = target_mean - joined @ mean
    return new, bias, sources @ joined.T + bias


def _solve(gram: Float, wanted: Float, weights: Float, ridge: float) -> Float:
    """Minimise ``d (G + R) d / 2 - d (c - G w)``, R the ridge on each regressor's variance."""
    variance = np.diag(gram)
    # A regressor that never moves gets no change.
    moves = variance > 1e-12 * max(float(variance.max()), 1e-300)
    change = np.zeros_like(weights)
    g = gram[np.ix_(moves, moves)]
    if g.size:
        right = (wanted - gram @ weights)[moves]
        scale = np.sqrt(variance[moves])
        correlation = g / np.outer(scale, scale) + ridge * np.eye(len(g))
        # Only without ridge may it be singular; the least norm is then the least change.
        change[moves] = (
            np.linalg.solve(correlation, right / scale)
            if ridge > 0.0
            else np.linalg.lstsq(correlation, right / scale, rcond=None)[0]
        ) / scale
    return change


def _with_bias(population: Population, bias: ArrayLike) -> Population:
    neuron = population.neuron
    if not isinstance(neuron, Delta):
        raise NetworkError("has no bias", where=f"population '{population.name}'")
    return replace(population, neuron=Delta(neuron.activation, bias, neuron.threshold))
