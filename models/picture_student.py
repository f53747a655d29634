"""Students of pictures: convolutions and linear layers as plain arrays, or linear layers alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.convolution import Convolution, Window
from eventsim.errors import InputError
from eventsim.models.policy import Policy
from eventsim.models.student import STUDENT_ACTIVATIONS, Float, Head, layer_arrays, listed_arrays
from eventsim.network import Projection
from eventsim.stack import Stack

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Kernel:
    """Geometry of a convolutional layer; its channels are those of its weights.

    Parameters
    ----------
    size, stride, padding : (int, int)
    """

    size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class PictureShape:
    """Layers of a student.

    Parameters
    ----------
    channels : tuple of int
        Of each convolution; none for a student that takes the pixels as they are.
    hidden : tuple of int
        Sizes of the linear layers between convolutions and outputs.
    """

    channels: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()


@dataclass(eq=False)
class PictureStudent:
    """A layered network on pictures, as plain arrays in torch's order of axes.

    Attributes
    ----------
    head : Head
    activation : str
    shape : (int, int, int)
        Channels, height and width of a picture.
    scale : float
        By which values are multiplied before the first layer: 1 for truth values, 1 / 255 for
        bytes.
    kernels : tuple of Kernel
        Geometry of the convolutions, which come first.
    weights : list of float64 array
        Of shape (out, in, rows, columns) for a convolution, (out, in) for a linear layer.
    biases : list of float64 array of shape (out,)
    masks : list of bool array
        As `weights`.
    thresholds : list of float64 array
        A value a channel of the (scaled) picture and of each convolution, a value a neuron of
        each hidden linear layer.
    """

    head: Head
    activation: str
    shape: tuple[int, int, int]
    scale: float
    kernels: tuple[Kernel, ...]
    weights: list[Float]
    biases: list[Float]
    masks: list[NDArray[np.bool_]]
    thresholds: list[Float]

    @property
    def maps(self) -> list[tuple[int, int, int]]:
        """Channels, height and width of the picture and of what each convolution makes of it."""
        result = [self.shape]
        for k, kernel in enumerate(self.kernels):
            window = _window(result[-1], kernel)
            result.append((len(self.weights[k]), *window.target))
        return result

    @property
    def windows(self) -> list[Window]:
        """What each convolution slides."""
        return [_window(m, kernel) for m, kernel in zip(self.maps, self.kernels, strict=False)]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of each layer, inputs and outputs included."""
        linear = self.biases[len(self.kernels) :]
        return (*(math.prod(m) for m in self.maps), *(len(b) for b in linear))

    @property
    def n_synapses(self) -> int:
        """Surviving synapses, unrolled."""
        return sum(int(fan_out(self, k).sum()) for k in range(len(self.masks)))

    @property
    def dense_macs(self) -> int:
        """Multiplications a step without pruning and events; none with what is padded."""
        maps = self.maps
        total = 0
        for k, (kernel, m) in enumerate(zip(self.kernels, maps, strict=False)):
            uses = int(_window(m, kernel).tap_uses.sum())
            total += uses * m[0] * len(self.weights[k])
        return total + sum(w.size for w in self.weights[len(self.kernels) :])

    def copy(self) -> PictureStudent:
        """Return a deep copy."""
        return PictureStudent(
            self.head,
            self.activation,
            self.shape,
            self.scale,
            self.kernels,
            [w.copy() for w in self.weights],
            [b.copy() for b in self.biases],
            [m.copy() for m in self.masks],
            [t.copy() for t in self.thresholds],
        )

    def to_policy(self, teacher: Policy, *, events: bool = True, **metadata: Any) -> Policy:
        """Return the student as a policy, as `eventsim.models.student.Student.to_policy` does.

        Thresholds of bytes are whole numbers, which changes no comparison.
        """
        stack = Stack(self.shape, scale=self.scale)
        for k, (w, b, mask) in enumerate(zip(self.weights, self.biases, self.masks, strict=True)):
            weight = np.where(mask, w, 0.0).astype(np.float32)
            if k < len(self.kernels):
                kernel = self.kernels[k]
                stack.convolution(weight, b, kernel.stride, kernel.padding)
            else:
                stack.flatten().linear(weight, b)
            if k + 1 < len(self.weights):
                stack.activation(self.activation)
        built = stack.network(name=teacher.network.name)
        names = [p.name for p in built.populations]
        limits: dict[str, Any] = {}
        for k, theta in enumerate(self.thresholds):
            size = built[names[k]].size
            # Channels stand last in a network.
            limits[names[k]] = np.tile(theta, size // len(theta)) if events else np.zeros(size)
        if events:
            limits["input"] = np.floor(limits["input"] / self.scale)
        network = built.with_thresholds(limits)
        first, *others = network.projections
        booked = [(first, teacher.dense_macs), *((q, 0) for q in others)]
        projections = tuple(
            Projection(q.source, q.target, q.weights, name=q.name, dense_macs=macs)
            for q, macs in booked
        )
        return Policy(
            teacher.encoder,
            replace(network, projections=projections),
            self.head.decoder,
            {**teacher.metadata, **metadata},
        )


def picture_student_of(
    policy: Policy,
    head: Head,
    shape: tuple[int, int, int],
    scale: float,
    kernels: Sequence[Kernel],
) -> PictureStudent | None:
    """Return a policy as a student that can be trained further, or None if it has another form.

    Parameters
    ----------
    policy : Policy
        Of a plain stack of convolutions and linear layers.
    head : Head
    shape : (int, int, int)
        Channels, height and width of a picture.
    scale : float
    kernels : sequence of Kernel
        One a convolution.

    Returns
    -------
    PictureStudent or None
        ``student.to_policy(policy, events=False)`` does what the policy does at threshold 0, to the
        rounding of float32.
    """
    network = policy.network
    layers = [p for p in network.populations if not p.is_input]
    names = [getattr(getattr(p.neuron, "activation", None), "name", "") for p in layers]
    hidden = names[0] if len(names) > 1 else STUDENT_ACTIVATIONS[0]
    if (
        hidden not in STUDENT_ACTIVATIONS
        or names != [hidden] * (len(layers) - 1) + ["identity"]
        or head.decoder is not policy.decoder
    ):
        return None
    result = PictureStudent(head, hidden, shape, scale, tuple(kernels), [], [], [], [])
    for k, (q, layer) in enumerate(zip(network.projections, layers, strict=True)):
        bias = layer.parameter("bias").astype(np.float64)
        if isinstance(q.weights, Convolution):
            weight = q.weights.to_torch_weights().astype(np.float64)
            # One value a channel, which stand last in a network.
            bias = bias.reshape(-1, len(weight))[0]
        else:
            weight = q.weights.to_dense().astype(np.float64)
            if k == len(kernels):
                channels, height, width = result.maps[k]
                weight = weight.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
                weight = np.ascontiguousarray(weight).reshape(len(bias), -1)
        result.weights.append(weight / scale if k == 0 else weight)
        result.biases.append(bias)
        result.masks.append(weight != 0.0)
    result.thresholds = [np.zeros(n) for n in (shape[0], *(len(b) for b in result.biases[:-1]))]
    return result


def fan_out(student: PictureStudent, k: int) -> NDArray[np.int64]:
    """Surviving synapses of each neuron before layer `k`, in torch's order: channels first."""
    mask = student.masks[k]
    if k >= len(student.kernels):
        return np.asarray(mask.sum(axis=0), np.int64)
    channels, height, width = student.maps[k]
    kernel = student.kernels[k]
    counted = Convolution.from_torch_weights(
        mask.astype(np.float32), (height, width, channels), kernel.stride, kernel.padding
    ).fan_out()
    return np.ascontiguousarray(counted.reshape(height, width, channels).transpose(2, 0, 1)).ravel()


def new_picture_student(
    head: Head,
    shape: tuple[int, int, int],
    scale: float,
    kernels: Sequence[Kernel],
    layers: PictureShape,
    seed: int,
    activation_name: str = "relu",
) -> PictureStudent:
    """Return an untrained dense student.

    Parameters
    ----------
    head : Head
    shape : (int, int, int)
        Channels, height and width of a picture.
    scale : float
    kernels : sequence of Kernel
        One a convolution of `layers`.
    layers : PictureShape
    seed : int
    activation_name : str
        One of `eventsim.models.student.STUDENT_ACTIVATIONS`.

    Raises
    ------
    InputError
        If the activation is another, or there are fewer kernels than convolutions.
    """
    if activation_name not in STUDENT_ACTIVATIONS:
        raise InputError(
            f"is {activation_name!r}; use one of {', '.join(STUDENT_ACTIVATIONS)}",
            where="student",
            field="activation",
        )
    if len(kernels) < len(layers.channels):
        raise InputError(
            f"has {len(layers.channels)} convolutions, but {len(kernels)} kernels are given",
            where="student",
            field="layers",
        )
    rng = np.random.default_rng(seed)
    used = tuple(kernels[: len(layers.channels)])
    result = PictureStudent(head, activation_name, shape, scale, used, [], [], [], [])
    sizes: list[tuple[int, ...]] = []
    before = shape
    for n, kernel in zip(layers.channels, used, strict=True):
        sizes.append((n, before[0], *kernel.size))
        before = (n, *_window(before, kernel).target)
    linear = [math.prod(before), *layers.hidden, head.size]
    sizes += [(m, n) for n, m in itertools.pairwise(linear)]
    for k, size in enumerate(sizes):
        last = k + 1 == len(sizes)
        spread = math.sqrt((1.0 if last else 2.0) / math.prod(size[1:]))
        result.weights.append(rng.normal(size=size) * spread)
        result.biases.append(np.zeros(size[0]))
        result.masks.append(np.ones(size, np.bool_))
    result.thresholds = [np.zeros(n) for n in (shape[0], *(size[0] for size in sizes[:-1]))]
    return result


def picture_arrays(student: PictureStudent) -> dict[str, NDArray[Any]]:
    """Arrays of a student, by name, for a checkpoint."""
    geometry = [[*kernel.size, *kernel.stride, *kernel.padding] for kernel in student.kernels]
    return {
        "shape": np.array(student.shape),
        "scale": np.array(student.scale),
        "kernels": np.array(geometry, np.int64).reshape(-1, 6),
        **layer_arrays(student),
    }


def picture_student_from(
    head: Head, name: str, arrays: Mapping[str, NDArray[Any]]
) -> PictureStudent:
    """Rebuild a student from `picture_arrays`."""
    channels, height, width = (int(n) for n in arrays["shape"])
    geometry = [[int(n) for n in row] for row in arrays["kernels"]]
    return PictureStudent(
        head,
        name,
        (channels, height, width),
        float(arrays["scale"]),
        tuple(Kernel((g[0], g[1]), (g[2], g[3]), (g[4], g[5])) for g in geometry),
        listed_arrays(arrays, "weights"),
        listed_arrays(arrays, "biases"),
        [m.astype(np.bool_) for m in listed_arrays(arrays, "masks")],
        listed_arrays(arrays, "thresholds"),
    )


def _window(source: tuple[int, int, int], kernel: Kernel) -> Window:
    channels, height, width = source
    return Window((height, width, channels), kernel.size, kernel.stride, kernel.padding)


__all__ = [
    "Kernel",
    "PictureShape",
    "PictureStudent",
    "fan_out",
    "new_picture_student",
    "picture_arrays",
    "picture_student_from",
    "picture_student_of",
]
