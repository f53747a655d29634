"""The figures that NeuroBench defines, by its own rules, for networks of eventsim.

They describe the dense forward pass of the network (Yik et al., NeuroBench, Nature Communications
16, 2025), not the events; docs/sparsity.md says how they differ from the figures of a run. The
rules are those of NeuroBench 2.3; tests/reference_neurobench.py records what NeuroBench itself
says, and a test compares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.dense import DenseForward
from eventsim.errors import InputError
from eventsim.network import Network, Population
from eventsim.neurons import Delta, Input, MaxPool

if TYPE_CHECKING:
    from eventsim.connectivity import Connectivity

#: Activations that NeuroBench counts unless others are registered.
REGISTERED = ("relu", "sigmoid")

# Steps computed at once, so that long recordings do not need all activations in memory.
_CHUNK = 4096


@dataclass(frozen=True)
class SynapticOperations:
    """Operations of one connection layer over all its forward passes.

    Parameters
    ----------
    macs, acs : int
        Surviving weights met by a non-zero input; they are ACs in the forward passes whose
        inputs to this layer are all -1, 0 or 1, else MACs.
    dense : int
        All weights, every time.
    """

    macs: int
    acs: int
    dense: int

    def __add__(self, other: SynapticOperations) -> SynapticOperations:
        return SynapticOperations(
            self.macs + other.macs, self.acs + other.acs, self.dense + other.dense
        )


@dataclass(frozen=True)
class NeuroBenchFigures:
    """What NeuroBench reports; operations and membrane updates are means per sample.

    Parameters
    ----------
    samples : int
        Inputs, one sample each.
    effective_macs, effective_acs, dense : float
        Synaptic operations; biases are none.
    activation_sparsity : float
        Share of zeros in the outputs of the registered activations; 0 if there are none.
    connection_sparsity : float
        Share of zeros in the weights, rounded to 4 digits as NeuroBench does.
    footprint : int
        Bytes of weights and biases.
    parameter_count : int
    membrane_updates : float
        Updates of the membrane potentials of spiking neurons: 0 for a delta network.
    layers : dict of str to SynapticOperations
        Totals of each projection, over all samples.
    """

    samples: int
    effective_macs: float
    effective_acs: float
    dense: float
    activation_sparsity: float
    connection_sparsity: float
    footprint: int
    parameter_count: int
    membrane_updates: float
    layers: dict[str, SynapticOperations]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures under the names of NeuroBench's results."""
        return {
            "Footprint": self.footprint,
            "ConnectionSparsity": self.connection_sparsity,
            "ParameterCount": self.parameter_count,
            "ActivationSparsity": self.activation_sparsity,
            "SynapticOperations": {
                "Effective_MACs": self.effective_macs,
                "Effective_ACs": self.effective_acs,
                "Dense": self.dense,
            },
            "MembraneUpdates": self.membrane_updates,
        }


def neurobench_figures(
    network: Network,
    inputs: ArrayLike,
    *,
    batch_size: int = 1,
    registered: Collection[str] = REGISTERED,
    parameter_bytes: int | None = None,
) -> NeuroBenchFigures:
    """Return NeuroBench's figures of a network on recorded inputs.

    Parameters
    ----------
    network : Network
        Without delays, which NeuroBench does not know. Each projection is one of its connection
        layers.
    inputs : array of shape (samples, n_inputs)
        Such as ``Session.inputs`` of every step.
    batch_size : int
        Samples of a forward pass. NeuroBench decides once for a layer and forward pass whether
        it counts MACs or ACs, so the figures depend on it; 1 is a policy in its environment.
    registered : collection of str
        Names of the activations that are counted. NeuroBench itself knows relu and sigmoid; add
        ``"tanh"`` for what ``model.add_activation_module(torch.nn.Tanh)`` does there.
    parameter_bytes : int, optional
        Bytes of a parameter; default those of the weights of the same layer.

    Raises
    ------
    InputError
        If the network has delays or neurons other than delta neurons, or shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network
    >>> from eventsim.analysis.neurobench import neurobench_figures
    >>> network = Network.from_arrays([np.array([[1.0, -1.0], [0.0, 2.0]]), np.ones((1, 2))])
    >>> figures = neurobench_figures(network, [[1.0, 0.0], [0.5, 1.0]])
    >>> figures.effective_macs, figures.effective_acs, figures.dense
    (2.0, 1.0, 6.0)
    >>> figures.activation_sparsity, figures.connection_sparsity
    (0.5, 0.1667)
    """
    delayed = [p.name for p in network.projections if p.delay]
    if delayed:
        raise InputError(
            f"has delays ({', '.join(delayed)}), which NeuroBench does not know", field="network"
        )
    known = (Input, Delta, MaxPool)
    strange = [p.name for p in network.populations if not isinstance(p.neuron, known)]
    if strange:
        raise InputError(
            f"has neurons without an activation function ({', '.join(strange)}); use "
            "synaptic_operations and membrane_updates on recorded arrays",
            field="network",
        )
    x = np.asarray(inputs, np.float64)
    if x.ndim != 2 or x.shape[1] != network.n_inputs or not len(x):
        raise InputError(
            f"have shape {x.shape}; give (samples >= 1, {network.n_inputs})", field="inputs"
        )
    _check_batch(batch_size)
    # Pools are no connection layers there: they have no parameters.
    projections = [p for p in network.projections if p.weights.trainable]
    layers = {p.name: SynapticOperations(0, 0, 0) for p in projections}
    counted = {p.name for p in network.populations if _is_delta(p) and _activation(p) in registered}
    zeros = outputs = 0
    for activations in _forward(network, x, batch_size):
        for p in projections:
            layers[p.name] += synaptic_operations(p.weights, activations[p.source], batch_size)
        for name in counted:
            zeros += int(np.count_nonzero(activations[name] == 0.0))
            outputs += activations[name].size
    parameters, footprint = _parameters(network, parameter_bytes)
    total = sum(layers.values(), SynapticOperations(0, 0, 0))
    return NeuroBenchFigures(
        samples=len(x),
        effective_macs=total.macs / len(x),
        effective_acs=total.acs / len(x),
        dense=total.dense / len(x),
        activation_sparsity=zeros / outputs if outputs else 0.0,
        connection_sparsity=_connection_sparsity(network),
        footprint=footprint,
        parameter_count=parameters,
        membrane_updates=0.0,
        layers=layers,
    )


