"""Policies: predict as Stable-Baselines3 does, sessions, saving."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from eventsim import files
from eventsim.dense import DenseForward
from eventsim.errors import FileFormatError, InputError, NetworkError, UnsupportedError
from eventsim.models.decoders import (
    Argmax,
    ClipBox,
    Decoder,
    MultiBinary,
    MultiDiscreteArgmax,
    QuantileArgmax,
    SquashBox,
    decoder_for,
)
from eventsim.models.encoders import (
    BoxSpec,
    DictSpec,
    DiscreteSpec,
    Encoder,
    Normalization,
    TimeFeature,
)
from eventsim.models.policy import COLD_CALLS, ColdStartWarning, Policy
from eventsim.network import Network
from eventsim.trace import Counters, Hook
from tests.strategies import networks

TRAIN = "needs the extra 'train'"


def network(n_in: int, n_out: int, threshold: float = 0.0, seed: int = 0) -> Network:
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=(9, n_in)), rng.normal(size=(n_out, 9))]
    return Network.from_arrays(weights, [rng.normal(size=9), None], "tanh", threshold)


@pytest.fixture
def policy() -> Policy:
    encoder = Encoder(BoxSpec((3,)), Normalization([0.0, 1.0, 2.0], [1.0, 2.0, 3.0], 2.0))
    return Policy(encoder, network(3, 4, 0.2), Argmax(4), {"env_id": "Some-v0", "algorithm": "ppo"})


@pytest.fixture
def observations(rng: np.random.Generator) -> np.ndarray:
    return np.cumsum(0.2 * rng.normal(size=(30, 3)), axis=0).astype(np.float32)


def actions_over(policy: Policy, observations: np.ndarray) -> list[Any]:
    actions, state = [], None
    for observation in observations:
        action, state = policy.predict(observation, state)
        actions.append(action)
    return actions


def test_predict_with_state_is_a_session(policy: Policy, observations: np.ndarray) -> None:
    session = policy.session()
    assert actions_over(policy, observations) == [session.act(x) for x in observations]
    session.reset()
    assert session.act(observations[0]) == policy.predict(observations[0])[0]


def test_a_batch_is_its_environments_one_by_one(policy: Policy, rng: np.random.Generator) -> None:
    walks = np.cumsum(0.2 * rng.normal(size=(20, 5, 3)), axis=0)
    rows, state = [], None
    for batch in walks:
        actions, state = policy.predict(batch, state)
        assert actions.shape == (5,)
        rows.append(actions)
    expected = np.array([actions_over(policy, walks[:, k]) for k in range(5)]).T
    np.testing.assert_array_equal(rows, expected)


def test_a_state_is_a_snapshot(policy: Policy, observations: np.ndarray) -> None:
    _, state = policy.predict(observations[0])
    for _ in range(3):
        _, state = policy.predict(observations[1], state)
    before = [array.copy() for array in state.simulators[0].arrays]
    first = policy.predict(observations[2], state)
    policy.predict(observations[3])
    second = policy.predict(observations[2], state)
    assert first[0] == second[0]
    arrays = (result[1].simulators[0].arrays for result in (first, second))
    for a, b in zip(*arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    for old, now in zip(before, state.simulators[0].arrays, strict=True):
        np.testing.assert_array_equal(old, now)
        assert not now.flags.writeable


def test_episode_start_resets_these_environments(policy: Policy, rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 3))
    _, state = policy.predict(rng.normal(size=(3, 3)))
    action, after = policy.predict(x, state, episode_start=np.array([False, True, False]))
    assert [s.step for s in after.simulators] == [2, 1, 2]
    warm, _ = policy.predict(x, state)
    cold, _ = policy.predict(x)
    assert action.tolist() == [warm[0], cold[1], warm[2]]
    _, one = policy.predict(x[0])
    assert policy.predict(x[0], one, episode_start=True)[1].simulators[0].step == 1
    assert policy.predict(x[0], one, episode_start=[False])[1].simulators[0].step == 2


def test_at_threshold_zero_predict_is_dense(policy: Policy, observations: np.ndarray) -> None:
    exact = policy.with_network(policy.network.with_thresholds(0.0))
    dense = policy.dense_session()
    assert isinstance(dense.simulator, DenseForward)
    session = exact.session()
    for x in observations:
        assert session.act(x) == dense.act(x)
        np.testing.assert_allclose(session.outputs, dense.outputs, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(session.inputs, policy.encoder.encode(x))


def test_the_clock_of_the_time_feature() -> None:
    policy = Policy(
        Encoder(BoxSpec((1,), "float64"), None, TimeFeature(4)), network(2, 2), Argmax(2)
    )
    session = policy.session()
    seen = [session.act([0.5]) is not None and session.inputs[1] for _ in range(3)]
    assert seen == [1.0, 0.75, 0.5]
    session.reset(carry_state=True)
    session.act([0.5])
    assert session.inputs[1] == 1.0
    assert session.simulator.counters.events[0] == 1  # only the time had changed
    session.reset()
    session.act([0.5])
    assert session.simulator.counters.events[0] == 2
    # predict takes the time of every environment from its state.
    state = None
    starts = [[False, False], [False, True], [False, False]]
    for step, start in enumerate(starts):
        _, state = policy.predict(np.full((2, 1), 0.5), state, start)
        first, second = state.simulators
        assert (first.step, second.step) == (step + 1, max(step, 1))
    other = policy.session()
    for _ in range(3):
        other.act([0.5])
    for mine, theirs in zip(
        state.simulators[0].arrays, other.simulator.get_state().arrays, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_an_observation_that_is_refused_changes_nothing(
    policy: Policy, observations: np.ndarray
) -> None:
    session, other = policy.session(), policy.session()
    for x in observations[:5]:
        session.act(x)
        other.act(x)
    for bad in (np.zeros(2), np.array([0.0, np.nan, 0.0])):
        with pytest.raises(InputError, match="observation"):
            session.act(bad)
    assert session.t == 5
    for x in observations[5:]:
        assert session.act(x) == other.act(x)
        np.testing.assert_array_equal(session.outputs, other.outputs)


def test_hooks_see_a_session(policy: Policy, observations: np.ndarray) -> None:
    class Steps(Hook):
        def __init__(self) -> None:
            self.steps: list[int] = []

        def on_step(self, step: int, counters: Counters) -> None:
            self.steps.append(step)

    hook = Steps()
    session = policy.session(hooks=[hook], dt=0.02)
    for x in observations[:3]:
        session.act(x)
    session.reset()
    session.act(observations[0])
    assert hook.steps == [0, 1, 2, 0]
    assert session.simulator.dt == 0.02


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p: p.predict(np.zeros(2)), ["(2,)", "(3,)"]),
        (lambda p: p.predict(np.array([0, 0, np.inf])), ["infinity", "(3,)"]),
        (lambda p: p.predict((np.zeros(3), {})), ["env.reset()"]),
        (lambda p: p.predict({"a": np.zeros(3)}), ["observation"]),
        (lambda p: p.predict(np.zeros((2, 3)), p.predict(np.zeros(3))[1]), ["1 environments", "2"]),
        (lambda p: p.predict(np.zeros(3), np.zeros(3)), ["state", "ndarray"]),
        (lambda p: p.predict(np.zeros((2, 3)), None, [True]), ["episode_start", "2 booleans"]),
        (lambda p: p.predict(np.zeros(3), None, ["no"]), ["episode_start"]),
    ],
)
def test_calls_that_do_not_fit_are_refused(
    policy: Policy, call: Callable[[Policy], Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        call(policy)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_state_of_another_network_is_refused(policy: Policy) -> None:
    other = Policy(Encoder(BoxSpec((2,))), network(2, 4), Argmax(4))
    _, state = other.predict(np.zeros(2))
    with pytest.raises(InputError, match="another network"):
        policy.predict(np.zeros(3), state)


def test_random_actions_are_refused(policy: Policy) -> None:
    with pytest.raises(UnsupportedError, match="deterministic=True"):
        policy.predict(np.zeros(3), deterministic=False)


def test_cold_calls_warn_once(policy: Policy) -> None:
    for _ in range(COLD_CALLS - 1):
        policy.predict(np.zeros(3))
    with pytest.warns(ColdStartWarning, match="pass the state") as caught:
        policy.predict(np.zeros(3))
    assert caught[0].filename == __file__
    for _ in range(2 * COLD_CALLS):
        policy.predict(np.zeros(3))


def test_calls_that_mean_to_start_do_not_warn(policy: Policy) -> None:
    for _ in range(3 * COLD_CALLS):
        policy.predict(np.zeros(3), None, episode_start=True)
    for _ in range(COLD_CALLS):
        _, state = policy.predict(np.zeros(3))
        for _ in range(COLD_CALLS):
            _, state = policy.predict(np.zeros(3), state)


def test_an_empty_batch_is_empty(policy: Policy) -> None:
    actions, state = policy.predict(np.zeros((0, 3)))
    assert actions.shape == (0,)
    assert len(state) == 0


def test_parts_must_fit() -> None:
    with pytest.raises(NetworkError, match=r"encoder gives 2 values.*3 inputs"):
        Policy(Encoder(BoxSpec((2,))), network(3, 2), Argmax(2))
    with pytest.raises(NetworkError, match=r"decoder takes 4 values.*2 outputs"):
        Policy(Encoder(BoxSpec((3,))), network(3, 2), Argmax(4))


def test_what_it_says_about_itself(policy: Policy) -> None:
    assert repr(policy) == (
        "Policy(Some-v0 ppo 3-9-4, 63 dense MACs, 63 synapses (0% pruned), Argmax)"
    )
    assert policy.env_id == "Some-v0"
    assert policy.dense_macs == 63
    assert policy.with_metadata(env_id="Other-v1", x=1).metadata == {
        "env_id": "Other-v1",
        "algorithm": "ppo",
        "x": 1,
    }
    assert policy.env_id == "Some-v0"
    assert Policy(Encoder(BoxSpec((3,))), network(3, 1), ClipBox(-1, 1, (1,))).env_id is None


def test_metadata_are_its_own() -> None:
    given: dict[str, Any] = {"returns": [1.0]}
    policy = Policy(Encoder(BoxSpec((3,))), network(3, 2), Argmax(2), given)
    given["returns"].append(2.0)
    assert policy.metadata == {"returns": [1.0]}


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p))]
)
def test_copies_act_alike(
    policy: Policy, observations: np.ndarray, duplicate: Callable[[Policy], Policy]
) -> None:
    expected = actions_over(policy, observations)
    assert actions_over(duplicate(policy), observations) == expected


# Saving.


def full(network: Network) -> Policy:
    """A policy with every part that is stored."""
    n = network.n_inputs
    encoder = (
        Encoder(
            DictSpec((("a/b", DiscreteSpec(n - 1)), ("observation", BoxSpec((1,))))),
            {"observation": Normalization([1 / 3], [2 / 7], np.inf)},
        )
        if n > 1
        else Encoder(BoxSpec((1,)), Normalization([0.1], [0.2], 5.0, 1e-3))
    )
    bound = np.linspace(0.1, 2.0, network.n_outputs)
    metadata = {"env_id": "X-v1", "returns": {"mean": 1 / 3, "per_episode": [1.0, -2.5]}}
    return Policy(encoder, network, SquashBox(-bound, bound), metadata)


@given(networks(max_threshold=0.3), st.integers(0, 2**32 - 1))
def test_a_saved_policy_acts_bit_for_bit_alike(
    tmp_path_factory: pytest.TempPathFactory, network: Network, seed: int
) -> None:
    path = tmp_path_factory.mktemp("policy") / "p.safetensors"
    policy = full(network)
    policy.save(path)
    loaded = Policy.load(path)
    assert loaded.metadata == policy.metadata
    assert loaded.encoder.to_dict() == policy.encoder.to_dict()
    assert loaded.decoder.to_dict() == policy.decoder.to_dict()
    assert loaded.dense_macs == policy.dense_macs
    again = path.with_name("again.safetensors")
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    rng = np.random.default_rng(seed)
    mine, other = policy.session(), loaded.session()
    for _ in range(5):
        x: Any = rng.normal(size=1)
        if isinstance(policy.encoder.space, DictSpec):
            x = {"a/b": int(rng.integers(network.n_inputs - 1)), "observation": x}
        assert mine.act(x).tobytes() == other.act(x).tobytes()
        assert mine.outputs.tobytes() == other.outputs.tobytes()


@pytest.mark.parametrize(
    "decoder",
    [
        Argmax(6, 2),
        QuantileArgmax(2, 3),
        ClipBox(-1.0, [0.1, 0.2, 1 / 3], (2, 3), "float64"),
        MultiDiscreteArgmax((2, 4), (1, 0)),
        MultiBinary(6),
    ],
)
def test_every_decoder_is_stored(tmp_path: Path, decoder: Decoder) -> None:
    policy = Policy(Encoder(BoxSpec((2,))), network(2, 6), decoder)
    policy.save(tmp_path / "p")
    loaded = Policy.load(tmp_path / "p")
    x = np.array([0.3, -0.4])
    np.testing.assert_array_equal(loaded.predict(x)[0], policy.predict(x)[0])
    assert loaded.decoder.to_dict() == decoder.to_dict()


def test_the_file_is_one_safetensors_file_with_json(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path / "p.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
    with safe_open(tmp_path / "p.safetensors", framework="np") as file:
        metadata = file.metadata()
        names = set(file.keys())
    assert list(metadata) == ["eventsim"]
    header = json.loads(metadata["eventsim"])
    assert header["schema"] == "eventsim-policy/1"
    assert header["metadata"] == {"env_id": "Some-v0", "algorithm": "ppo"}
    assert {"data/encoder/normalization/mean", "projections/input->hidden1/weights"} <= names


def test_a_network_alone_is_no_policy(tmp_path: Path) -> None:
    files.save(tmp_path / "n.safetensors", network(2, 2))
    with pytest.raises(FileFormatError, match=r"n.safetensors.*'encoder'.*no policy"):
        Policy.load(tmp_path / "n.safetensors")


def test_damaged_parts_are_named(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    encoder, decoder = policy.encoder, policy.decoder
    good = {"encoder": encoder.to_dict(), "decoder": decoder.to_dict(), "metadata": {}}
    arrays = {f"encoder/{name}": array for name, array in encoder.arrays().items()}
    files.save(path, policy.network, good, arrays)
    Policy.load(path)
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"encoder": {}}, {}, "encoder"),
        ({"encoder": 3}, {}, "encoder"),
        ({"encoder": {**good["encoder"], "time_feature": {"max_steps": -1}}}, {}, "encoder"),
        ({}, {"encoder/normalization/var": np.array([-1.0, 1.0, 1.0])}, "encoder"),
        ({}, {"encoder/normalization/var": np.ones(2)}, "encoder"),
        ({"decoder": {"kind": "oracle"}}, {}, "decoder"),
        ({"decoder": {"kind": "argmax", "n": -4, "start": 0}}, {}, "decoder"),
        ({"decoder": {"kind": "argmax", "n": 5, "start": 0}}, {}, "decoder takes 5"),
        ({"metadata": []}, {}, "metadata"),
        ({}, {"encoder/normalization/charm": np.ones(1)}, "data/encoder/normalization/charm"),
        ({}, {"charm": np.ones(1)}, "data/charm"),
    ]
    for changed, other, word in cases:
        files.save(path, policy.network, {**good, **changed}, {**arrays, **other})
        with pytest.raises(FileFormatError) as caught:
            Policy.load(path)
        assert "p.safetensors" in str(caught.value)
        assert word in str(caught.value)


def test_metadata_must_be_plain(policy: Policy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="metadata"):
        policy.with_metadata(env=object()).save(tmp_path / "p")


# Against Stable-Baselines3 itself.


class Env(gym.Env[Any, Any]):
    """Any pair of spaces, with random observations."""

    def __init__(self, observation: spaces.Space[Any], action: spaces.Space[Any]) -> None:
        self.observation_space = observation
        self.action_space = action
        self.t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is no action")
        self.t += 1
        reward = float(np.sum(action))
        return self.observation_space.sample(), reward, self.t >= 7, False, {}


VECTOR = spaces.Box(-3.0, 3.0, (4,))
MIXED = spaces.Dict(
    {"z": spaces.Box(-1.0, 1.0, (2, 2)), "b": spaces.Discrete(3), "a": spaces.MultiBinary(2)}
)
BOX = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
CASES: dict[str, tuple[str, spaces.Space[Any], spaces.Space[Any], dict[str, Any]]] = {
    "ppo discrete": ("PPO", VECTOR, spaces.Discrete(3), {}),
    "ppo dict": ("PPO", MIXED, spaces.Discrete(3), {}),
    "ppo box": ("PPO", VECTOR, BOX, {}),
    "ppo squashed gsde": ("PPO", VECTOR, BOX, {"use_sde": True, "squash": True}),
    "a2c multi discrete": ("A2C", spaces.Discrete(5), spaces.MultiDiscrete([2, 3]), {}),
    "a2c multi binary": ("A2C", spaces.MultiDiscrete([2, 4]), spaces.MultiBinary(3), {}),
    "dqn": ("DQN", VECTOR, spaces.Discrete(4), {}),
    "sac": ("SAC", VECTOR, BOX, {}),
    "td3": ("TD3", spaces.Box(-1.0, 1.0, (2, 3)), BOX, {}),
    "qrdqn": ("QRDQN", VECTOR, spaces.Discrete(3), {}),
}


def linears(*modules: Any) -> list[Any]:
    import torch

    return [m for top in modules for m in top.modules() if isinstance(m, torch.nn.Linear)]


def built(name: str) -> tuple[Any, Policy]:
    """A freshly initialised agent, and the policy made from the same weights by hand."""
    algorithm, observation, action, options = CASES[name]
    sb3 = pytest.importorskip(
        "sb3_contrib" if algorithm == "QRDQN" else "stable_baselines3", reason=TRAIN
    )
    kind = "MultiInputPolicy" if isinstance(observation, spaces.Dict) else "MlpPolicy"
    kwargs: dict[str, Any] = {"net_arch": [16, 16]}
    options = dict(options)
    if options.pop("squash", False):
        kwargs["squash_output"] = True
    if algorithm in ("DQN", "SAC", "TD3", "QRDQN"):
        options["buffer_size"] = 10
    if algorithm == "QRDQN":
        kwargs["n_quantiles"] = 5
    model = getattr(sb3, algorithm)(
        kind, Env(observation, action), policy_kwargs=kwargs, seed=3, device="cpu", **options
    )
    policy = model.policy
    activation, squash, quantiles = "relu", algorithm in ("SAC", "TD3"), None
    if algorithm in ("PPO", "A2C"):
        layers = linears(policy.mlp_extractor.policy_net, policy.action_net)
        activation, squash = "tanh", bool(kwargs.get("squash_output"))
    elif algorithm == "SAC":
        layers = linears(policy.actor.latent_pi, policy.actor.mu)
    elif algorithm == "TD3":
        layers = linears(policy.actor.mu)
    elif algorithm == "QRDQN":
        layers, quantiles = linears(policy.quantile_net.quantile_net), 5
    else:
        layers = linears(policy.q_net.q_net)
    network = Network.from_arrays(
        [m.weight.detach().numpy() for m in layers],
        [m.bias.detach().numpy() for m in layers],
        activation,
    )
    decoder = decoder_for(action, squash=squash, n_quantiles=quantiles)
    return model, Policy(Encoder(observation), network, decoder)


def stacked(samples: list[Any]) -> Any:
    if isinstance(samples[0], dict):
        return {key: np.stack([s[key] for s in samples]) for key in samples[0]}
    return np.stack(samples)


@pytest.mark.parametrize("name", CASES)
def test_equals_predict_of_stable_baselines3(name: str) -> None:
    model, policy = built(name)
    space = model.observation_space
    space.seed(8)
    samples = [space.sample() for _ in range(25)]
    state, dense = None, policy.dense_session()
    for sample in samples:
        expected, _ = model.predict(sample, deterministic=True)
        action, state = policy.predict(sample, state)
        for mine in (action, dense.act(sample)):
            assert np.shape(mine) == np.shape(expected)
            if not isinstance(model.action_space, spaces.MultiBinary):  # SB3 gives float32
                assert np.asarray(mine).dtype == expected.dtype
            np.testing.assert_allclose(mine, expected, rtol=1e-4, atol=1e-5)
    expected, _ = model.predict(stacked(samples), deterministic=True)
    actions, _ = policy.predict(stacked(samples))
    assert actions.shape == expected.shape
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ppo dict", "ppo box", "dqn"])
def test_evaluate_policy_of_stable_baselines3_takes_it(name: str) -> None:
    model, policy = built(name)
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv

    _, observation, action, _ = CASES[name]
    results = []
    for agent in (model, policy):
        venv = DummyVecEnv(
            [lambda: Env(copy.deepcopy(observation), copy.deepcopy(action)) for _ in range(3)]
        )
        venv.seed(21)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ColdStartWarning)
            results.append(
                evaluate_policy(agent, venv, 30, return_episode_rewards=True, warn=False)
            )
    (expected, lengths), (mine, own) = results
    assert own == lengths == [7] * 30
    np.testing.assert_allclose(mine, expected, rtol=1e-4)


def test_an_episode_in_an_environment() -> None:
    policy = Policy(Encoder(BoxSpec((4,))), network(4, 2, 0.05), Argmax(2))
    env = gym.make("CartPole-v1")
    session = policy.session()
    for seed in range(2):
        observation, _ = env.reset(seed=seed)
        session.reset()
        done = False
        while not done:
            observation, _, terminated, truncated, _ = env.step(session.act(observation))
            done = terminated or truncated
    assert session.t == session.simulator.step_index > 1
    env.close()


def test_policies_need_no_gymnasium() -> None:
    code = """
import sys
import numpy as np
from eventsim import Network, Policy
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder
policy = Policy(Encoder(BoxSpec((1,))), Network.from_arrays([np.ones((2, 1))]), Argmax(2))
policy.dense_session().act([1.0])
sys.exit(any(m in sys.modules for m in ("gymnasium", "numba", "scipy", "torch", "safetensors")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
