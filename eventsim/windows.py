"""A window's part of a plan: its rows of shared weights and who reaches whom.

See `eventsim.kernels.conv` for what a kernel makes of it, and `eventsim.kernels.window_fields` for
where things stand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.convolution import GEOMETRY, Local, MaxWindow, geometry
from eventsim.kernels import fields as f
from eventsim.kernels import window_fields as g
from eventsim.kernels.window_lanes import LANES

Int = NDArray[np.int64]

#: Share of surviving weights of a row from which on it is stored dense.
DENSE_FILL = 0.25
#: Mean share from which on every row is dense, so that the rows of a pixel's events are added
#: together.
DENSE_MEAN = 0.04
#: Indices of target channels are uint16.
MAX_CHANNELS = 1 << 16


class WindowRows:
    """How the shared rows of one window are stored."""

    long = False

    def __init__(self, weights: Local, wide: bool) -> None:
        self._weights = weights
        self._pointers, self._channels, values = weights.kernel_rows()
        self._values = values
        self.n_targets, self.n_sources = weights.shape
        #: Surviving synapses of each source neuron.
        self.counts = weights.fan_out()
        self._row_counts = np.diff(self._pointers)
        self.n_rows = self._row_counts.size
        self._n = weights.n_channels // weights.groups
        with np.errstate(over="ignore"):
            self.wide = wide or not np.array_equal(values.astype(np.float32), values)
        #: Places of a dense row: a whole number of vectors.
        self._stride = -(-self._n // LANES) * LANES
        fill = self._row_counts / self._n
        if isinstance(weights, MaxWindow):
            self._dense = np.zeros(self.n_rows, np.bool_)
            self._row_counts = np.zeros_like(self._row_counts)
        elif weights.groups == 1 and fill.mean() >= DENSE_MEAN:
            self._dense = np.ones(self.n_rows, np.bool_)
        else:
            self._dense = (fill >= DENSE_FILL) & (self._row_counts > 0)
        self._n_weights = np.where(self._dense, self._stride, self._row_counts)
        itemsize = 8 if self.wide else 4
        self.weight_words = -(-int(self._n_weights.sum()) * itemsize // 8)
        n_indexed = int(self._row_counts[~self._dense].sum())
        self.index_words = -(-n_indexed * 2 // 8)
        self._masked = np.flatnonzero(self._dense & (self._row_counts < self._n))
        if self.kind(np.ones(0, np.bool_)) == f.DENSE:
            self._masked = np.arange(self.n_rows)  # so that no row has to be told from another
        self._mask_size = -(-self._n // 64)
        self.mask_words = self._masked.size * self._mask_size
        self.n_indexed = n_indexed
        self.n_dense = int(self._dense.sum()) * self._stride
        self.bytes_indexed = n_indexed * (itemsize + 2)
        self.bytes_dense = self.n_dense * itemsize + 8 * self.mask_words
        rows, columns = weights.window.covers
        self._reach = [
            _reach(at, n) for at, n in zip((rows, columns), weights.window.source, strict=False)
        ]
        counted = weights.groups == 1 and self.kind(np.ones(0, np.bool_)) == f.DENSE
        self._fan_out_words = -(-self.n_sources // 2) if counted else 0
        self.window_words = self._fan_out_words + g.W_WINDOW + len(self._reach[1])
        for lists in self._reach:
            self.window_words += len(lists) + 1 + g.W_ENTRY * sum(map(len, lists))

    def kind(self, transmits: NDArray[np.bool_]) -> int:
        """Whether all rows are stored dense, and all of their synapses survive."""
        if not self._dense.all():
            return f.MIXED
        return f.FULL if (self._row_counts == self._n).all() else f.DENSE

    def store(self, plan: Int, table: Int, at_weights: int, at_indices: int, at_masks: int) -> None:
        """Fill the rows table and the rows."""
        weights: NDArray[Any] = plan.view(np.float64 if self.wide else np.float32)
        at_weights *= 1 if self.wide else 2
        at_indices *= 4
        table[:, f.R_WEIGHT] = at_weights + _before(self._n_weights)
        indexed = np.where(self._dense, 0, self._row_counts)
        table[:, f.R_INDEX] = np.where(self._dense, -1, at_indices + _before(indexed))
        table[:, f.R_COUNT] = self._row_counts
        table[self._masked, f.R_MASK] = at_masks + self._mask_size * np.arange(self._masked.size)
        if isinstance(self._weights, MaxWindow):
            return
        indices = plan.view(np.uint16)
        per_group = self._weights.window.source[2] // self._weights.groups
        for i in range(self.n_rows):
            here = slice(int(self._pointers[i]), int(self._pointers[i + 1]))
            group = (i % self._weights.window.source[2]) // per_group
            channels, values = self._channels[here] - group * self._n, self._values[here]
            first = int(table[i, f.R_WEIGHT])
            if not self._dense[i]:
                weights[first : first + channels.size] = values
                place = int(table[i, f.R_INDEX])
                indices[place : place + channels.size] = channels
                continue
            weights[first + channels] = values
            mask = int(table[i, f.R_MASK])
            if mask:
                survives = np.zeros(self._n, np.bool_)
                survives[channels] = True
                bits = np.packbits(survives, bitorder="little")
                plan[mask : mask + self._mask_size].view(np.uint8)[: bits.size] = bits

    def store_window(self, plan: Int, at: int, rows: int) -> None:
        """Fill the window's block; its rows table stands at `rows`."""
        weights = self._weights
        numbers = geometry(weights)
        plan[at : at + len(GEOMETRY)] = numbers
        plan[at + g.G_WATCH] = isinstance(weights, MaxWindow)
        target_width, n_channels = weights.window.target[1], weights.n_channels
        n_sources = weights.window.source[2]
        taps = (weights.window.size[1] * n_sources, n_sources)
        targets = (target_width * n_channels, n_channels)
        plan[at + g.G_ROW_PLACES] = self._stride
        plan[at + g.G_MASKS] = plan[rows + f.R_MASK]
        place = at + g.W_WINDOW
        if self._fan_out_words:
            plan[at + g.G_FAN_OUT] = 2 * place
            plan.view(np.uint32)[2 * place :][: self.n_sources] = self.counts
            place += self._fan_out_words
        alike = _alike(self._reach[1])
        plan[at + g.G_ALIKE] = place
        plan[place : place + len(alike)] = alike
        place += len(alike)
        for field, lists, tap, target in zip(
            (g.G_REACH_Y, g.G_REACH_X), self._reach, taps, targets, strict=True
        ):
            plan[at + field] = place
            entry = place + len(lists) + 1
            for k, entries in enumerate(lists):
                plan[place + k] = entry
                for to, through in entries:
                    plan[entry + g.E_TAP] = through * tap
                    plan[entry + g.E_TARGET] = to * target
                    entry += g.W_ENTRY
            plan[place + len(lists)] = entry
            place = entry


def _reach(covers: Int, n_sources: int) -> list[list[tuple[int, int]]]:
    """For each source row (column): the target row and the tap through which it is reached."""
    lists: list[list[tuple[int, int]]] = [[] for _ in range(n_sources)]
    for to, taps in enumerate(covers):
        for tap, at in enumerate(taps):
            if at >= 0:
                lists[at].append((to, tap))
    return lists


def _alike(reach: list[list[tuple[int, int]]]) -> list[int]:
    """For each source column, the end of the columns that reach the same by one tap more each."""
    ends = list(range(1, len(reach) + 1))
    for x in range(len(reach) - 2, -1, -1):
        if reach[x + 1] == [(to, tap + 1) for to, tap in reach[x]]:
            ends[x] = ends[x + 1]
    return ends


def _before(counts: Int) -> Int:
    return np.asarray(np.cumsum(counts) - counts)
