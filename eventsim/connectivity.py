"""Which source neuron reaches which target neuron, and with what weight.

Every connectivity has shape (target size, source size) and counts its surviving (non-zero)
synapses; `rows` gives them sorted by source, which is how an event walks them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import NetworkError

if TYPE_CHECKING:
    from scipy.sparse import csc_array

WeightArray: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
IndexArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Connectivity(ABC):
    """Base of the connectivities."""

    kind: ClassVar[str] = ""
    #: Whether the weights are parameters; those of a pool are not.
    trainable: ClassVar[bool] = True

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(target size, source size)."""

    @property
    def n_positions(self) -> int:
        """Number of weights, zeros included, unrolled."""
        return self.shape[0] * self.shape[1]

    @property
    @abstractmethod
    def n_synapses(self) -> int:
        """Number of weights that are not exactly zero, unrolled."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""

    @property
    def dense_macs(self) -> int:
        """Multiplications of the unpruned layer."""
        return self.n_positions

    @property
    def n_parameters(self) -> int:
        """Number of weights that are stored, zeros included: shared ones once."""
        return self.n_positions if self.trainable else 0

    @property
    def n_zeros(self) -> int:
        """How many of the parameters are exactly zero."""
        return self.n_parameters - self.n_synapses if self.trainable else 0

    @property
    def n_biases(self) -> int:
        """Number of biases that a layer of these weights has."""
        return self.shape[0]

    def fan_out(self) -> NDArray[np.int64]:
        """Surviving synapses of each source neuron, shape (source size,)."""
        return np.diff(self.rows()[0])

    @abstractmethod
    def rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        """Surviving synapses sorted by source, then target.

        Returns
        -------
        pointers : int64 array of shape (source size + 1,)
            Synapses of source i are ``pointers[i]:pointers[i + 1]``.
        targets : int64 array of shape (n_synapses,)
        weights : array of shape (n_synapses,)
        """

    def indexed(self) -> Rows:
        """Surviving synapses in the lean form that spiking networks run on."""
        pointers, targets, weights = self.rows()
        return Rows(self.shape, pointers, targets.astype(np.uint32), weights)

    @abstractmethod
    def to_dense(self) -> WeightArray:
        """Weights as array of shape (target size, source size)."""

    @abstractmethod
    def __matmul__(self, source: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``W @ source`` in float64, for source of shape (source size, ...)."""


@dataclass(frozen=True, eq=False)
class Dense(Connectivity):
    """All-to-all weights in one array of shape (target size, source size)."""

    weights: WeightArray
    kind: ClassVar[str] = "dense"

    @property
    def shape(self) -> tuple[int, int]:
        return self.weights.shape[0], self.weights.shape[1]

    @property
    def n_synapses(self) -> int:
        return int(np.count_nonzero(self.weights))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.weights.dtype

    def fan_out(self) -> NDArray[np.int64]:
        return np.asarray(np.count_nonzero(self.weights, axis=0), np.int64)

    def rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        sources, targets = np.nonzero(self.weights.T)
        pointers = np.zeros(self.shape[1] + 1, np.int64)
        np.cumsum(np.bincount(sources, minlength=self.shape[1]), out=pointers[1:])
        return pointers, targets.astype(np.int64), self.weights[targets, sources]

    def to_dense(self) -> WeightArray:
        return self.weights

    # float64 once: a cast in every step of the dense pass would be most of the step.
    @cached_property
    def _matrix(self) -> NDArray[np.float64]:
        return self.weights.astype(np.float64, copy=False)

    def __matmul__(self, source: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._matrix @ source, dtype=np.float64)


def _check_pointers(pointers: NDArray[Any], n_sources: int, n: int) -> None:
    """See that the pointers divide n synapses among the sources."""
    fits = pointers.shape == (n_sources + 1,) and pointers.dtype.kind == "i"
    if not fits or pointers[0] or pointers[-1] != n or (np.diff(pointers) < 0).any():
        raise NetworkError(
            f"must be {n_sources + 1} integers that ascend from 0 to {n}",
            where="connectivity",
            field="pointers",
        )


