"""Students of pictures: the networks that they become, what training counts, what pruning keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventsim.errors import InputError
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.films import Film, joined
from eventsim.models.picture_student import (
    Kernel,
    PictureShape,
    PictureStudent,
    fan_out,
    new_picture_student,
    picture_arrays,
    picture_student_from,
    picture_student_of,
)
from eventsim.models.pixels import Pixels
from eventsim.models.policy import Policy
from eventsim.models.student import Demonstrations, Head, answers
from eventsim.network import Network
from eventsim.simulator import Simulator
from eventsim.stack import Stack

torch = pytest.importorskip("torch", reason="needs the extra 'train'")

SHAPE = (3, 8, 7)


def teacher(scale: float = 1.0, seed: int = 0) -> Policy:
    rng = np.random.default_rng(seed)
    stack = Stack(SHAPE, scale=scale).convolution(rng.normal(size=(5, 3, 3, 3)), stride=(2, 1))
    network = stack.activation("relu").flatten().linear(rng.normal(size=(4, 75))).network()
    dtype = "bool" if scale == 1.0 else "uint8"
    space = BoxSpec((SHAPE[1], SHAPE[2], SHAPE[0]), dtype)
    return Policy(Encoder(space, pixels=Pixels(channels_first=False)), network, Argmax(4))


def episodes(scale: float = 1.0, n: int = 3, steps: int = 90, seed: int = 0) -> list[Film]:
    """Pictures of which few pixels change from step to step."""
    rng = np.random.default_rng(seed)
    top = 2 if scale == 1.0 else 256
    films = []
    for _ in range(n):
        picture = rng.integers(0, top, (SHAPE[1], SHAPE[2], SHAPE[0]))
        rows = []
        for _ in range(steps):
            change = rng.random(picture.shape) < 0.04
            picture = np.where(change, rng.integers(0, top, picture.shape), picture)
            rows.append(picture.astype(np.uint8))
        films.append(Film.of(np.stack(rows)))
    return films


def shown(policy: Policy, scale: float = 1.0) -> tuple[Head, Demonstrations]:
    head, films = Head.of(policy.decoder), episodes(scale)
    demonstrations = Demonstrations()
    demonstrations.add(films, answers(policy, head, [film.inputs() for film in films]))
    return head, demonstrations


@st.composite
def students(draw: st.DrawFn, *, padded: bool = False) -> PictureStudent:
    """Any layers, pruned, with thresholds."""
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    layers = PictureShape(
        draw(st.sampled_from([(), (2,), (4, 3)])), draw(st.sampled_from([(), (6,), (5, 4)]))
    )
    kernels = [
        Kernel((3, 2), (draw(st.sampled_from([1, 2])), 1), (1, 0) if padded else (0, 0)),
        Kernel((2, 3), (1, 2)),
    ]
    scale = draw(st.sampled_from([1.0, 1 / 255]))
    head = Head.of(Argmax(4))
    student = new_picture_student(
        head, SHAPE, scale, kernels, layers, seed, draw(st.sampled_from(["relu", "tanh"]))
    )
    share = draw(st.sampled_from([0.0, 0.4, 0.8]))
    student.masks = [m & (rng.random(m.shape) >= share) for m in student.masks]
    student.biases = [rng.normal(size=b.shape) * 0.3 for b in student.biases]
    student.thresholds = [rng.uniform(0, 0.3, size=t.shape) for t in student.thresholds]
    if scale == 1.0:
        student.thresholds[0][:] = 0.0
    return student


def torch_outputs(student: PictureStudent, film: Film) -> np.ndarray:
    """The dense forward pass in float64."""
    f = torch.relu if student.activation == "relu" else torch.tanh
    a = torch.from_numpy(np.moveaxis(film.pictures(), -1, 1).astype(np.float64)) * student.scale
    for k, (w, b, mask) in enumerate(
        zip(student.weights, student.biases, student.masks, strict=True)
    ):
        weight, bias = torch.from_numpy(np.where(mask, w, 0.0)), torch.from_numpy(b)
        if k < len(student.kernels):
            kernel = student.kernels[k]
            a = torch.nn.functional.conv2d(a, weight, bias, kernel.stride, kernel.padding)
        else:
            a = torch.nn.functional.linear(a.flatten(1), weight, bias)
        if k + 1 < len(student.weights):
            a = f(a)
    return np.asarray(a.numpy())


@given(students(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_network_gives_what_torch_gives(student: PictureStudent, padded: bool) -> None:
    film = episodes(student.scale, 1, 12)[0]
    policy = student.to_policy(teacher(student.scale), events=False)
    expected = torch_outputs(student, film)
    got = Simulator(policy.network).run(film.inputs())
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert policy.dense_macs == teacher().dense_macs
    assert policy.network.n_synapses == student.n_synapses
    assert tuple(p.size for p in policy.network.populations) == student.sizes
    again = picture_student_from(student.head, student.activation, picture_arrays(student))
    np.testing.assert_array_equal(torch_outputs(again, film), expected)
    assert again.sizes == student.sizes


@given(students(padded=True))
@settings(max_examples=20, deadline=None)
def test_synapses_and_macs_are_those_of_the_network(student: PictureStudent) -> None:
    network = student.to_policy(teacher(student.scale)).network
    for k, q in enumerate(network.projections):
        height, width, channels = (
            (*student.maps[k][1:], student.maps[k][0])
            if k < len(student.maps)
            else (1, 1, student.sizes[k])
        )
        counted = q.weights.fan_out().reshape(height, width, channels).transpose(2, 0, 1).ravel()
        np.testing.assert_array_equal(fan_out(student, k), counted)
    assert student.dense_macs == sum(q.weights.n_positions for q in network.projections)


def counts(student: PictureStudent, steps: int) -> tuple[float, float]:
    """MACs of all steps but the first four, as training and simulator count them."""
    from eventsim.models.distill import Training
    from eventsim.models.picture_distill import PictureModule, PictureWindows

    film = episodes(student.scale, 1, steps)[0]
    demonstrations = Demonstrations([film], [np.zeros((steps, 4), np.float32)])
    windows = PictureWindows(student, demonstrations, steps, np.random.default_rng(0))
    cost = PictureModule(student, 1.0).forward(windows.draw(1)[0], Training())[1]
    totals = []
    for length in (4, steps):  # in the first steps everything is sent, which training leaves out
        simulator = Simulator(student.to_policy(teacher(student.scale)).network)
        simulator.run(film.inputs()[:length])
        totals.append(int(simulator.totals.macs.sum()))
    return float(cost.detach()) * (steps - 4), totals[1] - totals[0]


@given(students())
@settings(max_examples=12, deadline=None)
def test_training_counts_what_the_simulator_counts(student: PictureStudent) -> None:
    # Numbers of few bits, so that sums are exact, and so are changes.
    student.activation, student.scale = "relu", 1.0
    student.weights = [np.round(8 * w) / 8 for w in student.weights]
    student.masks = [m & (w != 0) for m, w in zip(student.masks, student.weights, strict=True)]
    student.biases = [np.round(8 * b) / 8 for b in student.biases]
    student.thresholds = [np.zeros_like(t) for t in student.thresholds]
    mine, simulated = counts(student, 30)
    assert round(mine, 2) == simulated


def test_with_thresholds_too() -> None:
    head = Head.of(Argmax(4))
    kernels = [Kernel((3, 3), (2, 1))]
    student = new_picture_student(head, SHAPE, 1 / 255, kernels, PictureShape((4,), (9,)), 0)
    student.thresholds = [np.full(3, 0.05), np.full(4, 0.2), np.full(9, 0.1)]
    mine, simulated = counts(student, 300)
    # What is held at the beginning differs, until it is sent.
    assert mine == pytest.approx(simulated, rel=0.05)


def test_a_student_without_its_kernels_is_refused() -> None:
    head = Head.of(Argmax(4))
    with pytest.raises(InputError, match=r"2 convolutions, but 1 kernels"):
        new_picture_student(head, SHAPE, 1.0, [Kernel((3, 3))], PictureShape((2, 2)), 0)
    with pytest.raises(InputError, match=r"'activation'.*relu, tanh"):
        new_picture_student(head, SHAPE, 1.0, [], PictureShape(), 0, "gelu")


# Films.


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)
def test_a_film_keeps_each_frame_of_a_stack_once(steps: int, stack: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (steps + stack - 1, 3, 2), dtype=np.uint8)
    pictures = np.stack([np.moveaxis(frames[t : t + stack], 0, -1) for t in range(steps)])
    film = Film.of(pictures)
    assert len(film) == steps
    np.testing.assert_array_equal(film.pictures(), pictures)
    assert film.frames.size == frames.size
    np.testing.assert_array_equal(film.inputs(), pictures.reshape(steps, -1))
    other = Film.of(rng.integers(0, 256, (5, 3, 2, stack), dtype=np.uint8))
    frames, depth, firsts = joined([film, other, film])
    for one, first in zip([film, other, film], firsts, strict=True):
        shown = one.pictures()
        for t in range(len(one)):
            got = frames[first + t : first + t + depth].reshape(-1, 3, 2)
            np.testing.assert_array_equal(np.moveaxis(got, 0, -1), shown[t])


def test_what_is_no_film_is_refused() -> None:
    with pytest.raises(InputError, match="give bytes of shape"):
        Film.of(np.zeros((3, 2, 2), np.uint8))
    with pytest.raises(InputError, match="dtype float64"):
        Film.of(np.zeros((3, 2, 2, 1)))  # type: ignore[arg-type]


# Pruning.


@given(students(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_compaction_keeps_the_outputs(student: PictureStudent, channels: bool) -> None:
    from eventsim.models.picture_cut import compact_pictures

    rng = np.random.default_rng(len(student.weights))
    if channels:  # whole ones, in both directions
        for k in range(len(student.masks) - 1):
            student.masks[k][rng.integers(len(student.masks[k]))] = False
            n = len(student.masks[k])
            after = student.masks[k + 1].reshape(len(student.masks[k + 1]), n, -1)
            after[:, rng.integers(n)] = False
            student.masks[k + 1] = after.reshape(student.masks[k + 1].shape)
    # Dense: a constant below its threshold would be held back.
    student.thresholds = [np.zeros_like(t) for t in student.thresholds]
    small = compact_pictures(student)
    film = episodes(student.scale, 1, 12)[0]
    assert small.n_synapses <= student.n_synapses
    if channels and len(student.masks) > 1:
        assert sum(small.sizes) <= sum(student.sizes)
    np.testing.assert_allclose(
        torch_outputs(small, film), torch_outputs(student, film), rtol=1e-12, atol=1e-12
    )


def test_the_constant_of_a_silent_channel_goes_into_the_next_biases() -> None:
    from eventsim.models.picture_cut import compact_pictures

    head = Head.of(Argmax(4))
    kernels = [Kernel((3, 3)), Kernel((2, 2))]
    student = new_picture_student(head, SHAPE, 1.0, kernels, PictureShape((3, 2), (5,)), 0)
    student.biases = [np.full_like(b, 0.5) for b in student.biases]
    student.masks[0][1] = False
    small = compact_pictures(student)
    assert [len(b) for b in small.biases] == [2, 2, 5, 4]
    film = episodes(n=1, steps=8)[0]
    np.testing.assert_allclose(torch_outputs(small, film), torch_outputs(student, film), rtol=1e-12)
    # What stays below its threshold is never sent.
    student.thresholds[1][:] = 0.6
    small = compact_pictures(student)
    np.testing.assert_array_equal(small.biases[1], student.biases[1])
    # At the border of a padded layer no bias would do.
    student.thresholds[1][:] = 0.0
    padded = replace(student, kernels=(kernels[0], Kernel((2, 2), padding=(1, 1))))
    assert len(compact_pictures(padded).biases[0]) == 3


@given(st.booleans().flatmap(lambda padded: students(padded=padded)), st.booleans())
@settings(max_examples=25, deadline=None)
def test_what_never_sends_goes_and_every_output_stays(student: PictureStudent, mute: bool) -> None:
    from eventsim.models.picture_cut import without_silent

    n_muted = 0
    if mute and student.activation == "relu":
        for bias in student.biases[:-1]:
            bias[0] = -1e3
            n_muted += 1
    student.thresholds = [np.zeros_like(t) for t in student.thresholds]
    demonstrations = Demonstrations()
    films = episodes(student.scale)
    demonstrations.add(films, [np.zeros((len(film), 4), np.float32) for film in films])
    small = without_silent(student, demonstrations)
    alone = sum(len(b) == 1 for b in student.biases)  # a layer of nothing cannot be
    before = sum(len(b) for b in student.biases)
    assert sum(len(b) for b in small.biases) <= before - n_muted + alone
    for film in films:
        np.testing.assert_allclose(
            torch_outputs(small, film), torch_outputs(student, film), rtol=1e-5, atol=1e-5
        )


def test_what_is_cut_is_what_matters_least_for_its_work() -> None:
    from eventsim.models.picture_cut import cut_pictures, with_picture_thresholds

    policy = teacher()
    head, demonstrations = shown(policy)
    kernels = [Kernel((3, 3), (2, 1))]
    student = new_picture_student(head, SHAPE, 1.0, kernels, PictureShape((5,)), 0)
    student.weights[0][2] *= 1e-3
    student = with_picture_thresholds(student, demonstrations, 0.1)
    assert not student.thresholds[0].any()
    small = cut_pictures(student, demonstrations, 0.3)
    kept = sum(int(m.sum()) for m in small.masks) / sum(m.size for m in student.masks)
    assert 0.5 < kept <= 0.71
    # The channel of small weights is gone as a whole, in both layers.
    assert len(small.biases[0]) == 4
    for _ in range(20):
        small = cut_pictures(small, demonstrations, 0.3)
    assert small.masks[-1].any(axis=1).all()


def test_a_student_learns_a_teacher_of_its_own_form() -> None:
    from eventsim.models.distill import Training
    from eventsim.models.picture_distill import train_pictures

    policy = teacher()
    head, demonstrations = shown(policy)
    kernels = [Kernel((3, 3), (2, 1))]
    student = new_picture_student(head, SHAPE, 1.0, kernels, PictureShape((5,)), 1)
    short = Training(20, events=False, windows=4)
    _, before = train_pictures(student, demonstrations, short, 0)
    student, after = train_pictures(
        student, demonstrations, Training(400, events=False, windows=4), 0
    )
    assert after["loss"] < 0.3 * before["loss"]
    student.thresholds = [np.full_like(t, 0.02) for t in student.thresholds]
    costs = []
    for cost in (0.0, 0.2):
        training = Training(60, windows=8, steps=24, cost=cost)
        costs.append(train_pictures(student, demonstrations, training, 0)[1]["cost"])
    assert costs[1] < costs[0]


@given(students(), st.floats(0.01, 0.9))
@settings(max_examples=15, deadline=None)
def test_from_where_brightness_is_counted_changes_no_output(
    student: PictureStudent, centre: float
) -> None:
    from eventsim.models.distill import Training
    from eventsim.models.picture_distill import PictureModule, PictureWindows

    if not student.kernels:
        centre = 0.0
    film = episodes(student.scale, 1, 12)[0]
    demonstrations = Demonstrations([film], [np.zeros((12, 4), np.float32)])
    windows = PictureWindows(student, demonstrations, 12, np.random.default_rng(0))
    module = PictureModule(student, 1.0, centre=centre)
    outputs = module.forward(windows.draw(1)[0], Training(events=False))[0]
    expected = torch_outputs(student, film)
    np.testing.assert_allclose(outputs[0].detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        torch_outputs(module.student(), film), expected, rtol=1e-4, atol=1e-4
    )


def test_hints_teach_feature_maps_what_the_answers_do_not_need() -> None:
    from eventsim.models.distill import Training
    from eventsim.models.picture_distill import train_pictures

    policy = teacher(1 / 255)
    head, films = Head.of(policy.decoder), episodes(1 / 255, 4, 200)
    # Told is a product of two pixels, which no answer depends on.
    told = [((x[:, 4] - 128) * (x[:, 90] - 128) / 6000.0)[:, np.newaxis]
            for x in (film.inputs().astype(np.float64) for film in films)]  # fmt: skip
    hinted = Demonstrations(films, [np.pad(t, ((0, 0), (4, 0))).astype(np.float32) for t in told])
    plain = Demonstrations(films, [np.zeros((len(t), 4), np.float32) for t in told])
    kernels, layers = [Kernel((8, 7))], PictureShape((12,))
    student = new_picture_student(head, SHAPE, 1 / 255, kernels, layers, 1)
    training = Training(1500, events=False, batch=64)
    left = []
    for shown in (plain, hinted):
        trained, _ = train_pictures(student, shown, training, 0)
        assert trained.sizes == student.sizes
        maps = np.concatenate([Simulator(_maps(trained)).run(film.inputs()) for film in films])
        seen, wanted = np.pad(maps, ((0, 0), (0, 1)), constant_values=1.0), np.concatenate(told)
        fitted = seen @ np.linalg.lstsq(seen, wanted, rcond=None)[0]
        left.append(float(np.square(fitted - wanted).mean() / wanted.var()))
    assert left[1] < 0.5 * left[0]


def test_a_teacher_of_its_own_form_has_nothing_left_to_learn() -> None:
    from eventsim.models.distill import Training, scale_of, tempered
    from eventsim.models.picture_distill import PictureModule, PictureWindows

    policy = teacher()
    head, demonstrations = shown(policy)
    own = picture_student_of(policy, head, SHAPE, 1.0, [Kernel((3, 3), (2, 1))])
    assert own is not None
    begun = tempered(own, demonstrations)
    losses = []
    for student in (own, begun):
        windows = PictureWindows(student, demonstrations, 1, np.random.default_rng(0))
        x, y, _ = windows.draw(64)
        module = PictureModule(student, scale_of(head, demonstrations))
        outputs = module.forward(x, Training(events=False))[0]
        np.testing.assert_array_equal(outputs.argmax(-1), y.argmax(-1))
        losses.append(float(module.imitation(outputs, y).detach()))
    assert losses[1] < 1e-5 < 0.01 < losses[0]
    np.testing.assert_array_equal(own.weights[-1], teacher_weights(policy))


def teacher_weights(policy: Policy) -> np.ndarray:
    """Of the output layer, in torch's order."""
    dense = policy.network.projections[-1].weights.to_dense()
    return dense.reshape(4, 3, 5, 5).transpose(0, 3, 1, 2).reshape(4, -1)


