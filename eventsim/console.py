"""What the command line shows: tables, notes and first-run messages, drawn with rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventsim import tables
from eventsim.result import FILES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable

    from eventsim.api import ZooEntry
    from eventsim.models.policy import Policy
    from eventsim.result import Run


def console(stderr: bool = False) -> Console:
    """Return a console that leaves numbers and paths as they are."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, emoji=False, markup=False)


def show_table(to: Console, table: tables.Table) -> None:
    """Print a table and its notes."""
    from rich.padding import Padding
    from rich.text import Text

    to.print(table.to_rich(to.width))
    for note in table.notes:
        to.print(Padding(Text(note, style="dim"), (0, 0, 0, 1)))
    to.print()


def show_run(to: Console, run: Run, folder: Path | None) -> None:
    """Print what a run found, and where its files went."""
    from rich.text import Text

    data = run.data
    to.print(Text(tables.heading(data), style="bold"))
    to.print()
    for table in tables.all_tables(data):
        show_table(to, table)
    if folder is None:
        to.print(Text("Nothing was written; --out DIR keeps the figures, events and raster."))
    else:
        written = [name for name in FILES if (folder / name).is_file()]
        to.print(Text(f"Written to {folder}: {', '.join(written)}"))


def show_policy(to: Console, policy: Policy, name: str) -> None:
    """Print what a policy is made of."""
    from rich.text import Text

    network = policy.network
    rows: list[dict[str, Any]] = []
    for population in network.populations:
        incoming = network.incoming(population.name)
        weights = sum(p.weights.n_positions for p in incoming)
        synapses = sum(p.weights.n_synapses for p in incoming)
        threshold = population.parameter("threshold")
        activation = getattr(population.neuron, "activation", None)
        rows.append(
            {
                "name": population.name,
                "neurons": population.size,
                "activation": "" if activation is None else activation.name,
                "weights": weights,
                "sparsity": (weights - synapses) / weights if weights else None,
                "dense_macs": network.dense_macs(population.name),
                "low": float(threshold.min()),
                "high": float(threshold.max()),
            }
        )
    if len(rows) > 1:
        weights, synapses = sum(r["weights"] for r in rows), network.n_synapses
        total = {key: sum(r[key] for r in rows) for key in ("neurons", "weights", "dense_macs")}
        tables.hide_foreign_macs(rows)
        share = (weights - synapses) / weights if weights else None
        rows.append({"name": "total", "activation": "", "sparsity": share, "low": None, **total})
    column = tables.Column
    columns = (
        column("layer", "layer", lambda r: str(r["name"]), left=True),
        column("neurons", "neurons", lambda r: str(r["neurons"])),
        column("activation", "activation", lambda r: str(r["activation"]), left=True),
        column("weights", "weights", lambda r: str(r["weights"])),
        column("connection\nsparsity", "conn.\nspars.", lambda r: tables.percent(r["sparsity"])),
        column("dense\nMACs", "dense\nMACs", lambda r: tables.number(r["dense_macs"])),
        column("threshold", "threshold", _threshold),
    )
    to.print(Text(name, style="bold"))
    to.print()
    show_table(to, tables.Table("Network", columns, tuple(rows), last_is_total=len(rows) > 1))
    from eventsim.engines import choose

    engine, reason = choose(policy.network)
    lines = {
        "environment": policy.env_id or "not stated",
        "engine": f"{engine.name}: {reason}",
        "encoder": _encoder(policy),
        "decoder": _plain(policy.decoder.to_dict()),
        **_provenance(policy),
    }
    width = max(map(len, lines))
    for key, value in lines.items():
        to.print(_hanging(key, value, width))


def show_zoo(to: Console, entries: Sequence[ZooEntry]) -> None:
    """Print the policies that ship with eventsim."""
    column = tables.Column
    columns = (
        column("policy", "policy", lambda r: str(r["name"]), left=True),
        column("environment", "environment", lambda r: str(r["env"]), left=True),
        column("return", "return", lambda r: str(r["return"])),
        column("reduction", "reduction", lambda r: tables.factor(r["reduction"])),
        column("kB", "kB", lambda r: f"{r['size'] / 1000:.0f}"),
    )
    rows = []
    for entry in entries:
        found = entry.metadata.get("returns") or {}
        std = found.get("std", found.get("sd"))
        text = tables.signed(found.get("mean"))
        rows.append(
            {
                "name": entry.name,
                "env": entry.env or "not stated",
                "return": text if std is None else f"{text} ± {std:.3g}",
                "reduction": entry.metadata.get("reduction"),
                "size": entry.size,
            }
        )
    notes = (
        "Return: mean ± standard deviation. NAME-dense is the teacher of NAME; eventsim run NAME "
        "runs one.",
    )
    show_table(
        to, tables.Table("Policies that ship with eventsim", columns, tuple(rows), notes=notes)
    )


def kernels_are_cached() -> bool:
    """Whether an engine's kernels have been compiled since their source last changed."""
    from eventsim.kernels import delta

    stats = getattr(delta.run, "stats", None)
    if stats is None:  # NUMBA_DISABLE_JIT: there is nothing to compile
        return True
    cache = Path(stats.cache_path)
    return any(
        index.stat().st_mtime >= source.stat().st_mtime
        for source in Path(delta.__file__).parent.glob("*.py")
        for index in cache.glob(f"{source.stem}.*.nbi")
    )


def _threshold(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return ""
    low, high = tables.number(row["low"]), tables.number(row["high"])
    return low if low == high else f"{low} to {high}"


def _encoder(policy: Policy) -> str:
    data = policy.encoder.to_dict()
    text = _plain(data["space"])
    if data["normalized"]:
        text += ", normalised"
    time = data["time_feature"]
    return text if time is None else f"{text}, time feature of {time['max_steps']} steps"


def _provenance(policy: Policy) -> dict[str, str]:
    """What the metadata say, line by line."""
    shown_elsewhere = ("name", "env_id", "layers", "teacher_dense_macs")
    lines: dict[str, str] = {}
    for key, value in policy.metadata.items():
        if key in shown_elsewhere or value in (None, [], {}):
            continue
        inner = value if isinstance(value, Mapping) else {"": value}
        for name, entry in inner.items():
            if entry is not None:
                label = key.replace("defaults_taken", "default")
                lines[f"{label} {name}".strip().replace("_", " ")] = _plain(entry)
    return lines


def _plain(value: Any) -> str:
    """Write plain data in words; what is unset or False is left out."""
    if isinstance(value, Mapping):
        kind = str(value.get("kind", "")).replace("_", " ")
        parts = [
            f"{k} {_plain(v)}" for k, v in value.items() if v not in (None, False) and k != "kind"
        ]
        text = ", ".join(parts)
        return f"{kind} ({text})" if kind and text else kind or text
    if isinstance(value, list) and any(isinstance(v, str) for v in value):
        return "; ".join(map(_plain, value))
    return str(value)


def _hanging(key: str, value: str, width: int) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=width, style="bold")
    grid.add_column(overflow="fold")
    grid.add_row(Text(key), Text(value))
    return grid