@dataclass(frozen=True, eq=False)
class Sparse(Connectivity):
    """Weights in compressed columns: sorted by source, exact zeros dropped.

    Parameters
    ----------
    size : (int, int)
        (target size, source size).
    pointers : int64 array of shape (source size + 1,)
        Synapses of source i are ``pointers[i]:pointers[i + 1]``.
    targets : int64 array of shape (n,)
        Of each synapse; no source names one twice.
    weights : float32 or float64 array of shape (n,)

    Raises
    ------
    NetworkError
        If the arrays contradict each other, or a target is out of range.
    """

    size: tuple[int, int]
    pointers: IndexArray
    targets: NDArray[np.int64]
    weights: WeightArray
    kind: ClassVar[str] = "sparse"

    def __post_init__(self) -> None:
        n = self.targets.size
        _check_pointers(self.pointers, self.size[1], n)
        if self.weights.shape != (n,):
            raise NetworkError(
                f"has shape {self.weights.shape}; give one weight for each of {n} targets",
                where="connectivity",
                field="weights",
            )
        if n and not 0 <= self.targets.min() <= self.targets.max() < self.size[0]:
            raise NetworkError(
                f"must lie in 0 to {self.size[0] - 1}", where="connectivity", field="targets"
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def n_synapses(self) -> int:
        return int(self.weights.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.weights.dtype

    def rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        return self.pointers, self.targets, self.weights

    def to_dense(self) -> WeightArray:
        dense = np.zeros(self.size, self.weights.dtype)
        sources = np.repeat(np.arange(self.size[1]), np.diff(self.pointers))
        dense[self.targets, sources] = self.weights
        return dense

    @cached_property
    def _matrix(self) -> csc_array:
        from scipy.sparse import csc_array

        weights = self.weights.astype(np.float64, copy=False)
        return csc_array((weights, self.targets, self.pointers), shape=self.size)

    def __matmul__(self, source: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self._matrix @ source, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Rows(Connectivity):
    """Targets of every source, lean: 4 bytes a synapse with one weight for all, 8 with float32.

    Parameters
    ----------
    size : (int, int)
        (target size, source size).
    pointers : int64 array of shape (source size + 1,)
        Synapses of source i are ``pointers[i]:pointers[i + 1]``.
    targets : uint32 array of shape (n,)
        A target may be named more than once: then there are that many synapses.
    weights : float, or float32 or float64 array of shape (n,)
        One for all synapses, or one a synapse.

    Raises
    ------
    NetworkError
        If the arrays contradict each other.
    """

    size: tuple[int, int]
    pointers: IndexArray
    targets: NDArray[np.uint32]
    weights: Any
    kind: ClassVar[str] = "rows"

    def __post_init__(self) -> None:
        pointers, targets = np.asarray(self.pointers), np.asarray(self.targets)
        if targets.dtype != np.uint32 or targets.ndim != 1:
            raise NetworkError("must be a uint32 array", where="connectivity", field="targets")
        _check_pointers(pointers, self.size[1], targets.size)
        if targets.size and int(targets.max()) >= self.size[0]:
            raise NetworkError(
                f"name target {int(targets.max())} of {self.size[0]}",
                where="connectivity",
                field="targets",
            )
        weights = self.weights
        if np.ndim(weights) == 0:
            weights = float(weights)
            if not np.isfinite(weights):
                raise NetworkError(f"is {weights}", where="connectivity", field="weights")
        else:
            weights = floating(np.asarray(weights), "connectivity")
            if weights.shape != targets.shape:
                raise NetworkError(
                    f"have shape {weights.shape}, expected {targets.shape}",
                    where="connectivity",
                    field="weights",
                )
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        object.__setattr__(self, "weights", weights)

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    @property
    def uniform(self) -> bool:
        """Whether all synapses have one weight."""
        return isinstance(self.weights, float)

    @property
    def n_synapses(self) -> int:
        if self.uniform:
            return int(self.targets.size) if self.weights != 0.0 else 0
        return int(np.count_nonzero(self.weights))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64) if self.uniform else self.weights.dtype

    def rows(self) -> tuple[IndexArray, NDArray[np.int64], WeightArray]:
        lean = self.indexed()
        weights = np.broadcast_to(np.asarray(lean.weights, lean.dtype), lean.targets.shape)
        sources = np.repeat(np.arange(self.size[1]), np.diff(lean.pointers))
        order = np.lexsort((lean.targets, sources))
        return lean.pointers, lean.targets[order].astype(np.int64), weights[order]

    def indexed(self) -> Rows:
        """Itself without exact zeros; no copy where there are none."""
        if self.n_synapses == self.targets.size:
            return self
        keep = np.zeros(self.targets.size, np.bool_) if self.uniform else self.weights != 0.0
        kept = np.zeros(keep.size + 1, np.int64)
        np.cumsum(keep, out=kept[1:])
        weights = self.weights if self.uniform else self.weights[keep]
        return Rows(self.size, kept[self.pointers], self.targets[keep], weights)

    def to_dense(self) -> WeightArray:
        dense = np.zeros(self.size, self.dtype)
        sources = np.repeat(np.arange(self.size[1]), np.diff(self.pointers))
        np.add.at(dense, (self.targets, sources), self.weights)
        return dense

    def __matmul__(self, source: NDArray[np.float64]) -> NDArray[np.float64]:
        values = np.asarray(source, np.float64)
        sources = np.repeat(np.arange(self.size[1]), np.diff(self.pointers))
        weights = np.broadcast_to(np.asarray(self.weights, np.float64), self.targets.shape)
        result = np.zeros((self.size[0], *values.shape[1:]))
        weights = weights.reshape(-1, *[1] * (values.ndim - 1))
        np.add.at(result, self.targets, weights * values[sources])
        return result


def connectivity(weights: Any, where: str) -> Connectivity:
    """Build the connectivity that `weights` describe.

    Parameters
    ----------
    weights : Connectivity, array or scipy.sparse matrix of shape (target size, source size)
    where : str
        The projection, for error messages.

    Raises
    ------
    NetworkError
        If the weights are not a finite numeric matrix.
    """
    if isinstance(weights, Connectivity):
        return weights
    if hasattr(weights, "tocsc"):
        return _from_scipy(weights, where)
    try:
        array = np.array(weights, order="C")  # sums, and files, as if it had been loaded
    except ValueError as error:
        raise NetworkError("are not a matrix", where=where, field="weights") from error
    array = floating(array, where)
    if array.ndim != 2 or array.size == 0:
        raise NetworkError(
            f"have shape {array.shape}; give a matrix (target size, source size)",
            where=where,
            field="weights",
        )
    array.flags.writeable = False
    return Dense(array)


def _from_scipy(matrix: Any, where: str) -> Sparse:
    csc = matrix.tocsc(copy=True)
    csc.sum_duplicates()  # sorts the indices too
    csc.eliminate_zeros()
    arrays = (
        csc.indptr.astype(np.int64),
        csc.indices.astype(np.int64),
        floating(csc.data, where),
    )
    for array in arrays:
        array.flags.writeable = False
    return Sparse((int(csc.shape[0]), int(csc.shape[1])), *arrays)


def floating(array: NDArray[Any], where: str) -> WeightArray:
    """Return weights as float32 or float64; NetworkError if they are not finite real numbers."""
    if array.dtype.kind not in "fiub":
        raise NetworkError("are not real numbers", where=where, field="weights")
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise NetworkError(
            "hold NaN or infinity; give finite weights", where=where, field="weights"
        )
    return array
