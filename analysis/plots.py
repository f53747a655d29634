"""Pictures of a run beside its raster: rates over time, survival through layers, the network.

As in `eventsim.analysis.raster`, Matplotlib's objects alone: no pyplot, so no window. Colours are
those of the raster: one hue that gets darker, readable in grey print.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from eventsim.analysis.raster_data import Populations, check_events
from eventsim.analysis.sparsity import layer_rows, sending_neurons
from eventsim.errors import InputError
from eventsim.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from eventsim.trace import Events

_INK = "#0a1c57"
_MIDDLE = "#8793b2"
_PALE = "#dfe4ef"
_FAINT = "#666666"
_RATE = ("#f3f3f3", "#9fb4de", "#4a68b0", "#0a1c57")
_SMALL = 8.0

# Half of a box of the network graph, in units of its columns and rows.
_HALF, _TALL = 0.23, 0.26


def rate_map(
    events: Mapping[str, ArrayLike] | Events,
    populations: Populations,
    *,
    steps: int | None = None,
    episode_lengths: Sequence[int] | None = None,
    window: int | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how busy each population is over time.

    A cell is the share of neuron-steps with an event in a population and a window of steps; the
    last window may be shorter, and is measured over its own length. Dashed lines begin episodes.

    Parameters
    ----------
    events, populations, steps, episode_lengths
        As for `eventsim.analysis.raster.raster`.
    window : int, optional
        Steps of a window; default so that there are about 120.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Default: axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The colour scale is in its ``child_axes``, labelled ``scale``.

    Raises
    ------
    InputError
        As for `raster`, or if `window` is below 1.

    Examples
    --------
    >>> from eventsim.analysis.plots import rate_map
    >>> events = {"step": [0, 1], "population": [0, 1], "neuron": [1, 0], "value": [0.5, -0.2]}
    >>> ax = rate_map(events, [("input", 2), ("hidden1", 3)], steps=4)
    >>> ax.get_title()
    ''
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    data = check_events(events, populations, steps, episode_lengths)
    if window is not None and window < 1:
        raise InputError(f"is {window}; give at least 1", field="window")
    wide = window or max(-(-data.steps // 120), 1)
    columns, rows = max(-(-data.steps // wide), 1), len(data.sizes)
    cell = data.population * columns + data.step // wide
    counts = np.bincount(cell, minlength=rows * columns).reshape(rows, columns)
    length = np.clip(data.steps - wide * np.arange(columns), 1, wide)
    share = counts / (data.sizes[:, None] * length)
    ax = ax or _axes(8.0, 0.9 + 0.42 * rows + 0.3 * bool(title))
    highest = float(share.max()) or 1.0
    norm = PowerNorm(0.5, 0.0, highest)
    colours = LinearSegmentedColormap.from_list("eventsim_rate", list(_RATE), N=256)
    edges = np.minimum(np.arange(columns + 1) * wide, max(data.steps, 1)) - 0.5
    ax.pcolormesh(edges, np.arange(rows + 1) - 0.5, share, cmap=colours, norm=norm)
    for start in data.starts[1:]:
        ax.axvline(start - 0.5, color="#444444", linewidth=0.7, linestyle=(0, (4, 3)))
    ax.hlines(np.arange(1, rows) - 0.5, *edges[[0, -1]], color="white", linewidth=2.0)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_yticks(range(rows), data.labels, fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=_SMALL)
    ax.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1))
    unit = "step" if wide == 1 else f"step, in windows of {wide}"
    ax.set_xlabel(unit if data.step.size else f"{unit}: no events", fontsize=9)
    _no_frame(ax)
    box = ax.inset_axes((1.02, 0.0, 0.018, 1.0))
    box.set_label("scale")
    bar = ax.figure.colorbar(ScalarMappable(norm, colours), cax=box)
    bar.outline.set_visible(False)
    bar.set_ticks([0.0, highest / 4.0, highest])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=_SMALL)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    bar.set_label("neuron-steps\nwith an event", fontsize=_SMALL)
    if title:
        ax.set_title(title, loc="left", fontsize=11)
    return ax


def survival(
    network: Network,
    evaluations: ArrayLike,
    events: ArrayLike,
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how far changes get through the layers.

    For each population a pale bar, the share of neuron-steps in which something reached a neuron
    (evaluations), and in it a dark one, the share in which it passed it on (events). Beside it
    stands what survives: events per evaluation. Outputs emit nothing, so they have no dark bar.

    Parameters
    ----------
    network : Network
    evaluations, events : int array of shape (T, P)
        Counters of T steps, such as ``Run.counters.events``.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Default: axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        If a shape does not fit the network, or a count is negative.
    """
    from matplotlib.ticker import PercentFormatter

    zero = np.zeros_like(np.asarray(events))
    rows = layer_rows(network, evaluations, events, zero, zero)
    senders = sending_neurons(network)
    ax = ax or _axes(7.0, 0.9 + 0.5 * len(rows) + 0.3 * bool(title))
    for y, row in enumerate(rows):
        touched, emitted = row["evaluations"], row["events"]
        if touched is None or emitted is None:
            ax.text(0.01, y, "no steps", va="center", fontsize=_SMALL, color=_FAINT, style="italic")
            continue
        n = row["neurons"]
        sends = bool(senders[row["name"]].any())
        ax.barh(y, touched / n, height=0.72, color=_PALE)
        label = f"reached {100 * touched / n:.3g} %"
        if sends:
            ax.barh(y, emitted / n, height=0.72, color=_INK)
            label += f", passed on {100 * emitted / n:.3g} %"
            if touched:
                label += f" ({emitted / touched:.2f} events each)"
        else:
            label += ", sends to nobody"
        ax.annotate(
            label,
            (max(touched, emitted) / n, y),
            xytext=(5.0, 0.0),
            textcoords="offset points",
            va="center",
            fontsize=_SMALL,
        )
    ax.set_ylim(len(rows) - 0.5, -0.5)
    widest = max(
        (max(r["evaluations"] or 0.0, r["events"] or 0.0) / r["neurons"] for r in rows), default=0.0
    )
    # Room for the sentences to the right of the longest bar.
    ax.set_xlim(0.0, 1.75 * widest or 1.0)
    ax.set_xticks([tick for tick in ax.get_xticks() if tick <= 1.0 + 1e-9])
    ax.set_yticks(range(len(rows)), [f"{r['name']} ({r['neurons']})" for r in rows], fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=_SMALL)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel("share of neuron-steps", fontsize=9)
    _no_frame(ax)
    if title:
        ax.set_title(title, loc="left", fontsize=11)
    return ax


