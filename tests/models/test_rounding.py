"""Fine-tuning with the rounding in the loop moves a policy back to what it did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eventsim.models.calibration import with_spread_thresholds
from eventsim.models.decoders import Argmax, SquashBox
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.policy import Policy
from eventsim.models.quantization import quantize
from eventsim.models.rounding import WAYS, fine_tuned
from eventsim.network import Network
from eventsim.simulator import Simulator


def walks(seed: int = 0, n: int = 4, steps: int = 250) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scale = np.array([1.0, 0.1, 10.0, 1.0])
    return [np.cumsum(0.05 * rng.normal(size=(steps, 4)), axis=0) * scale for _ in range(n)]


def policy(head: str, seed: int = 0) -> Policy:
    """A network of large thresholds, whose weights few bits do not fit."""
    rng = np.random.default_rng(seed)
    decoder = Argmax(3) if head == "argmax" else SquashBox([-2.0] * 3, [2.0] * 3)
    weights = [
        (rng.normal(size=(6, 4)) / [1.0, 0.1, 10.0, 1.0]).astype(np.float32),
        rng.normal(size=(3, 6)).astype(np.float32),
    ]
    network = Network.from_arrays(weights, activation="tanh")
    network = with_spread_thresholds(network, walks(), 0.3)
    return Policy(Encoder(BoxSpec((4,))), network, decoder)


def outputs(one: Policy, x: np.ndarray) -> np.ndarray:
    rounding = one.encoder.fixed_point
    return Simulator(one.network).run(x if rounding is None else rounding(x.copy()))


def apart(one: Policy, whole: Policy, head: str) -> float:
    """How far two policies' actions are apart."""
    pairs = [(outputs(one, x), outputs(whole, x)) for x in walks()]
    if head == "argmax":
        return float(np.mean([(a.argmax(1) != b.argmax(1)).mean() for a, b in pairs]))
    return float(np.mean([np.square(np.tanh(a) - np.tanh(b)).mean() for a, b in pairs]))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["argmax", "box"])
def test_a_policy_is_more_like_before_than_after_plain_rounding(head: str) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    whole = policy(head)
    versions = {name: fine_tuned(whole, 4, walks(), way, 0) for name, way in WAYS.items()}
    found = {}
    for name, one in versions.items():
        assert one is not None
        assert one.metadata["weight_bits"] == 4
        assert one.dense_macs == whole.dense_macs
        found[name] = apart(one, whole, head)
    assert min(found.values()) < 0.8 * apart(quantize(whole, 4, walks()), whole, head)


@pytest.mark.slow
def test_learned_thresholds_save_multiplications() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    whole = policy("box")
    events = []
    for name in ("same thresholds", "learned thresholds"):
        one = fine_tuned(whole, 8, walks(), WAYS[name], 0)
        assert one is not None
        simulator = Simulator(one.network)
        simulator.run(one.encoder.fixed_point(walks()[0].copy()))  # type: ignore[misc]
        events.append(simulator.totals.synops)
    assert events[1] < events[0]


def test_it_is_repeatable() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    one, two = (
        fine_tuned(policy("box"), 4, walks(), replace(WAYS["learned thresholds"], iterations=20), 3)
        for _ in range(2)
    )
    assert one is not None
    assert two is not None
    for p, q in zip(one.network.projections, two.network.projections, strict=True):
        np.testing.assert_array_equal(p.weights.to_dense(), q.weights.to_dense())
    for a, b in zip(one.network.populations, two.network.populations, strict=True):
        np.testing.assert_array_equal(a.parameter("threshold"), b.parameter("threshold"))


def test_another_form_is_left() -> None:
    network = Network.from_arrays([np.ones((5, 4)), np.ones((3, 5))], activation="sigmoid")
    assert fine_tuned(
        policy("box").with_network(network), 8, walks(), *[*WAYS.values()][:1], 0
    ) is (None)
