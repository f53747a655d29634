"""Refining: changes that cannot matter change nothing; those that do are checked by playing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eventsim import Network, Policy, Projection, Simulator
from eventsim.errors import InputError, UnsupportedError
from eventsim.models.decoders import Argmax, ClipBox
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.refine import (
    Change,
    Refined,
    Refining,
    Watched,
    changes_of,
    refine,
    settle,
    shaken,
)

Float = NDArray[np.float64]


def tied(rng: np.random.Generator, density: float) -> Policy:
    """Draw a policy over three actions of which weights into the outputs often are equal."""
    hidden = rng.normal(size=(5, 4)) * (rng.random((5, 4)) < density)
    out = rng.integers(-1, 2, size=(3, 5)).astype(np.float64)
    network = Network.from_arrays(
        [hidden, out], [rng.normal(size=5), rng.normal(size=3)], "tanh", thresholds=0.1
    )
    return Policy(Encoder(BoxSpec((4,))), network, Argmax(3))


def follow(policy: Policy, inputs: Float) -> tuple[Float, int]:
    """Outputs over the inputs, and the multiplications."""
    simulator = Simulator(policy.network)
    outputs = np.array([simulator.step(x) for x in inputs])
    return outputs, int(simulator.totals.macs.sum())


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 1.0))
def test_settled_policies_differ_in_work_alone(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    policy = tied(rng, density)
    inputs = np.cumsum(rng.normal(size=(40, 4)), axis=0) * 0.1
    before, spent = follow(policy, inputs)
    after, spends = follow(settle(policy), inputs)
    # Only differences decide, and they stay.
    differences = [y - y[:, :1] for y in (before, after)]
    np.testing.assert_allclose(differences[1], differences[0], rtol=0.0, atol=1e-10)
    assert spends <= spent
    assert settle(policy).dense_macs == policy.dense_macs


def test_one_weight_of_a_full_column_is_saved() -> None:
    network = Network.from_arrays([np.array([[1.0], [2.0], [4.0]])])
    settled = settle(Policy(Encoder(BoxSpec((1,))), network, Argmax(3)))
    weights = settled.network.projections[0].weights.to_dense()[:, 0]
    assert weights.tolist() == [-1.0, 0.0, 2.0]
    # The actions of a box are the outputs themselves.
    box = Policy(Encoder(BoxSpec((1,))), network, ClipBox(-9.0, 9.0, (3,)))
    assert settle(box).network.n_synapses == 3


def test_a_cut_keeps_the_mean_of_its_target() -> None:
    network = Network.from_arrays([np.array([[2.0, 3.0]])])
    inputs = np.array([[1.0, 0.0], [3.0, 4.0]])
    cut = Change("cut", network.projections[0].name, 0, 1).apply(network, inputs)
    assert cut.projections[0].weights.to_dense().tolist() == [[2.0, 0.0]]
    assert cut["output"].parameter("bias").tolist() == [6.0]


def test_a_threshold_is_raised_and_one_of_zero_begins_at_a_part_of_the_spread() -> None:
    network = Network.from_arrays([np.ones((1, 2))]).with_thresholds({"input": [0.5, 0.0]})
    inputs = np.array([[0.0, -1.0], [0.0, 1.0]])
    for neuron, theta in ((0, [1.0, 0.0]), (1, [0.5, 0.1])):
        raised = Change("threshold", "input", neuron, value=2.0).apply(network, inputs)
        np.testing.assert_allclose(raised["input"].parameter("threshold"), theta)


def test_all_changes_are_there() -> None:
    network = Network.from_arrays([np.array([[1.0, 0.0], [2.0, 3.0]])])
    policy = Policy(Encoder(BoxSpec((2,))), network, Argmax(2))
    kinds = [c.kind for c in changes_of(policy)]
    assert kinds.count("cut") == 3
    assert kinds.count("merge") == 2
    assert set(kinds) == {"cut", "merge", "threshold"}


def test_a_step_at_random_keeps_what_is_zero() -> None:
    policy = tied(np.random.default_rng(1), 0.5)
    one, two = (shaken(policy.network, 0.1, np.random.default_rng(k)) for k in (0, 0))
    for q, p, old in zip(one.projections, two.projections, policy.network.projections, strict=True):
        np.testing.assert_array_equal(q.weights.to_dense(), p.weights.to_dense())
        np.testing.assert_array_equal(q.weights.to_dense() == 0.0, old.weights.to_dense() == 0.0)


class Track:
    """Reward 1 for the action that a sine asks for; a second input means nothing."""

    def __init__(self) -> None:
        self.looks = 0

    def inputs(self, seed: int) -> Float:
        rng = np.random.default_rng(seed)
        t = np.arange(60)
        phase = rng.uniform(0.0, 2.0 * np.pi)
        return np.stack([np.sin(0.1 * t + phase), rng.normal(size=60)], axis=1)

    def play(self, policy: Policy, seeds: Sequence[int]) -> list[Watched]:
        self.looks += 1
        watched = []
        for seed in seeds:
            inputs = self.inputs(seed)
            simulator = Simulator(policy.network)
            actions = np.array([simulator.step(x).argmax() for x in inputs])
            right = float((actions == (inputs[:, 0] > 0.0)).sum())
            spent = simulator.totals
            watched.append(Watched(right, 60, int(spent.macs.sum()), int(spent.acs.sum()), inputs))
        return watched

    @staticmethod
    def losses(returns: Float, seeds: Sequence[int]) -> Float:
        del seeds
        return (60.0 - returns) / 30.0


def start() -> Policy:
    network = Network.from_arrays([np.array([[-1.0, 0.01], [1.0, -0.01]])])
    return Policy(Encoder(BoxSpec((2,))), network, Argmax(2))


def refined(**options: object) -> tuple[list[Refined], Track]:
    track = Track()
    settings = replace(
        Refining(limit=0.05, screened=4, validated=12, checks=60, shakes=4),
        **options,  # type: ignore[arg-type]
    )
    found = list(refine(start(), track.play, track.losses, range(12), settings))
    return found, track


def test_it_finds_what_is_not_needed() -> None:
    found, _ = refined()
    work = [one.synops for one in found]
    assert work == sorted(work, reverse=True)
    # Of four synapses one is needed, and it need not speak at every step.
    assert found[-1].policy.network.n_synapses == 1
    assert found[-1].synops < 0.5 * found[0].synops
    assert all(one.loss + 0.5 * one.error <= 0.05 for one in found)
    # What it says of a policy is what playing it gives.
    again = Track().play(found[-1].policy, range(12))
    assert [one.total for one in again] == found[-1].returns.tolist()
    assert sum(one.macs for one in again) / 720 == found[-1].macs


def test_it_gives_the_same_again() -> None:
    one, two = (refined()[0] for _ in range(2))
    assert [r.macs for r in one] == [r.macs for r in two]


def test_it_looks_no_more_often_than_it_may() -> None:
    found, track = refined(checks=3)
    assert found[-1].checks <= 3
    # A look plays twice, first a part of the seeds.
    assert track.looks <= 6


def test_it_stops_when_told() -> None:
    track = Track()
    assert list(refine(start(), track.play, track.losses, range(64), go_on=lambda: False)) == []
    assert track.looks == 0


def test_too_few_seeds_and_delays_are_refused() -> None:
    track = Track()
    with pytest.raises(InputError, match="at least 64"):
        list(refine(start(), track.play, track.losses, range(3)))
    network = start().network
    late = replace(
        network,
        projections=tuple(
            Projection(q.source, q.target, q.weights, 1, name=q.name) for q in network.projections
        ),
    )
    with pytest.raises(UnsupportedError, match="delays"):
        list(refine(start().with_network(late), track.play, track.losses, range(64)))
