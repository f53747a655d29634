"""Learning from rewards: advantages, and that it plays and learns as the simulator runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from eventsim.errors import InputError, SimulationError, UnsupportedError
from eventsim.models.decoders import Argmax, MultiDiscreteArgmax, QuantileArgmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.families import PictureFamily, VectorFamily
from eventsim.models.finetune import LOOK_SEED, TRAINING_SEED, Look, finetune
from eventsim.models.finetune import Settings as FineTuning
from eventsim.models.finetune_pictures import student_with_thresholds
from eventsim.models.games import Games
from eventsim.models.picture_student import PictureStudent
from eventsim.models.pixels import Pixels
from eventsim.models.policy import Policy
from eventsim.models.reinforce import (
    Learning,
    Progress,
    Reinforcement,
    _Unit,
    advantages,
    reinforce,
)
from eventsim.models.student import Demonstrations, Head
from eventsim.simulator import Simulator
from eventsim.stack import Stack
from tests.models.test_wrappers import player
from tests.tiny import cartpole_policy

SIDE, STACK = 6, 2
OPTIONS = Reinforcement(steps=64, n_envs=4, horizon=8, epochs=1, parts=2)


class Reach(gym.Env[Any, Any]):
    """The player is to stand below the light, which jumps now and then; one point a step there."""

    observation_space = gym.spaces.Box(0, 255, (STACK, SIDE, SIDE), np.uint8)
    action_space = gym.spaces.Discrete(3)
    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, length: int = 20) -> None:
        self._length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._t = 0
        self._x, self._light = (int(n) for n in self.np_random.integers(SIDE, size=2))
        self._last = np.zeros((SIDE, SIDE), np.uint8)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._x = int(np.clip(self._x + int(action) - 1, 0, SIDE - 1))
        if self._t % 7 == 6:
            self._light = int(self.np_random.integers(SIDE))
        self._t += 1
        reward = float(self._x == self._light)
        return self._observation(), reward, self._t >= self._length, False, {}

    def _observation(self) -> Any:
        now = np.zeros((SIDE, SIDE), np.uint8)
        now[0, self._light] = 200
        now[-1, self._x] = 120
        both = np.stack([self._last, now])
        self._last = now
        return both


def policy(seed: int = 0) -> Policy:
    """A small convolutional network with random weights."""
    rng = np.random.default_rng(seed)
    stack = Stack((STACK, SIDE, SIDE), scale=1.0 / 255.0)
    stack.convolution(rng.normal(size=(4, STACK, 3, 3)) * 0.5, rng.normal(size=4) * 0.1)
    stack.activation("relu").flatten()
    stack.linear(rng.normal(size=(12, 64)) * 0.2, np.zeros(12)).activation("relu")
    stack.linear(rng.normal(size=(3, 12)) * 0.3, np.zeros(3))
    space = BoxSpec((STACK, SIDE, SIDE), "uint8")
    encoder = Encoder(space, pixels=Pixels(channels_first=True))
    return Policy(encoder, stack.network(name="reach"), Argmax(3), {"env_id": "Reach-v0"})


def student(teacher: Policy, theta: float = 0.05) -> PictureStudent:
    made = PictureFamily(teacher).own(teacher, Demonstrations())
    assert made is not None
    made.thresholds = [
        np.full(len(t), theta if k else 10.0 / 255.0) for k, t in enumerate(made.thresholds)
    ]
    made.masks[1] &= np.random.default_rng(1).random(made.masks[1].shape) < 0.6
    made.weights[1] = np.where(made.masks[1], made.weights[1], 0.0)
    return made


def test_advantages_are_the_sums_that_define_them() -> None:
    rng = np.random.default_rng(0)
    n, steps, gamma, trace = 3, 9, 0.9, 0.8
    rewards, values = (rng.normal(size=(n, steps)).astype(np.float32) for _ in range(2))
    last = rng.normal(size=n).astype(np.float32)
    ends = rng.random((n, steps)) < 0.25
    found = advantages(rewards, values, last, ends, gamma, trace)
    following = np.concatenate([values[:, 1:], last[:, None]], axis=1)
    for k in range(n):
        for t in range(steps):
            total, weight = 0.0, 1.0
            for u in range(t, steps):
                alive = 0.0 if ends[k, u] else 1.0
                error = rewards[k, u] + gamma * alive * following[k, u] - values[k, u]
                total += weight * error
                if ends[k, u]:
                    break
                weight *= gamma * trace
            assert found[k, t] == pytest.approx(total, abs=1e-5)


class Wait(Reach):
    """One point a step, for ever; a limit of time cuts it."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, _, over, _, info = super().step(action)
        return observation, 1.0, False, over, info


