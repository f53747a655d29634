"""Speed of convolutional networks on recorded Atari frames, beside onnxruntime's dense step.

    python -m tests.bench_conv --out docs/benchmarks/conv.json

Frames are those of random play through gymnasium's own preprocessing (ALE v5, frame skip 4,
sticky actions 0.25, 84 x 84, four stacked). Weights are random,
as a fresh NatureCNN has them. All contenders run in one process and one thread, a block of steps
each in turn. Of a short block, reading the weights into the caches anew is a larger part, as the
others have used them meanwhile. A figure is the median over the blocks, a ratio the median of the
ratios of blocks that follow one another. onnxruntime is given float32 frames that are divided by
255 already; the simulator is given the bytes.

Trained networks, on frames of the optimised policies' own play:

    python -m tests.bench_conv --teachers runs/atari/pong --optimised runs/pictures/pong.safetensors
        --out docs/benchmarks/conv_trained.json
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.models.families import PictureFamily
from eventsim.models.policy import Policy
from eventsim.models.rollout import make_for
from eventsim.models.student import Demonstrations
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.stack import Stack, channels_last
from tests.machine import describe
from tests.optimize_table import write

GAMES = ("Pong", "Breakout")
#: Share of weights pruned in each layer, input threshold in bytes, and hidden threshold.
SETTINGS = {
    "unpruned, threshold 0": (0.0, 0.0),
    "90 % pruned, threshold 0": (0.9, 0.0),
    "95 % pruned, threshold 0": (0.95, 0.0),
    "95 % pruned, thresholds 0.1 spread": (0.95, 0.1),
}
KERNELS = ((32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3))
STRIDES = (4, 2, 1)


def record(game: str, steps: int, seed: int = 0) -> np.ndarray:
    """Frames of random play, uint8 of shape (steps, 4, 84, 84)."""
    import ale_py
    import gymnasium as gym

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gym.register_envs(ale_py)
    env: Any = gym.make(f"ALE/{game}-v5", frameskip=1)
    env = gym.wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4)
    env = gym.wrappers.FrameStackObservation(env, 4)
    env.action_space.seed(seed)
    frames, done = [], True
    for k in range(steps):
        if done:
            observation, _ = env.reset(seed=seed + k)
        frames.append(np.array(observation))
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        done = terminated or truncated
    env.close()
    return np.stack(frames)


def play(policy: Policy, steps: int, seed: int = 40_000) -> np.ndarray:
    """Frames of a policy's own play, uint8 of shape (steps, 4, 84, 84)."""
    session = policy.session()
    frames, done = [], True
    with make_for(policy, str(policy.env_id)) as env:
        for k in range(steps):
            if done:
                observation, _ = env.reset(seed=seed + k)
                session.reset()
            frames.append(np.array(observation))
            observation, _, terminated, truncated, _ = env.step(session.act(observation))
            done = terminated or truncated
    return np.stack(frames)


def taught(folder: Path) -> tuple[list[tuple[np.ndarray, np.ndarray]], Policy]:
    """A teacher's layers in torch's order, and its policy."""
    policy = Policy.load(folder / "policy.safetensors")
    student = PictureFamily(policy).own(policy, Demonstrations())
    if student is None:
        raise SystemExit(f"'{folder}' holds no plain stack of convolutions and linear layers")
    layers = [
        (weight.astype(np.float32), bias.astype(np.float32))
        for weight, bias in zip(student.weights, student.biases, strict=True)
    ]
    return layers, policy


