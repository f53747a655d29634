"""Simulate an example network and say what came out: the work behind ``eventsim simulate``."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.analysis.energy import DEFAULT_DEVICES, estimate, load_profile
from eventsim.builders import balanced, excitatory_inhibitory
from eventsim.errors import InputError, UnknownNameError
from eventsim.network import Network
from eventsim.output import prepare_folder, write_atomically, write_text
from eventsim.recording import ParquetRecorder
from eventsim.spiking_simulator import SpikingSimulator
from eventsim.trace import Events, Hook

SCHEMA = "eventsim-simulate/1"
NETWORKS = ("balanced", "excitatory-inhibitory")
#: Neurons of the raster, over all populations.
RASTER_NEURONS = 300
_RASTER_BINS = 900


class Intervals(Hook):
    """Mean and spread of the intervals between a neuron's spikes, in 32 bytes a neuron.

    Attributes
    ----------
    sample : list of (population, neuron, time) arrays
        Spikes of the first neurons of every population.
    """

    records_events: ClassVar[bool] = True

    def __init__(self, network: Network) -> None:
        sizes = np.array([p.size for p in network.populations], np.int64)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        n = int(self._first[-1])
        self._last = np.full(n, np.nan)
        self._count = np.zeros(n, np.int64)
        self._sum, self._squares = np.zeros(n), np.zeros(n)
        self.shown = np.maximum(np.minimum(sizes, RASTER_NEURONS * sizes // n), 1)
        self.sample: list[tuple[NDArray[Any], ...]] = []

    def on_events(self, events: Events) -> None:
        """Take the spikes."""
        near = events.neuron < self.shown[events.population]
        self.sample.append((events.population[near], events.neuron[near], events.time[near]))
        neuron = self._first[events.population] + events.neuron
        order = np.argsort(neuron, kind="stable")
        who, when = neuron[order], events.time[order]
        before = np.empty_like(when)
        again = np.zeros(who.size, np.bool_)
        again[1:] = who[1:] == who[:-1]
        before[1:] = when[:-1]
        before[~again] = self._last[who[~again]]
        gap = when - before
        known = ~np.isnan(gap)
        np.add.at(self._count, who[known], 1)
        np.add.at(self._sum, who[known], gap[known])
        np.add.at(self._squares, who[known], gap[known] ** 2)
        last = np.append(~again[1:], True)[: who.size]
        self._last[who[last]] = when[last]

    @property
    def cv(self) -> float | None:
        """Coefficient of variation, mean over neurons of at least two intervals; None if none."""
        enough = self._count >= 2
        if not enough.any():
            return None
        mean = self._sum[enough] / self._count[enough]
        variance = np.maximum(self._squares[enough] / self._count[enough] - mean**2, 0.0)
        return float(np.mean(np.sqrt(variance) / mean))


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a simulation found; ``data`` is of the schema ``eventsim-simulate/1``."""

    network: Network
    data: dict[str, Any]
    intervals: Intervals

    def to_json(self) -> str:
        """Return `data` as JSON text."""
        return json.dumps(self.data, indent=2, allow_nan=False) + "\n"


def build(
    network: str, model: str, neurons: int, indegree: int, seed: int, rate: float = 1.0
) -> Network:
    """Build one of `NETWORKS`.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    InputError
        If a number is out of range, or the network is not one of such neurons.
    """
    if network == "balanced":
        return balanced(neurons, indegree, model, rate=rate, seed=seed)  # type: ignore[arg-type]
    if network == "excitatory-inhibitory":
        if model != "lif":
            raise InputError(f"is {model!r}; this network is of lif neurons", field="model")
        return excitatory_inhibitory(neurons, indegree, rate=rate, seed=seed)
    raise UnknownNameError(f"network {network!r} is not known; use {' or '.join(NETWORKS)}")


