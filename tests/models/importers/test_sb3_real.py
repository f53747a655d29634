"""Fresh models that Stable-Baselines3 itself saved: the same actions as its own predict."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from eventsim.models.importers import load_policy

th = pytest.importorskip("torch", reason="needs the extra 'train'")
sb3 = pytest.importorskip("stable_baselines3", reason="needs the extra 'train'")
contrib = pytest.importorskip("sb3_contrib", reason="needs the extra 'train'")

VECTOR = spaces.Box(-1.0, 1.0, (3,))
MATRIX = spaces.Box(-np.inf, np.inf, (2, 3), np.float64)
MIXED = spaces.Dict(
    {
        "z": VECTOR,
        "b": spaces.MultiBinary(3),
        "a": spaces.Discrete(4),
        "m": spaces.MultiDiscrete([2, 3]),
    }
)
BOX = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
SMALL = {"buffer_size": 10}
NET = {"net_arch": [16, 8]}


class Spaces(gym.Env[Any, Any]):
    """An environment that is nothing but its spaces."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation, action
        self.own = observation  # wrappers may replace the attribute above

    def reset(self, **unused: Any) -> tuple[Any, dict[str, Any]]:  # type: ignore[override]
        return self.own.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.own.sample(), 0.0, False, False, {}


@dataclass(frozen=True)
class Case:
    """A model to be made."""

    algorithm: str
    action: spaces.Space[Any]
    observation: spaces.Space[Any] = field(default_factory=lambda: VECTOR)
    policy: str = "MlpPolicy"
    keywords: dict[str, Any] = field(default_factory=lambda: NET)
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        extras = [k for k in ("use_sde",) if k in self.arguments] + sorted(
            set(self.keywords) - {"net_arch"}
        )
        shown = [self.algorithm, type(self.observation).__name__, type(self.action).__name__]
        return "-".join([*shown, *extras])


def off_policy(algorithm: str, action: spaces.Space[Any], **options: Any) -> Case:
    arguments = {**SMALL, **options.pop("arguments", {})}
    return Case(algorithm, action, arguments=arguments, **options)


DISCRETE = spaces.Discrete(5)
SDE = {"use_sde": True}
MULTI = {"observation": MIXED, "policy": "MultiInputPolicy"}
CASES = [
    *(Case(name, action) for name in ("PPO", "A2C", "TRPO") for action in (DISCRETE, BOX)),
    Case("PPO", spaces.MultiDiscrete([3, 2, 4])),
    Case("A2C", spaces.MultiBinary(4)),
    Case("PPO", spaces.Box(-1.0, 2.0, (2, 2)), MATRIX),
    Case("PPO", DISCRETE, **MULTI),
    Case("A2C", DISCRETE, spaces.Discrete(6)),
    Case("A2C", DISCRETE, spaces.MultiDiscrete([3, 4])),
    Case("A2C", DISCRETE, spaces.MultiBinary(5)),
    Case("PPO", BOX, keywords={"net_arch": []}),
    Case("PPO", BOX, keywords={"net_arch": {"pi": [7], "vf": [5, 5]}}),
    Case("PPO", BOX, keywords={**NET, "share_features_extractor": False}),
    Case("A2C", BOX, arguments=SDE),
    Case("PPO", BOX, keywords={**NET, "squash_output": True}, arguments=SDE),
    *(Case("PPO", BOX, keywords={**NET, "activation_fn": getattr(th.nn, name)})
      for name in ("ReLU", "ELU", "LeakyReLU", "Sigmoid", "Softplus", "SiLU", "GELU",
                   "Hardtanh", "ReLU6", "Identity")),
    off_policy("DQN", DISCRETE),
    off_policy("DQN", DISCRETE, **MULTI),
    off_policy("QRDQN", DISCRETE, keywords={**NET, "n_quantiles": 7}),
    off_policy("SAC", BOX),
    off_policy("SAC", BOX, **MULTI),
    off_policy("SAC", BOX, arguments=SDE),
    off_policy("SAC", BOX, keywords={**NET, "clip_mean": 0.5}, arguments=SDE),
    off_policy("SAC", BOX, keywords={**NET, "clip_mean": 0.0}, arguments=SDE),
    off_policy("TQC", BOX),
    off_policy("TQC", BOX, arguments=SDE),
    off_policy("TD3", BOX, keywords={"net_arch": {"pi": [9, 4], "qf": [5]}}),
    off_policy("TD3", BOX, **MULTI),
    off_policy("DDPG", BOX),
    *(Case("ARS", action) for action in (DISCRETE, BOX)),
    *(Case("ARS", action, policy="LinearPolicy", keywords={}) for action in (DISCRETE, BOX)),
    Case("ARS", BOX, policy="LinearPolicy", keywords={"with_bias": True, "squash_output": True}),
    Case("ARS", BOX, keywords={**NET, "squash_output": False, "with_bias": False}),
]  # fmt: skip


