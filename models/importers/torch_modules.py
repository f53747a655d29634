"""Networks from a ``torch.nn.Sequential`` that is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import UnsupportedError
from eventsim.network import Network, Thresholds
from eventsim.neurons import (
    ELU,
    GELU,
    Activation,
    Clip,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from eventsim.stack import Stack

#: Modules that do nothing once a network has been trained.
_TRANSPARENT = ("Identity", "Dropout", "Dropout1d", "Dropout2d", "AlphaDropout")


def from_torch(
    module: Any,
    input_shape: tuple[int, ...] | None = None,
    *,
    scale: float = 1.0,
    thresholds: Thresholds = 0.0,
    name: str = "",
) -> Network:
    """Build a network from a ``torch.nn.Sequential``.

    Parameters
    ----------
    module : torch.nn.Module
        A Sequential, nested or not, of Conv1d, Conv2d, AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d,
        Flatten, Linear, activations, and what does nothing in evaluation (Dropout, Identity).
    input_shape : tuple of int, optional
        Of one observation, without the batch: (channels, height, width) or (channels, length).
        Not needed if the first layer is linear.
    scale : float, optional
        Factor on the observation that the module does not apply itself: ``1 / 255`` for bytes that
        the agent divides by 255. It is taken into the first layer's weights.
    thresholds : float or mapping, optional
        As for `Network.with_thresholds`.
    name : str, optional

    Returns
    -------
    Network
        Its inputs stand channels last: `eventsim.stack.channels_last` turns an observation over.

    Raises
    ------
    UnsupportedError
        If it holds another kind of layer, or one with an option that eventsim does not have.
    NetworkError
        If the layers do not fit each other or the input.

    Examples
    --------
    >>> import torch
    >>> import eventsim
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    >>> eventsim.from_torch(net).n_synapses
    48
    """
    layers = list(_flat(module, ""))
    if input_shape is None:
        first: Any = next((layer for _, layer in layers if _kind(layer) not in _TRANSPARENT), None)
        if _kind(first) != "Linear":
            raise UnsupportedError(
                "does not begin with a linear layer; give input_shape, such as (4, 84, 84)",
                where="from_torch",
            )
        input_shape = (int(first.in_features),)
    stack = Stack(tuple(input_shape), scale=scale)
    for path, layer in layers:
        _add(stack, layer, f"module '{path}' ({_kind(layer)})")
    return stack.network(thresholds, name)


def _flat(module: Any, path: str) -> Iterator[tuple[str, Any]]:
    if _kind(module) != "Sequential":
        yield path or "module", module
        return
    for name, child in module.named_children():
        yield from _flat(child, f"{path}.{name}" if path else str(name))


def _kind(module: Any) -> str:
    return type(module).__name__


def _add(stack: Stack, layer: Any, where: str) -> None:
    kind = _kind(layer)
    if kind in _TRANSPARENT:
        return
    if kind in ("Conv1d", "Conv2d"):
        _expect(layer, where, padding_mode="zeros")
        _axes(stack, kind, where)
        stack.convolution(
            _array(layer.weight), _bias(layer), layer.stride, layer.padding,
            layer.dilation, layer.groups,
        )  # fmt: skip
    elif kind in ("AvgPool1d", "AvgPool2d"):
        _axes(stack, kind, where)
        _expect(layer, where, ceil_mode=False)
        if getattr(layer, "divisor_override", None) is not None:
            raise UnsupportedError("has divisor_override", where=where)
        if np.any(np.asarray(layer.padding)):
            _expect(layer, where, count_include_pad=True)
        stack.average_pool(layer.kernel_size, layer.stride, layer.padding)
    elif kind in ("MaxPool1d", "MaxPool2d"):
        _axes(stack, kind, where)
        _expect(layer, where, ceil_mode=False, return_indices=False)
        stack.max_pool(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    elif kind == "Flatten":
        if layer.start_dim != 1 or layer.end_dim not in (-1, stack.axes):
            raise UnsupportedError("leaves axes as they are; flatten all of them", where=where)
        stack.flatten()
    elif kind == "Linear":
        stack.linear(_array(layer.weight), _bias(layer))
    else:
        stack.activation(_activation(layer, where))


def _axes(stack: Stack, kind: str, where: str) -> None:
    if stack.axes - 1 != int(kind[-2]):
        raise UnsupportedError(
            f"follows a layer of {stack.axes} axes (without the batch)", where=where
        )


def _expect(layer: Any, where: str, **options: Any) -> None:
    for name, value in options.items():
        if getattr(layer, name) != value:
            raise UnsupportedError(
                f"has {name} = {getattr(layer, name)!r}; only {value!r} is supported", where=where
            )


def _array(parameter: Any) -> NDArray[Any]:
    return np.asarray(parameter.detach().cpu().numpy())


def _bias(layer: Any) -> NDArray[Any] | None:
    return None if layer.bias is None else _array(layer.bias)


def _activation(layer: Any, where: str) -> Activation:
    kind = _kind(layer)
    if kind == "ReLU6":
        return Clip(0.0, 6.0)
    if kind == "Hardtanh":
        return Clip(float(layer.min_val), float(layer.max_val))
    if kind == "LeakyReLU":
        return LeakyReLU(float(layer.negative_slope))
    if kind == "ELU":
        return ELU(float(layer.alpha))
    if kind == "GELU":
        return GELU(layer.approximate == "tanh")
    if kind == "Softplus":
        _expect(layer, where, beta=1.0)
        return Softplus()
    plain = {"ReLU": ReLU(), "Tanh": Tanh(), "Sigmoid": Sigmoid(), "SiLU": SiLU()}
    if kind not in plain:
        raise UnsupportedError(
            "has no counterpart; give convolutions, pools, Flatten, linear layers and activations",
            where=where,
        )
    return plain.get(kind, Identity())


__all__ = ["from_torch"]
