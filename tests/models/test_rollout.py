"""Environments by name, spaces that must fit, and the episode loop."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from eventsim.errors import (
    InputError,
    MissingDependencyError,
    SimulationError,
    UnknownNameError,
    UnsupportedError,
)
from eventsim.models import rollout
from eventsim.models.decoders import (
    Argmax,
    ClipBox,
    Decoder,
    MultiBinary,
    MultiDiscreteArgmax,
    QuantileArgmax,
    SquashBox,
)
from eventsim.models.encoders import Encoder, TimeFeature
from eventsim.models.policy import Policy
from eventsim.models.spaces import BoxSpec, DictSpec, DiscreteSpec, SpaceSpec
from eventsim.network import Network
from eventsim.trace import CounterRecorder
from tests.tiny import Scripted, cartpole_policy


def policy_for(space: SpaceSpec, decoder: Decoder, time: TimeFeature | None = None) -> Policy:
    encoder = Encoder(space, None, time)
    return Policy(encoder, Network.from_arrays([np.zeros((decoder.size, encoder.size))]), decoder)


class Spaces(gym.Env[Any, Any]):
    """An environment of which only the spaces matter."""

    def __init__(self, observation: Any = None, action: Any = None) -> None:
        self.observation_space = observation or gym.spaces.Box(-1.0, 1.0, (4,))
        self.action_space = action or gym.spaces.Discrete(2)


def box(*shape: int) -> gym.spaces.Box:
    return gym.spaces.Box(-1.0, 1.0, shape)


def test_environments_of_gymnasium_and_of_a_module() -> None:
    env = rollout.make_env("CartPole-v1", max_episode_steps=7)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 7
    env.close()
    assert isinstance(rollout.make_env("tests.tiny:Tiny-v0", length=3).unwrapped, Scripted)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CartPole-v9", "did you mean CartPole-v1 or CartPole-v0"),
        ("cartpol-v1", "did you mean CartPole-v1"),
        ("Pendulm-v1", "did you mean.*Pendulum-v1"),
        ("LunarLander-v2", "did you mean LunarLander-v3"),
        ("HalfCheetah-v3", r"moved to.*did you mean HalfCheetah-v5"),
        ("Zzzzzzzz-v0", "give a name such as CartPole-v1"),
        ("no id at all", "there is no environment"),
        ("", "there is no environment"),
        ("Nowhere/CartPole-v1", "there is no environment"),
        ("no_such_module_here:CartPole-v1", "no module 'no_such_module_here'"),
        ("tests.no_such_module_here:CartPole-v1", "no module 'tests.no_such_module_here'"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning")
def test_unknown_environments(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=hint):
        rollout.make_env(name)


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [
        ("LunarLander-v3", "Box2D", "box2d"),
        ("BipedalWalker-v3", "Box2D", "box2d"),
        ("HalfCheetah-v5", "mujoco", "mujoco"),
    ],
)
def test_an_extra_that_is_not_installed_is_named(
    name: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in list(sys.modules):
        if module.startswith(f"gymnasium.envs.{extra}"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'eventsim\[{extra}\]'"):
        rollout.make_env(name)


def test_the_atari_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # As if ale-py were not installed; where it is, gymnasium knows its games from the beginning.
    for name in list(gym.registry):
        if name.startswith("ALE/"):
            monkeypatch.delitem(gym.registry, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'eventsim\[atari\]'"):
        rollout.make_env("ALE/Pong-v5")


def test_another_library_that_is_not_installed() -> None:
    def absent(**kwargs: Any) -> None:
        raise ImportError("No module named 'jax'", name="jax")

    gym.register("NeedsJax-v0", entry_point=absent)
    try:
        with pytest.raises(MissingDependencyError, match=r"NeedsJax-v0.*'jax'"):
            rollout.make_env("NeedsJax-v0")
    finally:
        del gym.registry["NeedsJax-v0"]


class Timed(Spaces):
    def __init__(self, metadata: dict[str, Any], **attributes: Any) -> None:
        super().__init__()
        self.metadata = metadata
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (Timed({"render_fps": 30}, dt=0.05, tau=0.02), (0.05, "dt")),
        (Timed({"render_fps": 30}, tau=np.float32(0.25)), (0.25, "tau")),
        (Timed({"render_fps": 50}), (0.02, "render_fps")),
        (Timed({"render_fps": 50}, dt="fast", tau=True), (0.02, "render_fps")),
        (Timed({"render_fps": 0}, dt=-1.0, tau=float("nan")), (None, "unknown")),
        (Timed({}), (None, "unknown")),
    ],
)
def test_the_duration_of_a_step(env: Any, expected: tuple[float | None, str]) -> None:
    assert rollout.step_seconds(env) == expected


@pytest.mark.parametrize(
    ("policy", "env"),
    [
        (policy_for(BoxSpec((4,)), Argmax(2)), Spaces()),
        (policy_for(BoxSpec((4,), "float64"), Argmax(2)), Spaces()),
        (policy_for(BoxSpec((4,)), QuantileArgmax(2, 5)), Spaces()),
        (policy_for(BoxSpec((4,)), Argmax(2), TimeFeature(100)), Spaces()),
        (policy_for(DiscreteSpec(5, 1), Argmax(2)), Spaces(gym.spaces.Discrete(5, start=1))),
        (
            policy_for(DictSpec((("b", BoxSpec((2,))), ("a", DiscreteSpec(3)))), Argmax(2)),
            Spaces(gym.spaces.Dict({"a": gym.spaces.Discrete(3), "b": box(2)})),
        ),
        (policy_for(BoxSpec((4,)), ClipBox(-1.0, 1.0, (3,))), Spaces(None, box(3))),
        (policy_for(BoxSpec((4,)), SquashBox(-1.0, 1.0, (3,), "float64")), Spaces(None, box(3))),
        (
            policy_for(BoxSpec((4,)), MultiDiscreteArgmax((2, 3))),
            Spaces(None, gym.spaces.MultiDiscrete([2, 3])),
        ),
        (policy_for(BoxSpec((4,)), MultiBinary(3)), Spaces(None, gym.spaces.MultiBinary(3))),
    ],
)
def test_spaces_that_fit(policy: Policy, env: Any) -> None:
    rollout.check_spaces(policy, env)


@pytest.mark.parametrize(
    ("policy", "env", "text"),
    [
        (
            policy_for(BoxSpec((4,)), Argmax(2)),
            Spaces(box(3)),
            r"observations of shape \(4,\), the environment gives shape \(3,\).*time feature",
        ),
        (
            policy_for(BoxSpec((4,)), Argmax(2)),
            Spaces(box(2, 2)),
            r"shape \(4,\), the environment gives shape \(2, 2\)",
        ),
        (
            policy_for(DiscreteSpec(4), Argmax(2)),
            Spaces(gym.spaces.Discrete(5)),
            r"discrete \(n 4, start 0\), the environment gives discrete \(n 5",
        ),
        (
            policy_for(BoxSpec((4,)), Argmax(2)),
            Spaces(gym.spaces.Dict({"a": box(4)})),
            r"gives \{a: shape \(4,\)\}",
        ),
        (policy_for(BoxSpec((4,)), Argmax(3)), Spaces(), r"argmax: n 3.*Discrete\(2\)"),
        (policy_for(BoxSpec((4,)), Argmax(2, 1)), Spaces(), r"start 1.*Discrete\(2\)"),
        (policy_for(BoxSpec((4,)), ClipBox(-1.0, 1.0, (2,))), Spaces(), r"clip_box"),
        (
            policy_for(BoxSpec((4,)), SquashBox(-2.0, 2.0, (2,))),
            Spaces(None, box(2)),
            r"low \[-2.0, -2.0\]",
        ),
        (
            policy_for(BoxSpec((4,)), MultiBinary(2)),
            Spaces(None, gym.spaces.MultiBinary(3)),
            "multi_binary: n 2",
        ),
    ],
)
def test_spaces_that_do_not_fit(policy: Policy, env: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        rollout.check_spaces(policy, env)


def test_spaces_that_no_policy_takes() -> None:
    policy = policy_for(BoxSpec((4,)), Argmax(2))
    with pytest.raises(UnsupportedError, match="space"):
        rollout.check_spaces(policy, Spaces(gym.spaces.Text(4)))
    with pytest.raises(UnsupportedError, match="actions"):
        rollout.check_spaces(policy, Spaces(None, gym.spaces.Text(4)))


def test_an_episode_records_inputs_and_rewards() -> None:
    policy = cartpole_policy(0.0)
    seen: list[float] = []
    episode = rollout.episode(policy.session(), Scripted(9), 4, record=True, on_step=seen.append)
    assert episode.seed == 4
    assert episode.steps == 9
    assert episode.rewards.tolist() == seen
    assert episode.total == pytest.approx(sum(seen))
    assert episode.inputs is not None
    env = Scripted(9)
    observation, _ = env.reset(seed=4)
    for t in range(9):
        np.testing.assert_array_equal(episode.inputs[t], observation)
        observation, *_ = env.step(0)


@pytest.mark.parametrize("seed", range(3))
def test_event_driven_and_dense_sessions_play_alike_at_threshold_zero(seed: int) -> None:
    policy = cartpole_policy(0.0)
    env = rollout.make_env("CartPole-v1")
    event = rollout.episode(policy.session(), env, seed, record=True)
    dense = rollout.episode(policy.dense_session(), env, seed, record=True)
    env.close()
    np.testing.assert_array_equal(event.inputs, dense.inputs)
    assert event.total == dense.total


def test_every_episode_starts_from_a_reset() -> None:
    recorder = CounterRecorder()
    session = cartpole_policy(0.3).session(hooks=[recorder])
    totals = [rollout.episode(session, Scripted(5), 1).total for _ in range(2)]
    assert totals[0] == totals[1]
    np.testing.assert_array_equal(recorder.table[:5], recorder.table[5:])


def test_random_actions_follow_the_seed() -> None:
    env = Scripted(30)
    actor = rollout.RandomActor(env.action_space)
    totals = []
    for seed in (3, 3, 4):
        actor.seed(seed)
        totals.append(rollout.episode(actor, env, seed).rewards.tolist())
    assert totals[0] == totals[1] != totals[2]


def test_errors_say_where_in_the_episode() -> None:
    with pytest.raises(InputError, match=r"finite.*\(seed 9, step 4\)"):
        rollout.episode(cartpole_policy().session(), Scripted(nan_at=3), 9)
    with pytest.raises(InputError, match=r"reward nan.*\(seed 9, step 3\)"):
        rollout.episode(cartpole_policy().session(), Scripted(reward_nan_at=3), 9)
    network = Network.from_arrays([np.full((2, 4), 1e300), np.full((2, 2), 1e300)])
    policy = cartpole_policy().with_network(network)
    with pytest.raises(SimulationError, match=r"finite.*\(seed 0, step 0\)"):
        rollout.episode(policy.session(), Scripted(), 0)


def test_mujoco_says_nothing_of_the_age_of_gymnasiums_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mujoco = pytest.importorskip("mujoco", reason="needs the extra 'mujoco'")
    monkeypatch.chdir(tmp_path)
    heard: list[str] = []
    mujoco.set_mju_user_warning(heard.append)
    try:
        rollout.make_env("HalfCheetah-v5").close()
        assert mujoco.get_mju_user_warning() == heard.append
    finally:
        mujoco.set_mju_user_warning(None)
    rollout.make_env("HalfCheetah-v5").close()
    assert heard == []
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_other_warnings_of_mujoco_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    mujoco = pytest.importorskip("mujoco", reason="needs the extra 'mujoco'")
    make = gym.make

    def warned(*arguments: Any, **options: Any) -> Any:
        mujoco.get_mju_user_warning()("the model is too heavy")
        return make(*arguments, **options)

    monkeypatch.setattr(gym, "make", warned)
    with pytest.warns(RuntimeWarning, match="too heavy"):
        rollout.make_env("InvertedPendulum-v5").close()
