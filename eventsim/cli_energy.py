"""The command ``eventsim energy``: price the counts of a finished run on any device.

As in `eventsim.cli`, everything heavy is imported inside the command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventsim.errors import FileFormatError, InputError, UnknownNameError

if TYPE_CHECKING:
    from eventsim.analysis.energy import EnergyEstimate
    from eventsim.tables import Table


def energy(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or its run.json.")],
    device: Annotated[
        list[str] | None,
        typer.Option("--device", metavar="NAME|FILE", help="Energy profile; may be repeated."),
    ] = None,
    all_devices: Annotated[
        bool, typer.Option("--all", help="Every profile that ships with eventsim.")
    ] = False,
    step_seconds: Annotated[
        float | None,
        typer.Option("--step-seconds", metavar="S", help="Duration of a step; default the run's."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the estimates as JSON.")] = False,
) -> None:
    """Estimate the energy of a run on other devices, with ranges, sensitivity and sources."""
    from eventsim import console, tables
    from eventsim.analysis.energy import DEFAULT_DEVICES, estimate_run, list_profiles

    if device and all_devices:
        raise InputError("give --device or --all, not both")
    data, remarks = _read(run)
    names = device or (list_profiles() if all_devices else DEFAULT_DEVICES)
    estimates = [estimate_run(data, name, step_seconds=step_seconds) for name in names]
    if json:
        sys.stdout.write(_json([_plain(estimate) for estimate in estimates]))
        return
    to = console.console()
    to.print(tables.heading(data))
    for remark in remarks:
        to.print(f"note: {remark}")
    to.print()
    rows = [_plain(estimate) for estimate in estimates]
    console.show_table(to, tables.energy_table({"energy": rows}))
    console.show_table(to, _ranges(rows))
    _list(to, "What moves the result most", _moves(estimates))
    sources = {text: None for estimate in estimates for text in estimate.sources}
    _list(to, "Sources", list(sources))


def _read(run: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Figures of a run, and what has to be said about them."""
    from eventsim.analysis.figures import run_data
    from eventsim.records import Trace
    from eventsim.run_json import read_json

    if run.is_dir() and not (run / "run.json").is_file():
        trace = Trace(run)
        return run_data(trace), trace.notes
    path = run / "run.json" if run.is_dir() else run
    if not path.is_file():
        raise UnknownNameError(
            f"there is no run at '{path}'; give the folder that 'eventsim run --out' wrote"
        )
    data = read_json(path)
    if "layers" not in data:
        raise FileFormatError("is not a run.json: it has no layers", where=str(path))
    return data, ()


def _plain(estimate: EnergyEstimate) -> dict[str, Any]:
    """The entry of run.json, and what only this command shows."""
    return {
        **estimate.to_dict(),
        "dense_joules_range": estimate.dense_joules_range,
        "event_joules_range": estimate.event_joules_range,
        "parts": dict(estimate.parts),
        "sensitivity": [
            {
                "price": s.price,
                "share": s.share,
                "low_joules": s.low_joules,
                "high_joules": s.high_joules,
            }
            for s in estimate.sensitivity
        ],
        "sources": list(estimate.sources),
    }


def _json(data: Any) -> str:
    import json

    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _ranges(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Ranges by the published ranges of prices; a table of its own, so that it fits 80 columns."""
    from eventsim import tables

    def ends(key: str) -> Any:
        def cell(row: Mapping[str, Any]) -> str:
            found = row[key]
            return "–" if found is None else " to ".join(map(tables.joules, found))

        return cell

    shown = tuple(row for row in rows if row["dense_joules_range"] or row["event_joules_range"])
    column = tables.Column
    columns = (
        column("device", "device", lambda r: str(r["device"]), left=True),
        column("dense", "dense", ends("dense_joules_range")),
        column("event-driven", "by events", ends("event_joules_range")),
    )
    notes = () if shown else ("None of these devices has a price with a published range.",)
    return tables.Table("Range, by the published ranges of the prices", columns, shown, notes=notes)


def _moves(estimates: Sequence[EnergyEstimate]) -> list[str]:
    """One line a device."""
    lines = []
    for estimate in estimates:
        text = estimate.sensitivity[0].sentence if estimate.sensitivity else "no priced work"
        lines.append(f"{estimate.device}: {text}")
    return lines


def _list(to: Any, title: str, lines: Sequence[str]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    to.print(Text(title, style="bold"))
    for line in lines:
        to.print(Padding(Text(line), (0, 0, 0, 1)))
    to.print()
