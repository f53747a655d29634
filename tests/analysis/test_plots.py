"""What the pictures show, read back from their artists."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from strategies import inputs, networks

from eventsim.analysis.plots import network_graph, projection_synops, rate_map, survival
from eventsim.analysis.raster import raster
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder, EventRecorder

POPULATIONS = [("input", 2), ("hidden1", 4)]
EVENTS: dict[str, Any] = {
    "step": np.array([0, 0, 1, 5, 6]),
    "population": np.array([0, 1, 1, 0, 1]),
    "neuron": np.array([0, 1, 3, 1, 0]),
    "value": np.array([1.0, -0.5, 0.3, 2.0, 1.0]),
}


def child(ax: Any, label: str) -> Any:
    return next(other for other in ax.child_axes if other.get_label() == label)


def test_rates_by_hand() -> None:
    ax = rate_map(EVENTS, POPULATIONS, steps=8, window=3, title="Rates")
    (mesh,) = ax.collections[:1]
    # Windows of 3, 3 and 2 steps.
    expected = [[1 / 6, 1 / 6, 0.0], [2 / 12, 0.0, 1 / 8]]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(2, 3), expected)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["input (2)", "hidden1 (4)"]
    assert ax.get_xlabel() == "step, in windows of 3"
    assert child(ax, "scale").get_ylim()[1] == pytest.approx(1 / 6)
    assert ax.get_title(loc="left") == "Rates"


def test_rates_mark_episodes_and_choose_windows() -> None:
    ax = rate_map(EVENTS, POPULATIONS, episode_lengths=[1200])
    assert ax.get_xlabel() == "step, in windows of 10"
    two = {**EVENTS, "episode": np.array([0, 0, 0, 1, 1])}
    ax = rate_map(two, POPULATIONS, episode_lengths=[4, 7])
    assert [line.get_xdata()[0] for line in ax.lines] == [3.5]


def test_empty_plots_are_labelled() -> None:
    none = {name: column[:0] for name, column in EVENTS.items()}
    ax = rate_map(none, POPULATIONS)
    assert ax.get_xlabel() == "step: no events"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["input (2)", "hidden1 (4)"]
    network = Network.from_arrays([np.ones((3, 2))])
    empty = np.zeros((0, 2), np.int64)
    ax = survival(network, empty, empty)
    assert [text.get_text() for text in ax.texts] == ["no steps", "no steps"]
    for plot in (lambda: rate_map(none, POPULATIONS, ax=Figure().add_subplot()),):
        plot().figure.canvas.draw()


def test_windows_must_be_positive() -> None:
    with pytest.raises(ValueError, match="'window': is 0"):
        rate_map(EVENTS, POPULATIONS, window=0)


def test_survival_by_hand() -> None:
    network = Network.from_arrays([np.ones((4, 2)), np.ones((1, 4))])
    evaluations = np.array([[2, 4, 1], [1, 2, 1]])
    events = np.array([[2, 1, 0], [0, 1, 0]])
    ax = survival(network, evaluations, events, title="Survival")
    texts = [text.get_text() for text in ax.texts]
    assert texts == [
        "reached 75 %, passed on 50 % (0.67 events each)",
        "reached 75 %, passed on 25 % (0.33 events each)",
        "reached 100 %, sends to nobody",
    ]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx([0.75, 0.5, 0.75, 0.25, 1.0])
    with pytest.raises(ValueError, match="'evaluations': has shape"):
        survival(network, evaluations[:, :2], events)


def looped() -> Network:
    return Network(
        populations=(
            Population("speed", 1, Input()),
            Population("memory", 2, Delta("tanh")),
            Population("motor", 1, Delta("identity")),
        ),
        projections=(
            Projection("speed", "memory", np.ones((2, 1))),
            Projection("memory", "memory", np.array([[0.0, 0.3], [0.3, 0.0]]), delay=1),
            Projection("memory", "motor", np.ones((1, 2))),
            Projection("speed", "motor", np.array([[0.2]]), delay=2, name="late"),
            Projection("motor", "memory", np.ones((2, 1)), delay=1, name="back"),
        ),
        outputs=("motor",),
    )


def arrows(ax: Any) -> dict[str, Any]:
    return {patch.get_label(): patch for patch in ax.patches if "Arrow" in type(patch).__name__}


def test_graph_has_a_box_for_each_population_and_an_arrow_for_each_projection() -> None:
    ax = network_graph(looped())
    ax.figure.canvas.draw()
    texts = [text.get_text() for text in ax.texts]
    assert {"speed", "memory", "motor", "2 neurons", "1 neuron"} <= set(texts)
    assert "2 of 4\nsynapses, delay 1" in texts
    drawn = arrows(ax)
    assert set(drawn) == {
        "speed->memory", "memory->memory", "memory->motor", "late", "back",
    }  # fmt: skip
    dashed = [patch for patch in ax.patches if type(patch).__name__ == "PathPatch"]
    assert len(dashed) == 3  # those with a delay
    low, high = ax.get_ylim()
    for arrow in drawn.values():
        extent = arrow.get_path().get_extents()
        assert low < extent.y0
        assert extent.y1 < high


def test_widths_follow_the_synops() -> None:
    network = Network.from_arrays([np.ones((4, 2)), np.ones((1, 4))])
    names = [q.name for q in network.projections]
    widths = arrows(network_graph(network, dict(zip(names, (4.0, 1.0), strict=True))))
    wide, thin = (widths[name].get_linewidth() for name in names)
    assert (wide - 0.5) / (thin - 0.5) == pytest.approx(2.0)
    ax = network_graph(network, dict.fromkeys(names, 1234.0), title="Network")
    assert "1 234 of 8 MACs\na step" in [text.get_text() for text in ax.texts]
    quiet = arrows(network_graph(network, dict.fromkeys(names, 0.0)))
    assert all(arrow.get_linewidth() == 0.5 for arrow in quiet.values())


@pytest.mark.parametrize(
    ("synops", "message"),
    [
        ({"input->hidden1": 1.0}, "'synops': has no entry for projection 'hidden1->output'"),
        ({"input->hidden1": -1.0, "hidden1->output": 1.0}, "negative"),
        ({"input->hidden1": np.nan, "hidden1->output": 1.0}, "NaN"),
    ],
)
def test_synops_out_of_order_are_refused(synops: dict[str, float], message: str) -> None:
    network = Network.from_arrays([np.ones((4, 2)), np.ones((1, 4))])
    with pytest.raises(ValueError, match=message):
        network_graph(network, synops)


@given(st.data())
def test_synops_of_projections_add_up(data: st.DataObject) -> None:
    network = data.draw(networks(delays=False, feedback=False))
    x = data.draw(inputs(network))
    events, counters = EventRecorder(), CounterRecorder()
    Simulator(network, hooks=[events, counters]).run(x)
    found = projection_synops(network, events.to_arrays(), steps=len(x))
    for k, population in enumerate(network.populations):
        mine = sum(found[q.name] for q in network.incoming(population.name))
        assert mine == pytest.approx(counters.table[:, k, 2:4].sum() / len(x))
    none = {name: column[:0] for name, column in events.to_arrays().items()}
    assert set(projection_synops(network, none).values()) == {0.0}


def test_tracks_stand_above_the_raster() -> None:
    steps = 8
    ax = raster(
        EVENTS, POPULATIONS, steps=steps, rewards=np.arange(steps),
        actions=np.arange(steps) % 2, observations=np.ones((steps, 3)), title="Tracks",
    )  # fmt: skip
    ax.figure.canvas.draw()
    tracks = [child(ax, name) for name in ("reward", "action", "observation")]
    assert [len(track.lines) for track in tracks] == [1, 1, 3]
    boxes = [track.get_window_extent() for track in tracks]
    assert ax.get_window_extent().y1 < boxes[0].y0
    for below, above in pairwise(boxes):
        assert below.y1 < above.y0
    assert boxes[-1].y1 < ax.figure.bbox.y1
    assert tracks[-1].get_title(loc="left") == "Tracks"
    np.testing.assert_array_equal(tracks[1].lines[0].get_ydata(), np.arange(steps) % 2)
    for track in tracks:
        assert track.get_xlim() == ax.get_xlim()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"actions": np.ones(3)},
            r"'actions': have shape \(3,\); give \(8,\) or \(8, components\)",
        ),
        ({"observations": np.ones((8, 2, 2))}, "'observations': have shape"),
        ({"observations": np.full(8, np.nan)}, "'observations': hold a value that is not finite"),
        ({"actions": ["a"] * 8}, "'actions': are not numbers"),
    ],
)
def test_tracks_out_of_order_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        raster(EVENTS, POPULATIONS, steps=8, **options)
