"""The network of a run as SVG: a box for each population, an edge as wide as the work on it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from eventsim import tables
from eventsim.analysis.report_data import Link

_BOX_WIDTH, _BOX_HEIGHT = 112.0, 58.0
_APART_X, _APART_Y = 190.0, 86.0
_THINNEST, _WIDEST = 1.0, 16.0


def network_svg(layers: Sequence[Mapping[str, Any]], links: Sequence[Link], ident: str) -> str:
    """Draw populations from left to right by their level.

    Parameters
    ----------
    layers : sequence of mapping
        Rows of run.json.
    links : sequence of Link
    ident : str
        Prefix of the ids in the picture.

    Returns
    -------
    str
        An ``<svg>`` element; names are escaped.
    """
    names = [str(layer["name"]) for layer in layers]
    level = _levels(names, links)
    columns: dict[int, list[str]] = {}
    for name in names:
        columns.setdefault(level[name], []).append(name)
    tallest = max(len(column) for column in columns.values())
    back = any(level[link.source] >= level[link.target] for link in links)
    far = any(level[link.target] - level[link.source] > 1 for link in links)
    top = 30.0 + 46.0 * (back or far)
    width = (len(columns) - 1) * _APART_X + _BOX_WIDTH + 20.0
    height = (tallest - 1) * _APART_Y + _BOX_HEIGHT + top + 14.0
    place = {}
    for x, key in enumerate(sorted(columns)):
        shift = (tallest - len(columns[key])) * _APART_Y / 2.0
        for y, name in enumerate(columns[key]):
            place[name] = (10.0 + x * _APART_X, top + shift + y * _APART_Y)
    work = {str(layer["name"]): (layer["macs"] or 0.0) + (layer["acs"] or 0.0) for layer in layers}
    most = max(work.values(), default=0.0)
    edges = [_edge(link, place, level, work, most, links, ident) for link in links]
    boxes = [_box(layer, *place[str(layer["name"])]) for layer in layers]
    described = "; ".join(
        f"{link.source} to {link.target}, {tables.number(work[link.target])} synops per step"
        for link in links
    )
    return (
        f'<svg class="network" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="min-width:{0.75 * width:.0f}px;max-width:{1.25 * width:.0f}px" role="img" '
        f'aria-labelledby="{ident}-title {ident}-desc">'
        f'<title id="{ident}-title">Network</title>'
        f'<desc id="{ident}-desc">{html.escape(described)}</desc>'
        f'<defs><marker id="{ident}-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" '
        'markerHeight="9" orient="auto" markerUnits="userSpaceOnUse">'
        '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
        f"{''.join(edges)}{''.join(boxes)}</svg>"
    )


def _levels(names: Sequence[str], links: Sequence[Link]) -> dict[str, int]:
    """Longest way from an input; edges that close a cycle do not count."""
    level = dict.fromkeys(names, 0)
    order = {name: k for k, name in enumerate(names)}
    forward = [link for link in links if order[link.source] < order[link.target]]
    for _ in names:
        for link in forward:
            level[link.target] = max(level[link.target], level[link.source] + 1)
    return level


def _edge(
    link: Link,
    place: Mapping[str, tuple[float, float]],
    level: Mapping[str, int],
    work: Mapping[str, float],
    most: float,
    links: Sequence[Link],
    ident: str,
) -> str:
    share = math.sqrt(work[link.target] / most) if most > 0.0 else 0.0
    width = _THINNEST + (_WIDEST - _THINNEST) * share
    (x0, y0), (x1, y1) = place[link.source], place[link.target]
    middle = _BOX_HEIGHT / 2.0
    if level[link.target] - level[link.source] == 1:
        a, b = x0 + _BOX_WIDTH, x1 - 8.0
        curve = (b - a) / 2.0
        path = f"M{a} {y0 + middle}C{a + curve} {y0 + middle} {b - curve} {y1 + middle} {b} "
        path += f"{y1 + middle}"
        text_x, text_y = (a + b) / 2.0, (y0 + y1) / 2.0 + middle - width / 2.0 - 6.0
    else:
        # Over the boxes between them: a skip, or a way back.
        a, b = x0 + _BOX_WIDTH / 2.0, x1 + _BOX_WIDTH / 2.0
        peak = min(y0, y1) - 52.0
        path = f"M{a} {y0}C{a} {peak} {b} {peak} {b} {y1 - 8.0}"
        text_x, text_y = (a + b) / 2.0, peak + 8.0
    shared = sum(other.target == link.target for other in links) > 1
    label = "" if shared else tables.number(work[link.target])
    tip = f' marker-end="url(#{ident}-tip)"'
    return (
        f'<path class="edge" d="{path}" stroke-width="{width:.2f}"/>'
        f'<path class="line" d="{path}"{tip}/>'
        f'<text class="small" x="{text_x:.1f}" y="{text_y:.1f}">{label}</text>'
    )


def _box(layer: Mapping[str, Any], x: float, y: float) -> str:
    name = str(layer["name"])
    shown = name if len(name) <= 15 else f"{name[:14]}…"
    centre = x + _BOX_WIDTH / 2.0
    quiet = layer["activity_sparsity"]
    below = "sends no events" if quiet is None else f"{tables.percent(1.0 - quiet)} active"
    return (
        f"<g><title>{html.escape(name)}</title>"
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="7"/>'
        f'<text x="{centre}" y="{y + 18}">{html.escape(shown)}</text>'
        f'<text class="small" x="{centre}" y="{y + 34}">'
        f"{tables.plural(layer['neurons'], 'neuron')}</text>"
        f'<text class="small" x="{centre}" y="{y + 49}">{below}</text></g>'
    )
