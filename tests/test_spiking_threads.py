"""Windows shared by threads give the engine's spikes, bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eventsim.bench_spiking import Balanced
from eventsim.errors import UnsupportedError
from eventsim.spiking_compile import compile_spiking
from eventsim.spiking_threads import ThreadedLIF
from eventsim.spiking_window import WindowLIF


def _case(n: int, degree: int) -> Balanced:
    case = Balanced("lif", n, degree)
    ascending = np.sort(case.graph().reshape(n, degree), axis=1).reshape(-1)
    return Balanced("lif", n, degree, targets=ascending)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_spikes_are_those_of_the_engine(threads: int) -> None:
    engine = WindowLIF(compile_spiking(_case(700, 20).network()))
    engine.run(math.inf, 3000)
    times, ids = ThreadedLIF(engine, threads).run(20_000)
    assert ids.size >= 20_000
    expected, expected_ids = engine.run(math.inf, ids.size)
    assert np.array_equal(ids, expected_ids)
    assert np.array_equal(times, expected)


def test_other_networks_are_refused() -> None:
    case = _case(100, 10)
    for variant in ("mixed weights", "delay and refractory"):
        with pytest.raises(UnsupportedError, match="inhibitory"):
            ThreadedLIF(WindowLIF(compile_spiking(case.network(variant))), 2)
    unsorted = Balanced("lif", 100, 10)
    with pytest.raises(UnsupportedError, match="ascend"):
        ThreadedLIF(WindowLIF(compile_spiking(unsorted.network())), 2)
