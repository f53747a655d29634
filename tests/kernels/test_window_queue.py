"""The order of a window's candidates, its heap, and comparisons that give bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.kernels import bits
from eventsim.kernels.bits import below_bits, fired_bits, first_bit, prefetch
from eventsim.kernels.jit import kernel
from eventsim.kernels.window_queue import heap_pop, heap_push, order

pytestmark = pytest.mark.nojit

Unsigned = np.uint64
# Clustered at both ends of the window, so that buckets are anything but even.
KEYS = st.one_of(
    st.sampled_from([1.0, 1.5, 2.0]),
    st.floats(1.0, 2.0),
    st.integers(0, 400).map(lambda k: 1.0 + k * 2.0**-50),
)


@kernel
def below(array, start, limit):  # type: ignore[no-untyped-def]
    prefetch(array, Unsigned(start))
    return below_bits(array, Unsigned(start), limit)


@kernel
def fired(array, start, cosine, sine):  # type: ignore[no-untyped-def]
    return fired_bits(array, Unsigned(start), cosine, sine)


@kernel
def first(mask):  # type: ignore[no-untyped-def]
    return first_bit(mask)


def _ordered(keys: list[float]) -> None:
    m = len(keys)
    key, member = np.array([*keys, 0.0]), np.arange(m + 1, dtype=np.int32) * 3
    out, ids = np.empty(m + 1), np.empty(m + 1, np.int32)
    order(1.0, 2.0, m, key, member, np.empty(m + 2, np.int32), out, ids)
    expected = np.argsort(keys, kind="stable")
    assert out[:m].tolist() == np.array(keys)[expected].tolist()
    assert ids[:m].tolist() == (3 * expected).tolist()
    assert out[m] == math.inf


@given(st.lists(KEYS, min_size=1, max_size=300))
def test_candidates_come_by_key_then_id(keys: list[float]) -> None:
    _ordered(keys)


def test_candidates_that_fall_into_one_bucket_take_no_square_of_time() -> None:
    # Descending by one unit in the last place: the worst case of insertion.
    _ordered([1.0 + (1000 - k) * 2.0**-52 for k in range(1000)])


@given(st.lists(st.one_of(st.none(), st.tuples(KEYS, st.integers(0, 9))), max_size=80))
def test_the_heap_pops_by_key_then_id(steps: list[tuple[float, int] | None]) -> None:
    keys, ids, n = np.full(90, math.inf), np.zeros(90, np.int32), 0
    model: list[tuple[float, int]] = []
    for step in [*steps, *[None] * len(steps)]:
        if step is not None:
            n = heap_push(keys, ids, n, *step)
            model.append(step)
        elif model:
            assert (keys[0], ids[0]) == min(model)
            model.remove(min(model))
            n = heap_pop(keys, ids, n)
        assert n == len(model)
        assert model or keys[0] == math.inf


@given(st.integers(0, 2**32), st.integers(0, 20))
def test_bits_of_comparisons(seed: int, start: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, -1.0, 1.0, 0.5, np.inf, np.nan], 200)
    assert below(values, start, 0.5) == bits._plain_below(values, start, 0.5)
    pairs = rng.normal(size=200) * rng.integers(0, 2, 200)
    expected = bits._plain_fired(pairs, start, 0.6, 0.8)
    assert fired(pairs, start, 0.6, 0.8) == expected
    if expected:
        assert first(expected) == bits._plain_first(expected)
