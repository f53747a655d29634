"""Network outputs to actions, as Stable-Baselines3's deterministic ``predict`` gives them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError, UnsupportedError
from eventsim.models.spaces import FloatArray, sizes, whole

if TYPE_CHECKING:
    from gymnasium import Space


@dataclass(frozen=True, eq=False)
class Decoder(ABC):
    """Base of the decoders: a network's outputs to the action that ``env.step`` takes."""

    kind: ClassVar[str] = ""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number m of network outputs."""

    def decode(self, outputs: FloatArray) -> Any:
        """Return the action for one step's outputs.

        Parameters
        ----------
        outputs : float64 array of shape (m,)

        Returns
        -------
        action
            An element of the action space: an int64 scalar for Discrete, else a new array.

        Raises
        ------
        InputError
            If the outputs have another shape or hold NaN.
        """
        if outputs.shape != (self.size,):
            raise InputError(
                f"outputs have shape {outputs.shape}, expected ({self.size},)", where=self._where
            )
        return self._decode(outputs[np.newaxis])[0]

    def decode_batch(self, outputs: FloatArray) -> NDArray[Any]:
        """Return the actions for outputs of shape (B, m), as array of shape (B, ...).

        Raises
        ------
        InputError
            As in `decode`.
        """
        if outputs.ndim != 2 or outputs.shape[1] != self.size:
            raise InputError(
                f"outputs have shape {outputs.shape}, expected (B, {self.size})",
                where=self._where,
            )
        return self._decode(outputs)

    @abstractmethod
    def _decode(self, outputs: FloatArray) -> NDArray[Any]:
        """Outputs of shape (B, m) to actions of shape (B, ...)."""

    @property
    def _where(self) -> str:
        return f"decoder '{self.kind}'"

    def to_dict(self) -> dict[str, Any]:
        """Plain data that, with `arrays`, rebuild the decoder."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind} | {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in plain.items()
            if not isinstance(value, np.ndarray)
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays of the decoder, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: v for name, v in values.items() if isinstance(v, np.ndarray)}

    @staticmethod
    def from_dict(data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Decoder:
        """Rebuild a decoder from what `to_dict` and `arrays` gave.

        Raises
        ------
        InputError
            If they do not describe one.
        """
        values = {**data, **arrays}
        kind = values.pop("kind", None)
        if not isinstance(kind, str) or kind not in DECODERS:
            raise InputError(
                f"is {kind!r}; it must be one of {', '.join(DECODERS)}",
                where="decoder",
                field="kind",
            )
        try:
            return DECODERS[kind](**values)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"cannot be built: {error}", where=f"decoder '{kind}'") from error


@dataclass(frozen=True, eq=False)
class Argmax(Decoder):
    """The index of the largest output: Q-values or logits of a Discrete action.

    Parameters
    ----------
    n : int
        Number of actions.
    start : int, optional
        The smallest action.
    """

    n: int
    start: int = 0
    kind: ClassVar[str] = "argmax"

    def __post_init__(self) -> None:
        sizes((self.n,), self._where)
        whole(self.start, self._where)

    @property
    def size(self) -> int:
        return self.n

    def decode(self, outputs: FloatArray) -> Any:
        if outputs.shape != (self.n,):
            return super().decode(outputs)
        best = outputs.argmax()
        if outputs[best] != outputs[best]:  # argmax points to a NaN if there is one
            raise _not_a_number(self)
        return best + self.start

    def _decode(self, outputs: FloatArray) -> NDArray[Any]:
        _check_nan(self, outputs)
        return _start(outputs.argmax(axis=1), self.start)


@dataclass(frozen=True, eq=False)
class QuantileArgmax(Decoder):
    """The action of the largest mean over quantiles, as QR-DQN (Dabney et al. 2018).

    Parameters
    ----------
    n_actions, n_quantiles : int
        The outputs are laid out as (n_quantiles, n_actions), C order.
    start : int, optional
        The smallest action.
    """

    n_actions: int
    n_quantiles: int
    start: int = 0
    kind: ClassVar[str] = "quantile_argmax"

    def __post_init__(self) -> None:
        sizes((self.n_actions, self.n_quantiles), self._where)
        whole(self.start, self._where)

    @property
    def size(self) -> int:
        return self.n_actions * self.n_quantiles

    def _decode(self, outputs: FloatArray) -> NDArray[Any]:
        _check_nan(self, outputs)
        quantiles = outputs.reshape(-1, self.n_quantiles, self.n_actions)
        return _start(quantiles.mean(axis=1).argmax(axis=1), self.start)