def simulate(
    network: str = "balanced",
    *,
    model: str = "lif",
    neurons: int = 10_000,
    indegree: int = 100,
    spikes: int = 100_000,
    seed: int = 0,
    rate: float = 1.0,
    engine: str = "auto",
    devices: tuple[str, ...] = DEFAULT_DEVICES,
    out: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Simulation:
    """Build an example network, run it for a number of spikes, and measure.

    Parameters
    ----------
    network, model, neurons, indegree, seed, rate
        As for `build`.
    spikes : int
    engine : str
    devices : tuple of str
        Energy profiles.
    out : path, optional
        Folder for simulate.json, the spikes as Parquet, and raster.png.
    progress : bool, optional

    Raises
    ------
    EventsimError
        If an argument is out of range, or the folder cannot be written.
    """
    if isinstance(spikes, bool) or spikes < 1:
        raise InputError(f"is {spikes}; give at least 1", field="spikes")
    profiles = [load_profile(device) for device in devices]
    folder = None if out is None else prepare_folder(out)
    if network in NETWORKS:  # compile what will run, on a network too small to matter
        SpikingSimulator(build(network, model, 60, 10, seed, rate), engine=engine).run(spikes=9)
    began = time.perf_counter()
    description = build(network, model, neurons, indegree, seed, rate)
    intervals = Intervals(description)
    recorder = None if folder is None else ParquetRecorder(folder)
    hooks: list[Hook] = [intervals] if recorder is None else [intervals, recorder]
    simulator = SpikingSimulator(description, hooks, engine=engine)
    built = time.perf_counter() - began
    simulator.run(spikes=spikes, progress=progress)
    if recorder is not None:
        recorder.close()
    totals, seconds = simulator.totals, simulator.now
    found = int(totals.events.sum())
    data = {
        "schema": SCHEMA,
        "network": network,
        "model": model,
        "neurons": description.n_neurons,
        "indegree": indegree,
        "seed": seed,
        "engine": simulator.engine,
        "spikes": found,
        "synaptic_events": totals.synops,
        "simulated_seconds": seconds,
        "wall_seconds": simulator.engine_seconds,
        "build_seconds": built,
        "rate_hz": found / description.n_neurons / seconds if seconds > 0.0 else None,
        "cv": intervals.cv,
        "peak_bytes": peak_bytes(),
        "populations": [
            {
                "name": p.name,
                "neurons": p.size,
                "events": int(totals.events[k]),
                "evaluations": int(totals.evaluations[k]),
                "acs": int(totals.acs[k]),
            }
            for k, p in enumerate(description.populations)
        ],
        "energy": [_energy(description, totals, seconds, profile) for profile in profiles],
    }
    result = Simulation(description, data, intervals)
    if folder is not None:
        write_atomically(folder / "raster.png", lambda path: _draw(result).savefig(path))
        text = result.to_json()
        write_atomically(folder / "simulate.json", lambda path: write_text(path, text))
    return result


def peak_bytes() -> int | None:
    """Largest memory of the process until now; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else 1024 * peak)


def _energy(network: Network, totals: Any, seconds: float, profile: Any) -> dict[str, Any]:
    """Joules of the run, priced in steps of 1 ms for devices that update at every step."""
    step = 1e-3
    steps = max(seconds / step, 1.0)
    populations = network.populations
    found = estimate(
        profile,
        dense_macs=[network.dense_macs(p.name) for p in populations],
        neurons=[p.size for p in populations],
        macs=totals.macs / steps,
        acs=totals.acs / steps,
        events=totals.events / steps,
        evaluations=totals.evaluations / steps,
        is_input=[p.is_input for p in populations],
        step_seconds=step,
    )

    def whole(joules: float | None) -> float | None:
        return None if joules is None else joules * steps

    return {
        "device": found.device,
        "step_seconds": step,
        "dynamic_joules": whole(found.event_joules_per_step),
        "static_joules": whole(found.static_joules_per_step),
        "assumed": list(found.assumed),
        "unpriced": list(found.unpriced),
    }


def _draw(result: Simulation) -> Any:
    """The figure of some neurons' spikes."""
    from matplotlib.ticker import MaxNLocator

    from eventsim.analysis.raster import raster

    seconds = max(result.data["simulated_seconds"], 1e-12)
    width = seconds / _RASTER_BINS
    columns = [np.concatenate(c) for c in zip(*result.intervals.sample, strict=True)]
    population, neuron, when = columns
    step = np.minimum((when / width).astype(np.int64), _RASTER_BINS - 1)
    events = {
        "step": step,
        "population": population.astype(np.int64),
        "neuron": neuron.astype(np.int64),
        "value": np.ones(step.size),
    }
    shown = [
        (f"{p.name}, first of {p.size}", int(n))
        for p, n in zip(result.network.populations, result.intervals.shown, strict=True)
    ]
    cv = result.data["cv"]
    title = f"{result.network.name}: {result.data['rate_hz']:.3g} spikes a second and neuron"
    ax = raster(
        events, shown, steps=_RASTER_BINS, title=title + ("" if cv is None else f", CV {cv:.2f}")
    )
    ticks = MaxNLocator(6).tick_values(0.0, seconds)
    ticks = ticks[ticks < 0.97 * seconds]
    ax.set_xticks(ticks / width - 0.5, [f"{t:.6g}" for t in ticks])
    ax.set_xlabel("time (s)", fontsize=9)
    for child in ax.child_axes:
        beside: Any = child
        if child.get_label() == "rate":
            beside.set_title("bins with\na spike", fontsize=8, loc="left", pad=4)
    return ax.figure