def test_what_a_limit_of_time_cuts_is_worth_what_would_have_come() -> None:
    torch = pytest.importorskip("torch")
    teacher = policy()
    games = Games(teacher, student(teacher).head, lambda: Wait(5), OPTIONS.n_envs, 5)
    learning = Learning(student(teacher), OPTIONS, games, 0)
    batch = learning._play()
    assert len(batch.cut) == int(batch.ends.sum()) > 0
    for k, t, picture in batch.cut:
        assert batch.ends[k, t]
        if t + 1 < OPTIONS.horizon:  # it is the picture before the reset, not the one after it
            assert not torch.equal(picture, batch.pictures[k, t + 1])
    # So the critic learns that it goes on for ever, and not that it ends after five.
    learning._unit.value = 1.0
    long = Learning(student(teacher), replace(OPTIONS, gamma=0.8, critic_rate=1e-2), games, 0)
    long._unit.value = 1.0
    for _ in range(60):
        long._learn(long._play(), False)
    values = long._values(long._play().pictures).detach().numpy()
    assert values.mean() == pytest.approx(1.0 / (1.0 - 0.8), abs=0.7)


class Reused(Wait):
    """It shows all that it shows in the same array."""

    def _observation(self) -> Any:
        self._shown = getattr(self, "_shown", np.zeros((STACK, SIDE, SIDE), np.uint8))
        self._shown[:] = super()._observation()
        return self._shown


def test_what_is_cut_is_remembered_though_the_next_episode_is_shown_in_its_place() -> None:
    teacher = policy()
    seen = []
    for kind in (Wait, Reused):
        games = Games(teacher, student(teacher).head, lambda kind=kind: kind(5), 2, 5)  # type: ignore[misc]
        for _ in range(5):
            games.step(np.ones(2, np.int64))
        seen.append([picture.copy() for _, picture in games.cut])
        assert len(games.cut) == 2
    np.testing.assert_array_equal(*seen)


def test_an_episode_that_is_stuck_is_cut() -> None:
    teacher = policy()
    games = Games(teacher, student(teacher).head, lambda: Wait(1000), 2, 5, longest=6)
    still = np.ones(2, np.int64)
    seen = [games.step(still)[1].copy() for _ in range(12)]
    assert [t for t, ends in enumerate(seen) if ends.all()] == [5, 11]
    assert sum(ends.any() for ends in seen) == 2
    assert len(games.cut) == 2  # as by a limit of time: it would have gone on
    assert games.finished == [6.0] * 4


def test_rewards_are_measured_in_the_spread_of_their_discounted_sums() -> None:
    rng = np.random.default_rng(3)
    rewards = rng.normal(size=(2, 400)).astype(np.float32)
    ends = np.zeros((2, 400), np.bool_)
    one, hundred = _Unit(0.9, 2), _Unit(0.9, 2)
    one.see(rewards, ends)
    hundred.see(100.0 * rewards, ends)
    assert one.value == pytest.approx(100.0 * hundred.value, rel=1e-5)
    # The spread of an autoregressive sum.
    assert one.value == pytest.approx((1.0 - 0.9**2) ** 0.5, rel=0.15)
    none = _Unit(0.9, 2)
    none.see(np.zeros((2, 10), np.float32), np.zeros((2, 10), np.bool_))
    assert none.value == 1.0


