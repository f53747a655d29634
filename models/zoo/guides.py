"""Players that read a game's memory, for a network to learn from that sees its pictures only.

Which way the paddle has to go, a few lines can show; rewards alone take long to tell. An agent of
`eventsim.models.zoo.atari` may begin by imitating one of these, and then learns from rewards. They
play by the console's 128 bytes of memory; what stands where was found by playing, and the constants
are those of the frames that the bytes count in.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError

Memory = NDArray[np.uint8]
Float = NDArray[np.float64]


class Guide(ABC):
    """Plays one episode; an action is given every four frames.

    Attributes
    ----------
    ACTIONS : tuple of int
        Those that it uses, out of the minimal action set.
    PLACED : tuple of int
        Bytes that say where something is.
    SHOWN : tuple of int
        For each of them the byte that is `NOWHERE` if it is not to be seen.
    """

    ACTIONS: ClassVar[tuple[int, ...]]
    PLACED: ClassVar[tuple[int, ...]]
    SHOWN: ClassVar[tuple[int, ...]]
    NOWHERE: ClassVar = 0
    #: Fastest movement, in places a step, that `seen` tells from others.
    FASTEST: ClassVar = 32.0

    def __init__(self) -> None:
        self._before: Memory | None = None
        #: What the last `worths` went by: float64 array of shape (2 len(PLACED),), where things
        #: were and how they moved, -1 to 1, NaN for what was nowhere.
        self.seen: Float = np.full(2 * len(self.PLACED), np.nan)

    def worths(self, memory: Memory) -> Float:
        """What each action is worth; to be called once a step.

        Parameters
        ----------
        memory : uint8 array of shape (128,)
            Of the console.

        Returns
        -------
        float64 array of shape (len(ACTIONS),)
            1 is what it takes to miss a ball or to be run over, more or less.
        """
        before = memory if self._before is None else self._before
        self._before = memory.copy()
        now, then = memory.astype(int), before.astype(int)
        places = self._places(now)
        moves = np.clip((places - self._places(then)) / self.FASTEST, -1.0, 1.0)
        self.seen = np.concatenate([places / 128.0 - 1.0, moves])
        return self._worths(now, then)

    def act(self, memory: Memory) -> int:
        """Return the action of the greatest worth, the first of equals."""
        return self.ACTIONS[int(np.argmax(self.worths(memory)))]

    def _places(self, memory: NDArray[np.int_]) -> Float:
        """Where things are, NaN for what is not to be seen; shape (len(PLACED),)."""
        shown = memory[list(self.SHOWN)] != self.NOWHERE
        return np.where(shown, memory[list(self.PLACED)], np.nan)

    @abstractmethod
    def _worths(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> Float:
        """Judge by the memory now, and at the step before."""


def _mirrored(place: float | Float, low: float, high: float) -> Any:
    """Where something is that flies on to a place, and is thrown back by two walls."""
    span = high - low
    phase = (place - low) % (2.0 * span)
    return low + np.minimum(phase, 2.0 * span - phase)


class _Paddle(Guide):
    """Moves a paddle on a line to meet a ball.

    The paddle rolls on for a step or two after an action. So the last steps before the ball comes
    are planned by trying all sequences of actions.
    """

    #: Ways of the first actions: to stay, to move to larger places, to smaller ones.
    WAYS: ClassVar = np.array([0, 1, -1])
    #: What a place is worth that the paddle is nearer to, long before the ball comes.
    NEARER = 0.01
    #: Byte of the paddle's place, the places that it can have, and what it moves in the steps after
    #: an action.
    PADDLE: ClassVar[int]
    PLACES: ClassVar[tuple[float, float]]
    ROLL: ClassVar[tuple[float, float, float]]
    #: The ball over the paddle's origin where they meet: at the first place, in the middle, at the
    #: last.
    MEETS: ClassVar[tuple[float, float, float]]
    #: How surely places are met, and steps that are planned.
    SURE, PLANNED = 1.2, 4

    def __init__(self) -> None:
        super().__init__()
        self._last = (0, 0)
        self._offsets = np.arange(-60.0, 80.0, 0.5)
        first, _, last = self.MEETS
        self._met = (self._offsets >= first) & (self._offsets <= last)

    def _blurred(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What places are worth that are not met surely."""
        blur = np.exp(-0.5 * (np.arange(-20.0, 20.5, 0.5) / self.SURE) ** 2)
        return np.convolve(values, blur / blur.sum(), "same")

    def _see(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> None:
        """Learn from how the paddle moved what was done: actions may be repeated by chance."""
        one, two = self._last
        moved = now[self.PADDLE] - before[self.PADDLE] - self.ROLL[1] * one - self.ROLL[2] * two
        self._last = int(np.clip(round(moved / self.ROLL[0]), -1, 1)), one

    def _towards(self, aim: float, paddle: float) -> Float:
        """What the actions are worth if the paddle shall be at a place some time."""
        one, two = self._last
        way = aim - (paddle + self.ROLL[1] * one + self.ROLL[2] * (one + two))
        return -self.NEARER * np.abs(way - sum(self.ROLL) * self.WAYS)

    def _meet(self, end: float, steps: float, paddle: float, worth: Float) -> Float:
        """What the actions are worth if a ball comes to a place in so many steps.

        `worth` says what the offsets between ball and paddle are worth.
        """
        if steps > self.PLANNED:
            return self._towards(end - self.MEETS[1], paddle)
        n = max(1, math.ceil(steps - 0.01))
        tried = np.array(list(itertools.product(self.WAYS, repeat=n)))
        one, two = (np.full((len(tried), 1), action) for action in self._last)
        actions = np.hstack([two, one, tried])
        places = np.full(len(tried), float(paddle))
        for k in range(n):
            part = 1.0 if k < n - 1 else min(max(steps - k, 0.0), 1.0)
            places = places + part * (actions[:, k : k + 3] @ np.array(self.ROLL[::-1]))
            places = np.clip(places, *self.PLACES)
        offsets = end - places
        # If nothing meets it, at least come near.
        found = np.interp(offsets, self._offsets, worth) - 1e-3 * np.abs(offsets - self.MEETS[1])
        return np.array([found[tried[:, 0] == way].max() for way in self.WAYS])


class Pong(_Paddle):
    """Meets the ball with that end of the paddle which throws it past the opponent."""

    ACTIONS = (0, 3, 2)
    BALL_X, BALL_Y, PADDLE = PLACED = 49, 54, 51
    SHOWN = 54, 54, 51
    TOP, BOTTOM, REACH, HOME = 44, 207, 188, 120.0
    PLACES, ROLL, MEETS = (38.0, 203.0), (10.0, 10.0, 2.6), (-1.5, 6.75, 14.9)
    #: From the middle on where the ball is thrown back steeply, and what that is worth beside
    #: meeting it at all.
    STEEP, GAIN = 5.0, 2.0
    #: From above the first height a steep ball down wins most, from above the second one up; from
    #: below neither.
    DOWN_UP = (108.0, 174.0)

    def __init__(self) -> None:
        super().__init__()
        way = self._offsets - self.MEETS[1]
        self._worth = {
            side: self._blurred(self._met * (1.0 + self.GAIN * (side * way >= self.STEEP)))
            for side in (-1, 0, 1)
        }

    def _worths(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> Float:
        x, y, paddle = now[[self.BALL_X, self.BALL_Y, self.PADDLE]]
        self._see(now, before)
        speed = x - before[self.BALL_X]
        if y == 0 or before[self.BALL_Y] == 0:  # no ball
            return self._towards(self.HOME, paddle)
        if speed <= 0:
            return self._towards(0.5 * (y - self.MEETS[1] + self.HOME), paddle)
        steps = (self.REACH - x) / speed
        end = _mirrored(y + (y - before[self.BALL_Y]) * steps, self.TOP, self.BOTTOM)
        side = 1 if end < self.DOWN_UP[0] else -1 if end < self.DOWN_UP[1] else 0
        return self._meet(end, steps, paddle, self._worth[side])


class Breakout(_Paddle):
    """Goes to where the ball will come down."""

    #: The last one is the button that serves; it does nothing else.
    ACTIONS = (0, 2, 3, 1)
    BALL_X, BALL_Y, PADDLE = PLACED = 99, 101, 72
    SHOWN = 101, 101, 72
    LEFT, RIGHT, REACH = 55, 201, 178
    PLACES, ROLL, MEETS = (55.0, 191.0), (12.0, 10.5, 0.0), (2.0, 9.5, 17.0)
    SURE = 3.0

    def __init__(self) -> None:
        super().__init__()
        self._worth = self._blurred(self._met.astype(float))

    def _worths(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> Float:
        x, y, paddle = now[[self.BALL_X, self.BALL_Y, self.PADDLE]]
        self._see(now, before)
        if y == 0:
            return np.array([0.0, 0.0, 0.0, 1.0])
        fall, middle = y - before[self.BALL_Y], self.MEETS[1]
        steps = (self.REACH - y) / fall if fall > 0 and before[self.BALL_Y] else math.inf
        if steps < 0.0:  # lost
            found = np.zeros(3)
        elif math.isinf(steps):
            found = self._towards(x - middle, paddle)
        else:
            end = _mirrored(x + (x - before[self.BALL_X]) * steps, self.LEFT, self.RIGHT)
            found = self._meet(end, steps, paddle, self._worth)
        return np.append(found, found[0])


class Freeway(Guide):
    """Plans the quickest way over the road through the gaps that the cars will leave."""

    #: Up, stay, down.
    ACTIONS = (1, 0, 2)
    #: What a step is worth.
    STEP = 0.125
    CHICKEN, CARS = 14, slice(108, 118)
    PLACED = SHOWN = (14, *range(108, 118))
    #: Places that a car moves on in a step, lane by lane from the bottom.
    SPEEDS: ClassVar = np.array([0.8, 1.0, 4 / 3, 2.0, 4.0, -4.0, -2.0, -4 / 3, -1.0, -0.8])
    WIDTH, LANE, FIRST_LANE, GOAL = 160.0, 16, 8, 176
    #: Between these places a car hits the chicken.
    NEAR, BEYOND = 40.0, 54.0
    #: Steps that are planned, places of a step, and steps that a collision costs.
    HORIZON, STRIDE, COST = 56, 4, 25.0
    #: Of equally quick choices the first is taken.
    DELAY: ClassVar = np.array([0.0, 0.01, 0.02])

    def _worths(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> Float:
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
        return np.asarray(-self.STEP * (choices + self.DELAY))

    def _choices(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Steps that are left behind each action."""
        up, down = np.zeros_like(steps), np.full_like(steps, 1e6)
        up[:-2], down[2:] = steps[2:], steps[:-2]
        return np.stack([up, steps, down])


class SpaceInvaders(Guide):
    """Keeps out of the way of bombs, and fires where an invader will be."""

    #: Nothing, fire, right, left, right and fire, left and fire.
    ACTIONS = (0, 1, 2, 3, 4, 5)
    WAYS: ClassVar = np.array([0, 0, 1, -1, 1, -1])
    FIRES: ClassVar = np.array([False, True, False, False, True, True])
    PLAYER, INVADERS, ROWS = 28, 26, slice(18, 24)
    SHOT_X, SHOT_Y, BOMBS_X, BOMBS_Y = 87, 85, (83, 84), (81, 82)
    PLACED = (PLAYER, INVADERS, SHOT_X, SHOT_Y, *BOMBS_X, *BOMBS_Y)
    SHOWN = (PLAYER, INVADERS, SHOT_Y, SHOT_Y, *BOMBS_Y, *BOMBS_Y)
    NOWHERE = 246
    #: Places that the player can have, and what it moves in a step.
    PLACES, STEP = (35, 117), 2
    #: The place of a bomb over that of the player where it hits, and its height there; what a bomb
    #: falls and a shot rises in a step.
    HIT, HEIGHT, FALL, RISE = (1, 7), (87, 97), 2.0, 4.0
    #: Bytes: how far the invaders have come down, how many are left, whether they go right (a bit).
    DOWN, LEFT, WAY, RIGHT = 16, 17, 24, 2
    #: Where a shot is over the player, and the middle of the first column over the byte's place.
    SHOT, FIRST, COLUMN = 3.0, 2.5, 16.0
    #: Rows of the picture: the lower end of the lowest invaders at first, from row to row, and of a
    #: shot at first; what the invaders keep to, for the first and for the last column.
    LOWEST, ROW, MUZZLE, EDGES = 130.0, 18.0, 173.0, (23.0, 130.0)
    #: What they move in a step if no more than so many are left.
    SPEEDS: ClassVar = ((1, 4.94), (2, 2.21), (3, 1.64), (4, 0.93), (7, 0.72), (21, 0.36))
    SLOWEST = 0.122
    #: Steps that are planned; what it is to be at, near and not far from a bomb; worth of a shot
    #: that hits, of one that does not, and of a place nearer to where one would; how near is near.
    #: All are large enough to be told apart by who learns from them (imitation.TEMPERATURE).
    HORIZON, AFRAID, SCORES, WASTES, NEARER, NEAR = 16, (12.0, 4.0, 0.8), 1.0, 0.3, 0.06, 3.0

    def _places(self, memory: NDArray[np.int_]) -> Float:
        # The lower bomb first: a picture does not tell which of the two bytes it is.
        places = super()._places(memory)
        if not places[6] >= places[7] and not np.isnan(places[7]):
            places[[4, 5, 6, 7]] = places[[5, 4, 7, 6]]
        return places

    def _worths(self, now: NDArray[np.int_], before: NDArray[np.int_]) -> Float:
        low, high = self.PLACES
        places = np.arange(low, high + 1)
        here = min(max(int(now[self.PLAYER]), low), high) - low
        hits, gaps = self._hits(now, places), self._gaps(now, places, here)
        steps = np.abs(places - places[here]) / self.STEP
        aim = int(np.argmin(np.where(gaps <= self.NEAR, steps, 1e3 + gaps)))
        near = self.NEARER * np.abs(places - places[aim])
        left = near
        for k in range(self.HORIZON - 1, 0, -1):
            left = hits[k] + near / self.HORIZON + self._choices(left).min(0)
        worths = -self._choices(left)[:, here][[0, 0, 1, 2, 1, 2]]
        if now[self.SHOT_Y] == self.NOWHERE:
            worths[self.FIRES] += self.SCORES if gaps[here] <= self.NEAR else -self.WASTES
        return worths

    def _choices(self, left: Float) -> Float:
        """What is lost behind no movement, one to the right and one to the left."""
        right, back = np.full_like(left, left[-1]), np.full_like(left, left[0])
        right[: -self.STEP], back[self.STEP :] = left[self.STEP :], left[: -self.STEP]
        return np.stack([left, right, back])

    def _hits(self, now: NDArray[np.int_], places: NDArray[np.int_]) -> Float:
        """Hits to be expected, shape (HORIZON, len(places))."""
        hits = np.zeros((self.HORIZON, len(places)))
        for x, y in zip(now[list(self.BOMBS_X)], now[list(self.BOMBS_Y)], strict=True):
            if y == self.NOWHERE:
                continue
            heights = y + self.FALL * np.arange(self.HORIZON)
            when = (heights >= self.HEIGHT[0] - 1) & (heights <= self.HEIGHT[1])
            offset = x - places
            beside = np.maximum(self.HIT[0] - offset, offset - self.HIT[1])
            fear = np.select([beside <= 0, beside <= 2, beside <= 4], self.AFRAID, 0.0)
            hits[when] += fear / max(int(when.sum()), 1)
        return hits

    def _gaps(self, now: NDArray[np.int_], places: NDArray[np.int_], here: int) -> Float:
        """By how much a shot from each place, at the time to get there, would miss all invaders."""
        rows = now[self.ROWS]
        columns = [k for k in range(6) if any(row >> k & 1 for row in rows)]
        if not columns:
            return np.zeros(len(places))
        lowest = [next(j for j, row in enumerate(rows) if row >> k & 1) for k in columns]
        bottom = self.LOWEST + 2.0 * now[self.DOWN] - self.ROW * np.array(lowest)
        flight = 0.5 + np.maximum(self.MUZZLE - bottom, 0.0) / (2.0 * self.RISE)
        count = now[self.LEFT]
        speed = next((v for most, v in self.SPEEDS if count <= most), self.SLOWEST)
        way = 1.0 if now[self.WAY] & self.RIGHT else -1.0
        waits = np.abs(places - places[here]) / self.STEP
        if now[self.SHOT_Y] != self.NOWHERE:
            waits = np.maximum(waits, 1.0)
        low = self.EDGES[0] - self.COLUMN * columns[0]
        high = self.EDGES[1] - self.COLUMN * columns[-1]
        ahead = now[self.INVADERS] + way * speed * (waits[:, None] + flight)
        met = _mirrored(ahead, low, high) + self.FIRST
        met += self.COLUMN * np.array(columns)
        return np.asarray(np.abs((places + self.SHOT)[:, None] - met).min(1))


GUIDES: dict[str, type[Guide]] = {
    "pong": Pong,
    "breakout": Breakout,
    "freeway": Freeway,
    "space_invaders": SpaceInvaders,
}


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
