"""Stored forms of connectivities: their tensors in a policy file, checked as they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.connectivity import Connectivity, Dense, Sparse
from eventsim.convolution import (
    GEOMETRY,
    AveragePool,
    Convolution,
    Local,
    MaxWindow,
    from_geometry,
    geometry,
)
from eventsim.errors import EventsimError

Arrays: TypeAlias = dict[str, NDArray[Any]]

#: What the targets of sparse weights may be, from the narrowest on.
_TARGETS = ("uint16", "uint32", "int64")


@dataclass(frozen=True)
class ConnectivityCodec:
    """Stored form of a connectivity.

    Parameters
    ----------
    cls : type
    fields : tuple of str
        Names of its tensors.
    pack : callable
        Connectivity to its tensors.
    unpack : callable
        Tensors and shape (target size, source size) to the connectivity; raises ValueError with
        the fault if they contradict each other.
    """

    cls: type[Connectivity]
    fields: tuple[str, ...]
    pack: Callable[[Any], Arrays]
    unpack: Callable[[Arrays, tuple[int, int]], Connectivity]


def _unpack_dense(arrays: Arrays, shape: tuple[int, int]) -> Connectivity:
    weights = _floating(arrays["weights"])
    if weights.shape != shape:
        raise ValueError(f"have shape {weights.shape}, expected {shape}")
    return Dense(weights)


def _unpack_sparse(arrays: Arrays, shape: tuple[int, int]) -> Connectivity:
    pointers, targets = arrays["pointers"], arrays["targets"]
    weights = _floating(arrays["weights"])
    n_targets, n_sources = shape
    if pointers.dtype != np.int64:
        raise ValueError(f"have pointers that are {pointers.dtype}; expected int64")
    if targets.dtype.name not in _TARGETS:
        raise ValueError(f"have targets that are {targets.dtype}; expected {', '.join(_TARGETS)}")
    if targets.dtype != np.int64:
        targets = targets.astype(np.int64)
        targets.flags.writeable = False
    if pointers.shape != (n_sources + 1,) or targets.ndim != 1 or weights.shape != targets.shape:
        raise ValueError(
            f"have {pointers.size} pointers, {targets.size} targets and {weights.size} weights; "
            f"expected {n_sources + 1} pointers and as many targets as weights"
        )
    if pointers[0] != 0 or pointers[-1] != targets.size or (np.diff(pointers) < 0).any():
        raise ValueError("have pointers that do not ascend from 0 to the number of weights")
    if targets.size and (targets.min() < 0 or targets.max() >= n_targets):
        raise ValueError(f"have targets outside 0 to {n_targets - 1}")
    sources = np.repeat(np.arange(n_sources), np.diff(pointers))
    if (np.diff(sources * n_targets + targets) <= 0).any():
        raise ValueError("have targets that do not ascend within a source")
    if not weights.all():
        raise ValueError("hold exact zeros, which are no synapses")
    return Sparse(shape, pointers, targets, weights)


def _unpack_local(arrays: Arrays, shape: tuple[int, int], kind: type[Local]) -> Connectivity:
    numbers = arrays["geometry"]
    if numbers.dtype != np.int64 or numbers.shape != (len(GEOMETRY),):
        raise ValueError(f"have a geometry that is not {len(GEOMETRY)} int64 numbers")
    if numbers.min() < 0 or numbers.max() > 1 << 31:
        raise ValueError("have a geometry out of range")
    try:
        window, n_channels, groups = from_geometry(numbers)
        weights: Local
        if kind is Convolution:
            weights = Convolution(window, _floating(arrays["weights"]), groups)
        else:
            weights = kind(window)
    except EventsimError as error:
        raise ValueError(f"have no valid window: {error}") from error
    if weights.n_channels != n_channels or weights.groups != groups or weights.shape != shape:
        raise ValueError(
            f"have {weights.n_channels} channels in {weights.groups} groups and shape "
            f"{weights.shape}, expected {n_channels} in {groups} and {shape}"
        )
    return weights


def _floating(weights: NDArray[Any]) -> NDArray[Any]:
    if weights.dtype not in (np.float32, np.float64):
        raise ValueError(f"are {weights.dtype}; expected float32 or float64")
    if not np.isfinite(weights).all():
        raise ValueError("hold NaN or infinity")
    return weights


def narrowed(targets: NDArray[Any]) -> NDArray[Any]:
    """Return targets in the narrowest numbers that hold them: they are a large part of a file."""
    most = targets.max(initial=0)
    return targets.astype(next(name for name in _TARGETS if most <= np.iinfo(name).max))


#: Connectivities that a file can hold.
CONNECTIVITIES: dict[str, ConnectivityCodec] = {
    Dense.kind: ConnectivityCodec(
        Dense, ("weights",), lambda c: {"weights": c.weights}, _unpack_dense
    ),
    Sparse.kind: ConnectivityCodec(
        Sparse,
        ("pointers", "targets", "weights"),
        lambda c: {"pointers": c.pointers, "targets": c.targets, "weights": c.weights},
        _unpack_sparse,
    ),
    Convolution.kind: ConnectivityCodec(
        Convolution,
        ("weights", "geometry"),
        lambda c: {"weights": c.weights, "geometry": geometry(c)},
        partial(_unpack_local, kind=Convolution),
    ),
    **{
        cls.kind: ConnectivityCodec(
            cls,
            ("geometry",),
            lambda c: {"geometry": geometry(c)},
            partial(_unpack_local, kind=cls),
        )
        for cls in (AveragePool, MaxWindow)
    },
}