def projection_synops(
    network: Network, events: Mapping[str, ArrayLike] | Events, *, steps: int | None = None
) -> dict[str, float]:
    """Return the synops per step of each projection.

    Parameters
    ----------
    network : Network
    events : mapping of str to array, or Events
        As for `eventsim.analysis.raster.raster`.
    steps : int, optional
        Over all episodes; default up to the last event of each.

    Returns
    -------
    dict of str to float
        By the name of the projection; 0 without steps.
    """
    data = check_events(events, network)
    total = data.steps if steps is None else steps
    names = {name: k for k, name in enumerate(data.names)}
    found = {}
    for projection in network.projections:
        mine = data.neuron[data.population == names[projection.source]]
        fan_out = projection.weights.fan_out()
        found[projection.name] = float(fan_out[mine].sum()) / total if total else 0.0
    return found


def network_graph(
    network: Network,
    synops: Mapping[str, float] | None = None,
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw populations as boxes from left to right, projections as arrows as wide as their synops.

    The width of an arrow is proportional to the square root of its synops per step, and its label
    says them beside the dense MACs. Arrows with white dashes have a delay.

    Parameters
    ----------
    network : Network
    synops : mapping of str to float, optional
        Synops per step of each projection, as `projection_synops` returns them; by default the
        width shows the surviving synapses.
    title : str, optional
    ax : matplotlib.axes.Axes, optional
        Default: axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        If a projection has no entry, or a negative one.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network
    >>> from eventsim.analysis.plots import network_graph
    >>> ax = network_graph(Network.from_arrays([np.ones((3, 2)), np.ones((1, 3))]))
    >>> [text.get_text() for text in ax.texts][:2]
    ['input', '2 neurons']
    """
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch

    graph = network.to_networkx()
    work = {q.name: float(q.weights.n_synapses) for q in network.projections}
    if synops is not None:
        missing = [name for name in work if name not in synops]
        if missing:
            raise InputError(f"has no entry for projection '{missing[0]}'", field="synops")
        work = {name: float(synops[name]) for name in work}
    if any(not value >= 0.0 for value in work.values()):
        raise InputError("holds a negative number or NaN; give counts", field="synops")
    place = _place(graph)
    columns = 1 + max(x for x, _ in place.values())
    lines = 1 + max(abs(y) for _, y in place.values())
    if ax is None:
        bows = any(place[q.target][0] - place[q.source][0] != 1.0 for q in network.projections)
        height = 0.6 + 0.9 * lines + 1.2 * bows + 0.4 * bool(title)
        figure = _figure(max(2.9 * columns, 4.0), height)
        ax = figure.add_axes((0.01, 0.02, 0.98, 0.96 - 0.4 * bool(title) / height))
    for name, (x, y) in place.items():
        population = network[name]
        box = FancyBboxPatch(
            (x - _HALF, y - _TALL),
            2 * _HALF,
            2 * _TALL,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_PALE if population.is_input else "white",
            edgecolor=_INK,
            linewidth=1.6 if name in network.outputs else 0.9,
            zorder=3,
        )
        ax.add_patch(box)
        count = f"{population.size} neuron{'s' * (population.size != 1)}"
        for text, dy, size in ((name, 0.07, 9.0), (count, -0.1, 7.0)):
            ax.text(x, y + dy, text, ha="center", va="center", fontsize=size, zorder=4)
    largest = max(work.values(), default=0.0) or 1.0
    loops = {q.source for q in network.projections if q.source == q.target}
    reach = [0.0, 0.0]
    for q in network.projections:
        path, peak, straight = _route(place, place[q.source], place[q.target], loops)
        reach = [min(reach[0], peak[1]), max(reach[1], peak[1])]
        width = 0.5 + 6.5 * float(np.sqrt(work[q.name] / largest))
        arrow = FancyArrowPatch(
            path=path,
            arrowstyle=f"-|>,head_length={4 + width:.1f},head_width={2 + 0.7 * width:.1f}",
            linewidth=width,
            color=_MIDDLE,
            zorder=2,
            label=q.name,
        )
        ax.add_patch(arrow)
        if q.delay:
            # White dashes on the line, since a dashed arrow would have a ragged head.
            dashes = {"linewidth": max(0.45 * width, 0.6), "linestyle": (0, (4.0, 3.0))}
            ax.add_patch(PathPatch(path, fill=False, edgecolor="white", zorder=2.5, **dashes))
        label = _edge_label(q.dense_macs, q.weights.n_synapses, work[q.name], synops is not None)
        ax.annotate(
            label + (f", delay {q.delay}" if q.delay else ""),
            peak,
            # Above a level arrow, on any other one.
            xytext=(0.0, 4.0 + width / 2.0 if straight else 0.0),
            textcoords="offset points",
            ha="center",
            va="bottom" if straight else "center",
            fontsize=7.0,
            zorder=5,
            bbox=None
            if straight
            else {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85},
        )
    ys = [y for _, y in place.values()]
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(min(*ys, reach[0], 0.0) - 0.45, max(*ys, reach[1], 0.0) + 0.45)
    ax.axis("off")
    if title:
        ax.set_title(title, loc="left", fontsize=11)
    return ax


def _place(graph: Any) -> dict[str, tuple[float, float]]:
    """Column by rank; in a column one above the other, centred."""
    ranks: dict[int, list[str]] = {}
    for name, rank in graph.nodes(data="rank"):
        ranks.setdefault(rank, []).append(name)
    place = {}
    for column, rank in enumerate(sorted(ranks)):
        names = ranks[rank]
        for k, name in enumerate(names):
            place[name] = (float(column), (len(names) - 1) / 2.0 - k)
    return place


def _route(
    place: Mapping[str, tuple[float, float]],
    source: tuple[float, float],
    target: tuple[float, float],
    loops: Collection[str],
) -> tuple[Any, tuple[float, float], bool]:
    """Path of an arrow, where its label goes, and whether it is a level line.

    To the next column straight; further ahead in a bow above or below what lies between; back, or
    to itself, over the top.
    """
    from matplotlib.path import Path

    (xa, ya), (xb, yb) = source, target
    if source == target:
        up = ya + _TALL
        points = [(xa + dx * _HALF, up + dy) for dx, dy in ((0.3, 0), (0.6, 0.6), (-0.9, 0.6))]
        end = (xa - 0.6 * _HALF, up)
        codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
        return Path([*points, end], codes), (xa, up + 0.45), False
    if xb - xa == 1.0:
        line = Path([(xa + _HALF, ya), (xb - _HALF, yb)])
        return line, ((xa + xb) / 2.0, (ya + yb) / 2.0), ya == yb
    side = 1.0 if xb <= xa or ya > 0.0 else -1.0
    between = [
        (side * y, name in loops)
        for name, (x, y) in place.items()
        if min(xa, xb) <= x <= max(xa, xb)
    ]
    high = max(y + 0.5 * (loop and side > 0) for y, loop in between) + _TALL + 0.25
    # Feedback arrives beside a loop of its target.
    into = xb + 0.8 * _HALF if xb < xa else xb
    start, end = (xa, ya + side * _TALL), (into, yb + side * _TALL)
    middle = (start[1] + end[1]) / 2.0
    # The bow passes halfway between its chord and its control point.
    control = 2.0 * side * high - middle
    x = (xa + xb) / 2.0 if xa != xb else xa + 2.0 * _HALF
    bow = Path([start, (x, control), end], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
    return bow, ((xa + xb) / 4.0 + x / 2.0, side * high), False


def _edge_label(dense: int, synapses: int, work: float, counted: bool) -> str:
    if not counted:
        return f"{synapses:,} of {dense:,}\nsynapses".replace(",", " ")
    amount = f"{work:.3g}" if work < 1000.0 else f"{work:,.0f}".replace(",", " ")
    return f"{amount} of {dense:,} MACs\na step".replace(",", " ")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150)


def _axes(width: float, height: float) -> Axes:
    figure = _figure(width, height)
    figure.set_layout_engine("constrained")
    return figure.add_subplot()


def _no_frame(ax: Axes) -> None:
    for spine in ax.spines.values():
        spine.set_visible(False)


__all__ = ["network_graph", "projection_synops", "rate_map", "survival"]
