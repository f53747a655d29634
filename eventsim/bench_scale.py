"""How a step and the memory grow with a network: the second half of `eventsim bench`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.bench import scatter_of
from eventsim.connectivity import Sparse
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input
from eventsim.simulator import Simulator

FAN = 32
ACTIVE = 30
GROUPS = 10
#: Of `local_network`: so many that an indexed row pays.
_OUTPUTS = 256


def growing_network(size: int, seed: int = 0) -> Network:
    """Return a network in which every hidden neuron has `FAN` synapses in or out.

    A group of `ACTIVE` inputs reaches as many neurons of the first hidden layer, these reach
    ``ACTIVE * FAN`` different ones of the second, spread at random over its memory, and each of
    these has one synapse to the output: whatever the size, a step in which a group changes has
    the same events, evaluations and synapses.

    Parameters
    ----------
    size : int
        Neurons of each hidden layer, >= ``ACTIVE * FAN``.
    seed : int, optional
    """
    rng = np.random.default_rng(seed)
    spread = rng.permutation(size)
    n_inputs = ACTIVE * GROUPS
    first = rng.permutation(size)[:n_inputs]
    # Neuron i of the first layer stands at place rank[i]; a group takes neighbouring places.
    rank = np.empty(size, np.int64)
    rank[first] = np.arange(n_inputs)
    rank[np.setdiff1d(np.arange(size), first)] = np.arange(n_inputs, size)
    targets = np.sort(spread[(rank[:, np.newaxis] * FAN + np.arange(FAN)) % size], axis=1)
    weights = rng.normal(size=(size, FAN)).astype(np.float32)
    return _network(
        size,
        16,
        (first[:, np.newaxis], np.ones((n_inputs, 1))),
        (targets, weights),
        (np.arange(size)[:, np.newaxis] % 16, weights[:, :1]),
    )


def local_network(size: int, seed: int = 0) -> Network:
    """Return a network in which every neuron reaches `FAN` neighbouring ones of the next layer.

    The targets of neighbours overlap, so that one evaluation serves many synapses; inputs and
    outputs stand where the first hidden neurons do, but do not become more. Otherwise as
    `growing_network`.
    """
    rng = np.random.default_rng(seed)
    n_inputs = ACTIVE * GROUPS

    def neighbours(n_sources: int, n_targets: int) -> tuple[Any, Any]:
        targets = (np.arange(n_sources)[:, np.newaxis] + np.arange(FAN)) % n_targets
        return np.sort(targets, axis=1), rng.normal(size=(n_sources, FAN)) / np.sqrt(FAN)

    last = neighbours(size, _OUTPUTS)
    return _network(size, _OUTPUTS, neighbours(n_inputs, size), neighbours(size, size), last)


def _network(size: int, n_outputs: int, *rows: tuple[Any, Any]) -> Network:
    """Return a chain of inputs, two hidden layers and outputs from targets and weights of rows."""
    sizes = (ACTIVE * GROUPS, size, size, n_outputs)
    names = ("input", "first", "second", "output")
    return Network(
        tuple(
            Population(name, n, Delta() if k else Input())
            for k, (name, n) in enumerate(zip(names, sizes, strict=True))
        ),
        tuple(
            Projection(source, target, _rows(n, *row))
            for source, target, n, row in zip(names, names[1:], sizes[1:], rows, strict=False)
        ),
    )


def _rows(n_targets: int, targets: Any, weights: Any) -> Sparse:
    n, fan = targets.shape
    return Sparse(
        (n_targets, n),
        np.arange(n + 1) * fan,
        targets.reshape(-1).astype(np.int64),
        weights.reshape(-1).astype(np.float32),
    )


def bench_growth(
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000),
    rounds: int = 15,
    local: bool = False,
) -> list[dict[str, Any]]:
    """One row a size: what a step does and takes, and a bare scatter-add of its synapses.

    In ``changed`` steps another group changes at each step; in ``unchanged`` ones nothing does.
    `local` takes `local_network` instead of `growing_network`.
    """
    n_steps, rows = 200, []
    for size in sizes:
        network = local_network(size) if local else growing_network(size)
        rng = np.random.default_rng(1)
        # One group changes at each step; in the end all have their first values again, so that
        # this holds for the first step of a repetition too.
        base = rng.normal(size=ACTIVE * GROUPS)
        x = np.zeros((n_steps, ACTIVE * GROUPS))
        for t in range(n_steps):
            x[t] = x[t - 1] if t else base
            group = slice(t % GROUPS * ACTIVE, (t % GROUPS + 1) * ACTIVE)
            x[t, group] = rng.normal(size=ACTIVE) if t < n_steps - GROUPS else base[group]
        simulator = Simulator(network)
        simulator.run(x)  # the first step evaluates every neuron
        start = simulator.totals
        simulator.run(x)
        counts = simulator.totals.table.sum(axis=0) - start.table.sum(axis=0)
        bare, synapses = scatter_of(network, x)
        still = np.repeat(x[-1:], n_steps, axis=0)
        taken: dict[str, list[float]] = {"changed": [], "scatter_add": [], "unchanged": []}
        for _ in range(rounds):
            for name, work in (
                ("changed", partial(simulator.run, x)),
                ("scatter_add", bare),
                ("unchanged", partial(simulator.run, still)),
            ):
                begin = time.perf_counter()
                work()
                taken[name].append((time.perf_counter() - begin) / n_steps * 1e6)
        rows.append(
            {
                "neurons": size,
                "synapses": network.n_synapses,
                "evaluations": round(float(counts[0]) / n_steps, 1),
                "events": round(float(counts[1]) / n_steps, 1),
                "synops": round(float(counts[2]) / n_steps, 1),
                "scatter_add_synapses": round(synapses / n_steps, 1),
                "microseconds": {k: round(float(np.median(v)), 3) for k, v in taken.items()},
            }
        )
    return rows


def figure(cases: Mapping[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw counters and times of `bench_growth` over the size, as an SVG file.

    Parameters
    ----------
    cases : dict of str to list of dict
        What `bench_growth` gave, by a name of the wiring; a row of plots each.
    path : Path
    """
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8.0, 3.2 * len(cases)), layout="constrained")
    plots = picture.subplots(len(cases), 2, squeeze=False)
    for (name, rows), (left, right) in zip(cases.items(), plots, strict=True):
        sizes = [row["neurons"] for row in rows]
        for column, style in (("synops", "o-"), ("events", "s-"), ("evaluations", "^--")):
            left.plot(sizes, [row[column] for row in rows], style, label=column)
        left.set(ylabel="a step", title=f"{name}: counters")
        for column, label in (
            ("changed", "step"),
            ("scatter_add", "bare scatter-add"),
            ("unchanged", "step without change"),
        ):
            right.plot(sizes, [row["microseconds"][column] for row in rows], "o-", label=label)
        right.set(ylabel="µs", title=f"{name}: time")
        for axes in (left, right):
            axes.set(xscale="log", ylim=(0, None), xlabel="neurons of a hidden layer")
            axes.legend(frameon=False)
    picture.savefig(path, metadata={"Date": None})


