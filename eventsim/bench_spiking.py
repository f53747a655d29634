"""Spiking networks beside SparseProp's algorithm and a bare loop over the same synapses.

The network is the inhibitory one of Engelken (NeurIPS 2023): k distinct random targets a neuron,
threshold 1, reset 0, ``w = -J0 / sqrt(k)``, mean drive ``sqrt(k) J0 nu tau`` (LIF: above the
threshold) with J0 = 1, nu = 1/s, tau = 10 ms, and uniform random phases at first.

All contenders of a case go through the same spikes of the same graph, in turn, in one process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.connectivity import Rows
from eventsim.kernels import sparseprop
from eventsim.network import Network, Population, Projection
from eventsim.spiking_compile import SpikingEngine, compile_spiking
from eventsim.spiking_neurons import LIF, QIF
from eventsim.spiking_threads import ThreadedLIF
from eventsim.spiking_window import WindowLIF, WindowQIF

Float = NDArray[np.float64]

TAU, RATE, STRENGTH = 0.01, 1.0, 1.0
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
ENGINES: dict[str, type[SpikingEngine]] = {"lif": WindowLIF, "qif": WindowQIF}


@dataclass(frozen=True)
class Balanced:
    """The network of the benchmarks.

    Parameters
    ----------
    model : str
        ``"lif"`` or ``"qif"``.
    neurons, degree : int
    seed : int, optional
    targets : uint32 array of shape (neurons * degree,), optional
        A graph that exists already.
    """

    model: str
    neurons: int
    degree: int
    seed: int = 0
    targets: NDArray[np.uint32] | None = None

    @property
    def weight(self) -> float:
        """Weight of every synapse."""
        return -STRENGTH / math.sqrt(self.degree)

    @property
    def drive(self) -> float:
        """I: of LIF neurons with the threshold, which is 1."""
        mean = math.sqrt(self.degree) * STRENGTH * RATE * TAU
        return 1.0 + mean if self.model == "lif" else mean

    @property
    def kick(self) -> float:
        """c: the weight over ``I - theta``, or over ``sqrt(I)``."""
        if self.model == "lif":
            return -self.weight / (self.drive - 1.0)
        return self.weight / math.sqrt(self.drive)

    def graph(self) -> NDArray[np.uint32]:
        """Draw the targets, if they have not been given."""
        if self.targets is not None:
            return self.targets
        targets = np.empty(self.neurons * self.degree, np.uint32)
        seen = np.full(self.neurons, -1, np.int32)
        sparseprop.random_graph(targets, self.neurons, self.degree, self.seed, seen)
        return targets

    def network(self, variant: str = "homogeneous") -> Network:
        """Describe it.

        Parameters
        ----------
        variant : str
            ``"homogeneous"``; ``"mixed weights"``: a fifth of the neurons excites, half as
            strongly, and every synapse has a weight of its own, uniform from 0.5 to 1.5 times
            the mean; ``"delay and refractory"``: 1 ms and 2 ms.
        """
        n, k = self.neurons, self.degree
        rng = np.random.default_rng(self.seed + 1)
        weights: Any = self.weight
        if variant == "mixed weights":
            factor = np.where(rng.random(n) < 0.2, -0.5 * self.weight, self.weight)
            weights = np.repeat(factor.astype(np.float32), k)
            weights *= rng.random(n * k, np.float32) + np.float32(0.5)
        waits = variant == "delay and refractory"
        model = self.neuron(0.002 if waits and self.model == "lif" else 0.0)
        rows = Rows((n, n), np.arange(n + 1) * k, self.graph(), weights)
        return Network(
            (Population("neurons", n, model),),
            (Projection("neurons", "neurons", rows, delay_seconds=0.001 if waits else 0.0),),
        )

    def neuron(self, refractory: float = 0.0) -> LIF | QIF:
        """Return the model, with uniform random phases at first."""
        phases = np.random.default_rng(self.seed).random(self.neurons)
        if self.model == "lif":
            model: LIF | QIF = LIF(TAU, self.drive)
            initial = model.at_phase(phases)
            return LIF(TAU, self.drive, refractory=refractory, initial=initial)
        model = QIF(TAU, self.drive)
        return QIF(TAU, self.drive, initial=model.at_phase(phases))


class SparseProp:
    """The baseline: the algorithm of SparseProp over a stored graph, from the engine's state."""

    def __init__(self, case: Balanced, targets: NDArray[np.uint32], engine: SpikingEngine) -> None:
        self.case, self.targets = case, targets
        volts = engine.voltages()
        if case.model == "lif":
            self.speed = 1.0 / math.log(case.drive / (case.drive - 1.0))
            self.unit = TAU / self.speed
            self.key = self.speed * np.log((case.drive - volts) / (case.drive - 1.0))
        else:
            self.unit = TAU / math.sqrt(case.drive)
            self.key = math.pi / 2 - np.arctan(volts / math.sqrt(case.drive))
        self.member = np.arange(case.neurons, dtype=np.int32)
        self.place = np.empty(case.neurons, np.int32)
        sparseprop.heapify(self.key, self.member, self.place)
        self.now, self.start = np.zeros(1), engine.now

    def run(self, spikes: int) -> tuple[Float, NDArray[np.int32]]:
        """Simulate so many spikes: times in seconds, and neurons."""
        times, ids = np.empty(spikes), np.empty(spikes, np.int32)
        heap = (self.key, self.member, self.place, self.targets, self.case.degree, self.case.kick)
        if self.case.model == "lif":
            sparseprop.lif(*heap, self.speed, self.now, times, ids)
        else:
            sparseprop.qif(*heap, self.now, times, ids)
        times *= self.unit
        times += self.start
        return times, ids


