"""Activity over a recording is what the dense forward pass computes step by step."""

from __future__ import annotations

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from eventsim import DenseForward, Network
from eventsim.errors import InputError
from eventsim.models.activity import activity


@given(st.data(), st.booleans())
def test_equals_the_dense_forward_pass(data: st.DataObject, delays: bool) -> None:
    network = data.draw(strategies.networks(delays=delays, feedback=delays))
    episodes = [data.draw(strategies.inputs(network)) for _ in range(data.draw(st.integers(1, 3)))]
    found = activity(network, episodes)
    assert found.lengths == tuple(map(len, episodes))
    dense = DenseForward(network)
    row = 0
    for x in episodes:
        dense.reset()
        for step in x:
            dense.step(step)
            for name, value in dense.activations.items():
                assert found.activations[name][row] == pytest.approx(value, rel=1e-12, abs=1e-12)
            for name, value in dense.pre_activations.items():
                assert found.pre_activations[name][row] == pytest.approx(
                    value, rel=1e-12, abs=1e-12
                )
            row += 1
    assert all(len(a) == row for a in found.activations.values())


def test_delayed_values_start_from_zero_in_every_episode() -> None:
    network = Network.from_arrays([np.array([[1.0]])])
    found = activity(network, [np.array([[1.0], [2.0], [3.0]]), np.array([[4.0]])])
    assert found.delayed("input", 0)[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert found.delayed("input", 1)[:, 0].tolist() == [0.0, 1.0, 2.0, 0.0]
    assert found.delayed("input", 5)[:, 0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_takes_an_array_or_lists() -> None:
    network = Network.from_arrays([np.eye(2)])
    x = [[1.0, 2.0], [3.0, 4.0]]
    for recording in (x, np.array(x), [np.array(x)], (x[:1], x[1:])):
        assert activity(network, recording).activations["output"].tolist() == x


@pytest.mark.parametrize(
    "recording, message",
    [
        (np.zeros((3, 4)), r"shape \(3, 4\), expected \(steps, 2\)"),
        (np.zeros(2), r"shape \(2,\)"),
        (np.zeros((0, 2)), "no step"),
        ([], r"shape \(0,\)"),
        ([np.zeros((2, 2)), np.zeros((2, 3))], r"shape \(2, 3\)"),
        ([np.array([[1.0, np.nan]])], "NaN or infinity"),
    ],
)
def test_refuses_what_is_no_recording(recording: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        activity(Network.from_arrays([np.eye(2)]), recording)  # type: ignore[arg-type]
