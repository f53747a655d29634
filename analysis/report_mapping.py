"""The section of a report on whether the network would fit on a chip."""

from __future__ import annotations

import html
from collections.abc import Mapping as MappingType
from typing import Any

from eventsim import tables
from eventsim.analysis.mapping import Mapping, Traffic, list_chips, map_network
from eventsim.analysis.report_data import RunView

# Neurons are placed one by one: beyond this a report would take minutes.
_LARGEST = 20_000_000

_HEADINGS = (
    "chip",
    "fits",
    "cores",
    "of the chip",
    "neurons per core",
    "memory",
    "events across cores",
    "busiest core",
)


def mapping(run: RunView) -> str | None:
    """Return the table of chips; None if the network of the run is not at hand."""
    network = run.network
    if network is None:
        return None
    if network.n_synapses > _LARGEST:
        return (
            f"<p>Left out: {tables.number(network.n_synapses)} synapses take minutes to lay out; "
            "eventsim.analysis.mapping.map_network does it.</p>"
        )
    rows, notes, sources = [], [], []
    for chip in list_chips():
        placed = map_network(network, chip)
        traffic = None
        if run.events is not None and run.n_shown_steps:
            traffic = placed.traffic(run.events, steps=run.n_shown_steps)
        rows.append(_row(placed, traffic))
        notes += [f"{placed.chip.title}: {text}" for text in placed.problems]
        notes += [f"{placed.chip.title}: {text}" for text in placed.chip.assumptions]
        sources += [f"{placed.chip.title}: {text}" for text in placed.chip.sources]
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEADINGS)
    body = "".join(rows)
    if run.events is not None and run.n_shown_steps < run.steps:
        notes.append(f"the traffic is that of the first {tables.number(run.n_shown_steps)} steps")
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    cited = "".join(f"<li>{html.escape(source)}</li>" for source in sources)
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Mapping">'
        "<table><caption>Layers laid in order onto the cores of a chip</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        "<p>Neurons per core and memory: the mean of the cores in use, as a share of the limit. "
        "Events across cores: the share of deliveries from neurons of the chip that go to another "
        "core. Busiest core: its mean synaptic operations per step.</p>"
        f'<ul class="notes">{listed}</ul>'
        f"<details><summary>Sources of the limits</summary><ul>{cited}</ul></details>"
    )


def _row(placed: Mapping, traffic: Traffic | None) -> str:
    used: MappingType[str, Any] = placed.utilisation
    busiest = None
    if traffic is not None and traffic.busiest_synops.size:
        busiest = float(traffic.busiest_synops.mean())
    cells = (
        "yes" if placed.fits else "no",
        tables.number(placed.cores_used),
        tables.percent(used["cores"]),
        tables.percent(used["neurons"]),
        tables.percent(used["memory"]),
        tables.percent(None if traffic is None else traffic.crossing_share),
        tables.number(busiest),
    )
    title = html.escape(placed.chip.title)
    return f'<tr><th scope="row">{title}</th>{"".join(f"<td>{c}</td>" for c in cells)}</tr>'
