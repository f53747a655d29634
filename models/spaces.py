"""Observation and action spaces as plain data: what fits them, and how an observation flattens.

Gymnasium is imported only where one of its spaces is handed in.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from gymnasium import Space

FloatArray: TypeAlias = NDArray[np.float64]

# Up to this many values, asking one by one is faster than NumPy.
_FEW = 64


@dataclass(frozen=True)
class SpaceSpec(ABC):
    """Base of the space descriptions."""

    kind: ClassVar[str] = ""

    if TYPE_CHECKING:  # at run time it would become the default of the fields of this name

        @property
        def shape(self) -> tuple[int, ...]:
            """Shape of one element of the space."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of values of the flattened element."""

    def is_batched(self, observation: Any, where: str = "observation") -> bool:
        """Tell by its shape whether `observation` is one element or a batch of them.

        Raises
        ------
        InputError
            If it is neither.
        """
        shape = np.shape(_array(observation, where))
        if shape == self.shape:
            return False
        if shape[1:] == self.shape and shape:
            return True
        raise InputError(
            f"has shape {shape}, expected {self.shape} or a batch {_batch(self.shape)}",
            where=where,
        )

    @abstractmethod
    def flatten(
        self, observation: Any, batched: bool = False, where: str = "observation"
    ) -> FloatArray:
        """Return the values that a network sees, as Stable-Baselines3 preprocesses them.

        Parameters
        ----------
        observation : array-like of shape ``shape``, or ``(B, *shape)`` if `batched`
        batched : bool, optional
        where : str, optional
            Name of the observation, for error messages.

        Returns
        -------
        float64 array of shape (size,), or (B, size) if `batched`
            A new one.

        Raises
        ------
        InputError
            If the shape or type is another one, a value is not finite, or a discrete one is out
            of range.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` rebuilds the description."""

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> SpaceSpec:
        """Rebuild a description from what `to_dict` gave.

        Raises
        ------
        InputError
            If the data do not describe a space.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"a space is described by a dict, not by {data!r}")
        fields = dict(data)
        kind = fields.pop("kind", None)
        if not isinstance(kind, str) or kind not in SPACES:
            raise InputError(f"space kind {kind!r} is not known; use one of {', '.join(SPACES)}")
        if kind == DictSpec.kind:
            entries = fields.get("spaces")
            if not isinstance(entries, list) or set(fields) != {"spaces"}:
                raise InputError("a dict space needs a list 'spaces' of pairs (key, space)")
            try:
                return DictSpec(tuple((key, SpaceSpec.from_dict(value)) for key, value in entries))
            except (TypeError, ValueError) as error:
                raise InputError(f"a dict space cannot be built: {error}") from error
        try:
            return SPACES[kind](**fields)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"a {kind} space cannot be built: {error}") from error

    @staticmethod
    def from_gymnasium(space: Space[Any]) -> SpaceSpec:
        """Describe a Gymnasium space.

        Raises
        ------
        UnsupportedError
            If it is neither Box, Discrete, MultiDiscrete, MultiBinary nor a flat Dict of them.
        """
        from gymnasium import spaces

        if isinstance(space, spaces.Dict):
            return DictSpec(
                tuple((key, SpaceSpec.from_gymnasium(s)) for key, s in space.spaces.items())
            )
        if isinstance(space, spaces.Box):
            return BoxSpec(space.shape, str(space.dtype), _is_image(space))
        if isinstance(space, spaces.Discrete):
            return DiscreteSpec(int(space.n), int(space.start))
        if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            return MultiDiscreteSpec(space.nvec.tolist(), np.asarray(space.start).tolist())
        if isinstance(space, spaces.MultiBinary):
            return MultiBinarySpec(space.shape)
        raise UnsupportedError(
            f"the space {space} is not supported; wrap the environment so that it has a Box, "
            "Discrete, MultiDiscrete (one axis), MultiBinary, or a Dict of these"
        )


@dataclass(frozen=True)
class BoxSpec(SpaceSpec):
    """Real numbers of a fixed shape.

    Values outside the bounds of the Gymnasium space are taken as they are, as
    Stable-Baselines3 does.

    Parameters
    ----------
    shape : tuple of int
    dtype : str, optional
        The space's own.
    image : bool, optional
        Bytes from 0 to 255 with three axes, which Stable-Baselines3 divides by 255 unless
        they are normalised otherwise.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    image: bool = False
    kind: ClassVar[str] = "box"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", sizes(self.shape, "a box space"))
        try:
            name = np.dtype(self.dtype).name
        except TypeError as error:
            raise InputError(f"a box space has no such dtype as {self.dtype!r}") from error
        if np.dtype(name).kind not in "fiub":
            raise InputError(f"a box space of dtype {name} does not hold real numbers")
        if not isinstance(self.image, bool):
            raise InputError(f"holds {self.image!r}; give a bool", where="a box space")
        object.__setattr__(self, "dtype", name)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def flatten(
        self, observation: Any, batched: bool = False, where: str = "observation"
    ) -> FloatArray:
        array = _array(observation, where)
        if array.shape != self.shape or batched:
            _check_shape(array, self.shape, batched, where)
        if array.dtype.kind not in "fiub":
            raise InputError(
                f"has dtype {array.dtype}, expected real numbers of shape {self.shape}",
                where=where,
            )
        flat = array.astype(np.float64)
        if batched or len(self.shape) != 1:
            flat = flat.reshape((-1, self.size) if batched else -1)
        if not _all_finite(flat):
            raise InputError(
                f"holds NaN or infinity; expected finite numbers of shape {self.shape}",
                where=where,
            )
        return flat

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "image": self.image,
        }


