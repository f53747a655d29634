"""Which targets dense rows flag, and when that is known to be all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eventsim.kernels.fields import ALL, R_COUNT, R_MASK, SOME, W_ROW
from eventsim.kernels.jit import kernel
from eventsim.kernels.rows import flag_rows


@kernel
def _flag(table: Any, neuron: Any, e1: int, state: Any, n: int) -> int:
    return flag_rows(table, 0, neuron, 0, e1, state, 2, n)  # type: ignore[no-any-return]


def _rows(survives: Any) -> Any:
    """A table of rows, with the bits of each behind it."""
    n_rows, n = survives.shape
    words = -(-n // 64)
    table = np.zeros(n_rows * (W_ROW + words), np.int64)
    for i, row in enumerate(survives):
        table[W_ROW * i + R_COUNT] = row.sum()
        place = table[W_ROW * i + R_MASK] = n_rows * W_ROW + words * i
        bits = np.packbits(row, bitorder="little")
        table[place : place + words].view(np.uint8)[: bits.size] = bits
    return table


@pytest.mark.nojit
@pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 127, 128, 200])
def test_targets_are_flagged_until_none_is_left(n: int) -> None:
    rng = np.random.default_rng(n)
    survives = rng.random((12, n)) < 0.5
    survives[:, n // 2] = False
    survives[9, n // 2] = True
    table, neuron = _rows(survives), np.arange(12)
    for e1 in range(13):
        state = np.zeros(2 + -(-n // 64) + 1, np.int64)
        flagged = survives[:e1].any(0)
        # A row that reaches everyone has no bits; what is flagged then goes without saying.
        assert _flag(table, neuron, e1, state, n) == (ALL if flagged.all() else SOME)
        bits = np.unpackbits(state[2:].view(np.uint8), bitorder="little")
        assert bits[n:].sum() == 0
        if not flagged.all():
            np.testing.assert_array_equal(bits[:n], flagged)


@pytest.mark.nojit
@pytest.mark.parametrize("n", [5, 64, 130])
def test_a_row_that_reaches_everyone_flags_all(n: int) -> None:
    survives = np.zeros((3, n), np.bool_)
    survives[1] = True
    survives[2, 0] = True
    state = np.zeros(2 + -(-n // 64), np.int64)
    assert _flag(_rows(survives), np.array([0, 1, 2]), 3, state, n) == ALL
    assert _flag(_rows(survives), np.array([0, 2]), 2, state, n) == SOME