@dataclass(frozen=True, eq=False)
class ClipBox(Decoder):
    """The outputs clipped to a Box: the mean of a Gaussian policy.

    Parameters
    ----------
    low, high : float or array
        Bounds, possibly infinite; broadcast to `shape`.
    shape : tuple of int, optional
        Default the shape of the bounds.
    dtype : str, optional
        Of the action space: a floating one.
    """

    low: NDArray[Any]
    high: NDArray[Any]
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    kind: ClassVar[str] = "clip_box"

    def __init__(
        self,
        low: ArrayLike,
        high: ArrayLike,
        shape: Sequence[int] | None = None,
        dtype: str = "float32",
    ) -> None:
        if shape is None:
            shape = np.broadcast_shapes(np.shape(low), np.shape(high))
        name = np.dtype(dtype).name
        if np.dtype(name).kind != "f":
            raise UnsupportedError(
                f"actions of dtype {name} are not supported; use a Box of float32 or float64",
                where=self._where,
            )
        object.__setattr__(self, "shape", sizes(shape, self._where))
        object.__setattr__(self, "dtype", name)
        for field, bound in (("low", low), ("high", high)):
            object.__setattr__(self, field, self._bound(field, bound))
        if not (self.low <= self.high).all():
            raise InputError("is above high; swap them", where=self._where, field="low")
        # float64, so that the steps of a decision do not round; flat, as the outputs.
        object.__setattr__(self, "_low", self.low.astype(np.float64).reshape(-1))
        object.__setattr__(self, "_high", self.high.astype(np.float64).reshape(-1))

    def _bound(self, field: str, bound: ArrayLike) -> NDArray[Any]:
        try:
            array = np.array(np.broadcast_to(np.asarray(bound, self.dtype), self.shape))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"does not fit the shape {self.shape}", where=self._where, field=field
            ) from error
        if np.isnan(array).any():
            raise InputError("holds NaN; give numbers", where=self._where, field=field)
        array.flags.writeable = False
        return array

    @property
    def size(self) -> int:
        return self.low.size

    def decode(self, outputs: FloatArray) -> Any:
        if outputs.shape != (self.low.size,):
            return super().decode(outputs)
        return self._decode(outputs).reshape(self.shape)

    def _decode(self, outputs: FloatArray) -> NDArray[Any]:
        _check_nan(self, outputs)
        return self._into_box(outputs).astype(self.dtype).reshape(-1, *self.shape)

    def _into_box(self, values: FloatArray) -> FloatArray:
        low: FloatArray = self._low  # type: ignore[attr-defined]
        high: FloatArray = self._high  # type: ignore[attr-defined]
        return np.minimum(np.maximum(values, low), high)


@dataclass(frozen=True, eq=False, init=False)
class SquashBox(ClipBox):
    """The tanh of the outputs, rescaled from [-1, 1] to a bounded Box (SAC, TD3, DDPG, TQC).

    ``low + (tanh(y) + 1) / 2 * (high - low)``.

    Parameters
    ----------
    low, high : float or array
        Finite bounds, broadcast to `shape`.
    shape : tuple of int, optional
        Default the shape of the bounds.
    dtype : str, optional
        Of the action space: a floating one.
    """

    kind: ClassVar[str] = "squash_box"

    def _bound(self, field: str, bound: ArrayLike) -> NDArray[Any]:
        array = super()._bound(field, bound)
        if not np.isfinite(array).all():
            raise InputError(
                "is infinite; squashed actions need a bounded box", where=self._where, field=field
            )
        return array

    def _into_box(self, values: FloatArray) -> FloatArray:
        low: FloatArray = self._low  # type: ignore[attr-defined]
        high: FloatArray = self._high  # type: ignore[attr-defined]
        # Clipped, because the rounding of the sum may leave the box by a unit in the last place.
        return super()._into_box(low + 0.5 * (np.tanh(values) + 1.0) * (high - low))