def test_it_plays_what_the_simulator_would_and_learns_on_the_same_outputs() -> None:
    torch = pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    games = Games(teacher, made.head, lambda: Reach(1000), OPTIONS.n_envs, 5)
    learning = Learning(made, OPTIONS, games, 0)
    # It has looked at a window by then, to see how certain it is; a simulator starts afresh.
    learning._held = [0.0 * held for held in learning._held]
    batches = [learning._play() for _ in range(3)]
    network = made.to_policy(teacher).network
    for k in range(OPTIONS.n_envs):
        simulator = Simulator(network)
        for batch in batches:
            pictures = batch.pictures[k].numpy().reshape(-1, STACK, SIDE, SIDE)
            inputs = np.moveaxis(pictures, 1, -1).reshape(len(pictures), -1)
            outputs = torch.from_numpy(simulator.run(np.ascontiguousarray(inputs)))
            log_p = torch.log_softmax(learning._sharpness * outputs, dim=-1)
            chosen = log_p.gather(1, batch.actions[k][:, None])[:, 0]
            np.testing.assert_allclose(
                batch.log_probabilities[k].numpy(), chosen.numpy(), atol=2e-4
            )
    # A training step on the whole window begins with the same probabilities.
    batch = batches[-1]
    outputs, _ = learning._module.forward(
        learning._scaled(batch.pictures), learning._training, batch.held
    )
    log_p = torch.log_softmax(learning._sharpness * outputs, dim=-1)
    chosen = log_p.gather(2, batch.actions[..., None])[..., 0].detach()
    np.testing.assert_allclose(batch.log_probabilities.numpy(), chosen.numpy(), atol=1e-4)


def test_the_likeliest_action_is_as_likely_as_is_asked_for() -> None:
    torch = pytest.importorskip("torch")
    teacher = policy()
    for factor in (0.01, 1.0, 50.0):  # whatever the outputs' scale is
        made = student(teacher)
        made.weights[-1] *= factor
        games = Games(teacher, made.head, lambda: Reach(1000), 16, 5)
        learning = Learning(made, replace(OPTIONS, n_envs=16, certainty=0.7), games, 0)
        network = made.to_policy(teacher).network
        batch = learning._play()
        likeliest = []
        for k in range(16):
            pictures = batch.pictures[k].numpy().reshape(-1, STACK, SIDE, SIDE)
            inputs = np.moveaxis(pictures, 1, -1).reshape(len(pictures), -1)
            outputs = torch.from_numpy(Simulator(network).run(np.ascontiguousarray(inputs)))
            likeliest.append(torch.softmax(learning._sharpness * outputs, 1).max(1).values)
        assert float(torch.cat(likeliest).mean()) == pytest.approx(0.7, abs=0.1)


