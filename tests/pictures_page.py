"""Make the tables of docs/convolution.md about optimised teachers from committed measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.markdown import number, table
from tests.pictures_table import RESULTS


def measured(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All outcomes: Atari first, then MinAtar, by game and limit."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(
        found,
        key=lambda one: (
            not one["teacher"]["env_id"].startswith("ALE"),
            one["teacher"]["game"],
            one["max_loss"],
        ),
    )


def text(found: list[dict[str, Any]]) -> str:
    """Teachers, what they became, and where the work is left."""
    teachers = {one["teacher"]["env_id"]: one for one in found}
    parts = [
        table(
            ["environment", "teacher trained by", "return (95 % interval)",
             "without sticky actions", "of people's", "dense MACs"],
            [_teacher(one) for one in teachers.values()],
        ),
        "\nOptimised (`python -m tests.pictures_table`; loss as a share of the distance from "
        "random play: mean, and one-sided 95 % bound):\n\n",
        table(
            ["environment", "limit", "MACs a step", "reduction", "shrink x prune x events",
             "return (95 % interval)", "loss, bound", "holds", "worst episode", "episodes",
             "smallest dense student", "gain over it", "file"],
            [_outcome(one) for one in found],
        ),
        "\nWhere the work is left, in MACs a step; in brackets the reduction against the teacher's "
        "layer in the same place, where there is one:\n\n",
        table(
            ["environment", "limit", "layers, from the first one on"],
            [_layers(one) for one in found],
        ),
    ]  # fmt: skip
    return "".join(parts)


def _interval(values: dict[str, Any]) -> str:
    mean = f"{values['mean']:.4g}"
    if values["ci95"] is None:
        return mean
    low, high = values["ci95"]
    return f"{mean} ({low:.4g} to {high:.4g})"


def _teacher(one: dict[str, Any]) -> list[str]:
    facts = one["teacher"]
    how = f"{facts['steps']:,} steps of PPO"
    if facts.get("imitation_steps"):
        how = f"{facts['imitation_steps']:,} steps of imitation, {how}"
    still = facts.get("not_sticky")
    return [
        facts["env_id"],
        f"{how}, {facts['seconds'] / 60:.0f} min",
        f"{_interval(facts['sticky'])}, {facts['sticky']['episodes']} episodes",
        "–" if still is None else _interval(still),
        "–" if still is None else f"{100 * facts['sticky']['human_normalised']:.0f}%",
        f"{one['outcome']['dense_macs']:,}",
    ]


def _outcome(one: dict[str, Any]) -> list[str]:
    data = one["outcome"]
    small, loss, factors = data["small_dense"], data["relative_loss"], data["factors"]
    return [
        one["teacher"]["env_id"],
        f"{100 * one['max_loss']:g}%",
        number(data["macs"] + data["acs"]),
        number(data["reduction"], "x"),
        " x ".join(number(factors[key]) for key in ("shrink", "prune", "events")),
        f"{_interval(one['returns'])}, {one['returns']['episodes']} episodes",
        f"{100 * loss['mean']:.2f}%, {100 * loss['upper95']:.2f}%",
        "yes" if data["promise_holds"] else "no",
        f"{100 * loss['worst_episode']:.0f}%",
        str(data["episodes"]),
        "–" if small is None else f"{small['macs']:,}",
        number(data["gain_over_small_dense"], "x"),
        f"{one['file_bytes'] / 1e3:,.0f} kB",
    ]


def _layers(one: dict[str, Any]) -> list[str]:
    layers = [
        f"{layer['name']} {number(layer['synops'])}"
        + (f" ({number(layer['reduction'], 'x')})" if layer["reduction"] else "")
        for layer in one["layers"]
    ]
    return [one["teacher"]["env_id"], f"{100 * one['max_loss']:g}%", ", ".join(layers)]
