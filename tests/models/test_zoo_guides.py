"""Players that read memory, and a network that learns from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventsim.errors import InputError
from eventsim.models.zoo import atari, imitation
from eventsim.models.zoo.guides import (
    GUIDES,
    Breakout,
    Freeway,
    Pong,
    SpaceInvaders,
    _mirrored,
    guide,
)
from eventsim.models.zoo.ppo import Learner, Settings

SMALL = Settings(n_envs=2, horizon=4, minibatch=4)


def memory(**places: int) -> np.ndarray:
    """Memory with some bytes set: ``b49=188`` sets byte 49."""
    result = np.zeros(128, np.uint8)
    for name, value in places.items():
        result[int(name[1:])] = value
    return result


@given(st.integers(0, 20), st.integers(-30, 30), st.integers(0, 60))
def test_a_ball_between_two_walls(start: int, speed: int, steps: int) -> None:
    place, unit = start, 1
    for _ in range(abs(speed) * steps):
        ahead = unit if speed > 0 else -unit
        if not 0 <= place + ahead <= 20:
            unit = -unit
            ahead = -ahead
        place += ahead
    assert _mirrored(start + speed * steps, 0, 20) == place


def test_pong_goes_to_where_the_ball_will_come() -> None:
    still, down, up = Pong.ACTIONS
    player = Pong()
    player.act(memory(b49=92, b54=92, b51=60))
    # From (100, 100) by (8, 8) a step it is at x = 188 in eleven steps, far below the paddle.
    assert player.act(memory(b49=100, b54=100, b51=60)) == down
    # Thrown back by the ground at 207 it comes up to about 136 by then: above the paddle.
    player = Pong()
    player.act(memory(b49=20, b54=104, b51=190))
    assert player.act(memory(b49=28, b54=112, b51=190)) == up
    # It is there already, but for less than the way of one action.
    player = Pong()
    player.act(memory(b49=100, b54=100, b51=95))
    assert player.act(memory(b49=108, b54=100, b51=95)) == still


@pytest.mark.parametrize(("height", "steep"), [(90, 1), (150, -1)])
def test_pong_throws_the_ball_past_the_opponent(height: int, steep: int) -> None:
    signs = dict(zip(Pong.ACTIONS, (0, 1, -1), strict=True))
    thrown = []
    for start in range(60, 180, 7):
        player, paddle, one, two = Pong(), float(start), 0, 0
        for x in range(108, 188, 8):
            chosen = signs[player.act(memory(b49=x, b54=height, b51=round(paddle)))]
            paddle += 10.0 * chosen + 10.0 * one + 2.6 * two
            one, two = chosen, one
        offset = height - paddle
        assert Pong.MEETS[0] - 0.5 <= offset <= Pong.MEETS[2] + 0.5  # bytes are whole
        thrown.append(steep * (offset - Pong.MEETS[1]) >= Pong.STEEP - 1.0)
    # Not every place can be reached by whole actions.
    assert sum(thrown) > 0.6 * len(thrown)


def test_a_paddle_knows_what_was_done_from_how_it_moved() -> None:
    player = Pong()
    place = 100.0
    done = [1, 1, 0, -1, -1, 1, 0, 0]
    one, two = 0, 0
    player.act(memory(b51=round(place)))
    for action in done:
        place += 10.0 * action + 10.0 * one + 2.6 * two
        one, two = action, one
        player.act(memory(b51=round(place)))
        assert player._last == (one, two)


def test_breakout_serves_and_follows() -> None:
    player = Breakout()
    assert player.act(memory(b72=100)) == Breakout.ACTIONS[3]
    # From 138 by 8 a step it comes down in 18 steps, thrown back by the wall at 201, at 116.
    player.act(memory(b99=130, b101=100, b72=80))
    assert player.act(memory(b99=138, b101=104, b72=80)) == Breakout.ACTIONS[1]
    assert Breakout().act(memory(b99=60, b101=100, b72=100)) == Breakout.ACTIONS[2]


def test_freeway_waits_for_a_car_and_else_goes() -> None:
    cars = {f"b{108 + k}": 100 if k < 5 else 0 for k in range(10)}
    assert Freeway().act(memory(b14=6, **cars)) == 1
    # A slow car stands in the first lane, right in the way.
    assert Freeway().act(memory(b14=6, **{**cars, "b108": 46})) == 0


def invaders(**places: int) -> np.ndarray:
    """All 36 of them at the left end, on their way to the right; no bomb, no shot."""
    start = {"b17": 36, "b24": 82, "b26": 23, "b28": 60, "b81": 246, "b82": 246, "b85": 246}
    return memory(**start | dict.fromkeys((f"b{k}" for k in range(18, 24)), 63) | places)


def test_space_invaders_gets_out_of_the_way_of_a_bomb() -> None:
    player = SpaceInvaders()
    # It comes down at the left end of the player, and then at the right one.
    worths = player.worths(invaders(b81=84, b83=61))
    assert worths[[2, 4]].max() > worths[[0, 1, 3, 5]].max() + 0.05
    worths = player.worths(invaders(b82=84, b84=67))
    assert worths[[3, 5]].max() > worths[[0, 1, 2, 4]].max() + 0.05
    # One that comes down beside it is nothing to run from.
    assert player.act(invaders(b28=55, b81=84, b83=46)) == 1
    # The bomb that is lower is told first, whichever byte it is.
    one, other = invaders(b81=80, b83=61, b82=40, b84=90), invaders(b82=80, b84=61, b81=40, b83=90)
    player.worths(one)
    seen = player.seen[:8]
    player.worths(other)
    assert player.seen[:8] == pytest.approx(seen, nan_ok=True)
    assert seen[4:] * 128 + 128 == pytest.approx([61, 90, 80, 40])


def test_space_invaders_fires_once_and_only_where_one_will_be() -> None:
    fires = (1, 4, 5)
    # The first column's middle is at 25.5 + 0.122 * 5.9, a shot from 40 at 43: between columns.
    assert SpaceInvaders().act(invaders(b28=47)) not in fires
    assert SpaceInvaders().act(invaders(b28=55)) in fires
    worths = SpaceInvaders().worths(invaders(b28=55, b85=60, b87=60))
    assert worths[list(fires)] == pytest.approx(worths[[0, 2, 3]])


@pytest.mark.parametrize("start", range(35, 117, 9))
def test_space_invaders_hits_the_last_one(start: int) -> None:
    only = dict.fromkeys((f"b{k}" for k in range(19, 24)), 0) | {"b18": 1, "b17": 1, "b16": 10}
    player, place, at, speed = SpaceInvaders(), start, 23.0, 4.94
    shot: list[float] = []
    for _ in range(200):
        way = 82 if speed > 0 else 80
        action = player.act(invaders(**only | {"b24": way, "b26": round(at), "b28": place}))
        if action in (1, 4, 5):
            # Its lower end is at 150: a shot from 173 is there in 3.4 steps.
            shot = [place + 3.0, _mirrored(at + 3.4 * speed, 23.0, 130.0) + 2.5]
            break
        place += {2: 2, 3: -2}.get(action, 0)
        at += speed
        if not 23.0 <= at <= 130.0:
            at, speed = _mirrored(at, 23.0, 130.0), -speed
    assert shot
    assert abs(shot[0] - shot[1]) <= 4.0


def test_what_a_player_saw() -> None:
    player = Breakout()
    assert np.isnan(player.seen).all()
    player.worths(memory(b99=64, b101=0, b72=128))
    # Where the ball was last says nothing.
    assert player.seen == pytest.approx([np.nan, np.nan, 0.0, np.nan, np.nan, 0.0], nan_ok=True)
    player.worths(memory(b99=64, b101=88, b72=128))
    player.worths(memory(b99=80, b101=96, b72=28))
    assert player.seen == pytest.approx([-0.375, -0.25, -100 / 128, 0.5, 0.25, -1.0], nan_ok=True)


def test_a_game_without_a_player() -> None:
    with pytest.raises(
        InputError, match=r"skiing.*has no player.*breakout, freeway, space_invaders"
    ):
        guide("skiing")


def test_imitating_makes_what_is_right_likelier_and_leaves_an_unknown_value() -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    learner = Learner(3, 0, Settings(bfloat16=False))
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (32, 4, 84, 84), np.uint8)
    actions = np.arange(32) % 3
    right = np.eye(3, dtype=np.float32)[actions]
    critic = learner.critic.weight.detach().clone()
    unknown = np.full(32, np.nan, np.float32)
    places = np.full((32, 2), np.nan, np.float32)
    places[:16, 0] = np.where(actions[:16] == 1, 0.5, -0.5)
    first = learner.imitate(pictures, right, unknown, places, 1e-3)
    for _ in range(30):
        last = learner.imitate(pictures, right, unknown, places, 1e-3)
    assert first[2] == pytest.approx(0.25)  # of a head that says 0
    assert last[2] < 0.1
    assert last[0] < 0.5 * first[0]
    assert last[1] > 0.9
    assert (learner.likeliest(pictures) == actions).mean() > 0.9
    assert bool((critic == learner.critic.weight).all())
    wanted = np.where(actions == 0, 2.0, unknown).astype(np.float32)
    for _ in range(60):
        learner.imitate(pictures, right, wanted, places, 1e-3)
    assert np.abs(learner.values(pictures)[actions == 0] - 2.0).mean() < 0.5


def test_steps_at_which_nothing_depends_on_the_action_weigh_little() -> None:
    worths = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0]], np.float32)
    right, weights = imitation.targets(worths, (3, 1), 4)
    assert right.sum(1) == pytest.approx([1.0, 1.0, 1.0])
    assert right[0].tolist() == [0.0, 0.5, 0.0, 0.5]
    assert right[1, 1] > 0.999
    assert right[2, 3] > 0.999
    least, most = imitation.LEAST_WEIGHT, imitation.MOST_WEIGHT
    assert weights.tolist() == pytest.approx([least, least + 1.0, least + most])


class Ticks:
    """An environment of one reward every third step, whose episodes take 10 steps."""

    unwrapped: Any

    def __init__(self) -> None:
        self.unwrapped = self
        self.ale, self.time, self.closed = self, 0, False

    def getRAM(self) -> np.ndarray:  # noqa: N802 - ale-py's name
        return memory()

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self.time = 0
        return np.zeros((4, 84, 84), np.uint8), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.time += 1
        reward = 5.0 if self.time % 3 == 0 else 0.0
        ages = np.maximum(self.time - np.arange(3, -1, -1), 0).astype(np.uint8)
        frame = np.broadcast_to(ages[:, None, None], (4, 84, 84))
        return frame, reward, self.time == 10, False, {}

    def close(self) -> None:
        self.closed = True


def test_what_a_round_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imitation, "N_ENVS", 2)
    monkeypatch.setattr(imitation, "STEPS", 24)
    monkeypatch.setattr(imitation, "UNKNOWN", 3)
    environments: list[Ticks] = []

    def make() -> Ticks:
        environments.append(Ticks())
        return environments[-1]

    shown = imitation.Demonstrations("breakout", make, 0, 0.5)
    shown.round(None)
    shown.round(lambda frames: np.zeros(len(frames), np.int64))
    worths, to_come, seen = shown.arrays()
    assert len(shown) == len(worths) == 2 * 2 * 24
    pictures = shown.pictures(np.arange(96))
    # What is asked for in another order is the same.
    order = np.random.default_rng(0).permutation(96)
    assert (shown.pictures(order) == pictures[order]).all()
    assert seen.shape == (96, 6)
    assert np.isnan(seen).all()  # memory of zeros has nothing in it
    assert (worths.argmax(1) == 3).all()  # memory without a ball
    assert np.isnan(to_come[:48]).all()  # the player's own play says nothing of the network's
    times = pictures[48::2, 3, 0, 0]  # of the first environment, from its 25th step on
    # All four pictures of an episode's first step are alike.
    older = np.maximum(times[:, None].astype(int) - np.arange(3, -1, -1), 0)
    assert (pictures[48::2, :, 0, 0] == older).all()
    # Rewards, clipped to 1, come with steps 3, 6 and 9 of an episode.
    by_hand = [sum(0.5 ** (k - time - 1) for k in (3, 6, 9) if k > time) for time in times.tolist()]
    known = ~np.isnan(to_come[48::2])
    assert known[:21].all()
    # The last steps of an episode that goes on are not.
    assert not known[21:].any()
    # Rewards behind the round are not known, and hardly count.
    assert to_come[48::2][known] == pytest.approx(np.array(by_hand)[known], abs=0.5**3)
    assert shown.returns == [15.0] * 4
    shown.close()
    assert all(one.closed for one in environments)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    pytest.importorskip("cv2", reason="needs the extra 'atari'")
    pytest.importorskip("torch", reason="needs the extra 'train'")
    monkeypatch.setattr(imitation, "N_ENVS", 2)
    monkeypatch.setattr(imitation, "STEPS", 8)
    monkeypatch.setattr(imitation, "MINIBATCH", 8)
    monkeypatch.setattr(imitation, "DRAWS", 16)
    monkeypatch.setattr(imitation, "LAST_DRAWS", 40)
    monkeypatch.setattr(imitation, "DRAWN", 16)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_training_that_begins_by_imitation(tmp_path: Path) -> None:
    lines: list[str] = []
    training = atari.train("pong", 1, tmp_path, 8, None, SMALL, lines.append, imitate=2)
    assert lines[0].startswith("pong: 16 steps shown, return -, agrees in ")
    assert [one["steps"] for one in training.record["imitation"]] == [16, 32]
    assert training.record["algorithm"] == "PPO after imitation"
    assert training.record["steps"] == 8
    # The same command goes on, and does not begin again.
    again = atari.train("pong", 1, tmp_path, 16, None, SMALL, lines.append, imitate=2)
    assert again.record["imitation"] == training.record["imitation"]
    with pytest.raises(InputError, match="imitate in another folder"):
        again.imitate(1, print)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "least"), [("freeway", 25.0), ("breakout", 100.0), ("space_invaders", 600.0)]
)
def test_a_player_plays_well(game: str, least: float) -> None:
    ale = pytest.importorskip("ale_py", reason="needs the extra 'atari'")
    import gymnasium as gym

    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
    make: Callable[..., Any] = gym.make
    with make(
        atari.env_id(game), obs_type="ram", frameskip=4, repeat_action_probability=0.25
    ) as env:
        bytes_, _ = env.reset(seed=0)
        player, total, over = GUIDES[game](), 0.0, False
        while not over:
            bytes_, reward, ended, cut, _ = env.step(player.act(bytes_))
            total += float(reward)
            over = ended or cut
    assert total >= least


def test_counting_brightness_from_a_level_changes_nothing_but_how_is_learned() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    learner = Learner(3, 0, Settings(bfloat16=False))
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), np.uint8)
    values = learner.values(pictures)
    bias = learner.trunk[0].bias.detach().clone()
    learner.centre(0.4)
    assert not torch.equal(bias, learner.trunk[0].bias)
    assert learner.values(pictures) == pytest.approx(values, abs=1e-5)
    other = Learner(3, 1, Settings(bfloat16=False))
    other.load(learner.state())
    assert other.values(pictures) == pytest.approx(learner.values(pictures), abs=1e-6)
    with torch.inference_mode():
        logits = other.module(torch.from_numpy(pictures).float() / 255.0)
        assert torch.allclose(logits, learner.actor(learner._features(torch.from_numpy(pictures))))
    learner.centre(0.0)
    assert torch.allclose(bias, learner.trunk[0].bias, atol=1e-6)


def test_weights_settle_at_their_average() -> None:
    torch = pytest.importorskip("torch", reason="needs the extra 'train'")
    learner = Learner(3, 0, Settings(bfloat16=False))
    pictures = np.random.default_rng(0).integers(0, 256, (8, 4, 84, 84), np.uint8)
    right, nothing = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1]], np.full(8, np.nan)
    taken = []
    for _ in range(3):
        learner.imitate(pictures, right, nothing.astype(np.float32), np.zeros((8, 2), "f4"), 1e-3)
        taken.append(learner.actor.bias.detach().clone())
    learner.settle()
    # Parts 0, 1 / 11 and 2 / 12 stay as they are.
    mean = taken[0] / 11.0 + taken[1] * 10.0 / 11.0
    mean = mean / 6.0 + taken[2] * 5.0 / 6.0
    assert torch.allclose(learner.actor.bias, mean, atol=1e-7)
    settled = learner.actor.bias.detach().clone()
    learner.settle()
    assert torch.equal(settled, learner.actor.bias)
