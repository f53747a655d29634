"""The command ``eventsim simulate``: a spiking network, exactly, event by event."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def simulate(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="balanced, or excitatory-inhibitory.")
    ],
    model: Annotated[str, typer.Option("--model", help="lif, qif or eif.")] = "lif",
    neurons: Annotated[int, typer.Option("--neurons", min=2)] = 10_000,
    indegree: Annotated[
        int, typer.Option("--indegree", min=1, help="Synapses into a neuron, on average.")
    ] = 100,
    spikes: Annotated[int, typer.Option("--spikes", min=1, help="When to stop.")] = 100_000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    rate: Annotated[
        float, typer.Option("--rate", metavar="HZ", help="Rate that the drive aims at.")
    ] = 1.0,
    engine: Annotated[str, typer.Option("--engine", help="auto, or an engine's name.")] = "auto",
    device: Annotated[
        list[str] | None,
        typer.Option("--device", metavar="NAME|FILE", help="Energy profile; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the spikes and the raster."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the figures as JSON alone on stdout.")
    ] = False,
) -> None:
    """Simulate a spiking network exactly, event by event, without time steps."""
    from eventsim import console
    from eventsim.analysis.energy import DEFAULT_DEVICES
    from eventsim.simulate import simulate as run

    errors = console.console(stderr=True)
    errors.print("preparing kernels (the first run compiles them)...")
    result = run(
        network,
        model=model,
        neurons=neurons,
        indegree=indegree,
        spikes=spikes,
        seed=seed,
        rate=rate,
        engine=engine,
        devices=tuple(device or DEFAULT_DEVICES),
        out=out,
    )
    _show(errors if json else console.console(), result.data, out)
    if json:
        sys.stdout.write(result.to_json())


def _show(to: Any, data: dict[str, Any], out: Path | None) -> None:
    from eventsim import console, tables

    to.print(
        f"{data['network']}, {data['model']}: {data['neurons']} neurons, {data['indegree']} "
        f"synapses into each, engine {data['engine']}"
    )
    to.print()
    cv = "–" if data["cv"] is None else f"{data['cv']:.3f}"
    rate = "–" if data["rate_hz"] is None else f"{data['rate_hz']:.4g}"
    each = 1e9 * data["wall_seconds"] / max(data["synaptic_events"], 1)
    peak = data["peak_bytes"]
    rows = (
        ("spikes", f"{data['spikes']}"),
        ("synaptic events", f"{data['synaptic_events']}"),
        ("simulated", f"{data['simulated_seconds']:.6g} s"),
        ("rate", f"{rate} spikes a second and neuron"),
        ("CV of the intervals", cv),
        ("built in", f"{data['build_seconds']:.3g} s"),
        ("run in", f"{data['wall_seconds']:.3g} s, {each:.3g} ns a synaptic event"),
        ("memory, at most", "–" if peak is None else f"{peak / 2**20:.0f} MiB"),
    )
    for name, value in rows:
        to.print(f"{name:<20} {value}")
    to.print()
    column = tables.Column

    def joules(key: str) -> Any:
        return lambda row: "–" if row[key] is None else tables.joules(row[key])

    columns = (
        column("device", "device", lambda r: str(r["device"]), left=True),
        column("dynamic", "dynamic", joules("dynamic_joules")),
        column("static", "static", joules("static_joules")),
    )
    notes = ("Of the whole run; devices that update every neuron at every step do so once a ms.",)
    console.show_table(
        to, tables.Table("Energy, estimated", columns, tuple(data["energy"]), notes=notes)
    )
    if out is not None:
        to.print(f"Written to {out}: simulate.json, events/, counters/, raster.png")
