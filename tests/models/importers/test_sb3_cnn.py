"""Agents with a CnnPolicy that Stable-Baselines3 itself saved: its own outputs and actions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from eventsim.errors import UnsupportedError
from eventsim.models.importers import load_policy
from eventsim.models.pixels import Pixels
from eventsim.models.policy import Policy

th = pytest.importorskip("torch", reason="needs the extra 'train'")
sb3 = pytest.importorskip("stable_baselines3", reason="needs the extra 'train'")
contrib = pytest.importorskip("sb3_contrib", reason="needs the extra 'train'")

SMALL = {"features_extractor_kwargs": {"features_dim": 16}}


class Pictures(gym.Env[Any, Any]):
    """An environment of random pictures, channels last."""

    action_space = spaces.Discrete(3)

    def __init__(self, shape: tuple[int, ...] = (36, 40, 3)) -> None:
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)

    def reset(self, **unused: Any) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


CASES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "DQN": (sb3.DQN, {**SMALL}, (36, 40, 3)),
    "DQN stacked": (sb3.DQN, {**SMALL, "net_arch": [9]}, (4, 36, 36)),
    "PPO": (sb3.PPO, {**SMALL}, (36, 40, 3)),
    "PPO apart": (sb3.PPO, {**SMALL, "net_arch": [7], "share_features_extractor": False},
                  (36, 40, 3)),
    "A2C": (sb3.A2C, {**SMALL}, (36, 40, 1)),
    "QR-DQN": (contrib.QRDQN, {**SMALL, "n_quantiles": 5}, (36, 40, 3)),
    "raw bytes": (sb3.A2C, {**SMALL, "normalize_images": False}, (36, 40, 3)),
}  # fmt: skip


def make(name: str) -> Any:
    library, keywords, shape = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = {"buffer_size": 4} if "DQN" in name else {}
        return library(
            "CnnPolicy", Pictures(shape), policy_kwargs=keywords, seed=3, device="cpu", **arguments
        )


def outputs(model: Any, observation: np.ndarray) -> np.ndarray:
    """What the network under the policy gives."""
    tensor, _ = model.policy.obs_to_tensor(observation)
    with th.no_grad():
        if hasattr(model.policy, "action_net"):
            policy = model.policy
            features = policy.extract_features(tensor)
            features = features[0] if isinstance(features, tuple) else features
            return policy.action_net(policy.mlp_extractor.forward_actor(features)).numpy()
        net = getattr(model, "q_net", None) or model.quantile_net
        return net(tensor).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_actions(name: str, tmp_path: Path) -> None:
    model = make(name)
    model.save(tmp_path / "agent.zip")
    policy = load_policy(tmp_path / "agent.zip")
    assert policy.encoder.pixels == Pixels()
    policy.save(tmp_path / "policy.safetensors")
    kept = Policy.load(tmp_path / "policy.safetensors")
    space = model.observation_space
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, space.shape, np.uint8)]
    for _ in range(5):
        change = rng.random(space.shape) < 0.01
        frames.append(np.where(change, rng.integers(0, 256, space.shape, np.uint8), frames[-1]))
    sessions = [policy.session(), policy.dense_session(), kept.session()]
    for frame in frames:
        expected = outputs(model, frame)
        action = model.predict(frame, deterministic=True)[0]
        for session in sessions:
            assert session.act(frame) == action
            np.testing.assert_allclose(
                session.outputs, expected.reshape(-1), atol=1e-5 * max(1.0, np.abs(expected).max())
            )
            # As the environment gives it before Stable-Baselines3 turns it over.
            assert policy.encoder.encode(np.moveaxis(frame, 0, -1)).tolist() == (
                policy.encoder.encode(frame).tolist()
            )


@pytest.mark.slow
def test_another_extractor_is_refused(tmp_path: Path) -> None:
    from stable_baselines3.common.torch_layers import NatureCNN

    class Own(NatureCNN):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keywords = {**SMALL, "features_extractor_class": Own}
        model = sb3.A2C("CnnPolicy", Pictures(), policy_kwargs=keywords, device="cpu")
        model.save(tmp_path / "agent.zip")
    with pytest.raises(UnsupportedError, match="from_torch"):
        load_policy(tmp_path / "agent.zip")
