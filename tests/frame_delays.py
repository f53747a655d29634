"""A stack of frames as delays of one frame: whether that saves anything.

    python -m tests.frame_delays --out docs/benchmarks/frame_delays.json

The stacked network sees four frames, each of which it compares four times as it grows older. The
delayed one sees the newest frame, and its first convolution is four projections with delays of 0 to
3 steps; empty lines are the empty frames before an episode's first. A figure is the median over
blocks of steps, taken in turn, of a session's time for a step, the encoder's included; ratios are
those of blocks that follow one another.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.convolution import Convolution
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder, Pixels
from eventsim.models.policy import Policy
from eventsim.network import Network, Projection
from eventsim.output import write_text
from tests.bench_conv import GAMES, network, record, weights
from tests.machine import describe

BLOCK = 20


def delayed(stacked: Network) -> Network:
    """The network that is given the last of its input's channels alone."""
    frame, first = stacked.populations[0], stacked.projections[0]
    height, width, n_frames = frame.shape
    kernel = first.weights
    if not isinstance(kernel, Convolution) or kernel.groups > 1:
        raise TypeError("the first layer is no convolution of one group")
    window = replace(kernel.window, source=(height, width, 1))
    parts = [
        Projection(
            first.source,
            first.target,
            Convolution(window, np.ascontiguousarray(kernel.weights[:, :, k : k + 1]), 1),
            delay=n_frames - 1 - k,
            name=f"{n_frames - 1 - k} steps ago",
        )
        for k in range(n_frames)
    ]
    newest = replace(frame, size=height * width, shape=(height, width, 1))
    return Network(
        (newest, *stacked.populations[1:]), (*parts, *stacked.projections[1:]), stacked.name
    )


def with_empty_frames(newest: np.ndarray, n_frames: int) -> np.ndarray:
    """Stacks of shape (T, n_frames, ...) as an episode of these frames gives them."""
    before = np.zeros((n_frames - 1, *newest.shape[1:]), newest.dtype)
    film = np.concatenate([before, newest])
    return np.stack([film[k : k + len(newest)] for k in range(n_frames)], axis=1)


def policy(net: Network, n_frames: int) -> Policy:
    """A player that looks at so many frames."""
    encoder = Encoder(BoxSpec((n_frames, 84, 84), "uint8", True), pixels=Pixels())
    return Policy(encoder, net, Argmax(net.n_outputs))


def compare(net: Network, newest: np.ndarray, rounds: int) -> dict[str, Any]:
    """Times of a step in microseconds, and what the steps did."""
    stacks = with_empty_frames(newest, 4)
    runners = {
        "stacked": (policy(net, 4).session(), stacks),
        "delayed": (policy(delayed(net), 1).session(), newest[:, np.newaxis]),
    }
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in runners}
    times: dict[str, list[float]] = {name: [] for name in runners}
    synops: dict[str, int] = {}
    for name, (session, frames) in runners.items():
        for frame in frames:
            session.act(frame)
            outputs[name].append(session.outputs.copy())
        synops[name] = session.simulator.totals.synops
        session.reset()
    for turn in range(rounds):
        first = BLOCK * (turn % (len(newest) // BLOCK))
        for name, (session, frames) in runners.items():
            if first == 0:
                session.reset()
                session.act(frames[0])
            begin = time.perf_counter()
            for k in range(first + (first == 0), first + BLOCK):
                session.act(frames[k])
            times[name].append((time.perf_counter() - begin) / (BLOCK - (first == 0)) * 1e6)
    stacked, behind = (np.array(outputs[name]) for name in runners)
    return {
        "microseconds_quartiles": {
            name: [round(float(q), 2) for q in np.percentile(v, [25, 50, 75])]
            for name, v in times.items()
        },
        "stacked_over_delayed": round(
            float(np.median(np.array(times["stacked"]) / np.array(times["delayed"]))), 3
        ),
        "synops": synops,
        "largest_relative_difference": float(
            np.abs(stacked - behind).max() / np.abs(stacked).max()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="frames of each game")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each contender")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    layers = weights(np.random.default_rng(0))
    results = []
    for game in GAMES:
        newest = np.ascontiguousarray(record(game, options.steps)[:, -1])
        for share in (0.0, 0.9, 0.95):
            row = compare(network(layers, share), newest, options.rounds)
            results.append({"frames": game, "pruned": share, **row})
            print(results[-1], file=sys.stderr)
    if options.out:
        machine = describe("numpy", "numba", "ale-py", module="tests.frame_delays")
        write_text(
            options.out, json.dumps({"machine": machine, "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
