"""What an optimisation found: JSON, the final table, and the front as CSV and PNG."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventsim import tables
from eventsim.output import write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eventsim.models.policy import Policy

SCHEMA = "eventsim-optimize/1"

# Told apart by shape as well as by shade, for a print in grey.
_MARKS: dict[str, dict[str, Any]] = {
    "candidate": {"marker": "o", "color": "0.65", "markersize": 4},
    "teacher": {"marker": "s", "color": "black", "markersize": 8},
    "small dense": {"marker": "^", "color": "tab:blue", "markersize": 8},
    "chosen": {"marker": "*", "color": "tab:red", "markersize": 14},
}

#: Columns of the front's CSV file.
FRONT_COLUMNS = (
    "kind",
    "made",
    "shape",
    "macs",
    "acs",
    "return",
    "relative_loss",
    "episodes",
    "verdict",
    "on_front",
    "chosen",
)


@dataclass(frozen=True)
class Point:
    """A policy as a point of multiplications per step against return.

    Attributes
    ----------
    kind : {"teacher", "small dense", "candidate"}
    made : str
        How: dense, pruned or events.
    shape : tuple of int
        Neurons of each layer, before anything was pruned.
    macs, acs : float
        Synaptic operations per step; of dense policies all their weights.
    mean_return : float
    relative_loss : float
    episodes : int
        Of which return and loss are means; 0 for what the search said of a candidate itself.
    verdict : str
        Of the trial on the validation seeds; empty where there was none.
    on_front : bool
        Whether no other candidate is cheaper and loses less.
    chosen : bool
    """

    kind: str
    made: str
    shape: tuple[int, ...]
    macs: float
    acs: float
    mean_return: float
    relative_loss: float
    episodes: int = 0
    verdict: str = ""
    on_front: bool = False
    chosen: bool = False

    def to_row(self) -> dict[str, Any]:
        """Return the row of the CSV file."""
        values = (
            self.kind,
            self.made,
            "-".join(map(str, self.shape)),
            self.macs,
            self.acs,
            self.mean_return,
            self.relative_loss,
            self.episodes,
            self.verdict,
            int(self.on_front),
            int(self.chosen),
        )
        return dict(zip(FRONT_COLUMNS, values, strict=True))


@dataclass(frozen=True, eq=False)
class Outcome:
    """An optimised policy and what is known of it.

    Attributes
    ----------
    data : dict
        As `to_dict` returns it: schema ``eventsim-optimize/1``, see docs/optimize.md.
    policy : Policy
        The chosen one.
    max_loss : float
        Largest loss that was allowed.
    advantage : float
        What the teacher's mean return is above that of random actions.
    front : tuple of Point
        Teacher, smallest dense student and all candidates.
    files : tuple of Path
        What was written.
    notes : tuple of str
        Sentences on what the figures depend on.
    """

    data: dict[str, Any] = field(repr=False)
    policy: Policy = field(repr=False)
    max_loss: float
    advantage: float
    front: tuple[Point, ...] = field(repr=False)
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        loss = self.data["relative_loss"]
        return (
            f"<Outcome: {self.data['env']}, reduction {tables.factor(self.data['reduction'])}, "
            f"loss at most {tables.percent(loss['upper95'])}>"
        )

    @property
    def promise_holds(self) -> bool:
        """Whether the bound from fresh episodes is within the largest loss that was allowed."""
        return bool(self.data["promise_holds"])

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain data (schema ``eventsim-optimize/1``)."""
        copy: dict[str, Any] = json.loads(self.to_json())
        return copy

    def to_json(self) -> str:
        """Return the outcome as JSON."""
        return json.dumps(self.data, indent=2, allow_nan=False, ensure_ascii=True) + "\n"

    def table(self) -> tables.Table:
        """Return the table of the teacher, the smallest dense student and the chosen policy."""
        data = self.data
        small = data["small_dense"]
        synapses = round(_synapses(data), 6)
        rows: list[dict[str, Any]] = [
            {"name": "teacher, dense", "macs": data["dense_macs"], "reduction": 1.0, "loss": 0.0}
        ]
        if small is not None:
            rows.append(
                {
                    "name": f"smallest dense, {'-'.join(map(str, small['shape']))}",
                    "macs": small["macs"],
                    "reduction": data["dense_macs"] / small["macs"],
                    "loss": small["relative_loss"],
                }
            )
        rows.append(
            {
                "name": "pruned",
                "macs": synapses,
                "reduction": data["dense_macs"] / synapses if synapses else None,
                "loss": None,
            }
        )
        rows.append(
            {
                "name": "pruned + events",
                "macs": data["macs"] + data["acs"],
                "reduction": data["reduction"],
                "loss": data["relative_loss"]["mean"],
            }
        )
        column = tables.Column
        columns = (
            column("policy", "policy", lambda r: str(r["name"]), left=True),
            column("multiplications a step", "MACs\na step", lambda r: tables.number(r["macs"])),
            column("reduction", "reduc-\ntion", lambda r: tables.factor(r["reduction"])),
            column("relative loss", "loss", lambda r: tables.percent(r["loss"])),
        )
        return tables.Table(
            f"{data['env']}: what is left of the work",
            columns,
            tuple(rows),
            last_is_total=True,
            notes=(*self._summary(), *self.notes),
        )

    def _summary(self) -> list[str]:
        data, factors, loss = self.data, self.data["factors"], self.data["relative_loss"]
        split = " x ".join(
            f"{tables.number(factors[name])} ({text})"
            for name, text in (
                ("shrink", "smaller network"),
                ("prune", "pruned"),
                ("events", "events"),
            )
        )
        lines = [f"Reduction against the teacher: {tables.factor(data['reduction'])} = {split}."]
        if data["gain_over_small_dense"] is not None:
            lines.append(
                "Against the smallest dense network that holds the return: "
                f"{tables.factor(data['gain_over_small_dense'])}."
            )
        holds = "the promise holds" if data["promise_holds"] else "the promise does NOT hold"
        lines.append(
            f"Over {data['episodes']} episodes that no stage had seen the loss is "
            f"{tables.percent(loss['mean'])}, with 95 % confidence at most "
            f"{_fine(loss['upper95'])}; {holds}. The worst episode lost "
            f"{tables.percent(loss['worst_episode'])}."
        )
        return lines

    def write_front(self, path: Path) -> None:
        """Write the front as CSV."""
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, FRONT_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(point.to_row() for point in self.front)

    def write_picture(self, path: Path) -> None:
        """Draw the front into a PNG file."""
        from matplotlib.figure import Figure

        figure = self.front_axes().figure
        if isinstance(figure, Figure):
            figure.savefig(path, dpi=150, format="png")

    def front_axes(self, ax: Axes | None = None) -> Axes:
        """Draw multiplications per step against return.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Default: axes of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(7.2, 4.6), layout="constrained").add_subplot()
        data = self.data
        smallest = min((p.macs + p.acs for p in self.front if p.macs + p.acs > 0.0), default=1.0)

        def place(points: Sequence[Point]) -> tuple[list[float], list[float]]:
            # A policy without a single multiplication stands at the left edge.
            x = [max(p.macs + p.acs, 0.5 * smallest) for p in points]
            return x, [p.mean_return for p in points]

        kinds = {kind: [p for p in self.front if p.kind == kind] for kind in _MARKS}
        kinds["chosen"] = [p for p in self.front if p.chosen]
        on_front = sorted(
            (p for p in kinds["candidate"] if p.on_front), key=lambda p: p.macs + p.acs
        )
        ax.plot(
            *place(on_front),
            color="0.35",
            linewidth=1.0,
            zorder=1,
            label="Pareto front",
            drawstyle="steps-post",
        )
        for kind, points in kinds.items():
            if points:
                ax.plot(*place(points), linestyle="none", zorder=3, label=kind, **_MARKS[kind])
        teacher = kinds["teacher"][0].mean_return
        limit = teacher - self.max_loss * self.advantage
        ax.axhline(teacher, color="0.6", linewidth=0.8, zorder=0)
        ax.axhline(
            limit,
            color="0.2",
            linewidth=0.9,
            linestyle="--",
            zorder=0,
            label=f"loss of {_fine(self.max_loss)}",
        )
        # Collapsed candidates would squeeze the rest into a line: the view is what matters.
        seen = [p.mean_return for p in self.front if p.relative_loss <= 0.25]
        low, high = min([limit, *seen]), max([teacher, *seen])
        margin = 0.08 * max(high - low, 1e-9)
        ax.set_ylim(low - margin, high + margin)
        hidden = sum(p.mean_return < low for p in self.front)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.set_xlabel("multiplications per step")
        ax.set_ylabel("mean return")
        more = f" ({tables.plural(hidden, 'candidate')} below the axis)" if hidden else ""
        ax.set_title(f"{data['env']}: work against return{more}", fontsize=10)
        ax.grid(True, which="major", color="0.9", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.legend(fontsize=8, loc="best")
        return ax


def mark_front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the points, those candidates marked than which none is cheaper and loses less."""
    marked = []
    for p in points:
        beaten = any(
            (q.macs + q.acs <= p.macs + p.acs and q.relative_loss <= p.relative_loss)
            and (q.macs + q.acs, q.relative_loss) != (p.macs + p.acs, p.relative_loss)
            for q in points
            if q.kind == "candidate"
        )
        marked.append(replace(p, on_front=p.kind == "candidate" and not beaten))
    return tuple(marked)


def save(outcome: Outcome, out: str | os.PathLike[str]) -> Outcome:
    """Write the policy, and beside it the front and the outcome.

    For ``pole.safetensors`` these are ``pole.front.csv``, ``pole.front.png`` and
    ``pole.optimize.json``.

    Returns
    -------
    Outcome
        With its `files`.

    Raises
    ------
    OutputError
        If one cannot be written.
    """
    target = Path(out)
    table, picture, figures = (
        target.with_name(f"{target.stem}.{end}")
        for end in ("front.csv", "front.png", "optimize.json")
    )
    write_atomically(table, outcome.write_front)
    write_atomically(picture, outcome.write_picture)
    outcome.policy.save(target)
    write_atomically(figures, lambda path: write_text(path, outcome.to_json()))
    return replace(outcome, files=(target, table, picture, figures))


def _fine(share: float) -> str:
    """Write a small share as a percentage of two significant digits or more."""
    return f"{100.0 * share:.3g}%"


def _synapses(data: dict[str, Any]) -> float:
    """Surviving synapses, from the factors: shrunk and pruned, without events."""
    factors = data["factors"]
    if factors["prune"] is None:
        return 0.0
    return float(data["dense_macs"] / (factors["shrink"] * factors["prune"]))
