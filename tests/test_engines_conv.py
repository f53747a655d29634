"""Convolutional networks: every engine gives the reference's events, and batches give them too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim import windows
from eventsim.batch import BatchSimulator
from eventsim.simulator import Simulator
from tests.conv_strategies import frames, networks, unrolled
from tests.test_engines import FAST, assert_equal_to_reference


@pytest.mark.nojit
@pytest.mark.parametrize("engine", FAST)
@given(st.data())
def test_any_network(engine: str, data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=data.draw(st.sampled_from([0.0, 0.3]))))
    assert_equal_to_reference(network, data.draw(frames(network)), engine)


@pytest.mark.parametrize("fill", [0.0, 0.4, 2.0], ids=["dense", "mixed", "indexed"])
@given(data=st.data())
def test_every_row_format(fill: float, data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.05, delays=False))
    x = data.draw(frames(network))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DENSE_FILL", "DENSE_MEAN"):
            patch.setattr(windows, name, fill)
        assert_equal_to_reference(network, x, "levels")


@given(data=st.data())
def test_equal_to_the_unrolled_network(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.1))
    x = data.draw(frames(network))
    mine, theirs = (Simulator(n, engine="levels") for n in (network, unrolled(network)))
    np.testing.assert_array_equal(mine.run(x), theirs.run(x))
    np.testing.assert_array_equal(mine.totals.table[:, :4], theirs.totals.table[:, :4])


@given(data=st.data())
def test_batches(data: st.DataObject) -> None:
    network = data.draw(networks(max_threshold=0.1))
    x = np.stack([data.draw(frames(network, max_steps=1)) for _ in range(3)])
    batch = BatchSimulator(network, 3)
    got = [batch.run(x), batch.step(x[:, 0])]
    for k in range(3):
        single = Simulator(network)
        np.testing.assert_array_equal(got[0][k], single.run(x[k]))
        np.testing.assert_array_equal(got[1][k], single.step(x[k, 0]))
    assert batch.totals.synops >= 0


@pytest.mark.parametrize("engine", ["reference", "levels"])
@given(data=st.data())
def test_bytes_are_the_numbers_that_they_are(engine: str, data: st.DataObject) -> None:
    """Bytes and numbers in turn, resets and states in between: as numbers throughout."""
    network = data.draw(networks(max_threshold=0.5))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x = rng.integers(0, 256, (8, network.n_inputs), np.uint8)
    x[rng.random(x.shape) < 0.8] = 7
    plan = data.draw(st.lists(st.sampled_from("bfrs"), min_size=8, max_size=8))
    mine, numbers = Simulator(network, engine=engine), Simulator(network, engine=engine)
    kept = mine.get_state(), numbers.get_state()
    for row, how in zip(x, plan, strict=True):
        if how == "r":
            mine.reset()
            numbers.reset()
        elif how == "s":
            mine.set_state(kept[0])
            numbers.set_state(kept[1])
        got = mine.step(row.astype(np.float64) if how == "f" else row)
        np.testing.assert_array_equal(got, numbers.step(row.astype(np.float64)))
        np.testing.assert_array_equal(mine.counters.table, numbers.counters.table)
        if how == "b":
            kept = mine.get_state(), numbers.get_state()
    np.testing.assert_array_equal(mine.run(x), numbers.run(x.astype(np.float64)))
