"""Hooks: what they see, and when."""

from __future__ import annotations

import numpy as np
import pytest

from eventsim.network import Network
from eventsim.simulator import CHUNK, Simulator
from eventsim.trace import CounterRecorder, Counters, EnergyHook, EventRecorder, Events, Hook

NETWORK = Network.from_arrays([np.ones((3, 2)), np.ones((1, 3))], thresholds=0.1)


class Log(Hook):
    """Writes down every call."""

    records_events = True

    def __init__(self) -> None:
        self.calls: list[tuple[str, object]] = []

    def on_attach(self, simulator: Simulator) -> None:
        self.calls.append(("attach", simulator.network.n_inputs))

    def on_reset(self) -> None:
        self.calls.append(("reset", None))

    def on_step(self, step: int, counters: Counters) -> None:
        self.calls.append(("step", (step, counters.synops)))

    def on_events(self, events: Events) -> None:
        self.calls.append(("events", len(events)))


def test_calls_come_in_order() -> None:
    log = Log()
    simulator = Simulator(NETWORK, hooks=[log])
    simulator.step([1.0, 0.0])
    simulator.run(np.array([[1.0, 0.0], [2.0, 0.0]]))
    simulator.reset()
    assert log.calls == [
        ("attach", 2),
        ("reset", None),
        ("events", 4),
        ("step", (0, 6)),
        ("events", 4),
        ("step", (1, 0)),
        ("step", (2, 6)),
        ("reset", None),
    ]


@pytest.mark.parametrize("steps", [1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_nothing_is_lost_between_chunks(steps: int, rng: np.random.Generator) -> None:
    recorder, counters = EventRecorder(), CounterRecorder()
    network = Network.from_arrays([rng.normal(size=(40, 30)), rng.normal(size=(2, 40))])
    simulator = Simulator(network, hooks=[recorder, counters], dt=0.5)
    simulator.run(rng.normal(size=(steps, 30)))
    arrays = recorder.to_arrays()
    assert len(recorder) == arrays["step"].size == simulator.totals.events.sum()
    np.testing.assert_array_equal(counters.table.sum(axis=0), simulator.totals.table)
    np.testing.assert_array_equal(counters.steps, np.arange(steps))
    np.testing.assert_array_equal(arrays["time"], arrays["step"] * 0.5)
    assert (np.diff(arrays["step"]) >= 0).all()


def test_recorders_tell_episodes_apart() -> None:
    recorder, counters = EventRecorder(), CounterRecorder()
    simulator = Simulator(NETWORK, hooks=[recorder, counters])
    for steps in (2, 3):
        simulator.run(np.arange(2.0 * steps).reshape(steps, 2))
        simulator.reset()
    assert counters.episodes.tolist() == [0, 0, 1, 1, 1]
    assert counters.steps.tolist() == [0, 1, 0, 1, 2]
    assert set(recorder.to_arrays()["episode"]) == {0, 1}


def test_empty_recorders_give_empty_arrays() -> None:
    recorder = EventRecorder()
    Simulator(NETWORK, hooks=[recorder])
    arrays = recorder.to_arrays()
    assert {key: array.size for key, array in arrays.items()} == dict.fromkeys(arrays, 0)
    assert arrays["value"].dtype == np.float64
    assert CounterRecorder().table.size == 0


def test_energy_hook_prices_every_step() -> None:
    class Model:
        def joules(self, evaluations, events, macs, acs, sizes, is_input):  # type: ignore[no-untyped-def]
            return 2.0 * macs + 10.0 * np.where(is_input, 0, sizes)

    hook = EnergyHook(Model())
    simulator = Simulator(NETWORK, hooks=[hook])
    assert hook.joules.shape == (0, 3)
    simulator.run(np.array([[1.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_array_equal(hook.joules, [[0, 36, 16], [0, 30, 10]])


def test_counters_say_what_they_hold() -> None:
    simulator = Simulator(NETWORK)
    simulator.step([1.0, 0.0])
    assert repr(simulator.counters) == (
        "Counters(input: 1 events, 0 synops, hidden1: 3 events, 3 synops, "
        "output: 0 events, 3 synops)"
    )
    assert simulator.counters.acs.sum() == 0