@dataclass(frozen=True)
class DiscreteSpec(SpaceSpec):
    """Integers ``start, ..., start + n - 1``, flattened one-hot."""

    n: int
    start: int = 0
    kind: ClassVar[str] = "discrete"

    def __post_init__(self) -> None:
        sizes((self.n,), "a discrete space")
        object.__setattr__(self, "start", whole(self.start, "a discrete space"))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return ()

    @property
    def size(self) -> int:
        return self.n

    def flatten(
        self, observation: Any, batched: bool = False, where: str = "observation"
    ) -> FloatArray:
        if not batched and type(observation) in (int, np.int64):
            place = int(observation) - self.start
            if 0 <= place < self.n:
                vector = np.zeros(self.n)
                vector[place] = 1.0
                return vector
        array = _integers(observation, (), batched, where)
        _check_range(array, self.start, self.n, where)
        flat = np.zeros((*array.shape, self.n))
        np.put_along_axis(flat, (array - self.start)[..., np.newaxis], 1.0, axis=-1)
        return flat

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "n": self.n, "start": self.start}


@dataclass(frozen=True)
class MultiDiscreteSpec(SpaceSpec):
    """A vector of integers, entry i in ``start[i], ..., start[i] + nvec[i] - 1``.

    Flattened one-hot, one entry after the other.
    """

    nvec: tuple[int, ...]
    start: tuple[int, ...] = ()
    kind: ClassVar[str] = "multi_discrete"

    def __post_init__(self) -> None:
        nvec = sizes(self.nvec, "a multi_discrete space")
        start = tuple(whole(s, "a multi_discrete space") for s in self.start)
        start = start or (0,) * len(nvec)
        if len(start) != len(nvec) or not nvec:
            raise InputError(f"a multi_discrete space has {len(nvec)} nvec and {len(start)} start")
        object.__setattr__(self, "nvec", nvec)
        object.__setattr__(self, "start", start)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        return (len(self.nvec),)

    @property
    def size(self) -> int:
        return sum(self.nvec)

    def flatten(
        self, observation: Any, batched: bool = False, where: str = "observation"
    ) -> FloatArray:
        array = _integers(observation, self.shape, batched, where)
        start, nvec = np.array(self.start), np.array(self.nvec)
        _check_range(array, start, nvec, where)
        places = array - start + (np.cumsum(nvec) - nvec)
        flat = np.zeros((*array.shape[:-1], self.size))
        np.put_along_axis(flat, places, 1.0, axis=-1)
        return flat

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "nvec": list(self.nvec), "start": list(self.start)}


@dataclass(frozen=True)
class MultiBinarySpec(SpaceSpec):
    """Zeros and ones of a fixed shape."""

    shape: tuple[int, ...]
    kind: ClassVar[str] = "multi_binary"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", sizes(self.shape, "a multi_binary space"))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def flatten(
        self, observation: Any, batched: bool = False, where: str = "observation"
    ) -> FloatArray:
        array = _array(observation, where)
        if array.dtype.kind == "b":
            array = array.astype(np.int8)
        array = _integers(array, self.shape, batched, where)
        _check_range(array, 0, 2, where)
        return array.astype(np.float64).reshape((-1, self.size) if batched else -1)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "shape": list(self.shape)}


@dataclass(frozen=True)
class DictSpec(SpaceSpec):
    """Named spaces, in the order in which the Gymnasium space lists them.

    Their flattened values are concatenated in that order, as Stable-Baselines3's
    ``CombinedExtractor`` does.
    """

    spaces: tuple[tuple[str, SpaceSpec], ...]
    kind: ClassVar[str] = "dict"

    def __post_init__(self) -> None:
        keys = [key for key, _ in self.spaces]
        if not keys or len(set(keys)) < len(keys):
            raise InputError("a dict space needs at least one key, and each key once")
        for key, space in self.spaces:
            if not isinstance(key, str) or isinstance(space, DictSpec):
                raise UnsupportedError(
                    f"the dict space's entry {key!r} is nested or not named by a string; flatten "
                    "the observation in a wrapper"
                )

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the spaces."""
        return tuple(key for key, _ in self.spaces)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one observation."""
        raise UnsupportedError("a dict space has no shape; ask its entries")

    @property
    def size(self) -> int:
        return sum(space.size for _, space in self.spaces)

    def is_batched(self, observation: Any, where: str = "observation") -> bool:
        check_keys(observation, self.spaces, where)
        answers = {
            key: space.is_batched(observation[key], entry(key)) for key, space in self.spaces
        }
        if len(set(answers.values())) > 1:
            single = next(key for key, batched in answers.items() if not batched)
            shape = dict(self.spaces)[single].shape
            raise InputError(
                f"has shape {shape} where others are batches, expected {_batch(shape)}",
                where=entry(single),
            )
        return answers[self.keys[0]]

    def flatten(
        self, observation: Any, batched: bool = False, where: str = "observation"
    ) -> FloatArray:
        check_keys(observation, self.spaces, where)
        return concatenate(
            {
                key: space.flatten(observation[key], batched, entry(key))
                for key, space in self.spaces
            },
            batched,
            where,
        )

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "spaces": [[key, s.to_dict()] for key, s in self.spaces]}


