"""Brian2's C++ standalone mode beside the window engine: same graph, same drive, same phases.

Run by hand, where Brian2 and a C++ compiler are (not among the extras):
``python -m tests.reference_brian2 --out docs/benchmarks/spiking_brian2.json``

Times are those of the run alone, without building the network or compiling. A spike of Brian2 is
right if it is the same neuron at the same place of the exact order; within a step, Brian2 orders
spikes by neuron. Counted more kindly: all exact spikes before the first one that Brian2 has more
than a step too early or too late, or not at all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.bench_spiking import TAU, Balanced
from eventsim.spiking_compile import compile_spiking
from eventsim.spiking_window import WindowLIF
from tests.machine import describe


def brian2(case: Balanced, seconds: float, step: float) -> tuple[float, Any, Any]:
    """Seconds that the run took, times and neurons of its spikes."""
    import brian2 as b2

    b2.prefs.logging.file_log = False
    b2.start_scope()
    b2.device.reinit()
    b2.device.activate()
    folder = tempfile.mkdtemp(prefix="brian2_")
    b2.set_device("cpp_standalone", directory=folder, build_on_run=True)
    b2.defaultclock.dt = step * b2.second
    group = b2.NeuronGroup(
        case.neurons,
        "dv/dt = (drive - v) / tau : 1",
        threshold="v >= 1",
        reset="v = 0",
        method="exact",
        namespace={"drive": case.drive, "tau": TAU * b2.second},
    )
    group.v = np.asarray(case.neuron().initial)
    synapses = b2.Synapses(
        group, group, on_pre="v_post += weight", namespace={"weight": case.weight}
    )
    sources = np.repeat(np.arange(case.neurons), case.degree)
    synapses.connect(i=sources, j=case.graph().astype(np.int64))
    spikes = b2.SpikeMonitor(group)
    b2.run(seconds * b2.second)
    taken = float(b2.device._last_run_time)
    return taken, np.array(spikes.t / b2.second), np.array(spikes.i)


def right(exact: tuple[Any, Any], other: tuple[Any, Any], step: float) -> tuple[int, int]:
    """How many spikes come in the exact order, and how many until one is off by a step."""
    n = min(exact[1].size, other[1].size)
    differ = np.flatnonzero(exact[1][:n] != other[1][:n])
    ordered = int(differ[0]) if differ.size else n
    # Brian2 notes the beginning of the step in whose course the threshold was crossed.
    spikes: dict[int, list[float]] = {}
    for t, i in zip(*other, strict=True):
        spikes.setdefault(int(i), []).append(float(t))
    count: dict[int, int] = {}
    for place, (t, i) in enumerate(zip(*exact, strict=True)):
        neuron = int(i)
        mine = count.get(neuron, 0)
        count[neuron] = mine + 1
        theirs = spikes.get(neuron, [])
        if mine >= len(theirs) or not -step <= t - theirs[mine] < 2 * step:
            return ordered, place
    return ordered, exact[1].size


def statistics(times: Any, ids: Any, neurons: int, seconds: float) -> dict[str, list[float]]:
    """Mean and standard error of rate, of CV, and of the correlation of counts in 20 ms.

    Errors of rate and CV are over neurons with at least 5 intervals (of the rate over all);
    of the correlation over pairs of the first 200 neurons.
    """
    order = np.lexsort((times, ids))
    who, when = ids[order], times[order]
    counts = np.bincount(who, minlength=neurons)
    rates = counts / seconds
    ends = np.cumsum(counts)
    variations = []
    for end, n in zip(ends, counts, strict=True):
        if n >= 6:
            intervals = np.diff(when[end - n : end])
            variations.append(intervals.std(ddof=1) / intervals.mean())
    bins = np.arange(0.0, seconds, 0.02)
    some = np.stack(
        [
            np.histogram(when[end - n : end], bins)[0]
            for end, n in zip(ends[:200], counts, strict=False)
        ]
    )
    some = some[some.std(axis=1) > 0]
    pairs = np.corrcoef(some)[np.triu_indices(len(some), 1)]

    def mean(values: Any) -> list[float]:
        x = np.asarray(values)
        return [round(float(x.mean()), 6), round(float(x.std(ddof=1) / math.sqrt(x.size)), 6)]

    return {"rate_hz": mean(rates), "cv": mean(variations), "correlation": mean(pairs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--degree", type=int, default=100)
    parser.add_argument("--step", type=float, default=1e-4, help="seconds")
    parser.add_argument("--spikes", type=int, default=300_000, help="about so many a run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for n in options.sizes:
        case = Balanced("lif", n, options.degree)
        case = Balanced("lif", n, options.degree, targets=case.graph())
        plan = compile_spiking(case.network())
        WindowLIF(plan).run(math.inf, 10)  # compiles
        engine = WindowLIF(plan)
        parts = [engine.run(math.inf, options.spikes)]
        exact = tuple(np.concatenate(p) for p in zip(*parts, strict=True))
        seconds = float(exact[0][-1])
        ours, theirs, count = [], [], 0
        for _ in range(options.rounds):
            taken, times, ids = brian2(case, seconds, options.step)
            theirs.append(taken / (ids.size * options.degree) * 1e9)
            count = ids.size
            engine.reset()
            start = time.perf_counter()
            engine.run(math.inf, options.spikes)
            ours.append((time.perf_counter() - start) / (options.spikes * options.degree) * 1e9)
        ordered, kind = right(exact, (times, ids), options.step)
        rows.append(
            {
                "neurons": n,
                "degree": options.degree,
                "step_seconds": options.step,
                "simulated_seconds": round(seconds, 4),
                "spikes": {"eventsim": int(exact[1].size), "brian2": int(count)},
                "nanoseconds_per_synaptic_event": {
                    "eventsim": round(float(np.median(ours)), 3),
                    "brian2": round(float(np.median(theirs)), 3),
                },
                "times_faster": round(float(np.median(theirs) / np.median(ours)), 1),
                "mean_and_standard_error": {
                    "eventsim": statistics(*exact, n, seconds),
                    "brian2": statistics(times, ids, n, seconds),
                },
                "brian2_spikes_in_exact_order": ordered,
                "brian2_spikes_until_one_is_a_step_off": kind,
            }
        )
        print(rows[-1], flush=True)
    if options.out is not None:
        results = {
            **describe("Brian2", "numpy", "numba", module="tests.reference_brian2"),
            "rows": rows,
        }
        text = json.dumps(results, indent=1)
        options.out.with_suffix(".part").write_text(text + "\n", encoding="utf-8")
        os.replace(options.out.with_suffix(".part"), options.out)
        print(f"wrote {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
