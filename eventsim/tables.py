"""The tables of a run as text and as HTML, built from the plain data of its run.json."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Data: TypeAlias = Mapping[str, Any]
_PREFIXES = ("", "m", "µ", "n", "p", "f", "a", "z", "y")
_ABSENT = "–"

#: Characters from which on headings are written out.
WIDE = 110


@dataclass(frozen=True)
class Column:
    """A column: its heading, broken into lines where it is too long, and how cells are written."""

    heading: str
    short: str
    cell: Callable[[Data], str]
    left: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under columns, with notes below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Data, ...]
    last_is_total: bool = False
    notes: tuple[str, ...] = ()

    def cells(self) -> list[list[str]]:
        """Text of the cells, row by row."""
        return [[column.cell(row) for column in self.columns] for row in self.rows]

    def to_rich(self, width: int) -> RichTable:
        """Return title and cells for a terminal of `width` characters; notes are not in it."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(self.title, style="bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for column in self.columns:
            heading = column.heading if width >= WIDE else column.short
            table.add_column(
                Text(heading),
                justify="left" if column.left else "right",
                # Only names and notes may break over lines where the terminal is narrow.
                no_wrap=not column.left,
                overflow="fold",
                min_width=5 if column.left else None,
            )
        cells = self.cells()
        for k, row in enumerate(cells):
            total = self.last_is_total and k == len(cells) - 1
            before_total = self.last_is_total and k == len(cells) - 2
            table.add_row(
                *map(Text, row), end_section=before_total, style="bold" if total else None
            )
        return table

    def to_html(self) -> str:
        """Return the table as HTML, every text escaped."""
        align = ["left" if column.left else "right" for column in self.columns]
        head = "".join(
            f'<th style="text-align:{a}">{html.escape(c.heading.replace(chr(10), " "))}</th>'
            for a, c in zip(align, self.columns, strict=True)
        )
        body = []
        rows = self.cells()
        for k, row in enumerate(rows):
            bold = self.last_is_total and k == len(rows) - 1
            cells = "".join(
                f'<td style="text-align:{a}">{html.escape(text)}</td>'
                for a, text in zip(align, row, strict=True)
            )
            body.append(
                f'<tr style="font-weight:bold">{cells}</tr>' if bold else f"<tr>{cells}</tr>"
            )
        notes = "".join(f"<div><small>{html.escape(note)}</small></div>" for note in self.notes)
        return (
            f'<table><caption style="text-align:left">{html.escape(self.title)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>{notes}"
        )


def plain_table(
    title: str, headings: Mapping[str, str], rows: Sequence[Data], left: Sequence[str] = ()
) -> Table:
    """Return a table of texts: `headings` name the columns, by the keys of the rows."""

    def column(key: str, heading: str) -> Column:
        return Column(heading, heading, lambda row: str(row[key]), left=key in left)

    return Table(title, tuple(column(*item) for item in headings.items()), tuple(rows))


def number(value: float | None, digits: int = 3) -> str:
    """Write a count or mean with about `digits` significant digits and no exponent if possible."""
    if value is None:
        return _ABSENT
    if not math.isfinite(value):
        return str(value)
    if value == 0.0:
        return "0"
    size = abs(value)
    if size >= 10 ** (digits - 1) or float(value).is_integer():
        return f"{value:.0f}" if size < 1e9 else f"{value:.{digits}g}"
    if size < 1e-3:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{digits - 1 - math.floor(math.log10(size))}f}"


def percent(value: float | None) -> str:
    """Write a share as a percentage."""
    return _ABSENT if value is None else f"{100.0 * value:.1f}%"


def factor(value: float | None) -> str:
    """Write a ratio as a multiple."""
    return _ABSENT if value is None else f"{number(value)}x"


def joules(value: float | None) -> str:
    """Write joules with an SI prefix.

    >>> joules(7.3e-9)
    '7.30 nJ'
    """
    if value is None:
        return _ABSENT
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g} J"
    step = min(max(math.ceil(-math.log10(abs(value)) / 3.0), 0), len(_PREFIXES) - 1)
    scaled = value * 1000.0**step
    # 999.96 would be written 1000: the next larger prefix reads better.
    if abs(scaled) >= 999.5 and step > 0:
        step, scaled = step - 1, scaled / 1000.0
    return f"{number(scaled) if abs(scaled) >= 100 else format(scaled, '#.3g')} {_PREFIXES[step]}J"


def interval(ci95: Sequence[float] | None) -> str:
    """Write a 95 % interval."""
    return _ABSENT if ci95 is None else f"{signed(ci95[0])} to {signed(ci95[1])}"


def signed(value: float | None) -> str:
    """Write a return: one decimal if it is large, three digits if small."""
    if value is None:
        return _ABSENT
    return f"{value:.1f}" if abs(value) >= 10.0 else f"{value:.3g}"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def hide_foreign_macs(rows: Sequence[dict[str, Any]]) -> bool:
    """Set the layers' dense MACs to None where they are a teacher's that has other layers.

    Such a network holds their sum only. No dense layer has fewer MACs than weights, so one that
    seems to has got none of the sum.

    Parameters
    ----------
    rows : sequence of dict
        Layers with ``weights`` and ``dense_macs``.

    Returns
    -------
    bool
        Whether they are.
    """
    foreign = any(row["dense_macs"] < row["weights"] for row in rows)
    if foreign:
        for row in rows:
            row["dense_macs"] = None
    return foreign


