"""A network learns from a player that reads a game's memory, by what itself runs into.

The network plays and the player says what it would have done (DAgger, Ross et al. 2011,
arXiv 1011.0686); in the first round the player plays. It says what each action is worth: steps at
which little depends on the action weigh little, and actions of nearly equal worth are equally
right. Beside it the value head learns what the network's play brought in, and a head that is left
out afterwards where the things are that the player goes by: what a network cannot place it cannot
act on, and the actions alone tell it little about a ball of two pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.models.zoo.guides import GUIDES, guide
from eventsim.models.zoo.ppo import Learner

#: Environments that are played side by side, and steps of each in a round.
N_ENVS, STEPS = 16, 512
#: Steps before the end of a round of which the rewards to come are not known well enough.
UNKNOWN = 128
#: Steps that are learned from after a round, and after the last one; those of a drawing at once.
DRAWS, LAST_DRAWS, DRAWN = 65_536, 1_048_576, 8_192
MINIBATCH, LEARNING_RATE, LEAST_RATE = 64, 1e-3, 2e-5
#: Difference of worth at which an action is e times as right, the weight of a step of which nothing
#: depends, and the most that it can be more.
TEMPERATURE, LEAST_WEIGHT, MOST_WEIGHT = 0.05, 0.05, 4.0


class Demonstrations:
    """Pictures, what the player would have done, and the rewards to come where they are known.

    Parameters
    ----------
    game : str
    make : callable
        Makes an environment.
    seed : int
    gamma : float
        By which rewards to come are discounted.
    """

    def __init__(self, game: str, make: Callable[[], Any], seed: int, gamma: float) -> None:
        self._gamma, self._game = gamma, game
        self._environments = [make() for _ in range(N_ENVS)]
        self._rng = np.random.default_rng([seed, 3])
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._films: list[NDArray[np.uint8]] = []
        self._guides = [guide(game) for _ in self._environments]
        self._frames = np.stack([self._begin(k) for k in range(N_ENVS)])
        self._totals = np.zeros(N_ENVS)
        #: Returns of the episodes that ended in the last round.
        self.returns: list[float] = []

    def __len__(self) -> int:
        return sum(len(part[1]) for part in self._parts)

    def arrays(self) -> list[NDArray[Any]]:
        """What was shown beside the pictures, n steps.

        Returns
        -------
        worths : float32 array of shape (n, number of the player's actions)
        to_come : float32 array of shape (n,)
            Discounted rewards, NaN where unknown.
        seen : float32 array of shape (n, places and movements)
            What the player went by, as its attribute `seen`.
        """
        return [np.concatenate(columns) for columns in list(zip(*self._parts, strict=True))[1:]]

    def pictures(self, steps: NDArray[np.int64]) -> NDArray[np.uint8]:
        """What was to be seen at some steps.

        Frames are kept once, not four times: a game's demonstrations take gigabytes.

        Parameters
        ----------
        steps : int64 array of shape (k,)
            Numbers from 0 to n - 1.

        Returns
        -------
        uint8 array of shape (k, 4, 84, 84)
        """
        result = np.empty((len(steps), 4, 84, 84), np.uint8)
        ends = np.cumsum([len(part[0]) for part in self._parts])
        which = np.searchsorted(ends, steps, "right")
        for k in np.unique(which):
            mine = which == k
            inside = steps[mine] - (ends[k] - len(self._parts[k][0]))
            result[mine] = self._films[k][self._parts[k][0][inside]]
        return result

    def round(self, act: Callable[[NDArray[np.uint8]], NDArray[Any]] | None) -> None:
        """Play a round; the player itself acts if nobody else does."""
        shape = (STEPS, N_ENVS)
        film = list(self._frames.reshape(-1, 84, 84).copy())
        showing = np.arange(4 * N_ENVS).reshape(N_ENVS, 4)
        frames = np.empty((*shape, 4), np.int64)
        actions_of = np.array(self._guides[0].ACTIONS)
        shown = np.empty((*shape, len(actions_of)), np.float32)
        seen = np.empty((*shape, len(self._guides[0].seen)), np.float32)
        rewards, over = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        self.returns = []
        for t in range(STEPS):
            frames[t] = showing
            shown[t] = [
                one.worths(env.unwrapped.ale.getRAM())
                for one, env in zip(self._guides, self._environments, strict=True)
            ]
            seen[t] = [one.seen for one in self._guides]
            best = actions_of[shown[t].argmax(1)]
            actions = best if act is None else act(self._frames)
            for k, env in enumerate(self._environments):
                self._frames[k], reward, ended, cut, _ = env.step(int(actions[k]))
                rewards[t, k], over[t, k] = np.sign(reward), ended or cut
                self._totals[k] += float(reward)
                if over[t, k]:
                    self.returns.append(float(self._totals[k]))
                    self._totals[k] = 0.0
                    self._frames[k] = self._begin(k)
                    showing[k] = np.arange(len(film), len(film) + 4)
                    film += list(self._frames[k].copy())
                else:
                    showing[k] = [*showing[k, 1:], len(film)]
                    film.append(self._frames[k, 3].copy())
        to_come = np.full(shape, np.nan, np.float32)
        running, known = np.zeros(N_ENVS, np.float32), np.zeros(N_ENVS, np.bool_)
        for t in reversed(range(STEPS)):
            known |= over[t] | (t < STEPS - UNKNOWN)
            running = rewards[t] + self._gamma * np.where(over[t], 0.0, running)
            to_come[t, known] = running[known]
        if act is None:
            to_come[:] = np.nan  # those of another's play
        flat = STEPS * N_ENVS
        self._films.append(np.stack(film))
        self._parts.append(
            (
                frames.reshape(flat, 4),
                shown.reshape(flat, -1),
                to_come.ravel(),
                seen.reshape(flat, -1),
            )
        )

    def close(self) -> None:
        """Close the environments."""
        for env in self._environments:
            env.close()

    def _begin(self, k: int) -> NDArray[np.uint8]:
        """Begin an episode in one environment; its first pictures."""
        self._guides[k] = guide(self._game)
        seed = int(self._rng.integers(2**31))
        pictures: NDArray[np.uint8] = self._environments[k].reset(seed=seed)[0]
        return pictures


def targets(
    worths: NDArray[np.float32], actions: Sequence[int], n_actions: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How right each action is, and how much the step weighs.

    Parameters
    ----------
    worths : float32 array of shape (n, len(actions))
    actions : sequence of int
        What the columns stand for.
    n_actions : int
        Of the network.

    Returns
    -------
    right : float32 array of shape (n, n_actions)
        Sums to 1; 0 for an action that the player does not use.
    weights : float32 array of shape (n,)
    """
    behind = worths - worths.max(1, keepdims=True)
    odds = np.exp(behind / TEMPERATURE)
    right = np.zeros((len(worths), n_actions), np.float32)
    right[:, list(actions)] = odds / odds.sum(1, keepdims=True)
    return right, LEAST_WEIGHT + np.minimum(behind.min(1) ** 2, MOST_WEIGHT)


def fit(
    learner: Learner,
    shown: Demonstrations,
    actions: Sequence[int],
    draws: int,
    rng: np.random.Generator,
    last: bool = False,
) -> tuple[float, float, float]:
    """Learn the actions by cross-entropy, rewards to come and places by squared error.

    Steps of much weight are drawn often, which teaches more than large steps do. The last time the
    rate falls along a cosine.

    Returns
    -------
    cross_entropy, agreement, placing : float
        Means over the last part of what was drawn; the last is the squared error of what the player
        saw.
    """
    worths, to_come, seen = shown.arrays()
    right, weights = targets(worths, actions, learner.actor.out_features)
    n = len(weights)
    shares = weights / weights.sum(dtype=np.float64)
    found: list[tuple[float, float, float]] = []
    for done in range(0, draws, DRAWN):
        rate = LEARNING_RATE
        if last:
            rate = max(rate * (0.5 + 0.5 * math.cos(math.pi * done / draws)), LEAST_RATE)
        drawn = rng.choice(n, min(DRAWN, draws - done), p=shares)
        for part in np.array_split(drawn, max(len(drawn) // MINIBATCH, 1)):
            pictures = shown.pictures(part)
            found.append(learner.imitate(pictures, right[part], to_come[part], seen[part], rate))
    learner.settle()
    entropy, agreement, placing = np.mean(found[3 * len(found) // 4 :], 0).tolist()
    return entropy, agreement, placing


def imitate(
    learner: Learner,
    game: str,
    make: Callable[[], Any],
    rounds: int,
    seed: int,
    say: Callable[[str], None],
) -> list[dict[str, float | None]]:
    """Teach a learner what a game's player does.

    Parameters
    ----------
    learner : Learner
    game : str
        One of `eventsim.models.zoo.guides.GUIDES`.
    make : callable
        Makes an environment.
    rounds : int
        Of 8,192 steps each.
    seed : int
    say : callable
        Gets a line a round.

    Returns
    -------
    list of dict
        For each round its steps so far, the mean return of the episodes that ended in it, the
        cross-entropy, the share of steps, by weight, at which the likeliest action is the player's,
        and the root mean square of the error of places and movements (-1 to 1).

    Raises
    ------
    InputError
        If the game has no player.
    """
    rng = np.random.default_rng([seed, 4])
    shown = Demonstrations(game, make, seed, learner.settings.gamma)
    history: list[dict[str, float | None]] = []
    try:
        for k in range(rounds):
            # The likeliest actions are those to be judged by; drawn ones see more of the game.
            play = learner.likeliest if k % 2 else lambda frames: learner.act(frames)[0]
            shown.round(play if k else None)
            if k == 0:
                learner.centre(float(shown.pictures(np.arange(0, len(shown), 16)).mean()) / 255.0)
            mean = float(np.mean(shown.returns)) if shown.returns else None
            last = k == rounds - 1
            actions = GUIDES[game].ACTIONS
            entropy, agreement, placing = fit(
                learner, shown, actions, LAST_DRAWS if last else DRAWS, rng, last
            )
            history.append(
                {
                    "steps": len(shown),
                    "mean_return": mean,
                    "cross_entropy": entropy,
                    "agreement": agreement,
                    "placing": placing**0.5,
                }
            )
            say(
                f"{game}: {len(shown):,} steps shown, return "
                f"{'-' if mean is None else format(mean, '.2f')}, agrees in {agreement:.1%}, "
                f"places to {placing**0.5:.3f}"
            )
    finally:
        shown.close()
    return history
