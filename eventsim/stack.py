"""Feed-forward networks layer by layer, from weights in torch's order of axes.

Torch stands pictures as (channels, height, width); a `Network` stands them channels last. `Stack`
turns everything over once, when the network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.connectivity import Connectivity, Dense, connectivity
from eventsim.convolution import AveragePool, Convolution, MaxWindow, Window
from eventsim.errors import NetworkError, UnsupportedError
from eventsim.network import Network, Population, Projection, Thresholds
from eventsim.neurons import Activation, Clip, Delta, Identity, Input, MaxPool, activation

Pair = tuple[int, int]

#: Activations that never fall, so that they may stand before a maximum as well as behind it.
_RISING = ("identity", "relu", "leaky_relu", "elu", "tanh", "sigmoid", "softplus", "clip")


@dataclass
class _Layer:
    population: Population
    weights: Connectivity | None = None
    has_activation: bool = False


class Stack:
    """Build a network layer by layer; every method returns the stack.

    Parameters
    ----------
    shape : tuple of int
        Of an observation: (channels, height, width), (channels, length) or (values,).
    scale : float, optional
        By which the first layer's weights are multiplied, so that inputs need not be: 1 / 255 for
        bytes.

    Raises
    ------
    NetworkError
        From any method, if a layer does not fit the one before it.
    UnsupportedError
        If the layer is one that no network of eventsim computes.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim.stack import Stack
    >>> stack = Stack((1, 6, 6)).convolution(np.ones((2, 1, 3, 3))).activation("relu")
    >>> network = stack.max_pool(2).flatten().linear(np.ones((3, 8))).network()
    >>> [(p.name, p.shape) for p in network.populations]
    [('input', (6, 6, 1)), ('conv1', (4, 4, 2)), ('pool1', (2, 2, 2)), ('output', (3,))]
    """

    def __init__(self, shape: tuple[int, ...], *, scale: float = 1.0) -> None:
        shape = tuple(int(n) for n in shape)
        if not 1 <= len(shape) <= 3 or min(shape) < 1:
            raise NetworkError(
                f"is {shape}; give (channels, height, width), (channels, length) or (values,)",
                where="stack",
                field="shape",
            )
        #: Axes of the layer at the top, as torch counts them.
        self.axes = len(shape)
        last = shape if self.axes == 1 else _channels_last(shape)
        self._layers = [_Layer(Population("input", int(np.prod(shape)), Input(), last))]
        self._scale = float(scale)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, channels) of the layer at the top, or (values,)."""
        return self._layers[-1].population.shape

    def convolution(
        self,
        weights: ArrayLike,
        bias: ArrayLike | None = None,
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] | str = 0,
        dilation: int | tuple[int, ...] = 1,
        groups: int = 1,
    ) -> Stack:
        """Add a convolution.

        Parameters
        ----------
        weights : array of shape (out, in / groups, rows, columns) or (out, in / groups, length)
        bias : array of shape (out,), optional
        stride, padding, dilation, groups
            As for ``torch.nn.Conv2d`` and ``Conv1d``; padding is with zeros.
        """
        height, width, channels = self._picture("convolution")
        kernel = np.asarray(weights)
        if kernel.ndim != self.axes + 1:
            raise NetworkError(
                f"have {kernel.ndim} axes for a layer of {self.axes}",
                where="convolution",
                field="weights",
            )
        kernel = (
            kernel.reshape(*kernel.shape[:2], -1, kernel.shape[-1])
            if self.axes == 3
            else (kernel[:, :, np.newaxis])
        )
        strides, dilations = self._pair(stride, 1), self._pair(dilation, 1)
        target = (0, 0)
        if isinstance(padding, str):
            if padding not in ("valid", "same") or (padding == "same" and strides != (1, 1)):
                raise UnsupportedError(
                    f"padding {padding!r} with stride {strides}", where="convolution"
                )
            if padding == "same":
                target = (height, width)
                spans = [(n - 1) * d for n, d in zip(kernel.shape[2:], dilations, strict=True)]
                pads: Pair = (spans[0] // 2, spans[1] // 2)
            else:
                pads = (0, 0)
        else:
            pads = self._pair(padding, 0)
        built = Convolution.from_torch_weights(
            self._scaled(kernel),
            (height, width, channels),
            strides,
            pads,
            dilations,
            groups,
            target,
        )
        biases: Any = 0.0
        if bias is not None:
            values = np.asarray(bias, np.float64)
            if values.shape != (built.n_channels,):
                raise NetworkError(
                    f"has shape {values.shape}, expected ({built.n_channels},)",
                    where="convolution",
                    field="bias",
                )
            biases = np.tile(values, built.window.target[0] * built.window.target[1])
        return self._push("conv", Delta("identity", biases), built.target_shape, built)

    def average_pool(
        self,
        size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
    ) -> Stack:
        """Add average pooling; padding counts as zeros."""
        window = self._window("average pooling", size, stride, padding, 1)
        weights = AveragePool(window)
        return self._push("pool", Delta(), weights.target_shape, weights)

    def max_pool(
        self,
        size: int | tuple[int, ...],
        stride: int | tuple[int, ...] | None = None,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
    ) -> Stack:
        """Add max pooling; padding counts as nothing."""
        weights = MaxWindow(self._window("max pooling", size, stride, padding, dilation))
        return self._push("pool", MaxPool(), weights.target_shape, weights)

    def flatten(self) -> Stack:
        """Put the values in one row, as torch orders them."""
        self.axes = 1
        return self

    def linear(self, weights: Any, bias: ArrayLike | None = None) -> Stack:
        """Add a fully connected layer.

        Parameters
        ----------
        weights : array or scipy.sparse matrix of shape (out, in)
            Columns in torch's order of the flattened layer.
        bias : array of shape (out,), optional
        """
        if self.axes != 1:
            raise NetworkError("follows a picture; flatten it first", where="linear layer")
        built = connectivity(weights, "linear layer")
        shape = self.shape
        if built.shape[1] != int(np.prod(shape)):
            raise NetworkError(
                f"takes {built.shape[1]} values, but the layer before it gives {np.prod(shape)}",
                where="linear layer",
                field="weights",
            )
        matrix = self._scaled(built.to_dense()) if len(self._layers) == 1 else None
        if len(shape) == 3 and shape[0] * shape[1] > 1:
            height, width, channels = shape
            dense = (built.to_dense() if matrix is None else matrix).reshape(
                -1, channels, height, width
            )
            matrix = dense.transpose(0, 2, 3, 1).reshape(built.shape)
        if matrix is not None:
            matrix = np.ascontiguousarray(matrix)
            matrix.flags.writeable = False
            built = Dense(matrix)
        neuron = Delta("identity", 0.0 if bias is None else bias)
        return self._push("hidden", neuron, (built.shape[0],), built)

    def activation(self, spec: str | Activation | dict[str, Any]) -> Stack:
        """Put an activation on the layer at the top.

        Behind max pooling it is put before it, where a function that never falls gives the same.
        """
        f = activation(spec)
        if isinstance(f, Identity):
            return self
        at = len(self._layers) - 1
        while isinstance(self._layers[at].population.neuron, MaxPool) and _rises(f):
            at -= 1
        layer = self._layers[at]
        neuron = layer.population.neuron
        if not isinstance(neuron, Delta) or layer.has_activation:
            raise UnsupportedError(
                f"follows {'another activation' if layer.has_activation else neuron.kind}; an "
                "activation stands behind a convolution, a linear layer or average pooling",
                where=f"activation '{f.name}'",
            )
        layer.population = replace(layer.population, neuron=Delta(f, neuron.bias))
        layer.has_activation = True
        return self

    def network(self, thresholds: Thresholds = 0.0, name: str = "") -> Network:
        """Return the network.

        Parameters
        ----------
        thresholds : float or mapping of str to float or array, optional
            As for `Network.with_thresholds`.
        name : str, optional
        """
        if len(self._layers) == 1:
            raise NetworkError("has no layers", where="stack")
        layers = [*self._layers]
        layers[-1] = replace(layers[-1], population=replace(layers[-1].population, name="output"))
        projections = [
            Projection(before.population.name, layer.population.name, layer.weights)
            for before, layer in pairwise(layers)
        ]
        populations = tuple(layer.population for layer in layers)
        network = Network(populations, tuple(projections), name=name)
        if isinstance(thresholds, Mapping) or np.any(np.asarray(thresholds)):
            network = network.with_thresholds(thresholds)
        return network

    def _picture(self, what: str) -> tuple[int, int, int]:
        if self.axes == 1:
            raise NetworkError("needs a picture, but follows a flat layer", where=what)
        height, width, channels = self.shape
        return height, width, channels

    def _window(self, what: str, size: Any, stride: Any, padding: Any, dilation: Any) -> Window:
        taps = self._pair(size, 1)
        return Window(
            self._picture(what),
            taps,
            taps if stride is None else self._pair(stride, 1),
            self._pair(padding, 0),
            self._pair(dilation, 1),
        )

    def _pair(self, value: Any, across: int) -> Pair:
        """Rows and columns of an option; a layer along one axis has one row."""
        values = (value,) if isinstance(value, int | np.integer) else tuple(value)
        n_axes = self.axes - 1
        if len(values) == 1:
            values = values * n_axes
        if len(values) != n_axes:
            raise NetworkError(f"{value} does not give {n_axes} numbers", where="window")
        return (across, int(values[0])) if n_axes == 1 else (int(values[0]), int(values[1]))

    def _scaled(self, weights: NDArray[Any]) -> NDArray[Any]:
        if len(self._layers) > 1 or self._scale == 1.0:
            return weights
        dtype = weights.dtype if weights.dtype.kind == "f" else np.dtype(np.float64)
        return np.asarray(weights.astype(np.float64) * self._scale).astype(dtype)

    def _push(
        self, stem: str, neuron: Delta | MaxPool, shape: tuple[int, ...], weights: Connectivity
    ) -> Stack:
        number = sum(layer.population.name.startswith(stem) for layer in self._layers) + 1
        population = Population(f"{stem}{number}", int(np.prod(shape)), neuron, shape)
        self._layers.append(_Layer(population, weights))
        return self


def channels_last(values: ArrayLike) -> NDArray[Any]:
    """Turn (..., channels, height, width) into (..., height, width, channels), contiguous.

    Raveled, that is the order in which a network that looks at pictures takes its inputs.
    """
    array = np.asarray(values)
    *before, n_channels, height, width = array.shape
    result = np.empty((*before, height, width, n_channels), array.dtype)
    # Several times faster than a copy of the turned view, which goes along the shortest axis.
    for channel in range(n_channels):
        result[..., channel] = array[..., channel, :, :]
    return result


def _channels_last(shape: tuple[int, ...]) -> tuple[int, int, int]:
    channels, *rest = shape
    return (1, rest[0], channels) if len(rest) == 1 else (rest[0], rest[1], channels)


def _rises(f: Activation) -> bool:
    alpha = getattr(f, "alpha", 0.0)
    return (f.name in _RISING and alpha >= 0.0) or isinstance(f, Clip)
