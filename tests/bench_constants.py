"""The constants of the cost model in docs/performance.md, measured: ``tests.bench --constants``.

Each is a difference between two runs that differ in one thing, divided by how much of it; runs
take turns, and the fastest turn of each counts, as other work on the machine only ever adds.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import eventsim.kernels
from eventsim.bench import Case
from eventsim.engines import LevelEngine, level_kernel
from eventsim.network import Network
from eventsim.simulator import Simulator

#: What counts and nothing else, in the sources of the kernels.
_COUNTING = {
    "levels.py": (
        "        for k in range(n_counts):\n            state[Unsigned(count) + Unsigned(k)] = 0\n",
        "        for k in range(n_counts):\n            state[Unsigned(totals) + Unsigned(k)] += "
        "state[Unsigned(count) + Unsigned(k)]\n",
        "        state[row + EVENTS] = n_events\n",
        "    state[row + plan[q + Q_COLUMN]] += synapses\n",
        "    state[row + EXECUTED] += executed\n",
        "    state[row + EVALUATIONS] = n_changed\n",
    ),
    "evaluate.py": (
        "    state[row + EVALUATIONS] = n_evaluated\n",
        "    state[row + EVALUATIONS] = n_pending\n",
    ),
}
_STEPS = 1000


def constants(rounds: int = 40) -> dict[str, float]:
    """Nanoseconds of each part of a step; see docs/performance.md for what they are."""
    step = _difference(lambda: _quiet(8), lambda: _none, rounds)
    per_input = _difference(lambda: _quiet(264), lambda: _quiet(8), rounds) / 256
    call = _difference(lambda: _quiet(8, called=True), lambda: _quiet(8), rounds)
    found = {"call from Python": call, "step": step - 8 * per_input, "input": per_input}
    dense = _difference(lambda: _busy(128, 512, 1.0), lambda: _busy(64, 512, 1.0), rounds)
    position = found["position, dense row"] = dense / (64 * 512)
    short, long = (
        _difference(lambda k=k: _busy(128, 256, k), lambda k=k: _busy(64, 256, k), rounds) / 64
        for k in (8 / 256, 48 / 256)
    )
    synapse = found["synapse, indexed row"] = (long - short) / 40
    found["event, indexed row"] = short - 8 * synapse
    for activation in ("relu", "tanh"):
        blocks = _difference(
            lambda a=activation: _busy(1, 1088, 1.0, a),
            lambda a=activation: _busy(1, 64, 1.0, a),
            rounds,
        )
        found[f"evaluation, block of 64, {activation}"] = blocks / 16 - 64 * position
        few = _difference(
            lambda a=activation: _busy(1, 1088, 1 / 64, a),
            lambda a=activation: _busy(1, 64, 1 / 64, a),
            rounds,
        )
        found[f"evaluation, single in a block, {activation}"] = few / 16 - synapse
    return {name: round(value, 3) for name, value in found.items()}


def counting(cases: list[Case], rounds: int = 40) -> list[dict[str, Any]]:
    """Time of `run` with counters over that of the same kernels compiled without them."""
    with tempfile.TemporaryDirectory() as folder:
        plain = _uncounted(Path(folder))
        return [_counting(case, plain, rounds) for case in cases]


def _counting(case: Case, plain: Any, rounds: int) -> dict[str, Any]:
    engine = LevelEngine(case.network)
    x = np.ascontiguousarray(case.inputs).reshape(-1)
    outputs = np.empty(len(case.inputs) * case.network.n_outputs)
    kernels = {"with": level_kernel(), "without": plain}
    taken: dict[str, list[float]] = {name: [] for name in kernels}
    results = {}
    for _ in range(rounds + 1):  # the first round warms up
        for name, kernel in kernels.items():
            engine.reset()
            start = time.perf_counter()
            kernel(x, outputs, engine.plan, engine.state)
            taken[name].append(time.perf_counter() - start)
            results[name] = outputs.copy()
    if not np.array_equal(results["with"], results["without"]):
        raise RuntimeError("the kernels without counters give other outputs")
    fastest = {name: min(times) / len(case.inputs) * 1e6 for name, times in taken.items()}
    return {
        "network": case.name,
        "microseconds": {name: round(value, 3) for name, value in fastest.items()},
        "with_over_without": round(fastest["with"] / fastest["without"], 3),
    }


def _uncounted(folder: Path) -> Any:
    """Compile the kernels from sources without the lines that count."""
    package = folder / "uncounted_kernels"
    package.mkdir()
    for path in Path(eventsim.kernels.__path__[0]).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for line in _COUNTING.get(path.name, ()):
            if text.count(line) != 1:
                raise RuntimeError(f"{path.name} no longer counts by {line.strip()!r}")
            text = text.replace(line, "")
        text = text.replace("eventsim.kernels", package.name)
        (package / path.name).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module(f"{package.name}.levels")
    finally:
        sys.path.remove(str(folder))
    signature = tuple(level_signature())
    module.advance.compile(signature)
    return module.advance.get_overload(signature)


def level_signature() -> list[Any]:
    """Argument types of `levels.advance`."""
    from numba import types

    values, words = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C")
    return [values, values, words, words]


def _none() -> None:
    """Do nothing."""


def _quiet(n_inputs: int, called: bool = False) -> Callable[[], Any]:
    """Steps in which nothing changes, in one call or one by one."""
    simulator = Simulator(Network.from_arrays([np.ones((16, n_inputs)), np.ones((4, 16))]))
    x = np.ones((_STEPS, n_inputs))
    simulator.run(x)
    if not called:
        return lambda: simulator.run(x)

    def one_by_one() -> None:
        for row in x:
            simulator.step(row)

    return one_by_one


def _busy(changed: int, n_targets: int, fill: float, activation: str = "relu") -> Callable[[], Any]:
    """Steps in which so many inputs change, before a layer that transmits nothing."""
    rng = np.random.default_rng(0)
    keep = max(round(fill * n_targets), 1)
    weights = np.zeros((n_targets, max(changed, 128)), np.float32)
    for i in range(weights.shape[1]):
        # With one target a block they stand at equal distances.
        equal = np.arange(keep) * (n_targets // keep)
        places = equal if changed == 1 else rng.permutation(n_targets)[:keep]
        weights[places, i] = rng.normal(size=keep)
    network = Network.from_arrays([weights, np.ones((1, n_targets))], None, activation)
    quiet = {network.populations[1].name: 1e300}
    simulator = Simulator(network.with_thresholds(quiet))
    x = np.zeros((_STEPS, weights.shape[1]))
    x[::2, :changed] = 1.0
    simulator.run(x)
    return lambda: simulator.run(x)


def _difference(
    more: Callable[[], Callable[[], Any]], less: Callable[[], Any], rounds: int
) -> float:
    """Difference of the fastest turns, in nanoseconds a step."""
    high, low = more(), less()
    slow, fast = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        high()
        middle = time.perf_counter()
        low()
        slow.append(middle - start)
        fast.append(time.perf_counter() - middle)
    return (min(slow) - min(fast)) / _STEPS * 1e9
