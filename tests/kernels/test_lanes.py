"""Eight lanes at a time give what the words of their functions say, with the compiler or without.

Kernels that only call the functions are compared with what NumPy says; networks with the reference
engine are compared in tests/test_engines.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eventsim.kernels import lanes
from eventsim.kernels.jit import kernel
from tests.oracle import once_rounded

Unsigned = np.uint64


@kernel
def _transmit(
    values: Any, constants: Any, state: Any, code: int, pending: Any, first: int, at: int
) -> Any:
    places = (Unsigned(0), Unsigned(8), Unsigned(16), Unsigned(0), pending)
    return lanes.transmit(
        values, constants, state, code, *places, Unsigned(first), Unsigned(at), Unsigned(24)
    )


@kernel
def _flags(flags: Any, start: int) -> Any:
    bits = lanes.flagged_bits(flags, Unsigned(start))
    lanes.unflag(flags, Unsigned(start))
    return bits, lanes.count_bits(bits)


@kernel
def _renewed(new: Any, at: int, old: Any, place: int) -> Any:
    return lanes.renewed_bits(new, Unsigned(at), old, Unsigned(place))


@kernel
def _add(u: Any, index: Any, w: Any, d: float, flags: Any) -> None:
    lanes.add_four(u, Unsigned(2), index, Unsigned(1), w, Unsigned(3), d, flags, Unsigned(4))


@pytest.mark.nojit
@pytest.mark.parametrize("pending", [0, 1, 0b10110100, 255, 256 + 2])
@pytest.mark.parametrize("code", [0, lanes.RELU])
def test_neurons_that_moved_enough_are_listed(code: int, pending: int) -> None:
    rng = np.random.default_rng(pending)
    values, constants = rng.normal(size=40), np.full(8, 0.5)
    state = np.full(40, -1, np.int64)
    after, before = values[8:16].copy(), values[16:24].copy()
    if code == lanes.RELU:
        after = np.maximum(after, 0.0)
    asked = (pending >> np.arange(8)) & 1 == 1
    fires = asked & (np.abs(after - before) > 0.5)
    found = int(_transmit(values, constants, state, code, Unsigned(pending), 100, 3))
    assert found == int((fires * 2 ** np.arange(8)).sum())
    n = int(fires.sum())
    np.testing.assert_array_equal(state[3 : 3 + n], 100 + np.flatnonzero(fires))
    np.testing.assert_array_equal(values[24 : 24 + n], (after - before)[fires])
    sent = np.where(fires, before + (after - before), before)
    np.testing.assert_array_equal(values[16:24], sent)


@pytest.mark.nojit
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [5, 13], ids=["state", "activation"])
def test_what_is_not_finite_is_told_if_it_was_asked(wrong: float, place: int) -> None:
    values, state = np.zeros(40), np.zeros(40, np.int64)
    values[place] = wrong
    for pending, expected in ((255, 1 << 13), (255 ^ (1 << 5), 0)):
        found = int(_transmit(values.copy(), np.ones(8), state, 0, Unsigned(pending), 0, 0))
        assert found & ~255 == expected


@pytest.mark.nojit
def test_flags_are_gathered_and_cleared() -> None:
    flags = np.ones(96, np.uint8)
    flags[8:72] = 0
    flags[[8, 30, 71]] = 1
    bits, count = _flags(flags, 8)
    assert int(bits) == 1 | 1 << 22 | 1 << 63
    assert count == 3
    assert flags[8:72].sum() == 0
    assert flags.sum() == 32


@pytest.mark.nojit
@pytest.mark.parametrize(("at", "place"), [(0, 0), (3, 5)])
def test_bytes_are_copied_and_those_that_differ_told(at: int, place: int) -> None:
    rng = np.random.default_rng(at)
    new, old = rng.integers(0, 256, 80, np.uint8), rng.integers(0, 256, 80, np.uint8)
    new[at + 10 : at + 60] = old[place + 10 : place + 60]
    before = old.copy()
    differ = new[at : at + 64] != old[place : place + 64]
    bits = int(_renewed(new, at, old, place))
    assert bits == sum(1 << k for k in np.flatnonzero(differ).tolist())
    expected = before
    expected[place : place + 64] = new[at : at + 64]
    np.testing.assert_array_equal(old, expected)


@pytest.mark.nojit
@pytest.mark.parametrize("weights", [np.float32, np.float64])
@pytest.mark.parametrize("indices", [np.uint16, np.uint32])
def test_four_synapses_are_added_and_their_targets_flagged(weights: Any, indices: Any) -> None:
    rng = np.random.default_rng(1)
    u, w = rng.normal(size=12), rng.normal(size=9).astype(weights)
    index, flags = np.array([9, 0, 3, 7, 8, 9], indices), np.zeros(16, np.uint8)
    expected, d = u.copy(), 1.7
    for k in range(4):
        j = 2 + int(index[1 + k])
        expected[j] = once_rounded(w[3 + k], d, expected[j])
    _add(u, index, w, d, flags)
    np.testing.assert_array_equal(u, expected)
    np.testing.assert_array_equal(np.flatnonzero(flags), [4, 7, 11, 12])
