"""Agents written by the tests themselves: neither torch nor stable-baselines3 is needed."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from eventsim.errors import FileFormatError, UnsupportedError
from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.neurons import Clip
from tests.sb3_files import (
    ACTIONS,
    ACTOR_CRITIC,
    ARS,
    ARS_MLP,
    CONTRIB,
    DQN,
    GSDE,
    PPO,
    QRDQN,
    SAC,
    SB3,
    TD3,
    actor_critic,
    agent_members,
    classes_at,
    linear,
    serialized,
    vecnormalize_pickle,
    write_agent,
    write_zip,
)


def actions_of(policy: Policy, observations: np.ndarray) -> np.ndarray:
    session = policy.dense_session()
    return np.array([session.act(row) for row in observations])


def forward(layers: list[tuple[np.ndarray, Any]], x: np.ndarray, f: Any) -> np.ndarray:
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.astype(np.float64).T + (0.0 if bias is None else bias)
        x = f(x) if i < len(layers) - 1 else x
    return x


def layers_of(tensors: dict[str, np.ndarray], *names: str) -> list[tuple[np.ndarray, Any]]:
    return [(tensors[f"{n}.weight"], tensors.get(f"{n}.bias")) for n in names]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def clip(y: np.ndarray) -> np.ndarray:
    return np.clip(y, ACTIONS.low, ACTIONS.high)


def squash(y: np.ndarray) -> np.ndarray:
    return ACTIONS.low + (np.tanh(y) + 1.0) / 2.0 * (ACTIONS.high - ACTIONS.low)


PI = ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net")
LATENT = ("actor.latent_pi.0", "actor.latent_pi.2", "actor.mu")


def argmax(y: np.ndarray) -> np.ndarray:
    return y.argmax(axis=1)


@dataclass(frozen=True)
class Case:
    """An agent, and what its network computes from which layers."""

    algorithm: str
    tensors: dict[str, np.ndarray]
    layers: tuple[str, ...]
    head: Callable[[np.ndarray], np.ndarray]
    policy_class: str = ACTOR_CRITIC
    action: gym.Space[Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def activation(self) -> Callable[[np.ndarray], np.ndarray]:
        return np.tanh if self.policy_class == ACTOR_CRITIC else relu


Q = tuple(f"q_net.q_net.{i}" for i in (0, 2, 4))
QUANTILES = tuple(f"quantile_net.quantile_net.{i}" for i in (0, 2, 4))
MU = ("actor.mu.0", "actor.mu.2")
LATENT_GSDE = (*LATENT[:2], "actor.mu.0")
NET = ("action_net.0", "action_net.2")
SQUASHED = {"policy_kwargs": {"squash_output": True, "use_sde": True}}
ONE_CRITIC = {"policy_delay": 1, "policy_kwargs": {"n_critics": 1}}
CASES = {
    "PPO": Case("PPO", PPO, PI, argmax),
    "A2C": Case("A2C", PPO, PI, argmax, data={"clip_range": None}),
    "TRPO": Case("TRPO", PPO, PI, argmax, data={"clip_range": None, "cg_max_steps": 15}),
    "PPO in a box": Case("PPO", PPO, PI, clip, action=ACTIONS),
    "PPO, squashed": Case("PPO", PPO, PI, squash, action=ACTIONS, data=SQUASHED),
    "DQN": Case("DQN", DQN, Q, argmax, SB3("dqn", "DQNPolicy")),
    "QR-DQN": Case(
        "QR-DQN",
        QRDQN,
        QUANTILES,
        lambda y: y.reshape(-1, 5, 2).mean(axis=1).argmax(axis=1),
        CONTRIB("qrdqn", "QRDQNPolicy"),
    ),
    "SAC": Case("SAC", SAC, LATENT, squash, SB3("sac", "SACPolicy"), ACTIONS),
    "SAC with gSDE": Case(
        "SAC",
        GSDE,
        LATENT_GSDE,
        lambda y: squash(np.clip(y, -2.0, 2.0)),
        SB3("sac", "SACPolicy"),
        ACTIONS,
        {"use_sde": True},
    ),
    "TQC with gSDE": Case(
        "TQC",
        GSDE,
        LATENT_GSDE,
        lambda y: squash(np.clip(y, -0.5, 0.5)),
        CONTRIB("tqc", "TQCPolicy"),
        ACTIONS,
        {"policy_kwargs": {"clip_mean": 0.5}},
    ),
    "TQC": Case("TQC", SAC, LATENT, squash, CONTRIB("tqc", "TQCPolicy"), ACTIONS),
    "TD3": Case("TD3", TD3, MU, squash, SB3("td3", "TD3Policy"), ACTIONS, {"policy_delay": 2}),
    "DDPG": Case("DDPG", TD3, MU, squash, SB3("td3", "TD3Policy"), ACTIONS, ONE_CRITIC),
    "ARS, linear": Case(
        "ARS", ARS, ("action_net",), clip, CONTRIB("ars", "ARSLinearPolicy"), ACTIONS
    ),
    "ARS": Case("ARS", ARS_MLP, NET, squash, CONTRIB("ars", "ARSPolicy"), ACTIONS),
    "ARS, clipped": Case(
        "ARS",
        ARS_MLP,
        NET,
        clip,
        CONTRIB("ars", "ARSPolicy"),
        ACTIONS,
        {"policy_kwargs": {"squash_output": False}},
    ),
    "ARS, discrete": Case("ARS", ARS_MLP, NET, argmax, CONTRIB("ars", "ARSPolicy")),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_algorithms(case: Case, tmp_path: Path, rng: np.random.Generator) -> None:
    members = agent_members(case.tensors, policy_class=case.policy_class, action=case.action)
    fields = {**json.loads(members["data"]), **case.data}
    # Only PPO has a clip_range.
    fields = {k: v for k, v in fields.items() if not (k == "clip_range" and v is None)}
    members["data"] = json.dumps(fields).encode()
    policy = load_policy(write_zip(tmp_path / "agent.zip", members))
    assert policy.metadata["algorithm"] == case.algorithm
    assert {q.weights.dtype.name for q in policy.network.projections} == {"float32"}
    x = rng.normal(size=(50, 4)) * 2
    y = forward(layers_of(case.tensors, *case.layers), x, case.activation)
    np.testing.assert_allclose(actions_of(policy, x), case.head(y), rtol=1e-6, atol=1e-6)


def test_metadata(tmp_path: Path) -> None:
    policy = load_policy(write_agent(tmp_path / "Foo-v1.zip", PPO))
    about = policy.metadata
    assert about["layers"] == [4, 8, 6, 2]
    assert about["teacher_dense_macs"] == 4 * 8 + 8 * 6 + 6 * 2
    assert about["env_id"] == "Foo-v1"
    assert about["defaults_taken"] == {"activation": "Tanh, the default of PPO"}
    assert about["source"]["file"] == "Foo-v1.zip"
    assert about["source"]["sb3_version"] == "2.4.0"
    assert len(about["source"]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(about)


def test_an_imported_policy_is_saved_and_loaded(tmp_path: Path, rng: np.random.Generator) -> None:
    policy = load_policy(write_agent(tmp_path / "agent.zip", GSDE | {}, action=ACTIONS,
                                     policy_class=SB3("sac", "SACPolicy")))  # fmt: skip
    policy.save(tmp_path / "agent.safetensors")
    again = load_policy(tmp_path / "agent.safetensors", env="Other-v0")
    assert again.metadata == {**policy.metadata, "env_id": "Other-v0"}
    x = rng.normal(size=(9, 4))
    assert np.array_equal(actions_of(again, x), actions_of(policy, x))
    assert again.network["output"].neuron.activation == Clip(-2.0, 2.0)
    assert policy.metadata["defaults_taken"]["clip_mean"] == "2, the default of SAC"


def test_shared_layers_of_old_versions(tmp_path: Path, rng: np.random.Generator) -> None:
    tensors = {
        **linear(rng, "mlp_extractor.shared_net.0", 8, 4),
        **linear(rng, "mlp_extractor.policy_net.0", 6, 8),
        **linear(rng, "action_net", 2, 6),
    }
    policy = load_policy(write_agent(tmp_path / "agent.zip", tensors))
    x = rng.normal(size=(20, 4))
    y = forward(layers_of(tensors, *(n.removesuffix(".weight") for n in tensors if "weight" in n)),
                x, np.tanh)  # fmt: skip
    assert np.array_equal(actions_of(policy, x), y.argmax(axis=1))


def test_a_policy_without_hidden_layers(tmp_path: Path, rng: np.random.Generator) -> None:
    policy = load_policy(write_agent(tmp_path / "agent.zip", actor_critic(rng, hidden=())))
    assert policy.metadata["layers"] == [4, 2]
    assert policy.metadata["activation"] is None
    assert policy.metadata["defaults_taken"] == {}


def activation_kwargs(path: str) -> dict[str, Any]:
    with classes_at(path) as (cls,):
        return serialized(pickle.dumps({"net_arch": [8, 6], "activation_fn": cls}, 4))


def test_activation_of_the_zip_comes_first(tmp_path: Path) -> None:
    members = agent_members(PPO, policy_kwargs=activation_kwargs("torch.nn.modules.activation.ELU"))
    write_zip(tmp_path / "Foo-v1.zip", members)
    (tmp_path / "config.yml").write_text("policy_kwargs: dict(activation_fn=nn.SiLU)\n")
    policy = load_policy(tmp_path / "Foo-v1.zip")
    assert policy.metadata["activation"] == "ELU"
    assert policy.metadata["defaults_taken"] == {}
    write_agent(tmp_path / "Foo-v1.zip", PPO)
    policy = load_policy(tmp_path / "Foo-v1.zip")
    assert policy.metadata["activation"] == "SiLU"
    assert policy.metadata["defaults_taken"] == {}


@pytest.mark.parametrize("path", ["torch.nn.modules.activation.PReLU", "mine.ReLU"])
def test_unknown_activation(tmp_path: Path, path: str) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO, policy_kwargs=activation_kwargs(path))
    with pytest.raises(UnsupportedError, match=r"activation (PReLU|mine\.ReLU) is not"):
        load_policy(file)


def test_spaces(tmp_path: Path, rng: np.random.Generator) -> None:
    spaces = gym.spaces.Dict(
        OrderedDict(
            z=gym.spaces.Box(-1.0, 1.0, (2, 2)),
            a=gym.spaces.Discrete(3),
            m=gym.spaces.MultiDiscrete([2, 3]),
            b=gym.spaces.MultiBinary(4),
        )
    )
    size = 4 + 3 + 5 + 4
    tensors = actor_critic(rng, n_in=size, n_out=5)
    file = write_agent(
        tmp_path / "agent.zip",
        tensors,
        policy_class="stable_baselines3.common.policies.MultiInputActorCriticPolicy",
        observation=spaces,
        action=gym.spaces.MultiDiscrete([2, 3]),
    )
    policy = load_policy(file)
    # The order of CombinedExtractor is that of the space, whatever it is.
    assert policy.encoder.space.keys == tuple(spaces.spaces)
    observation = spaces.sample()
    flat = {
        "z": observation["z"].reshape(-1),
        "a": np.eye(3)[observation["a"]],
        "m": np.concatenate([np.eye(2)[observation["m"][0]], np.eye(3)[observation["m"][1]]]),
        "b": observation["b"],
    }
    x = np.concatenate([flat[key] for key in spaces.spaces])[np.newaxis]
    y = forward(layers_of(tensors, *PI), x, np.tanh)[0]
    expected = [y[:2].argmax(), y[2:].argmax()]
    assert policy.dense_session().act(observation).tolist() == expected


def test_multi_binary_actions(tmp_path: Path, rng: np.random.Generator) -> None:
    file = write_agent(
        tmp_path / "agent.zip", actor_critic(rng, n_out=3), action=gym.spaces.MultiBinary(3)
    )
    assert type(load_policy(file).decoder).__name__ == "MultiBinary"


def test_printed_spaces_serve_without_a_pickle(tmp_path: Path) -> None:
    box = {
        ":type:": "<class 'gym.spaces.box.Box'>",
        "dtype": "float32",
        "shape": [4],
        "low": "[-1. -1. -inf\n -1.]",
        "high": "[1. 1. inf 1.]",
    }
    action = {":type:": "<class 'gym.spaces.discrete.Discrete'>", "n": 2}
    policy = load_policy(write_agent(tmp_path / "agent.zip", PPO, observation=box, action=action))
    assert policy.encoder.size == 4
    box["low"] = "[-1. ... -1.]"
    with pytest.raises(FileFormatError, match="printed in part"):
        load_policy(write_agent(tmp_path / "agent.zip", PPO, observation=box, action=action))


# What lies beside the zip, and options.


def zoo_folder(tmp_path: Path, config: str = "", tensors: Any = PPO, **options: Any) -> Path:
    folder = tmp_path / "ppo" / "LunarLander-v2"
    write_agent(folder / "LunarLander-v2.zip", tensors, **options)
    (folder / "config.yml").write_text(config)
    return folder


def test_a_folder_and_the_zip_inside_are_the_same(tmp_path: Path) -> None:
    folder = zoo_folder(tmp_path, "normalize: true\n")
    statistics = vecnormalize_pickle(np.arange(4.0), np.full(4, 4.0), clip=1.0)
    (folder / "vecnormalize.pkl").write_bytes(statistics)
    by_folder, by_zip = load_policy(folder), load_policy(folder / "LunarLander-v2.zip")
    assert by_folder.metadata == by_zip.metadata
    assert by_zip.metadata["env_id"] == "LunarLander-v3"
    assert by_zip.metadata["trained_env_id"] == "LunarLander-v2"
    assert "trained on LunarLander-v2, which is LunarLander-v3 today" in by_zip.metadata["notes"]
    assert by_zip.metadata["source"]["normalization_file"] == "vecnormalize.pkl"
    encoded = by_zip.encoder.encode(np.array([2.0, 1.0, 9.0, -9.0]))
    np.testing.assert_allclose(encoded, [1.0, 0.0, 1.0, -1.0], atol=1e-8)


def test_normalization_is_asked_for_where_it_is_missing(tmp_path: Path) -> None:
    folder = zoo_folder(tmp_path, "normalize: true\n")
    with pytest.raises(FileFormatError, match=r"LunarLander-v2\.zip: .*--normalization"):
        load_policy(folder)
    other = tmp_path / "elsewhere.pkl"
    other.write_bytes(vecnormalize_pickle(np.zeros(4), np.ones(4)))
    assert load_policy(folder, normalization=other).encoder.normalization is not None
    assert load_policy(folder, normalization=str(other)).encoder.normalization is not None
    assert load_policy(folder, normalization=False).encoder.normalization is None
    assert load_policy(folder, normalization="none").encoder.normalization is None


def test_normalization_without_config(tmp_path: Path) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO)
    assert load_policy(file).encoder.normalization is None
    with pytest.raises(FileFormatError, match="--normalization"):
        load_policy(file, normalization=True)
    (tmp_path / "vec_normalize.pkl").write_bytes(vecnormalize_pickle(np.zeros(4), np.ones(4)))
    policy = load_policy(file)
    assert policy.encoder.normalization is not None
    assert any("found beside" in note for note in policy.metadata["notes"])
    (tmp_path / "config.yml").write_text("gamma: 0.9\n")
    policy = load_policy(file)
    assert policy.encoder.normalization is None
    assert any("not used" in note for note in policy.metadata["notes"])


def test_normalization_of_another_agent(tmp_path: Path) -> None:
    file = write_agent(tmp_path / "agent.zip", PPO)
    other = tmp_path / "other.pkl"
    other.write_bytes(vecnormalize_pickle(np.zeros(3), np.ones(3)))
    with pytest.raises(FileFormatError, match=r"^agent\.zip: .*3 values"):
        load_policy(file, normalization=other)


TIME = "env_wrapper: sb3_contrib.common.wrappers.TimeFeatureWrapper\n"


def test_time_feature(tmp_path: Path) -> None:
    # The zip counts the feature: three values of the environment and the time.
    folder = zoo_folder(tmp_path, TIME)
    policy = load_policy(folder)
    assert policy.encoder.space.shape == (3,)
    assert policy.encoder.time_feature.max_steps == 1000  # LunarLander-v3's own limit
    np.testing.assert_allclose(policy.encoder.encode(np.zeros(3), 250), [0, 0, 0, 0.75])
    assert load_policy(folder, time_feature=False).encoder.size == 4
    assert load_policy(folder, time_feature=50).encoder.time_feature.max_steps == 50
    assert load_policy(folder, env="MountainCar-v0").encoder.time_feature.max_steps == 200
    unknown = load_policy(folder, env="Mine-v0")
    assert unknown.encoder.time_feature.max_steps == 1000
    assert "time_feature" in unknown.metadata["defaults_taken"]
    assert unknown.metadata["env_id"] == "Mine-v0"


def test_the_algorithm_of_the_folder(tmp_path: Path) -> None:
    write_agent(tmp_path / "a2c" / "Foo-v1" / "Foo-v1.zip", PPO)
    assert load_policy(tmp_path / "a2c" / "Foo-v1").metadata["algorithm"] == "A2C"
    write_agent(tmp_path / "sac" / "Foo-v1" / "Foo-v1.zip", PPO)
    assert load_policy(tmp_path / "sac" / "Foo-v1").metadata["algorithm"] == "PPO"
    policy = load_policy(tmp_path / "sac" / "Foo-v1", algorithm="trpo")
    assert policy.metadata["algorithm"] == "TRPO"