def _maps(student: PictureStudent) -> Network:
    """The network of a student up to its feature maps."""
    network = student.to_policy(teacher(student.scale), events=False).network
    return Network(network.populations[:-1], network.projections[:-1])


def test_sums_in_half_precision_are_near() -> None:
    from eventsim.models.distill import Training
    from eventsim.models.picture_distill import PictureModule

    policy = teacher(1.0 / 255.0)
    head = Head.of(policy.decoder)
    shape, kernels = PictureShape((4,), (8,)), [Kernel((3, 3))]
    student = new_picture_student(head, SHAPE, 1.0 / 255.0, kernels, shape, seed=1)
    student.thresholds = [np.full(len(t), 0.01) for t in student.thresholds]
    x = torch.from_numpy(episodes(1.0 / 255.0)[0].inputs()[:64]).float() / 255.0
    x = x.reshape(1, 64, SHAPE[1], SHAPE[2], SHAPE[0]).permute(0, 1, 4, 2, 3).reshape(1, 64, -1)
    # Weights, activations and sums of three layers are rounded, by 2^-9 each of what is added up;
    # where values are held, one may be a threshold apart.
    added = student.copy()
    added.weights = [np.abs(w) for w in added.weights]
    most = PictureModule(added, 1.0).forward(x, Training(events=False))[0].detach().max()
    theta = float(student.thresholds[-1][0])
    heard = np.abs(student.weights[-1]).sum(axis=1).max()
    for events, apart in ((False, 0.0), (True, theta * heard)):
        training = Training(events=events)
        full, half = (
            PictureModule(student, 1.0, half=h).forward(x, training) for h in (False, True)
        )
        assert half[0].dtype == torch.float32
        wrong = (half[0] - full[0]).detach().abs().max()
        assert 0.0 < wrong < 9 * 2.0**-9 * most + apart
    assert half[1].item() == pytest.approx(full[1].item(), rel=0.05)
    half[0].sum().backward()  # and gradients pass
