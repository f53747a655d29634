"""Observations to network inputs, with the meaning that Stable-Baselines3 gives them.

An `Encoder` does what ``preprocess_obs`` with ``FlattenExtractor`` or ``CombinedExtractor`` does,
after ``TimeFeatureWrapper`` and ``VecNormalize.normalize_obs`` where the policy was trained behind
these. Stable-Baselines3 rounds the result to float32; an encoder keeps float64, so that it equals
Stable-Baselines3's bit for bit once it is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError, UnsupportedError
from eventsim.models.pixels import Pixels
from eventsim.models.spaces import (
    SPACES,
    BoxSpec,
    DictSpec,
    DiscreteSpec,
    FloatArray,
    MultiBinarySpec,
    MultiDiscreteSpec,
    SpaceSpec,
    check_keys,
    concatenate,
    entry,
)

if TYPE_CHECKING:
    from gymnasium import Space

# Where TimeFeatureWrapper puts the time in a dict observation.
_TIME_KEY = "observation"


@dataclass(frozen=True, eq=False)
class Normalization:
    """Standardise and clip, as ``VecNormalize``: ``clip((x - mean) / sqrt(var + epsilon))``.

    Parameters
    ----------
    mean, var : array
        Of the shape of the observation (the time feature included); ``var >= 0``.
    clip : float, optional
        The result is kept within ``[-clip, clip]``; infinity for no clipping.
    epsilon : float, optional
        Added to the variance.

    Raises
    ------
    InputError
        If a value is out of range or the shapes differ.
    """

    mean: FloatArray
    var: FloatArray
    clip: float = 10.0
    epsilon: float = 1e-8

    def __init__(
        self, mean: ArrayLike, var: ArrayLike, clip: float = 10.0, epsilon: float = 1e-8
    ) -> None:
        arrays = {"mean": np.array(mean, np.float64), "var": np.array(var, np.float64)}
        where = "normalization"
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise InputError(
                    "holds NaN or infinity; give finite numbers", where=where, field=name
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.mean.shape != self.var.shape:
            raise InputError(
                f"has shape {self.var.shape}, but the mean has {self.mean.shape}",
                where=where,
                field="var",
            )
        if not clip > 0.0:
            raise InputError(f"is {clip}; give a number > 0", where=where, field="clip")
        if not (np.isfinite(epsilon) and epsilon >= 0.0):
            raise InputError(f"is {epsilon}; give a number >= 0", where=where, field="epsilon")
        if not (self.var >= 0.0).all() or not (self.var + epsilon > 0.0).all():
            raise InputError("must be >= 0, and > 0 where epsilon is 0", where=where, field="var")
        object.__setattr__(self, "clip", float(clip))
        object.__setattr__(self, "epsilon", float(epsilon))


@dataclass(frozen=True)
class TimeFeature:
    """Append the remaining time ``1 - t / max_steps``, t steps after the reset.

    As ``TimeFeatureWrapper`` (Pardo et al. 2018, arXiv 1712.00378): only for one-axis Box
    observations, in a dict for the key ``"observation"``, and rounded to that space's dtype.

    Parameters
    ----------
    max_steps : int
        Steps of a full episode, >= 1.
    test_mode : bool, optional
        Always append 1.
    """

    max_steps: int
    test_mode: bool = False

    def __post_init__(self) -> None:
        steps = self.max_steps
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
            raise InputError(
                f"is {steps!r}; give a whole number >= 1", where="time feature", field="max_steps"
            )
        if not isinstance(self.test_mode, bool):
            raise InputError(
                f"is {self.test_mode!r}; give a bool", where="time feature", field="test_mode"
            )
        object.__setattr__(self, "max_steps", int(steps))

    def __call__(self, t: ArrayLike) -> FloatArray:
        """Return the feature `t` steps after the reset, of the shape of `t`."""
        if self.test_mode:
            return np.ones(np.shape(t))
        return np.asarray(1.0 - np.asarray(t) / self.max_steps, np.float64)


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """Round to multiples of a step and saturate: ``q min(max(rint(x / q), -levels), levels - 1)``.

    Parameters
    ----------
    quanta : array of shape (size,)
        Step of each network input, > 0.
    levels : int
        Half the number of values: ``2 ** (bits - 1)``.

    Raises
    ------
    InputError
        If a value is out of range.
    """

    quanta: FloatArray
    levels: int

    def __init__(self, quanta: ArrayLike, levels: int) -> None:
        steps = np.array(quanta, np.float64).reshape(-1)
        if not (np.isfinite(steps).all() and (steps > 0.0).all()):
            raise InputError("must be finite and > 0", where="fixed point", field="quanta")
        if isinstance(levels, bool) or int(levels) != levels or levels < 1:
            raise InputError(
                f"is {levels!r}; give a whole number >= 1", where="fixed point", field="levels"
            )
        steps.flags.writeable = False
        object.__setattr__(self, "quanta", steps)
        object.__setattr__(self, "levels", int(levels))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Round x of shape (..., size) in place, and return it."""
        np.divide(x, self.quanta, out=x)
        np.rint(x, out=x)
        np.clip(x, -self.levels, self.levels - 1, out=x)
        np.multiply(x, self.quanta, out=x)
        return x


