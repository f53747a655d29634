"""The sections of a report as HTML; every text that comes from a run is escaped here."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from eventsim import tables
from eventsim.analysis.energy import EnergyEstimate, estimate_run, list_profiles, load_profile
from eventsim.analysis.profile import LABELS
from eventsim.analysis.report_data import RunView, command
from eventsim.analysis.report_graph import network_svg
from eventsim.errors import InputError

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class _Column:
    heading: str
    key: str
    write: Callable[[Any], str]
    about: str = ""


_LAYERS = (
    _Column("neurons", "neurons", tables.number),
    _Column("weights", "weights", tables.number, "incoming, zeros included"),
    _Column("connection sparsity", "connection_sparsity", tables.percent, "weights that are 0"),
    _Column("dense MACs", "dense_macs", tables.number, "multiplications without events"),
    _Column("MACs", "macs", tables.number, "synaptic operations of graded events"),
    _Column("ACs", "acs", tables.number, "synaptic operations of binary events"),
    _Column("events", "events", tables.number, "its own"),
    _Column("evaluations", "evaluations", tables.number, "its own neurons"),
    _Column("activity sparsity", "activity_sparsity", tables.percent, "neuron-steps without event"),
    _Column("reduction", "reduction", tables.factor, "dense MACs over MACs and ACs"),
)
_ENERGY = (
    _Column("dense", "dense_joules_per_step", tables.joules),
    _Column("event-driven", "event_joules_per_step", tables.joules),
    _Column("saving", "saving", tables.factor),
    _Column("static", "static_joules_per_step", tables.joules, "apart from the others"),
)


def text(value: object) -> str:
    """Escape a text, and keep its direction of writing to itself."""
    return f"<bdi>{html.escape(str(value))}</bdi>"


def short_name(data: Row) -> str:
    """Return the policy's name without the folders before it."""
    policy = str(data["policy"])
    return Path(policy).name or policy


def summary(run: RunView) -> str:
    """Say in a sentence or two what a run found."""
    if not run.data["steps"]:
        return f"<p>{text(short_name(run.data))} in {text(run.data['env'])} made no step.</p>"
    data, total = run.data, run.data["total"]
    work = _sum(total["macs"], total["acs"])
    counts = [tables.plural(data["episodes"], "episode"), tables.plural(data["steps"], "step")]
    parts = [
        f"Over {counts[0]} ({counts[1]}), {text(short_name(data))} in {text(data['env'])} "
        f"{'was interrupted after doing' if data['interrupted'] else 'did'} "
        f"<strong>{tables.number(work)} synaptic operations a step</strong> where the dense "
        f"network does {tables.number(total['dense_macs'])} multiplications"
    ]
    if total["reduction"] is not None:
        parts[0] += f": <strong>{tables.factor(total['reduction'])} fewer</strong>"
    parts[0] += "."
    mean = data["return"]["mean"]
    if mean is not None:
        dense = data["dense_return"]
        beside = ""
        if dense is not None and dense["mean"] is not None:
            beside = f", that of the dense policy {tables.signed(dense['mean'])}"
        loss = data["relative_loss"]
        if loss is not None:
            spread = "" if loss["ci95"] is None else f", 95 % interval {_percents(loss['ci95'])}"
            beside += f" (relative loss {tables.percent(loss['mean'])}{spread})"
        parts.append(f"Its mean return was {tables.signed(mean)}{beside}.")
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in run.notes)
    return f"<p>{' '.join(parts)}</p>{notes}"


def comparison(a: RunView, b: RunView) -> str:
    """Return the table that holds two runs against each other."""
    rows: list[tuple[str, float | None, float | None, Callable[[Any], str]]] = []

    def row(name: str, get: Callable[[Row], Any], write: Callable[[Any], str]) -> None:
        rows.append((name, get(a.data), get(b.data), write))

    row("mean return", lambda d: d["return"]["mean"], tables.signed)
    row("relative loss", lambda d: (d["relative_loss"] or {}).get("mean"), tables.percent)
    row("dense MACs per step", lambda d: d["total"]["dense_macs"], tables.number)
    row("synops per step", lambda d: _sum(d["total"]["macs"], d["total"]["acs"]), tables.number)
    row("reduction", lambda d: d["total"]["reduction"], tables.factor)
    row("connection sparsity", lambda d: d["total"]["connection_sparsity"], tables.percent)
    row("activity sparsity", lambda d: d["total"]["activity_sparsity"], tables.percent)
    joules = [
        {r["device"]: r["event_joules_per_step"] for r in run.data["energy"]} for run in (a, b)
    ]
    for device in (name for name in joules[0] if name in joules[1]):
        row(
            f"energy per step on {device}",
            lambda d, device=device: next(  # type: ignore[misc]
                r["event_joules_per_step"] for r in d["energy"] if r["device"] == device
            ),
            tables.joules,
        )
    # A ratio of figures that may be of either sign says nothing.
    signed = (tables.signed, tables.percent)
    body = "".join(
        f'<tr><th scope="row">{text(name)}</th>{_cell(x, write)}{_cell(y, write)}'
        f"{_cell(None if write in signed else _ratio(y, x), tables.factor)}</tr>"
        for name, x, y, write in rows
    )
    head = "".join(f'<th scope="col">{h}</th>' for h in ("figure", "A", "B", "B / A"))
    return _scrolling(
        "The two runs",
        f"<table><caption>The two runs</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>",
    )


