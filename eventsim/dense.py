"""The dense forward pass of a network in NumPy: the baseline, and the oracle at threshold 0."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError
from eventsim.network import Network
from eventsim.neurons import Delta, MaxPool

Float = NDArray[np.float64]


class DenseForward:
    """Compute every neuron at every step, in float64.

    A delayed projection contributes 0 until its delay has passed since the reset.

    Parameters
    ----------
    network : Network
        Thresholds are ignored.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import DenseForward, Network
    >>> DenseForward(Network.from_arrays([np.array([[1.0, -2.0]])])).step([3.0, 1.0])
    array([1.])
    """

    def __init__(self, network: Network) -> None:
        self.network = network
        ranks = network.ranks
        self._order = sorted(network.populations, key=lambda p: ranks[p.name])
        self._incoming = {p.name: network.incoming(p.name) for p in network.populations}
        self._bias = {
            p.name: p.parameter("bias") for p in network.populations if isinstance(p.neuron, Delta)
        }
        self._delays = {
            p.name: max((q.delay for q in network.outgoing(p.name)), default=0)
            for p in network.populations
        }
        self.activations: dict[str, Float] = {}
        self.pre_activations: dict[str, Float] = {}
        self._history: dict[str, deque[Float]] = {}
        self.reset()

    def reset(self) -> None:
        """Forget all delayed values."""
        self.activations = {p.name: np.zeros(p.size) for p in self.network.populations}
        self.pre_activations = {}
        self._history = {name: deque(maxlen=delay) for name, delay in self._delays.items() if delay}

    def step(self, inputs: ArrayLike) -> Float:
        """Compute one step.

        Parameters
        ----------
        inputs : array of shape (n_inputs,)

        Returns
        -------
        float64 array of shape (n_outputs,)

        Raises
        ------
        InputError
            If the inputs have another shape or are not finite.
        """
        x = np.asarray(inputs, np.float64)
        if x.shape != (self.network.n_inputs,):
            raise InputError(f"inputs have shape {x.shape}, expected ({self.network.n_inputs},)")
        if not np.isfinite(x).all():
            raise InputError("inputs hold NaN or infinity")
        first = 0
        new: dict[str, Float] = {}
        for name in self.network.inputs:
            size = self.network[name].size
            new[name] = x[first : first + size]
            first += size
        for population in self._order:
            name = population.name
            if isinstance(population.neuron, Delta):
                u = self._bias[name].copy()
                for q in self._incoming[name]:
                    if q.delay == 0:
                        source = new[q.source]
                    elif len(self._history[q.source]) >= q.delay:
                        source = self._history[q.source][-q.delay]
                    else:
                        continue
                    u += q.weights @ source
                self.pre_activations[name] = u
                new[name] = population.neuron.activation(u)
            elif isinstance(population.neuron, MaxPool):
                (q,) = self._incoming[name]
                self.pre_activations[name] = new[name] = q.weights @ new[q.source]
        for name, line in self._history.items():
            line.append(new[name])
        self.activations = new
        return np.concatenate([new[name] for name in self.network.outputs])

    def run(self, inputs: ArrayLike) -> Float:
        """Compute T steps: inputs of shape (T, n_inputs), outputs of shape (T, n_outputs)."""
        x = np.atleast_2d(np.asarray(inputs, np.float64))
        out = [self.step(row) for row in x]
        return np.stack(out) if out else np.zeros((0, self.network.n_outputs))

    def activations_over(self, inputs: ArrayLike) -> dict[str, Float]:
        """Compute T steps and return every population's activations, each of shape (T, size)."""
        rows: dict[str, list[Float]] = {p.name: [] for p in self.network.populations}
        for row in np.atleast_2d(np.asarray(inputs, np.float64)):
            self.step(row)
            for name, values in self.activations.items():
                rows[name].append(values)
        return {
            name: np.stack(values) if values else np.zeros((0, self.network[name].size))
            for name, values in rows.items()
        }
