"""Random convolutional networks for property tests, and their unrolled twins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from eventsim.connectivity import Sparse
from eventsim.convolution import AveragePool, Convolution, Local, MaxWindow, Window
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input, MaxPool

Shape = tuple[int, int, int]


@st.composite
def windows(draw: st.DrawFn, source: Shape, *, plain: bool = False) -> Window:
    """Any geometry that fits the source."""

    def pair(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    padding = (0, 0) if plain else pair(0, 2)
    dilation = (1, 1) if plain else pair(1, 2)
    sizes = []
    for axis in (0, 1):
        room = (source[axis] + 2 * padding[axis] - 1) // dilation[axis] + 1
        sizes.append(draw(st.integers(1, min(4, room))))
    return Window(source, (sizes[0], sizes[1]), pair(1, 3), padding, dilation)


@st.composite
def convolutions(draw: st.DrawFn, source: Shape | None = None) -> Convolution:
    """A convolution, pruned or not, in one group or several."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if source is None:
        source = draw(st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4)))
    groups = draw(st.sampled_from([n for n in (1, 1, 2, source[2]) if source[2] % n == 0]))
    window = draw(windows(source))
    n_out = draw(st.sampled_from([1, 2, 3, 8, 9, 17, 32, 64, 65, 105, 128]))
    weights = rng.normal(size=(*window.size, source[2], n_out if groups == 1 else min(n_out, 3)))
    weights[rng.random(weights.shape) < draw(st.sampled_from([0.0, 0.0, 0.4, 0.9]))] = 0.0
    if draw(st.booleans()):
        weights = weights.astype(np.float32)
    return Convolution(window, weights, groups)


@st.composite
def networks(
    draw: st.DrawFn, *, max_threshold: float = 0.0, delays: bool = True, pools: bool = True
) -> Network:
    """Up to three convolutions and pools, a linear layer behind; skips and delays in between."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def threshold(size: int) -> float | np.ndarray:
        if rng.random() < 0.5:
            return rng.uniform(0, max_threshold, size)
        return rng.uniform(0, max_threshold)

    shape: Shape = draw(st.tuples(st.integers(1, 9), st.integers(2, 9), st.integers(1, 3)))
    populations = [Population("x", int(np.prod(shape)), Input(threshold(np.prod(shape))), shape)]
    projections: list[Projection] = []
    kinds = ["conv", "conv", "conv", *(("average", "max") if pools else ())]
    for k in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(kinds))
        weights: Local
        if kind == "conv":
            weights = draw(convolutions(shape))
        else:
            window = draw(windows(shape, plain=True))
            weights = AveragePool(window) if kind == "average" else MaxWindow(window)
        size, name = weights.shape[0], f"h{k}"
        neuron = (
            MaxPool(threshold(size))
            if kind == "max"
            else Delta(
                str(rng.choice(["relu", "tanh", "identity", "silu"])),
                rng.normal(size=size),
                threshold(size),
            )
        )
        populations.append(Population(name, size, neuron, weights.target_shape))
        source = populations[-2].name
        delay = draw(st.integers(0, 2)) if delays and kind != "max" else 0
        projections.append(Projection(source, name, weights, delay))
        if kind != "max" and draw(st.booleans()):  # a second projection onto the same neurons
            again = rng.normal(size=(size, populations[-2].size))
            again[rng.random(again.shape) < 0.7] = 0.0
            projections.append(
                Projection(
                    source, name, again, draw(st.integers(0, 2)) if delays else 0, "", "2" + name
                )
            )
        shape = weights.target_shape
    last = populations[-1]
    populations.append(Population("y", 3, Delta("identity", rng.normal(size=3))))
    projections.append(Projection(last.name, "y", rng.normal(size=(3, last.size))))
    return Network(tuple(populations), tuple(projections))


@st.composite
def frames(draw: st.DrawFn, network: Network, *, max_steps: int = 6) -> np.ndarray:
    """Pictures of bytes of which few pixels change from step to step, or nearly all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    share = draw(st.sampled_from([0.02, 0.2, 1.0]))
    x = rng.integers(0, 256, network.n_inputs).astype(np.float64)
    rows = []
    for _ in range(draw(st.integers(1, max_steps))):
        change = rng.random(x.size) < share
        x = np.where(change, rng.integers(0, 256, x.size), x)
        rows.append(x / 64.0 - 2.0)
    return np.stack(rows)


def unrolled(network: Network) -> Network:
    """The same network with every convolution and average pool as sparse synapses."""

    def sparse(projection: Projection) -> Projection:
        weights = projection.weights
        if not isinstance(weights, Local) or isinstance(weights, MaxWindow):
            return projection
        return Projection(
            projection.source,
            projection.target,
            Sparse(weights.shape, *weights.rows()),
            projection.delay,
            projection.receptor,
            projection.name,
            projection.dense_macs,
        )

    return replace(network, projections=tuple(sparse(q) for q in network.projections))


__all__ = ["convolutions", "frames", "networks", "unrolled", "windows"]
