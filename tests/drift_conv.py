"""Drift and memory of a convolutional network over a long run of Atari frames without reset.

    python -m tests.drift_conv --steps 100000 --out docs/benchmarks/drift_conv.json

The NatureCNN with random weights sees frames of random play, again and again, at threshold 0. At
ten points of the run the activations of every layer are compared with the dense forward pass,
relative to the layer's largest pre-activation |u|, and the memory of the process is read. With
``--policies FILE ...`` it is the networks of policies, on frames of their own play; thresholds are
set to 0 for that, as only then the dense pass says what is right.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eventsim.dense import DenseForward
from eventsim.models.policy import Policy
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.stack import channels_last
from tests.bench_conv import network, play, record, weights
from tests.machine import describe
from tests.optimize_table import write


def resident() -> float:
    """Resident memory of this process in MB; the largest so far where the system hides it."""
    status = Path("/proc/self/statm")
    if status.exists():
        pages = int(status.read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def worst(net: Network, row: np.ndarray, outputs: np.ndarray) -> float:
    """Largest error of a layer relative to its largest |u|."""
    dense = DenseForward(net)
    dense.step(row)
    first, largest = 0, 0.0
    for name in net.outputs:
        size = net[name].size
        u = dense.pre_activations[name]
        error = np.abs(outputs[first : first + size] - dense.activations[name]).max()
        largest = max(largest, float(error / np.abs(u).max()))
        first += size
    return largest


def main() -> None:
    """Measure and print; write the results if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--frames", type=int, default=2000, help="frames recorded of each game")
    parser.add_argument("--games", nargs="*", default=["Pong", "Breakout"])
    parser.add_argument("--policies", nargs="*", type=Path, default=[])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    cases: dict[str, Callable[[], tuple[Network, np.ndarray]]] = {}
    for game in options.games if not options.policies else ():
        cases[game] = lambda game=game: (  # type: ignore[misc]
            network(weights(np.random.default_rng(0)), 0.0),
            record(game, options.frames),
        )
    for file in options.policies:
        policy = Policy.load(file)
        cases[file.stem] = lambda policy=policy: (  # type: ignore[misc]
            policy.network.with_thresholds(0.0),
            play(policy, options.frames),
        )
    results = {}
    for game, make in cases.items():
        net, frames = make()
        net = Network(net.populations, net.projections, tuple(p.name for p in net.populations[1:]))
        rows = channels_last(frames).reshape(len(frames), -1)
        simulator = Simulator(net)
        points, seconds, k = [], 0.0, 0
        for part in range(10):
            begin = time.perf_counter()
            for _ in range(options.steps // 10):
                outputs = simulator.step(rows[k % len(rows)])
                k += 1
            seconds += time.perf_counter() - begin
            points.append(
                {
                    "step": (part + 1) * (options.steps // 10),
                    "relative_error": worst(net, rows[(k - 1) % len(rows)], outputs),
                    "resident_mb": round(resident(), 1),
                }
            )
        results[game] = {
            "steps": options.steps,
            "engine": simulator.engine,
            "microseconds_per_step": round(1e6 * seconds / options.steps, 1),
            "points": points,
            "largest": max(p["relative_error"] for p in points),
            "growth_mb": round(points[-1]["resident_mb"] - points[0]["resident_mb"], 1),
        }
        print(
            f"{game}: {results[game]['largest']:.2e} after {options.steps} steps, memory "
            f"{results[game]['growth_mb']:+} MB",
            file=sys.stderr,
        )
    if options.out:
        machine = describe("numpy", "numba", "ale-py", module="tests.drift_conv")
        write(options.out, {"machine": machine, "results": results})


if __name__ == "__main__":
    main()
