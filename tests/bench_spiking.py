"""Speed of spiking networks: ``python -m tests.bench_spiking``.

``--out docs/benchmarks/spiking.json --figure docs/figures/spiking_scaling.svg`` measures everything
(about 15 minutes and 6 GiB) and writes it down; ``--quick`` takes the small networks alone.
``--page docs/spiking_speed.md`` enters what the files of results say into the page.
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


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _measured(results: dict[str, Any]) -> str:
    ns = "nanoseconds_per_synaptic_event"
    head = ["model", "N", "k", "eventsim", "SparseProp", "floor", "scatter", "faster", "floors"]
    rows = [
        [row["model"], f"{row['neurons']:,}", row["degree"]]
        + [row[ns][name] for name in ("eventsim", "sparseprop", "floor", "scatter_add")]
        + [f"{row['times_faster_than_sparseprop']}x", f"{row['times_the_floor']}x"]
        for row in results["cases"]
    ]
    clock = {"wall": "time on the clock", "cpu": "processor time"}[results["clock"]]
    parts = [
        f"Nanoseconds a synaptic event, medians, {clock}; *faster* than SparseProp, and in "
        f"*floors*. {results['cpu']}, {results['date']}, Numba {results['versions']['numba']}:",
        _table(head, rows),
        "LIF, k = 100, as a multiple of the homogeneous network's time. Mixed weights: a fifth of "
        "the neurons excites, every synapse has a weight of its own. Delay 1 ms, refractory 2 ms:",
        _table(
            ["N", "homogeneous, ns", "mixed weights", "delay and refractory"],
            [
                [f"{row['neurons']:,}", row[ns]["homogeneous"]]
                + [
                    f"{row['times_the_homogeneous'][name]}x"
                    for name in ("mixed weights", "delay and refractory")
                ]
                for row in results["variants"]
            ],
        ),
        "Bytes; what a window does not use of the engine's room is never touched:",
        _table(
            ["model", "weights", "a synapse", "a neuron: state", "with room for windows"],
            [
                [
                    row["model"],
                    "one" if row["variant"] == "homogeneous" else "float32",
                    row["bytes_per_synapse"],
                    row["state_bytes_per_neuron"],
                    row["engine_bytes_per_neuron"],
                ]
                for row in results["memory"]
            ],
        ),
        "Rows add 8 bytes a neuron for where they begin, and 8 more for one weight a row.",
    ]
    threads = results["threads"]
    times = ", ".join(f"{name} {value} ns" for name, value in threads[ns].items())
    same = "with the same spikes" if threads["same_spikes"] else "with OTHER spikes"
    parts.append(f"Threads, N = {threads['neurons']:,}, on the clock, {same}: {times}.")
    return "\n\n".join(parts)


def _brian2(results: dict[str, Any]) -> str:
    head = ["N", "k", "eventsim", "Brian2", "faster", "spikes", "right", "until a step off"]
    rows = [
        [
            f"{row['neurons']:,}",
            row["degree"],
            *list(row["nanoseconds_per_synaptic_event"].values()),
            f"{row['times_faster']}x",
            f"{row['spikes']['brian2']:,}",
            row["brian2_spikes_in_exact_order"],
            row["brian2_spikes_until_one_is_a_step_off"],
        ]
        for row in results["rows"]
    ]
    return (
        "Nanoseconds a synaptic event, on the clock, without compilation; how many of Brian2's "
        "spikes come in the exact order, and how many exact spikes until one that it has more "
        f"than a step off. {results['cpu']}, {results['date']}:\n\n{_table(head, rows)}"
    )


def write_page(page: Path, folder: Path) -> None:
    """Enter the results into the page, between its marks."""
    text = page.read_text(encoding="utf-8")
    for mark, name, render in (
        ("measured", "spiking.json", _measured),
        ("brian2", "spiking_brian2.json", _brian2),
    ):
        path = folder / name
        if path.is_file():
            begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
            before, rest = text.split(begin)
            _, after = rest.split(end)
            body = render(json.loads(path.read_text(encoding="utf-8")))
            text = f"{before}{begin}\n{body}\n{end}{after}"
    page.with_suffix(".part").write_text(text, encoding="utf-8")
    os.replace(page.with_suffix(".part"), page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="enter the results into this page")
    parser.add_argument("--quick", action="store_true", help="up to 10^5 neurons, few rounds")
    parser.add_argument("--rounds", type=int, help="turns of each contender; default 5 to 9")
    parser.add_argument("--clock", choices=sorted(bench.CLOCKS), default="wall")
    parser.add_argument("--only", nargs="*", help="parts: cases variants scaling threads memory")
    parser.add_argument("--out", type=Path, help="write the results here")
    parser.add_argument("--figure", type=Path, help="draw the scaling here")
    options = parser.parse_args()
    if options.page is not None:
        write_page(options.page, options.page.parent / "benchmarks")
        return
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
