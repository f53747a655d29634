"""How a policy's environment is wrapped, and that the file carries it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from eventsim.errors import InputError
from eventsim.models import wrappers
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder, Pixels
from eventsim.models.importers import load_policy
from eventsim.models.policy import Policy
from eventsim.models.rollout import check_spaces, make_for, step_seconds
from eventsim.stack import Stack


def player(n_actions: int = 6, shape: tuple[int, ...] = (4, 84, 84), **metadata: Any) -> Policy:
    """A policy that looks at pictures through one coarse convolution."""
    rng = np.random.default_rng(0)
    stack = Stack(shape, scale=1 / 255).convolution(
        rng.normal(size=(2, shape[0], 21, 21)), None, 21
    )
    network = stack.activation("relu").flatten().linear(rng.normal(size=(n_actions, 32))).network()
    encoder = Encoder(BoxSpec(shape, "uint8", True), pixels=Pixels())
    return Policy(encoder, network, Argmax(n_actions), metadata)


def test_a_policy_that_says_nothing_gets_the_usual_recipe_on_atari_alone() -> None:
    arguments, wrapped = wrappers.recipe(player(), "ALE/Pong-v5")
    assert (arguments, wrapped) == wrappers.atari()
    assert wrappers.recipe(player(18), "ALE/Pong-v5")[0]["full_action_space"]
    assert wrappers.recipe(player(), "CartPole-v1") == ({}, [])
    assert wrappers.recipe(player(shape=(1, 84, 84)), "ALE/Pong-v5")[1][-1]["arguments"] == {
        "stack_size": 1,
        "padding_type": "reset",
    }


def test_the_file_carries_the_recipe_to_other_games_but_not_elsewhere(tmp_path: Path) -> None:
    arguments, wrapped = wrappers.atari(sticky=0.0, frame_skip=3, fire_on_reset=True)
    policy = player(env_id="ALE/Pong-v5", env_kwargs=arguments, env_wrappers=wrapped)
    policy.save(tmp_path / "pong.safetensors")
    for env in ("ALE/Pong-v5", "ALE/Breakout-v5"):
        loaded = load_policy(tmp_path / "pong.safetensors", env=env)
        assert wrappers.recipe(loaded, env) == (arguments, wrapped)
    other = load_policy(tmp_path / "pong.safetensors", env="CartPole-v1")
    assert wrappers.recipe(other, "CartPole-v1") == ({}, [])


def test_wrappers_of_gymnasium_by_name() -> None:
    env = wrappers.wrap(
        gym.make("CartPole-v1"),
        [
            {"name": "TimeLimit", "arguments": {"max_episode_steps": 3}},
            {"name": "FrameStackObservation", "arguments": {"stack_size": 2}},
        ],
    )
    observation, _ = env.reset(seed=0)
    assert observation.shape == (2, 4)
    assert [env.step(0)[3] for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "os.system", "arguments": {}}, "this version knows"),
        ({"name": "TimeLimit", "arguments": {"steps": 3}}, "does not fit"),
        ({"name": "FrameStackObservation", "arguments": {"stack_size": 0}}, "does not fit"),
        ({"name": "FireOnReset"}, "FIRE"),
        ({"name": "TimeLimit", "code": 1}, "name and arguments"),
        ("TimeLimit", "name and arguments"),
    ],
)
def test_names_what_is_no_wrapper(entry: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrappers.wrap(gym.make("CartPole-v1"), [entry])


def test_pictures_fit_with_channels_first_or_last() -> None:
    policy = player(2, (3, 84, 84))
    for shape, fits in (((3, 84, 84), True), ((84, 84, 3), True), ((84, 3, 84), False)):
        env = gym.make("CartPole-v1")
        env.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        if fits:
            check_spaces(policy, env)
        else:
            with pytest.raises(InputError, match="observations"):
                check_spaces(policy, env)


def test_a_fresh_atari_game() -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    pytest.importorskip("cv2", reason="needs the extra 'atari'")
    policy = player(4)
    env = make_for(policy, "ALE/Breakout-v5")
    check_spaces(policy, env)
    observation, _ = env.reset(seed=1)
    assert observation.shape == (4, 84, 84)
    assert observation.dtype == np.uint8
    assert step_seconds(env) == (4 / 60, "frame_skip")
    inputs = policy.encoder.encode(observation)
    assert inputs.dtype == np.uint8
    np.testing.assert_array_equal(inputs.reshape(84, 84, 4), np.moveaxis(observation, 0, -1))
    env.close()


def test_the_button_is_pressed_after_a_reset() -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    pytest.importorskip("cv2", reason="needs the extra 'atari'")
    arguments, wrapped = wrappers.atari(sticky=0.0, noop_max=0, fire_on_reset=True)
    policy = player(4, env_id="ALE/Breakout-v5", env_kwargs=arguments, env_wrappers=wrapped)
    env = make_for(policy, "ALE/Breakout-v5")
    env.reset(seed=0)
    first = env.unwrapped.ale.getEpisodeFrameNumber()
    assert first == 4
    env.close()
