"""Recorded pictures as bytes, each frame once: what students of pictures learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Film:
    """An episode of pictures.

    An observation may be a stack of the latest frames, its channels, of which each step brings one:
    then every frame is kept once, and the picture of step t is frames t to t + stack - 1.

    Parameters
    ----------
    frames : uint8 array of shape (n, height, width, channels)
    stack : int
        Frames to a picture; 1 if `frames` are the pictures themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim.models.films import Film
    >>> pictures = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2)
    >>> pictures[1:, ..., 0] = pictures[:-1, ..., 1]
    >>> film = Film.of(pictures)
    >>> film.frames.shape, len(film), bool((film.pictures() == pictures).all())
    ((7, 1, 2, 1), 6, True)
    """

    frames: Bytes
    stack: int = 1

    @classmethod
    def of(cls, pictures: Bytes) -> Film:
        """Film of pictures of shape (T, height, width, channels), without frames kept twice.

        Raises
        ------
        InputError
            If they are no such pictures, or not of bytes.
        """
        if pictures.ndim != 4 or pictures.dtype != np.uint8:
            raise InputError(
                f"have shape {pictures.shape} and dtype {pictures.dtype}; give bytes of shape "
                "(steps, height, width, channels)",
                where="pictures",
            )
        n, _, _, stack = pictures.shape
        if n < 2 or stack < 2 or not np.array_equal(pictures[1:, ..., :-1], pictures[:-1, ..., 1:]):
            return cls(np.ascontiguousarray(pictures))
        first = np.moveaxis(pictures[0], -1, 0)
        frames = np.concatenate([first, pictures[1:, ..., -1]])
        return cls(np.ascontiguousarray(frames[..., np.newaxis]), stack)

    def __len__(self) -> int:
        """Steps."""
        return len(self.frames) - self.stack + 1

    def pictures(self) -> Bytes:
        """Pictures of shape (T, height, width, channels)."""
        if self.stack == 1:
            return self.frames
        shown = [self.frames[k : k + len(self)] for k in range(self.stack)]
        return np.concatenate(shown, axis=-1)

    def inputs(self) -> Bytes:
        """Inputs of a network, of shape (T, n_inputs)."""
        return self.pictures().reshape(len(self), -1)

    def unstacked(self) -> Film:
        """The same with every picture of its own."""
        return Film(self.pictures())


def joined(films: Sequence[Film]) -> tuple[Bytes, int, NDArray[np.int64]]:
    """Join films, so that pictures can be drawn from all of them.

    Returns
    -------
    frames : uint8 array of shape (n, channels, height, width)
        Channels first, as torch takes them.
    stack : int
        Frames to a picture.
    firsts : int64 array
        Place of the first frame of each film.
    """
    # A short or motionless one may pass for stacked among others that are not, or not for it.
    same = len({film.stack for film in films}) == 1
    films = films if same else [film.unstacked() for film in films]
    frames = np.concatenate([np.moveaxis(film.frames, -1, 1) for film in films])
    lengths = [len(film.frames) for film in films]
    firsts = np.cumsum([0, *lengths[:-1]]).astype(np.int64)
    return np.ascontiguousarray(frames), films[0].stack, firsts


__all__ = ["Film", "joined"]
