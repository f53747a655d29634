"""Time and memory of recording every event of a long run to disk.

    python -m tests.recording --events 100000000 --out docs/benchmarks/recording.json

A network of three layers runs on random inputs until that many events are on disk; then, in a
process of its own, as a policy in an environment (`eventsim.run` with a folder). Peak memory is
that of the whole process, as the kernel counted it; nothing else runs in it before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from eventsim.network import Network
from eventsim.recording import ParquetRecorder
from eventsim.records import Trace
from eventsim.simulator import Simulator
from tests.machine import describe

SIZES = (512, 512, 256, 4)
BLOCK = 2048  # steps of inputs at a time
EPISODE = 1000  # steps, in an environment


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


class Noise(gym.Env[Any, Any]):
    """Observations that have nothing to do with each other, in episodes of 1000 steps."""

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (SIZES[0],), np.float64)
        self.action_space = gym.spaces.Discrete(SIZES[-1])
        self._t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        return self.np_random.normal(size=SIZES[0]), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._t += 1
        return self.np_random.normal(size=SIZES[0]), 1.0, False, self._t >= EPISODE, {}


def run(n_events: int, folder: Path, seed: int = 0) -> dict[str, object]:
    """Play until about `n_events` events are recorded, nearly every neuron at every step."""
    from eventsim import runner
    from eventsim.models.decoders import Argmax
    from eventsim.models.encoders import BoxSpec, Encoder
    from eventsim.models.policy import Policy

    net = network(np.random.default_rng(seed))
    policy = Policy(Encoder(BoxSpec((SIZES[0],))), net, Argmax(SIZES[-1]), {})
    runner.run(policy, Noise(), episodes=1, dense=False, progress=False)  # compiles
    before = peak_bytes()
    episodes = -(-n_events // (EPISODE * 1010))
    begin = time.perf_counter()
    played = runner.run(
        policy, Noise(), episodes=episodes, dense=False, devices=[], progress=False, out=folder
    )
    seconds = time.perf_counter() - begin
    trace = Trace(folder)
    return {
        "events": len(trace.events),
        "events_counted_by_the_counters": int(played.counters.events.sum()),
        "steps": played.data["steps"],
        "complete": trace.complete,
        "seconds": round(seconds, 1),
        "peak_bytes": peak_bytes(),
        "peak_bytes_before_recording": before,
        "bytes_on_disk": sum(path.stat().st_size for path in folder.rglob("*.parquet")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("record", "run"), help="one of the two, as JSON")
    parser.add_argument("--folder", type=Path, help="where; default a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file; default stdout")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure = record if options.only == "record" else run
            print(json.dumps(measure(options.events, Path(folder))))
        return
    figures: dict[str, object] = {
        "machine": describe("numpy", "numba", "pyarrow", module="tests.recording")
    }
    for key, which in (("recording", "record"), ("run_in_an_environment", "run")):
        words = ["--events", str(options.events), "--only", which]
        words += [] if options.folder is None else ["--folder", str(options.folder)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.recording", *words], check=True, stdout=subprocess.PIPE
        )
        figures[key] = json.loads(done.stdout)
    text = json.dumps(figures, indent=2) + "\n"
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