def layer_table(data: Data) -> Table:
    """Activity and work per layer and in total."""
    total = data["total"]
    rows = [dict(layer) for layer in data["layers"]]
    elsewhere = hide_foreign_macs(rows)
    for row in rows:
        dense = row["dense_macs"]
        row["reduction"] = None if dense is None else _ratio(dense, row["macs"] + row["acs"])
    rows.append(
        {
            "name": "total",
            **{
                key: sum(r[key] for r in rows)
                for key in ("neurons", "weights", "events", "evaluations")
            },
            "connection_sparsity": total["connection_sparsity"],
            "dense_macs": total["dense_macs"],
            "macs": total["macs"],
            "acs": total["acs"],
            "activity_sparsity": total["activity_sparsity"],
            "reduction": total["reduction"],
        }
    )
    columns = (
        Column("layer", "layer", lambda r: str(r["name"]), left=True),
        Column("neurons", "neu-\nrons", lambda r: str(r["neurons"])),
        Column("weights", "weights", lambda r: str(r["weights"])),
        Column(
            "connection\nsparsity", "conn.\nspars.", lambda r: percent(r["connection_sparsity"])
        ),
        Column("dense\nMACs", "dense\nMACs", lambda r: number(r["dense_macs"])),
        Column("MACs", "MACs", lambda r: number(r["macs"])),
        Column("ACs", "ACs", lambda r: number(r["acs"])),
        Column("events", "events", lambda r: number(r["events"])),
        Column("evaluations", "evals", lambda r: number(r["evaluations"])),
        Column("activity\nsparsity", "activ.\nspars.", lambda r: percent(r["activity_sparsity"])),
        Column("reduction", "reduc-\ntion", lambda r: factor(r["reduction"])),
    )
    notes: tuple[str, ...] = (
        "Reduction: "
        f"{factor(total['reduction_weights_only'])} by pruning alone, "
        f"{factor(total['reduction_at_zero_threshold'])} with unchanged values skipped, "
        f"{factor(total['reduction'])} with thresholds "
        f"({factor(total['reduction_after_first_step'])} after the first step).",
        f"Apart: {number(data['input_comparisons'])} input comparisons and "
        f"{number(data['encoder_ops'])} operations of the encoder.",
    )
    if elsewhere:
        notes += ("Dense MACs are the teacher's, whose layers are others.",)
    return Table("Work per step", columns, tuple(rows), last_is_total=True, notes=notes)


def return_table(data: Data) -> Table:
    """Returns of the event-driven, dense and random policies."""
    named = (
        ("event-driven", data["return"]),
        ("dense", data["dense_return"]),
        ("random", data.get("random_return")),
    )
    rows = [{"name": name, **values} for name, values in named if values is not None]
    columns = (
        Column("policy", "policy", lambda r: str(r["name"]), left=True),
        Column("return", "return", lambda r: signed(r["mean"])),
        Column("95 % interval", "95 % interval", lambda r: interval(r["ci95"])),
        Column("std", "std", lambda r: signed(r["std"])),
        Column("episodes", "episodes", lambda r: str(len(r["per_episode"]))),
    )
    loss = data["relative_loss"]
    notes: tuple[str, ...] = ()
    if loss is not None:
        ci = loss["ci95"]
        spread = "" if ci is None else f" (95 % interval {percent(ci[0])} to {percent(ci[1])})"
        notes = (f"Relative loss {percent(loss['mean'])}{spread}; positive is worse than dense.",)
    elif data["dense_return"] is not None:
        notes = ("No relative loss: the dense policy is not better than random actions.",)
    return Table("Return per episode", columns, tuple(rows), notes=notes)


def energy_table(data: Data) -> Table:
    """Joules per step on each device; numbers refer to assumptions, letters to what is left out."""
    assumed: list[str] = []
    unpriced: list[str] = []

    def marks(row: Data) -> str:
        numbers = [str(_place(assumed, text) + 1) for text in row["assumed"]]
        # What is left out has the same few names on all devices; run.json also says why.
        left_out = {text.partition(":")[0].partition(" (")[0] for text in row["unpriced"]}
        letters = sorted(chr(ord("a") + _place(unpriced, text)) for text in sorted(left_out))
        return " ".join([*numbers, *letters])

    columns = (
        Column("device", "device", lambda r: str(r["device"]), left=True),
        Column("dense", "dense", lambda r: joules(r["dense_joules_per_step"])),
        Column("event-driven", "by events", lambda r: joules(r["event_joules_per_step"])),
        Column(
            "saving",
            "saving",
            lambda r: factor(_ratio(r["dense_joules_per_step"], r["event_joules_per_step"])),
        ),
        Column("static", "static", lambda r: joules(r["static_joules_per_step"])),
        Column("notes", "notes", lambda r: str(r["marks"]), left=True),
    )
    rows = tuple({**row, "marks": marks(row)} for row in data["energy"])
    notes = [f"{k + 1} assumed: {text}" for k, text in enumerate(assumed)]
    if unpriced:
        named = (f"{chr(ord('a') + k)} {text}" for k, text in enumerate(unpriced))
        notes.append(f"Not priced: {', '.join(named)}.")
    return Table("Energy per step, dynamic and static apart", columns, rows, notes=tuple(notes))


def all_tables(data: Data) -> tuple[Table, ...]:
    """Every table of a run, in the order in which they are shown."""
    tables: Iterable[Table] = (layer_table(data), return_table(data), energy_table(data))
    return tuple(table for table in tables if table.rows)


def heading(data: Data) -> str:
    """Say in one line what was run."""
    text = (
        f"{data['policy']} in {data['env']}: {plural(data['episodes'], 'episode')}, "
        f"{plural(data['steps'], 'step')}, seed {data['seed']}"
    )
    return f"{text} (interrupted)" if data["interrupted"] else text


def _place(found: list[str], text: str) -> int:
    """Index of a text in the list, where it is put if it is not yet there."""
    if text not in found:
        found.append(text)
    return found.index(text)


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below