def test_masks_and_thresholds_stay_and_the_student_given_too() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    before = made.copy()
    told: list[Progress] = []
    options = replace(OPTIONS, steps=4 * 32)
    found = reinforce(made, teacher, Reach, options, 0, on_batch=told.append)
    assert [p.steps for p in told] == [32, 64, 96, 128]
    assert np.isnan(told[0].macs)  # the critic alone
    assert told[-1].macs > 0.0
    for a, b, c in zip(made.weights, before.weights, found.weights, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    for mask, weight in zip(before.masks, found.weights, strict=True):
        assert not weight[~mask].any()
    for a, b in zip(before.thresholds, found.thresholds, strict=True):
        np.testing.assert_array_equal(a, b)
    again = reinforce(made, teacher, Reach, options, 0)
    np.testing.assert_array_equal(again.weights[0], found.weights[0])


def test_the_critic_is_told_what_the_teacher_goes_by_and_the_student_what_it_would_do() -> None:
    torch = pytest.importorskip("torch")
    teacher = policy()
    own, made = student(teacher, 0.0), student(teacher)
    games = Games(teacher, made.head, lambda: Reach(1000), OPTIONS.n_envs, 5)
    learning = Learning(made, replace(OPTIONS, imitation=1.0), games, 0, own)
    batch = learning._play()
    shown, wanted = learning._shown(batch.pictures)
    # What the simulator says of the teacher: its outputs, over a factor, and what it goes by.
    network = own.to_policy(teacher, events=False).network
    last = network.projections[-1]
    weights = np.asarray(last.weights.to_dense())
    bias = network[last.target].parameter("bias")
    for k in range(OPTIONS.n_envs):
        pictures = batch.pictures[k].numpy().reshape(-1, STACK, SIDE, SIDE)
        inputs = np.moveaxis(pictures, 1, -1).reshape(len(pictures), -1)
        outputs = torch.from_numpy(Simulator(network).run(np.ascontiguousarray(inputs)))
        assert learning._teacher is not None
        expected = torch.log_softmax(learning._teacher._sharpness * outputs, dim=-1)
        np.testing.assert_allclose(wanted[k].numpy(), expected.numpy(), atol=1e-3)
        hidden = shown[k].numpy() * learning._teacher._spread + learning._teacher._mean
        np.testing.assert_allclose(hidden @ weights.T + bias, outputs.numpy(), atol=1e-3)
    assert learning._values(shown).shape == (OPTIONS.n_envs, OPTIONS.horizon)

    def apart(one: Learning, batch: Any) -> float:
        """How far the student's choices are from the teacher's."""
        with torch.no_grad():
            scaled = one._scaled(batch.pictures)
            outputs, _ = one._module.forward(scaled, one._training, batch.held)
        log_p = torch.log_softmax(one._sharpness * outputs, dim=-1)
        right = one._shown(batch.pictures)[1]
        return float((right.exp() * (right - log_p)).sum(dim=-1).mean())

    # By imitation alone it comes closer.
    worse = made.copy()
    rng = np.random.default_rng(3)
    worse.weights[-1] = worse.weights[-1] + 0.3 * rng.normal(size=worse.weights[-1].shape)
    options = replace(OPTIONS, cost=0.0, entropy=0.0, epochs=20, learning_rate=3e-3)
    learning = Learning(worse, options, games, 0, own)
    batch = learning._play()
    before = apart(learning, batch)
    learning._learn(batch, True, 100.0)
    assert apart(learning, batch) < 0.5 * before


def test_steps_end_with_the_time_and_the_teachers_choices_count_for_less_and_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made, own = student(teacher), student(teacher, 0.0)
    clock, weights = [0.0], []
    monkeypatch.setattr("eventsim.models.reinforce.perf_counter", lambda: clock[0])
    learn = Learning._learn

    def noted(self: Any, batch: Any, actor: bool, imitation: float) -> float:
        clock[0] += 1.0
        weights.append(imitation)
        return learn(self, batch, actor, imitation)

    monkeypatch.setattr(Learning, "_learn", noted)
    told: list[Progress] = []
    options = replace(OPTIONS, steps=10**6, seconds=8.0, imitation=0.4)
    reinforce(made, teacher, Reach, options, 0, teacher=own, on_batch=told.append)
    assert [p.steps for p in told] == [32 * k for k in range(1, 9)]
    # The critic learns alone for a batch of eight, as a twelfth of the time is less; then they fall
    # over a quarter of the other seven.
    falling = [0.4, 0.4, 0.4 * (1.0 - 4.0 / 7.0), *(0.0,) * 5]
    np.testing.assert_allclose(weights, falling, atol=1e-6)
    assert np.isnan(told[0].macs)
    assert not any(np.isnan(p.macs) for p in told[1:])
    with pytest.raises(InputError, match=r"'seconds': is 0.*above 0"):
        Reinforcement(seconds=0.0)
    with pytest.raises(InputError, match=r"'steps': is -1.*above 0"):
        Reinforcement(steps=-1)


def returned(one: PictureStudent, teacher: Policy) -> float:
    """Mean return by events."""
    session = one.to_policy(teacher).session()
    totals = []
    for seed in range(40):
        env = Reach()
        observation, _ = env.reset(seed=seed)
        session.reset()
        total, over = 0.0, False
        while not over:
            observation, reward, over, _, _ = env.step(session.act(observation))
            total += reward
        totals.append(total)
    return float(np.mean(totals))


@pytest.mark.slow
def test_it_learns_to_do_better_by_events() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)

    options = Reinforcement(
        steps=24_000, n_envs=16, horizon=16, parts=4, learning_rate=3e-3, gamma=0.9, certainty=0.5
    )
    after = returned(reinforce(made, teacher, Reach, options, 0, first_seed=1000), teacher)
    before = returned(made, teacher)
    assert after > before + 3.0