def bench_memory(synapses: int = 100_000_000) -> dict[str, Any]:
    """Compile a network of that many synapses in a process of its own: peak memory and seconds."""
    script = (
        "from eventsim.bench_scale import compile_large; import json, sys;"
        "print(json.dumps(compile_large(int(sys.argv[1]))))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(synapses)], check=True, capture_output=True, text=True
    )
    return dict(json.loads(out.stdout))


def compile_large(synapses: int) -> dict[str, Any]:
    """Compile a random network of two layers of 50,000 neurons; what `bench_memory` runs."""
    from eventsim.plan import compile_plan

    n = 50_000
    fan = synapses // n
    rng = np.random.default_rng(0)
    # Distinct sorted targets: one out of each of `fan` equal ranges.
    width = n // fan
    targets = np.empty(n * fan, np.int64)
    for i in range(n):
        targets[i * fan : (i + 1) * fan] = np.arange(fan) * width + rng.integers(0, width, fan)
    weights = rng.standard_normal(n * fan, dtype=np.float32)
    network = Network(
        (Population("input", n, Input()), Population("output", n, Delta())),
        (Projection("input", "output", Sparse((n, n), np.arange(n + 1) * fan, targets, weights)),),
    )
    before = _peak()
    start = time.perf_counter()
    plan = compile_plan(network)
    seconds = time.perf_counter() - start
    return {
        "synapses": n * fan,
        "seconds": round(seconds, 2),
        "peak_gibibytes": round(_peak(), 2),
        "network_gibibytes": round(before, 2),
        "bytes_per_synapse": round(plan.bytes_indexed / max(plan.indexed_synapses, 1), 2),
        "plan_gibibytes": round(plan.buffer.nbytes / (1 << 30), 2),
    }


def _peak() -> float:
    """Largest memory of this process so far, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage says begins with the size of the process that started this one.
        text = status.read_text(encoding="ascii")
        return int(text.split("VmHWM:")[1].split()[0]) / (1 << 20)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
