"""What playing says of the candidates of a search, on its validation seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eventsim.models.bounds import Pairs
from eventsim.models.candidate import SEEDS, Float
from eventsim.models.playground import Playground
from eventsim.models.policy import Policy
from eventsim.models.refine import Watched
from eventsim.models.rollout import RandomActor

_FIRST = SEEDS["validation"]


@dataclass(frozen=True)
class Played:
    """What came of some episodes.

    Attributes
    ----------
    returns : float64 array
    macs, acs, steps : int
        In all.
    """

    returns: Float
    macs: int
    acs: int
    steps: int

    def __add__(self, more: Played) -> Played:
        return Played(
            np.concatenate([self.returns, more.returns]),
            self.macs + more.macs,
            self.acs + more.acs,
            self.steps + more.steps,
        )


class Validation:
    """Plays candidates on the seeds that teacher and random actions have played, and compares.

    Parameters
    ----------
    ground : Playground
    screened : int
        Episodes of a candidate; up to four times as many unless it is clear that it loses.
    slack : float
        Loss that a candidate may have.

    Attributes
    ----------
    teacher, random : float64 array
        Returns of the teacher and of random actions; set once they are known.
    """

    def __init__(self, ground: Playground, screened: int, slack: float) -> None:
        self._ground, self._screened, self._slack = ground, screened, slack
        self.teacher: Float = np.zeros(0)
        self.random: Float = np.zeros(0)

    @property
    def episodes(self) -> int:
        """Of the teacher and of random actions, and the most that a candidate plays."""
        return 4 * self._screened

    @property
    def seeds(self) -> range:
        """Those that the teacher has played."""
        return range(_FIRST, _FIRST + len(self.teacher))

    def lost(self, returns: Float, first: int = 0) -> Float:
        """Loss of each episode from number `first` on, relative to the teacher's advantage."""
        theirs = self.teacher[first : first + len(returns)]
        advantage = self.teacher.mean() - self.random.mean()
        return np.asarray((theirs - returns[: len(theirs)]) / advantage)

    def loss(self, returns: Float) -> float:
        """Mean loss."""
        return float(self.lost(returns).mean())

    def error(self, returns: Float) -> float:
        """Standard error of `loss`; infinite for fewer than two episodes."""
        lost = self.lost(returns)
        return float(lost.std(ddof=1)) / math.sqrt(len(lost)) if len(lost) > 1 else math.inf

    def pairs(self, returns: Float) -> Pairs:
        """Returns from the first seed on, beside those of the teacher and random ones' mean."""
        n = len(returns)
        return Pairs(returns, self.teacher[:n], np.full(n, self.random.mean()))

    def play(self, actor: Any, episodes: int, first: int = 0) -> Played:
        """Play so many episodes from number `first` on."""
        returns, macs, acs, steps = [], 0, 0, 0
        for k in range(first, first + episodes):
            played = self._ground.play(actor, _FIRST + k)
            returns.append(float(played.rewards.sum()))
            steps += len(played.rewards)
            totals = getattr(getattr(actor, "simulator", None), "totals", None)
            if totals is not None:
                macs += int(totals.macs.sum())
                acs += int(totals.acs.sum())
        return Played(np.array(returns), macs, acs, steps)

    def play_random(self, seed: int) -> Float:
        """Returns of random actions."""
        actor = RandomActor(self._ground.env.action_space)
        actor.seed(seed)
        return self.play(actor, self.episodes).returns

    def check(self, policy: Policy) -> Played:
        """Play a candidate; lot by lot until a loss of twice the slack is clear.

        The teacher's luck in a few episodes would be every candidate's bad luck: on Pong a student
        that lost 14 % over the first six lost 6 % over 48.
        """
        played = self.play(policy.session(), self._screened)
        while (n := len(played.returns)) < self.episodes:
            if self.loss(played.returns) - self.error(played.returns) > 2.0 * self._slack:
                break
            lot = min(self._screened, self.episodes - n)
            played += self.play(policy.session(), lot, n)
        return played

    def watch(self, policy: Policy, seeds: Sequence[int]) -> list[Watched]:
        """Episodes with their inputs and counts."""
        session = policy.session()
        watched = []
        for seed in seeds:
            played = self._ground.play(session, seed, record=True)
            totals = session.simulator.totals  # type: ignore[union-attr]
            watched.append(
                Watched(
                    float(played.rewards.sum()),
                    played.steps,
                    int(totals.macs.sum()),
                    int(totals.acs.sum()),
                    np.zeros((0, 0)) if played.inputs is None else played.inputs,
                )
            )
        return watched

    def lost_on(self, returns: Float, seeds: Sequence[int]) -> Float:
        """Loss of each episode from consecutive seeds."""
        return self.lost(returns, seeds[0] - _FIRST)


__all__ = ["Played", "Validation"]
