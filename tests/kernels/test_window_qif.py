"""The window kernel of QIF neurons against phases in extended precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.window_oracle import Qif

from eventsim.kernels import sparseprop
from eventsim.kernels import window_qif as qif

pytestmark = pytest.mark.nojit


@st.composite
def networks(draw: st.DrawFn) -> Qif:
    # Generic values: that a rounding decides who is first is not to be expected of them.
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.integers(1, 100))
    low = draw(st.sampled_from([0.0, -1.0]))
    high = draw(st.sampled_from([0.0, 1.0]))
    rows = [
        [
            (int(j), float(rng.uniform(low, high)))
            for j in rng.choice(n, draw(st.integers(0, min(n, 4))), replace=False)
        ]
        for _ in range(n + 1)
    ]
    outside = sorted(rng.uniform(0, 5, draw(st.integers(0, 4))))
    return Qif(
        rng.uniform(-1.5, 1.5, n),
        rows,
        draw(st.sampled_from([0.0, 0.1, 1.7, 5.0])),
        [(float(t), n) for t in outside],
    )


@given(networks(), st.lists(st.integers(0, 60), max_size=3), st.sampled_from([1, 4, 20]))
def test_spikes_are_those_of_extended_precision(
    network: Qif, pieces: list[int], target: int
) -> None:
    spikes = 60
    expected, expected_ids = network.run(spikes)
    arrays = network.arrays(target)
    times, ids = np.empty(spikes), np.empty(spikes, np.int32)
    at = 0
    for end in [*sorted(pieces), spikes]:
        assert qif.run(*arrays, times[at:end], ids[at:end]) == qif.FULL
        at = end
    # Until somewhere two spikes come so close that a rounding decides.
    gaps = np.flatnonzero(np.diff(expected) < 1e-11)
    sure = int(gaps[0]) if gaps.size else spikes
    assert ids[:sure].tolist() == expected_ids[:sure].tolist()
    np.testing.assert_allclose(times[:sure], expected[:sure].astype(float), rtol=1e-13, atol=1e-10)


def _inhibitory(n: int, degree: int, strength: float) -> tuple[Qif, np.ndarray]:
    targets = np.empty(n * degree, np.uint32)
    sparseprop.random_graph(targets, n, degree, 1, np.full(n, -1, np.int32))
    rows = [[(int(j), -strength) for j in row] for row in targets.reshape(n, degree)]
    return Qif(np.random.default_rng(5).uniform(-1.5, 1.5, n), rows), targets


def test_errors_are_no_larger_than_those_of_phases() -> None:
    n, degree, strength, spikes = 200, 20, 0.3, 300
    network, targets = _inhibitory(n, degree, strength)
    exact, exact_ids = network.run(spikes)
    times, ids = np.empty(spikes), np.empty(spikes, np.int32)
    assert qif.run(*network.arrays(8, signed=False), times, ids) == qif.FULL
    key = math.pi / 2 - network.angles
    member, place = np.arange(n, dtype=np.int32), np.empty(n, np.int32)
    sparseprop.heapify(key, member, place)
    by_heap, heap_ids = np.empty(spikes), np.empty(spikes, np.int32)
    sparseprop.qif(key, member, place, targets, degree, -strength, np.zeros(1), by_heap, heap_ids)
    assert ids.tolist() == exact_ids.tolist() == heap_ids.tolist()
    reference = float(np.abs(by_heap - exact).max())
    assert float(np.abs(times - exact).max()) <= 10 * reference


def test_pairs_neither_vanish_nor_overflow() -> None:
    # Strong kicks lengthen the pairs from turn to turn.
    n, spikes = 20, 4000
    network, _ = _inhibitory(n, 10, 30.0)
    arrays, times, ids = (
        network.arrays(3, signed=False),
        np.empty(spikes),
        np.empty(spikes, np.int32),
    )
    assert qif.run(*arrays, times, ids) == qif.FULL
    lengths = np.abs(arrays[0]).reshape(n, 2).max(axis=1)
    assert (np.diff(times) >= 0).all()
    assert (lengths > 2.0**-300).all()
    assert (lengths < 2.0**300).all()


def test_what_is_not_finite_is_reported() -> None:
    network = Qif(np.array([0.0, 1.0]), [[], []])
    arrays = network.arrays()
    arrays[0][0] = np.nan
    assert qif.run(*arrays, np.empty(99), np.empty(99, np.int32)) == qif.NOT_FINITE


def test_it_stops_before_what_lies_at_the_end_and_goes_on() -> None:
    network = Qif(np.array([0.0]), [[], [(0, -1.0)]], external=[(4.0, 1)])
    arrays, times, ids = network.arrays(), np.empty(9), np.empty(9, np.int32)
    arrays[-1][qif.R_STOP] = 3.0
    assert qif.run(*arrays, times, ids) == qif.STOPPED
    assert arrays[-2][qif.N_SPIKES] == 1
    arrays[-1][qif.R_STOP], arrays[-1][qif.R_HORIZON] = np.inf, 7.0
    assert qif.run(*arrays, times[1:], ids[1:]) == qif.EXTERNAL
    count = 1 + int(arrays[-2][qif.N_SPIKES])
    expected = network.run(9)[0].astype(float)
    np.testing.assert_allclose(times[:count], expected[expected < 7.0], rtol=0, atol=1e-13)


def test_a_full_ring_of_delayed_spikes_loses_nothing() -> None:
    network, _ = _inhibitory(10, 3, 0.5)
    network.delay = 2.0
    arrays = list(network.arrays())
    arrays[15:17] = [np.zeros(2), np.zeros(2, np.int32)]
    times, ids = np.empty(30), np.empty(30, np.int32)
    assert qif.run(*arrays, times, ids) == qif.DELAY_FULL
    count, head = int(arrays[-2][qif.N_SPIKES]), int(arrays[-2][qif.N_DELAY_HEAD])
    keys, rows = np.zeros(64), np.zeros(64, np.int32)
    keys[:2], rows[:2] = np.roll(arrays[15], -head), np.roll(arrays[16], -head)
    arrays[15:17] = [keys, rows]
    arrays[-2][qif.N_DELAY_HEAD] = 0
    assert qif.run(*arrays, times[count:], ids[count:]) == qif.FULL
    assert ids.tolist() == network.run(30)[1].tolist()