def _floor(case: Balanced, targets: NDArray[np.uint32]) -> Callable[[NDArray[np.int32]], None]:
    if case.model == "lif":
        values = np.ones(case.neurons)
        return lambda ids: sparseprop.floor_lif(values, targets, case.degree, ids, 1e-9)
    pairs = np.ones(2 * case.neurons)
    return lambda ids: sparseprop.floor_qif(pairs, targets, case.degree, ids, -1e-9, 0.6, 0.8)


def _scatter(case: Balanced, targets: NDArray[np.uint32]) -> Callable[[NDArray[np.int32]], None]:
    values = np.ones(case.neurons)
    return lambda ids: sparseprop.scatter(values, targets, case.degree, ids, 1e-9)


def bench_case(
    case: Balanced, spikes: int, baseline_spikes: int, rounds: int, clock: str
) -> dict[str, Any]:
    """Nanoseconds a synaptic event of all contenders, in turn, and whether spikes agree."""
    targets = case.graph()
    case = Balanced(case.model, case.neurons, case.degree, case.seed, targets)
    engine = ENGINES[case.model](compile_spiking(case.network()))
    _run(engine, max(spikes, case.neurons))  # away from the random phases
    baseline, floor = SparseProp(case, targets, engine), _floor(case, targets)
    scatter = _scatter(case, targets)
    taken: dict[str, list[float]] = {}
    agree, error, began = 0, 0.0, engine.now
    for k in range(-1, rounds):
        times, ids = _run(engine, spikes)
        if k < 0:  # the first round warms up
            other_times, other = baseline.run(baseline_spikes)
            same = min(spikes, baseline_spikes)
            differ = np.flatnonzero(other[:same] != ids[:same])
            agree = int(differ[0]) if differ.size else same
            error = float(np.abs(other_times[:agree] - times[:agree]).max(initial=0.0))
        rows = ids.astype(np.int32)
        table: tuple[tuple[str, Callable[[], Any], int], ...] = (
            ("eventsim", partial(_run, engine, spikes), spikes),
            ("sparseprop", partial(baseline.run, baseline_spikes), baseline_spikes),
            ("floor", partial(floor, rows), rows.size),
            ("scatter_add", partial(scatter, rows), rows.size),
        )
        for name, work, count in table:
            seconds = _seconds(work, clock)
            if k >= 0:
                taken.setdefault(name, []).append(seconds / count / case.degree * 1e9)
    median = {name: float(np.median(v)) for name, v in taken.items()}
    return {
        "model": case.model,
        "neurons": case.neurons,
        "degree": case.degree,
        "nanoseconds_per_synaptic_event": {k: round(v, 3) for k, v in median.items()},
        "fastest": {k: round(min(v), 3) for k, v in taken.items()},
        "times_faster_than_sparseprop": round(median["sparseprop"] / median["eventsim"], 2),
        "times_the_floor": round(median["eventsim"] / median["floor"], 2),
        "sparseprop_over_scatter_add": round(median["sparseprop"] / median["scatter_add"], 1),
        "rate_hz": round((2 * rounds + 3) * spikes / (engine.now - began) / case.neurons, 3),
        "spikes_compared": min(spikes, baseline_spikes),
        "spikes_in_the_same_order": agree,
        "largest_difference_seconds": error,
    }