def synaptic_operations(
    weights: Connectivity, inputs: ArrayLike, batch_size: int = 1
) -> SynapticOperations:
    """Count the operations of one connection layer.

    Parameters
    ----------
    weights : Connectivity
        Of shape (target size, source size).
    inputs : array of shape (samples, source size)
        What the layer was given: activations, or spikes, where a sample is one time step.
    batch_size : int
        Samples of a forward pass; the last one may have fewer.

    Raises
    ------
    InputError
        If the shape does not fit.
    """
    x = np.asarray(inputs)
    if x.ndim != 2 or x.shape[1] != weights.shape[1]:
        raise InputError(
            f"have shape {x.shape}; give (samples, {weights.shape[1]})", field="inputs"
        )
    _check_batch(batch_size)
    if not len(x):
        return SynapticOperations(0, 0, 0)
    operations = (x != 0) @ weights.fan_out()
    graded = ~((x == 0) | (x == 1) | (x == -1)).all(axis=1)
    first = np.arange(0, len(x), batch_size)
    operations = np.add.reduceat(operations, first)
    graded = np.logical_or.reduceat(graded, first)
    return SynapticOperations(
        macs=int(operations[graded].sum()),
        acs=int(operations[~graded].sum()),
        dense=weights.n_positions * len(x),
    )


def membrane_updates(before: ArrayLike, after: ArrayLike) -> int:
    """Count the updates of the membrane potentials of one layer of spiking neurons.

    All neurons in the first step; later those whose potential differs from the step before.

    Parameters
    ----------
    before, after : array of shape (steps, ...)
        Potential at the beginning and at the end of every step; further axes are neurons and
        samples.

    Raises
    ------
    InputError
        If the shapes differ.

    Examples
    --------
    >>> from eventsim.analysis.neurobench import membrane_updates
    >>> membrane_updates([[0.0, 0.0], [0.5, 0.0]], [[0.5, 0.0], [0.7, 0.0]])
    3
    """
    old, new = np.asarray(before), np.asarray(after)
    if old.shape != new.shape or old.ndim < 1:
        raise InputError(
            f"have shapes {old.shape} and {new.shape}; give both the same, (steps, ...)",
            field="before, after",
        )
    return int(new[:1].size + np.count_nonzero(old[1:] - new[1:]))


def _forward(
    network: Network, x: NDArray[np.float64], batch_size: int
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Activations of every population, in chunks of whole batches."""
    dense = DenseForward(network)
    chunk = max(_CHUNK // batch_size, 1) * batch_size
    for start in range(0, len(x), chunk):
        yield dense.activations_over(x[start : start + chunk])


def _is_delta(population: Population) -> bool:
    return isinstance(population.neuron, Delta)


def _activation(population: Population) -> str:
    activation = getattr(population.neuron, "activation")  # noqa: B009
    return str(getattr(activation, "base", activation).name)  # fixed point rounds another one


def _parameters(network: Network, parameter_bytes: int | None) -> tuple[int, int]:
    """Number and bytes of the weights and biases that a torch model of the network has."""
    count = size = 0
    for population in network.populations:
        incoming = network.incoming(population.name)
        weights = sum(p.weights.n_parameters for p in incoming)
        itemsize = max((p.weights.dtype.itemsize for p in incoming), default=8)
        # A scalar 0 is a layer without bias; an array is one, even of zeros.
        bias = getattr(population.neuron, "bias", 0.0)
        biases = 0
        if isinstance(bias, np.ndarray) or bias != 0.0:
            # A convolution shares its biases too: one a channel.
            biases = min((p.weights.n_biases for p in incoming), default=population.size)
        count += weights + biases
        if parameter_bytes is not None:
            size += (weights + biases) * parameter_bytes
        else:
            size += sum(p.weights.n_parameters * p.weights.dtype.itemsize for p in incoming)
            size += biases * itemsize
    return count, size


def _connection_sparsity(network: Network) -> float:
    weights = sum(p.weights.n_parameters for p in network.projections)
    if not weights:
        return 0.0
    zeros = sum(p.weights.n_zeros for p in network.projections)
    # NeuroBench divides in float32 and rounds; so its fourth digit is reached.
    share = np.float32(zeros) / np.float32(weights)
    return round(float(share), 4)


def _check_batch(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"is {batch_size}; give at least 1", field="batch_size")


__all__ = [
    "REGISTERED",
    "NeuroBenchFigures",
    "SynapticOperations",
    "membrane_updates",
    "neurobench_figures",
    "synaptic_operations",
]
