"""The spaces and keyword arguments that the JSON ``data`` of an SB3 zip describes.

A field that is not plain JSON carries its type as text, a base64 pickle, and some attributes
printed. The pickle, read inertly, is exact; the printed attributes serve where it is missing.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import EventsimError, FileFormatError, UnsupportedError
from eventsim.models.importers.inert_numpy import NUMPY, dtype_name
from eventsim.models.importers.inert_pickle import names, read
from eventsim.models.importers.inert_values import Inert, Name
from eventsim.models.spaces import (
    BoxSpec,
    DictSpec,
    DiscreteSpec,
    MultiBinarySpec,
    MultiDiscreteSpec,
    SpaceSpec,
)

MAX_SPACE_VALUES = 10_000_000


@dataclass(frozen=True, eq=False)
class SpaceData:
    """A Gym or Gymnasium space as an agent's file describes it.

    Attributes
    ----------
    kind : str
        ``Box``, ``Discrete``, ``MultiDiscrete``, ``MultiBinary`` or ``Dict``.
    shape : tuple of int
        Of a Box or MultiBinary.
    dtype : str
        Of a Box.
    low, high : float64 array of that shape
        Of a Box.
    sizes : tuple of int
        ``(n,)`` of a Discrete, nvec of a MultiDiscrete. Where they start is left out:
        Stable-Baselines3 counts from 0 whatever the space says.
    entries : tuple of (str, SpaceData)
        Of a Dict, in its order.
    """

    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    sizes: tuple[int, ...] = ()
    entries: tuple[tuple[str, SpaceData], ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether Stable-Baselines3 takes the Box for an image (three axes of bytes 0 to 255)."""
        return (
            self.kind == "Box"
            and len(self.shape) == 3
            and self.dtype == "uint8"
            and self.low is not None
            and self.high is not None
            and bool((self.low == 0.0).all() and (self.high == 255.0).all())
        )

    def spec(self, without_last: bool = False) -> SpaceSpec:
        """Describe the space as the encoder takes it.

        Parameters
        ----------
        without_last : bool, optional
            Leave out the last value of the (or the dict's ``"observation"``) Box: the time
            feature, which the agent's file counts and the environment's own space does not.
        """
        if self.kind == "Dict":
            return DictSpec(
                tuple(
                    (key, space.spec(without_last and key == "observation"))
                    for key, space in self.entries
                )
            )
        if self.kind == "Discrete":
            return DiscreteSpec(self.sizes[0])
        if self.kind == "MultiDiscrete":
            return MultiDiscreteSpec(self.sizes)
        if self.kind == "MultiBinary":
            return MultiBinarySpec(self.shape)
        shape = self.shape
        if without_last and len(shape) == 1:
            shape = (shape[0] - 1,)
        return BoxSpec(shape, self.dtype, self.is_image)


def parse_space(value: Any, where: str) -> SpaceData:
    """Return the space that the JSON value `value` describes.

    Raises
    ------
    FileFormatError
        If it is damaged or incomplete.
    UnsupportedError
        If it is a kind of space that eventsim does not take.
    """
    if not isinstance(value, dict):
        raise FileFormatError("is missing; save the agent again by model.save()", where=where)
    try:
        if ":serialized:" in value:
            return _space(read(payload(value, where), where, NUMPY), where)
        return _printed(value, where)
    except EventsimError:
        raise
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise FileFormatError(
            "does not describe a space; save the agent again", where=where
        ) from error


def parse_keywords(value: Any, where: str) -> dict[str, Any]:
    """Return a dict such as ``policy_kwargs``; classes in it are `Name`, objects `Inert`."""
    if value is None:
        return {}
    if isinstance(value, dict) and ":serialized:" in value:
        value = read(payload(value, where), where, NUMPY)
    if not isinstance(value, dict):
        raise FileFormatError("is not a dict; save the agent again", where=where)
    return {key: item for key, item in value.items() if isinstance(key, str)}


