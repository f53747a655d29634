"""The last layer alone learns from rewards, and plays meanwhile as the simulator runs it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eventsim.errors import InputError, SimulationError, UnsupportedError
from eventsim.models.decoders import MultiDiscreteArgmax
from eventsim.models.families import PictureFamily
from eventsim.models.finetune import Settings as FineTuning
from eventsim.models.finetune import finetune
from eventsim.models.games import Games
from eventsim.models.last_layer import _LastLayer, for_last_layer, reinforce_last_layer
from eventsim.models.picture_student import PictureStudent
from eventsim.models.policy import Policy
from eventsim.models.reinforce import Learning, Progress, Reinforcement
from eventsim.models.student import Demonstrations, Head
from eventsim.simulator import Simulator
from eventsim.stack import Stack
from tests.models.test_reinforce import (
    SIDE,
    STACK,
    Reach,
    Wait,
    by_events,
    policy,
    registered,
    returned,
    student,
)
from tests.tiny import cartpole_policy

__all__ = ["registered"]  # a fixture

OPTIONS = Reinforcement(steps=64, n_envs=4, horizon=8, epochs=2, parts=2)


def test_it_plays_what_the_simulator_would_and_learns_on_what_the_last_layer_gets() -> None:
    torch = pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    made.masks[-1] &= np.random.default_rng(3).random(made.masks[-1].shape) < 0.7
    games = Games(teacher, made.head, lambda: Reach(1000), OPTIONS.n_envs, 5)
    seen: list[np.ndarray] = []
    step = games.step

    def noted(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(games.pictures.copy())
        return step(actions)

    learning = _LastLayer(made, OPTIONS, games, 0)
    learning._held = [0.0 * held for held in learning._held]  # as a simulator begins
    games.step = noted  # type: ignore[method-assign]
    batches = [learning._play() for _ in range(3)]
    pictures = np.stack(seen, axis=1)  # games, steps, values
    network = made.to_policy(teacher).network
    for k in range(OPTIONS.n_envs):
        shown = np.moveaxis(pictures[k].reshape(-1, STACK, SIDE, SIDE), 1, -1)
        flat = np.ascontiguousarray(shown.reshape(len(shown), -1))
        outputs = torch.from_numpy(Simulator(network).run(flat))
        log_p = torch.log_softmax(learning._sharpness * outputs, dim=-1)
        actions = torch.cat([batch.actions[k] for batch in batches])
        drawn = torch.cat([batch.log_probabilities[k] for batch in batches])
        chosen = log_p.gather(1, actions[:, None])[:, 0]
        np.testing.assert_allclose(drawn.numpy(), chosen.numpy(), atol=2e-4)
    assert all(batch.macs > 0.0 for batch in batches)
    # What follows the last step of a batch begins the next one.
    np.testing.assert_allclose(batches[0].told[:, -1], batches[1].told[:, 0], atol=1e-6)


def test_nothing_but_the_last_layer_changes() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    made.masks[-1] &= np.random.default_rng(3).random(made.masks[-1].shape) < 0.7
    made.weights[-1] = np.where(made.masks[-1], made.weights[-1], 0.0)
    before = made.copy()
    told: list[Progress] = []
    options = replace(OPTIONS, steps=4 * 32)
    found = reinforce_last_layer(made, teacher, Reach, options, 0, on_batch=told.append)
    assert [p.steps for p in told] == [32, 64, 96, 128]
    assert np.isnan(told[0].macs)  # the critic alone
    assert told[-1].macs > 0.0
    for k in range(3):
        np.testing.assert_array_equal(made.weights[k], before.weights[k])
        np.testing.assert_array_equal(found.thresholds[k], before.thresholds[k])
        assert np.array_equal(found.weights[k], before.weights[k]) == (k < 2)
        assert np.array_equal(found.biases[k], before.biases[k]) == (k < 2)
    assert not found.weights[-1][~before.masks[-1]].any()
    again = reinforce_last_layer(made, teacher, Reach, options, 0)
    np.testing.assert_array_equal(again.weights[-1], found.weights[-1])


def test_what_a_limit_of_time_cuts_would_have_gone_on() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    games = Games(teacher, student(teacher).head, lambda: Wait(5), OPTIONS.n_envs, 5)
    options = replace(OPTIONS, gamma=0.8, critic_rate=1e-2)
    learning = _LastLayer(student(teacher), options, games, 0)
    learning._unit.value = 1.0
    for _ in range(60):
        assert np.isnan(learning._learn(learning._play(), False))
    batch = learning._play()
    assert len(batch.cut) == int(batch.ends.sum()) > 0
    values = learning._critic(batch.told).detach().numpy()
    assert values.mean() == pytest.approx(1.0 / (1.0 - 0.8), abs=0.7)


@pytest.mark.slow
def test_it_learns_to_do_better_by_events() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    options = for_last_layer(Reinforcement(24_000, n_envs=16, gamma=0.9, certainty=0.4))
    options = replace(options, horizon=16, parts=4, learning_rate=1e-2, critic_rate=3e-3)
    found = reinforce_last_layer(made, teacher, Reach, options, 0, first_seed=1000)
    assert returned(found, teacher) > returned(made, teacher) + 2.0


def test_a_network_of_two_layers_learns_too() -> None:
    pytest.importorskip("torch")
    stack = Stack((STACK, SIDE, SIDE), scale=1.0 / 255.0)
    rng = np.random.default_rng(0)
    stack.convolution(rng.normal(size=(4, STACK, 3, 3)) * 0.5, rng.normal(size=4) * 0.1)
    stack.activation("relu").flatten()
    stack.linear(rng.normal(size=(3, 64)) * 0.2, np.zeros(3))
    short = replace(policy(), network=stack.network(name="reach"))
    found = reinforce_last_layer(student(short), short, Reach, OPTIONS, 0)
    assert not np.array_equal(found.weights[-1], student(short).weights[-1])


def test_a_convolution_at_the_end_is_refused() -> None:
    pytest.importorskip("torch")
    stack = Stack((STACK, SIDE, SIDE), scale=1.0 / 255.0)
    rng = np.random.default_rng(0)
    stack.convolution(rng.normal(size=(4, STACK, 3, 3)) * 0.5, rng.normal(size=4) * 0.1)
    stack.activation("relu")
    stack.convolution(rng.normal(size=(3, 4, 4, 4)) * 0.2, np.zeros(3)).flatten()
    ends = replace(policy(), network=stack.network(name="reach"))
    made = PictureFamily(ends).own(ends, Demonstrations())
    assert made is not None
    with pytest.raises(UnsupportedError, match="ends in a convolution"):
        reinforce_last_layer(made, ends, Reach, OPTIONS, 0)


def test_the_multiplications_of_every_picture_are_counted_once() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    games = Games(teacher, made.head, lambda: Reach(1000), OPTIONS.n_envs, 5)
    learning = _LastLayer(made, OPTIONS, games, 0)
    spent: list[float] = []
    forward = learning._forward

    def noted() -> tuple[object, object]:
        found = forward()
        spent.append(float(learning._spent))
        return found

    learning._forward = noted  # type: ignore[method-assign]
    batches = [learning._play() for _ in range(3)]
    assert spent[OPTIONS.horizon + 1] == 0.0  # seen by the batch before already
    total = OPTIONS.horizon * sum(batch.macs for batch in batches)
    assert total == pytest.approx(sum(spent))


@pytest.mark.usefixtures("registered")
def test_finetune_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    given = by_events()
    learned: list[type] = []
    run = Learning.run

    def noted(self: Learning, *rest: object) -> PictureStudent:
        learned.append(type(self))
        return run(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Learning, "run", noted)
    settings = FineTuning(steps=3000, looks=3, look_episodes=5, learning_rate=3e-2, last_layer=True)
    kept: list[Policy] = []
    tuned = finetune(given, settings=settings, on_look=lambda look, now: kept.append(now))
    assert learned == [_LastLayer]
    assert tuned.metadata["finetune"]["last_layer"] is True
    for now in kept[1:]:
        pairs = list(zip(now.network.projections, given.network.projections, strict=True))
        for k, (a, b) in enumerate(pairs):
            same = np.allclose(a.weights.to_dense(), b.weights.to_dense(), atol=1e-7)
            assert same == (k < len(pairs) - 1)


@pytest.mark.usefixtures("registered")
def test_what_does_not_go_with_it_is_said() -> None:
    pytest.importorskip("torch")
    given = by_events()
    with pytest.raises(InputError, match=r"'teacher'.*last layer.*leave out one of the two"):
        finetune(given, settings=FineTuning(teacher=policy(), last_layer=True))
    settings = FineTuning(last_layer=True)
    with pytest.raises(InputError, match=r"'last_layer'.*no convolutions: leave it out"):
        finetune(cartpole_policy(), "CartPole-v1", settings=settings, algorithm="PPO")
    made = student(policy())
    several = replace(policy(), decoder=MultiDiscreteArgmax((3,)))
    made.head = Head.of(several.decoder)
    with pytest.raises(UnsupportedError, match=r"'decoder'.*single discrete action"):
        reinforce_last_layer(made, several, Reach, OPTIONS, 0)


def test_a_loss_that_is_no_number_is_said() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    made.weights[-1] *= np.nan
    with pytest.raises(SimulationError, match="diverged"):
        reinforce_last_layer(made, teacher, Reach, OPTIONS, 0)


def test_the_search_does_it_where_it_is_asked_for() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    family = PictureFamily(teacher)
    found = family.reinforce(made, None, teacher, Reach, OPTIONS, 0, lambda _: None, True)
    np.testing.assert_array_equal(found.weights[0], made.weights[0])
    assert not np.array_equal(found.weights[-1], made.weights[-1])
