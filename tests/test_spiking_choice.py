"""The engines for continuous time behind `Simulator`: which is picked, and that they agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from eventsim import (
    EIF,
    LIF,
    QIF,
    CounterRecorder,
    EventRecorder,
    Network,
    Population,
    Projection,
    Simulator,
    SimulatorState,
)
from eventsim.builders import balanced
from eventsim.errors import UnsupportedError
from eventsim.spiking_engines import choose_spiking
from tests.spiking_strategies import spiking_networks


def _run(network: Network, engine: str) -> tuple[Simulator, dict[str, np.ndarray], np.ndarray]:
    events, counters = EventRecorder(), CounterRecorder()
    simulator = Simulator(network, [events, counters], engine=engine, dt=0.01)
    simulator.run(until=0.08)
    return simulator, events.to_arrays(), counters.table


@settings(max_examples=60)
@given(spiking_networks())
def test_the_engine_picked_gives_the_reference_spikes(network: Network) -> None:
    picked, reason = choose_spiking(network)
    if picked.name == "reference":
        assert "window" in reason
        return
    fast, events, counters = _run(network, "auto")
    slow, expected, expected_counters = _run(network, "reference")
    assert fast.engine == picked.name
    np.testing.assert_array_equal(events["neuron"], expected["neuron"])
    np.testing.assert_array_equal(events["population"], expected["population"])
    np.testing.assert_allclose(events["time"], expected["time"], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(fast.totals.table, slow.totals.table)
    np.testing.assert_array_equal(counters.sum(axis=0), expected_counters.sum(axis=0))


@pytest.mark.parametrize("model", ["lif", "qif"])
def test_balanced_networks_agree_between_engines(model: str) -> None:
    network = balanced(400, 40, model=model, seed=3)
    runs = []
    for engine in ("auto", "reference"):
        recorder = EventRecorder()
        simulator = Simulator(network, [recorder], engine=engine)
        # QIF networks are chaotic: rounding errors show after some hundred spikes.
        simulator.run(spikes=20_000 if model == "lif" else 200)
        assert simulator.engine == {"auto": f"window-{model}"}.get(engine, engine)
        runs.append(recorder.to_arrays())
    np.testing.assert_array_equal(runs[0]["neuron"], runs[1]["neuron"])
    atol = 1e-12 if model == "lif" else 1e-9
    np.testing.assert_allclose(runs[0]["time"], runs[1]["time"], rtol=0, atol=atol)


def test_a_checkpoint_of_the_fast_engine_goes_on_bit_for_bit(tmp_path) -> None:  # type: ignore[no-untyped-def]
    network = balanced(300, 20, model="lif", seed=1)
    recorder = EventRecorder()
    simulator = Simulator(network, [recorder])
    simulator.run(spikes=1000)
    simulator.get_state().save(tmp_path / "state")
    simulator.run(spikes=1000)
    other = EventRecorder()
    resumed = Simulator(network, [other])
    resumed.set_state(SimulatorState.load(tmp_path / "state"))
    resumed.run(spikes=1000)
    for name in ("time", "neuron", "step"):
        np.testing.assert_array_equal(other.to_arrays()[name], recorder.to_arrays()[name][-1000:])


def test_auto_says_why() -> None:
    def one(model: LIF | QIF | EIF) -> Network:
        return Network([Population("n", 2, model)], [Projection("n", "n", np.full((2, 2), -0.1))])

    assert choose_spiking(one(LIF()))[0].name == "window-lif"
    assert choose_spiking(one(QIF()))[0].name == "window-qif"
    engine, reason = choose_spiking(one(LIF(drive=0.5)))
    assert engine.name == "reference"
    assert "not above their threshold" in reason
    assert choose_spiking(one(EIF()))[0].name == "reference"
    assert choose_spiking(one(LIF()), "reference") == (
        choose_spiking(one(EIF()))[0],
        "it was asked for",
    )
    with pytest.raises(UnsupportedError, match="window-lif"):
        choose_spiking(one(QIF()), "window-lif")
