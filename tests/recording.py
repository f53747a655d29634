"""Time and memory of recording every event of a long run to disk.

    python -m tests.recording --events 100000000 --out docs/benchmarks/recording.json

A network of three layers runs on random inputs until that many events are on disk. Peak memory is
that of the whole process, as the kernel counted it; nothing else runs in it before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from eventsim.network import Network
from eventsim.recording import ParquetRecorder
from eventsim.records import Trace
from eventsim.simulator import Simulator
from tests.machine import describe

SIZES = (512, 512, 256, 4)
BLOCK = 2048  # steps of inputs at a time


def network(rng: np.random.Generator) -> Network:
    """Three pruned layers, of which nearly every neuron sends at every step."""
    weights = []
    for n, m in itertools.pairwise(SIZES):
        layer = rng.normal(size=(m, n))
        layer[rng.random(layer.shape) < 0.98] = 0.0
        weights.append(layer)
    return Network.from_arrays(weights, activation="tanh", thresholds=1e-3)


def peak_bytes() -> int:
    """Most memory that the process held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def record(n_events: int, folder: Path, seed: int = 0) -> dict[str, object]:
    """Run until `n_events` events are recorded, and look at what is on disk."""
    rng = np.random.default_rng(seed)
    plain = Simulator(network(rng))
    x = rng.normal(size=(BLOCK, SIZES[0]))
    plain.run(x[:8])  # compiles
    begin = time.perf_counter()
    plain.run(x)
    without = (time.perf_counter() - begin) / BLOCK
    before = peak_bytes()
    begin = time.perf_counter()
    with ParquetRecorder(folder) as recorder:
        simulator = Simulator(network(np.random.default_rng(seed)), hooks=[recorder])
        while recorder.n_events < n_events:
            simulator.run(rng.normal(size=(BLOCK, SIZES[0])))
    seconds = time.perf_counter() - begin
    peak = peak_bytes()
    trace = Trace(folder)
    counted = sum(int(c["events"].sum()) for c in trace.counters.chunks(["events"]))
    last = trace.events.select(steps=(simulator.step_index - 1, simulator.step_index))
    return {
        "events": len(trace.events),
        "events_counted_by_the_counters": counted,
        "steps": simulator.step_index,
        "events_of_the_last_step": len(last),
        "complete": trace.complete,
        "seconds": round(seconds, 1),
        "events_per_second": round(len(trace.events) / seconds),
        "microseconds_per_step": round(1e6 * seconds / simulator.step_index, 1),
        "microseconds_per_step_without_recording": round(1e6 * without, 1),
        "peak_bytes": peak,
        "peak_bytes_before_recording": before,
        "bytes_on_disk": sum(path.stat().st_size for path in folder.rglob("*.parquet")),
        "parts": len(list((folder / "events").glob("*.parquet"))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where; default a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file; default stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = record(options.events, Path(folder))
    machine = describe("numpy", "numba", "pyarrow", module="tests.recording")
    text = json.dumps({"machine": machine, "recording": figures}, indent=2) + "\n"
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
