"""A compiled function sees every event, in order."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from eventsim.errors import InputError
from eventsim.event_function import EventFunction
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.trace import EventRecorder

NETWORK = Network.from_arrays([np.ones((5, 3)), np.ones((2, 5))], thresholds=0.1)


def keep(step, time, population, neuron, value, state):  # type: ignore[no-untyped-def]
    row = int(state[0, 0])
    state[row + 1, 0] = step
    state[row + 1, 1] = time
    state[row + 1, 2] = population
    state[row + 1, 3] = neuron
    state[row + 1, 4] = value
    state[0, 0] = row + 1


@pytest.mark.parametrize("function", [keep, numba.njit(keep)], ids=["plain", "jitted"])
def test_every_event_is_seen_in_order(function: object, rng: np.random.Generator) -> None:
    hook = EventFunction(function, np.zeros((2000, 5)))  # type: ignore[arg-type]
    events = EventRecorder()
    simulator = Simulator(NETWORK, hooks=[hook, events], dt=0.5)
    simulator.run(rng.normal(size=(60, 3)))
    simulator.step(rng.normal(size=3))
    expected = events.to_arrays()
    seen = hook.state[1 : int(hook.state[0, 0]) + 1]
    assert len(seen) == len(events) > 0
    for k, name in enumerate(("step", "time", "population", "neuron", "value")):
        np.testing.assert_array_equal(seen[:, k], expected[name])


def test_what_numba_cannot_compile_is_refused_at_once() -> None:
    def impossible(step, time, population, neuron, value, state):  # type: ignore[no-untyped-def]
        state.append(open("x"))  # noqa: SIM115

    if numba.config.DISABLE_JIT:
        pytest.skip("without compilation there is nothing to refuse")
    with pytest.raises(InputError, match="impossible cannot be compiled"):
        EventFunction(impossible, np.zeros(1))
    with pytest.raises(InputError, match="give a NumPy array"):
        EventFunction(keep, [0.0])  # type: ignore[arg-type]
