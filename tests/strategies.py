"""Random networks and input sequences for property tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy import sparse

from eventsim.network import Network, Population, Projection
from eventsim.neurons import (
    ACTIVATIONS,
    ELU,
    GELU,
    Clip,
    Delta,
    Input,
    LeakyReLU,
)

SPECIAL = [LeakyReLU(0.2), LeakyReLU(1.5), ELU(0.7), ELU(1.8), GELU(True), Clip(-0.3, 0.8)]


@st.composite
def networks(
    draw: st.DrawFn,
    *,
    max_threshold: float = 0.0,
    max_layers: int = 4,
    max_size: int = 6,
    feedback: bool = True,
    delays: bool = True,
    outputs_all: bool = False,
) -> Network:
    """Layers with skips, delays, feedback (delayed), pruning, dense or sparse, any activation."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_inputs = draw(st.integers(1, 2))
    n_layers = draw(st.integers(1, max_layers))
    sizes = draw(
        st.lists(
            st.integers(1, max_size),
            min_size=n_inputs + n_layers,
            max_size=n_inputs + n_layers,
        )
    )
    names = [f"x{k}" for k in range(n_inputs)] + [f"h{k}" for k in range(n_layers)]
    activations = [f for f in ACTIVATIONS if f not in ("clip", "quantized")]

    def thresholds(size: int) -> float | np.ndarray:
        if max_threshold == 0.0:
            return 0.0
        return (
            rng.uniform(0, max_threshold, size)
            if rng.random() < 0.5
            else rng.uniform(0, max_threshold)
        )

    populations = []
    for k, (name, size) in enumerate(zip(names, sizes, strict=True)):
        if k < n_inputs:
            populations.append(Population(name, size, Input(thresholds(size))))
            continue
        f = (
            SPECIAL[rng.integers(len(SPECIAL))]
            if rng.random() < 0.3
            else str(rng.choice(activations))
        )
        populations.append(
            Population(name, size, Delta(f, rng.normal(size=size), thresholds(size)))
        )
    order = draw(st.permutations(range(len(populations))))

    projections: list[Projection] = []

    def connect(source: int, target: int, delay: int) -> None:
        w = rng.normal(size=(sizes[target], sizes[source])) / np.sqrt(sizes[source])
        w[rng.random(w.shape) < rng.choice([0.0, 0.5, 0.9])] = 0.0
        if rng.random() < 0.5:
            w = w.astype(np.float32)
        projections.append(
            Projection(
                names[source],
                names[target],
                sparse.coo_array(w) if rng.random() < 0.4 else w,
                delay,
                name=f"p{len(projections)}",
            )
        )

    for target in range(n_inputs, len(names)):
        nearest = target - 1 if target > n_inputs else int(rng.integers(n_inputs))
        connect(nearest, target, 0)
        if draw(st.booleans()):  # a skip, with or without delay
            connect(int(rng.integers(target)), target, int(rng.integers(4)) if delays else 0)
        if feedback and delays and draw(st.booleans()):
            connect(int(rng.integers(n_inputs, len(names))), target, int(rng.integers(1, 4)))
    rng.shuffle(projections)
    outputs = (
        tuple(names)
        if outputs_all
        else tuple(names[k] for k in range(n_inputs, len(names)) if rng.random() < 0.5)
        or (names[-1],)
    )
    return Network(tuple(populations[k] for k in order), tuple(projections), outputs)


@st.composite
def inputs(draw: st.DrawFn, network: Network, max_steps: int = 12) -> np.ndarray:
    """Slow walks with stretches of no change, jumps back, and white noise."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = draw(st.integers(1, max_steps))
    kind = draw(st.sampled_from(["walk", "noise", "still", "back"]))
    shape = (steps, network.n_inputs)
    if kind == "noise":
        return rng.normal(size=shape)
    moves = rng.normal(size=shape) * (rng.random(shape) < 0.4)
    x = np.cumsum(moves, axis=0) * 0.3
    if kind == "still":
        x[:] = x[0]
    if kind == "back":
        x[1::2] = x[0]
    return x
