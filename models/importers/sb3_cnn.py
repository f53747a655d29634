"""The NatureCNN inside the tensors of a Stable-Baselines3 agent with a CnnPolicy.

Its strides stand in no tensor: they are those of the class, 4, 2 and 1 (Mnih et al. 2015), whose
kernels of 8, 4 and 3 taps are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import EventsimError, FileFormatError, UnsupportedError
from eventsim.models.importers.inert_values import Name
from eventsim.models.importers.sb3_network import Layers, finite
from eventsim.network import Network
from eventsim.neurons import Activation
from eventsim.stack import Stack

_KERNELS, _STRIDES = (8, 4, 3), (4, 2, 1)
_BYTE = 1.0 / 255.0


@dataclass(frozen=True, eq=False)
class NatureCnn:
    """Weights of the convolutions in torch's order, and of the linear layer behind them."""

    convolutions: list[tuple[NDArray[Any], NDArray[Any]]]
    linear: tuple[NDArray[Any], NDArray[Any]]


def find(tensors: Mapping[str, NDArray[Any]], parts: tuple[str, ...], where: str) -> str | None:
    """Return the prefix of the features extractor that the policy uses; None if it has none."""
    if not any(".cnn." in name for name in tensors):
        return None
    root = parts[-1].rpartition(".")[0]
    # Actor-critic policies have one for the actor where it is not shared with the critic.
    for prefix in ("pi_features_extractor", "features_extractor"):
        prefix = f"{root}.{prefix}" if root else prefix
        if f"{prefix}.cnn.0.weight" in tensors:
            return prefix
    raise UnsupportedError(
        "has convolutions outside its features extractor, which is not supported yet; give an "
        "agent with the NatureCNN",
        where=where,
    )


def read(
    tensors: Mapping[str, NDArray[Any]], prefix: str, keywords: Mapping[str, Any], where: str
) -> NatureCnn:
    """Pick the extractor's layers.

    Raises
    ------
    UnsupportedError
        If it is another one than the NatureCNN.
    FileFormatError
        If tensors are missing, do not fit or are not finite.
    """
    chosen = keywords.get("features_extractor_class")
    name = chosen.attribute if isinstance(chosen, Name) else "of its own"
    names = {n.removeprefix(f"{prefix}.") for n in tensors if n.startswith(f"{prefix}.")}
    expected = {f"cnn.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    expected |= {"linear.0.weight", "linear.0.bias"}
    kernels = tuple(
        tensors[f"{prefix}.cnn.{i}.weight"].shape[2:] if f"cnn.{i}.weight" in names else ()
        for i in (0, 2, 4)
    )
    if (
        (chosen is not None and name != "NatureCNN")
        or names != expected
        or kernels != tuple((k, k) for k in _KERNELS)
    ):
        raise UnsupportedError(
            f"has a convolutional features extractor {name if chosen is not None else 'of its own'}"
            ", whose strides stand in no tensor; import its torch module by eventsim.from_torch",
            where=where,
        )

    def layer(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        both = [
            finite(tensors[f"{prefix}.{name}.{kind}"], f"{prefix}.{name}.{kind}", where)
            for kind in ("weight", "bias")
        ]
        return both[0], both[1]

    return NatureCnn([layer(f"cnn.{i}") for i in (0, 2, 4)], layer("linear.0"))


def network(
    cnn: NatureCnn,
    layers: Layers,
    shape: tuple[int, ...],
    activation: Activation,
    name: str,
    where: str,
    *,
    normalize: bool = True,
) -> Network:
    """Build the network that looks at pictures of bytes.

    Parameters
    ----------
    cnn : NatureCnn
    layers : Layers
        Behind the extractor.
    shape : tuple of int
        (channels, height, width) of the observation.
    activation : Activation
        Of the layers behind the extractor, but the last.
    normalize : bool, optional
        Whether Stable-Baselines3 divides the bytes by 255: the first weights carry it.

    Raises
    ------
    FileFormatError
        If the layers do not fit each other or the observation.
    """
    try:
        stack = Stack(shape, scale=_BYTE if normalize else 1.0)
        for (weights, bias), stride in zip(cnn.convolutions, _STRIDES, strict=True):
            stack.convolution(weights, bias, stride).activation("relu")
        stack.flatten().linear(*cnn.linear).activation("relu")
        last = len(layers.weights) - 1
        for i, (matrix, offset) in enumerate(zip(layers.weights, layers.biases, strict=True)):
            stack.linear(matrix, offset)
            if i < last:
                stack.activation(activation)
        return stack.network(name=name)
    except EventsimError as error:
        raise FileFormatError(
            f"its layers do not fit each other or the observation: {error}", where=where
        ) from error


def first_size(cnn: NatureCnn) -> int:
    """Number of features that the extractor gives."""
    return int(np.shape(cnn.linear[0])[0])