def weights(rng: np.random.Generator, n_actions: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases as torch draws them: uniform within one over the root of the fan-in."""
    layers = []
    for shape in (*KERNELS, (512, 3136), (n_actions, 512)):
        bound = 1.0 / np.sqrt(np.prod(shape[1:]))
        layers.append(
            (
                rng.uniform(-bound, bound, shape).astype(np.float32),
                rng.uniform(-bound, bound, shape[0]).astype(np.float32),
            )
        )
    return layers


def pruned(array: np.ndarray, share: float) -> np.ndarray:
    """The array with the smallest `share` of its weights set to 0."""
    if not share:
        return array
    limit = np.quantile(np.abs(array), share)
    return np.where(np.abs(array) <= limit, np.float32(0.0), array)


def network(layers: Sequence[tuple[np.ndarray, np.ndarray]], share: float) -> Network:
    """The NatureCNN on bytes."""
    stack = Stack((4, 84, 84), scale=1.0 / 255.0)
    for (kernel, bias), stride in zip(layers, STRIDES, strict=False):
        stack.convolution(pruned(kernel, share), bias, stride).activation("relu")
    stack.flatten().linear(pruned(layers[3][0], share), layers[3][1]).activation("relu")
    return stack.linear(*layers[4]).network(name="nature")


def with_thresholds(net: Network, scale: float, frames: np.ndarray) -> Network:
    """Hidden thresholds as a share of the layer's mean spread over frames; inputs compare bytes."""
    from eventsim.dense import DenseForward

    if not scale:
        return net
    activations = DenseForward(net).activations_over(frames[:100])
    return net.with_thresholds(
        {
            p.name: scale * float(activations[p.name].std(axis=0).mean())
            for p in net.populations[1:-1]
        }
    )


def onnx_session(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Callable[[np.ndarray], Any]:
    """The dense step of onnxruntime, one thread."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, last = [], [], "x"
    for k, (array, bias) in enumerate(layers):
        constants += [
            numpy_helper.from_array(array, f"w{k}"),
            numpy_helper.from_array(bias, f"b{k}"),
        ]
        if k == 3:
            nodes.append(helper.make_node("Flatten", [last], ["flat"]))
            last = "flat"
        if array.ndim == 4:
            nodes.append(
                helper.make_node(
                    "Conv", [last, f"w{k}", f"b{k}"], [f"u{k}"], strides=[STRIDES[k]] * 2
                )
            )
        else:
            nodes.append(helper.make_node("Gemm", [last, f"w{k}", f"b{k}"], [f"u{k}"], transB=1))
        last = f"u{k}"
        if k < 4:
            nodes.append(helper.make_node("Relu", [last], [f"a{k}"]))
            last = f"a{k}"
    graph = helper.make_graph(
        nodes,
        "nature",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 84, 84])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, len(layers[-1][1])])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda x: session.run(None, {"x": x})[0]


def torch_step(layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Callable[[np.ndarray], Any]:
    """The dense step of torch, one thread."""
    import torch

    torch.set_num_threads(1)
    tensors = [(torch.tensor(w), torch.tensor(b)) for w, b in layers]

    def step(x: np.ndarray) -> Any:
        with torch.inference_mode():
            y = torch.from_numpy(x)
            for (w, b), stride in zip(tensors, STRIDES, strict=False):
                y = torch.relu(torch.nn.functional.conv2d(y, w, b, stride))
            y = torch.relu(torch.nn.functional.linear(y.flatten(1), *tensors[3]))
            return torch.nn.functional.linear(y, *tensors[4]).numpy()

    return step


def noisy(frames: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Frames of which a share of the bytes, scattered uniformly, changes at every step."""
    x = frames[0].copy()
    rows = []
    for _ in range(len(frames)):
        change = rng.random(x.shape) < share
        x = np.where(change, rng.integers(0, 256, x.shape), x).astype(np.uint8)
        rows.append(x)
    return np.stack(rows)


def compare(
    net: Network,
    dense: dict[str, Callable[[np.ndarray], Any]],
    frames: np.ndarray,
    rounds: int,
    block: int,
) -> dict[str, Any]:
    """Medians in microseconds, ratios, and what the steps did."""
    rows = channels_last(frames).reshape(len(frames), -1)
    floats = (frames.astype(np.float32) / np.float32(255.0))[:, np.newaxis]
    simulator = Simulator(net)
    runners: dict[str, tuple[Callable[[np.ndarray], Any], np.ndarray]] = {
        "eventsim": (simulator.step, rows),
        **{name: (step, floats) for name, step in dense.items()},
    }
    worst = 0.0
    reference = dense["onnxruntime"]
    for k in range(10):
        worst = max(worst, float(np.abs(simulator.step(rows[k]) - reference(floats[k])[0]).max()))
    simulator.reset()
    times: dict[str, list[float]] = {name: [] for name in runners}
    at = 0
    for turn in range(rounds):
        here = range(at, min(at + block, len(rows)))
        at = 0 if here.stop == len(rows) else here.stop
        for name, (step, inputs) in runners.items():
            if here.start == 0 and name == "eventsim":
                step(inputs[0])  # what a jump back to the first frame costs is not a step
            begin = time.perf_counter()
            for k in here:
                step(inputs[k])
            times[name].append((time.perf_counter() - begin) / len(here) * 1e6)
        del turn
    simulator.reset()
    simulator.step(rows[0])
    first = simulator.totals.synops
    simulator.run(rows[1:])
    synops = (simulator.totals.synops - first) / (len(rows) - 1)
    ratios = {
        name: float(np.median(np.array(values) / np.array(times["eventsim"])))
        for name, values in times.items()
        if name != "eventsim"
    }
    quartiles = {
        name: [round(float(q), 2) for q in np.percentile(v, [25, 50, 75])]
        for name, v in times.items()
    }
    return {
        "engine": simulator.engine,
        "block": block,
        "microseconds_quartiles": quartiles,
        "ratio": {name: round(r, 3) for name, r in ratios.items()},
        "changed_inputs": round(float((rows[1:] != rows[:-1]).mean()), 5),
        "synops_per_step": round(synops, 1),
        "reduction": round(net.dense_macs() / synops, 2) if synops else None,
        "events_per_step": {
            name: round(float(n) / len(rows), 1)
            for name, n in zip(
                (p.name for p in net.populations), simulator.totals.events, strict=True
            )
        },
        "largest_difference_to_onnxruntime": worst if not _is_pruned(net) else None,
    }


def _is_pruned(net: Network) -> bool:
    return net.n_synapses < net.dense_macs() or any(
        p.parameter("threshold").any() for p in net.populations
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600, help="frames of each game")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each contender")
    parser.add_argument("--block", type=int, default=100, help="steps of a turn")
    parser.add_argument("--games", nargs="*", default=GAMES)
    parser.add_argument("--teachers", nargs="*", type=Path, default=[], help="folders")
    parser.add_argument("--optimised", nargs="*", type=Path, default=[], help="one a teacher")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.teachers:
        measure_trained(options)
        return
    rng = np.random.default_rng(0)
    layers = weights(rng)
    dense = {"onnxruntime": onnx_session(layers), "torch": torch_step(layers)}
    results = []

    def measure(name: str, setting: str, net: Network, frames: np.ndarray) -> None:
        row = {
            "frames": name,
            "setting": setting,
            **compare(net, dense, frames, options.rounds, options.block),
        }
        results.append(row)
        middle = {k: v[1] for k, v in row["microseconds_quartiles"].items()}
        print(f"{name:<10}{setting:<36}{middle}  ratio {row['ratio']}", file=sys.stderr)

    frames = np.zeros(0)
    for game in options.games:
        frames = record(game, options.steps)
        rows = channels_last(frames).reshape(len(frames), -1)
        for setting, (share, scale) in SETTINGS.items():
            measure(game, setting, with_thresholds(network(layers, share), scale, rows), frames)
    for share in (0.002, 0.01, 0.05):
        scattered = noisy(frames, share, rng)
        for cut in (0.0, 0.9):
            setting = f"{cut:.0%} pruned, threshold 0" if cut else "unpruned, threshold 0"
            measure(f"{100 * share:g} % noise", setting, network(layers, cut), scattered)
    save(options.out, network(layers, 0.0).dense_macs(), results)


def measure_trained(options: argparse.Namespace) -> None:
    """Teachers at threshold 0 and what became of them, beside the teachers' dense step."""
    results = []
    for folder, file in zip(options.teachers, options.optimised, strict=True):
        layers, teacher = taught(folder)
        policy = Policy.load(file)
        frames = play(policy, options.steps)
        dense = {"onnxruntime": onnx_session(layers), "torch": torch_step(layers)}
        for setting, net in (
            ("teacher, threshold 0", teacher.network),
            (f"optimised, {file.stem}", policy.network),
        ):
            found = compare(net, dense, frames, options.rounds, options.block)
            # The reduction is against the teacher, whatever layers are left.
            macs = teacher.dense_macs / found["synops_per_step"]
            found["reduction"] = round(macs, 2)
            results.append({"frames": teacher.metadata["name"], "setting": setting, **found})
            print(f"{folder.name}: {setting}, ratio {found['ratio']}", file=sys.stderr)
    save(options.out, network(weights(np.random.default_rng(0)), 0.0).dense_macs(), results)


def save(path: Path | None, dense_macs: int, results: list[dict[str, Any]]) -> None:
    """Write the measurements, if there is a file for them."""
    if path is None:
        return
    machine = describe(
        "numpy", "numba", "onnxruntime", "torch", "ale-py", module="tests.bench_conv"
    )
    write(path, {"machine": machine, "dense_macs": dense_macs, "results": results})


if __name__ == "__main__":
    main()
