"""A stack of frames and the delays of one frame are the same network, at thresholds of 0."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.simulator import Simulator
from eventsim.stack import Stack, channels_last
from tests.frame_delays import delayed, with_empty_frames


@pytest.mark.parametrize("engine", ["reference", "levels"])
@given(data=st.data())
def test_outputs_and_multiplications_are_those_of_the_stack(
    engine: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n_frames, side = data.draw(st.integers(2, 4)), data.draw(st.integers(4, 8))
    whole = data.draw(st.booleans())
    kernel, last = rng.integers(-3, 4, (3, n_frames, 3, 3)), rng.integers(-3, 4, (2, 3 * 4))
    if not whole:
        kernel, last = rng.normal(size=kernel.shape), rng.normal(size=last.shape)
    stack = Stack((n_frames, side, side)).convolution(kernel, [1.0, -2.0, 0.0], side - 3)
    stack.activation("relu").flatten()
    net = stack.linear(last[:, : int(np.prod(stack.shape))]).network()
    frames = rng.integers(0, 4, (9, side, side)).astype(np.float64)
    keep = rng.random(frames.shape) < 0.7
    for t in range(1, len(frames)):
        frames[t] = np.where(keep[t], frames[t - 1], frames[t])
    stacked = Simulator(net, engine=engine)
    behind = Simulator(delayed(net), engine=engine)
    for picture, newest in zip(with_empty_frames(frames, n_frames), frames, strict=True):
        expected = stacked.step(channels_last(picture).reshape(-1))
        got = behind.step(newest.reshape(-1))
        if whole:  # sums of whole numbers do not depend on their order
            assert np.array_equal(got, expected)
            assert behind.counters.synops == stacked.counters.synops
        else:
            assert got == pytest.approx(expected, rel=1e-12, abs=1e-12 * np.abs(last).sum())
