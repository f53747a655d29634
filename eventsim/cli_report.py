"""The commands ``eventsim report`` and ``eventsim export``, which import their work late."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eventsim.errors import InputError

if TYPE_CHECKING:
    from eventsim.network import Network
    from eventsim.records import Trace

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run: the DIR of run --out.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(report)
    app.command()(export)


def report(
    run: RunArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="RUN2", help="A second run, shown beside it.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="NAME|FILE",
            help="Policy of the run, for the mapping onto chips, where its folder does not hold "
            "the network; repeat it for the second run.",
        ),
    ] = None,
    max_events: Annotated[
        int,
        typer.Option("--max-events", metavar="N", min=0, help="Events the raster holds at most."),
    ] = 2_000_000,
) -> None:
    """Make one HTML page of a run, or of two side by side."""
    from eventsim.analysis.report import report as make
    from eventsim.records import Trace

    runs = [run] if second is None else [run, second]
    traces = [Trace(folder) for folder in runs]
    named = policy or []
    if len(named) > len(runs):
        raise InputError(f"--policy is given {len(named)} times for {len(runs)} runs")
    networks = [
        _network(trace, named[k] if k < len(named) else None) for k, trace in enumerate(traces)
    ]
    page = make(*traces, out=out, networks=networks, max_events=max_events)
    typer.echo(f"Written to {out} ({len(page.encode()) / 1e6:.1f} MB; it needs nothing else)")


def export(
    run: RunArgument,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Chrome trace JSON, for Perfetto.")
    ],
) -> None:
    """Write a run as a timeline that Perfetto opens: a track per layer, steps as slices."""
    from eventsim.analysis.export import to_chrome_trace

    typer.echo(f"Written to {to_chrome_trace(run, out)}; open it at ui.perfetto.dev")


def _network(trace: Trace, named: str | None) -> Network | None:
    """Return the network of a run: as named, or of the zoo if run.json names one that fits.

    A run's own network, if its folder holds it, is found by the report itself.
    """
    from eventsim.analysis.report_data import is_network_of
    from eventsim.models.importers import load_policy, zoo_files
    from eventsim.recording import NETWORK

    data = trace.data
    if named is not None:
        return load_policy(named, env=None if data is None else data["env"]).network
    if data is None or data["policy"].lower() not in zoo_files():
        return None
    if (trace.folder / NETWORK).is_file():
        return None
    network = load_policy(data["policy"]).network
    # The zoo of another version may have another policy of that name.
    return network if is_network_of(network, data) else None