def layers(run: RunView, ident: str) -> str:
    """Return the sortable table of the layers."""
    if not run.data["steps"]:
        return "<p>The run has no steps.</p>"
    table = tables.layer_table(run.data)
    notes = "".join(f"<li>{text(note)}</li>" for note in table.notes)
    rows, total = list(table.rows[:-1]), table.rows[-1]
    found = _sortable("Work per step", "layer", "name", _LAYERS, rows, total, ident)
    return f'{found}<ul class="notes">{notes}</ul>'


def energy(run: RunView, ident: str) -> str:
    """Return bars, table and sources of the energy estimates."""
    if not run.data["energy"]:
        return "<p>No device was given.</p>"
    table = tables.energy_table(run.data)
    estimates = _estimates(run)
    rows = []
    for row in table.rows:
        estimate = estimates.get(str(row["device"]))
        saving = _ratio(row["dense_joules_per_step"], row["event_joules_per_step"])
        ends = None if estimate is None else estimate.event_joules_range
        rows.append({**row, "saving": saving, "range": ends})
    notes = "".join(f"<li>{text(note)}</li>" for note in table.notes)
    columns = list(_ENERGY)
    if any(row["range"] for row in rows):
        columns.insert(2, _Column("range", "range", _range, "of the event-driven figure"))
    columns.append(_Column("notes", "marks", str))
    caption = "Joules per step; dynamic and static apart"
    found = _sortable(caption, "device", "device", columns, rows, None, ident)
    return (
        f'{_bars(rows)}{found}<ul class="notes">{notes}</ul>{_sources(rows, estimates)}'
        "<p>All are estimates: measured counts times published prices. The dense figure is the "
        "same device doing every multiplication.</p>"
    )


