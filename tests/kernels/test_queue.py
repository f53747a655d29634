"""The indexed heap against a sorted list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.kernels.queue import pop, push

pytestmark = pytest.mark.nojit

N = 12
operations = st.lists(
    st.one_of(
        st.none(),  # pop
        st.tuples(st.integers(0, N - 1), st.sampled_from([0.0, 1.0, 1.5, 2.0, 7.0])),
    ),
    max_size=60,
)


@given(operations, st.permutations(range(N)))
def test_pops_come_by_time_then_order(steps: list, order: list[int]) -> None:  # type: ignore[type-arg]
    time, neuron = np.zeros(N), np.zeros(N, np.int64)
    place, size = np.full(N, -1, np.int64), np.zeros(1, np.int64)
    rank = np.array(order, np.int64)
    model: dict[int, float] = {}
    for step in [*steps, *[None] * N]:
        if step is not None:
            i, t = step
            push(time, neuron, place, size, rank, i, t)
            model[i] = min(t, model.get(i, np.inf))
        elif model:
            expected = min(model, key=lambda i: (model[i], order[i]))
            assert time[0] == model.pop(expected)
            assert pop(time, neuron, place, size, rank) == expected
        assert size[0] == len(model)
        for i in range(N):
            assert (place[i] >= 0) == (i in model)
            if i in model:
                assert neuron[place[i]] == i
                assert time[place[i]] == model[i]
