"""What fine-tuning with the rounding in the loop is worth, against rounding afterwards.

    python -m tests.rounding --tasks CartPole-v1 Pendulum-v1 --out docs/benchmarks/rounding.json

Both begin with the same candidates, those of the task's search in floating point, which must have
been made before into the same --policies (`python -m tests.optimize_table`); both then compare,
choose and promise alike. `python -m tests.results_table` writes the table of docs/quantization.md.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

from eventsim import optimize_rounding
from tests import optimize_table
from tests.agents_table import agents_folder
from tests.machine import describe

#: What is compared.
MADE = ("rounded afterwards", "fine-tuned in the loop")


def measure(task: str, bits: int, made: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row: what a task's candidates come to in so many bits."""
    folder = options.policies / made.replace(" ", "-")
    name = optimize_table.result_file(Path(), task, 0, 32).stem
    if not (folder / f"{name}.work").exists():
        shutil.copytree(options.policies / f"{name}.work", folder / f"{name}.work")
    own = argparse.Namespace(**{**vars(options), "policies": folder, "weight_bits": bits})
    ways = optimize_rounding.WAYS if made == MADE[1] else {}
    with mock.patch.object(optimize_rounding, "WAYS", ways):
        found = optimize_table.measure(task, 0, own)
    if "error" in found:
        raise SystemExit(f"{task}, {bits} bits, {made}: {found['error']}")
    data = found["outcome"]
    return {
        "task": task,
        "agent": found["agent"],
        "weight_bits": bits,
        "made": made,
        "unchanged": data["factors"]["shrink"] == 1.0,
        **{key: data[key] for key in ("macs", "acs", "relative_loss", "promise_holds", "episodes")},
        "bytes": data["bytes"],
        "seconds": data["seconds"],
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure all rows and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", required=True, choices=list(optimize_table.TASKS))
    parser.add_argument("--bits", nargs="+", type=int, default=[8, 4], choices=[8, 4])
    parser.add_argument("--budget", default="12m")
    parser.add_argument("--max-loss", type=float, default=0.01)
    parser.add_argument("--agents", type=Path, default=agents_folder())
    parser.add_argument("--policies", type=Path, default=optimize_table.ROOT / "runs" / "optimize")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    options.agent = None
    rows = [
        measure(task, bits, made, options)
        for task in options.tasks
        for bits in options.bits
        for made in MADE
    ]
    machine = describe("numpy", "numba", "gymnasium", "torch", module="tests.rounding")
    content = {"rows": rows, "budget": options.budget, "machine": machine}
    optimize_table.write(options.out, content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
