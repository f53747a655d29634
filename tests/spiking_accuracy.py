"""Spike times of tabulated neurons against their differential equation, and what a kick costs.

``python -m tests.spiking_accuracy --out docs/benchmarks/spiking_accuracy.json``
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from eventsim.builders import balanced
from eventsim.network import Network, Population, Projection
from eventsim.spiking_compile import compile_spiking
from eventsim.spiking_engines import CrossingEngine
from eventsim.spiking_neurons import EIF, LIF, SpikeInput, SpikingNeuron, Tabulated
from tests.machine import describe


def _eif(v: Any) -> Any:
    # Trial steps of the solver go far beyond the threshold at 2, and would overflow.
    return (1.1 - v + 0.1 * np.exp((np.minimum(v, 2.5) - 1.0) / 0.1)) / 0.01


def _cubic(v: Any) -> Any:
    return 40.0 + 60.0 * (v - 0.4) ** 2 * (1.5 + v)


CASES: dict[str, tuple[SpikingNeuron, Any, float]] = {
    "eif": (EIF(drive=1.1), _eif, 2.0),
    "tabulated cubic": (Tabulated(_cubic, 1.0, 0.0, -1.2), _cubic, 1.0),
}


def exact(right_side: Any, threshold: float, kicks: list[tuple[float, float]]) -> list[float]:
    """Spike times by DOP853 at its tightest tolerance, from kick to kick."""

    def crosses(t: float, v: Any) -> float:
        return float(v[0] - threshold)

    crosses.terminal, crosses.direction = True, 1.0  # type: ignore[attr-defined]
    now, v, found = 0.0, 0.0, []
    for when, weight in kicks:
        while now < when:
            run = solve_ivp(
                lambda t, y: right_side(y),
                (0.0, when - now),
                [v],
                method="DOP853",
                rtol=3e-14,
                atol=1e-16,
                events=crosses,
            )
            if run.t_events[0].size:
                now += float(run.t_events[0][0])
                v = 0.0
                found.append(now)
            else:
                now, v = when, float(run.y[0, -1])
        v += weight
        if v >= threshold:
            found.append(now)
            v = 0.0
    return found


def error(name: str, n_kicks: int = 100) -> tuple[int, float]:
    """Number of spikes compared, and the largest error in seconds."""
    model, right_side, threshold = CASES[name]
    random = np.random.default_rng(1)
    times = np.sort(random.uniform(0.0, 0.002 * n_kicks, n_kicks))
    weights = random.uniform(-0.15, 0.15, n_kicks)
    net = Network(
        [
            Population("in", n_kicks, SpikeInput(times, np.arange(n_kicks))),
            Population("n", 1, model),
        ],
        [Projection("in", "n", weights[None])],
    )
    found, _ = CrossingEngine(compile_spiking(net)).run(float(times[-1]), 1 << 20)
    expected = exact(
        right_side, threshold, list(zip(times.tolist(), weights.tolist(), strict=True))
    )
    if len(expected) != found.size:
        return 0, math.inf
    return found.size, float(np.abs(found - expected).max())


def cost(model: Any, neurons: int, indegree: int, spikes: int) -> float:
    """Nanoseconds a synaptic event in a balanced network, the reference engine."""
    import time

    network = balanced(neurons, indegree, "lif" if model == "tabulated lif" else model)
    if model == "tabulated lif":
        network = _tabulated(network)
    engine = CrossingEngine(compile_spiking(network))
    engine.run(math.inf, spikes // 10)
    before, began = int(engine.totals[0, 3]), time.perf_counter()
    done = 0
    while done < spikes:
        done += engine.run(math.inf, spikes - done)[0].size
    return 1e9 * (time.perf_counter() - began) / (int(engine.totals[0, 3]) - before)


def _tabulated(network: Network) -> Network:
    """The network with its leaky neurons given by a table of their equation."""
    (population,) = network.populations
    leaky = population.neuron
    assert isinstance(leaky, LIF)
    drive, tau = float(np.max(leaky.drive)), float(np.max(leaky.tau))
    table = Tabulated(lambda v: (drive - v) / tau, 1.0, 0.0, -20.0, initial=leaky.initial)
    return replace(network, populations=(replace(population, neuron=table),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    report: dict[str, Any] = {
        "measured": describe("numpy", "numba", "scipy", module="tests.spiking_accuracy"),
        "accuracy": {},
        "ns_per_synaptic_event": {},
    }
    for name, (model, _, _) in CASES.items():
        spikes, worst = error(name, 400)
        table = model.table  # type: ignore[attr-defined]
        report["accuracy"][name] = {
            "spikes": spikes,
            "largest_error_seconds": worst,
            "period_seconds": table.period,
            "pieces": [len(table.time.coefficients), len(table.voltage.coefficients)],
        }
    for name in ("eif", "tabulated lif", "lif", "qif"):
        report["ns_per_synaptic_event"][name] = {
            str(n): cost(name, n, 100, 20_000) for n in (1_000, 10_000)
        }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
