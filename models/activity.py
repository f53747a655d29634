"""What the neurons of a network do over recorded inputs, dense and all steps at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.dense import DenseForward
from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.neurons import Delta

Float: TypeAlias = NDArray[np.float64]
#: Encoded inputs of shape (T, n_inputs), or one such array an episode.
Recording: TypeAlias = ArrayLike | Sequence[ArrayLike]


@dataclass(frozen=True, eq=False)
class Activity:
    """Pre-activations and activations over T steps, all episodes joined.

    Attributes
    ----------
    pre_activations : dict of str to float64 array of shape (T, size)
        By population; input populations have none.
    activations : dict of str to float64 array of shape (T, size)
        By population.
    lengths : tuple of int
        Steps of each episode.
    """

    pre_activations: dict[str, Float]
    activations: dict[str, Float]
    lengths: tuple[int, ...]

    def delayed(self, population: str, delay: int) -> Float:
        """Activations `delay` steps earlier in the same episode, 0 before its start."""
        values = self.activations[population]
        if delay == 0:
            return values
        late = np.zeros_like(values)
        first = 0
        for length in self.lengths:
            kept = max(length - delay, 0)
            late[first + length - kept : first + length] = values[first : first + kept]
            first += length
        return late


def activity(network: Network, inputs: Recording) -> Activity:
    """Run the dense forward pass over recorded inputs, thresholds ignored.

    Parameters
    ----------
    network : Network
    inputs : array of shape (T, n_inputs), or sequence of such arrays
        Encoded inputs; delay lines are empty at the start of each array.

    Returns
    -------
    Activity

    Raises
    ------
    InputError
        If there is no step, or the inputs have another shape or are not finite.
    """
    episodes = _episodes(network, inputs)
    if not any(q.delay for q in network.projections):
        pre, post = _at_once(network, np.concatenate(episodes))
    else:
        pre, post = _step_by_step(network, episodes)
    return Activity(pre, post, tuple(len(x) for x in episodes))


def _episodes(network: Network, inputs: Recording) -> list[Float]:
    several = isinstance(inputs, list | tuple) and len(inputs) > 0 and np.ndim(inputs[0]) == 2
    episodes = [np.asarray(x, np.float64) for x in (inputs if several else [inputs])]  # type: ignore[union-attr]
    for x in episodes:
        if x.ndim != 2 or x.shape[1] != network.n_inputs:
            raise InputError(f"inputs have shape {x.shape}, expected (steps, {network.n_inputs})")
        if not np.isfinite(x).all():
            raise InputError("inputs hold NaN or infinity; record finite ones")
    if sum(len(x) for x in episodes) == 0:
        raise InputError("inputs hold no step; record at least one")
    return episodes


def _at_once(network: Network, x: Float) -> tuple[dict[str, Float], dict[str, Float]]:
    """Without delays the steps do not depend on each other."""
    ranks = network.ranks
    pre: dict[str, Float] = {}
    post: dict[str, Float] = {}
    first = 0
    for name in network.inputs:
        post[name] = x[:, first : first + network[name].size]
        first += network[name].size
    for population in sorted(network.populations, key=lambda p: ranks[p.name]):
        if isinstance(population.neuron, Delta):
            u = np.tile(population.parameter("bias"), (len(x), 1))
            for q in network.incoming(population.name):
                u += (q.weights @ post[q.source].T).T
            pre[population.name] = u
            post[population.name] = population.neuron.activation(u)
    return pre, post


def _step_by_step(
    network: Network, episodes: Sequence[Float]
) -> tuple[dict[str, Float], dict[str, Float]]:
    dense = DenseForward(network)
    pre: dict[str, list[Float]] = {}
    post: dict[str, list[Float]] = {}
    for x in episodes:
        dense.reset()
        for row in x:
            dense.step(row)
            for rows, values in ((pre, dense.pre_activations), (post, dense.activations)):
                for name, value in values.items():
                    rows.setdefault(name, []).append(value)
    return (
        {name: np.stack(rows) for name, rows in pre.items()},
        {name: np.stack(rows) for name, rows in post.items()},
    )
