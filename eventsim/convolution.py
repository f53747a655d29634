"""Connectivities that slide a window over a picture: convolutions and pools, never unrolled.

A population that a window reads or writes has shape (height, width, channels), channels last, so
that the channels of one position are neighbours in memory; a signal along one axis has height 1.
A window at output position (y, x) covers the input positions ``(y * stride - padding + k *
dilation)``; those outside the picture are no synapses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.connectivity import Connectivity, IndexArray, WeightArray, floating
from eventsim.errors import NetworkError, UnsupportedError

Pair = tuple[int, int]
Float = NDArray[np.float64]

#: Weights above which `Convolution.to_dense` refuses: 2 GB in float64.
MAX_DENSE = 1 << 28


@dataclass(frozen=True)
class Window:
    """Where a window of weights reads and writes.

    Parameters
    ----------
    source : (int, int, int)
        Height, width and channels of the source population.
    size : (int, int)
        Height and width of the window, in taps.
    stride, dilation : (int, int), optional
        Steps between neighbouring windows, and between the taps of one; >= 1.
    padding : (int, int), optional
        Rows above and columns left of the picture that the first window begins with; >= 0.
    target : (int, int), optional
        Height and width of the target population; default as with the same padding at the other
        end.

    Raises
    ------
    NetworkError
        If a number is out of range, or no window fits.
    """

    source: tuple[int, int, int]
    size: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    target: Pair = (0, 0)

    def __post_init__(self) -> None:
        for name, length, least in (
            ("source", 3, 1),
            ("size", 2, 1),
            ("stride", 2, 1),
            ("padding", 2, 0),
            ("dilation", 2, 1),
            ("target", 2, 0),
        ):
            value = tuple(getattr(self, name))
            if len(value) != length or not all(
                isinstance(n, int | np.integer) and n >= least for n in value
            ):
                raise NetworkError(
                    f"is {value}; give {length} whole numbers >= {least}",
                    where="window",
                    field=name,
                )
            object.__setattr__(self, name, tuple(int(n) for n in value))
        largest = [
            (self.source[axis] + 2 * self.padding[axis] - self._span(axis)) // self.stride[axis] + 1
            for axis in (0, 1)
        ]
        if self.target == (0, 0):
            object.__setattr__(self, "target", (largest[0], largest[1]))
        # With one more row or column at the far end, as padding that keeps the size may need.
        if any(not 1 <= self.target[axis] <= largest[axis] + 1 for axis in (0, 1)):
            raise NetworkError(
                f"of {self.size} taps does not give {self.target} positions on a picture of "
                f"{self.source[:2]} with padding {self.padding}",
                where="window",
                field="target",
            )

    def _span(self, axis: int) -> int:
        return (self.size[axis] - 1) * self.dilation[axis] + 1

    @property
    def n_taps(self) -> int:
        """Number of positions that a window covers."""
        return self.size[0] * self.size[1]

    @cached_property
    def covers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Input row (column) of each output row (column) and tap, -1 outside the picture.

        Two arrays of shape (output rows, window rows) and (output columns, window columns).
        """
        both = []
        for axis in (0, 1):
            at = np.arange(self.target[axis])[:, np.newaxis] * self.stride[axis]
            at = at - self.padding[axis] + np.arange(self.size[axis]) * self.dilation[axis]
            both.append(np.where((at >= 0) & (at < self.source[axis]), at, -1))
        return both[0], both[1]

    @cached_property
    def tap_uses(self) -> NDArray[np.int64]:
        """How many positions inside the picture each tap meets, shape `size`."""
        rows, columns = ((at >= 0).sum(axis=0) for at in self.covers)
        return np.asarray(rows[:, np.newaxis] * columns)

    def sum_over_taps(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sum values of shape (rows, columns, channels) of a window over what reads each input.

        Returns
        -------
        int64 array of shape `source`
        """
        reach = []
        for axis, at in enumerate(self.covers):
            table = np.zeros((self.source[axis], self.size[axis]), np.int64)
            for tap in range(self.size[axis]):
                table[at[at[:, tap] >= 0, tap], tap] = 1
            reach.append(table)
        by_row = np.tensordot(reach[0], values, axes=(1, 0))  # (height, columns, channels)
        return np.ascontiguousarray(np.einsum("xl,ylc->yxc", reach[1], by_row))

    def patches(self, values: NDArray[Any], outside: float = 0.0) -> NDArray[Any]:
        """Gather what each window covers.

        Parameters
        ----------
        values : array of shape (..., height, width, channels)
        outside : float, optional
            What stands beyond the edges.

        Returns
        -------
        array of shape (..., output rows, output columns, window rows, window columns, channels)
        """
        rows, columns = self.covers
        height, width, _ = self.source
        edges = [(0, 0)] * (values.ndim - 3) + [(0, 1), (0, 1), (0, 0)]
        padded = np.pad(values, edges, constant_values=outside)
        y = np.where(rows < 0, height, rows)[:, np.newaxis, :, np.newaxis]
        x = np.where(columns < 0, width, columns)[np.newaxis, :, np.newaxis, :]
        return np.asarray(padded[..., y, x, :])


@dataclass(frozen=True, eq=False)
class Local(Connectivity):
    """Base of the connectivities of a `Window`."""

    window: Window

    @property
    def groups(self) -> int:
        """Groups of channels that do not see each other."""
        return self.window.source[2]

    @property
    def n_channels(self) -> int:
        """Channels of the target."""
        return self.window.source[2]

    @property
    def target_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the target."""
        return (*self.window.target, self.n_channels)

    @property
    def shape(self) -> tuple[int, int]:
        height, width = self.window.target
        return height * width * self.n_channels, int(np.prod(self.window.source))

    @property
    def n_positions(self) -> int:
        per_tap = self.window.source[2] * (self.n_channels // self.groups)
        return int(self.window.tap_uses.sum()) * per_tap

    @property
    def n_synapses(self) -> int:
        return int((self.window.tap_uses[:, :, np.newaxis] * self.tap_counts).sum())

    @property
    def kernel_sparsity(self) -> float:
        """Share of the shared weights that are exactly zero, each counted once."""
        return 0.0

    @property
    def tap_counts(self) -> NDArray[np.int64]:
        """Surviving weights of each tap and source channel: (rows, columns, channels)."""
        return np.ones((*self.window.size, self.window.source[2]), np.int64)

    def fan_out(self) -> NDArray[np.int64]:
        return self.window.sum_over_taps(self.tap_counts).reshape(-1)

    def kernel_rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        """Surviving weights by tap and source channel, then target channel.

        Returns
        -------
        pointers : int64 array of shape (taps * source channels + 1,)
        channels : int64 array, of the target
        weights : array of the same length
        """
        n = self.window.n_taps * self.window.source[2]
        channels = np.tile(np.arange(self.window.source[2]), self.window.n_taps)
        return np.arange(n + 1), channels, np.ones(n, self.dtype)

    def rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        """Unroll: as many synapses as positions. No engine needs it; mapping onto chips does."""
        pointers, channels, weights = self.kernel_rows()
        (rows, columns), (_, width, n_sources) = self.window.covers, self.window.source
        n_columns = self.window.size[1]
        sources, targets, values = [], [], []
        for tap in range(self.window.n_taps):
            y, x = rows[:, tap // n_columns], columns[:, tap % n_columns]
            at = y[:, np.newaxis] * width + x
            positions = np.flatnonzero(((y >= 0)[:, np.newaxis] & (x >= 0)).reshape(-1))
            first, last = pointers[tap * n_sources], pointers[(tap + 1) * n_sources]
            counts = np.diff(pointers[tap * n_sources : (tap + 1) * n_sources + 1])
            source = np.repeat(np.arange(n_sources), counts)
            pixel = at.reshape(-1)[positions, np.newaxis] * n_sources
            sources.append((pixel + source).reshape(-1))
            targets.append(
                (positions[:, np.newaxis] * self.n_channels + channels[first:last]).reshape(-1)
            )
            values.append(np.tile(weights[first:last], positions.size))
        source, target = np.concatenate(sources), np.concatenate(targets)
        order = np.lexsort((target, source))
        result = np.zeros(self.shape[1] + 1, np.int64)
        np.cumsum(np.bincount(source, minlength=self.shape[1]), out=result[1:])
        return result, target[order], np.concatenate(values)[order]

    def to_dense(self) -> WeightArray:
        if self.shape[0] * self.shape[1] > MAX_DENSE:
            raise UnsupportedError(
                f"would have {self.shape[0] * self.shape[1]:,} weights as one matrix; keep it as "
                "it is",
                where=self.kind,
            )
        pointers, targets, weights = self.rows()
        dense = np.zeros(self.shape, weights.dtype)
        dense[targets, np.repeat(np.arange(self.shape[1]), np.diff(pointers))] = weights
        return dense


@dataclass(frozen=True, eq=False)
class Convolution(Local):
    """A convolution as deep learning has it (a cross-correlation): shared weights, no unrolling.

    Parameters
    ----------
    window : Window
    weights : float array of shape (rows, columns, source channels, target channels / groups)
        Made from torch's (out, in / groups, rows, columns) by `from_torch_weights`.
    n_groups : int, optional
        The channels fall into as many groups; target channels of one see its source channels only.

    Raises
    ------
    NetworkError
        If the weights do not fit the window.
    """

    weights: WeightArray
    n_groups: int = 1
    kind: ClassVar[str] = "convolution"

    def __post_init__(self) -> None:
        where = f"connectivity '{self.kind}'"
        array = floating(np.array(self.weights, order="C"), where)
        expected = (*self.window.size, self.window.source[2])
        if array.ndim != 4 or array.shape[:3] != expected or array.size == 0:
            raise NetworkError(
                f"have shape {array.shape}, expected {expected} and the target's channels a group",
                where=where,
                field="weights",
            )
        if self.n_groups < 1 or self.window.source[2] % self.n_groups:
            raise NetworkError(
                f"is {self.n_groups}, which does not divide {self.window.source[2]} channels",
                where=where,
                field="n_groups",
            )
        array.flags.writeable = False
        object.__setattr__(self, "weights", array)

    @classmethod
    def from_torch_weights(
        cls,
        weights: NDArray[Any],
        source: tuple[int, int, int],
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        n_groups: int = 1,
        target: Pair = (0, 0),
    ) -> Convolution:
        """Build from weights in torch's order, (out, in / groups, rows, columns).

        `source` is (height, width, channels).
        """
        array = np.asarray(weights)
        if array.ndim != 4:
            raise NetworkError(
                f"have shape {array.shape}; give (out, in / groups, rows, columns)",
                where=f"connectivity '{cls.kind}'",
                field="weights",
            )
        n_out, per_group, rows, columns = array.shape
        window = Window(source, (rows, columns), stride, padding, dilation, target)
        if n_groups < 1 or n_out % n_groups or per_group * n_groups != source[2]:
            raise NetworkError(
                f"have shape {array.shape}, which does not fit {source[2]} channels in "
                f"{n_groups} group(s)",
                where=f"connectivity '{cls.kind}'",
                field="weights",
            )
        split = array.reshape(n_groups, n_out // n_groups, per_group, rows, columns)
        kernel = split.transpose(3, 4, 0, 2, 1).reshape(rows, columns, source[2], -1)
        return cls(window, kernel, n_groups)

    def to_torch_weights(self) -> NDArray[Any]:
        """Return the weights in torch's order, (out, in / groups, rows, columns)."""
        rows, columns, n_in, per_group = self.weights.shape
        split = self.weights.reshape(rows, columns, self.n_groups, n_in // self.n_groups, per_group)
        shape = (self.n_channels, n_in // self.n_groups, rows, columns)
        return np.ascontiguousarray(split.transpose(2, 4, 3, 0, 1).reshape(shape))

    def with_weights(self, weights: NDArray[Any]) -> Convolution:
        """Return the same convolution with other weights, of the shape of `weights`."""
        return Convolution(self.window, weights, self.n_groups)

    @property
    def groups(self) -> int:
        return self.n_groups

    @property
    def n_channels(self) -> int:
        return int(self.weights.shape[3]) * self.n_groups

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.weights.dtype

    @property
    def n_parameters(self) -> int:
        return self.weights.size

    @property
    def n_zeros(self) -> int:
        return int(self.weights.size - np.count_nonzero(self.weights))

    @property
    def n_biases(self) -> int:
        return self.n_channels

    @property
    def kernel_sparsity(self) -> float:
        return self.n_zeros / self.weights.size

    @property
    def tap_counts(self) -> NDArray[np.int64]:
        return np.asarray(np.count_nonzero(self.weights, axis=3), np.int64)

    def kernel_rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        n_in, per_group = self.weights.shape[2:]
        flat = self.weights.reshape(-1, per_group)
        row, channel = np.nonzero(flat)
        pointers = np.zeros(len(flat) + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=len(flat)), out=pointers[1:])
        group = (row % n_in) // (n_in // self.n_groups)
        return pointers, group * per_group + channel, flat[row, channel]

    @cached_property
    def _wide(self) -> Float:
        """Weights by group as (groups, taps * channels a group, target channels a group)."""
        rows, columns, n_in, per_group = self.weights.shape
        split = self.weights.astype(np.float64).reshape(
            rows * columns, self.n_groups, n_in // self.n_groups, per_group
        )
        return np.ascontiguousarray(
            split.transpose(1, 0, 2, 3).reshape(self.n_groups, -1, per_group)
        )

    def __matmul__(self, source: Float) -> Float:
        x = np.asarray(source, np.float64)
        tail = x.shape[1:]
        x = np.moveaxis(x.reshape(*self.window.source, -1), -1, 0)
        patches = self.window.patches(x)  # (T, y, x, rows, columns, channels)
        n, height, width, rows, columns = patches.shape[:5]
        split = patches.reshape(n * height * width, rows * columns, self.n_groups, -1)
        by_group = split.transpose(2, 0, 1, 3).reshape(self.n_groups, n * height * width, -1)
        by_group = np.matmul(by_group, self._wide)  # (groups, n y x, channels a group)
        result = by_group.transpose(1, 0, 2).reshape(n, -1)
        return np.ascontiguousarray(result.T).reshape(-1, *tail)


@dataclass(frozen=True, eq=False)
class AveragePool(Local):
    """The mean of each channel over a window; what lies outside the picture counts as 0."""

    kind: ClassVar[str] = "average_pool"
    trainable: ClassVar[bool] = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    def kernel_rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        pointers, channels, weights = super().kernel_rows()
        return pointers, channels, np.full(weights.size, 1.0 / self.window.n_taps)

    def __matmul__(self, source: Float) -> Float:
        x = np.asarray(source, np.float64)
        tail = x.shape[1:]
        patches = self.window.patches(np.moveaxis(x.reshape(*self.window.source, -1), -1, 0))
        result = patches.mean(axis=(3, 4)).reshape(len(patches), -1)
        return np.ascontiguousarray(result.T).reshape(-1, *tail)


@dataclass(frozen=True, eq=False)
class MaxWindow(Local):
    """What a `MaxPool` neuron watches: each channel over a window. It carries no weights."""

    kind: ClassVar[str] = "max_window"
    trainable: ClassVar[bool] = False

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def dense_macs(self) -> int:
        """None: a comparison is no multiplication."""
        return 0

    def __matmul__(self, source: Float) -> Float:
        x = np.asarray(source, np.float64)
        tail = x.shape[1:]
        x = np.moveaxis(x.reshape(*self.window.source, -1), -1, 0)
        result = self.window.patches(x, -np.inf).max(axis=(3, 4)).reshape(len(x), -1)
        return np.ascontiguousarray(result.T).reshape(-1, *tail)


#: Columns of the geometry that kernels get, see `geometry`.
GEOMETRY = (
    "height", "width", "channels", "rows", "columns", "stride_y", "stride_x", "padding_y",
    "padding_x", "dilation_y", "dilation_x", "target_height", "target_width", "target_channels",
    "groups",
)  # fmt: skip


def geometry(weights: Local) -> NDArray[np.int64]:
    """Return the numbers of `GEOMETRY`, in its order."""
    w = weights.window
    values = (
        *w.source, *w.size, *w.stride, *w.padding, *w.dilation, *w.target, weights.n_channels,
        weights.groups,
    )  # fmt: skip
    return np.array(values, np.int64)


def from_geometry(values: NDArray[np.int64]) -> tuple[Window, int, int]:
    """Return the window, target channels and groups that `geometry` describes.

    Raises
    ------
    NetworkError
        If they describe none.
    """
    n = [int(v) for v in values]
    window = Window(
        (n[0], n[1], n[2]), (n[3], n[4]), (n[5], n[6]), (n[7], n[8]), (n[9], n[10]), (n[11], n[12])
    )
    return window, n[13], n[14]
