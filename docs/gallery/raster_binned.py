"""Raster of many events, binned: python docs/gallery/raster_binned.py [FOLDER]."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from eventsim import EventRecorder, Network, Simulator
from eventsim.analysis.raster import raster

STEPS = 8_000
SIZES = (16, 256, 128, 4)


def simulated() -> tuple[Network, dict[str, Any]]:
    """Signals that are still, then move, then are still again; always the same."""
    rng = np.random.default_rng(5)
    weights = []
    for n_in, n_out in pairwise(SIZES):
        w = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        w[rng.random(w.shape) < 0.8] = 0.0
        weights.append(w)
    network = Network.from_arrays(weights, thresholds=[0.05, 0.05, 0.1])
    t = np.arange(STEPS)[:, None] / STEPS
    moving = np.exp(-(((t - rng.uniform(0.1, 0.9, SIZES[0])) / 0.15) ** 2))
    inputs = np.cumsum(0.12 * moving * rng.normal(size=(STEPS, SIZES[0])), axis=0)
    recorder = EventRecorder()
    Simulator(network, hooks=[recorder]).run(inputs)
    return network, recorder.to_arrays()


def main(folder: str | Path = Path(__file__).parent) -> Path:
    """Draw into `folder` and return the file."""
    network, events = simulated()
    title = f"{round(len(events['step']) / 1000)} thousand events, binned"
    ax = raster(events, network, steps=STEPS, title=title, max_marks=100_000)
    path = Path(folder) / "raster_binned.png"
    ax.figure.savefig(path, dpi=80)
    return path


if __name__ == "__main__":
    main(*sys.argv[1:])
