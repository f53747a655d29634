"""Clocked neurons: against snnTorch, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eventsim import (
    ClockedIF,
    ClockedLIF,
    Delta,
    EventRecorder,
    Input,
    Network,
    Population,
    Projection,
    Simulator,
)
from eventsim.errors import InputError, NetworkError, UnsupportedError


def _network(rng: np.random.Generator, reset: Any, beta: float) -> Network:
    first, second = (
        ClockedLIF(beta, 1.0, reset) if beta < 1.0 else ClockedIF(1.0, reset) for _ in range(2)
    )
    return Network(
        [Population("x", 6, Input()), Population("a", 8, first), Population("b", 3, second)],
        [
            Projection("x", "a", rng.normal(0.2, 0.5, (8, 6))),
            Projection("a", "b", rng.normal(0.2, 0.5, (3, 8))),
        ],
    )


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("beta", [0.8, 1.0])
def test_spikes_are_those_of_snntorch(rng: np.random.Generator, reset: str, beta: float) -> None:
    torch = pytest.importorskip("torch", reason="the oracle needs torch")
    snntorch = pytest.importorskip("snntorch", reason="the oracle is snnTorch")
    network = _network(rng, reset, beta)
    x = rng.random((200, 6))
    x[50:60] = x[49]
    recorder = EventRecorder()
    outputs = Simulator(network, [recorder]).run(x)
    layers = [
        snntorch.Leaky(beta=torch.tensor(beta, dtype=torch.float64), reset_mechanism=reset)
        for _ in range(2)
    ]
    memory = [layer.init_leaky() for layer in layers]
    weights = [torch.tensor(q.weights.to_dense()) for q in network.projections]
    hidden = []
    with torch.no_grad():
        for row, out in zip(torch.tensor(x), outputs, strict=True):
            spikes = row
            for k, layer in enumerate(layers):
                spikes, memory[k] = layer(weights[k] @ spikes.double(), memory[k])
                if k == 0:
                    hidden.append(spikes.numpy().copy())
            np.testing.assert_array_equal(out, spikes.numpy())
    events = recorder.to_arrays()
    mine = events["population"] == 1
    found = np.zeros((200, 8))
    found[events["step"][mine], events["neuron"][mine]] = 1.0
    np.testing.assert_array_equal(found, hidden)
    assert found.sum() > 100


def test_counters_delays_and_snapshots(rng: np.random.Generator) -> None:
    network = Network(
        [Population("x", 1, Input()), Population("a", 2, ClockedLIF(0.5, 1.0, "zero"))],
        [
            Projection("x", "a", [[1.5], [0.0]]),
            Projection("a", "a", [[0.0, 0.0], [2.0, 0.0]], delay=2),
        ],
        outputs=("a",),
    )
    simulator = Simulator(network)
    outputs = simulator.run([[1.0], [0.0], [0.0], [0.0]])
    assert outputs.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    assert simulator.totals.macs.tolist() == [0, 2]
    assert simulator.totals.acs.tolist() == [0, 1]
    assert simulator.totals.evaluations.tolist() == [2, 8]
    assert simulator.totals.events.tolist() == [2, 2]
    x = rng.random((40, 1))
    whole = Simulator(network).run(x)
    first = Simulator(network)
    first.run(x[:20])
    second = Simulator(network)
    second.set_state(first.get_state())
    np.testing.assert_array_equal(second.run(x[20:]), whole[20:])
    assert second.peek() == 40.0
    with pytest.raises(InputError, match="input 0 of step 40"):
        second.step([np.nan])
    with pytest.raises(InputError, match="another network"):
        second.set_state(Simulator(_network(rng, "zero", 0.5)).get_state())


def test_what_it_does_not_run_is_refused() -> None:
    network = Network(
        [
            Population("x", 1, Input()),
            Population("a", 1, ClockedIF()),
            Population("y", 1, Delta("relu")),
        ],
        [Projection("x", "a", [[1.0]]), Projection("a", "y", [[1.0]])],
    )
    with pytest.raises(UnsupportedError, match="population 'y' has 'delta' neurons"):
        Simulator(network)
    with pytest.raises(UnsupportedError, match="'levels'"):
        Simulator(network, engine="levels")
    with pytest.raises(NetworkError, match="above 1"):
        ClockedLIF(1.5)
    with pytest.raises(NetworkError, match="'zero' or 'subtract'"):
        ClockedLIF(0.5, reset="none")  # type: ignore[arg-type]
