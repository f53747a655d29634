"""Distillation counts as the simulator does, learns what can be learned, says what fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsim.errors import InputError, SimulationError, UnsupportedError
from eventsim.models.compaction import compact
from eventsim.models.decoders import (
    Argmax,
    ClipBox,
    Decoder,
    MultiBinary,
    MultiDiscreteArgmax,
    QuantileArgmax,
    SquashBox,
)
from eventsim.models.distill import Training, _Grid, train
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.policy import Policy
from eventsim.models.quantization import quantize
from eventsim.models.student import (
    Demonstrations,
    Head,
    Student,
    answers,
    cut,
    event_rates,
    new_student,
    student_arrays,
    student_from,
    student_of,
    with_spread_thresholds,
)
from eventsim.network import Network, Projection
from eventsim.simulator import Simulator


def walks(n: int = 6, steps: int = 200, size: int = 4, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scale = np.array([1.0, 0.1, 10.0, 1.0])[:size]
    return [np.cumsum(rng.normal(size=(steps, size)) * 0.1, axis=0) * scale for _ in range(n)]


def teacher(head: str = "argmax", seed: int = 0) -> Policy:
    rng = np.random.default_rng(seed)
    decoder = Argmax(3) if head == "argmax" else SquashBox([-2.0] * 3, [2.0] * 3)
    weights = [rng.normal(size=(20, 4)) / [1.0, 0.1, 10.0, 1.0], rng.normal(size=(3, 20)) / 4]
    return Policy(Encoder(BoxSpec((4,))), Network.from_arrays(weights, activation="tanh"), decoder)


def shown(policy: Policy, seed: int = 0) -> tuple[Head, Demonstrations]:
    head = Head.of(policy.decoder)
    inputs = walks(seed=seed)
    demonstrations = Demonstrations()
    demonstrations.add(inputs, answers(policy, head, inputs))
    return head, demonstrations


def random_student(seed: int, hidden: tuple[int, ...], f: str = "relu") -> Student:
    policy = teacher()
    head, demonstrations = shown(policy)
    student = new_student(head, demonstrations, hidden, seed, f)
    student = with_spread_thresholds(student, demonstrations, 0.5)
    rng = np.random.default_rng(seed)
    student.masks = [m & (rng.random(m.shape) < 0.7) for m in student.masks]
    return student


@given(st.integers(0, 200), st.sampled_from([(), (5,), (7, 6)]), st.sampled_from(["relu", "tanh"]))
@settings(max_examples=20)
def test_event_rates_are_those_of_the_simulator(seed: int, hidden: tuple[int, ...], f: str) -> None:
    student = random_student(seed, hidden, f)
    policy = student.to_policy(teacher())
    _, demonstrations = shown(teacher())
    simulator = Simulator(policy.network)
    events = np.zeros(len(student.thresholds))
    for x in demonstrations.latest(8192).inputs:
        simulator.reset()
        simulator.run(x.astype(np.float64))
        events += simulator.totals.events[: len(events)]
    steps = demonstrations.latest(8192).steps
    heard = [m.any(axis=0) for m in student.masks]
    rates = event_rates(student, demonstrations)
    mine = [(r * h).sum() * steps for r, h in zip(rates, heard, strict=True)]
    # float32 weights and folded standardisation may move a comparison on its edge.
    np.testing.assert_allclose(mine, events, atol=2 + 0.01 * events.max())


def test_the_policy_gives_the_students_outputs() -> None:
    student = random_student(3, (6, 5), "tanh")
    policy = student.to_policy(teacher(), events=False)
    x = walks()[0]
    a = (x - student.mean) / student.std
    for k, (w, b, m) in enumerate(zip(student.weights, student.biases, student.masks, strict=True)):
        a = a @ np.where(m, w, 0.0).T + b
        a = a if k == 2 else np.tanh(a)
    np.testing.assert_allclose(Simulator(policy.network).run(x), a, rtol=1e-5, atol=1e-5)
    assert policy.dense_macs == teacher().dense_macs
    again = student_from(student.head, "tanh", student_arrays(student))
    for one, two in zip(student.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["argmax", "box"])
def test_a_student_learns_a_teacher_of_its_own_form(name: str) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    policy = teacher(name)
    head, demonstrations = shown(policy)
    student = new_student(head, demonstrations, (20,), 1, "tanh")
    short = Training(20, events=False, windows=16)
    _, before = train(student, demonstrations, short, 0)
    student, after = train(student, demonstrations, Training(600, events=False, windows=16), 0)
    assert after["loss"] < 0.2 * before["loss"]
    dense = student.to_policy(policy, events=False)
    episodes = [x.astype(np.float64) for x in demonstrations.inputs]
    got = np.concatenate(answers(dense, head, episodes))
    wanted = np.concatenate(demonstrations.targets)
    if name == "argmax":
        assert (got.argmax(axis=1) == wanted.argmax(axis=1)).mean() > 0.85
    else:
        assert np.abs(got - wanted).mean() < 0.15


def test_the_cost_in_the_loss_saves_events_and_learns_thresholds() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    policy = teacher()
    head, demonstrations = shown(policy)
    student = new_student(head, demonstrations, (12,), 1)
    student, _ = train(student, demonstrations, Training(300, events=False, windows=16), 0)
    student = with_spread_thresholds(student, demonstrations, 0.05)
    costs = []
    for cost in (0.0, 0.1):
        training = Training(150, windows=16, steps=24, cost=cost)
        trained, figures = train(student, demonstrations, training, 0)
        rates = event_rates(trained, demonstrations)
        true = sum(float(r @ m.sum(axis=0)) for r, m in zip(rates, trained.masks, strict=True))
        # What the training counts in its windows is what the episodes show.
        assert figures["cost"] == pytest.approx(true, rel=0.25)
        costs.append(true)
    assert costs[1] < 0.7 * costs[0]


def test_training_is_repeatable() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    head, demonstrations = shown(teacher())
    student = new_student(head, demonstrations, (6,), 1)
    student = with_spread_thresholds(student, demonstrations, 0.1)
    first, second = (
        train(student, demonstrations, Training(20, windows=8, cost=0.01), 5)[0] for _ in range(2)
    )
    for one, two in zip(first.weights + first.thresholds, second.weights + second.thresholds,
                        strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, two)


def test_a_cut_takes_what_is_least_worth_its_cost_and_keeps_the_ends() -> None:
    student = random_student(0, (8,))
    _, demonstrations = shown(teacher())
    smaller = cut(student, demonstrations, 0.5)
    assert smaller.n_synapses <= student.n_synapses - round(0.4 * student.n_synapses)
    smallest = cut(student, demonstrations, 0.999)
    assert smallest.n_synapses < smaller.n_synapses
    linear = random_student(0, ())
    ends = cut(linear, demonstrations, 0.999)
    np.testing.assert_array_equal(ends.masks[0].any(axis=0), linear.masks[0].any(axis=0))
    np.testing.assert_array_equal(ends.masks[0].any(axis=1), linear.masks[0].any(axis=1))
    untouched = cut(student, demonstrations, 0.0)
    x = walks()[0]
    np.testing.assert_allclose(
        Simulator(untouched.to_policy(teacher(), events=False).network).run(x),
        Simulator(student.to_policy(teacher(), events=False).network).run(x),
        atol=1e-4,
    )


def test_a_unit_that_never_wakes_is_cut_first() -> None:
    student = random_student(3, (8,))
    student.masks = [np.ones_like(m) for m in student.masks]
    student.biases[0][:4] = -1e3
    _, demonstrations = shown(teacher())
    dead = student.masks[0][:4].sum() + student.masks[1][:, :4].sum()
    smaller = cut(student, demonstrations, dead / student.n_synapses)
    # The others keep all that they hear and say.
    assert [m.shape for m in smaller.masks] == [(4, 4), (3, 4)]
    assert all(m.all() for m in smaller.masks)


@given(st.integers(0, 200), st.sampled_from([(), (5,), (7, 6)]), st.sampled_from(["relu", "tanh"]))
@settings(max_examples=20)
def test_a_policy_comes_back_from_its_student(seed: int, hidden: tuple[int, ...], f: str) -> None:
    policy = random_student(seed, hidden, f).to_policy(teacher())
    policy = policy.with_network(compact(policy.network))
    student = student_of(policy, walks(seed=seed + 1))
    assert student is not None
    assert student.n_synapses == policy.network.n_synapses
    again = student.to_policy(policy)
    assert again.dense_macs == policy.dense_macs
    assert [p.size for p in again.network.populations] == [
        p.size for p in policy.network.populations
    ]
    one, two = (
        np.concatenate([Simulator(p.network.with_thresholds(0.0)).run(x) for x in walks(2)])
        for p in (policy, again)
    )
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-5 * np.abs(one).max())
    for p, q in zip(policy.network.populations[:-1], again.network.populations[:-1], strict=True):
        np.testing.assert_allclose(p.parameter("threshold"), q.parameter("threshold"), rtol=1e-12)


def test_networks_of_another_form_are_no_students() -> None:
    plain = teacher()
    x = walks()
    assert student_of(plain, x) is not None
    network = plain.network
    skip = Projection("input", "output", np.ones((3, 4), np.float32))
    delayed = Projection("hidden1", "output", np.ones((3, 20), np.float32), delay=1)
    for other in (
        replace(network, projections=(*network.projections, skip)),
        replace(network, projections=(network.projections[0], delayed)),
        Network.from_arrays([np.ones((5, 4)), np.ones((3, 5))], activation="sigmoid"),
    ):
        assert student_of(plain.with_network(other), x) is None
    quantiles = replace(plain, decoder=QuantileArgmax(1, 3))
    assert student_of(quantiles, x) is None


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("hidden", [(), (8,), (7, 6)])
def test_what_is_trained_with_rounding_is_what_quantising_gives(
    hidden: tuple[int, ...], bits: int
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    head, demonstrations = shown(teacher())
    student = new_student(head, demonstrations, hidden, 1)
    trained, _ = train(student, demonstrations, Training(3, weight_bits=bits, windows=4), 0)
    policy = trained.to_policy(teacher())
    fixed = quantize(policy, bits, demonstrations.inputs)
    for q, p in zip(policy.network.projections, fixed.network.projections, strict=True):
        np.testing.assert_allclose(q.weights.to_dense(), p.weights.to_dense(), rtol=1e-5)
    # In the loop the inputs and activations were on the same grid too.
    grid = fixed.encoder.fixed_point
    assert grid is not None
    module = _Grid(trained, demonstrations, Training(weight_bits=bits))
    np.testing.assert_array_equal(module.inputs.quanta, grid.quanta)
    assert module.inputs.levels == grid.levels


def test_rounding_in_the_loop_loses_less_than_rounding_afterwards() -> None:
    bits = 4
    pytest.importorskip("torch", reason="needs the extra 'train'")
    head, demonstrations = shown(teacher("box"))
    student = new_student(head, demonstrations, (12,), 1, "tanh")
    student, _ = train(student, demonstrations, Training(600, events=False, windows=16), 0)
    tuned, _ = train(
        student, demonstrations, Training(300, events=False, windows=16, weight_bits=bits), 1
    )
    x = np.concatenate(demonstrations.inputs)
    wanted = np.concatenate(demonstrations.targets)
    errors = []
    for one in (student, tuned):
        policy = quantize(one.to_policy(teacher("box"), events=False), bits, x)
        errors.append(np.square(head.targets(head.decoder, played(policy, x)) - wanted).mean())
    assert errors[1] < 0.8 * errors[0]


def played(policy: Policy, x: np.ndarray) -> np.ndarray:
    """Outputs of a policy in fixed point on encoded inputs."""
    assert policy.encoder.fixed_point is not None
    return Simulator(policy.network).run(policy.encoder.fixed_point(x.astype(np.float64)))


def test_rounded_weights_in_the_loop() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    head, demonstrations = shown(teacher())
    student = new_student(head, demonstrations, (8,), 1)
    _, fine = train(student, demonstrations, Training(150, events=False, windows=16), 0)
    _, coarse = train(
        student, demonstrations, Training(150, events=False, windows=16, weight_bits=3), 0
    )
    assert fine["loss"] < coarse["loss"]


def test_a_loss_that_is_not_finite_is_reported() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    head, demonstrations = shown(teacher("box"))
    demonstrations.targets = [np.full_like(y, np.nan) for y in demonstrations.targets]
    student = new_student(head, demonstrations, (), 0)
    with pytest.raises(SimulationError, match="loss became nan in iteration 0"):
        train(student, demonstrations, Training(5, events=False), 0)


def test_heads_of_every_decoder() -> None:
    values = np.arange(12.0).reshape(1, 12)
    quantiles = Head.of(QuantileArgmax(3, 4))
    np.testing.assert_allclose(quantiles.targets(QuantileArgmax(3, 4), values), [[-2.0, -1.0, 0.0]])
    multi = Head.of(MultiDiscreteArgmax((2, 3)))
    np.testing.assert_allclose(
        multi.targets(multi.decoder, values[:, :5]), [[-1.0, 0.0, -2.0, -1.0, 0.0]]
    )
    assert Head.of(MultiBinary(4)).kind == "binary"
    box = Head.of(ClipBox([-2.0, -np.inf], [2.0, np.inf]))
    np.testing.assert_allclose(box.targets(box.decoder, np.array([[9.0, 9.0]])), [[1.0, 9.0]])

    class Strange(Decoder):
        kind = "strange"
        size = 1

        def _decode(self, outputs: np.ndarray) -> np.ndarray:
            return outputs

    with pytest.raises(UnsupportedError, match="'strange' cannot be distilled"):
        Head.of(Strange())


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="record at least one episode"):
        new_student(Head.of(Argmax(2)), Demonstrations(), (), 0)
    head, demonstrations = shown(teacher())
    with pytest.raises(InputError, match="use one of relu, tanh"):
        new_student(head, demonstrations, (), 0, "gelu")


def test_the_latest_demonstrations_keep_the_first() -> None:
    _, demonstrations = shown(teacher())
    latest = demonstrations.latest(250)
    assert len(latest.inputs) == 3
    assert latest.inputs[0] is demonstrations.inputs[0]
    assert latest.inputs[-1] is demonstrations.inputs[-1]
    assert demonstrations.latest(10**9).steps == demonstrations.steps
