"""Runs of rows give the bits of one addition after the other, whatever their width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eventsim.kernels.jit import kernel
from eventsim.kernels.window_lanes import (
    LISTED,
    add_registers_masked,
    add_run,
    end_below,
    registers,
)
from tests.oracle import once_rounded


@kernel
def _add(w: Any, neuron: Any, value: Any, e0: int, e1: int, u: Any, n: int) -> None:
    add_run(w, 3, max(n, 8) + 1, neuron, value, e0, e1, -2, u, 1, n)


@kernel
def _add_masked(
    w: Any, neuron: Any, value: Any, e0: int, e1: int, u: Any, n: int, masks: Any
) -> int:
    many, back = registers(n)
    found = add_registers_masked(
        w, 3, max(n, 8) + 1, neuron, value, e0, e1, -2, u, 1, many, back, masks, 5
    )
    return np.int64(found)  # type: ignore[return-value]


@kernel
def _end_below(neuron: Any, e: int, end: int, limit: int) -> int:
    return end_below(neuron, e, end, limit)  # type: ignore[no-any-return]


@pytest.mark.nojit
@pytest.mark.parametrize("stale", [-1, 1_000])
@pytest.mark.parametrize("count", [0, 1, 5, 31, 32, 33, 64, 70])
def test_events_below_a_limit_end_where_they_are_told_to(count: int, stale: int) -> None:
    neuron = np.full(3 + count + LISTED, stale, np.int64)
    neuron[: 3 + count] = np.arange(3 + count) * 2
    for limit in (0, 7, 8, 6 + 2 * 31, 6 + 2 * 32, 500):
        for first in range(count + 1):
            expected = first + int((neuron[3 + first : 3 + count] < limit).sum())
            assert _end_below(neuron, 3 + first, 3 + count, limit) == 3 + expected


@pytest.mark.nojit
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 8, 23, 60, 64])
@pytest.mark.parametrize("run", [(0, 0), (1, 2), (1, 9)])
def test_masks_are_gathered_on_the_way(run: tuple[int, int], n: int, kind: type) -> None:
    rng = np.random.default_rng(n)
    width = max(n, 8) + 1
    w = rng.normal(size=3 + 20 * width).astype(kind)
    masks = rng.integers(-(2**63), 2**63, 5 + 20)
    neuron, value = np.sort(rng.choice(20, 9, replace=False)) + 2, rng.normal(size=9)
    u = rng.normal(size=width + 2)
    expected = u.copy()
    _add(w, neuron, value, *run, expected, n)
    found = _add_masked(w, neuron, value, *run, u, n, masks)
    assert np.array_equal(u, expected)
    assert found == np.bitwise_or.reduce(masks[5 + neuron[slice(*run)] - 2])


@pytest.mark.nojit
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 4, 7, 8, 15, 23, 33, 41, 55, 60, 64, 65, 66, 72, 105, 128, 171])
@pytest.mark.parametrize("run", [(0, 0), (1, 2), (1, 9)])
def test_rows_are_added_in_order(run: tuple[int, int], n: int, kind: type) -> None:
    rng = np.random.default_rng(n)
    width = max(n, 8) + 1
    w = rng.normal(size=3 + 20 * width).astype(kind)
    neuron, value = np.sort(rng.choice(20, 9, replace=False)) + 2, rng.normal(size=9)
    u = rng.normal(size=width + 2)
    expected = u.copy()
    for e in range(*run):
        row = w[3 + width * (neuron[e] - 2) :][:n]
        for k in range(n):
            expected[1 + k] = once_rounded(row[k], value[e], expected[1 + k])
    _add(w, neuron, value, *run, u, n)
    assert np.array_equal(u, expected)