SPACES: dict[str, type[SpaceSpec]] = {
    cls.kind: cls for cls in (BoxSpec, DiscreteSpec, MultiDiscreteSpec, MultiBinarySpec, DictSpec)
}


def entry(key: str) -> str:
    """Name an entry of a dict observation in an error message."""
    return f"observation {key!r}"


def check_keys(
    observation: Any, spaces: Sequence[tuple[str, SpaceSpec]], where: str = "observation"
) -> None:
    """Raise InputError unless `observation` is a mapping with exactly the keys of `spaces`."""
    if not isinstance(observation, Mapping):
        raise InputError(
            f"is a {type(observation).__name__}, expected a dict with the keys "
            + ", ".join(repr(key) for key, _ in spaces),
            where=where,
        )
    for key, space in spaces:
        if key not in observation:
            raise InputError(f"is missing, expected shape {space.shape}", where=entry(key))
    if len(observation) != len(spaces):
        known = [key for key, _ in spaces]
        extra = next(key for key in observation if key not in known)
        raise InputError(
            f"has the key {extra!r} that the policy does not know, expected "
            + ", ".join(map(repr, known)),
            where=where,
        )


def concatenate(
    parts: Mapping[str, FloatArray], batched: bool, where: str = "observation"
) -> FloatArray:
    """Join the vectors, or batches of vectors, of a dict observation's entries.

    Raises
    ------
    InputError
        If the batches differ in length.
    """
    if batched and len({part.shape[0] for part in parts.values()}) > 1:
        lengths = ", ".join(f"{key!r}: {part.shape[0]}" for key, part in parts.items())
        raise InputError(
            f"has batches of different length ({lengths}), expected one length for all",
            where=where,
        )
    return np.concatenate(list(parts.values()), axis=-1)


def whole(value: Any, what: str) -> int:
    """Return a whole number as int; InputError naming `what` if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"holds {value!r}; give a whole number", where=what)
    if abs(int(value)) >= 2**62:  # so that no sum of two leaves int64
        raise InputError("holds a number beyond 62 bits; give a smaller one", where=what)
    return int(value)


def sizes(values: Iterable[Any], what: str) -> tuple[int, ...]:
    """Return whole numbers >= 1 as tuple; InputError naming `what` if they are not."""
    numbers = tuple(whole(value, what) for value in values)
    if any(number < 1 for number in numbers):
        raise InputError(f"has the sizes {numbers}; give numbers >= 1", where=what)
    return numbers


def _array(value: Any, where: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError("is not an array of numbers", where=where) from error


def _batch(shape: tuple[int, ...]) -> str:
    return f"({', '.join(['B', *map(str, shape)])}{',' if not shape else ''})"


def _check_shape(array: NDArray[Any], shape: tuple[int, ...], batched: bool, where: str) -> None:
    if array.shape[1:] != shape or not array.shape if batched else array.shape != shape:
        expected = _batch(shape) if batched else str(shape)
        raise InputError(f"has shape {array.shape}, expected {expected}", where=where)


def _integers(value: Any, shape: tuple[int, ...], batched: bool, where: str) -> NDArray[np.int64]:
    array = _array(value, where)
    _check_shape(array, shape, batched, where)
    if array.dtype.kind not in "iu":
        raise InputError(
            f"has dtype {array.dtype}, expected integers of shape {shape}", where=where
        )
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise InputError("holds integers beyond 64 bits", where=where)
    return array.astype(np.int64)


def _check_range(array: NDArray[np.int64], start: Any, n: Any, where: str) -> None:
    bad = (array < start) | (array >= start + n)
    if bad.any():
        first = np.argwhere(bad)[0]
        low = int(np.broadcast_to(start, array.shape)[tuple(first)])
        high = low + int(np.broadcast_to(n, array.shape)[tuple(first)]) - 1
        raise InputError(
            f"holds {int(array[tuple(first)])}, expected integers from {low} to {high}",
            where=where,
        )


def _all_finite(flat: FloatArray) -> bool:
    if flat.size <= _FEW and flat.ndim == 1:
        return all(map(math.isfinite, flat.tolist()))
    return bool(np.isfinite(flat).all())


def _is_image(space: Any) -> bool:
    """Whether Stable-Baselines3 would divide the values of a Box by 255."""
    return (
        space.dtype == np.uint8
        and len(space.shape) == 3
        and bool(np.all(space.low == 0))
        and bool(np.all(space.high == 255))
    )
