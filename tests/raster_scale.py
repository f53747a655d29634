"""Time and memory of a raster of 10^7 events.

    python -m tests.raster_scale --out docs/benchmarks/raster.json

Three layers of 724 neurons over 100 000 steps, with rewards and eight observations above. Peak
memory is that of the whole process, the events themselves (320 MB) included.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from eventsim.analysis.raster import raster
from tests.machine import describe

LAYERS = (("input", 24), ("hidden1", 400), ("hidden2", 300))


def draw(picture: Path, n_events: int, steps: int) -> dict[str, object]:
    """Draw random events into a file."""
    rng = np.random.default_rng(0)
    sizes = np.array([size for _, size in LAYERS])
    population = rng.integers(0, 3, n_events, dtype=np.int64)
    events = {
        "step": np.sort(rng.integers(0, steps, n_events)),
        "population": population,
        "neuron": (rng.random(n_events) * sizes[population]).astype(np.int64),
        "value": rng.normal(size=n_events),
    }
    rewards = rng.normal(size=steps)
    observations = rng.normal(size=(steps, 8)).cumsum(axis=0)
    began = time.perf_counter(), time.process_time()
    ax = raster(events, LAYERS, steps=steps, rewards=rewards, observations=observations)
    ax.figure.savefig(picture)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "events": n_events,
        "steps": steps,
        "seconds": round(time.perf_counter() - began[0], 2),
        "cpu_seconds": round(time.process_time() - began[1], 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "notes": [text.get_text() for text in ax.texts],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--picture", type=Path, help="PNG file; default none is kept")
    parser.add_argument("--out", type=Path, help="JSON file; default stdout")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = options.picture or Path(folder) / "raster.png"
        figures = draw(picture, options.events, options.steps)
    machine = describe("numpy", "matplotlib", module="tests.raster_scale")
    text = json.dumps({"machine": machine, "raster": figures}, indent=2) + "\n"
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
