"""Random spiking networks for property tests: every model, delays, sources, ties."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from eventsim.connectivity import Rows
from eventsim.network import Network, Population, Projection
from eventsim.neurons import NeuronModel
from eventsim.spiking_neurons import LIF, QIF, PoissonInput, SpikeInput, Tabulated

TABLE = Tabulated(lambda v: (1.3 - v) / 0.01 + 20.0 * v * v, lowest=-30.0).table


def _neuron(rng: np.random.Generator, kind: str, size: int, tied: bool) -> NeuronModel:
    """A model, with equal neurons where ties are wanted."""

    def values(low: float, high: float) -> np.ndarray | float:
        if tied or rng.random() < 0.3:
            return float(rng.choice([low, 0.5 * (low + high), high]))
        return rng.uniform(low, high, size)

    rest = float(rng.choice([0.0, 0.0, 0.002]))
    kicks = str(rng.choice(["lost", "kept"]))
    if kind in ("lif", "tau"):
        tau = 0.01 if kind == "lif" else values(0.005, 0.02)
        return LIF(tau, values(0.7, 1.6), 1.0, 0.0, rest, kicks, initial=values(-0.5, 0.9))
    if kind == "qif":
        finite = rng.random() < 0.5
        edges = (2.0, -1.0) if finite else (np.inf, -np.inf)
        return QIF(0.01, values(-0.4, 1.0), *edges, rest, kicks, initial=values(-0.8, 1.5))
    return Tabulated(TABLE, refractory=rest, refractory_kicks=kicks, initial=values(-0.5, 0.9))


@st.composite
def spiking_networks(draw: st.DrawFn, kinds: tuple[str, ...] | None = None) -> Network:
    """Up to three populations of neurons and two of sources, with any projections."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    models = draw(
        st.lists(st.sampled_from(kinds or ("lif", "tau", "qif", "table")), min_size=1, max_size=3)
    )
    tied = draw(st.booleans())
    sizes = {f"n{k}": int(rng.integers(1, 6)) for k in range(len(models))}
    populations = [
        Population(name, size, _neuron(rng, kind, size, tied))
        for (name, size), kind in zip(sizes.items(), models, strict=True)
    ]
    neurons = list(sizes)
    if draw(st.booleans()):
        sizes["poisson"] = int(rng.integers(1, 4))
        populations.append(
            Population("poisson", sizes["poisson"], PoissonInput(200.0, int(rng.integers(100))))
        )
    if draw(st.booleans()):
        sizes["spikes"] = 2
        times = np.round(rng.uniform(0, 0.06, 12), 3)
        populations.insert(0, Population("spikes", 2, SpikeInput([times[:6], times[4:]])))
    names = list(sizes)
    projections = []
    for k in range(draw(st.integers(0, 5))):
        source, target = str(rng.choice(names)), str(rng.choice(neurons))
        shape = (sizes[target], sizes[source])
        weights = rng.choice([-0.6, -0.25, 0.0, 0.05, 0.25], shape)
        if not tied:
            weights = weights * rng.uniform(0.5, 1.0, shape)
        delay: float | np.ndarray = float(rng.choice([0.0, 0.001, 0.004]))
        if rng.random() < 0.25:
            delay = rng.choice([0.0, 0.001, 0.0025], shape)
        connectivity: np.ndarray | Rows = weights
        if rng.random() < 0.4:
            lean = np.flatnonzero(rng.random(shape[0]) < 0.7).astype(np.uint32)
            pointers = np.arange(shape[1] + 1) * lean.size
            connectivity = Rows(shape, pointers, np.tile(lean, shape[1]), -0.25)
            delay = 0.0 if np.ndim(delay) else delay
        projections.append(
            Projection(source, target, connectivity, name=f"p{k}", delay_seconds=delay)
        )
    return Network(tuple(populations), tuple(projections))
