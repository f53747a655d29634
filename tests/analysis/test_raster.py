"""The raster says what the events say: marks, bands, colours, cells, and nothing cut off."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from eventsim.analysis import raster as module
from eventsim.analysis.raster import raster
from eventsim.analysis.raster_data import check_events
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.trace import EventRecorder

POPULATIONS = [("input", 2), ("hidden1", 30), ("output", 1)]
EMPTY: dict[str, Any] = {"step": [], "population": [], "neuron": [], "value": []}


def events(rng: np.random.Generator, count: int, steps: int) -> dict[str, np.ndarray]:
    population = rng.integers(0, 2, count)
    return {
        "step": rng.integers(0, steps, count),
        "population": population,
        "neuron": rng.integers(0, np.array([2, 30])[population]),
        "value": rng.normal(size=count),
    }


def side(ax: Axes, name: str) -> Axes:
    return next(child for child in ax.child_axes if child.get_label() == name)


def texts(ax: Axes) -> str:
    return " | ".join(text.get_text() for text in ax.texts)


def assert_nothing_is_cut_off(ax: Axes) -> None:
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0.0
    assert box.y0 >= 0.0
    assert box.x1 <= width
    assert box.y1 <= height


def test_marks_stand_where_the_events_are() -> None:
    data = {"step": [0, 3, 1], "population": [0, 1, 1], "neuron": [1, 0, 29], "value": [2, -0.5, 1]}
    ax = raster(data, POPULATIONS, steps=5)
    (marks,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    lines = {float(v): s for v, s in zip(marks.get_array(), marks.get_segments(), strict=True)}
    assert {value: line[0, 0] for value, line in lines.items()} == {2.0: 0.0, -0.5: 3.0, 1.0: 1.0}
    # From top to bottom in network order: input 1, hidden 0, hidden 29.
    y = [lines[value].mean(axis=0)[1] for value in (2.0, -0.5, 1.0)]
    assert y == sorted(y)
    assert ax.yaxis_inverted()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["input (2)", "hidden1 (30)", "output (1)"]
    ticks = ax.get_yticks()
    assert y[1] < ticks[1] < y[2] < ticks[2]
    assert abs(y[0] - ticks[0]) < 0.2
    # The last drawn, on top, is the strongest one.
    assert abs(marks.get_array()[-1]) == 2.0
    assert ax.get_xlim() == (-0.5, 4.5)
    assert "3 events in 5 steps" in texts(ax)
    assert "no events" in texts(ax)  # the output


def test_sign_can_be_told_by_colour_and_in_grey() -> None:
    def lightness(colour: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        y = np.dot((0.2126, 0.7152, 0.0722), linear)
        return float(116 * np.cbrt(y) - 16)

    colours = module._colours()
    negative = [lightness(colours(x)) for x in np.linspace(0.0, 0.499, 50)]
    positive = [lightness(colours(x)) for x in np.linspace(0.501, 1.0, 50)]
    assert negative == sorted(negative)  # the stronger, the darker
    assert positive == sorted(positive, reverse=True)
    assert min(negative) > max(positive) + 5
    assert lightness(to_rgb(module._BAND)) > max(negative) + 10


def test_values_map_to_colours_by_sign_and_size(rng: np.random.Generator) -> None:
    ax = raster(events(rng, 200, 100), POPULATIONS, steps=100)
    marks = next(c for c in ax.collections if isinstance(c, LineCollection))
    norm = marks.norm
    assert norm.vmin == -norm.vmax
    np.testing.assert_allclose(norm([-norm.vmax, 0.0, norm.vmax]), [0.0, 0.5, 1.0])
    assert side(ax, "scale").get_ylabel() == "transmitted change"


def test_spikes_are_ticks_of_one_colour() -> None:
    data = {"step": [0, 3], "population": [0, 1], "neuron": [1, 0], "value": [1.0, 1.0]}
    ax = raster(data, POPULATIONS, steps=5)
    marks = next(c for c in ax.collections if isinstance(c, LineCollection))
    assert marks.get_array() is None
    assert not [child for child in ax.child_axes if child.get_label() == "scale"]


def test_rewards_and_episodes_share_the_axis_of_steps(rng: np.random.Generator) -> None:
    data = {
        "episode": [0, 1, 1],
        "step": [2, 0, 4],
        "population": [0, 0, 0],
        "neuron": [0, 0, 0],
        "value": [1.0, 2.0, -3.0],
    }
    rewards = np.arange(9.0)
    ax = raster(data, POPULATIONS, episode_lengths=[4, 5], rewards=rewards, title="A run")
    marks = next(c for c in ax.collections if isinstance(c, LineCollection))
    assert sorted(line[0, 0] for line in marks.get_segments()) == [2.0, 4.0, 8.0]
    track = side(ax, "reward")
    assert track.get_xlim() == ax.get_xlim() == (-0.5, 8.5)
    assert track.get_shared_x_axes().joined(track, ax)
    curve = track.lines[0]
    np.testing.assert_array_equal(curve.get_ydata(), rewards)
    for axes, lines in ((ax, ax.lines), (track, track.lines[1:])):
        assert [line.get_xdata()[0] for line in lines] == [3.5], axes
    assert texts(track) == "return 6 | return 30"
    assert track.get_title(loc="left") == "A run"
    assert_nothing_is_cut_off(ax)


def test_rates_stand_beside_their_neurons() -> None:
    data = {"step": [0, 1, 2], "population": [0, 0, 1], "neuron": [1, 1, 0], "value": [1, 2, 3]}
    ax = raster(data, POPULATIONS, steps=4)
    margin = side(ax, "rate")
    rates = [patch.get_data().values for patch in margin.patches]
    assert rates[0].tolist() == [0.0, 0.5]
    assert rates[1].tolist() == [0.25] + [0.0] * 29
    assert texts(margin) == "25 % | 0.833 %"


@pytest.mark.parametrize("steps", [None, 0, 1, 100])
def test_an_empty_run_is_an_empty_labelled_plot(steps: int | None) -> None:
    ax = raster(EMPTY, POPULATIONS, steps=steps, title="Nothing", rewards=[0.0] * (steps or 0))
    assert texts(ax).count("no events") == 3
    assert f"0 events in {steps or 0} steps" in texts(ax)
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    assert_nothing_is_cut_off(ax)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3000), st.sampled_from([40, 700, 3001]))
def test_cells_keep_every_event(seed: int, steps: int, hidden: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.array([3, hidden])
    population = rng.integers(0, 2, 2000)
    data = {
        "step": rng.integers(0, steps, 2000),
        "population": population,
        "neuron": rng.integers(0, sizes[population]),
        "value": rng.normal(size=2000),
    }
    ax = raster(data, [("a", 3), ("b", hidden)], steps=steps, max_marks=1999)
    assert "2 000 events" in texts(ax)
    assert "binned: a cell is" in texts(ax)
    total = 0.0
    for image, size in zip(ax.images, sizes, strict=True):
        share = np.asarray(image.get_array())
        left, right, bottom, top = image.get_extent()
        wide = round((right - left) / share.shape[1])
        tall = -(-int(size) // share.shape[0])
        across = np.minimum(wide, steps - wide * np.arange(share.shape[1]))
        down = np.minimum(tall, size - tall * np.arange(share.shape[0]))
        assert across.min() > 0
        assert down.min() > 0
        total += float((share * down[:, None] * across).sum())
        assert bottom > top
        # No cell is smaller than a pixel, so none is dropped.
        box = ax.get_window_extent()
        assert share.shape[1] <= box.width
        assert share.shape[0] <= box.height
    assert total == pytest.approx(2000)


def test_more_than_two_steps_to_a_pixel_are_binned(rng: np.random.Generator) -> None:
    ax = raster(events(rng, 50, 10_000), POPULATIONS, steps=10_000, rewards=np.ones(10_000))
    assert "binned" in texts(ax)
    assert side(ax, "scale").get_ylabel() == "neuron-steps with an event"
    assert_nothing_is_cut_off(ax)


def test_many_layers_and_long_names_are_not_cut_off(rng: np.random.Generator) -> None:
    many = [(f"a layer with a long name {k}", int(rng.integers(1, 300))) for k in range(24)]
    data = {"step": [0, 7], "population": [0, 23], "neuron": [0, 0], "value": [0.1, -20.0]}
    ax = raster(data, many, steps=400, rewards=rng.normal(size=400) * 1e4, title="Deep")
    assert_nothing_is_cut_off(ax)


def test_given_axes_are_used(rng: np.random.Generator) -> None:
    figure = Figure(layout="constrained", figsize=(9, 8))
    axes = figure.subplots(2)
    for ax in axes:
        data = events(rng, 100, 100)
        assert raster(data, POPULATIONS, ax=ax, rewards=np.ones(100), title="given") is ax
    figure.draw_without_rendering()
    first = side(axes[0], "reward").get_window_extent()
    assert first.y0 > axes[0].get_window_extent().y1


def test_takes_a_network_and_a_recorder(rng: np.random.Generator) -> None:
    network = Network.from_arrays([rng.normal(size=(5, 3)), rng.normal(size=(2, 5))])
    recorder = EventRecorder()
    simulator = Simulator(network, hooks=[recorder])
    simulator.run(rng.normal(size=(20, 3)))
    ax = raster(recorder.to_arrays(), network, steps=20)
    assert f"{len(recorder)} events in 20 steps" in texts(ax)
    by_population = raster(recorder.to_arrays(), network.populations)
    assert by_population.get_yticklabels()[1].get_text() == "hidden1 (5)"


def test_saves_without_warnings(tmp_path: Any, rng: np.random.Generator) -> None:
    ax = raster(events(rng, 500, 80), POPULATIONS, rewards=np.ones(80), title="png, pdf, svg")
    for name in ("a.png", "a.pdf", "a.svg"):
        ax.figure.savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_needs_no_pyplot() -> None:
    code = (
        "import sys; from eventsim.analysis.raster import raster;"
        "assert 'matplotlib' not in sys.modules;"
        "raster({'step': [0], 'population': [0], 'neuron': [0], 'value': [0.5]}, [('a', 1)]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_episode_ends_with_its_last_event_unless_told() -> None:
    data = {**{k: [0, 0] for k in EMPTY}, "episode": [0, 1], "step": [4, 1]}
    assert check_events(data, POPULATIONS).steps == 7
    assert check_events(data, POPULATIONS).starts.tolist() == [0, 5]
    assert check_events(data, POPULATIONS, episode_lengths=[6, 2]).starts.tolist() == [0, 6]


GOOD = {"step": [1, 2], "population": [0, 1], "neuron": [0, 0], "value": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"value": None}, {}, "'value': is missing"),
        ({"neuron": [0]}, {}, r"'neuron': has shape \(1,\); give as many entries"),
        ({"neuron": [0, 30]}, {}, "neuron that the populations do not have"),
        ({"neuron": [0, -1]}, {}, "neuron that the populations do not have"),
        ({"population": [0, 3]}, {}, "neuron that the populations do not have"),
        ({"population": [0.5, 1]}, {}, "'population': holds float64; give whole numbers"),
        ({"value": [1.0, np.nan]}, {}, "not finite"),
        ({"step": [1, -2]}, {}, "negative step"),
        ({}, {"steps": 2}, "event in step 2 of a run of 2 steps"),
        ({}, {"rewards": np.ones(2)}, "event in step 2"),
        ({}, {"rewards": np.ones((3, 1))}, r"'rewards': have shape \(3, 1\)"),
        ({}, {"steps": 5, "rewards": np.ones(6)}, "there are 6 rewards"),
        ({}, {"episode_lengths": [3], "steps": 4}, "its episodes 3"),
        ({"episode": [0, 1]}, {"episode_lengths": [3]}, "1 entries, but there are events"),
        ({"episode": [0, 1]}, {"rewards": np.ones(9)}, "give episode_lengths"),
        ({}, {"episode_lengths": []}, "'episode_lengths': must list"),
        ({}, {"episode_lengths": [-3, 9]}, "'episode_lengths': must list"),
    ],
)
def test_arrays_out_of_order_are_refused(
    change: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        raster({**GOOD, **change}, POPULATIONS, **options)


@pytest.mark.parametrize("populations", [[], [("a", 0)], [("a", 1, 2)]])
def test_populations_must_have_names_and_sizes(populations: Any) -> None:
    with pytest.raises(ValueError, match="'populations': must be"):
        raster(EMPTY, populations)