@pytest.fixture
def registered() -> Iterator[None]:
    gym.register("Reach-v0", entry_point=Reach)
    yield
    del gym.registry["Reach-v0"]


def by_events(theta: float = 0.05) -> Policy:
    """The student as a policy, its thresholds those of channels, bytes in whole numbers."""
    teacher = policy().with_metadata(env_id="Reach-v0", algorithm="DQN")
    return student(teacher, theta).to_policy(teacher)


def test_a_policy_is_the_same_as_a_student_that_learns() -> None:
    given = by_events()
    again = student_with_thresholds(given).to_policy(given)
    for p, q in zip(given.network.populations, again.network.populations, strict=True):
        if p.name != "output":
            np.testing.assert_array_equal(p.parameter("threshold"), q.parameter("threshold"))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20, given.network.n_inputs)).astype(np.uint8)
    outputs = [Simulator(one.network).run(x) for one in (given, again)]
    np.testing.assert_allclose(*outputs, atol=1e-5)


@pytest.mark.usefixtures("registered")
def test_finetune_takes_a_policy_of_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    seeds: list[int] = []
    reset = Reach.reset

    def noted(self: Reach, *, seed: int | None = None, options: Any = None) -> Any:
        seeds.extend([] if seed is None else [seed])
        return reset(self, seed=seed, options=options)

    monkeypatch.setattr(Reach, "reset", noted)
    given = by_events()
    given = given.with_network(
        given.network.with_thresholds(
            {p.name: p.parameter("threshold") for p in given.network.populations[:-1]}
            | {given.network.populations[-1].name: 0.3}
        )
    )
    told: list[tuple[Look, Policy]] = []
    own = policy().with_metadata(name="reacher")
    settings = FineTuning(steps=1500, looks=3, look_episodes=5, learning_rate=3e-3, teacher=own)
    weights: list[float] = []
    learn = Learning._learn

    def seen(self: Any, batch: Any, actor: bool, imitation: float) -> float:
        weights.append(imitation)
        return learn(self, batch, actor, imitation)

    monkeypatch.setattr(Learning, "_learn", seen)
    tuned = finetune(given, settings=settings, on_look=lambda *one: told.append(one))
    assert max(weights) > 0.0 == weights[-1]  # it keeps to the teacher at first
    assert [look.steps for look, _ in told][0::3] == [0, 1536]
    best = max(look.mean for look, _ in told)
    looked, best_policy = [one for one in told if one[0].kept][-1]
    assert looked.mean == best
    for a, b in zip(tuned.network.projections, best_policy.network.projections, strict=True):
        np.testing.assert_array_equal(a.weights.to_dense(), b.weights.to_dense())
    assert tuned.metadata["finetune"]["algorithm"] == "PPO"
    assert tuned.metadata["finetune"]["teacher"] == "reacher"
    assert tuned.network.n_synapses <= given.network.n_synapses
    assert tuned.dense_macs == given.dense_macs
    for p, q in zip(given.network.populations, tuned.network.populations, strict=True):
        np.testing.assert_array_equal(p.parameter("threshold"), q.parameter("threshold"))
    # Neither the seeds on which policies are evaluated nor those of the looks.
    assert seeds
    assert min(seeds) >= TRAINING_SEED
    assert {s for s in seeds if s < LOOK_SEED}


