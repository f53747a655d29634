"""Pictures as network inputs: bytes as they are, channels last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError
from eventsim.models.spaces import BoxSpec
from eventsim.stack import channels_last


@dataclass(frozen=True)
class Pixels:
    """How a picture stands in an observation; a network takes (height, width, channels).

    Bytes stay bytes: the first layer's weights carry any scale, thresholds of the inputs are in
    units of the observation, and an engine may compare the bytes as such.

    Parameters
    ----------
    channels_first : bool, optional
        Whether the space has the shape (channels, height, width), as torch takes pictures. An
        observation that has its channels last is then taken too, as libraries turn them over.
    """

    channels_first: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.channels_first, bool):
            raise InputError(
                f"is {self.channels_first!r}; give a bool", where="pixels", field="channels_first"
            )

    def shapes(self, space: BoxSpec) -> tuple[tuple[int, ...], ...]:
        """Shapes of observations that are taken, the space's own first."""
        if not self.channels_first:
            return (space.shape,)
        return (space.shape, (*space.shape[1:], space.shape[0]))

    def is_batched(self, observation: Any, space: BoxSpec) -> bool:
        """Tell by its shape whether `observation` is a batch; InputError if it is neither."""
        shape = np.shape(observation)
        shapes = self.shapes(space)
        if shape in shapes:
            return False
        if shape[1:] in shapes:
            return True
        known = " or ".join(map(str, shapes))
        raise InputError(
            f"has shape {shape}, expected {known}, or a batch of it", where="observation"
        )

    def flatten(self, observation: Any, space: BoxSpec, batched: bool = False) -> NDArray[Any]:
        """Return the network's inputs.

        Returns
        -------
        uint8 or float64 array of shape (size,), or (B, size) if `batched`
            uint8 if the observation is of bytes or of truth values.

        Raises
        ------
        InputError
            If the observation has another shape, or is not of finite real numbers.
        """
        array = np.asarray(observation)
        if self.is_batched(array, space) is not batched:
            raise InputError(
                f"has shape {array.shape}, which is {'no' if batched else 'a'} batch",
                where="observation",
            )
        turned = self.channels_first and array.shape[-3:] == space.shape
        if turned:
            array = channels_last(array)  # a new one already
        if array.dtype == np.bool_ or array.dtype == np.uint8:
            flat = array.astype(np.uint8, order="C", copy=not turned)
        elif array.dtype.kind in "fiu":
            flat = array.astype(np.float64, order="C", copy=not turned)
            if not np.isfinite(flat).all():
                raise InputError("holds NaN or infinity; expected finite", where="observation")
        else:
            raise InputError(f"has dtype {array.dtype}, expected real numbers", where="observation")
        return flat.reshape((len(flat), -1) if batched else -1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` rebuilds it."""
        return {"channels_first": self.channels_first}

    @staticmethod
    def from_dict(data: Any) -> Pixels:
        """Rebuild from what `to_dict` gave; InputError if it is something else."""
        if not isinstance(data, Mapping) or set(data) != {"channels_first"}:
            raise InputError("does not describe pixels", where="encoder", field="pixels")
        return Pixels(data["channels_first"])
