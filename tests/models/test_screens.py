"""Atari's games side by side: they show what gymnasium's wrappers show, and no others do."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from eventsim.models import wrappers
from eventsim.models.games import Games
from eventsim.models.rollout import make_for
from eventsim.models.screens import Screens
from eventsim.models.student import Head
from tests.models.test_reinforce import STACK, Reach
from tests.models.test_reinforce import policy as reaching
from tests.models.test_wrappers import player

BREAKOUT, PONG = "ALE/Breakout-v5", "ALE/Pong-v5"


@pytest.fixture(autouse=True)
def games() -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    pytest.importorskip("cv2", reason="needs the extra 'atari'")


def env_of(env_id: str, **options: Any) -> gym.Env[Any, Any]:
    """A game of four actions or six, wrapped as `wrappers.atari` says."""
    arguments, wrapped = wrappers.atari(**options)
    policy = player(4, env_id=env_id, env_kwargs=arguments, env_wrappers=wrapped)
    return make_for(policy, env_id)


@pytest.mark.parametrize("padding", ["reset", "zero"])
@pytest.mark.parametrize(("env_id", "skip"), [(BREAKOUT, 4), (PONG, 3)])
def test_frames_are_those_of_gymnasium_however_they_are_padded(
    env_id: str, skip: int, padding: str
) -> None:
    # Idle actions and sticky ones are drawn by other generators there, so there are none here.
    env = env_of(env_id, noop_max=0, sticky=0.0, padding=padding, frame_skip=skip)
    found = Screens.arguments_of(env, 1000)
    assert found is not None
    screens = Screens(found[0], 2, found[1])
    rng = np.random.default_rng(0)
    theirs, mine = env.reset(seed=0)[0], screens.reset(0)
    for _ in range(60):
        np.testing.assert_array_equal(mine, [theirs, theirs])
        action = int(rng.integers(4))
        theirs, reward, *_ = env.step(action)
        mine, rewards, over, cut = screens.step(np.full(2, action))
        np.testing.assert_array_equal(rewards, [reward, reward])
        assert not (over | cut).any()
    screens.close()
    env.close()


def test_an_episode_is_cut_and_begun_anew_and_padded_again() -> None:
    env = env_of(PONG, noop_max=0, sticky=0.0)
    found = Screens.arguments_of(env, 5)
    assert found is not None
    screens = Screens(found[0], 2, found[1])
    first = screens.reset(3)
    for number in (1, 2):
        for k in range(1, 6):
            shown, _, over, cut = screens.step(np.zeros(2, np.int64))
            assert not over.any()
            assert cut.all() == (k == 5), number
        np.testing.assert_array_equal(shown, first)  # a game without chance begins as before
        assert (screens.finals[:, -1] != first[:, -1]).any()  # that is after the end, this before
    screens.close()
    # A game's own end of time comes first where it is sooner.
    assert env.spec is not None
    env.spec.kwargs["max_num_frames_per_episode"] = 12
    found = Screens.arguments_of(env, 5)
    assert found is not None
    assert found[0]["max_num_frames_per_episode"] == 12
    for endless in (None, 0):
        env.spec.kwargs["max_num_frames_per_episode"] = endless
        found = Screens.arguments_of(env, 5)
        assert found is not None
        assert found[0]["max_num_frames_per_episode"] == 20
    env.close()


@pytest.mark.parametrize(
    "options",
    [{"frame_skip": 1}, {"fire_on_reset": True}],
)
def test_what_is_wrapped_otherwise_is_not_played_so(options: dict[str, Any]) -> None:
    with env_of(BREAKOUT, **options) as env:
        assert Screens.arguments_of(env, 5) is None


def test_other_environments_are_not_played_so() -> None:
    for env in (Reach(), gym.make("CartPole-v1"), gym.make(BREAKOUT)):
        assert Screens.arguments_of(env, 5) is None
    arguments, wrapped = wrappers.atari()
    timed = {**arguments, "max_episode_steps": 10}  # a limit that it does not know
    policy = player(4, env_id=PONG, env_kwargs=timed, env_wrappers=wrapped)
    with make_for(policy, PONG) as env:
        assert Screens.arguments_of(env, 5) is None
    wrapped[0]["arguments"]["terminal_on_life_loss"] = True
    policy = player(4, env_id=PONG, env_kwargs=arguments, env_wrappers=wrapped)
    with make_for(policy, PONG) as env:
        assert Screens.arguments_of(env, 5) is None


def test_games_are_played_by_it_where_it_can() -> None:
    arguments, wrapped = wrappers.atari(noop_max=5)
    policy = player(4, env_id=BREAKOUT, env_kwargs=arguments, env_wrappers=wrapped)
    made: list[Any] = []

    def make() -> Any:
        made.append(make_for(policy, BREAKOUT))
        return made[-1]

    games, again = (Games(policy, Head.of(policy.decoder), make, 3, 7, longest=6) for _ in "ab")
    assert len(made) == 2  # one each, to be looked at
    assert len(games) == 3
    assert games.pictures.shape == (3, 4 * 84 * 84)
    assert games.pictures.max() > 0
    rng = np.random.default_rng(0)
    total, ended, cut = np.zeros(3), 0, 0
    for _ in range(20):
        np.testing.assert_array_equal(games.pictures, again.pictures)  # by the same seeds
        actions = rng.integers(4, size=3)
        rewards, ends = games.step(actions)
        again.step(actions)
        assert rewards.dtype == np.float32
        total, ended, cut = total + rewards, ended + int(ends.sum()), cut + len(games.cut)
        for k, picture in games.cut:
            assert ends[k]
            assert not np.array_equal(picture, games.pictures[k])
    # Idle steps count among those of an episode.
    assert ended == cut == len(games.finished) >= 9
    assert sum(games.finished) <= total.sum()
    games.close()
    again.close()
    one = Games(reaching(), Head.of(reaching().decoder), Reach, 2, 0)
    assert one.pictures.shape == (2, STACK * 36)
    one.close()
