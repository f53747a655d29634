"""Players that read a game's memory, for a network to learn from that sees its pictures only.

On one core of a CPU, learning from rewards alone spends hours on what a few lines can show: which
way the paddle has to go. An agent of `eventsim.models.zoo.atari` may begin by imitating one of
these, and then learns from rewards. They play by the console's 128 bytes of memory; what stands
where was found by playing, and the constants are those of the frames that the bytes count in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError

Memory = NDArray[np.uint8]


class Guide(ABC):
    """Plays one episode; an action is given every four frames, out of the minimal action set."""

    def __init__(self) -> None:
        self._before: Memory | None = None

    def act(self, memory: Memory) -> int:
        """Return the action for the console's memory, shape (128,)."""
        before = memory if self._before is None else self._before
        self._before = memory.copy()
        return self._act(memory.astype(int), before.astype(int))

    @abstractmethod
    def _act(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> int:
        """Decide by the memory now, and at the step before."""


def _mirrored(place: float, low: float, high: float) -> float:
    """Where something is that flies on to a place, and is thrown back by two walls."""
    span = high - low
    phase = (place - low) % (2.0 * span)
    return low + min(phase, 2.0 * span - phase)


class Pong(Guide):
    """Meets the ball with an end of the paddle, which throws it back steeply."""

    NOOP, UP, DOWN = 0, 2, 3
    #: Bytes of the ball's place and of the right paddle's.
    BALL_X, BALL_Y, PADDLE = 49, 54, 51
    TOP, BOTTOM, REACH = 44, 207, 188
    #: The ball over the paddle's origin where it hits the middle, and what is aimed off that.
    MIDDLE, OFF = 7.0, 3.64

    def _act(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> int:
        x, y, paddle = now[[self.BALL_X, self.BALL_Y, self.PADDLE]]
        speed = x - before[self.BALL_X]
        if y == 0 or before[self.BALL_Y] == 0:  # no ball
            aim = 120.0
        elif speed <= 0:
            aim = 0.94 * (y - self.MIDDLE) + 0.06 * 120.0
        else:
            flight = (y - before[self.BALL_Y]) * (self.REACH - x) / speed
            end = _mirrored(y + flight, self.TOP, self.BOTTOM)
            aim = end - self.MIDDLE - (self.OFF if end < 125.0 else -self.OFF)
        # The paddle rolls on for a while.
        way = aim - (paddle + 0.12 * (paddle - before[self.PADDLE]))
        if abs(way) <= 2.0:
            return self.NOOP
        return self.DOWN if way > 0.0 else self.UP


class Breakout(Guide):
    """Goes to where the ball will come down."""

    NOOP, FIRE, RIGHT, LEFT = 0, 1, 2, 3
    BALL_X, BALL_Y, PADDLE = 99, 101, 72
    LEFT_WALL, RIGHT_WALL, GROUND, FAR = 55.0, 200.0, 185.0, 72.0
    MIDDLE, SLACK = 10.0, 5.0

    def _act(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> int:
        x, y, paddle = now[[self.BALL_X, self.BALL_Y, self.PADDLE]]
        if y == 0:
            return self.FIRE
        aim, falls = float(x), y - before[self.BALL_Y]
        if falls > 0 and y > self.FAR:
            drift = (x - before[self.BALL_X]) * (self.GROUND - y) / falls
            aim = _mirrored(x + drift, self.LEFT_WALL, self.RIGHT_WALL)
        way = aim - self.MIDDLE - paddle
        if abs(way) <= self.SLACK:
            return self.NOOP
        return self.RIGHT if way > 0.0 else self.LEFT


class Freeway(Guide):
    """Plans the quickest way over the road through the gaps that the cars will leave."""

    #: Up, stay, down.
    ACTIONS = (1, 0, 2)
    CHICKEN, CARS = 14, slice(108, 118)
    #: Places that a car moves on in a step, lane by lane from the bottom.
    SPEEDS: ClassVar = np.array([0.8, 1.0, 4 / 3, 2.0, 4.0, -4.0, -2.0, -4 / 3, -1.0, -0.8])
    WIDTH, LANE, FIRST_LANE, GOAL = 160.0, 16, 8, 176
    #: Between these places a car hits the chicken.
    NEAR, BEYOND = 40.0, 54.0
    #: Steps that are planned, places of a step, and steps that a collision costs.
    HORIZON, STRIDE, COST = 56, 4, 25.0
    #: Of equally quick choices the first is taken.
    DELAY: ClassVar = np.array([0.0, 0.01, 0.02])

    def _act(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> int:
        places = np.arange(0, 190, self.STRIDE // 2)
        cars = now[self.CARS] + np.outer(np.arange(self.HORIZON), self.SPEEDS)
        cars = np.mod(cars, self.WIDTH)
        hit = (cars > self.NEAR) & (cars < self.BEYOND)
        # An action may come a step late: the gap has to be there a step earlier and later, too.
        wide = hit.copy()
        wide[1:] |= hit[:-1]
        wide[:-1] |= hit[1:]
        lanes = (places - self.FIRST_LANE) // self.LANE
        on_road = (lanes >= 0) & (lanes < wide.shape[1])
        taken = np.zeros((self.HORIZON, len(places)), np.bool_)
        taken[:, on_road] = wide[:, lanes[on_road]]
        over = places >= self.GOAL
        # Steps to the other side from each place, backwards in time; shifted by one step's way.
        steps = np.maximum((self.GOAL - places) / self.STRIDE, 0.0)
        for k in range(self.HORIZON - 2, 0, -1):
            steps = 1.0 + self._choices(steps).min(0) + self.COST * taken[k]
            steps[over] = 0.0
        choices = self._choices(steps)[:, min(now[self.CHICKEN] // 2, len(places) - 1)]
        return self.ACTIONS[int(np.argmin(choices + self.DELAY))]

    def _choices(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Steps that are left behind each action."""
        up, down = np.zeros_like(steps), np.full_like(steps, 1e6)
        up[:-2], down[2:] = steps[2:], steps[:-2]
        return np.stack([up, steps, down])


GUIDES: dict[str, type[Guide]] = {"pong": Pong, "breakout": Breakout, "freeway": Freeway}


def guide(game: str) -> Guide:
    """Make a player.

    Raises
    ------
    InputError
        If the game has none.
    """
    if game not in GUIDES:
        raise InputError(
            "has no player to imitate; train it by rewards alone, or use one of "
            f"{', '.join(GUIDES)}",
            where="Atari",
            field=f"game '{game}'",
        )
    return GUIDES[game]()
