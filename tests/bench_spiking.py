"""Speed of spiking networks: ``python -m tests.bench_spiking``.

``--out docs/benchmarks/spiking.json --figure docs/figures/spiking_scaling.svg`` measures everything
(about 15 minutes and 6 GiB) and writes it down; ``--quick`` takes the small networks alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from eventsim import bench_spiking as bench
from tests.machine import describe

#: (neurons, synapses a neuron, spikes, spikes of the baseline, rounds)
CASES = (
    (10_000, 100, 200_000, 50_000, 9),
    (100_000, 100, 200_000, 50_000, 9),
    (1_000_000, 100, 500_000, 50_000, 7),
    (10_000, 10, 500_000, 200_000, 7),
    (100_000, 10, 500_000, 200_000, 7),
    (1_000_000, 10, 1_000_000, 200_000, 5),
    (10_000, 1000, 20_000, 10_000, 7),
    (100_000, 1000, 50_000, 5_000, 5),
)
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 10^5 neurons, few rounds")
    parser.add_argument("--rounds", type=int, help="turns of each contender; default 5 to 9")
    parser.add_argument("--clock", choices=sorted(bench.CLOCKS), default="wall")
    parser.add_argument("--only", nargs="*", help="parts: cases variants scaling threads memory")
    parser.add_argument("--out", type=Path, help="write the results here")
    parser.add_argument("--figure", type=Path, help="draw the scaling here")
    options = parser.parse_args()
    largest = 100_000 if options.quick else 10**9
    parts = options.only or ["cases", "variants", "scaling", "threads", "memory"]
    results: dict[str, Any] = {
        **describe("eventsim", "numpy", "numba", module="tests.bench_spiking"),
        "clock": options.clock,
    }
    if "cases" in parts:
        results["cases"] = []
        print("ns a synaptic event; medians of turns in one process")
        for n, k, spikes, slow, rounds in CASES:
            if n > largest:
                continue
            for model in bench.ENGINES:
                case = bench.Balanced(model, n, k)
                turns = options.rounds or (3 if options.quick else rounds)
                row = bench.bench_case(case, spikes, slow, turns, options.clock)
                results["cases"].append(row)
                times = "  ".join(
                    f"{a} {b:.2f}" for a, b in row["nanoseconds_per_synaptic_event"].items()
                )
                print(
                    f"{model} N={n:<9,} k={k:<5} {times}  "
                    f"{row['times_faster_than_sparseprop']}x faster, "
                    f"{row['times_the_floor']}x the floor, baseline "
                    f"{row['sparseprop_over_scatter_add']}x scatter; "
                    f"{row['spikes_in_the_same_order']:,} of {row['spikes_compared']:,} in the "
                    f"same order, {row['largest_difference_seconds']:.1e} s",
                    flush=True,
                )
    if "variants" in parts:
        results["variants"] = []
        for n in (10_000, 100_000, 1_000_000):
            if n <= largest:
                row = bench.bench_variants(n, 100, 200_000, options.rounds or 7, options.clock)
                results["variants"].append(row)
                print(n, row["nanoseconds_per_synaptic_event"], row["times_the_homogeneous"])
    if "scaling" in parts:
        sizes = [n for n in SIZES if n <= largest]
        results["scaling"] = bench.bench_scaling(sizes, 100, options.rounds or 5, options.clock)
        for row in results["scaling"]:
            print(row["neurons"], row["microseconds_per_spike"])
        if options.figure is not None:
            bench.figure(results["scaling"], options.figure)
    if "threads" in parts:
        results["threads"] = bench.bench_threads(
            min(largest, 1_000_000), 100, 500_000, options.rounds or 7
        )
        print(results["threads"])
    if "memory" in parts:
        results["memory"] = bench.bench_memory(min(largest, 100_000), 100)
        for row in results["memory"]:
            print(row)
    if options.out is not None:
        text = json.dumps(results, indent=1)
        options.out.with_suffix(".part").write_text(text + "\n", encoding="utf-8")
        os.replace(options.out.with_suffix(".part"), options.out)
        print(f"wrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
