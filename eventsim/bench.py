"""Measure the simulator beside the dense runtimes: `eventsim bench`, `make bench`.

All contenders run the same weights on the same inputs in one process and one thread, a block of
steps each in turn, again and again; a figure is the median over the blocks. Ratios are taken
between blocks that follow one another, so that a busy machine slows both.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.compile import compile
from eventsim.dense import DenseForward
from eventsim.errors import SimulationError
from eventsim.network import Network
from eventsim.neurons import Delta
from eventsim.onnx_bytes import OPERATORS, onnx_model
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder, EventRecorder

if TYPE_CHECKING:
    from eventsim.models.policy import Policy

Float = NDArray[np.float64]
Step = Callable[[Any], Any]
#: A step function, and the inputs in its own form.
Contender = tuple[Step, Any]

#: Agent folder, environment and layer sizes of the networks measured.
AGENTS = {
    "ppo-LunarLander": ("ppo/LunarLander-v2", "LunarLander-v3", (8, 64, 64, 4), "tanh"),
    "sac-HalfCheetah": ("sac/HalfCheetah-v3", "HalfCheetah-v5", (17, 256, 256, 6), "relu"),
    "ddpg-LunarLanderContinuous": (
        "ddpg/LunarLanderContinuous-v2",
        "LunarLanderContinuous-v3",
        (8, 400, 300, 2),
        "relu",
    ),
}
#: Share of weights pruned, threshold scale, and whether the inputs are white noise.
SETTINGS = {
    "unpruned": (0.0, 0.0, False),
    "unpruned, white noise": (0.0, 0.0, True),
    "90 %, scale 0.1": (0.9, 0.1, False),
    "95 %, scale 0.3": (0.95, 0.3, False),
    "90 %, white noise": (0.9, 0.0, True),
}
PEERS = ("onnxruntime", "torch", "numpy")


@dataclass(frozen=True, eq=False)
class Case:
    """A feed-forward network with inputs for it.

    Parameters
    ----------
    name : str
    source : str
        ``"agent"`` or ``"random"``.
    network : Network
        A chain of layers, thresholds 0.
    inputs : float64 array of shape (T, n_inputs)
    """

    name: str
    source: str
    network: Network
    inputs: Float

    def layers(self) -> tuple[list[Float], list[Float], list[str]]:
        """Weights, biases and names of the activations, layer by layer."""
        neurons = [p.neuron for p in self.network.populations[1:]]
        return (
            [q.weights.to_dense().astype(np.float64) for q in self.network.projections],
            [p.parameter("bias") for p in self.network.populations[1:]],
            [n.activation.name for n in neurons if isinstance(n, Delta)],
        )

    def changed(self, pruned: float, scale: float, noise: bool, seed: int = 0) -> Case:
        """Return the case at another working point.

        Parameters
        ----------
        pruned : float
            Share of each layer's weights set to 0, the smallest first.
        scale : float
            Thresholds, as share of the spread of each activation over the inputs: the standard
            deviation of each input, its mean over a hidden layer.
        noise : bool
            Replace the inputs by white noise of their means and standard deviations.
        """
        dense = DenseForward(self.network).activations_over(self.inputs)
        inputs, network = self.inputs, self.network
        if noise:
            rng = np.random.default_rng(seed)
            inputs = rng.normal(inputs.mean(axis=0), inputs.std(axis=0) + 1e-3, inputs.shape)
        if pruned:
            network = network.with_weights(
                {q.name: _pruned(q.weights.to_dense(), pruned) for q in network.projections}
            )
        if scale:
            spread = {name: a.std(axis=0) for name, a in dense.items()}
            network = network.with_thresholds(
                {
                    p.name: scale * (spread[p.name] if p.is_input else spread[p.name].mean())
                    for p in network.populations[:-1]
                }
            )
        return replace(self, network=network, inputs=inputs)


def cases(
    agents: Path | None, n_steps: int = 2000, report: Callable[[str], Any] = str
) -> list[Case]:
    """The networks measured: trained agents where they are, else random ones of that size.

    Parameters
    ----------
    agents : Path or None
        Folder of trained agents, as of RL Baselines3 Zoo.
    n_steps : int
        Observations recorded of each, or drawn as a slow random walk.
    report : callable
        Told in one sentence why a network is random.
    """
    found = []
    for name, (folder, env_id, sizes, activation) in AGENTS.items():
        try:
            if agents is None:
                raise FileNotFoundError("no folder of agents is given")
            found.append(_agent(name, agents / folder, env_id, n_steps))
        except (ImportError, OSError, ValueError) as error:
            report(f"{name}: random weights, for {error}")
            found.append(_random(name, sizes, activation, n_steps))
    return found


def _agent(name: str, folder: Path, env_id: str, n_steps: int) -> Case:
    from eventsim.models.importers import load_policy
    from eventsim.models.rollout import make_env

    policy = load_policy(folder, env=env_id)
    env = make_env(env_id)
    try:
        return Case(name, "agent", policy.network, record(policy, env, n_steps))
    finally:
        env.close()


def record(policy: Policy, env: Any, n_steps: int) -> Float:
    """Play episodes with the dense policy from seed 0 on, and return what its network is given.

    Parameters
    ----------
    policy : Policy
    env : gymnasium.Env
    n_steps : int

    Returns
    -------
    float64 array of shape (n_steps, n_inputs)
    """
    session = policy.dense_session()
    rows: list[Float] = []
    seed = 0
    while len(rows) < n_steps:
        observation, _ = env.reset(seed=seed)
        session.reset()
        done, seed = False, seed + 1
        while not done and len(rows) < n_steps:
            action = session.act(observation)
            rows.append(np.array(session.inputs))
            observation, _, terminated, truncated, _ = env.step(action)
            done = terminated or truncated
    return np.array(rows)


def _random(name: str, sizes: Sequence[int], activation: str, n_steps: int) -> Case:
    rng = np.random.default_rng(sum(sizes))
    weights = [
        rng.normal(size=(n, m)).astype(np.float32) * np.float32(1.4 / np.sqrt(m))
        for m, n in itertools.pairwise(sizes)
    ]
    biases = [0.1 * rng.normal(size=n) for n in sizes[1:]]
    steps = 0.05 * rng.normal(size=(n_steps, sizes[0]))
    inputs = np.clip(np.cumsum(steps, axis=0), -2.0, 2.0)
    return Case(name, "random", Network.from_arrays(weights, biases, activation), inputs)


def _pruned(weights: NDArray[Any], share: float) -> NDArray[Any]:
    size = np.abs(weights)
    return np.where(size <= np.quantile(size, share), 0, weights)


def contenders(
    case: Case, peers: Sequence[str] = PEERS, report: Callable[[str], Any] = str
) -> dict[str, Contender]:
    """Step functions and the inputs in each one's own form.

    Parameters
    ----------
    case : Case
    peers : sequence of str, optional
    report : callable, optional
        Told in one sentence of a peer that is left out, as it is not installed or cannot run the
        network.

    Raises
    ------
    SimulationError
        If a peer's outputs at thresholds 0 are further than 1e-5 from the dense forward pass,
        relative to the largest output.
    """
    chain = _obstacle(case.network)
    weights, biases, activations = ([], [], []) if chain else case.layers()
    single = case.inputs.astype(np.float32)
    table: dict[str, Contender] = {"eventsim": (Simulator(case.network).step, case.inputs)}
    makers: Mapping[str, Callable[[], Contender]] = {
        "onnxruntime": lambda: _onnxruntime(weights, biases, activations, single),
        "torch": lambda: _torch(weights, biases, activations, single),
        "numpy": lambda: _numpy(weights, biases, activations, single),
    }
    for name in peers:
        if chain:
            report(f"{name} is left out: {chain}")
            continue
        try:
            table[name] = makers[name]()
        except ImportError:
            report(f"{name} is left out: it is not installed")
    n = min(100, len(single))
    exact = DenseForward(case.network).run(case.inputs[:n])
    exact_simulator = Simulator(case.network.with_thresholds(0.0))
    for name, (step, rows) in table.items():
        used = exact_simulator.step if name == "eventsim" else step
        got = np.stack([np.asarray(used(rows[k])).reshape(-1) for k in range(n)])
        error = float(np.abs(got - exact).max() / max(1.0, np.abs(exact).max()))
        if error > 1e-5:
            raise SimulationError(f"{name} is {error:.1e} off the dense forward pass")
    return table


def _obstacle(network: Network) -> str:
    """Why the peers' chain of dense layers is not this network; empty if it is."""
    populations, projections = network.populations, network.projections
    names = [p.name for p in populations]
    for q, ends in zip(projections, itertools.pairwise(names), strict=False):
        if (q.source, q.target) != ends or q.delay:
            return "the network is not a chain of layers"
    if len(projections) != len(populations) - 1 or network.outputs != (names[-1],):
        return "the network is not a chain of layers"
    for p in populations[1:]:
        if not isinstance(p.neuron, Delta) or p.neuron.activation.name not in OPERATORS:
            name = getattr(getattr(p.neuron, "activation", p.neuron), "name", p.neuron.kind)
            return f"the activation '{name}' is not among those compared"
    return ""


