"""Events per pixel and channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eventsim.analysis.event_maps import event_maps, plot_event_maps
from eventsim.errors import InputError
from eventsim.simulator import Simulator
from eventsim.stack import Stack
from eventsim.trace import EventRecorder


def test_every_event_is_counted_where_it_was() -> None:
    rng = np.random.default_rng(0)
    network = (
        Stack((2, 5, 6)).convolution(rng.normal(size=(3, 2, 2, 2))).flatten()
        .linear(rng.normal(size=(2, 60))).network()
    )  # fmt: skip
    recorder = EventRecorder()
    x = rng.normal(size=(4, 60))
    x[2] = x[1]
    Simulator(network, [recorder], engine="reference").run(x)
    events = recorder.to_arrays()
    maps = event_maps(events, network, 4)
    assert {name: m.shape for name, m in maps.items()} == {
        "input": (5, 6, 2),
        "conv1": (4, 5, 3),
    }
    np.testing.assert_array_equal(maps["input"], np.full((5, 6, 2), 0.75))
    for number, name in enumerate(maps):
        assert maps[name].sum() * 4 == pytest.approx((events["population"] == number).sum())
    with pytest.raises(InputError, match="another network"):
        event_maps({"population": [0], "neuron": [60]}, network, 1)
    with pytest.raises(InputError, match="at least 1"):
        event_maps(events, network, 0)


def test_the_figure_has_a_row_a_layer(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps = {"input": rng.random((6, 8, 1)), "conv1": rng.random((3, 4, 20))}
    figure = plot_event_maps(maps, channels=3, title="a run")
    shown = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(shown) == 5
    assert shown.count("mean") == 2
    figure.savefig(tmp_path / "maps.png")
    with pytest.raises(InputError, match="three axes"):
        plot_event_maps({})
    with pytest.raises(InputError, match="three axes"):
        plot_event_maps({"x": np.zeros(3)})