def _range(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else f"{tables.joules(ends[0])} to {tables.joules(ends[1])}"


def _estimates(run: RunView) -> dict[str, EnergyEstimate]:
    """Estimate again with the profiles that ship, for what run.json does not hold.

    Where the figure differs, the run was priced with another profile of that name.
    """
    found = {}
    shipped = list_profiles()
    for row in run.data["energy"]:
        if row["device"] not in shipped:
            continue
        try:
            estimate = estimate_run(run.data, str(row["device"]))
        except InputError:  # a run without steps
            continue
        then, now = row["event_joules_per_step"], estimate.event_joules_per_step
        same = math.isclose(then, now, rel_tol=1e-6) if then and now else then == now
        if same:
            found[str(row["device"])] = estimate
    return found


def network(run: RunView, ident: str) -> str:
    """Return the graph of the network."""
    if run.links is None:
        return (
            "<p>Which population feeds which is not in run.json, and the sizes leave a choice; "
            "a report of the run in memory shows it.</p>"
        )
    svg = network_svg(run.data["layers"], run.links, ident)
    return (
        f"<figure>{_scrolling('Network', svg)}<figcaption>The width of an edge grows with the "
        "square root of the synaptic operations per step into its target, which the number above "
        "it gives.</figcaption></figure>"
    )


def provenance(run: RunView) -> str:
    """Return where the figures come from."""
    data = run.data
    threshold = "the policy's own"
    if data["threshold"] is not None:
        threshold = f"{data['threshold']:g} on all neurons"
    elif data["threshold_scale"] is not None:
        threshold = f"the policy's own times {data['threshold_scale']:g}"
    seconds = "unknown"
    if data["step_seconds"] is not None:
        seconds = f"{data['step_seconds']:g} s ({data['step_seconds_source']})"
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    state = "kept between episodes" if data["carry_state"] else "cold at every episode"
    lines = {
        "policy": data["policy"],
        "environment": data["env"],
        "seeds": f"{data['seed']} to {data['seed'] + max(data['episodes'] - 1, 0)}",
        "thresholds": threshold,
        "state of the neurons": state,
        "time of a step": seconds,
        "encoder": f"{tables.number(data['encoder_ops'])} operations per step, in no layer",
        "versions": versions,
        "schema": data["schema"],
        "events in all": tables.number(run.n_events) if run.events is not None else "not recorded",
    }
    items = "".join(f"<div><dt>{k}</dt><dd>{text(v)}</dd></div>" for k, v in lines.items())
    return (
        f"<p>The command that makes these figures again:</p>"
        f'<pre tabindex="0" aria-label="Command"><code>{html.escape(command(data))}</code></pre>'
        f'<dl class="facts">{items}</dl>'
    )


def _bars(rows: Sequence[Row]) -> str:
    """Bars from the event-driven to the dense energy on a logarithmic axis."""
    pairs = [(row["event_joules_per_step"], row["dense_joules_per_step"]) for row in rows]
    known = [value for pair in pairs for value in pair if value]
    if not known:
        return ""
    low = math.floor(math.log10(min(known)))
    high = max(math.ceil(math.log10(max(known))), low + 1)

    def at(value: float) -> float:
        return 100.0 * (math.log10(value) - low) / (high - low)

    bars = []
    for row, (event, dense) in zip(rows, pairs, strict=True):
        inner = '<span class="none">no price</span>'
        if event and dense:
            left, right = sorted((at(event), at(dense)))
            saving = tables.factor(row["saving"])
            inner = (
                f'<i class="bar" style="left:{left:.2f}%;width:{right - left:.2f}%"></i>'
                f'<i class="dot event" style="left:{at(event):.2f}%"></i>'
                f'<i class="dot dense" style="left:{at(dense):.2f}%"></i>'
                f'<b style="left:{(left + right) / 2:.2f}%">{saving}</b>'
            )
        bars.append(
            f'<div class="row"><span class="name">{text(row["device"])}</span>'
            f'<span class="track">{inner}</span></div>'
        )
    stride = max(1, math.ceil((high - low) / 4))
    ticks = "".join(
        f'<span style="left:{100.0 * (k - low) / (high - low):.2f}%">{_power(k)}</span>'
        for k in range(low, high + 1, stride)
    )
    return (
        '<figure><div class="bars" aria-hidden="true">'
        f"{''.join(bars)}"
        f'<div class="row axis"><span class="name"></span><span class="track">{ticks}</span></div>'
        "</div><figcaption>Dynamic joules per step on a logarithmic axis: "
        '<i class="dot event"></i> event-driven, <i class="dot dense"></i> dense on the same '
        "device; a bar's length is the saving. The table below has the same figures."
        "</figcaption></figure>"
    )


def _power(exponent: int) -> str:
    return tables.joules(10.0**exponent).replace(".00", "").replace("0.0 ", "0 ")


def _sources(rows: Sequence[Row], estimates: Mapping[str, EnergyEstimate]) -> str:
    """List the prices behind the estimates; only profiles that ship are looked up, by name."""
    parts = []
    titles = ("price of", "figure", "basis", "includes", "source")
    head = "".join(f'<th scope="col">{title}</th>' for title in titles)
    for row in rows:
        device = str(row["device"])
        if device not in estimates:
            parts.append(
                f"<details><summary>{text(device)}</summary><p>Not priced with a profile of this "
                "version of eventsim: its own file names its sources.</p></details>"
            )
            continue
        profile = load_profile(device)
        lines = "".join(
            f'<tr><th scope="row">{html.escape(LABELS[key])}</th><td>{html.escape(p.quoted)}</td>'
            f"<td>{html.escape(p.basis)}</td><td>{html.escape(p.includes or p.note)}</td>"
            f"<td>{html.escape(p.source)}</td></tr>"
            for key, p in profile.prices.items()
            if p.quoted or p.included_in is not None or p.note
        )
        inner = _scrolling(
            f"Prices of {device}",
            f"<table><caption>{text(profile.title)}, {text(profile.process)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>",
        )
        moves = "".join(f"<p>{text(one.sentence)}</p>" for one in estimates[device].sensitivity[:1])
        parts.append(f"<details><summary>{text(device)}</summary>{moves}{inner}</details>")
    return f'<div class="sources"><h3>Prices and sources</h3>{"".join(parts)}</div>'


def _sortable(
    caption: str,
    first: str,
    first_key: str,
    columns: Sequence[_Column],
    rows: Sequence[Row],
    total: Row | None,
    ident: str,
) -> str:
    head = _head(first, "")
    head += "".join(_head(column.heading, column.about) for column in columns)

    def line(row: Row) -> str:
        name = str(row[first_key])
        cells = "".join(_cell(row[column.key], column.write) for column in columns)
        key = html.escape(name)
        return f'<tr><th scope="row" data-v="{key}">{text(name)}</th>{cells}</tr>'

    body = "".join(line(row) for row in rows)
    foot = "" if total is None else f"<tfoot>{line(total)}</tfoot>"
    return _scrolling(
        caption,
        f'<table class="sortable" id="{ident}"><caption>{html.escape(caption)}'
        '<span class="hint"> (a heading sorts)</span></caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table>",
    )


def _head(heading: str, about: str) -> str:
    title = f' title="{html.escape(about)}"' if about else ""
    return (
        f'<th scope="col" aria-sort="none"{title}><button type="button">{html.escape(heading)}'
        '<span class="arrow" aria-hidden="true"></span></button></th>'
    )


def _cell(value: Any, write: Callable[[Any], str]) -> str:
    first = value[0] if isinstance(value, tuple) else value
    key = "" if first is None else html.escape(str(first))
    return f'<td data-v="{key}">{html.escape(write(value))}</td>'


def _scrolling(name: str, inner: str) -> str:
    """Wrap what may be wider than a phone, so that it scrolls by finger and by keyboard."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(name)}">'
        f"{inner}</div>"
    )


def _percents(interval: Sequence[float]) -> str:
    return f"{tables.percent(interval[0])} to {tables.percent(interval[1])}"


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a + b


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below