def _onnxruntime(
    weights: list[Float], biases: list[Float], activations: list[str], x: NDArray[np.float32]
) -> Contender:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_model(weights, biases, activations), options, providers=["CPUExecutionProvider"]
    )
    run = session.run
    return (lambda row: run(None, {"x": row})[0]), x[:, np.newaxis]


def _torch(
    weights: list[Float], biases: list[Float], activations: list[str], x: NDArray[np.float32]
) -> Contender:
    import torch

    torch.set_num_threads(1)
    modules: list[Any] = []
    for w, b, f in zip(weights, biases, activations, strict=True):
        layer = torch.nn.Linear(w.shape[1], w.shape[0])
        with torch.no_grad():
            layer.weight[:] = torch.from_numpy(w)
            layer.bias[:] = torch.from_numpy(b.copy())
        modules.append(layer)
        if OPERATORS[f]:
            modules.append(getattr(torch.nn, "ReLU" if f == "relu" else OPERATORS[f])())
    model = torch.nn.Sequential(*modules)

    def step(row: Any) -> Any:
        with torch.inference_mode():
            return model(row).numpy()

    return step, torch.from_numpy(x[:, np.newaxis])


def _numpy(
    weights: list[Float], biases: list[Float], activations: list[str], x: NDArray[np.float32]
) -> Contender:
    functions: dict[str, Any] = {
        "relu": lambda u: np.maximum(u, 0.0, out=u),
        "tanh": lambda u: np.tanh(u, out=u),
        "sigmoid": lambda u: 1.0 / (1.0 + np.exp(-u)),
        "identity": lambda u: u,
    }
    layers = [
        (w.astype(np.float32), b.astype(np.float32), functions[f])
        for w, b, f in zip(weights, biases, activations, strict=True)
    ]

    def step(row: Any) -> Any:
        for w, b, f in layers:
            row = f(w @ row + b)
        return row

    return step, x