@dataclass(frozen=True, eq=False)
class MultiDiscreteArgmax(Decoder):
    """One argmax a sub-action; the logits of the sub-actions follow each other.

    Parameters
    ----------
    nvec : sequence of int
        Number of choices of each sub-action.
    start : sequence of int, optional
        The smallest value of each.
    """

    nvec: tuple[int, ...]
    start: tuple[int, ...] = ()
    kind: ClassVar[str] = "multi_discrete_argmax"

    def __post_init__(self) -> None:
        nvec = sizes(self.nvec, self._where)
        start = tuple(whole(s, self._where) for s in self.start) or (0,) * len(nvec)
        if not nvec or len(start) != len(nvec):
            raise InputError(
                f"has {len(start)} entries for {len(nvec)} in nvec",
                where=self._where,
                field="start",
            )
        object.__setattr__(self, "nvec", nvec)
        object.__setattr__(self, "start", start)

    @property
    def size(self) -> int:
        return sum(self.nvec)

    def _decode(self, outputs: FloatArray) -> NDArray[Any]:
        _check_nan(self, outputs)
        parts = np.split(outputs, np.cumsum(self.nvec)[:-1], axis=1)
        best = np.stack([part.argmax(axis=1) for part in parts], axis=1)
        return best.astype(np.int64) + np.array(self.start, np.int64)


@dataclass(frozen=True, eq=False)
class MultiBinary(Decoder):
    """1 where the logit is above 0, that is where its probability is above one half.

    Parameters
    ----------
    n : int
        Number of binary sub-actions.
    """

    n: int
    kind: ClassVar[str] = "multi_binary"

    def __post_init__(self) -> None:
        sizes((self.n,), self._where)

    @property
    def size(self) -> int:
        return self.n

    def _decode(self, outputs: FloatArray) -> NDArray[Any]:
        _check_nan(self, outputs)
        return (outputs > 0.0).astype(np.int8)


DECODERS: dict[str, type[Decoder]] = {
    cls.kind: cls
    for cls in (Argmax, QuantileArgmax, ClipBox, SquashBox, MultiDiscreteArgmax, MultiBinary)
}


def decoder_for(
    space: Space[Any], *, squash: bool = False, n_quantiles: int | None = None
) -> Decoder:
    """Return the decoder for a Gymnasium action space.

    Parameters
    ----------
    space : gymnasium.Space
    squash : bool, optional
        For a Box: tanh and rescale instead of clip.
    n_quantiles : int, optional
        For a Discrete space: the network gives this many quantiles an action.

    Raises
    ------
    UnsupportedError
        If there is no decoder for the space.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Box):
        box = SquashBox if squash else ClipBox
        return box(space.low, space.high, space.shape, str(space.dtype))
    if isinstance(space, spaces.Discrete):
        if n_quantiles is not None:
            return QuantileArgmax(int(space.n), n_quantiles, int(space.start))
        return Argmax(int(space.n), int(space.start))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return MultiDiscreteArgmax(space.nvec.tolist(), np.asarray(space.start).tolist())
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return MultiBinary(space.shape[0])
    raise UnsupportedError(
        f"actions of the space {space} are not supported; use Box, Discrete, MultiDiscrete or "
        "MultiBinary with one axis"
    )


def _start(best: NDArray[np.intp], start: int) -> NDArray[np.int64]:
    return best.astype(np.int64) + start


def _check_nan(decoder: Decoder, outputs: FloatArray) -> None:
    # Few values are asked faster one by one than by NumPy.
    few = outputs.size <= 64
    if any(map(math.isnan, outputs.ravel().tolist())) if few else np.isnan(outputs).any():
        raise _not_a_number(decoder)


def _not_a_number(decoder: Decoder) -> InputError:
    return InputError("outputs hold NaN; the network overflowed", where=f"decoder '{decoder.kind}'")
