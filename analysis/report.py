"""A run, or two side by side, as one HTML page that needs nothing else.

The page carries its figures, its events and the plotting library; its content security policy
forbids every request, and every script but those that were put in here.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim import __version__, tables
from eventsim.analysis import report_sections as sections
from eventsim.analysis.report_data import RunView, Source, view
from eventsim.analysis.report_mapping import mapping
from eventsim.errors import InputError, MissingDependencyError
from eventsim.output import write_atomically, write_text

if TYPE_CHECKING:
    from eventsim.network import Network

# Bins of the rates that a page carries, for each layer.
_RATE_BINS = 20_000


def report(
    *runs: Source,
    out: str | os.PathLike[str] | None = None,
    networks: Sequence[Network | None] | None = None,
    max_events: int = 2_000_000,
) -> str:
    """Make the page of one run, or of two side by side.

    Parameters
    ----------
    *runs : Run, Trace or path
        One or two: runs in memory, or folders that `Run.save` wrote.
    out : path, optional
        Where the page is written.
    networks : sequence of Network or None, optional
        The networks of runs that are folders, one for each run: a folder does not hold its own,
        and without it there is no mapping.
    max_events : int, optional
        Events of each run that the raster carries, whole steps from the beginning; the page says
        so if there are more. A million take about 5 MB.

    Returns
    -------
    str
        The page. The same runs give the same page, byte for byte.

    Raises
    ------
    InputError
        If there are no runs, or more than two, or one is not a run; if a network is not that of
        its run.
    UnknownNameError, FileFormatError
        If a folder holds no run, or a damaged one.
    OutputError
        If `out` cannot be written.
    MissingDependencyError
        If Plotly is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import eventsim
    >>> from eventsim.models.decoders import Argmax
    >>> from eventsim.models.encoders import BoxSpec, Encoder
    >>> network = eventsim.Network.from_arrays([np.eye(4), np.ones((2, 4))])
    >>> policy = eventsim.Policy(Encoder(BoxSpec((4,))), network, Argmax(2), {})
    >>> run = eventsim.run(policy, "CartPole-v1", episodes=2, progress=False)
    >>> from eventsim.analysis.report import report
    >>> page = report(run, out="report.html")
    >>> page.startswith("<!doctype html>")
    True
    """
    if not 1 <= len(runs) <= 2:
        raise InputError(f"a report shows one run or two, not {len(runs)}")
    if max_events < 0:
        raise InputError(f"is {max_events}; give 0 or more", field="max_events")
    given = [None] * len(runs) if networks is None else list(networks)
    if len(given) != len(runs):
        raise InputError(f"are {len(given)}; give one for each run, or None", field="networks")
    views = [view(run, max_events, network) for run, network in zip(runs, given, strict=True)]
    page = _page(views)
    if out is not None:
        write_atomically(Path(out), lambda path: write_text(path, page))
    return page


def _page(views: list[RunView]) -> str:
    plotly, script = _plotly(), _file("report.js")
    title = " and ".join(tables.heading(run.data) for run in views)
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (plotly, script))
    page = Template(_file("report.html")).substitute(
        policy=html.escape(
            f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
            "img-src data: blob:; base-uri 'none'; form-action 'none'"
        ),
        title=html.escape(title),
        style=_file("report.css"),
        kind="pair" if len(views) == 2 else "single",
        heading=" <span>and</span> ".join(_heading(k, views) for k in range(len(views))),
        sections="".join(_sections(views)),
        version=html.escape(__version__),
        data=_json({"runs": [_payload(run) for run in views]}),
        plotly=plotly,
        script=script,
    )
    # JSON can name half of a character, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _heading(k: int, views: list[RunView]) -> str:
    data = views[k].data
    letter = f'<b class="letter">{"AB"[k]}</b> ' if len(views) == 2 else ""
    return f"{letter}{sections.text(sections.short_name(data))} in {sections.text(data['env'])}"


def _sections(views: list[RunView]) -> list[str]:
    idents = ["a", "b"][: len(views)]
    each = list(zip(views, idents, strict=True))
    found = [_section("summary", "Summary", [sections.summary(run) for run in views])]
    if len(views) == 2:
        found.append(_section("comparison", "Side by side", [sections.comparison(*views)]))
    found += [
        _section("layers", "Layers", [sections.layers(run, f"{i}-layers") for run, i in each]),
        _section("raster", "Events", [_raster(run, i) for run, i in each]),
        _section("rates", "Rates over time", [_rates(run, i) for run, i in each]),
        _section("energy", "Energy", [sections.energy(run, f"{i}-energy") for run, i in each]),
    ]
    mapped = [mapping(run) for run in views]
    if any(mapped):
        parts = [part or "<p>The network of this run is not at hand.</p>" for part in mapped]
        found.append(_section("mapping", "Mapping", parts))
    found += [
        _section("network", "Network", [sections.network(run, f"{i}-net") for run, i in each]),
        _section("provenance", "Provenance", [sections.provenance(run) for run in views]),
    ]
    return found


def _section(ident: str, title: str, parts: list[str]) -> str:
    columns = "".join(
        f'<div class="run">{_letter(k, parts)}{part}</div>' for k, part in enumerate(parts)
    )
    return (
        f'<section id="{ident}" aria-labelledby="{ident}-h"><h2 id="{ident}-h">{title}</h2>'
        f'<div class="runs">{columns}</div></section>'
    )


def _letter(k: int, parts: list[str]) -> str:
    return f'<p class="letter" aria-label="Run {"AB"[k]}">{"AB"[k]}</p>' if len(parts) == 2 else ""


def _raster(run: RunView, ident: str) -> str:
    if run.events is None:
        return "<p>The events of this run were not recorded.</p>"
    if not run.steps:
        return "<p>The run has no steps.</p>"
    note = ""
    if run.n_shown_steps < run.steps:
        note = (
            f'<p class="note">The raster holds the first {tables.number(run.n_shown_steps)} of '
            f"{tables.number(run.steps)} steps ({tables.number(run.events['step'].size)} of "
            f"{tables.number(run.n_events)} events), to keep this page small.</p>"
        )
    buttons = "".join(
        f'<button type="button" data-do="{do}" aria-label="{name}" title="{name}">{sign}</button>'
        for do, name, sign in (
            ("in", "Zoom in", "+"),
            ("out", "Zoom out", "−"),
            ("left", "Earlier steps", "←"),
            ("right", "Later steps", "→"),
            ("all", "Whole run", "Whole run"),
        )
    )
    reward = ""
    if run.reward is not None:
        reward = " Above it the reward of a step, a mean where a point has room for several."
    label = (
        f"Raster of {tables.number(run.n_events)} events of {len(run.names)} layers over "
        f"{tables.number(run.steps)} steps"
    )
    return (
        f"{note}<figure>"
        f'<div class="tools" role="group" aria-label="View of the raster">{buttons}'
        f'<label>Episode <select data-do="episode" id="{ident}-episode"></select></label></div>'
        f'<div class="plot raster" id="{ident}-raster" role="img" aria-label="{label}">'
        '<p class="wait">Drawn by a script of this page.</p></div>'
        f'<div class="legend" id="{ident}-legend" aria-hidden="true"></div>'
        f'<figcaption><span id="{ident}-status" role="status"></span> Zoom with the buttons, or '
        "drag over the picture with a mouse; values are kept to three digits."
        f"{reward}</figcaption></figure>"
    )


def _rates(run: RunView, ident: str) -> str:
    if not run.steps:
        return "<p>The run has no counters of single steps.</p>"
    mean = run.counts.mean(axis=0)
    described = ", ".join(
        f"{name} {tables.percent(float(m) / int(size))}"
        for name, m, size in zip(run.names, mean, run.sizes, strict=True)
        if m > 0.0
    )
    label = html.escape(f"Share of neurons with an event, mean over the run: {described}")
    return (
        f'<figure><div class="plot rates" id="{ident}-rates" role="img" aria-label="{label}">'
        '<p class="wait">Drawn by a script of this page.</p></div>'
        "<figcaption>Above, the share of each layer's neurons that sent an event; below, synaptic "
        "operations as a share of the dense multiplications. Means over as many steps as a point "
        "has room for; the view follows the raster.</figcaption></figure>"
    )


def _payload(run: RunView) -> dict[str, Any]:
    """Return what the script draws; arrays are deflated and base64-coded, least byte first."""
    bin_steps = max(1, -(-run.steps // _RATE_BINS))
    dense = run.data["total"]["dense_macs"]
    sends = [layer["activity_sparsity"] is not None for layer in run.data["layers"]]
    work = run.synops.sum(axis=1) / dense if dense else np.zeros(run.steps)
    return {
        "label": run.label,
        "steps": run.steps,
        "starts": run.starts.tolist(),
        "layers": [
            {"name": name, "neurons": int(size), "sends": sent}
            for name, size, sent in zip(run.names, run.sizes, sends, strict=True)
        ],
        "rates": {
            "steps": bin_steps,
            "share": [
                _packed(_binned(run.counts[:, k] / size, bin_steps).astype("<f4"))
                for k, size in enumerate(run.sizes)
            ],
            "work": _packed(_binned(work, bin_steps).astype("<f4")),
        },
        "reward": None
        if run.reward is None
        else _packed(_binned(run.reward, bin_steps).astype("<f4")),
        "raster": None if run.events is None or not run.steps else _events(run),
    }


def _events(run: RunView) -> dict[str, Any]:
    """Events of every layer in order of steps: how many a step, then neurons and values."""
    events = run.events or {}
    value = events["value"].astype(np.float32)
    limit = float(np.quantile(np.abs(value), 0.99)) if value.size else 1.0
    found = []
    for k, size in enumerate(run.sizes):
        mine = np.flatnonzero(events["population"] == k)
        mine = mine[np.argsort(events["step"][mine], kind="stable")]
        count = np.bincount(events["step"][mine], minlength=run.n_shown_steps)
        kind = "<u2" if size <= 1 << 16 else "<u4"
        found.append(
            {
                "count": _packed(count.astype("<u4")),
                "neuron": _packed(events["neuron"][mine].astype(kind)),
                "wide": kind == "<u4",
                "value": _packed(_rounded(value[mine])),
            }
        )
    binary = bool(value.size) and bool((value == 1.0).all())
    return {"steps": run.n_shown_steps, "limit": limit or 1.0, "binary": binary, "layers": found}


def _rounded(value: NDArray[np.float32]) -> NDArray[Any]:
    """Round to 11 significant bits: the rest of a float32 cannot be compressed, nor be seen."""
    bits = value.view(np.uint32)
    return ((bits + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32).astype("<f4")


def _binned(values: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Mean of every `width` values; the last bin may hold fewer."""
    starts = np.arange(0, len(values), width)
    if not starts.size:
        return np.zeros(0)
    counts = np.minimum(width, len(values) - starts)
    return np.asarray(np.add.reduceat(values.astype(np.float64), starts) / counts)


def _packed(array: NDArray[Any]) -> str:
    data = np.ascontiguousarray(array)
    # Equal bytes of neighbours side by side compress far better.
    planes = data.view(np.uint8).reshape(data.size, data.itemsize).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 6)).decode("ascii")


def _json(data: Any) -> str:
    """Write JSON that cannot end the element it stands in."""
    written = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _file(name: str) -> str:
    return (resources.files("eventsim.analysis") / "templates" / name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        file = resources.files("plotly") / "package_data" / "plotly.min.js"
        script = file.read_text(encoding="utf-8")
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            "a report needs Plotly; install it with pip install plotly"
        ) from error
    # An HTML parser ends a script at this mark, wherever it stands.
    return script.replace("</script", "<\\/script").replace("\r\n", "\n")