def interleaved(table: Mapping[str, Contender], rounds: int, block: int) -> dict[str, Float]:
    """Microseconds a step of each contender, one value a round; they take turns by blocks.

    Parameters
    ----------
    table : dict of str to (step function, inputs)
        All inputs of one length T >= block.
    rounds, block : int
        How often each has its turn, and how many steps it does then.
    """
    taken: dict[str, list[float]] = {name: [] for name in table}
    clock = time.perf_counter
    for k in range(-1, rounds):  # the first round warms up
        for name, (step, inputs) in table.items():
            first = (k * block) % max(len(inputs) - block, 1)
            rows = [inputs[i] for i in range(first, first + block)]
            start = clock()
            for row in rows:
                step(row)
            if k >= 0:
                taken[name].append((clock() - start) / block * 1e6)
    return {name: np.array(values) for name, values in taken.items()}


def bench_steps(
    all_cases: Sequence[Case], rounds: int = 40, block: int = 100
) -> list[dict[str, Any]]:
    """One row a network and setting: medians, ratio to each peer, and what a step did."""
    return [
        {"setting": setting, **bench_case(case.changed(*working_point), rounds, block)}
        for case in all_cases
        for setting, working_point in SETTINGS.items()
    ]


def bench_case(
    case: Case, rounds: int = 40, block: int = 100, report: Callable[[str], Any] = str
) -> dict[str, Any]:
    """Medians and quartiles of a network as it is, ratio to each peer, and what a step did.

    Parameters
    ----------
    case : Case
        With at least `block` inputs.
    rounds, block : int
        As for `interleaved`.
    report : callable
        As for `contenders`.

    Raises
    ------
    SimulationError
        As `contenders`.
    """
    times = interleaved(contenders(case, report=report), rounds, block)
    simulator = Simulator(case.network)
    simulator.run(case.inputs)
    totals, n = simulator.totals, simulator.step_index
    return {
        "network": case.name,
        "weights": case.source,
        "microseconds": {k: round(float(np.median(v)), 3) for k, v in times.items()},
        "quartiles": {
            k: [round(float(q), 3) for q in np.quantile(v, [0.25, 0.75])] for k, v in times.items()
        },
        "ratio": {
            k: round(float(np.median(v / times["eventsim"])), 3)
            for k, v in times.items()
            if k != "eventsim"
        },
        "engine": simulator.engine,
        "events": round(float(totals.events.sum()) / n, 1),
        "evaluations": round(float(totals.evaluations.sum()) / n, 1),
        "synops": round(totals.synops / n, 1),
        "executed_macs": round(float(totals.executed_macs.sum()) / n, 1),
        "dense_macs": case.network.dense_macs(),
    }


