"""Where in the picture a convolutional network works: events per pixel and channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from eventsim.network import Network
    from eventsim.trace import Events

Float = NDArray[np.float64]

_CHANNELS_SHOWN = 8


def event_maps(
    events: Mapping[str, ArrayLike] | Events, network: Network, steps: int
) -> dict[str, Float]:
    """Count the events of each pixel and channel.

    Parameters
    ----------
    events : mapping of str to array, or Events
        ``population`` (index) and ``neuron``: what `EventRecorder.to_arrays` returns, or a run's
        events.
    network : Network
    steps : int
        Steps of the recording, >= 1.

    Returns
    -------
    dict of str to float64 array of shape (height, width, channels)
        Events a step, between 0 and 1, of every population with three axes.

    Raises
    ------
    InputError
        If there are no steps, or an event belongs to no neuron of the network.
    """
    if steps < 1:
        raise InputError(f"is {steps}; give at least 1", field="steps")
    get = events.__getitem__ if isinstance(events, Mapping) else lambda key: getattr(events, key)
    population = np.asarray(get("population"), np.int64)
    neuron = np.asarray(get("neuron"), np.int64)
    sizes = np.array([p.size for p in network.populations])
    inside = (population >= 0) & (population < sizes.size) & (neuron >= 0)
    if not inside.all() or (neuron >= sizes[population]).any():
        raise InputError("belong to another network", field="events")
    maps = {}
    for number, p in enumerate(network.populations):
        if len(p.shape) == 3:
            counts = np.bincount(neuron[population == number], minlength=p.size)
            maps[p.name] = counts.reshape(p.shape) / steps
    return maps


def plot_event_maps(
    maps: Mapping[str, ArrayLike],
    *,
    channels: int = _CHANNELS_SHOWN,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Draw a row for each layer: the mean over its channels, then its busiest channels.

    Parameters
    ----------
    maps : mapping of str to array of shape (height, width, channels)
        What `event_maps` returned.
    channels : int, optional
        Channels shown of each layer, the busiest first.
    title : str, optional
    figsize : (float, float), optional
        Inches.

    Returns
    -------
    matplotlib.figure.Figure
        ``.savefig(path)`` writes it. A row shares one scale, from 0 to its largest cell.

    Raises
    ------
    InputError
        If there is no map, or one has not three axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not maps:
        raise InputError(
            "has no population with three axes (height, width, channels)", where="event maps"
        )
    arrays = {name: np.asarray(values, np.float64) for name, values in maps.items()}
    for name, values in arrays.items():
        if values.ndim != 3:
            raise InputError(
                f"has shape {values.shape}, expected three axes", where=f"map '{name}'"
            )
    columns = 1 + min(channels, max(values.shape[2] for values in arrays.values()))
    size = figsize or (1.25 * columns + 1.6, 1.5 * len(arrays) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(arrays), columns, squeeze=False)
    for row, (name, values) in zip(axes, arrays.items(), strict=True):
        busiest = np.argsort(-values.mean(axis=(0, 1)), kind="stable")[: columns - 1]
        shown = [("mean", values.mean(axis=2))]
        if values.shape[2] > 1:
            shown += [(f"channel {c}", values[:, :, c]) for c in busiest]
        top = max(float(values.max()), 1e-12)
        image: Any = None
        for ax in row:
            ax.set_axis_off()
        for ax, (label, cells) in zip(row, shown, strict=False):
            ax.set_axis_on()
            image = ax.imshow(cells, cmap="Blues", vmin=0.0, vmax=top, interpolation="nearest")
            ax.set_title(label, fontsize=8)
            ax.set_xticks([])
            ax.set_yticks([])
        height, width, n_channels = values.shape
        row[0].set_ylabel(f"{name}\n{height} x {width} x {n_channels}", fontsize=8)
        bar = figure.colorbar(image, ax=list(row), fraction=0.02, pad=0.01)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("events a step", fontsize=7)
    if title is not None:
        figure.suptitle(title, fontsize=10)
    return figure


__all__ = ["event_maps", "plot_event_maps"]