def make(case: Case) -> Any:
    """A model of random weights, large enough that outputs saturate here and there."""
    library = contrib if hasattr(contrib, case.algorithm) else sb3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what SB3 has to say about sizes and spaces
        model = getattr(library, case.algorithm)(
            case.policy,
            Spaces(case.observation, case.action),
            policy_kwargs=dict(case.keywords),
            device="cpu",
            seed=3,
            **case.arguments,
        )
    generator = th.Generator().manual_seed(11)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.normal_(0.0, 0.7, generator=generator)
    return model


def samples(space: spaces.Space[Any], n: int) -> list[Any]:
    space.seed(5)
    return [space.sample() for _ in range(n)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_actions(case: Case, tmp_path: Path) -> None:
    model = make(case)
    model.save(tmp_path / "agent.zip")
    policy = load_policy(tmp_path / "agent.zip")
    assert policy.metadata["algorithm"].replace("-", "") == case.algorithm
    session, dense = policy.session(), policy.dense_session()
    for observation in samples(case.observation, 60):
        expected, _ = model.predict(observation, deterministic=True)
        for action in (session.act(observation), dense.act(observation)):
            if isinstance(case.action, spaces.Box):
                np.testing.assert_allclose(action, expected, rtol=0.0, atol=1e-5)
            else:
                assert np.array_equal(action, expected)
        assert case.action.contains(action)


def test_normalised_observations(tmp_path: Path, rng: np.random.Generator) -> None:
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    for observation in (VECTOR, spaces.Dict({"b": VECTOR, "a": spaces.Box(-1, 1, (2,))})):
        is_dict = isinstance(observation, spaces.Dict)
        policy_name = "MultiInputPolicy" if is_dict else "MlpPolicy"
        case = Case("PPO", BOX, observation, policy_name)
        model = make(case)
        wrapper = VecNormalize(
            DummyVecEnv([lambda space=observation: Spaces(space, BOX)]),
            clip_obs=1.5,
            epsilon=1e-3,
            norm_obs_keys=["a"] if is_dict else None,
        )
        statistics = wrapper.obs_rms["a"] if is_dict else wrapper.obs_rms
        statistics.mean = rng.normal(size=statistics.mean.shape)
        statistics.var = rng.uniform(0.01, 2.0, size=statistics.var.shape)
        model.save(tmp_path / "agent.zip")
        wrapper.save(str(tmp_path / "vecnormalize.pkl"))
        policy = load_policy(tmp_path / "agent.zip")
        session = policy.session()
        for sample in samples(observation, 40):
            expected, _ = model.predict(wrapper.normalize_obs(sample), deterministic=True)
            np.testing.assert_allclose(session.act(sample), expected, rtol=0.0, atol=1e-5)


def test_time_feature_wrapper(tmp_path: Path) -> None:
    from sb3_contrib.common.wrappers import TimeFeatureWrapper

    env = TimeFeatureWrapper(Spaces(VECTOR, DISCRETE), max_steps=20)
    model = make(Case("A2C", DISCRETE, env.observation_space))
    model.save(tmp_path / "agent.zip")
    policy = load_policy(tmp_path / "agent.zip", time_feature=20)
    session = policy.session()
    observation, _ = env.reset()
    for _ in range(20):
        expected, _ = model.predict(observation, deterministic=True)
        assert session.act(observation[:-1]) == expected
        observation = env.step(expected)[0]


@pytest.mark.parametrize(
    ("algorithm", "policy", "message"),
    [("RecurrentPPO", "MlpLstmPolicy", "LSTM"), ("MaskablePPO", "MlpPolicy", "masks"),
     ("CrossQ", "MlpPolicy", "CrossQ")],
)  # fmt: skip
def test_policies_that_are_refused(
    tmp_path: Path, algorithm: str, policy: str, message: str
) -> None:
    action = BOX if algorithm == "CrossQ" else DISCRETE
    arguments = SMALL if algorithm == "CrossQ" else {}
    model = make(Case(algorithm, action, policy=policy, arguments=arguments))
    model.save(tmp_path / "agent.zip")
    with pytest.raises(NotImplementedError, match=message):
        load_policy(tmp_path / "agent.zip")


def test_pictures_among_other_entries_are_refused(tmp_path: Path) -> None:
    image: spaces.Space[Any] = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    image = spaces.Dict({"image": image, "vector": VECTOR})
    model = make(Case("PPO", DISCRETE, image, "MultiInputPolicy"))
    model.save(tmp_path / "agent.zip")
    with pytest.raises(NotImplementedError, match="each entry"):
        load_policy(tmp_path / "agent.zip")


def test_evaluate_policy_of_sb3_accepts_the_import(tmp_path: Path) -> None:
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv

    model = make(Case("DQN", spaces.Discrete(2), spaces.Box(-np.inf, np.inf, (4,)),
                      arguments=SMALL))  # fmt: skip
    model.save(tmp_path / "CartPole-v1.zip")
    policy = load_policy(tmp_path / "CartPole-v1.zip")
    returns = []
    for agent in (model, policy):
        env = DummyVecEnv([lambda: gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))])
        env.seed(4)
        rewards, _ = evaluate_policy(
            agent, env, n_eval_episodes=3, return_episode_rewards=True, warn=False
        )
        returns.append(rewards)
    assert returns[0] == returns[1]
