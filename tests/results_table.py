"""Make docs/results.md, and tables inside other pages, from the committed measurements.

python -m tests.results_table
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from tests import pictures_page
from tests.markdown import number, table
from tests.optimize_table import RESULTS, ROOT, TASKS

PAGE = ROOT / "docs" / "results.md"
GUIDE = ROOT / "docs" / "optimize.md"
FIXED = ROOT / "docs" / "quantization.md"
PICTURES = ROOT / "docs" / "convolution.md"
BENCHMARKS = ROOT / "docs" / "benchmarks"

_HEAD = """# Results

Made by `python -m tests.results_table` from the JSON files in
[benchmarks/optimize](benchmarks/optimize); do not edit. The teachers are public agents of the RL
Baselines3 Zoo. [optimize.md](optimize.md) explains the protocol and every figure.
"""

_COLUMNS = (
    "task", "teacher", "dense MACs", "smallest dense", "MACs a step", "reduction",
    "shrink x prune x events", "gain over smallest dense", "loss, bound", "holds",
    "worst episode", "episodes", "time", "seed",
)  # fmt: skip


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """All outcomes, in the order of the tasks, those outside of the table last, bits and seeds."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    order = list(TASKS)
    return sorted(
        found,
        key=lambda one: (
            order.index(one["task"]) if one["task"] in TASKS else len(order),
            one["task"],
            -one["outcome"]["weight_bits"],
            one["outcome"]["seeds"]["optimization"],
        ),
    )


def page(
    found: list[dict[str, Any]],
    ablation: dict[str, Any] | None,
    tuned: dict[str, Any] | None = None,
) -> str:
    """The text of docs/results.md."""
    parts = [_HEAD]
    full = [one for one in found if one["outcome"]["weight_bits"] == 32]
    single = [one for one in full if one["task"] in TASKS]
    outside = [one for one in full if one["task"] not in TASKS]
    if not found:
        parts.append("Nothing has been measured yet.\n")
    if single:
        parts += [
            "## Multiplications per step\n",
            "Loss: mean, and one-sided 95 % bound, over fresh paired episodes; *aim* is what was "
            "set out to reach with a bound of at most 1 %.\n",
            table([*_COLUMNS, "aim"], [[*_row(one), _aim(one)] for one in single]),
            *_gains(_first_seeds(single)),
        ]
    if outside:
        parts += [
            "## Outside of the table\n",
            "Tasks that no setting was chosen on, optimised with the same ones, unattended. The "
            "teachers are this project's own (`models/zoo/train.py`).\n",
            table(list(_COLUMNS), [_row(one) for one in outside]),
        ]
    if full:
        parts += ["## Commands\n", "\n".join(f"    {one['command']}" for one in full) + "\n"]
        notes = [f"- {one['task']}, seed {_seed(one)}: {' '.join(one['notes'])}" for one in full]
        parts += ["## What the bounds assume\n", "\n".join(notes) + "\n"]
    few = [one for one in found if one["outcome"]["weight_bits"] < 32]
    if few:
        parts += [
            "## Few bits\n",
            "Sizes are of the parameters alone; the teacher's actor in float32, biases included.\n",
            table(
                ["task", "bits", "MACs a step", "loss, bound", "holds", "bytes",
                 "teacher's bytes", "smaller by", "seed"],
                [_small_row(one) for one in few],
            ),
        ]  # fmt: skip
    if ablation is not None:
        parts += ["## Ablation\n", _ablation(ablation)]
    if tuned is not None:
        parts += ["## Fine-tuning by reinforcement\n", _tuned(tuned)]
    return "\n".join(parts)


