"""The window kernel of LIF neurons against a scan of all neurons at every event."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels.window_oracle import Lif

from eventsim.kernels import window_lif as lif

pytestmark = pytest.mark.nojit

TAU = 0.01
# Values that meet one another exactly, so that ties are common, and some that do not.
STARTS = st.sampled_from([1.0, 1.5, 2.0, 2.0, 3.0, 1.1, 2.7])
RATIOS = st.sampled_from([2.0, 2.0, 4.0, 1.25, 11.0])
INHIBITORY = st.sampled_from([0.0, 0.5, 1.0, 0.3, 40.0])
SIGNED = st.sampled_from([0.0, 0.5, -0.25, -0.125, 0.3, -0.01, -0.6, -3.0])


@st.composite
def networks(draw: st.DrawFn, weights: st.SearchStrategy[float] = SIGNED) -> Lif:
    n = draw(st.integers(1, 7))
    sources = n + draw(st.integers(0, 2))
    row = st.lists(st.tuples(st.integers(0, n - 1), weights), max_size=2 * n)
    delay = draw(st.sampled_from([0.0, 0.0, 2.0, 1.5, 1.01]))
    external = []
    if sources > n:
        times = sorted(draw(st.lists(st.floats(0, 0.1), max_size=5)))
        external = [(t, draw(st.integers(n, sources - 1))) for t in times]
    return Lif(
        b=draw(st.lists(STARTS, min_size=n, max_size=n)),
        ratio=draw(st.lists(RATIOS, min_size=n, max_size=n)),
        rows=draw(st.lists(row, min_size=sources, max_size=sources)),
        delay=delay,
        refractory=draw(st.sampled_from([lif.NO_REST, lif.LOSES, lif.KEEPS])),
        rest=draw(st.sampled_from([1.25, 2.0, 3.0])),
        external=external,
        tau=TAU,
    )


def check(network: Lif, spikes: int, pieces: list[int], exponent: int, target: int) -> None:
    expected, synapses, ending = network.run(spikes)
    arrays = network.arrays(exponent, target)
    times, ids = np.empty(spikes), np.empty(spikes, np.int32)
    at, status = 0, lif.FULL
    for end in [*sorted(min(p, spikes) for p in pieces), spikes]:
        if status == lif.FULL:
            status = lif.run(*arrays, times[at:end], ids[at:end])
            at += int(arrays[-2][lif.N_SPIKES])
    assert status == ending
    assert ids[:at].tolist() == [i for _, i in expected]
    assert arrays[-2][lif.N_SYNAPSES] == synapses
    np.testing.assert_allclose(
        times[:at], [TAU * math.log(e) for e, _ in expected], rtol=0, atol=1e-12
    )


@given(
    networks(),
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from([1, 3, 64]),
    st.sampled_from([1, 3]),
)
def test_spikes_are_those_of_a_scan(
    network: Lif, pieces: list[int], exponent: int, target: int
) -> None:
    check(network, 40, pieces, exponent, target)


@given(networks(INHIBITORY), st.sampled_from([1, 64]))
def test_inhibition_needs_no_look_at_the_queue(network: Lif, exponent: int) -> None:
    check(network, 40, [], exponent, 2)


def test_a_wide_network_with_ties() -> None:
    # More neurons than a block of the scan, and many that fire together.
    rng = np.random.default_rng(3)
    n = 150
    network = Lif(
        b=rng.choice([1.5, 2.0, 2.5], n).tolist(),
        ratio=[2.0] * n,
        rows=[
            [(int(j), float(rng.choice([0.25, -0.125]))) for j in rng.integers(0, n, 5)]
            for _ in range(n)
        ],
        burst=1000,
    )
    check(network, 1200, [], 2, 20)
    check(replace(network, delay=1.25, refractory=lif.LOSES, rest=1.5), 1200, [7, 500], 2, 20)


def test_a_cascade_goes_by_id_within_its_instant() -> None:
    # 2 fires and takes 3 and 0 over the threshold: 0 comes first, and sends 1 there before 3.
    network = Lif(
        b=[3.0, 3.0, 1.5, 3.0], ratio=[2.0] * 4, rows=[[(1, -9.0)], [], [(3, -9.0), (0, -9.0)], []]
    )
    arrays = network.arrays()
    times, ids = np.empty(4), np.empty(4, np.int32)
    assert lif.run(*arrays, times, ids) == lif.FULL
    assert ids.tolist() == [2, 0, 1, 3]
    assert np.unique(times).size == 1


def test_it_stops_before_what_lies_at_the_end_and_goes_on() -> None:
    network = Lif(b=[2.0], ratio=[2.0], rows=[[], [(0, 1.0)]], external=[(0.05, 1)])
    arrays, times, ids = network.arrays(), np.empty(9), np.empty(9, np.int32)
    arrays[-1][lif.R_STOP] = TAU * math.log(2.0) * 3.5
    assert lif.run(*arrays, times, ids) == lif.STOPPED
    assert arrays[-2][lif.N_SPIKES] == 3
    arrays[-1][lif.R_STOP] = np.inf
    arrays[-1][lif.R_HORIZON] = 0.06
    assert lif.run(*arrays, times, ids) == lif.EXTERNAL
    # One spike is delayed by the external kick at 0.05 s.
    expected = [t for t, _ in ((TAU * math.log(e), i) for e, i in network.run(9)[0]) if t < 0.06]
    count = int(arrays[-2][lif.N_SPIKES])
    np.testing.assert_allclose(times[:count], expected[3:], rtol=0, atol=1e-12)


def test_an_avalanche_without_end_is_reported() -> None:
    network = Lif(b=[2.0, 3.0], ratio=[2.0, 2.0], rows=[[(1, -9.0)], [(0, -9.0)]], burst=20)
    arrays, times, ids = network.arrays(), np.empty(99), np.empty(99, np.int32)
    assert lif.run(*arrays, times, ids) == lif.RUNAWAY
    assert arrays[-2][lif.N_SPIKES] == 20
    assert np.ptp(times[:20]) == 0.0


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"delay": 3.0}, lif.DELAY_FULL),
        ({"refractory": lif.LOSES, "rest": 3.0}, lif.REFRACTORY_FULL),
    ],
)
def test_a_full_ring_loses_nothing(changes: dict[str, float], status: int) -> None:
    n = 5
    network = replace(
        Lif(
            b=[1.5, 1.6, 1.7, 1.8, 1.9],
            ratio=[4.0] * n,
            rows=[[(j, 0.1) for j in range(n)] for _ in range(n)],
        ),
        **changes,
    )
    arrays = list(network.arrays())
    place = 15 if status == lif.DELAY_FULL else 17
    arrays[place : place + 2] = [np.zeros(2), np.zeros(2, np.int32)]
    times, ids = np.empty(30), np.empty(30, np.int32)
    count, grown = 0, False
    while count < 30:
        code = lif.run(*arrays, times[count:], ids[count:])
        count += int(arrays[-2][lif.N_SPIKES])
        if code == status:
            assert not grown
            grown = True
            old_keys, old_ids = arrays[place : place + 2]
            head = int(arrays[-2][lif.N_DELAY_HEAD if place == 15 else lif.N_REST_HEAD])
            keys, members = np.zeros(64), np.zeros(64, np.int32)
            keys[:2], members[:2] = np.roll(old_keys, -head), np.roll(old_ids, -head)
            arrays[place : place + 2] = [keys, members]
            arrays[-2][lif.N_DELAY_HEAD if place == 15 else lif.N_REST_HEAD] = 0
    assert grown
    assert ids.tolist() == [i for _, i in network.run(30)[0]]


def test_nothing_happens_without_neurons_that_can_fire() -> None:
    arrays = Lif(b=[math.inf], ratio=[2.0], rows=[[]]).arrays()
    assert lif.run(*arrays, np.empty(3), np.empty(3, np.int32)) == lif.QUIET
    arrays = Lif(b=[math.nan], ratio=[2.0], rows=[[]]).arrays()
    assert lif.run(*arrays, np.empty(3), np.empty(3, np.int32)) == lif.NOT_FINITE
