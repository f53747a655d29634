"""A film of a run: the environment's picture, and beside it the events of every layer.

A layer's panel shows each neuron, or each pixel summed over its channels, in the colour of its last
change: blue if it grew, orange if it fell, fading over a few steps. Frames are drawn with Pillow
and written as they come, so that memory stays flat.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, MissingDependencyError, OutputError
from eventsim.trace import Events, Hook

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    from eventsim.network import Network, Population
    from eventsim.simulator import Simulator

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Bytes = NDArray[np.uint8]

# As in the raster: they differ in hue and in lightness.
_GROWS, _FALLS = np.array([79.0, 112.0, 184.0]), np.array([208.0, 100.0, 10.0])
_PAPER, _PANEL = np.array([255.0, 255.0, 255.0]), np.array([236.0, 236.0, 236.0])
_INK, _FAINT = (10, 28, 87), (96, 96, 96)
_FADE = 0.6
_SUFFIXES = (".mp4", ".gif")
_PAD = 12
_LABEL = 34
#: Pixels of the picture's height, and of a panel's.
_HEIGHT = 480
_LONGEST = 5000


class Film(Hook):
    """Write a film while a simulation runs: a hook that `frame` is called on after every step.

    Parameters
    ----------
    path : path
        Ends in ``.mp4`` (needs the extra ``video``) or ``.gif``.
    seconds : float, optional
        Duration of a step; the film has at most 60 and at least 2 frames a second. Default 1/30.
    max_frames : int, optional
        What comes after them is left out.

    Raises
    ------
    InputError
        If the name ends otherwise.
    MissingDependencyError
        If what writes the format is not installed.
    OutputError
        If the file cannot be written.
    """

    records_events: ClassVar[bool] = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        seconds: float | None = None,
        max_frames: int = _LONGEST,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _SUFFIXES:
            raise InputError(
                f"ends in {self.path.suffix!r}; give a name that ends in .mp4 or .gif",
                where=f"'{self.path}'",
                field="video",
            )
        if max_frames < 1:
            raise InputError(f"is {max_frames}; give at least 1", field="max_frames")
        _modules(self.path.suffix.lower())
        self.fps = min(60.0, max(2.0, 1.0 / (seconds or 1.0 / 30.0)))
        self.n_frames = 0
        self._max = max_frames
        self._panels: list[_Panel] = []
        self._writer: _Writer | None = None

    def on_attach(self, simulator: Simulator) -> None:
        """Lay out a panel for each population."""
        self._panels = _layout(simulator.network)

    def on_reset(self) -> None:
        """Begin without colours."""
        for panel in self._panels:
            panel.clear()

    def on_events(self, events: Events) -> None:
        """Colour what has changed."""
        for number, panel in enumerate(self._panels):
            here = events.population == number
            panel.add(events.neuron[here], events.value[here])

    def frame(self, picture: Any) -> None:
        """Write one frame.

        Parameters
        ----------
        picture : array of shape (height, width, 3)
            What ``env.render()`` gave before the step's action: bytes, or floats from 0 to 1 as
            MinAtar's games give.

        Raises
        ------
        InputError
            If it is no such picture.
        OutputError
            If the file cannot be written.
        """
        if self.n_frames >= self._max:
            return
        array = np.asarray(picture)
        if array.dtype.kind == "f" and array.size and 0.0 <= array.min() <= array.max() <= 1.0:
            array = np.rint(255.0 * array).astype(np.uint8)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise InputError(
                "gives no picture; make it with render_mode='rgb_array'", where="environment"
            )
        image = _compose(array, self._panels, self.n_frames)
        if self._writer is None:
            self._writer = _writer(self.path, self.fps)
        self._writer.add(image)
        self.n_frames += 1
        for panel in self._panels:
            panel.fade()

    def close(self) -> None:
        """Finish the file; without a frame there is none.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def discard(self) -> None:
        """Leave what stood at the path as it was."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


class _Panel:
    """The neurons of one population as cells of a picture."""

    def __init__(self, population: Population, scale: int) -> None:
        self.name, self.size = population.name, population.size
        shape = population.shape
        self.channels = shape[2] if len(shape) == 3 else 1
        if len(shape) == 3 and shape[0] * shape[1] > 1:
            self.height, self.width = shape[0], shape[1]
        elif len(shape) == 2:
            self.height, self.width = shape
        else:
            self.channels = 1
            self.width = math.ceil(math.sqrt(self.size))
            self.height = math.ceil(self.size / self.width)
        self.scale = scale
        self.cells = np.zeros(self.height * self.width)
        self.exists = np.arange(self.cells.size) < self.size // self.channels
        self.events = 0
        self.sends = True

    def clear(self) -> None:
        self.cells[:] = 0.0
        self.events = 0

    def add(self, neuron: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        self.events = int(neuron.size)
        if not neuron.size:
            return
        cell = neuron // self.channels
        grown = np.bincount(cell, weights=value, minlength=self.cells.size)
        touched = np.bincount(cell, minlength=self.cells.size) > 0
        self.cells[touched] = np.where(grown[touched] >= 0.0, 1.0, -1.0)

    def fade(self) -> None:
        self.cells *= _FADE
        self.events = 0

    def picture(self) -> Bytes:
        """Cells as colours, (height * scale, width * scale, 3)."""
        strength = np.abs(self.cells)[:, np.newaxis]
        colour = np.where(self.cells[:, np.newaxis] >= 0.0, _GROWS, _FALLS)
        base = np.where(self.exists[:, np.newaxis], _PANEL, _PAPER)
        mixed = (base + strength * (colour - base)).astype(np.uint8)
        image = mixed.reshape(self.height, self.width, 3)
        return np.ascontiguousarray(image.repeat(self.scale, axis=0).repeat(self.scale, axis=1))


def _layout(network: Network) -> list[_Panel]:
    """Panels about as high as they have room: a third of the picture's height each."""
    room = _HEIGHT // 3 - _LABEL
    panels = []
    for population in network.populations:
        panel = _Panel(population, 1)
        panel.scale = max(1, min(24, room // max(panel.height, panel.width // 2)))
        # What sends nothing has nothing to show.
        panel.sends = bool(network.outgoing(population.name))
        panels.append(panel)
    return panels


def _compose(picture: Bytes, panels: list[_Panel], number: int) -> Image.Image:
    from PIL import Image, ImageDraw

    height, width = picture.shape[:2]
    zoom = _HEIGHT / height
    game = Image.fromarray(picture).resize(
        (max(1, round(width * zoom)), _HEIGHT),
        Image.Resampling.NEAREST if zoom >= 1.0 else Image.Resampling.LANCZOS,
    )
    font, small = _fonts()
    panels = [panel for panel in panels if panel.sends]
    places, right, bottom = _place(panels, game.width + 2 * _PAD, font)
    # An MP4 has even sides.
    size = (right + right % 2, max(bottom, _HEIGHT + 2 * _PAD + _LABEL) // 2 * 2)
    canvas = Image.new("RGB", size, (255, 255, 255))
    canvas.paste(game, (_PAD, _PAD + _LABEL))
    draw = ImageDraw.Draw(canvas)
    draw.text((_PAD, _PAD), f"step {number}", _INK, font)
    draw.text((_PAD, _PAD + 16), "blue: value grew, orange: it fell", _FAINT, small)
    for panel, (x, y) in zip(panels, places, strict=True):
        draw.text((x, y), f"{panel.name}", _INK, font)
        draw.text(
            (x, y + 16),
            f"{panel.events:,} of {panel.size:,} events",
            _FAINT,
            small,
        )
        canvas.paste(Image.fromarray(panel.picture()), (x, y + _LABEL))
    return canvas


def _place(panels: list[_Panel], left: int, font: Any) -> tuple[list[tuple[int, int]], int, int]:
    """Columns of panels beside the picture, filled from top to bottom."""
    places: list[tuple[int, int]] = []
    x, y, widest, bottom = left, _PAD, 0, 0
    for panel in panels:
        height = panel.height * panel.scale + _LABEL
        # Room for "12,800 of 12,800 events".
        width = max(panel.width * panel.scale, 150)
        if y > _PAD and y + height > _HEIGHT + _LABEL + _PAD:
            x, y, widest = x + widest + _PAD, _PAD, 0
        places.append((x, y))
        y += height + _PAD
        widest = max(widest, width)
        bottom = max(bottom, y)
    return places, x + widest + _PAD, bottom


def _fonts() -> tuple[Font, Font]:
    from PIL import ImageFont

    return ImageFont.load_default(13), ImageFont.load_default(11)


class _Writer:
    """Writes frames to a temporary file that `close` renames."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")

    def add(self, image: Image.Image) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        try:
            self.finish()
            os.replace(self.temporary, self.path)
        except OSError as error:
            self.discard()
            raise _cannot_write(self.path, error) from error

    def discard(self) -> None:
        with contextlib.suppress(Exception):
            self.finish()
        self.temporary.unlink(missing_ok=True)


class _Mp4(_Writer):
    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path, fps)
        import imageio.v2 as imageio

        try:
            self.temporary.touch()
            self._writer = imageio.get_writer(
                self.temporary, format="FFMPEG", mode="I", fps=fps, codec="libx264",
                pixelformat="yuv420p", macro_block_size=2, quality=8,
            )  # fmt: skip
        except OSError as error:
            raise _cannot_write(path, error) from error

    def add(self, image: Image.Image) -> None:
        self._writer.append_data(np.asarray(image))

    def finish(self) -> None:
        self._writer.close()


class _Gif(_Writer):
    """Pillow writes a GIF at once, so its frames are kept, in a palette of 128 colours."""

    def __init__(self, path: Path, fps: float) -> None:
        super().__init__(path, fps)
        self._frames: list[Image.Image] = []

    def add(self, image: Image.Image) -> None:
        self._frames.append(image.quantize(128))

    def finish(self) -> None:
        if not self._frames:
            return
        frames, self._frames = self._frames, []
        frames[0].save(
            self.temporary,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=max(20, round(1000.0 / self.fps)),
            loop=0,
        )


def _writer(path: Path, fps: float) -> _Writer:
    return _Gif(path, fps) if path.suffix.lower() == ".gif" else _Mp4(path, fps)


def _modules(suffix: str) -> None:
    """See that what writes the format is there, before anything runs."""
    import importlib.util

    needed = ("PIL",) if suffix == ".gif" else ("PIL", "imageio", "imageio_ffmpeg")
    for module in needed:
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(
                f"{suffix} needs {module}, which is not installed; run: pip install "
                "'eventsim[video]', or give a name that ends in .gif",
                where="video",
            )


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot be written ({error.strerror or error}); choose another place", where=f"'{path}'"
    )
