"""Learning from a teacher in play: what is asked and held, and that it comes closer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eventsim.errors import InputError, SimulationError, UnsupportedError
from eventsim.models.decoders import MultiDiscreteArgmax
from eventsim.models.families import VectorFamily
from eventsim.models.games import Games
from eventsim.models.on_policy import Accompanied, OnPolicy, _Pupil, distill_on_policy
from eventsim.models.picture_student import PictureStudent
from eventsim.models.student import Head
from eventsim.simulator import Simulator
from tests.models.test_reinforce import SIDE, STACK, Reach, policy, student
from tests.tiny import cartpole_policy

OPTIONS = OnPolicy(steps=96, n_envs=4, horizon=8, epochs=1, parts=2)


def worse(made: PictureStudent, spread: float = 0.3) -> PictureStudent:
    """A student with noise on the weights that it has."""
    rng = np.random.default_rng(7)
    result = made.copy()
    for k, (w, mask) in enumerate(zip(made.weights, made.masks, strict=True)):
        result.weights[k] = np.where(mask, w + spread * w.std() * rng.normal(size=w.shape), 0.0)
    return result


def test_the_teacher_is_asked_about_the_pictures_that_the_student_plays_by_events() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    own, made = student(teacher, 0.0), worse(student(teacher))
    games = Games(teacher, made.head, lambda: Reach(1000), OPTIONS.n_envs, 5)
    learning = _Pupil(made, own, games, OPTIONS, 0)
    windows = [learning._play() for _ in range(3)]
    network = made.to_policy(teacher).network
    dense = own.to_policy(teacher, events=False).network
    for k in range(OPTIONS.n_envs):
        simulator, asked = Simulator(network), Simulator(dense)
        env = Reach(1000)
        observation, _ = env.reset(seed=5 + k)
        for pictures, before, wanted in windows:
            shown = pictures[k].numpy().reshape(-1, STACK, SIDE, SIDE)
            inputs = np.ascontiguousarray(np.moveaxis(shown, 1, -1).reshape(len(shown), -1))
            outputs = simulator.run(inputs)
            np.testing.assert_allclose(wanted[k].numpy(), asked.run(inputs), atol=1e-4)
            for picture, output in zip(shown, outputs, strict=True):
                np.testing.assert_array_equal(picture, observation)
                observation, *_ = env.step(int(np.argmax(output)))
            # A training step on the window begins with what the simulator held before it.
            held = [values[k : k + 1] for values in before]
            x = learning._scaled(pictures[k : k + 1])
            found, _ = learning._module.forward(x, learning._training, held)
            np.testing.assert_allclose(found[0].detach().numpy(), outputs, atol=1e-4)


def test_a_teacher_agrees_with_itself_and_a_student_comes_closer_in_play() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    own = student(teacher, 0.0)
    told: list[Accompanied] = []
    options = replace(OPTIONS, learning_rate=0.0)
    distill_on_policy(own, own, teacher, Reach, options, 0, on_batch=told.append)
    assert [p.steps for p in told] == [32, 64, 96]
    # Its own threshold on bytes is not asked about: the inputs it saw are.
    assert all(p.divergence < 5e-3 and p.agreement > 0.95 for p in told)
    told.clear()
    options = OnPolicy(steps=6_400, n_envs=8, horizon=8, cost=0.0, learning_rate=3e-3)
    distill_on_policy(
        worse(student(teacher), 1.0), own, teacher, Reach, options, 0, on_batch=told.append
    )
    first, last = (
        [np.mean([getattr(p, name) for p in some]) for name in ("divergence", "agreement")]
        for some in (told[:5], told[-5:])
    )
    assert last[0] < 0.5 * first[0]
    assert last[1] > first[1]


def test_masks_stay_and_a_seed_repeats_it() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made, own = worse(student(teacher)), student(teacher, 0.0)
    before = made.copy()
    found = distill_on_policy(made, own, teacher, Reach, OPTIONS, 3)
    for a, b, c in zip(made.weights, before.weights, found.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    for mask, weight in zip(before.masks, found.weights, strict=True):
        assert not weight[~mask].any()
    for a, b, c in zip(made.thresholds, before.thresholds, found.thresholds, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    again = distill_on_policy(made, own, teacher, Reach, OPTIONS, 3)
    np.testing.assert_array_equal(again.thresholds[1], found.thresholds[1])
    np.testing.assert_array_equal(again.weights[0], found.weights[0])
    fixed = replace(OPTIONS, learn_thresholds=False)
    found = distill_on_policy(made, own, teacher, Reach, fixed, 3)
    for a, b in zip(before.thresholds, found.thresholds, strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    clock = iter(range(100))
    monkeypatch.setattr("eventsim.models.on_policy.perf_counter", lambda: float(next(clock)))
    teacher = policy()
    told: list[Accompanied] = []
    options = replace(OPTIONS, steps=10**9, seconds=5.0)
    own = student(teacher, 0.0)
    distill_on_policy(student(teacher), own, teacher, Reach, options, 0, on_batch=told.append)
    assert [p.steps for p in told] == [32, 64, 96, 128, 160]


def test_multiplications_that_cost_become_fewer() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made, own = student(teacher), student(teacher, 0.0)
    macs = []
    for cost in (0.0, 0.3):
        told: list[Accompanied] = []
        options = OnPolicy(steps=6_400, n_envs=8, horizon=8, cost=cost, learning_rate=3e-3)
        found = distill_on_policy(made, own, teacher, Reach, options, 0, on_batch=told.append)
        macs.append(np.mean([p.macs for p in told[-10:]]))
    assert macs[1] < 0.6 * macs[0]
    assert found.thresholds[1].mean() > made.thresholds[1].mean()


def test_what_it_is_not_for_is_refused() -> None:
    teacher = policy()
    made = student(teacher)
    several = replace(made, head=Head.of(MultiDiscreteArgmax((3,))))
    with pytest.raises(UnsupportedError, match="only a single discrete action"):
        distill_on_policy(several, made, teacher, Reach, OPTIONS, 0)
    with pytest.raises(InputError, match=r"steps.*above 0"):
        OnPolicy(steps=0)
    with pytest.raises(InputError, match=r"seconds.*above 0"):
        OnPolicy(seconds=-1.0)
    family = VectorFamily(cartpole_policy())
    with pytest.raises(UnsupportedError, match="no pictures"):
        family.accompany(None, None, teacher, Reach, OPTIONS, 0)  # type: ignore[arg-type]
    pytest.importorskip("torch")
    broken = made.copy()
    broken.weights[-1] = np.full_like(broken.weights[-1], np.nan)
    with pytest.raises(SimulationError, match="learning rate"):
        distill_on_policy(broken, made, teacher, Reach, OPTIONS, 0)
