"""The run that the pictures of the gallery show: a small network that follows a slow signal."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from eventsim import CounterRecorder, EventRecorder, Network, Simulator

EPISODE_LENGTHS = (160, 140)


@dataclass(frozen=True, eq=False)
class Example:
    """What was simulated and recorded."""

    network: Network
    inputs: np.ndarray
    outputs: np.ndarray
    rewards: np.ndarray
    events: dict[str, Any]
    counters: CounterRecorder


def example() -> Example:
    """Simulate it; always the same."""
    rng = np.random.default_rng(11)
    sizes = (8, 48, 32, 3)
    weights = []
    for n_in, n_out in pairwise(sizes):
        w = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        w[rng.random(w.shape) < 0.6] = 0.0
        weights.append(w)
    network = Network.from_arrays(weights, activation="tanh", thresholds=[0.05, 0.08, 0.1])
    events, counters = EventRecorder(), CounterRecorder()
    simulator = Simulator(network, hooks=[events, counters], dt=0.02)
    inputs, outputs = [], []
    for k, length in enumerate(EPISODE_LENGTHS):
        if k:
            simulator.reset()
        t = np.arange(length)[:, None]
        slow = np.sin(2 * np.pi * t * rng.uniform(0.005, 0.03, 8) + rng.uniform(0, 6, 8))
        slow[:, 6:] = t > rng.integers(20, length - 20, 2)  # two switches, as contacts are
        inputs.append(slow)
        outputs.append(simulator.run(slow))
    y = np.concatenate(outputs)
    rewards = 1.0 - np.abs(y).mean(axis=1)
    return Example(network, np.concatenate(inputs), y, rewards, events.to_arrays(), counters)
