"""What is sent of windows of values, against a loop in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.kernels.hold import hold

pytestmark = pytest.mark.nojit


@given(
    seed=st.integers(0, 10_000),
    windows=st.integers(1, 4),
    steps=st.integers(1, 7),
    size=st.integers(1, 20),
    first=st.integers(0, 6),
)
def test_values_are_held_until_they_have_moved(
    seed: int, windows: int, steps: int, size: int, first: int
) -> None:
    rng = np.random.default_rng(seed)
    # Coarse, so that differences that equal the threshold occur.
    values = (rng.integers(-4, 5, (windows, steps, size)) / 4.0).astype(np.float32)
    before = (rng.integers(-4, 5, (windows, size)) / 4.0).astype(np.float32)
    limits = (rng.integers(0, 4, size) / 4.0).astype(np.float32)
    sent, counts, held = np.empty_like(values), np.zeros(size, np.int64), before.copy()
    hold(values.ravel(), held.reshape(-1), limits, first, sent.reshape(-1), counts)
    expected = np.zeros(size, np.int64)
    for w in range(windows):
        for j in range(size):
            s = before[w, j]
            for t in range(steps):
                if abs(values[w, t, j] - s) > limits[j]:
                    s = values[w, t, j]
                    expected[j] += t >= first
                assert sent[w, t, j] == s
            assert held[w, j] == s
    np.testing.assert_array_equal(counts, expected)