def bench_variants(
    neurons: int, degree: int, spikes: int, rounds: int, clock: str
) -> dict[str, Any]:
    """LIF networks with weights of both signs, or delay and refractoriness, beside the plain."""
    case = Balanced("lif", neurons, degree)
    case = Balanced("lif", neurons, degree, targets=case.graph())
    engines = {
        name: WindowLIF(compile_spiking(case.network(name)))
        for name in ("homogeneous", "mixed weights", "delay and refractory")
    }
    taken: dict[str, list[float]] = {name: [] for name in engines}
    rates = {}
    for engine in engines.values():
        _run(engine, max(spikes, neurons))
    for _ in range(rounds):
        for name, engine in engines.items():
            start = engine.now
            seconds = _seconds(partial(_run, engine, spikes), clock)
            taken[name].append(seconds / spikes / degree * 1e9)
            rates[name] = round(spikes / (engine.now - start) / neurons, 3)
    median = {name: float(np.median(v)) for name, v in taken.items()}
    return {
        "neurons": neurons,
        "degree": degree,
        "nanoseconds_per_synaptic_event": {k: round(v, 3) for k, v in median.items()},
        "times_the_homogeneous": {
            k: round(v / median["homogeneous"], 2) for k, v in median.items()
        },
        "rate_hz": rates,
    }


