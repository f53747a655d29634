"""Tables and numbers as the generated pages write them."""

from __future__ import annotations


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def number(value: float | None, suffix: str = "") -> str:
    """Write a number with three digits, or whole from 100 on; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}{suffix}" if value >= 100 else f"{value:.3g}{suffix}"
