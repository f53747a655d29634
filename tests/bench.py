"""Speed of the simulator beside the dense runtimes: `make bench`.

``python -m tests.bench --out docs/benchmarks/engines.json --figure docs/benchmarks/growth.svg``
measures everything and writes it down; ``--constants docs/benchmarks/constants.json`` measures the
parts of a step; without options it prints the first table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from eventsim import bench, bench_scale
from tests import bench_constants

AGENTS = Path(__file__).parents[2] / "shared" / "policies"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000, help="observations of each network")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each contender")
    parser.add_argument("--out", type=Path, help="measure everything, and write it here")
    parser.add_argument(
        "--constants", type=Path, help="measure the cost model only, and write it here"
    )
    parser.add_argument("--figure", type=Path, help="draw the growth with size here")
    options = parser.parse_args()
    agents = Path(os.environ.get("EVENTSIM_AGENTS", AGENTS))
    networks = bench.cases(
        agents if agents.is_dir() else None,
        options.steps,
        lambda text: print(text, file=sys.stderr),
    )
    if options.constants is not None:
        pruned = [case.changed(*bench.SETTINGS["90 %, scale 0.1"]) for case in networks]
        cost = {
            **bench.machine(_command()),
            "nanoseconds": bench_constants.constants(options.rounds),
            "counting": bench_constants.counting(pruned, options.rounds),
        }
        _write(options.constants, cost)
        print(json.dumps({k: cost[k] for k in ("nanoseconds", "counting")}, indent=1))
        return
    steps = bench.bench_steps(networks, options.rounds)
    print("microseconds a step, called from Python; ratio of the medians' blocks")
    for row in steps:
        times = "  ".join(f"{k} {v:.2f}" for k, v in row["microseconds"].items())
        ratios = "  ".join(f"{k} {v:.2f}x" for k, v in row["ratio"].items())
        print(f"{row['network']:<27}{row['setting']:<23}{times}   {ratios}")
    if options.out is None:
        return
    results = {
        **bench.machine(_command()),
        "steps": steps,
        "sequences": bench.bench_sequences(networks, max(options.rounds // 2, 1)),
        "growth": bench_scale.bench_growth(),
        "growth_local": bench_scale.bench_growth(local=True),
        "memory": bench_scale.bench_memory(),
    }
    if options.figure is not None:
        wirings = {"spread targets": "growth", "overlapping targets": "growth_local"}
        bench_scale.figure({name: results[key] for name, key in wirings.items()}, options.figure)
    _write(options.out, results)


def _command() -> str:
    return " ".join(["python", "-m", "tests.bench", *sys.argv[1:]])


def _write(path: Path, results: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    main()