def calibration(data: dict[str, Any]) -> str:
    """The tables of docs/optimize.md: methods against each other, then the procedure."""
    worlds = list(dict.fromkeys(row["world"] for row in data["bounds"]))
    sizes = sorted({row["episodes"] for row in data["bounds"]})
    methods = list(dict.fromkeys(row["method"] for row in data["bounds"]))
    n = sizes[len(sizes) // 2]
    held = {(r["world"], r["method"]): r for r in data["bounds"] if r["episodes"] == n}
    rows = [
        [
            method.replace("_", " "),
            *(
                f"{100 * held[w, method]['holds']:.1f}% "
                f"({100 * held[w, method]['median_bound']:.2f}%)"
                for w in worlds
            ),
        ]
        for method in methods
    ]
    text = f"Share of bounds that hold at {n} episodes (and their median):\n\n"
    text += table(["method", *worlds], rows)
    worst = {
        method: min((r for r in data["bounds"] if r["method"] == method), key=lambda r: r["holds"])
        for method in methods
    }
    text += "\nAt its worst, over all worlds and 100 to 1600 episodes: " + ", ".join(
        f"{method.replace('_', ' ')} {100 * r['holds']:.1f}%" for method, r in worst.items()
    )
    text += ".\n\nThe whole procedure:\n\n"
    text += table(
        ["world and candidates", "repetitions", "stated bound holds", "promised",
         "promised in vain", "median bound", "median test episodes"],
        [
            [
                name,
                str(row["repetitions"]),
                f"{100 * row['bound_holds']:.1f}%",
                f"{100 * row['promised']:.1f}%",
                f"{100 * row['promised_in_vain']:.1f}%",
                f"{100 * row['median_bound']:.2f}%",
                f"{row['median_test_episodes']:.0f}",
            ]
            for name, row in data["procedure"].items()
        ],
    )  # fmt: skip
    return text


def filled(text: str, name: str, content: str) -> str:
    """Put content between the markers of a page."""
    pattern = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
    return re.sub(pattern, lambda m: m[1] + content + m[2], text, flags=re.DOTALL)


def generated() -> dict[Path, str]:
    """All pages that this script writes, with their text."""
    ablation = BENCHMARKS / "ablation.json"
    promise = BENCHMARKS / "promise.json"
    guide = GUIDE.read_text("utf-8")
    if promise.exists():
        guide = filled(guide, "calibration", calibration(json.loads(promise.read_text("utf-8"))))
    data = json.loads(ablation.read_text("utf-8")) if ablation.exists() else None
    measured = BENCHMARKS / "rounding.json"
    fixed = FIXED.read_text("utf-8")
    if measured.exists():
        fixed = filled(fixed, "rounding", rounding(json.loads(measured.read_text("utf-8"))["rows"]))
    finetune = BENCHMARKS / "finetune.json"
    tuned = json.loads(finetune.read_text("utf-8")) if finetune.exists() else None
    pictures = filled(
        PICTURES.read_text("utf-8"), "pictures", pictures_page.text(pictures_page.measured())
    )
    return {PAGE: page(results(), data, tuned), GUIDE: guide, FIXED: fixed, PICTURES: pictures}


def rounding(rows: list[dict[str, Any]]) -> str:
    """The table of docs/quantization.md: rounding afterwards, and in the loop."""
    tasks = " ".join(dict.fromkeys(row["task"] for row in rows))
    head = (
        "The same candidates and the same choice at a limit of 1 %, with and without it\n"
        f"(`python -m tests.rounding --tasks {tasks} --out docs/benchmarks/rounding.json`):\n\n"
    )
    return head + table(
        ["task", "bits", "made", "MACs a step", "loss, bound", "holds", "fresh episodes", "bytes"],
        [
            [
                row["task"],
                str(row["weight_bits"]),
                row["made"] + (", the teacher is left" if row["unchanged"] else ""),
                number(row["macs"] + row["acs"]),
                _loss(row),
                "yes" if row["promise_holds"] else "no",
                str(row["episodes"]),
                f"{row['bytes']:,}",
            ]
            for row in rows
        ],
    )


def _first_seeds(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[str, dict[str, Any]] = {}
    for one in found:
        first.setdefault(one["task"], one)
    return list(first.values())


def _seed(one: dict[str, Any]) -> int:
    return int(one["outcome"]["seeds"]["optimization"])


def _loss(data: dict[str, Any]) -> str:
    loss = data["relative_loss"]
    return f"{100 * loss['mean']:.2f}%, {100 * loss['upper95']:.2f}%"


def _row(one: dict[str, Any]) -> list[str]:
    data = one["outcome"]
    small, factors = data["small_dense"], data["factors"]
    return [
        one["task"],
        one["agent"],
        f"{data['dense_macs']:,}",
        "–" if small is None else f"{small['macs']:,} ({'-'.join(map(str, small['shape']))})",
        number(data["macs"] + data["acs"]),
        number(data["reduction"], "x"),
        " x ".join(number(factors[key]) for key in ("shrink", "prune", "events")),
        number(data["gain_over_small_dense"], "x"),
        _loss(data),
        "yes" if data["promise_holds"] else "no",
        f"{100 * data['relative_loss']['worst_episode']:.1f}%",
        str(data["episodes"]),
        f"{data['seconds'] / 60:.1f} min",
        str(_seed(one)),
    ]


def _aim(one: dict[str, Any]) -> str:
    task, data = TASKS[one["task"]], one["outcome"]
    aim = f"{task.least_reduction:,.0f}x"
    reached = data["promise_holds"] and (data["reduction"] or math.inf) >= task.least_reduction
    if task.most_macs is not None:
        aim = f"{task.most_macs:g}, {aim}"
        reached = reached and data["macs"] + data["acs"] <= task.most_macs
    return aim if reached else f"**{aim}: missed**"


def _small_row(one: dict[str, Any]) -> list[str]:
    data = one["outcome"]
    teacher = one["teacher_bytes"]
    return [
        one["task"],
        str(data["weight_bits"]),
        number(data["macs"] + data["acs"]),
        _loss(data),
        "yes" if data["promise_holds"] else "no",
        f"{data['bytes']:,}",
        f"{teacher:,}",
        number(teacher / data["bytes"] if data["bytes"] else None, "x"),
        str(_seed(one)),
    ]


def _gains(first: list[dict[str, Any]]) -> list[str]:
    gains = [one["outcome"]["gain_over_small_dense"] for one in first]
    known = [gain for gain in gains if gain]
    if not known:
        return []
    mean = math.exp(math.fsum(map(math.log, known)) / len(known))
    return [
        f"Gain over the smallest dense student, geometric mean of {len(known)} tasks (first seed "
        f"of each): {mean:.3g}x; the least is {min(known):.3g}x.\n"
    ]


def _ablation(data: dict[str, Any]) -> str:
    rows = [
        [
            row["task"],
            row["variant"],
            number(row["macs"]),
            number(row["reduction"], "x"),
            f"{100 * row['loss']:.2f}%, {100 * row['upper95']:.2f}%",
            str(row["episodes"]),
        ]
        for row in data["rows"]
    ]
    return (
        "The cheapest of each kind whose mean loss is within the limit on validation episodes, on "
        "fresh ones; `python -m tests.ablation` measures it.\n\n"
        + table(
            ["task", "variant", "MACs a step", "reduction", "loss, bound", "fresh episodes"], rows
        )
    )


def _tuned(data: dict[str, Any]) -> str:
    rows = []
    for row in data["rows"]:
        training = row["training"]
        how = f"{training['steps']:,} steps of {training['algorithm']}"
        how += f", critic of {training['critic']}" if training["critic"] else ""
        rows += [
            [
                row["env"],
                name,
                number(one["macs"]),
                number(one["reduction"], "x"),
                number(one["return"]),
                f"{100 * one['loss']:.2f}%, {100 * one['upper95']:.2f}%",
                f"{100 * one['worst_episode']:.1f}%",
                str(row["episodes"]),
            ]
            for name, one in (
                ("by imitation", row["before"]),
                (f"{how}, {row['training_seconds'] / 60:.0f} min", row["after"]),
            )
        ]
    return (
        "A policy pruned by imitation, and what further training in its environment made of it, by "
        "`python -m tests.finetune_table`; of the looks during the training the best is kept, the "
        "start among them.\n\n"
        + table(
            ["task", "made by", "MACs a step", "reduction", "return", "loss, bound",
             "worst episode", "fresh episodes"],
            rows,
        )
    )  # fmt: skip


def main() -> int:
    """Write the pages."""
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
