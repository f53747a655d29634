"""Populations and projections, of which a network is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from eventsim.errors import NetworkError
from eventsim.neurons import FloatArray, Input, NeuronModel
from eventsim.spiking_neurons import SpikeInput, SpikeSource

if TYPE_CHECKING:
    from eventsim.connectivity import Connectivity

#: Longest delay in steps: a delay line holds that many values a neuron.
MAX_DELAY = 1_000_000


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons that share one neuron model and its parameters.

    Parameters
    ----------
    name : str
        Unique in its network.
    size : int
        Number of neurons, >= 1.
    neuron : NeuronModel
        Model; its array parameters have shape (size,).
    shape : tuple of int, optional
        Layout of the neurons (C order), such as ``(channels, height, width)``; its product is
        `size`. Default ``(size,)``.

    Raises
    ------
    NetworkError
        If a field contradicts another one.
    """

    name: str
    size: int
    neuron: NeuronModel
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        where = f"population '{self.name}'"
        if not isinstance(self.name, str) or not self.name:
            raise NetworkError("must be a non-empty string", where=where, field="name")
        if isinstance(self.size, bool) or not isinstance(self.size, int | np.integer):
            raise NetworkError("must be an integer", where=where, field="size")
        if self.size < 1:
            raise NetworkError(f"is {self.size}; give at least 1 neuron", where=where, field="size")
        if not isinstance(self.neuron, NeuronModel):
            raise NetworkError("must be a neuron model", where=where, field="neuron")
        object.__setattr__(self, "size", int(self.size))
        shape = tuple(int(n) for n in self.shape) or (self.size,)
        if int(np.prod(shape)) != self.size:
            raise NetworkError(
                f"{shape} does not hold {self.size} neurons", where=where, field="shape"
            )
        object.__setattr__(self, "shape", shape)
        for name, value in vars(self.neuron).items():
            if isinstance(value, np.ndarray) and value.shape != (self.size,):
                raise NetworkError(
                    f"has {value.shape[0]} values for {self.size} neurons; give one value or one "
                    "a neuron",
                    where=where,
                    field=name,
                )
        if isinstance(self.neuron, SpikeInput):
            self.neuron.check_size(self.size)

    @property
    def is_input(self) -> bool:
        """Whether the neurons are set from outside, or are sources of spikes."""
        return isinstance(self.neuron, Input | SpikeSource)

    def parameter(self, name: str) -> FloatArray:
        """Values of the model's parameter `name` as float64 array of shape (size,)."""
        return np.broadcast_to(np.asarray(getattr(self.neuron, name), np.float64), (self.size,))


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from one population to another.

    Parameters
    ----------
    source, target : str
        Population names.
    weights : Connectivity, array or scipy.sparse matrix of shape (target size, source size)
        Row j holds the weights into target neuron j, as in torch. Exact zeros are no synapses.
    delay : int, optional
        Whole steps between transmission and arrival, >= 0.
    receptor : str, optional
        Port of the target's neuron model; default its first one.
    name : str, optional
        Unique in its network; default ``"source->target"``.
    dense_macs : int, optional
        Multiplications per step of the teacher's layer, before pruning and compaction; default
        the number of weights, zeros included.
    delay_seconds : float or array, optional
        In continuous time, where there are no steps: seconds between spike and arrival, >= 0. An
        array holds one a synapse, in the order of ``weights.indexed()``, or in the shape of a
        dense weight matrix.

    Attributes
    ----------
    synapse_delays : float64 array of shape (n_synapses,) or None
        Seconds, if each synapse has its own; `delay_seconds` is then the longest.

    Raises
    ------
    NetworkError
        If the weights are not finite, or a field is out of range.
    """

    source: str
    target: str
    weights: Connectivity
    delay: int = 0
    receptor: str = ""
    name: str = ""
    dense_macs: int = -1
    delay_seconds: float = 0.0
    synapse_delays: FloatArray | None = None

    def __init__(
        self,
        source: str,
        target: str,
        weights: Any,
        delay: int = 0,
        receptor: str = "",
        name: str = "",
        dense_macs: int | None = None,
        delay_seconds: ArrayLike = 0.0,
    ) -> None:
        from eventsim.connectivity import connectivity

        name = name or f"{source}->{target}"
        where = f"projection '{name}'"
        if not (0 <= delay <= MAX_DELAY and float(delay) == int(delay)):
            raise NetworkError(
                f"is {delay}; give a whole number of steps from 0 to {MAX_DELAY:,}",
                where=where,
                field="delay",
            )
        built = connectivity(weights, where)
        if dense_macs is not None and dense_macs < 0:
            raise NetworkError(f"is {dense_macs}; give >= 0", where=where, field="dense_macs")
        seconds, each = _seconds(delay_seconds, built, where)
        values = {
            "source": source,
            "target": target,
            "weights": built,
            "delay": int(delay),
            "receptor": receptor,
            "name": name,
            "dense_macs": built.dense_macs if dense_macs is None else int(dense_macs),
            "delay_seconds": seconds,
            "synapse_delays": each,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def connection_sparsity(self) -> float:
        """Share of weights that are exactly zero."""
        return 1.0 - self.weights.n_synapses / self.weights.n_positions


def _seconds(
    delay: ArrayLike, weights: Connectivity, where: str
) -> tuple[float, FloatArray | None]:
    """Longest delay, and the delays of the synapses if they have their own."""
    try:
        given = np.array(delay, np.float64)
    except (TypeError, ValueError) as error:
        raise NetworkError("is not a number", where=where, field="delay_seconds") from error
    if not ((given >= 0.0) & np.isfinite(given)).all():
        raise NetworkError("must be finite and >= 0", where=where, field="delay_seconds")
    if given.ndim == 0:
        return float(given), None
    rows = weights.indexed()
    if given.shape == weights.shape:
        sources = np.repeat(np.arange(weights.shape[1]), np.diff(rows.pointers))
        given = given[rows.targets, sources]
    if given.shape != rows.targets.shape:
        raise NetworkError(
            f"has shape {given.shape}; give one number, {rows.targets.shape} or {weights.shape}",
            where=where,
            field="delay_seconds",
        )
    given.flags.writeable = False
    return float(given.max(initial=0.0)), given
