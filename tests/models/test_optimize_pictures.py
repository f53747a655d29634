"""The search and the whole command on pictures: MinAtar, and a small game of stacked frames."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import eventsim
from eventsim.errors import InputError, SimulationError, UnsupportedError
from eventsim.models.activity import activity
from eventsim.models.arena import Arena
from eventsim.models.compaction import unrolled
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.families import PictureFamily, VectorFamily, family_of
from eventsim.models.films import Film
from eventsim.models.optimize import OutOfTimeError, Search, Settings, settings_for
from eventsim.models.picture_student import PictureShape
from eventsim.models.pixels import Pixels
from eventsim.models.policy import Policy
from eventsim.models.quantization import check_size, quantize, size_bytes
from eventsim.models.refine import changes_of
from eventsim.models.reinforce import Progress
from eventsim.models.student import Demonstrations
from eventsim.models.validation import Validation
from eventsim.models.wrappers import atari
from eventsim.neurons import Delta, activation
from eventsim.optimize_run import optimize
from eventsim.optimize_state import Settings as RunSettings
from eventsim.simulator import Simulator
from eventsim.stack import Stack
from tests.tiny import cartpole_policy

SIDE, STACK = 8, 2
ENV = "Catch-v0"
EFFORT: dict[str, Any] = {
    "recorded_steps": 700,
    "visits": 1,
    "visited_steps": 300,
    "dense_iterations": 250,
    "event_iterations": 25,
    "starts": 1,
    "screened": 4,
    "wider": (0,),
    "rounds": 2,
    "slack": 0.5,
    "refine_checks": 4,
    "windows": 8,
    "window_steps": 8,
    "reinforced_steps": 0,
}


class Catch(gym.Env[Any, Any]):
    """A stone falls, and the player at the bottom goes below it; six stones an episode."""

    observation_space = gym.spaces.Box(0, 255, (SIDE, SIDE), np.uint8)
    action_space = gym.spaces.Discrete(3)
    metadata = {"render_modes": []}  # noqa: RUF012

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._player, self._stones = SIDE // 2, 6
        self._drop()
        return self._picture(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._player = int(np.clip(self._player + int(action) - 1, 0, SIDE - 1))
        self._y += 1
        reward = 0.0
        if self._y == SIDE - 1:
            reward = float(abs(self._x - self._player) <= 1)
            self._stones -= 1
            self._drop()
        return self._picture(), reward, self._stones == 0, False, {}

    def _drop(self) -> None:
        self._y, self._x = 0, int(self.np_random.integers(SIDE))

    def _picture(self) -> np.ndarray:
        picture = np.zeros((SIDE, SIDE), np.uint8)
        picture[self._y, self._x] = 255
        picture[-1, self._player] = 128
        return picture


def catcher() -> Policy:
    """Catches every stone: a convolution finds stone and player, a linear layer compares."""
    if ENV not in gym.registry:
        gym.register(ENV, Catch)
    # Channel 0 sees the stones (above half light), channel 1 the players, of the newest frame.
    kernel = np.zeros((2, STACK, 1, 1))
    kernel[0, 1], kernel[1, 1] = 2.0, 2.0
    x = np.arange(SIDE) - SIDE / 2
    stone = np.tile(x, (SIDE, 1))
    stone[-1] = 0.0
    player = np.zeros((SIDE, SIDE))
    player[-1] = x
    # Of light 255 the stone gives 1, of light 128 the player about 1.
    gap = np.concatenate([stone.ravel(), -player.ravel()])
    stack = Stack((STACK, SIDE, SIDE), scale=1 / 255)
    stack.convolution(kernel, np.array([-1.0, 0.0])).activation("relu")
    # The player's row is the last one, where the stone is never seen.
    stack.flatten().linear(np.stack([-gap, np.zeros_like(gap), gap]), np.array([-0.5, 0.0, -0.5]))
    return Policy(
        Encoder(BoxSpec((STACK, SIDE, SIDE), "uint8"), pixels=Pixels()),
        stack.network(),
        Argmax(3),
        {
            "env_id": ENV,
            "env_wrappers": [{"name": "FrameStackObservation", "arguments": {"stack_size": STACK}}],
        },
    )


def searched(folder: Path, **options: Any) -> Search:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    arguments: dict[str, Any] = {"settings": settings_for(catcher(), **EFFORT), **options}
    return Search(catcher(), ENV, workdir=folder, **arguments)


def test_the_network_says_which_students_there_are() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    assert isinstance(family_of(cartpole_policy()), VectorFamily)
    assert settings_for(cartpole_policy()) == Settings()
    family = family_of(catcher())
    assert isinstance(family, PictureFamily)
    macs = [family.macs(shape) for shape in family.shapes]
    assert macs == sorted(macs)
    assert macs[-1] <= 0.7 * catcher().dense_macs
    assert PictureShape((1,), ()) in family.shapes
    assert PictureShape() in family.shapes
    assert family.words(PictureShape((2,), (5,))) == "128-2c1-5-3"
    assert family.words(PictureShape((), (16,))) == "128-16-3"


def test_the_teacher_as_a_student_does_what_it_did() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    rng = np.random.default_rng(1)
    stack = Stack((2, 12, 10), scale=1 / 255)
    stack.convolution(rng.normal(size=(3, 2, 4, 3)), rng.normal(size=3), (2, 1), (1, 0))
    stack.activation("relu").convolution(rng.normal(size=(4, 3, 2, 2)), rng.normal(size=4))
    stack.activation("relu").flatten()
    stack.linear(rng.normal(size=(6, 140)), rng.normal(size=6)).activation("relu")
    network = stack.linear(rng.normal(size=(3, 6)), rng.normal(size=3)).network()
    policy = Policy(Encoder(BoxSpec((2, 12, 10), "uint8"), pixels=Pixels()), network, Argmax(3), {})
    student = family_of(policy).own(policy, Demonstrations())
    assert student is not None
    assert student.dense_macs == policy.dense_macs
    pictures = rng.integers(0, 256, (5, 12 * 10 * 2), np.uint8)
    expected = Simulator(network).run(pictures)
    got = Simulator(student.to_policy(policy).network).run(pictures)
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-4)
    with_tanh = replace(network[network.outputs[0]], neuron=Delta(activation("tanh")))
    others = tuple(with_tanh if p.name == with_tanh.name else p for p in network.populations)
    other = policy.with_network(replace(network, populations=others))
    assert family_of(other).own(other, Demonstrations()) is None


def test_a_teacher_with_convolutions_plays_by_events_as_it_would_densely() -> None:
    policy = catcher()
    with Arena(policy, ENV) as arena:
        assert not arena.is_atari
        found = [arena.taught(seed).total for seed in range(5)]
    assert found == list(eventsim.evaluate(policy, episodes=5, dense=True, progress=False).returns)


def test_the_search_is_shorter_where_pictures_are_frames_of_a_screen() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    small = settings_for(catcher())
    stack = Stack((4, 84, 84), scale=1 / 255)
    stack.convolution(np.ones((2, 4, 8, 8)), np.zeros(2), stride=4).activation("relu")
    network = stack.flatten().linear(np.ones((3, 800)), np.zeros(3)).network()
    policy = Policy(Encoder(BoxSpec((4, 84, 84), "uint8"), pixels=Pixels()), network, Argmax(3), {})
    frames = settings_for(policy)
    assert frames.screened < small.screened
    assert frames.dense_batch is not None
    shown = frames.dense_iterations * frames.dense_batch
    assert shown < small.dense_iterations * 16 * small.windows
    assert settings_for(policy, screened=9).screened == 9


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("narrowest", -1, "is -1; give 0 or more"),
        ("wider", (0, -1), "is -1; give 0 or more"),
        ("cost", float("nan"), "is nan; give 0 or more"),
        ("slack", float("nan"), "is nan; give a number"),
        ("rounds", "3", "is '3'; give a number"),
        ("rounds", 2.5, "is 2.5; give a whole number"),
        ("rounds", math.inf, "is inf; give a whole number"),
        ("rounds", (1, 2), r"is \(1, 2\); give a number"),
        ("wider", 1, "is 1; give several numbers"),
        ("reinforced_last_layer", 2, "is 2; give True or False"),
    ],
)
def test_an_effort_that_makes_no_sense_is_refused(field: str, value: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"'{field}'.*{says}"):
        settings_for(catcher(), **{field: value})
    legal = settings_for(
        catcher(), slack=-0.1, dense_batch=None, hopeless=math.inf, wider=[0], rounds=2
    )
    assert legal.slack == -0.1


def test_what_no_student_is_like_is_refused() -> None:
    pooled = Stack((2, 8, 8)).convolution(np.ones((2, 2, 3, 3))).activation("relu").max_pool(2)
    policy = catcher()
    encoder = Encoder(BoxSpec((2, 8, 8), "uint8"), pixels=Pixels())
    network = pooled.flatten().linear(np.ones((3, 18))).network()
    with pytest.raises(UnsupportedError, match=r"'conv1->pool1'.*pools.*strides instead"):
        family_of(Policy(encoder, network, Argmax(3)))
    grouped = Stack((2, 8, 8)).convolution(np.ones((2, 1, 3, 3)), groups=2).flatten()
    network = grouped.linear(np.ones((3, 72))).network()
    with pytest.raises(UnsupportedError, match="has groups"):
        family_of(Policy(encoder, network, Argmax(3)))
    flat = Encoder(BoxSpec((128,)))
    with pytest.raises(UnsupportedError, match="does not give pictures"):
        family_of(Policy(flat, policy.network, Argmax(3)))
    with pytest.raises(UnsupportedError, match="pictures of float64"):
        PictureFamily(policy).packed(np.zeros((3, 128)))


def test_episodes_are_packed_and_opened_again() -> None:
    family = PictureFamily(catcher())
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (6, SIDE, SIDE), dtype=np.uint8)
    pictures = np.stack([np.moveaxis(frames[t : t + 2], 0, -1) for t in range(5)])
    film = family.packed(pictures.reshape(5, -1))
    assert film.frames.size == frames.size
    again = family.opened(family.stored(film))
    assert isinstance(again, Film)
    np.testing.assert_array_equal(again.pictures(), pictures)
    # The teacher is asked some steps at a time.
    expected = Simulator(catcher().network).run(film.inputs())
    got = family.answers(catcher(), [film])[0]
    np.testing.assert_allclose(got, expected - expected.max(axis=1, keepdims=True), atol=1e-5)


def test_students_are_told_what_the_teacher_goes_by() -> None:
    rng = np.random.default_rng(3)
    stack = Stack((STACK, SIDE, SIDE), scale=1 / 255)
    stack.convolution(rng.normal(size=(3, STACK, 3, 3))).activation("relu").flatten()
    stack.linear(rng.normal(size=(20, 3 * (SIDE - 2) ** 2))).activation("relu")
    network = stack.linear(rng.normal(size=(3, 20)), rng.normal(size=3)).network()
    policy = catcher().with_network(network)
    films = [Film.of(rng.integers(0, 256, (n, SIDE, SIDE, STACK), np.uint8)) for n in (300, 40)]
    family = PictureFamily(policy)
    first, second = family.answers(policy, films[:1])[0], family.answers(policy, films[1:])[0]
    hidden = activity(network, [film.inputs() for film in films]).activations
    expected = hidden["output"] - hidden["output"].max(axis=1, keepdims=True)
    np.testing.assert_allclose(np.concatenate([first, second])[:, :3], expected, atol=1e-3)
    # Uncorrelated and of variance 1 where they come from, and the same directions ever after.
    hints = first[:, 3:]
    assert 1 <= hints.shape[1] <= 20
    np.testing.assert_allclose(np.cov(hints, rowvar=False), np.eye(hints.shape[1]), atol=1e-3)
    again = family.answers(policy, films)
    np.testing.assert_array_equal(again[0], first)
    np.testing.assert_array_equal(again[1], second)
    # The strongest directions tell where the hidden layer is, but for what little is left out.
    h = hidden["hidden1"] - hidden["hidden1"][:300].mean(axis=0)
    both = np.concatenate([first, second])[:, 3:]
    told = both @ np.linalg.lstsq(both, h, rcond=None)[0]
    assert np.square(told - h).mean() < 0.01 * np.square(h).mean()


def test_unrolled_is_the_same_network() -> None:
    policy = catcher()
    network = policy.network.with_thresholds({"input": 3.0, "conv1": 0.2})
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20, 128)).astype(np.uint8)
    one, two = Simulator(network), Simulator(unrolled(network))
    np.testing.assert_array_equal(one.run(x), two.run(x))
    np.testing.assert_array_equal(one.totals.macs, two.totals.macs)
    assert unrolled(network).dense_macs() == network.dense_macs()
    assert unrolled(cartpole_policy().network) is not None


def test_pictures_of_truth_values_have_no_thresholds_to_raise() -> None:
    policy = catcher()
    bits = replace(policy, encoder=Encoder(BoxSpec((STACK, SIDE, SIDE), "bool"), pixels=Pixels()))
    for one, expected in ((policy, {"input", "conv1"}), (bits, {"conv1"})):
        unfolded = one.with_network(unrolled(one.network))
        found = {c.name for c in changes_of(unfolded) if c.kind == "threshold"}
        assert found == expected


def test_sizes_count_shared_weights_once() -> None:
    policy = catcher()
    size = size_bytes(policy)
    assert size.dense == 4 * (4 + 2 * SIDE * SIDE * 3) + 4 * (2 + 3)
    assert size.sparse < size.dense


def test_small_convolutions_are_quantised_unrolled() -> None:
    policy = catcher()
    rng = np.random.default_rng(0)
    small = quantize(policy, 8, rng.integers(0, 256, (40, 128)).astype(np.float64), input_bits=9)
    assert small.network.dense_macs() == policy.network.dense_macs()
    large = Stack((4, 84, 84)).convolution(np.ones((8, 4, 8, 8)), stride=4).flatten()
    with pytest.raises(UnsupportedError, match=r"'input->output'.*keep their 32 bits"):
        check_size(large.network())


@pytest.mark.slow
def test_the_search_goes_on_where_it_was_stopped_with_the_same_result(tmp_path: Path) -> None:
    whole = searched(tmp_path / "whole")
    names = list(whole.stages())
    assert whole.teacher_returns.mean() == 6.0
    assert any(name.startswith("events") for name in names)
    assert any(name.startswith("refined") for name in names)
    stopped = searched(tmp_path / "stopped")
    for _, _ in zip(range(5), stopped.stages(), strict=False):
        pass
    again = searched(tmp_path / "stopped")
    assert list(again.stages()) == names
    for one, two in zip(again.candidates, whole.candidates, strict=True):
        np.testing.assert_array_equal(one.returns, two.returns)
        assert (one.macs, one.dense_macs) == (two.macs, two.dense_macs)
    small = whole.smallest_dense(1.0)
    assert small is not None
    assert small.macs == small.dense_macs == small.policy.network.n_synapses
    assert small.policy.dense_macs == catcher().dense_macs
    events = [c for c in whole.candidates if c.kind == "events"]
    assert min(c.macs for c in events) < small.macs


@pytest.mark.slow
def test_a_network_of_many_synapses_is_not_refined(tmp_path: Path) -> None:
    lines: list[str] = []
    settings = settings_for(catcher(), **{**EFFORT, "refine_synapses": 1, "rounds": 1})
    names = list(searched(tmp_path, settings=settings, say=lines.append).stages())
    assert not any(name.startswith("refined") for name in names)
    assert any("left out" in line and "too many to try one by one" in line for line in lines)


def test_an_episode_that_would_not_end_is_recorded_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsim.models.workbench.LONGEST", 10)
    search = searched(tmp_path)
    films = search._record(catcher().session(), 35, 0)
    assert [len(film) for film in films] == [10, 10, 10, 10]


@pytest.mark.slow
def test_a_ladder_begins_with_its_dense_student_by_events(tmp_path: Path) -> None:
    settings = settings_for(catcher(), **{**EFFORT, "rounds": 1})
    search = searched(tmp_path, settings=replace(settings, slack=9.0))
    list(search.stages())
    dense = next(c for c in search.candidates if c.kind == "dense" and c.name != "own")
    first = next(c for c in search.candidates if c.start == dense.name and c.kind == "events")
    assert first.name == dense.name.replace("dense", "events") + " heard"
    np.testing.assert_array_equal(first.returns, dense.returns)
    assert first.macs < dense.macs


def test_a_teacher_with_thresholds_is_not_the_dense_network_that_it_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = catcher().with_network(catcher().network.with_thresholds({"conv1": 0.1}))
    monkeypatch.setitem(globals(), "catcher", lambda: held)
    settings = settings_for(held, **{**EFFORT, "own_after": 0})
    search = searched(tmp_path, settings=settings)
    assert "own" in list(itertools.islice(search.stages(), 2))
    own = next(c for c in search.candidates if c.name == "own")
    assert own.policy is not held
    thresholds = [p.parameter("threshold").any() for p in own.policy.network.populations[1:]]
    assert not any(thresholds)


def test_narrow_students_can_be_left_out(tmp_path: Path) -> None:
    shapes = family_of(catcher()).shapes
    words = family_of(catcher()).words
    settings = settings_for(catcher(), **{**EFFORT, "rounds": 1, "narrowest": len(shapes) - 1})
    search = searched(tmp_path / "widest", settings=replace(settings, slack=9.0))
    names = list(search.stages())
    dense = [name for name in names if name.startswith("dense ")]
    assert dense == [f"dense {words(shapes[-1])}"]


def test_without_students_the_teacher_is_cut(tmp_path: Path) -> None:
    effort = {**EFFORT, "own_after": 1, "own_iterations": 5, "own_steps": 300, "rounds": 1}
    settings = settings_for(catcher(), **{**effort, "narrowest": 99})
    names = list(searched(tmp_path, settings=settings).stages())
    assert names[:4] == ["teacher", "own", "events own heard", "events own round 0"]
    assert not [name for name in names if name.startswith("dense ")]


@pytest.mark.slow
def test_the_ladder_from_the_teacher_may_come_early(tmp_path: Path) -> None:
    settings = settings_for(catcher(), **{**EFFORT, "own_after": 1, "own_iterations": 25})
    search = searched(tmp_path, settings=replace(settings, own_steps=300, slack=-9.0))
    names = list(search.stages())
    # No student can be that much better; so the teacher follows the first one, and others follow.
    assert names[:5] == ["teacher", "own", "events own heard", names[3], "events own round 0"]
    assert names[3].startswith("dense ")
    assert [name for name in names[5:] if name.startswith("dense ")]
    own = next(c for c in search.candidates if c.name == "own")
    assert own.dense_macs == catcher().dense_macs
    assert own.policy is search.teacher
    first = next(c for c in search.candidates if c.name == "events own round 0")
    assert first.shape[0] == STACK * SIDE * SIDE
    # Without what never sent the teacher does what it did, for less than it would by events.
    heard = next(c for c in search.candidates if c.name == "events own heard")
    shown = len(heard.returns)
    np.testing.assert_array_equal(heard.returns, search.teacher_returns[:shown])
    assert heard.macs < own.macs
    # Its first round sees what the teacher does, not only what a student that failed ran into.
    with np.load(tmp_path / "events-own-round-0.npz") as stored:
        steps = [len(stored[key]) for key in stored if key.startswith("inputs/")]
    assert sum(steps) >= 300 + 300 // 4


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"own_polish": 10}, {"own_accompanied": 2_000}])
def test_the_cheapest_of_the_teachers_ladder_that_held_learns_on(
    tmp_path: Path, more: dict[str, int]
) -> None:
    effort = {**EFFORT, "own_after": 0, "own_iterations": 25, "own_steps": 300, **more}
    settings = replace(settings_for(catcher(), **effort), slack=9.0, rounds=2)
    search = searched(tmp_path, settings=settings)
    names = []
    for name in search.stages():
        names.append(name)
        if name.endswith("polished 1"):
            break
    ladder = ["events own round 0", "events own round 1"]
    found = {c.name: c.policy.network for c in search.candidates}
    cheapest = min((c for c in search.candidates if c.name in ladder), key=lambda c: c.macs).name
    assert names[3:] == [*ladder, f"{cheapest} polished 0", f"{cheapest} polished 1"]
    for name in names[-2:]:  # nothing is cut; thresholds move where the student plays
        assert found[name].n_synapses == found[cheapest].n_synapses
        hidden = [p for p in found[name].populations[:-1] if not p.is_input]
        for p in hidden:
            before = found[cheapest][p.name].parameter("threshold")
            same = np.array_equal(p.parameter("threshold"), before)
            assert same == ("own_polish" in more)
    first = [found[name].projections[0].weights.to_dense() for name in (cheapest, names[-1])]
    assert not np.array_equal(*first)


@pytest.mark.slow
def test_the_cheapest_that_may_be_mended_learns_from_rewards_and_is_cut_while_it_holds(
    tmp_path: Path,
) -> None:
    effort = {**EFFORT, "own_after": 0, "own_iterations": 25, "own_steps": 300, "cut_share": 0.4}
    effort |= {"reinforced_steps": 10_000, "reinforced_rounds": 3, "rounds": 1}
    settings = replace(settings_for(catcher(), **effort), slack=9.0)

    def names() -> list[str]:
        found = []
        for name in search.stages():
            if name.startswith("dense"):
                break
            found.append(name)
        return found

    search = searched(tmp_path, settings=settings)
    begun = names()
    name = "events own round 0"  # not the teacher without what never sent, though it is cheaper
    assert begun[3:] == [name, *(f"{name} reinforced {k}" for k in range(3))]
    found = {c.name: c.policy.network for c in search.candidates}
    first, second, third = (found[f"{name} reinforced {k}"] for k in range(3))
    base = found[name]
    # The first learns as it is, the others with less.
    assert first.n_synapses == base.n_synapses
    assert first.n_synapses > second.n_synapses > third.n_synapses
    for p in first.populations[:-1]:
        np.testing.assert_array_equal(p.parameter("threshold"), base[p.name].parameter("threshold"))
    one = next(c for c in search.candidates if c.name == f"{name} reinforced 0")
    assert search.pairs(one) is not None
    # It goes on from its checkpoints.
    search = searched(tmp_path, settings=settings)
    assert names() == begun
    again = next(c for c in search.candidates if c.name == f"{name} reinforced 2").policy.network
    for a, b in zip(again.projections, third.projections, strict=True):
        np.testing.assert_array_equal(a.weights.to_dense(), b.weights.to_dense())


def lasting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **patched: Any) -> Search:
    """A search that is to learn from rewards for long after its first round."""
    effort = {**EFFORT, "own_after": 0, "own_iterations": 5, "own_steps": 300, "rounds": 1}
    effort |= {"reinforced_steps": 10**7, "reinforced_rounds": 1}
    settings = replace(settings_for(catcher(), **effort), slack=9.0)
    search = searched(tmp_path, settings=settings, budget=1e6)
    for name, value in patched.items():
        monkeypatch.setattr(search, name, value)
    return search


@pytest.mark.slow
def test_frames_of_a_screen_are_learned_from_for_as_long_as_is_left_beside_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eventsim.models.families.FEW_PIXELS", 1)
    effort = {**EFFORT, "own_after": 0, "own_iterations": 5, "own_steps": 300, "rounds": 1}
    effort |= {"reinforced_steps": 10**7, "reinforced_rounds": 1}
    settings = replace(settings_for(catcher(), **effort), slack=9.0)
    search = searched(tmp_path, settings=settings, budget=1e6)
    assert search.family.sees_frames
    asked: list[Any] = []
    reinforce = search.family.reinforce

    def watched(student: Any, own: Any, *given: Any) -> Any:
        asked.append((own, given[2], search.budget - search.seconds))
        shorter = replace(given[2], steps=2_000, n_envs=4, horizon=16)
        return reinforce(student, own, *given[:2], shorter, *given[3:])

    monkeypatch.setattr(search.family, "reinforce", watched)
    name = next(n for n in search.stages() if "reinforced" in n)
    assert name == "events own round 0 reinforced 0"
    ((own, options, left),) = asked
    assert own is search._students["own"]
    assert options.steps == 10**7
    assert options.seconds == pytest.approx(left, abs=1.0)
    assert options.half
    assert options.imitation > 0.0
    one = next(c for c in search.candidates if c.name == name)
    assert one.policy.network.n_synapses > 0


@pytest.mark.slow
def test_what_will_not_be_done_in_the_budget_is_not_done_to_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = lasting(tmp_path, monkeypatch)
    names = []
    for name in search.stages():
        names.append(name)
        if name == "events own round 0":
            search.budget = search.seconds + 30.0
    assert names[-1] == "events own round 0"
    assert search.seconds < search.budget  # seen from its first batches, not by running out


def test_a_slow_first_batch_does_not_end_what_will_be_done_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = searched(tmp_path, budget=1_000.0)
    clock = [0.0]
    monkeypatch.setattr(type(search), "seconds", property(lambda _: clock[0]))

    def told(look: Any, seconds: float, steps: int) -> None:
        clock[0] = seconds
        look(Progress(steps, 0.0, 0.0, lambda: None))  # type: ignore[arg-type, return-value]

    look = search._while_it_fits(10_000)
    told(look, 60.0, 100)  # environments are made, kernels compiled
    told(look, 66.0, 200)
    told(look, 500.0, 5_500)
    told(look, 999.0, 9_900)
    with pytest.raises(OutOfTimeError):
        told(look, 1_001.0, 9_950)
    told(look, 1_001.0, 10_000)  # what is whole is kept
    look = search._while_it_fits(10_000)
    told(look, 60.0, 100)
    told(look, 64.0, 110)  # too early to say
    with pytest.raises(OutOfTimeError):
        told(look, 80.0, 200)


@pytest.mark.slow
def test_what_has_been_learned_is_kept_though_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = lasting(tmp_path, monkeypatch)

    def slow(student: Any, *_: Any) -> Any:
        search.budget = search.seconds
        return student

    monkeypatch.setattr(search.family, "reinforce", slow)
    names = list(search.stages())
    assert names[-1] == "events own round 0 reinforced 0"
    assert search.candidates[-1].name == names[-1]
    assert len(search.candidates[-1].returns) > 0


@pytest.mark.slow
def test_where_learning_from_rewards_diverges_the_search_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: Any, **__: Any) -> Any:
        raise SimulationError("diverged")

    search = lasting(tmp_path, monkeypatch, _reinforced=diverge)
    names = []
    for name in search.stages():
        names.append(name)
        if name.startswith("dense"):
            break
    assert names[3] == "events own round 0"
    assert names[4].startswith("dense")


@pytest.mark.slow
@pytest.mark.parametrize("how", [{"own_polish": 10}, {"own_accompanied": 800}])
def test_the_teachers_ladder_ends_in_time_to_learn_on_and_goes_on_with_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, int]
) -> None:
    effort = {**EFFORT, "own_after": 0, "own_iterations": 25, "own_steps": 300, **how}
    settings = replace(settings_for(catcher(), **effort), slack=9.0, rounds=3)

    def names(share: float) -> list[str]:
        monkeypatch.setattr("eventsim.models.optimize._POLISH_FROM", share)
        search = searched(tmp_path, settings=settings, budget=1e6)
        found = []
        for name in search.stages():
            if name.startswith("dense"):
                break
            found.append(name)
        return found[3:]

    first = "events own round 0"
    polished = [f"{first} polished 0", f"{first} polished 1"]
    assert names(0.0) == [first, *polished]
    # More of a budget: nothing is lost, and the rounds that were left out follow.
    more = names(1.0)
    assert more[:5] == [first, *polished, "events own round 1", "events own round 2"]
    assert more[5].endswith("polished 0")
    # Less of one again: what has been done counts.
    assert names(0.0) == more


@pytest.mark.slow
def test_a_students_cheapest_round_learns_on_in_play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    effort = {**EFFORT, "wider": (0,), "rounds": 2, "own_accompanied": 800}
    effort |= {"accompanied_rate": 7e-4, "cost": 0.002, "own_learning_rate": 1e-9}
    settings = replace(settings_for(catcher(), **effort, accompanied_cost=0.5), slack=9.0)
    search = searched(tmp_path, settings=settings, budget=1e6)
    asked: list[Any] = []
    accompany = search.family.accompany

    def watched(*given: Any) -> Any:
        asked.append(given[4])
        return accompany(*given)

    monkeypatch.setattr(search.family, "accompany", watched)
    names = list(search.stages())
    # By a student's rate and cost, not by those of the teacher's ladder.
    assert [(o.learning_rate, o.cost) for o in asked] == [(7e-4, 0.002)] * 2
    start = next(name for name in names if name.startswith("dense"))
    ladder = f"events {start.removeprefix('dense ')} round "
    rounds = [c for c in search.candidates if c.name in (f"{ladder}0", f"{ladder}1")]
    cheapest = min(rounds, key=lambda c: c.macs)
    polished = [f"{cheapest.name} polished {k}" for k in (0, 1)]
    place = names.index(rounds[-1].name) + 1
    assert names[place : place + 2] == polished
    last = next(c for c in search.candidates if c.name == polished[1])
    assert last.start == start
    assert last.policy.network.n_synapses == cheapest.policy.network.n_synapses


@pytest.mark.parametrize(("lost", "learns"), [(0.9, True), (1.1, False)])
def test_a_students_round_that_nearly_holds_learns_on_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: float, learns: bool
) -> None:
    search = searched(tmp_path, settings=settings_for(catcher(), **EFFORT, own_accompanied=800))
    stages = search.stages()
    assert [next(stages), next(stages)] == ["teacher", "own"]
    own = search.candidates[0]
    one = replace(own, name="events 8 round 0", kind="events", start="dense 8")
    search.candidates.append(one)
    # A standard error above what it may lose is near enough.
    error = 0.25
    monkeypatch.setattr(search._validation, "error", lambda _: error)
    monkeypatch.setattr(search, "loss", lambda _: search.settings.slack + lost * error)
    begun: list[tuple[str, str]] = []

    def polish(base: str, _: Any, start: str) -> Any:
        begun.append((base, start))
        return iter(())

    monkeypatch.setattr(search, "_polish", polish)
    assert list(search._accompaniment("dense 8")) == []
    assert begun == ([("events 8 round 0", "dense 8")] if learns else [])


def learning_on(folder: Path) -> Search:
    """A search whose ladder has one round, which learns on in play."""
    effort = {**EFFORT, "own_after": 0, "own_iterations": 5, "own_steps": 300, "rounds": 1}
    settings = replace(settings_for(catcher(), **effort, own_accompanied=800), slack=9.0)
    return searched(folder, settings=settings, budget=1e6)


def begun(search: Search) -> list[str]:
    """Names of the stages before the first dense student."""
    found: list[str] = []
    for name in search.stages():
        if name.startswith("dense"):
            break
        found.append(name)
    return found[3:]


@pytest.mark.slow
def test_thresholds_are_raised_before_play_while_what_has_them_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = learning_on(tmp_path)
    raised: list[float] = []

    def watched(student: Any, own: Any, *_: Any) -> Any:
        last = search._students[f"events own round 0{' polished 0' if raised else ''}"]
        raised.append(float(student.thresholds[1].mean() / last.thresholds[1].mean()))
        assert own is search._students["own"]
        # The second one begins from what does not hold.
        search.settings = replace(search.settings, slack=-9.0)
        return student

    monkeypatch.setattr(search.family, "accompany", watched)
    assert begun(search)[1:] == [f"events own round 0 polished {k}" for k in (0, 1)]
    assert raised == pytest.approx([1.75, 1.0])


@pytest.mark.slow
def test_play_takes_the_time_that_is_left_and_what_diverges_there_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, asked = learning_on(tmp_path), []

    def diverge(student: Any, own: Any, teacher: Any, make: Any, options: Any, seed: int) -> Any:
        asked.append(options)
        raise SimulationError("diverged")

    monkeypatch.setattr(search.family, "accompany", diverge)
    for name in search.stages():
        if name == "events own round 0":
            search.budget = search.seconds + 1_000.0
        if name.startswith("dense"):
            break
    assert search.candidates[-1].kind == "dense"  # the search went on
    (one,) = asked
    assert one.steps == 800
    assert one.seconds == pytest.approx(500.0, rel=0.05)


@pytest.mark.slow
def test_what_play_was_not_done_is_done_after_the_rounds_and_little_time_is_left_to_others(
    tmp_path: Path,
) -> None:
    polished = [f"events own round 0 polished {k}" for k in (0, 1)]
    assert begun(learning_on(tmp_path)) == ["events own round 0", *polished]
    for file in tmp_path.glob("*polished-1*"):
        file.unlink()
    search = learning_on(tmp_path)
    for name in search.stages():
        if name == polished[0]:
            search.budget = search.seconds + 30.0  # too little for another one
        if name.startswith("dense"):
            break
    assert [c.name for c in search.candidates if "polished" in c.name] == [polished[0]]
    assert search.candidates[-1].kind == "dense"
    assert begun(learning_on(tmp_path)) == ["events own round 0", *polished]


@pytest.mark.slow
def test_the_whole_optimisation_of_a_game_of_stacked_frames(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    outcome = optimize(
        catcher(),
        out=tmp_path / "catch.safetensors",
        settings=RunSettings(max_loss=0.3, budget=3000.0),
        effort={key: value for key, value in EFFORT.items() if key != "slack"},
    )
    data = outcome.to_dict()
    assert data["dense_macs"] == catcher().dense_macs
    assert data["reduction"] > 1.0
    product = np.prod(list(data["factors"].values()))
    assert product == pytest.approx(data["reduction"])
    saved = json.loads((tmp_path / "catch.optimize.json").read_text(encoding="utf-8"))
    assert saved == data
    run = eventsim.run(
        tmp_path / "catch.safetensors",
        episodes=2,
        seed=data["seeds"]["test"][0],
        progress=False,
        record_events=False,
    )
    assert run.returns.mean() > 3.0


@pytest.mark.slow
def test_minatar_from_an_actor_to_candidates(tmp_path: Path) -> None:
    pytest.importorskip("minatar", reason="needs the extra 'minatar'")
    pytest.importorskip("torch", reason="needs the extra 'train'")
    from eventsim.models.zoo.minatar import policy_from
    from tests.models.test_zoo_minatar import actor

    actor(tmp_path / "actor.safetensors")
    teacher = policy_from(tmp_path / "actor.safetensors")
    effort = {**EFFORT, "dense_iterations": 20, "rounds": 1, "slack": 1e9, "refine_checks": 0}
    search = Search(
        teacher,
        "MinAtar/Breakout-v1",
        {"max_episode_steps": 200},
        workdir=tmp_path / "search",
        settings=settings_for(teacher, **effort),
    )
    # Random weights may be no better than random actions; losses mean nothing then.
    assert "teacher" in list(search.stages())
    assert {c.kind for c in search.candidates} >= {"dense"}
    assert all(c.policy.env_id == "MinAtar/Breakout-v1" for c in search.candidates)


@pytest.mark.slow
def test_stacked_frames_of_atari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    pytest.importorskip("torch", reason="needs the extra 'train'")
    rng = np.random.default_rng(0)
    stack = Stack((4, 84, 84), scale=1 / 255)
    for n, depth, size, stride in ((8, 4, 8, 4), (8, 8, 4, 2), (8, 8, 3, 1)):
        weights = rng.normal(size=(n, depth, size, size)) / (size * np.sqrt(depth / 2))
        stack.convolution(weights, stride=stride).activation("relu")
    stack.flatten().linear(rng.normal(size=(32, 392)) / 14.0).activation("relu")
    network = stack.linear(rng.normal(size=(6, 32))).network()
    arguments, wrapped = atari()
    teacher = Policy(
        Encoder(BoxSpec((4, 84, 84), "uint8"), pixels=Pixels()),
        network,
        Argmax(6),
        {"env_id": "ALE/Pong-v5", "env_kwargs": arguments, "env_wrappers": wrapped},
    )
    effort = {
        **EFFORT,
        "recorded_steps": 60,
        "visits": 0,
        "dense_iterations": 3,
        "event_iterations": 2,
        "refine_checks": 0,  # of one episode there is no spread
        "own_accompanied": 800,
        "visited_steps": 40,
        "slack": 1e9,
        "screened": 1,
        "rounds": 2,
        "windows": 2,
    }
    search = Search(
        teacher,
        "ALE/Pong-v5",
        # Frames, of which a step takes four.
        {**arguments, "max_episode_steps": 240},
        workdir=tmp_path / "search",
        settings=settings_for(teacher, **effort),
    )
    # In so short episodes nobody scores.
    monkeypatch.setattr(Validation, "lost", lambda self, returns, first=0: np.zeros(len(returns)))
    names = list(search.stages())
    # A sixteenth of the channels, one at least; no linear one on so many pixels.
    assert names[1:4] == ["own", "events own heard", "dense 28224-1c8-1c4-1c3-1-6"]
    assert "events 28224-1c8-1c4-1c3-1-6 round 1" in names
    films = search._demonstrations.inputs
    assert all(film.stack == 4 for film in films)
    last = search.candidates[-1].policy.network
    assert (last["input"].parameter("threshold") % 1.0 == 0.0).all()
