"""Fixed-point policies: small integer weights, quantised activations, sums that are exact.

Every scale is a power of two, a shift on hardware. What a neuron sends is an integer m times the
step of its population (of each input, for inputs); a weight times that step is ``k 2^e`` with an
integer k of few bits and one exponent e a target neuron, so that an accumulator is the integer
``sum k m`` in units of ``2^e``. These sums fit float64's 53 bits: the order of additions does not
matter, and a run by events equals the dense pass bit for bit, for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.connectivity import Sparse
from eventsim.convolution import Local
from eventsim.errors import InputError, NetworkError, UnsupportedError
from eventsim.models.activity import Activity, Recording, activity
from eventsim.models.compaction import unrolled
from eventsim.models.encoders import FixedPoint
from eventsim.models.policy import Policy
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input, Quantized

if TYPE_CHECKING:
    import torch

Float = NDArray[np.float64]

#: Bits of a weight that `quantize` takes.
WEIGHT_BITS = (2, 16)
#: Bits of an activation that `quantize` takes.
ACTIVATION_BITS = (2, 32)
#: Entries of the matrix that a convolution may be unrolled into.
MOST_UNROLLED = 1 << 22
#: Bits that a double can add without rounding.
_EXACT_BITS = 53


@dataclass(frozen=True)
class Size:
    """Bytes of a policy's parameters; what is not a parameter (code, encoder) is not counted.

    Attributes
    ----------
    dense : int
        All weights with their bits, and per neuron a bias and an exponent.
    sparse : int
        Surviving weights with their places (an index each and a count per source, or one bit a
        position, whichever is smaller), and thresholds, biases and exponents of the neurons that
        still have a synapse.
    weight_bits : int
    """

    dense: int
    sparse: int
    weight_bits: int

    def to_dict(self) -> dict[str, int]:
        """Plain data."""
        return {"dense": self.dense, "sparse": self.sparse, "weight_bits": self.weight_bits}


def quantize(
    policy: Policy,
    weight_bits: int = 8,
    inputs: Recording | None = None,
    *,
    activation_bits: int = 8,
    input_bits: int | None = None,
) -> Policy:
    """Return the policy in fixed point.

    Weights (in units of their source's step, so that inputs of small range keep their say) are
    symmetric, with one scale a target neuron (per channel): the smallest power of two that holds
    the largest weight, or half of it, which saturates the largest, whichever has the smaller
    squared error. A weight that rounds to zero is a synapse less. Biases take over the mean error
    of the rounded sums (Nagel et al. 2019, arXiv 1906.04721) in steps of the accumulator;
    thresholds are rounded down to the grid, which changes no comparison.
    Output neurons that transmit to nobody keep their activation: their value is read, not sent.

    Parameters
    ----------
    policy : Policy
    weight_bits : int, optional
        2 to 16, the sign included; 8 and 4 are usual.
    inputs : array of shape (T, n_inputs), or sequence of such arrays
        Encoded inputs recorded in the environment, from which the ranges of inputs and
        activations are read.
    activation_bits : int, optional
        Of what a hidden neuron transmits, 2 to 32, the sign included. With 8, products are int8
        by int9 (a difference of two int8).
    input_bits : int, optional
        Of the encoder's values; default `activation_bits`.

    Returns
    -------
    Policy
        With ``weight_bits``, ``activation_bits`` and ``input_bits`` in its metadata.

    Raises
    ------
    InputError
        If bits are out of range, or there are no recorded inputs.
    UnsupportedError
        If an activation has no fixed-point form, the sums would not fit 53 bits, or the network
        has convolutions too large to be unrolled: each position has a scale of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network, Policy
    >>> from eventsim.models.decoders import Argmax
    >>> from eventsim.models.encoders import BoxSpec, Encoder
    >>> from eventsim.models.quantization import quantize, size_bytes
    >>> rng = np.random.default_rng(0)
    >>> net = Network.from_arrays([rng.normal(size=(16, 4)), rng.normal(size=(2, 16))])
    >>> policy = Policy(Encoder(BoxSpec((4,))), net, Argmax(2))
    >>> small = quantize(policy, 8, rng.normal(size=(100, 4)))
    >>> size_bytes(policy).dense, size_bytes(small).dense
    (456, 186)
    """
    _check_bits("weight_bits", weight_bits, WEIGHT_BITS)
    _check_bits("activation_bits", activation_bits, ACTIVATION_BITS)
    input_bits = activation_bits if input_bits is None else input_bits
    _check_bits("input_bits", input_bits, ACTIVATION_BITS)
    if inputs is None:
        raise InputError(
            "are needed to read the ranges of the activations; record some in the environment",
            where="quantize",
            field="inputs",
        )
    network = policy.network
    check_size(network)
    network = unrolled(network)
    recorded = activity(network, inputs)
    ranges = {name: np.abs(a).max(axis=0) for name, a in recorded.activations.items()}
    if policy.encoder.pixels is not None:
        # A pixel that was dark in all of the recording may be lit later.
        for name in network.inputs:
            ranges[name] = np.full(network[name].size, ranges[name].max())
    quanta = {
        p.name: (
            quanta_for(ranges[p.name], input_bits)
            if p.is_input
            else np.full(p.size, quanta_for(ranges[p.name].max(keepdims=True), activation_bits)[0])
        )
        for p in network.populations
    }
    sources = {q.source for q in network.projections}
    exponents = {
        p.name: _exponents(_fan_in(network, p.name, quanta), weight_bits)
        for p in network.populations
        if not p.is_input
    }
    rounded = network.with_weights(
        {
            q.name: _weights(q, exponents[q.target], quanta[q.source], weight_bits)
            for q in network.projections
        }
    )
    populations = []
    for p in network.populations:
        if p.is_input:
            grid = quanta[p.name]
            limit = p.parameter("threshold")
            populations.append(replace(p, neuron=Input(np.floor(limit / grid) * grid)))
            continue
        if not isinstance(p.neuron, Delta):
            raise UnsupportedError(
                f"neurons '{p.neuron.kind}' have no fixed-point form",
                where=f"population '{p.name}'",
            )
        populations.append(
            _population(
                p,
                p.neuron,
                quanta[p.name] if p.name in sources else None,
                2.0 ** exponents[p.name].astype(np.float64),
                activation_bits,
            )
        )
    fixed = replace(rounded, populations=tuple(populations))
    grid = np.concatenate([quanta[name] for name in network.inputs])
    rounding = FixedPoint(grid, 2 ** (input_bits - 1))
    fixed = _with_corrected_biases(fixed, recorded, rounding, exponents)
    _check_range(fixed, exponents, quanta, input_bits, activation_bits)
    encoder = policy.encoder.with_fixed_point(rounding)
    return replace(policy, encoder=encoder, network=fixed).with_metadata(
        weight_bits=weight_bits, activation_bits=activation_bits, input_bits=input_bits
    )


def check_size(network: Network) -> None:
    """Refuse a network whose convolutions `quantize` would have to unroll into too many weights.

    Raises
    ------
    UnsupportedError
        If it has one.
    """
    for q in network.projections:
        size = q.weights.shape[0] * q.weights.shape[1]
        if isinstance(q.weights, Local) and size > MOST_UNROLLED:
            raise UnsupportedError(
                f"would be a matrix of {size:,} weights in fixed point, where each position has a "
                "scale of its own; convolutions of this size keep their 32 bits (weight_bits 32)",
                where=f"projection '{q.name}'",
            )


def size_bytes(policy: Policy | Network, weight_bits: int | None = None) -> Size:
    """Return the size of the parameters.

    Parameters
    ----------
    policy : Policy or Network
    weight_bits : int, optional
        Default: what the policy's metadata say, else 32. A float32 network has biases and
        thresholds of 4 bytes and no exponents; a fixed-point one 4-byte biases, 2-byte
        thresholds and 1-byte exponents.

    Returns
    -------
    Size
    """
    network = policy if isinstance(policy, Network) else policy.network
    if weight_bits is None:
        metadata: Mapping[str, Any] = {} if isinstance(policy, Network) else policy.metadata
        weight_bits = int(metadata.get("weight_bits", 32))
    fixed = weight_bits < 32
    per_neuron, per_threshold = (5, 2) if fixed else (4, 4)
    dense_bits = sum(q.weights.n_parameters for q in network.projections) * weight_bits
    neurons = sum(_owners(network, p) for p in network.populations if not p.is_input)
    sparse_bits = 0
    alive = {p.name: np.zeros(_owners(network, p), np.bool_) for p in network.populations}
    for q in network.projections:
        n_parameters = q.weights.n_parameters
        # The shared weights of a convolution are stored once, by tap and source channel.
        local = isinstance(q.weights, Local)
        pointers, targets, _ = q.weights.kernel_rows() if local else q.weights.rows()  # type: ignore[attr-defined]
        n_targets, n_sources = alive[q.target].size, len(pointers) - 1
        counts = np.diff(pointers)
        index_bits = max(1, math.ceil(math.log2(max(n_targets, 2))))
        count_bits = max(1, math.ceil(math.log2(n_targets + 1)))
        if n_parameters:  # a pool has none
            places = min(targets.size * index_bits + n_sources * count_bits, n_parameters)
            # A layer without gaps needs no places.
            sparse_bits += targets.size * weight_bits
            sparse_bits += 0 if targets.size == n_parameters else places
        alive[q.target][targets % n_targets] = True
        alive[q.source][np.flatnonzero(counts > 0) % alive[q.source].size] = True
    sparse_bytes = -(-sparse_bits // 8)
    for p in network.populations:
        living = int(alive[p.name].sum())
        if not p.is_input:
            sparse_bytes += per_neuron * living
        if network.outgoing(p.name):
            values = p.parameter("threshold")
            sparse_bytes += per_threshold * (1 if (values == values[0]).all() else living)
    return Size(-(-dense_bits // 8) + per_neuron * neurons, sparse_bytes, weight_bits)


def _owners(network: Network, population: Population) -> int:
    """Biases and thresholds that a population has to store: one a channel of a feature map."""
    beside = network.incoming(population.name) or network.outgoing(population.name)
    if any(isinstance(q.weights, Local) for q in beside):
        for name in ("bias", "threshold"):
            values = np.asarray(
                population.parameter(name) if hasattr(population.neuron, name) else 0.0
            )
            maps = np.broadcast_to(values, population.size).reshape(-1, population.shape[-1])
            if not (maps == maps[0]).all():
                return population.size
        return population.shape[-1]
    return population.size


def straight_through(weights: torch.Tensor, bits: int, quanta: ArrayLike = 1.0) -> torch.Tensor:
    """Round a layer's weights as `quantize` will, with the gradient of the identity.

    For fine-tuning in the loop (Bengio et al. 2013, arXiv 1308.3432).

    Parameters
    ----------
    weights : torch.Tensor of shape (n_out, n_in)
    bits : int
    quanta : float or array of shape (n_in,), optional
        Steps of the source's values; only their ratios matter.

    Returns
    -------
    torch.Tensor of the same shape
    """
    import torch

    values = weights.detach().cpu().numpy()
    rounded = torch.from_numpy(round_weights(values, bits, quanta)).to(weights)
    return weights + (rounded - weights).detach()


def round_weights(weights: ArrayLike, bits: int, quanta: ArrayLike = 1.0) -> Float:
    """Return a layer's weights as `quantize` rounds them.

    Parameters
    ----------
    weights : array of shape (n_out, n_in)
    bits : int
    quanta : float or array of shape (n_in,), optional
        Steps of the source's values; only their ratios matter.

    Returns
    -------
    float64 array of the same shape
    """
    grid = np.asarray(quanta, np.float64)
    values = np.asarray(weights, np.float64) * grid
    return np.asarray(_rounded(values, _exponents(values, bits), bits) / grid)


def _check_bits(field: str, bits: int, limits: tuple[int, int]) -> None:
    low, high = limits
    if isinstance(bits, bool) or int(bits) != bits or not low <= bits <= high:
        raise InputError(
            f"is {bits!r}; give a whole number from {low} to {high}", where="quantize", field=field
        )


def quanta_for(largest: ArrayLike, bits: int) -> Float:
    """Return the smallest powers of two with which values up to `largest` fit the signed bits.

    Parameters
    ----------
    largest : array
        Of absolute values.
    bits : int
        The sign included.

    Returns
    -------
    float64 array of the same shape
    """
    top = np.maximum(np.asarray(largest, np.float64), 2.0**-20)
    return np.asarray(2.0 ** np.ceil(np.log2(top / (2 ** (bits - 1) - 1))))


def _fan_in(network: Network, name: str, quanta: Mapping[str, Float]) -> Float:
    """All weights into a population, side by side, each per quantum of its source."""
    blocks = [
        q.weights.to_dense().astype(np.float64) * quanta[q.source] for q in network.incoming(name)
    ]
    if not blocks:
        return np.zeros((network[name].size, 1))
    return np.concatenate(blocks, axis=1)


def _exponents(weights: Float, bits: int) -> NDArray[np.int64]:
    """Exponent of each row's scale."""
    limit = 2 ** (bits - 1) - 1
    largest = np.abs(weights).max(axis=1)
    safe = np.where(largest > 0.0, largest, 1.0)
    exponents = np.ceil(np.log2(safe / limit)).astype(np.int64)
    errors = [
        np.square(_rounded(weights, exponents - k, bits) - weights).sum(axis=1) for k in (0, 1)
    ]
    return np.asarray(exponents - (errors[1] < errors[0]), np.int64)


def _rounded(weights: Float, exponents: NDArray[np.int64], bits: int) -> Float:
    limit = 2 ** (bits - 1) - 1
    scale = 2.0 ** exponents[:, np.newaxis].astype(np.float64)
    return np.asarray(np.clip(np.rint(weights / scale), -limit, limit) * scale)


def _weights(projection: Projection, exponents: NDArray[np.int64], quanta: Float, bits: int) -> Any:
    if isinstance(projection.weights, Sparse):
        from scipy import sparse

        pointers, targets, values = projection.weights.rows()
        grid = np.repeat(quanta, np.diff(pointers))
        scale = 2.0 ** exponents[targets].astype(np.float64)
        limit = 2 ** (bits - 1) - 1
        values = np.clip(np.rint(values * grid / scale), -limit, limit) * scale / grid
        weights = sparse.csc_array(
            (values.astype(np.float32), targets.copy(), pointers.copy()),
            shape=projection.weights.shape,
        )
        weights.eliminate_zeros()
        return weights
    dense = projection.weights.to_dense().astype(np.float64) * quanta
    return (_rounded(dense, exponents, bits) / quanta).astype(np.float32)


def _population(
    population: Population,
    neuron: Delta,
    quanta: Float | None,
    steps: Float,
    bits: int,
) -> Population:
    bias = np.rint(population.parameter("bias") / steps) * steps
    if quanta is None:
        return replace(population, neuron=Delta(neuron.activation, bias, neuron.threshold))
    base = neuron.activation.base if isinstance(neuron.activation, Quantized) else neuron.activation
    try:
        activation = Quantized(base, float(quanta[0]), 2 ** (bits - 1))
    except NetworkError as error:
        raise UnsupportedError(str(error), where=f"population '{population.name}'") from error
    threshold = np.floor(population.parameter("threshold") / quanta) * quanta
    return replace(population, neuron=Delta(activation, bias, threshold))


def _with_corrected_biases(
    network: Network,
    teacher: Activity,
    rounding: FixedPoint,
    exponents: Mapping[str, NDArray[np.int64]],
) -> Network:
    """Move each bias by the mean error of its neuron's sum, level after level."""
    x = np.concatenate([teacher.activations[name] for name in network.inputs], axis=1)
    edges = np.cumsum(teacher.lengths)[:-1]
    inputs = np.split(rounding(x.copy()), edges)
    ranks = network.ranks
    for rank in sorted({ranks[p.name] for p in network.populations if not p.is_input}):
        sums = activity(network, inputs).pre_activations
        populations = []
        for p in network.populations:
            if ranks[p.name] == rank and isinstance(p.neuron, Delta):
                error = (teacher.pre_activations[p.name] - sums[p.name]).mean(axis=0)
                step = 2.0 ** exponents[p.name].astype(np.float64)
                bias = p.parameter("bias") + np.rint(error / step) * step
                p = replace(p, neuron=Delta(p.neuron.activation, bias, p.neuron.threshold))
            populations.append(p)
        network = replace(network, populations=tuple(populations))
    return network


def _check_range(
    network: Network,
    exponents: Mapping[str, NDArray[np.int64]],
    quanta: Mapping[str, Float],
    input_bits: int,
    activation_bits: int,
) -> None:
    """Refuse a network whose largest possible sum needs more bits than a double adds exactly."""
    for p in network.populations:
        if p.is_input:
            continue
        steps = 2.0 ** exponents[p.name].astype(np.float64)
        largest = np.abs(p.parameter("bias"))
        for q in network.incoming(p.name):
            bits = input_bits if network[q.source].is_input else activation_bits
            span = quanta[q.source] * 2.0 ** (bits - 1)
            largest = largest + np.abs(q.weights.to_dense().astype(np.float64)) @ span
        # A difference is up to twice an activation.
        if (2.0 * largest / steps >= 2.0**_EXACT_BITS).any():
            raise UnsupportedError(
                f"sums need more than {_EXACT_BITS} bits; give fewer activation_bits",
                where=f"population '{p.name}'",
            )


__all__ = [
    "Size",
    "quanta_for",
    "quantize",
    "round_weights",
    "size_bytes",
    "straight_through",
]
