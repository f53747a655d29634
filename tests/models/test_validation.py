"""Validation: a candidate plays lot by lot until it is clear that it loses too much."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from eventsim.models.candidate import SEEDS
from eventsim.models.playground import Playground
from eventsim.models.policy import Policy
from eventsim.models.validation import Validation

FIRST = SEEDS["validation"]


class Ground:
    """Plays what it was told: the return of each validation episode."""

    def __init__(self, returns: list[float]) -> None:
        self.returns, self.seeds = returns, []  # type: tuple[list[float], list[int]]

    def play(self, actor: Any, seed: int) -> Any:
        self.seeds.append(seed)
        return SimpleNamespace(rewards=np.array([0.25, 0.75]) * self.returns[seed - FIRST])


def checked(returns: list[float], slack: float = 0.05) -> tuple[Ground, list[float]]:
    """What `Validation.check` played of 12 episodes, the teacher 10 ahead of random play."""
    ground = Ground(returns)
    validation = Validation(cast(Playground, ground), 3, slack)
    validation.teacher, validation.random = np.full(12, 10.0), np.zeros(12)
    policy = cast(Policy, SimpleNamespace(session=lambda: None))
    return ground, validation.check(policy).returns.tolist()


@pytest.mark.parametrize(
    ("returns", "played"),
    [
        # As good as the teacher; a loss of 5 %; bad luck that later episodes make up for.
        ([10.0] * 12, 12),
        ([9.5] * 12, 12),
        ([5.0, 10.0, 10.0] + [10.0] * 9, 12),
        # Half of it lost, and always; 20 % lost in the second lot.
        ([5.0, 5.0, 5.0] + [10.0] * 9, 3),
        ([9.5, 9.5, 9.0] + [7.0] * 9, 6),
        ([0.0] * 12, 3),
    ],
)
def test_lots_are_played_until_a_loss_is_clear(returns: list[float], played: int) -> None:
    ground, seen = checked(returns)
    assert seen == returns[:played]
    assert ground.seeds == list(range(FIRST, FIRST + played))


def test_a_single_episode_makes_nothing_clear() -> None:
    ground = Ground([0.0] * 4)
    validation = Validation(cast(Playground, ground), 1, 0.05)
    validation.teacher, validation.random = np.full(4, 10.0), np.zeros(4)
    policy = cast(Policy, SimpleNamespace(session=lambda: None))
    assert len(validation.check(policy).returns) == 2