@dataclass(frozen=True, eq=False)
class Encoder:
    """Turn observations into the float64 vectors that a network takes.

    In this order: flatten (one-hot where discrete), append the time feature, normalise (or divide
    images by 255), round to fixed point. The entries of a dict observation are concatenated in
    the space's order.

    Parameters
    ----------
    space : SpaceSpec or gymnasium.Space
        Of the environment, without the time feature.
    normalization : Normalization or mapping of str to Normalization, optional
        For a dict space a mapping with those keys that are normalised.
    time_feature : TimeFeature, optional
    fixed_point : FixedPoint, optional
        For a quantised network.
    pixels : Pixels, optional
        The observation is a picture (a box of three axes) for a convolutional network; its values
        are not scaled then.

    Raises
    ------
    InputError
        If the parts do not fit each other.
    UnsupportedError
        If the space holds what no encoder takes, such as an image inside a dict.

    Examples
    --------
    >>> from eventsim.models.encoders import DiscreteSpec, Encoder
    >>> Encoder(DiscreteSpec(3, start=1)).encode(2)
    array([0., 1., 0.])
    """

    space: SpaceSpec
    normalization: Normalization | Mapping[str, Normalization] | None = None
    time_feature: TimeFeature | None = None
    fixed_point: FixedPoint | None = None
    pixels: Pixels | None = None
    _parts: tuple[_Part, ...] = field(default=(), repr=False)
    _only: _Part | None = field(default=None, repr=False)

    def __init__(
        self,
        space: SpaceSpec | Space[Any],
        normalization: Normalization | Mapping[str, Normalization] | None = None,
        time_feature: TimeFeature | None = None,
        fixed_point: FixedPoint | None = None,
        pixels: Pixels | None = None,
    ) -> None:
        spec = space if isinstance(space, SpaceSpec) else SpaceSpec.from_gymnasium(space)
        by_key: dict[str, Normalization]
        if isinstance(normalization, Mapping):
            by_key = dict(normalization)
        else:
            by_key = {} if normalization is None else {"": normalization}
        if isinstance(spec, DictSpec):
            entries = spec.spaces
            time_key: str = _TIME_KEY
        else:
            entries, time_key = (("", spec),), ""
        unknown = sorted(set(by_key) - {key for key, _ in entries})
        wrong = isinstance(normalization, Mapping) != isinstance(spec, DictSpec)
        if unknown or (normalization is not None and wrong):
            raise InputError(
                f"does not fit a {spec.kind} space; give one Normalization, or for a dict space "
                "a mapping from its keys",
                where="encoder",
                field="normalization",
            )
        if time_feature is not None and time_key not in dict(entries):
            raise InputError(
                f"needs a key {_TIME_KEY!r} in the observation",
                where="encoder",
                field="time_feature",
            )
        if pixels is not None and (
            not (isinstance(spec, BoxSpec) and len(spec.shape) == 3) or by_key or time_feature
        ):
            raise InputError(
                "are a box of three axes, neither normalised nor with a time feature",
                where="encoder",
                field="pixels",
            )
        parts = tuple(
            _Part(
                key,
                part,
                by_key.get(key),
                time_feature if key == time_key else None,
                isinstance(spec, DictSpec),
            )
            for key, part in entries
        )
        size = sum(part.size for part in parts)
        if fixed_point is not None and fixed_point.quanta.size != size:
            raise InputError(
                f"has {fixed_point.quanta.size} values for {size} network inputs",
                where="encoder",
                field="fixed_point",
            )
        values = {
            "space": spec,
            "normalization": by_key if isinstance(spec, DictSpec) else by_key.get(""),
            "time_feature": time_feature,
            "fixed_point": fixed_point,
            "pixels": pixels,
            "_parts": parts,
            "_only": None if isinstance(spec, DictSpec) else parts[0],
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def size(self) -> int:
        """Number of network inputs."""
        return sum(part.size for part in self._parts)

    @property
    def operations(self) -> int:
        """Arithmetic operations a step.

        Per normalised value 4 (subtract, divide, compare with each clipping bound), per image
        value 1 (divide), for the time feature 2 (divide, subtract), for rounding to fixed point
        2 a value (shift, saturate); copying, turning pixels over and one-hot coding are none.
        """
        rounding = 0 if self.fixed_point is None else 2 * self.size
        if self.pixels is not None:
            return rounding
        return sum(part.operations for part in self._parts) + rounding

    def with_fixed_point(self, fixed_point: FixedPoint | None) -> Encoder:
        """Return the encoder with another rounding, or none."""
        return Encoder(self.space, self.normalization, self.time_feature, fixed_point, self.pixels)

    def encode(self, observation: Any, t: int = 0) -> FloatArray:
        """Encode one observation.

        Parameters
        ----------
        observation : array-like or mapping of str to array-like
            As the space says.
        t : int, optional
            Steps since the environment was reset; only a time feature looks at it.

        Returns
        -------
        float64 array of shape (size,)
            A new one; pixels that are bytes stay uint8.

        Raises
        ------
        InputError
            If the observation does not belong to the space or is not finite.
        """
        if self.pixels is not None:
            return self._picture(observation, False)
        if self._only is not None:
            x = self._only.encode(observation, t)
        else:
            x = self._concatenate(observation, t, False)
        return x if self.fixed_point is None else self.fixed_point(x)

    def encode_batch(self, observation: Any, t: ArrayLike = 0) -> FloatArray:
        """Encode a batch of B observations.

        Parameters
        ----------
        observation : array-like, or mapping of str to array-like, with a leading axis of length B
        t : int or int array of shape (B,), optional
            Steps since each environment was reset.

        Returns
        -------
        float64 array of shape (B, size)

        Raises
        ------
        InputError
            As in `encode`.
        """
        if self.pixels is not None:
            return self._picture(observation, True)
        if self._only is not None:
            x = self._only.encode(observation, t, True)
        else:
            x = self._concatenate(observation, t, True)
        return x if self.fixed_point is None else self.fixed_point(x)

    def _picture(self, observation: Any, batched: bool) -> FloatArray:
        if self.pixels is None or not isinstance(self.space, BoxSpec):
            raise InputError("is no picture", where="observation")
        x = self.pixels.flatten(observation, self.space, batched)
        return x if self.fixed_point is None else self.fixed_point(x.astype(np.float64))

    def _concatenate(self, observation: Any, t: ArrayLike, batched: bool) -> FloatArray:
        check_keys(observation, [(part.key, part.space) for part in self._parts])
        return concatenate(
            {part.key: part.encode(observation[part.key], t, batched) for part in self._parts},
            batched,
        )

    def is_batched(self, observation: Any) -> bool:
        """Tell by its shape whether `observation` is a batch.

        Raises
        ------
        InputError
            If it is neither one observation nor a batch.
        """
        if self.pixels is not None and isinstance(self.space, BoxSpec):
            return self.pixels.is_batched(observation, self.space)
        return self.space.is_batched(observation)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that, with `arrays`, rebuild the encoder."""
        time = self.time_feature
        data = {
            "space": self.space.to_dict(),
            "normalized": [part.key for part in self._parts if part.normalization],
            "time_feature": None
            if time is None
            else {"max_steps": time.max_steps, "test_mode": time.test_mode},
        }
        if self.fixed_point is not None:
            data["fixed_point"] = {"levels": self.fixed_point.levels}
        if self.pixels is not None:
            data["pixels"] = self.pixels.to_dict()
        return data

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays of the normalisation and the rounding, by name."""
        arrays: dict[str, NDArray[Any]] = {}
        if self.fixed_point is not None:
            arrays["fixed_point/quanta"] = self.fixed_point.quanta
        for part in self._parts:
            if part.normalization is not None:
                for name in ("mean", "var", "clip", "epsilon"):
                    value = getattr(part.normalization, name)
                    arrays[_array_name(part.key, name)] = np.asarray(value, np.float64)
        return arrays

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Encoder:
        """Rebuild an encoder from what `to_dict` and `arrays` gave.

        Raises
        ------
        InputError
            If they do not describe one.
        """
        try:
            spec = SpaceSpec.from_dict(data["space"])
            time = data["time_feature"]
            keys = list(data["normalized"])
            by_key = {
                key: Normalization(
                    arrays[_array_name(key, "mean")],
                    arrays[_array_name(key, "var")],
                    arrays[_array_name(key, "clip")].item(),
                    arrays[_array_name(key, "epsilon")].item(),
                )
                for key in keys
            }
            picture = Pixels.from_dict(data["pixels"]) if "pixels" in data else None
            feature = None if time is None else TimeFeature(**time)
            point = data.get("fixed_point")
            fixed = (
                None if point is None else FixedPoint(arrays["fixed_point/quanta"], point["levels"])
            )
        except KeyError as error:
            raise InputError(f"lacks {error}", where="encoder") from error
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(f"cannot be built: {error}", where="encoder") from error
        if isinstance(spec, DictSpec):
            return cls(spec, by_key, feature, fixed, picture)
        if set(by_key) - {""}:
            raise InputError("names keys of a dict space", where="encoder", field="normalized")
        return cls(spec, by_key.get(""), feature, fixed, picture)


class _Part:
    """Encodes the whole observation or one entry of a dict; everything is prepared once."""

    __slots__ = ("dtype", "high", "image", "key", "low", "mean", "normalization", "size", "space",
                 "std", "time", "where")  # fmt: skip

    def __init__(
        self,
        key: str,
        space: SpaceSpec,
        normalization: Normalization | None,
        time: TimeFeature | None,
        in_dict: bool,
    ) -> None:
        self.key = key
        self.space = space
        self.where = entry(key) if in_dict else "observation"
        self.normalization = normalization
        self.time = time
        box = space if isinstance(space, BoxSpec) else None
        if in_dict and box is not None and box.image and normalization is None:
            raise UnsupportedError(
                "is an image, which Stable-Baselines3 gives to a convolutional network; that is "
                "not supported yet",
                where=self.where,
            )
        if time is not None and (box is None or len(box.shape) != 1):
            raise InputError(
                "needs a Box observation with one axis", where=self.where, field="time_feature"
            )
        self.size = space.size + (time is not None)
        self.dtype = np.dtype(box.dtype) if box is not None else np.dtype(np.float64)
        # VecNormalize tells the policy that a normalised image is an ordinary Box.
        self.image = box is not None and box.image and normalization is None
        if normalization is None:
            return
        if box is None:
            raise InputError(
                f"is not possible for a {space.kind} space", where=self.where, field="normalization"
            )
        if normalization.mean.size != self.size:
            raise InputError(
                f"has {normalization.mean.size} values for an observation of {self.size}",
                where=self.where,
                field="normalization",
            )
        self.mean = normalization.mean.reshape(-1)
        self.std = np.sqrt(normalization.var.reshape(-1) + normalization.epsilon)
        # Arrays: a Python float would be converted at every step.
        self.low = np.asarray(-normalization.clip)
        self.high = np.asarray(normalization.clip)

    @property
    def operations(self) -> int:
        per_value = 4 if self.normalization is not None else 1 if self.image else 0
        return self.size * per_value + (2 if self.time is not None else 0)

    def encode(self, observation: Any, t: ArrayLike = 0, batched: bool = False) -> FloatArray:
        x = self.space.flatten(observation, batched, self.where)
        if self.time is not None:
            x = self._append_time(self.time, x, t)
        if self.normalization is not None:
            np.subtract(x, self.mean, out=x)
            np.divide(x, self.std, out=x)
            np.maximum(x, self.low, out=x)
            np.minimum(x, self.high, out=x)
        elif self.image:
            x /= 255.0
        return x

    def _append_time(self, time: TimeFeature, x: FloatArray, t: ArrayLike) -> FloatArray:
        y = np.empty((*x.shape[:-1], self.size))
        y[..., :-1] = x
        if isinstance(t, int):  # several times faster than by arrays
            y[..., -1] = self.dtype.type(1.0 if time.test_mode else 1.0 - t / time.max_steps)
        else:
            y[..., -1] = time(t).astype(self.dtype)
        return y


def _array_name(key: str, name: str) -> str:
    return f"normalization/{key}/{name}" if key else f"normalization/{name}"


__all__ = [
    "SPACES",
    "BoxSpec",
    "DictSpec",
    "DiscreteSpec",
    "Encoder",
    "FixedPoint",
    "MultiBinarySpec",
    "MultiDiscreteSpec",
    "Normalization",
    "Pixels",
    "SpaceSpec",
    "TimeFeature",
]