def parse_class(value: Any, where: str) -> Name | None:
    """Return the first class that a serialised field such as ``policy_class`` names."""
    if not (isinstance(value, dict) and ":serialized:" in value):
        return None
    found = names(payload(value, where), where)
    return found[0] if found else None


def payload(value: Mapping[str, Any], where: str) -> bytes:
    """Return the pickle inside a serialised field."""
    try:
        return base64.b64decode(value[":serialized:"], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise FileFormatError(
            "is not valid base64; download the file again", where=where
        ) from error


def _space(value: Any, where: str) -> SpaceData:
    if not (isinstance(value, Inert) and value.kind):
        raise FileFormatError("does not describe a space; save the agent again", where=where)
    return _build(value.kind.attribute, value.fields, where)


def _build(kind: str, fields: Mapping[str, Any], where: str) -> SpaceData:
    if kind == "Box":
        low, high = np.asarray(fields["low"]), np.asarray(fields["high"])
        shape = _shape(fields.get("_shape", fields.get("shape", low.shape)))
        dtype = dtype_name(fields.get("dtype")) or low.dtype.name
        return SpaceData(
            kind, shape, dtype, _bounds(low, shape, where), _bounds(high, shape, where)
        )
    if kind == "Discrete":
        return SpaceData(kind, sizes=_shape(fields["n"]))
    if kind == "MultiDiscrete":
        nvec = np.asarray(fields["nvec"])
        if nvec.ndim != 1:
            raise UnsupportedError("has several axes; flatten it in a wrapper", where=where)
        return SpaceData(kind, sizes=_shape(nvec))
    if kind == "MultiBinary":
        return SpaceData(kind, shape=_shape(fields["n"]))
    if kind == "Dict":
        return SpaceData(kind, entries=_entries(fields["spaces"], where))
    raise UnsupportedError(
        f"is a {kind} space; eventsim takes Box, Discrete, MultiDiscrete, MultiBinary and Dict",
        where=where,
    )


def _entries(value: Any, where: str) -> tuple[tuple[str, SpaceData], ...]:
    pairs = value.items() if isinstance(value, dict) else None
    if not pairs or not all(isinstance(key, str) for key, _ in pairs):
        raise FileFormatError("does not name the spaces of its dict", where=where)
    if any(isinstance(v, Inert) and v.kind and v.kind.attribute == "Dict" for _, v in pairs):
        raise UnsupportedError("is nested; flatten it in a wrapper", where=where)
    return tuple((key, _space(space, f"{where}, key {key[:40]!r}")) for key, space in pairs)


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in np.atleast_1d(np.asarray(value, np.int64)))
    if any(n < 1 for n in shape) or math.prod(shape) > MAX_SPACE_VALUES:
        raise ValueError("impossible size")
    return shape


def _bounds(values: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    if values.dtype.kind not in "fiub" or values.shape != shape or np.isnan(values).any():
        raise FileFormatError("has bounds that do not fit its shape", where=where)
    return values.astype(np.float64)


def _printed(value: Mapping[str, Any], where: str) -> SpaceData:
    """Build a space from its printed attributes, such as ``low: "[-1. -1.]"``."""
    kind = re.sub(r"\W", "", str(value.get(":type:", "")).rpartition(".")[2])
    fields = {key: item for key, item in value.items() if not key.startswith(":")}
    shape = _shape(fields.get("_shape", fields.get("shape", ()))) if kind == "Box" else ()
    for name in ("low", "high", "nvec"):
        text = fields.get(name)
        if isinstance(text, str):
            if "..." in text:
                raise FileFormatError("is printed in part only; save the agent again", where=where)
            numbers = np.array([float(n) for n in re.sub(r"[\[\],]", " ", text).split()])
            fields[name] = numbers.reshape(shape) if name in ("low", "high") else numbers
    return _build(kind, fields, where)
