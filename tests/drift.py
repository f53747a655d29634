"""Drift of the event-driven state against the dense forward pass over a long run without reset.

    python -m tests.drift --steps 1000000 --out docs/benchmarks/drift.json

At threshold 0 every change is added to float64 accumulators, so rounding errors add up too. At
ten points of the run, over 100 steps each, every layer's activations are compared with the dense
ones, relative to the layer's largest pre-activation |u|.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

from eventsim.dense import DenseForward
from eventsim.network import Network
from eventsim.simulator import Simulator
from tests.machine import describe

SHAPES = {"8-64-64-4 tanh": "tanh", "8-64-64-4 relu": "relu", "24-64-64-4 silu": "silu"}


def network(shape: str, activation: str, rng: np.random.Generator) -> Network:
    """Build a random network with float32 weights whose outputs are all its populations."""
    sizes = [int(n) for n in shape.split()[0].split("-")]
    layers = [
        (rng.normal(size=(m, n)) / np.sqrt(n)).astype(np.float32)
        for n, m in itertools.pairwise(sizes)
    ]
    biases = [rng.normal(size=m) * 0.1 for m in sizes[1:]]
    net = Network.from_arrays(layers, biases, activation)
    return Network(net.populations, net.projections, tuple(p.name for p in net.populations))


def walk(steps: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Noisy, bounded, slowly moving inputs: x <- 0.99 x + 0.1 noise, jumps now and then."""
    x = np.empty((steps, n))
    state = np.zeros(n)
    for t in range(steps):
        state = 0.99 * state + 0.1 * rng.normal(size=n)
        if t % 500 == 0:
            state = rng.normal(size=n)
        x[t] = state
    return x


def drift(net: Network, steps: int, seed: int) -> dict[str, object]:
    """Run `steps` steps and return the largest relative error at ten points of the run."""
    rng = np.random.default_rng(seed)
    simulator, dense = Simulator(net), DenseForward(net)
    points, seconds = [], 0.0
    for part in range(10):
        x = walk(steps // 10, net.n_inputs, rng)
        begin = time.perf_counter()
        outputs = simulator.run(x)
        seconds += time.perf_counter() - begin
        worst = 0.0
        largest: dict[str, float] = {}
        errors: dict[str, float] = {}
        for row, got in zip(x[-100:], outputs[-100:], strict=True):
            dense.step(row)
            first = 0
            for name in net.outputs:
                size = net[name].size
                u = dense.pre_activations.get(name, dense.activations[name])
                error = np.abs(got[first : first + size] - dense.activations[name]).max()
                largest[name] = max(largest.get(name, 0.0), float(np.abs(u).max()))
                errors[name] = max(errors.get(name, 0.0), float(error))
                first += size
        worst = max(errors[name] / largest[name] for name in errors)
        points.append({"step": (part + 1) * (steps // 10), "relative_error": worst})
    return {
        "steps": steps,
        "microseconds_per_step": 1e6 * seconds / steps,
        "engine": simulator.engine,
        "points": points,
        "largest": max(float(p["relative_error"]) for p in points),
    }


def main() -> None:
    """Measure and print; write the results if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {}
    for shape, activation in SHAPES.items():
        net = network(shape, activation, np.random.default_rng(options.seed))
        results[shape] = drift(net, options.steps, options.seed)
        print(f"{shape}: {results[shape]['largest']:.2e} after {options.steps} steps")
    if options.out:
        text = json.dumps(
            {"machine": describe("numpy", "numba", module="tests.drift"), "results": results},
            indent=1,
        )
        temporary = options.out.with_suffix(".tmp")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(options.out)


if __name__ == "__main__":
    main()