def bench_sequences(all_cases: Sequence[Case], rounds: int = 20) -> list[dict[str, Any]]:
    """`Simulator.run` beside a bare scatter-add of the same synapses, hooks, and threads.

    All in microseconds a step. ``unchanged`` has the same inputs at every step: what is left is
    the comparison of the inputs and the counters, which is an upper bound on what they cost.
    """
    return [
        _sequence(case.changed(*SETTINGS[setting]), setting, rounds)
        for case in all_cases
        for setting in ("unpruned", "90 %, scale 0.1", "95 %, scale 0.3")
    ]


def _sequence(case: Case, setting: str, rounds: int) -> dict[str, Any]:
    from eventsim.batch import BatchSimulator

    x, n, network = case.inputs, len(case.inputs), case.network
    bare, synapses = scatter_of(network, x)
    still, same = Simulator(network), np.repeat(x[:1], n, axis=0)
    still.run(x[:1])
    plain = Simulator(network)
    copies = {k: BatchSimulator(network, 8, threads=k) for k in (1, 2)}
    stacked = np.repeat(x[np.newaxis], 8, axis=0)
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        plain.reset()
        hooked, recorder = (
            Simulator(network, [CounterRecorder()]),
            Simulator(network, [EventRecorder()]),
        )
        for name, seconds in (
            ("run", _seconds(lambda: plain.run(x))),
            ("scatter_add", _seconds(bare)),
            ("unchanged", _seconds(lambda: still.run(same))),
            ("run_with_counter_records", _seconds(partial(hooked.run, x))),
            ("run_with_event_records", _seconds(partial(recorder.run, x))),
            ("batch_of_8_on_1_thread", _seconds(lambda: copies[1].run(stacked)) / 8),
            ("batch_of_8_on_2_threads", _seconds(lambda: copies[2].run(stacked)) / 8),
        ):
            taken.setdefault(name, []).append(seconds / n * 1e6)
    return {
        "network": case.name,
        "weights": case.source,
        "setting": setting,
        "microseconds": {k: round(float(np.median(v)), 3) for k, v in taken.items()},
        "fastest_microseconds": {k: round(min(v), 3) for k, v in taken.items()},
        "synops": round(synapses / n, 1),
        "nanoseconds_per_synop": {
            k: round(float(np.median(taken[k])) * 1e3 * n / synapses, 3)
            for k in ("run", "scatter_add")
        },
    }


def scatter_of(network: Network, inputs: Float) -> tuple[Callable[[], None], int]:
    """A call that adds the synapses of all events of a run, in their order; and their number."""
    from eventsim.kernels.bare import scatter_add

    recorder = EventRecorder()
    Simulator(network, [recorder]).run(inputs)
    events, arrays = recorder.to_arrays(), compile(network)
    where, rows, values, first = [], [], [], []
    for p in range(len(network.populations)):
        mine = np.flatnonzero(events["population"] == p)
        for q in arrays.out_proj[arrays.pop_out[p] : arrays.pop_out[p + 1]]:
            where.append(mine)
            rows.append(arrays.proj_row[q] + events["neuron"][mine])
            values.append(events["value"][mine])
            first.append(np.full(mine.size, arrays.proj_accumulator[q]))
    order = np.argsort(np.concatenate(where), kind="stable")
    row, value, base = (np.concatenate(parts)[order] for parts in (rows, values, first))
    weights, u = arrays.syn_weight.astype(np.float32), arrays.initial.copy()
    targets = arrays.syn_target
    if arrays.initial.size <= 1 << 16:
        targets = targets.astype(np.uint16)
    synapses = int((arrays.row[row + 1] - arrays.row[row]).sum())
    return (lambda: scatter_add(arrays.row, targets, weights, row, value, u, base)), synapses


def machine(command: str) -> dict[str, Any]:
    """What the figures were measured with."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    versions = {}
    for name in ("eventsim", "numpy", "numba", "onnxruntime", "torch"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": command,
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