@pytest.mark.usefixtures("registered")
def test_what_finetune_does_not_do_with_convolutions_is_said() -> None:
    pytest.importorskip("torch")
    given = by_events()
    with pytest.raises(InputError, match=r"'algorithm'.*has convolutions.*trained by PPO"):
        finetune(given, algorithm="SAC")
    with pytest.raises(InputError, match=r"'sparsity'.*has convolutions.*eventsim optimize"):
        finetune(given, settings=FineTuning(sparsity=0.95))
    with pytest.raises(InputError, match=r"'critic'.*has convolutions"):
        finetune(given, settings=FineTuning(critic="agent.zip"))
    with pytest.raises(InputError, match=r"'teacher'.*no stack of convolutions"):
        finetune(given, settings=FineTuning(teacher=cartpole_policy()))
    with pytest.raises(InputError, match=r"'teacher'.*\(4, 84, 84\) and has 6 actions"):
        finetune(given, settings=FineTuning(teacher=player()))
    other = replace(policy(), decoder=MultiDiscreteArgmax((3,)))
    with pytest.raises(InputError, match=r"'teacher'.*makes a single choice"):
        finetune(given, settings=FineTuning(teacher=other))
    later = replace(policy(), decoder=Argmax(3, start=1))
    with pytest.raises(InputError, match=r"'teacher'.*3 actions, from 1 on, the policy"):
        finetune(given, settings=FineTuning(teacher=later))
    with pytest.raises(InputError, match=r"'teacher'.*plays Elsewhere-v0.*learn in Reach-v0"):
        finetune(given, settings=FineTuning(teacher=policy().with_metadata(env_id="Elsewhere-v0")))
    settings = FineTuning(teacher=given)
    with pytest.raises(InputError, match=r"'teacher'.*no convolutions: leave it out"):
        finetune(cartpole_policy(), "CartPole-v1", settings=settings, algorithm="PPO")
    mixed = given.network.populations[1].parameter("threshold").copy()
    mixed[0] += 0.1
    odd = given.with_network(
        given.network.with_thresholds({given.network.populations[1].name: mixed})
    )
    with pytest.raises(UnsupportedError, match=r"population.*differs within a channel"):
        finetune(odd)
    with pytest.raises(InputError, match=r"'arguments'.*has convolutions"):
        finetune(given, settings=FineTuning(arguments={"gamma": 0.9}))
    with pytest.raises(InputError, match=r"'seed'.*0 or more"):
        finetune(given, seed=-1)
    numbers = BoxSpec((STACK, SIDE, SIDE), "float32")
    floats = replace(given, encoder=Encoder(numbers, pixels=Pixels(channels_first=True)))
    with pytest.raises(UnsupportedError, match=r"'encoder'.*pictures of float32"):
        student_with_thresholds(floats)
    several = replace(given, decoder=MultiDiscreteArgmax((3,)))
    with pytest.raises(UnsupportedError, match=r"'decoder'.*single discrete action"):
        student_with_thresholds(several)


def test_what_cannot_be_drawn_from_is_refused() -> None:
    teacher = policy()
    several = replace(teacher, decoder=MultiDiscreteArgmax((3,)))
    made = student(teacher)
    made.head = Head.of(several.decoder)
    assert PictureFamily(teacher).plays
    assert not PictureFamily(several).plays
    with pytest.raises(UnsupportedError, match=r"policy.*'decoder'.*single discrete action"):
        reinforce(made, several, Reach, OPTIONS, 0)


def test_a_teacher_of_quantiles_has_students_of_one_output_an_action() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    quantiles = replace(teacher, decoder=QuantileArgmax(3, 1))
    family = PictureFamily(quantiles)
    assert family.plays
    made = replace(student(teacher), head=family.head)
    found = reinforce(made, quantiles, Reach, OPTIONS, 0)
    assert found.head is family.head


def test_students_of_vectors_are_left_to_fine_tuning() -> None:
    teacher = cartpole_policy(0.02)
    family = VectorFamily(teacher)
    assert not family.plays
    assert not family.sees_frames
    with pytest.raises(UnsupportedError, match=r"no pictures"):
        family.reinforce(None, None, teacher, Reach, OPTIONS, 0, print)  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_is_said() -> None:
    pytest.importorskip("torch")
    teacher = policy()
    made = student(teacher)
    made.weights[0][:] = np.nan
    with pytest.raises(SimulationError, match=r"diverged.*learning rate"):
        reinforce(made, teacher, Reach, OPTIONS, 0)