def bench_scaling(
    sizes: Sequence[int], degree: int, rounds: int, clock: str
) -> list[dict[str, Any]]:
    """Microseconds a network spike over the size; SparseProp's up to 10^6 neurons."""
    rows = []
    for n in sizes:
        graph = Balanced("lif", n, degree).graph()
        row: dict[str, Any] = {"neurons": n, "degree": degree, "microseconds_per_spike": {}}
        for model, kind in ENGINES.items():
            case = Balanced(model, n, degree, targets=graph)
            engine = kind(compile_spiking(case.network()))
            _run(engine, n)
            spikes = max(n // 4, 100_000)
            slow = 20_000
            baseline = SparseProp(case, graph, engine) if n <= 1_000_000 else None
            taken: dict[str, list[float]] = {}
            for _ in range(rounds):
                taken.setdefault(model, []).append(
                    _seconds(partial(_run, engine, spikes), clock) / spikes
                )
                if baseline is not None:
                    taken.setdefault(f"{model} sparseprop", []).append(
                        _seconds(partial(baseline.run, slow), clock) / slow
                    )
            for name, values in taken.items():
                row["microseconds_per_spike"][name] = round(float(np.median(values)) * 1e6, 4)
        rows.append(row)
    return rows


def bench_threads(neurons: int, degree: int, spikes: int, rounds: int) -> dict[str, Any]:
    """LIF networks on one core and on two, by the clock on the wall, and whether spikes agree."""
    case = Balanced("lif", neurons, degree)
    ascending = np.sort(case.graph().reshape(neurons, degree), axis=1).reshape(-1)
    engine = WindowLIF(
        compile_spiking(Balanced("lif", neurons, degree, targets=ascending).network())
    )
    _run(engine, neurons)
    shared = {f"{k} threads, two passes": ThreadedLIF(engine, k) for k in (1, 2)}
    first = {name: runner.run(spikes) for name, runner in shared.items()}
    times, ids = _run(engine, max(who.size for _, who in first.values()))
    same = all(
        np.array_equal(ids[: who.size], who) and np.array_equal(times[: who.size], when)
        for when, who in first.values()
    )
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        seconds = _seconds(partial(_run, engine, spikes), "wall")
        taken.setdefault("engine", []).append(seconds / spikes / degree * 1e9)
        for name, runner in shared.items():
            start = time.perf_counter()
            count = runner.run(spikes)[1].size
            seconds = time.perf_counter() - start
            taken.setdefault(name, []).append(seconds / count / degree * 1e9)
    return {
        "neurons": neurons,
        "degree": degree,
        "clock": "wall",
        "nanoseconds_per_synaptic_event": {
            name: round(float(np.median(v)), 3) for name, v in taken.items()
        },
        "same_spikes": same,
    }


def bench_memory(neurons: int, degree: int) -> list[dict[str, Any]]:
    """Bytes of the graph a synapse, and of the engine a neuron, as allocated."""
    rows = []
    for model, kind in ENGINES.items():
        for variant in ("homogeneous", "mixed weights"):
            case = Balanced(model, neurons, degree)
            plan = compile_spiking(case.network(variant))
            engine = kind(plan)
            graph = plan.targets.nbytes + plan.weights.nbytes
            arrays = {id(a): a for a in engine._arguments}  # type: ignore[attr-defined]
            for stored in (plan.targets, plan.weights, plan.pointers):
                arrays.pop(id(stored), None)
            own = sum(a.nbytes for a in arrays.values())
            rows.append(
                {
                    "model": model,
                    "variant": variant,
                    "bytes_per_synapse": round(graph / plan.targets.size, 3),
                    "pointer_and_weight_bytes_per_row": round(
                        (plan.pointers.nbytes + plan.row_weight.nbytes) / neurons, 2
                    ),
                    "state_bytes_per_neuron": 8 if model == "lif" else 16,
                    "engine_bytes_per_neuron": round(own / neurons, 1),
                }
            )
    return rows


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw `bench_scaling`: cost of a network spike over the number of neurons."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = picture.subplots()
    styles = {
        "lif": ("LIF, window scan", "black", "o-"),
        "qif": ("QIF, window scan", "dimgrey", "s-"),
        "lif sparseprop": ("LIF, SparseProp's algorithm", "tab:red", "o--"),
        "qif sparseprop": ("QIF, SparseProp's algorithm", "tab:orange", "s--"),
    }
    for name, (label, colour, style) in styles.items():
        points = [
            (row["neurons"], row["microseconds_per_spike"][name])
            for row in rows
            if name in row["microseconds_per_spike"]
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, style, color=colour, label=label, markersize=5)
    axes.set(xscale="log", yscale="log", xlabel="neurons")
    axes.set_ylabel("time for a network spike (µs)")
    axes.set_title(f"{rows[0]['degree']} synapses a neuron, one core", fontsize=10)
    axes.grid(True, which="major", color="0.9")
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path)


def _run(engine: SpikingEngine, spikes: int) -> tuple[Float, NDArray[np.int64]]:
    parts = []
    while spikes > 0:
        parts.append(engine.run(math.inf, spikes))
        spikes -= parts[-1][0].size
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([t for t, _ in parts]), np.concatenate([i for _, i in parts])


def _seconds(work: Callable[[], Any], clock: str) -> float:
    now = CLOCKS[clock]
    start = now()
    work()
    return now() - start
