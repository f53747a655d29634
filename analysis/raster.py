"""Rasters: every event of a run as a mark, layers stacked, tracks above, rates beside.

The plot is made with Matplotlib's objects alone: no pyplot, so no window, no backend change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from eventsim.analysis.raster_data import (
    Float,
    Int,
    Populations,
    RasterData,
    check_events,
    check_track,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from eventsim.trace import Events


# Negative and positive differ in hue (orange, blue: safe for colour-blind readers) and in
# lightness (every orange is lighter than every blue: readable in grey print).
_NEGATIVE = ("#d0640a", "#f5b767")
_POSITIVE = ("#4f70b8", "#081748")
_BAND = "#f3f3f3"
_RATE = (_BAND, "#9fb4de", "#4a68b0", "#0a1c57")
_INK = "#0a1c57"
_FAINT = "#666666"
_SMALL = 8.0

# Inches.
_PAD = 0.12
_TRACK_HEIGHT = 0.75
_TRACK_GAP = 0.28
_RATE_WIDTH = 0.75
_SCALE_WIDTH = 0.13
_SCALE_OFFSET = 2 * _PAD + _RATE_WIDTH + 0.5
# Components of an observation or action: blues, oranges and a grey that differ in lightness too.
_LINES = ("#0a1c57", "#d0640a", "#4f70b8", "#f0a04b", "#8a8f9c", "#2b2b2b")
# Between bands, as a share of the lowest one.
_GAP = 0.12


@dataclass(frozen=True, eq=False)
class _Bands:
    """Where the populations lie, in inches: the first neuron at `top`, each `scale` high."""

    top: Float
    scale: Float
    height: Float
    end: float


def raster(
    events: Mapping[str, ArrayLike] | Events,
    populations: Populations,
    *,
    steps: int | None = None,
    episode_lengths: Sequence[int] | None = None,
    rewards: ArrayLike | None = None,
    actions: ArrayLike | None = None,
    observations: ArrayLike | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    max_marks: int = 200_000,
) -> Axes:
    """Draw the events of a run.

    Populations are stacked from top to bottom in network order, each in a band that is labelled
    with its name and size (small ones are drawn higher than their share, to be seen). A mark is
    one event: blue if the transmitted change is positive, orange if negative, darker the larger
    it is; if all events carry the value 1 they are spikes and have one colour. On the right stand
    the share of steps with an event, per neuron and as mean of the population, and the scale of
    the colours. Rewards, actions and observations are tracks above that share the axis of steps; a
    dashed line begins an episode.

    With more than `max_marks` events, or more than two steps to a pixel, marks would cover each
    other: then the picture shows the share of neuron-steps with an event in cells of several
    steps and neurons, and says so below.

    Parameters
    ----------
    events : mapping of str to array, or Events
        ``step``, ``population`` (index), ``neuron``, ``value``, and ``episode`` if ``step``
        counts from the beginning of an episode: what `EventRecorder.to_arrays` returns.
    populations : Network, or sequence of Population or of (name, size)
    steps : int, optional
        Steps of the whole run; default the sum of `episode_lengths`, else the number of
        `rewards`, else up to the last event.
    episode_lengths : sequence of int, optional
        Steps of every episode. Needed to place the episodes exactly: without it an episode ends
        with its last event.
    rewards : array of shape (steps,), optional
    actions, observations : array of shape (steps,) or (steps, components), optional
        One line for each component; only the first six get a colour of their own.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Where to draw; tracks, rates and colour scale are attached to its sides. Default: axes of
        a new figure.
    figsize : (float, float), optional
        Inches, of the new figure.
    max_marks : int, optional

    Returns
    -------
    matplotlib.axes.Axes
        The raster; ``.figure.savefig(path)`` writes it. The axes beside it are in its
        ``child_axes``, labelled ``reward``, ``action``, ``observation``, ``rate`` and ``scale``.

    Raises
    ------
    InputError
        If arrays are missing, differ in length or point outside of the network, or the lengths
        given contradict each other.

    Examples
    --------
    >>> from eventsim.analysis.raster import raster
    >>> events = {"step": [0, 1], "population": [0, 1], "neuron": [1, 0], "value": [0.5, -0.2]}
    >>> ax = raster(events, [("input", 2), ("hidden1", 3)], steps=4)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['input (2)', 'hidden1 (3)']
    """
    data = check_events(events, populations, steps, episode_lengths, rewards)
    bands = _bands(data.sizes)
    tracks = {
        name: check_track(name, values, data.steps)
        for name, values in (
            ("reward", data.rewards),
            ("action", actions),
            ("observation", observations),
        )
        if values is not None
    }
    if ax is None:
        ax = _new_axes(data, bands, len(tracks), bool(title), figsize)
    box = ax.get_window_extent()
    width, height = max(int(box.width), 1), max(int(box.height), 1)
    _frame(ax, data, bands)
    if data.step.size > max_marks or data.steps > 2 * width:
        shown, note = _draw_cells(ax, data, bands, width, height)
    else:
        shown, note = _draw_marks(ax, data, bands, width)
    ax.annotate(
        note,
        (1.0, 0.0),
        xytext=(0.0, -32.0),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=_SMALL,
        color=_FAINT,
    )
    top = ax
    for k, (name, values) in enumerate(tracks.items()):
        top = _draw_track(ax, data, name, values, _PAD + k * (_TRACK_HEIGHT + _TRACK_GAP))
    _draw_rates(ax, data, bands)
    if shown is not None:
        _draw_scale(ax, shown)
    if title:
        top.set_title(title, loc="left", fontsize=11, pad=8 if top is ax else 14)
    return ax


def _bands(sizes: Int) -> _Bands:
    # Grows with the size, but a layer of 2 is still seen and one of 512 does not take all.
    height = np.clip(0.25 + 0.03 * sizes, 0.4, 2.4)
    height *= float(np.clip(1.0, 1.3 / height.sum(), 8.0 / height.sum()))
    top = np.concatenate([[0.0], np.cumsum(height + _GAP * height.min())[:-1]])
    return _Bands(top, height / sizes, height, float(top[-1] + height[-1]))


def _new_axes(
    data: RasterData,
    bands: _Bands,
    n_tracks: int,
    with_title: bool,
    figsize: tuple[float, float] | None,
) -> Axes:
    """Axes of a new figure, with the room around them that their sides need (inches)."""
    from matplotlib.figure import Figure
    from matplotlib.textpath import TextPath

    widths = [TextPath((0, 0), label, size=9).get_extents().width for label in data.labels]
    left = max(max(widths) / 72.0 + 0.2, 1.3 if n_tracks > 1 else 1.0 if n_tracks else 0.5)
    right = 2 * _PAD + _RATE_WIDTH + 0.55
    if data.step.size:
        right += _SCALE_WIDTH + 0.8
    bottom, top = 0.65, 0.45
    if n_tracks:
        top = _PAD + n_tracks * (_TRACK_HEIGHT + _TRACK_GAP) + 0.25 * with_title
    width, height = figsize or (9.5, bands.end + bottom + top)
    figure = Figure(figsize=(width, height), dpi=150)
    # In a figure that is too small for its margins the axes still keep a fifth of it.
    across = min((left + right) / width, 0.8) / (left + right)
    down = min((bottom + top) / height, 0.8) / (bottom + top)
    return figure.add_axes(
        (left * across, bottom * down, 1 - (left + right) * across, 1 - (bottom + top) * down)
    )


def _frame(ax: Axes, data: RasterData, bands: _Bands) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlim(-0.5, max(data.steps, 1) - 0.5)
    ax.set_ylim(bands.end, 0.0)
    centres = bands.top + bands.height / 2.0
    ax.set_yticks(centres, data.labels)
    ax.tick_params(axis="y", length=0, labelsize=9)
    ax.tick_params(axis="x", labelsize=_SMALL)
    ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    ax.set_xlabel("step", fontsize=9)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    present = np.bincount(data.population, minlength=len(data.sizes))
    for top, height, count in zip(bands.top, bands.height, present, strict=True):
        ax.axhspan(top, top + height, color=_BAND, linewidth=0, zorder=0)
        if not count:
            ax.text(
                0.5,
                top + height / 2.0,
                "no events",
                transform=ax.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=_SMALL,
                color=_FAINT,
                style="italic",
            )
    _episodes(ax, data)


def _episodes(ax: Axes, data: RasterData) -> None:
    for start in data.starts[1:]:
        ax.axvline(start - 0.5, color="#444444", linewidth=0.7, linestyle=(0, (4, 3)), zorder=3)


def _colours() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    stops = [(0.0, _NEGATIVE[0]), (0.5, _NEGATIVE[1]), (0.5, _POSITIVE[0]), (1.0, _POSITIVE[1])]
    return LinearSegmentedColormap.from_list("eventsim_signed", stops, N=512)


def _root(value: ArrayLike) -> Float:
    return np.asarray(np.sign(value) * np.sqrt(np.abs(value)), np.float64)


def _square(value: ArrayLike) -> Float:
    return np.asarray(np.sign(value) * np.square(value), np.float64)


def _draw_marks(ax: Axes, data: RasterData, bands: _Bands, width: int) -> tuple[Any, str]:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import FuncNorm

    note = f"{_thousands(data.step.size)} events in {_thousands(data.steps)} steps"
    if not data.step.size:
        return None, note
    # Strong ones last, on top.
    order = np.argsort(np.abs(data.value), kind="stable")
    scale = bands.scale[data.population][order]
    y = bands.top[data.population][order] + data.neuron[order] * scale
    x = data.step[order].astype(np.float64)
    segments = np.stack([np.stack([x, y + 0.05 * scale], 1), np.stack([x, y + 0.95 * scale], 1)], 1)
    points = 72.0 / ax.figure.dpi * width / max(data.steps, 1)
    marks = LineCollection(
        list(segments), linewidths=float(np.clip(0.9 * points, 0.7, 7.0)), capstyle="butt", zorder=2
    )
    # As vectors, many marks would make files that no viewer opens.
    marks.set_rasterized(data.step.size > 20_000)
    if data.binary:
        marks.set_color(_INK)
    else:
        limit = _round_up(float(np.quantile(np.abs(data.value), 0.99)))
        marks.set(
            array=data.value[order], cmap=_colours(), norm=FuncNorm((_root, _square), -limit, limit)
        )
    ax.add_collection(marks, autolim=False)
    return (None if data.binary else marks), note


def _draw_cells(
    ax: Axes, data: RasterData, bands: _Bands, width: int, height: int
) -> tuple[Any, str]:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    wide = -(-data.steps // width)
    columns = -(-data.steps // wide)
    filled = np.minimum(wide, data.steps - wide * np.arange(columns))
    pictures, tallest = [], 1
    for k, size in enumerate(data.sizes):
        rows = max(int(height * bands.height[k] / bands.end), 1)
        tall = -(-int(size) // rows)
        rows = -(-int(size) // tall)
        mine = data.population == k
        cell = (data.neuron[mine] // tall) * columns + data.step[mine] // wide
        counts = np.bincount(cell, minlength=rows * columns).reshape(rows, columns)
        members = np.minimum(tall, size - tall * np.arange(rows))
        pictures.append((counts / (members[:, None] * filled), tall))
        tallest = max(tallest, tall)
    highest = max(float(picture.max()) for picture, _ in pictures)
    norm = PowerNorm(0.5, 0.0, highest or 1.0)
    colours = LinearSegmentedColormap.from_list("eventsim_rate", list(_RATE), N=256)
    for k, (picture, tall) in enumerate(pictures):
        bottom = bands.top[k] + picture.shape[0] * tall * bands.scale[k]
        image = ax.imshow(
            picture,
            cmap=colours,
            norm=norm,
            aspect="auto",
            extent=(-0.5, columns * wide - 0.5, bottom, bands.top[k]),
            zorder=2,
        )
        # The last row and column may stand for fewer neurons and steps than the others.
        clip = _rectangle(ax, -0.5, bands.top[k], data.steps, bands.height[k])
        image.set_clip_path(clip)
    ax.set_xlim(-0.5, data.steps - 0.5)
    ax.set_ylim(bands.end, 0.0)
    cells = f"{wide} step{'s' * (wide > 1)} x "
    cells += "1 neuron" if tallest == 1 else f"up to {tallest} neurons"
    note = (
        f"{_thousands(data.step.size)} events in {_thousands(data.steps)} steps, "
        f"binned: a cell is {cells}"
    )
    return ScalarMappable(norm, colours), note


def _rectangle(ax: Axes, x: float, y: float, width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, transform=ax.transData)


def _attach(
    ax: Axes, side: str, name: str, bounds: tuple[float, float, float, float], **share: Any
) -> Axes:
    """Axes on the ``right`` side of `ax` or ``above`` it.

    `bounds` (x, y, width, height) are inches away from `ax` and shares of it along it, which
    holds too after a layout engine has changed the size of `ax`.
    """
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    corner = ScaledTranslation(1.0, 1.0, ax.transAxes)  # type: ignore[arg-type]
    inches = ax.figure.dpi_scale_trans + corner
    pair = (inches, ax.transAxes) if side == "right" else (ax.transAxes, inches)
    other = ax.inset_axes(bounds, transform=blended_transform_factory(*pair), **share)
    other.set_label(name)
    for spine in ("top", "right"):
        other.spines[spine].set_visible(False)
    other.tick_params(labelsize=_SMALL)
    return other


def _draw_track(ax: Axes, data: RasterData, name: str, values: Float, above: float) -> Axes:
    track = _attach(ax, "above", name, (0.0, above, 1.0, _TRACK_HEIGHT), sharex=ax)
    width = max(int(ax.get_window_extent().width), 1)
    for k, column in enumerate(values.T):
        colour = _LINES[min(k, len(_LINES) - 1)]
        x, y = _envelope(column, width)
        style = "steps-mid" if x.size == column.size else "default"
        track.plot(x, y, drawstyle=style, color=colour, linewidth=0.9)
    if values.size and np.ptp(values) == 0.0:
        low, high = sorted((0.0, float(values[0, 0]) or 1.0))
        track.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    track.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
    track.tick_params(axis="x", labelbottom=False)
    track.locator_params(axis="y", nbins=3)
    _episodes(track, data)
    if name == "reward" and 1 < len(data.starts) <= 8:
        ends = np.append(data.starts[1:], data.steps)
        for start, end in zip(data.starts, ends, strict=True):
            track.annotate(
                f"return {values[start:end].sum():.4g}",
                (start - 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3.0, 1.0),
                textcoords="offset points",
                fontsize=7,
                color=_FAINT,
            )
    return track


def _envelope(values: Float, width: int) -> tuple[Float, Float]:
    """Points of a line; of a long one the lowest and highest in each pixel: it looks the same."""
    x = np.arange(values.size, dtype=np.float64)
    if values.size <= 8 * width:
        return x, values
    wide = -(-values.size // (2 * width))
    starts = np.arange(0, values.size, wide)
    ends = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return np.repeat(x[starts], 2), np.stack(ends, axis=1).reshape(-1)


def _draw_rates(ax: Axes, data: RasterData, bands: _Bands) -> None:
    margin = _attach(ax, "right", "rate", (_PAD, 0.0, _RATE_WIDTH, 1.0), sharey=ax)
    margin.tick_params(axis="y", left=False, labelleft=False)
    margin.spines["left"].set_color("#bbbbbb")
    highest = 0.0
    for k, size in enumerate(data.sizes):
        mine = data.neuron[data.population == k]
        rate = np.bincount(mine, minlength=int(size)) / max(data.steps, 1)
        highest = max(highest, float(rate.max()))
        edges = bands.top[k] + bands.scale[k] * np.arange(size + 1)
        margin.stairs(rate, edges, orientation="horizontal", fill=True, color="#8793b2")
        if not mine.size:
            continue
        margin.annotate(
            f"{100.0 * rate.mean():.3g} %",
            (1.0, bands.top[k] + bands.height[k] / 2.0),
            xycoords=("axes fraction", "data"),
            xytext=(3.0, 0.0),
            textcoords="offset points",
            va="center",
            fontsize=_SMALL,
        )
    margin.set_xlim(0.0, highest or 1.0)
    margin.set_ylim(bands.end, 0.0)
    margin.set_xticks([0.0, highest or 1.0], ["0", f"{100.0 * (highest or 1.0):.3g} %"])
    margin.set_title("steps with\nan event", fontsize=_SMALL, loc="left", pad=4)


def _draw_scale(ax: Axes, shown: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    length = min(0.9, 2.2 * ax.figure.dpi / max(ax.get_window_extent().height, 1.0))
    bounds = (_SCALE_OFFSET, (1.0 - length) / 2.0, _SCALE_WIDTH, length)
    box = _attach(ax, "right", "scale", bounds)
    signed = shown.norm.vmin < 0.0
    limit = shown.norm.vmax
    beyond = signed and float(np.abs(shown.get_array()).max()) > limit
    bar = ax.figure.colorbar(shown, cax=box, extend="both" if beyond else "neither")
    bar.outline.set_visible(False)
    ticks = [-limit, -limit / 4.0, 0.0, limit / 4.0, limit] if signed else [0.0, limit / 4.0, limit]
    bar.set_ticks(ticks)
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=_SMALL)
    if signed:
        bar.ax.set_yticklabels([f"{tick:.3g}" for tick in ticks])
        bar.set_label("transmitted change", fontsize=_SMALL)
    else:
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
        bar.set_label("neuron-steps with an event", fontsize=_SMALL)


def _round_up(value: float) -> float:
    """Next 1, 2 or 5 times a power of ten."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(m for m in (1.0, 2.0, 5.0, 10.0) if value <= m * power * (1 + 1e-12)) * power)


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")
