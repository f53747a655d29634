"""Thresholds follow each neuron's spread; calibration plays, prunes and says how."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from eventsim import DenseForward, Network, Policy
from eventsim.errors import InputError, UnknownNameError
from eventsim.models.calibration import (
    SPREAD,
    activation_spread,
    calibrate,
    record,
    with_spread_thresholds,
)
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
from eventsim.models.pruning import connection_sparsity, prune
from eventsim.models.rollout import episode, make_env


@pytest.fixture
def policy(rng: np.random.Generator) -> Policy:
    weights = [rng.normal(size=s).astype(np.float32) for s in ((12, 4), (12, 12), (2, 12))]
    network = Network.from_arrays(weights, activation="tanh")
    return Policy(Encoder(BoxSpec((4,))), network, Argmax(2), {"env_id": "CartPole-v1"})


@given(st.data())
def test_spread_is_the_standard_deviation(data: st.DataObject) -> None:
    network = data.draw(strategies.networks())
    episodes = [data.draw(strategies.inputs(network)) for _ in range(2)]
    dense = DenseForward(network)
    rows: dict[str, list[np.ndarray]] = {p.name: [] for p in network.populations}
    for x in episodes:
        dense.reset()
        for name, values in dense.activations_over(x).items():
            rows[name].extend(values)
    spread = activation_spread(network, episodes)
    for name, values in rows.items():
        assert spread[name] == pytest.approx(np.std(values, axis=0), rel=1e-9, abs=1e-9)


def test_what_never_moves_has_no_spread_at_all() -> None:
    network = Network.from_arrays([np.array([[0.1, 0.0], [0.0, 1.0]])])
    x = np.column_stack([np.full(7, 0.1), np.arange(7.0)])
    spread = activation_spread(network, x)
    assert spread["input"].tolist() == [0.0, 2.0]
    assert spread["output"].tolist() == [0.0, 2.0]


def test_thresholds_of_all_that_transmit() -> None:
    network = Network.from_arrays(
        [np.array([[2.0], [-1.0]]), np.array([[1.0, 1.0]])], thresholds=[9.0, 9.0, 7.0]
    )
    x = np.array([[1.0], [3.0]])
    found = with_spread_thresholds(network, x, 0.5)
    assert found["input"].parameter("threshold").tolist() == [0.5]
    assert found["hidden1"].parameter("threshold").tolist() == [1.0, 0.0]  # relu: the second is off
    assert found["output"].parameter("threshold").tolist() == [7.0]  # sends nothing
    found = with_spread_thresholds(network, x, 0.5, input_scale=0.1)
    assert found["input"].parameter("threshold").tolist() == [0.1]
    assert found["hidden1"].parameter("threshold").tolist() == [1.0, 0.0]


def test_recorded_are_the_dense_policys_inputs(policy: Policy) -> None:
    played = record(policy, "CartPole-v1", range(3, 5), progress=False)
    env = make_env("CartPole-v1")
    for one, seed in zip(played, (3, 4), strict=True):
        expected = episode(policy.dense_session(), env, seed, record=True)
        assert one.total == expected.total
        assert one.inputs is not None
        assert one.inputs.tolist() == expected.inputs.tolist()
    env.close()


@pytest.mark.parametrize("refit", [False, True])
def test_calibrated_policy_says_how(policy: Policy, refit: bool, tmp_path: Path) -> None:
    made = calibrate(
        policy,
        threshold_scale=0.3,
        sparsity=0.5,
        refit=refit,
        episodes=2,
        seed=7,
        progress=False,
    )
    played = record(policy, "CartPole-v1", range(7, 9), progress=False)
    inputs = [e.inputs for e in played]
    for name, spread in activation_spread(made.network, inputs).items():
        expected = 0.0 * spread if name == "output" else 0.3 * spread
        assert made.network[name].parameter("threshold") == pytest.approx(expected)
    assert made.metadata["calibration"] == {
        "env_id": "CartPole-v1",
        "threshold_scale": 0.3,
        "spread": SPREAD,
        "sparsity": connection_sparsity(made.network),
        "sparsity_asked_for": 0.5,
        "scope": "global",
        "refit": refit,
        "episodes": 2,
        "seed": 7,
        "steps": sum(e.steps for e in played),
    }
    assert connection_sparsity(made.network) == pytest.approx(0.5, abs=0.01)
    assert made.dense_macs == policy.dense_macs
    plain = prune(policy.network, 0.5)
    same = all(
        (a.weights.to_dense() == b.weights.to_dense()).all()
        for a, b in zip(made.network.projections, plain.projections, strict=True)
    )
    assert same is not refit
    made.save(tmp_path / "made.safetensors")
    again = Policy.load(tmp_path / "made.safetensors")
    assert again.metadata == made.metadata
    for p in made.network.populations:
        assert again.network[p.name].parameter("threshold").tolist() == (
            p.parameter("threshold").tolist()
        )


def test_without_pruning_the_weights_stay(policy: Policy) -> None:
    made = calibrate(policy, threshold_scale=0.1, refit=True, episodes=1, progress=False)
    assert made.metadata["calibration"]["refit"] is False
    for a, b in zip(made.network.projections, policy.network.projections, strict=True):
        assert (a.weights.to_dense() == b.weights.to_dense()).all()


def test_scale_zero_and_the_same_seed_repeat(policy: Policy) -> None:
    first, again = (
        calibrate(policy, threshold_scale=0.2, episodes=1, seed=1, progress=False) for _ in range(2)
    )
    for p in first.network.populations:
        assert (again.network[p.name].parameter("threshold") == p.parameter("threshold")).all()
    exact = calibrate(policy, threshold_scale=0.0, episodes=1, progress=False)
    assert not any(p.parameter("threshold").any() for p in exact.network.populations)


def test_environment_arguments_of_the_policy_are_kept(policy: Policy) -> None:
    short = policy.with_metadata(env_kwargs={"max_episode_steps": 5})
    assert all(e.steps <= 5 for e in record(short, "CartPole-v1", range(3), progress=False))


def test_refuses_what_makes_no_sense(policy: Policy) -> None:
    for scale in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="threshold_scale"):
            calibrate(policy, threshold_scale=scale)
    with pytest.raises(InputError, match="episodes"):
        calibrate(policy, threshold_scale=0.1, episodes=0)
    with pytest.raises(InputError, match="sparsity"):
        calibrate(policy, threshold_scale=0.1, sparsity=1.0)
    with pytest.raises(InputError, match="scope"):
        calibrate(policy, threshold_scale=0.1, scope="all")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not say in which environment"):
        calibrate(policy.with_metadata(env_id=None), threshold_scale=0.1)
    with pytest.raises(InputError, match="Acrobot-v1"):
        calibrate(policy, "Acrobot-v1", threshold_scale=0.1, progress=False)
    with pytest.raises(UnknownNameError, match="CartPole-v1"):
        calibrate(policy, "CartPole-v2", threshold_scale=0.1)
    with pytest.raises(InputError, match="expected"):
        activation_spread(policy.network, np.zeros((3, 3)))
