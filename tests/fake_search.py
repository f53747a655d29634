"""A search that has found its candidates beforehand, for tests of what is done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eventsim.models.bounds import Pairs
from eventsim.models.candidate import dense_macs_of
from eventsim.models.policy import Policy
from eventsim.network import Network
from tests.tiny import cartpole_policy

ENV = "tests.tiny:ShortPole-v0"


def teacher() -> Policy:
    """Balances the pole for all of an episode's 60 steps."""
    return cartpole_policy(0.0).with_metadata(env_id=ENV, name="tiny")


def linear(weights: list[float], threshold: float = 0.0) -> Policy:
    """Pushes right where the weighted observation is positive."""
    row = np.array(weights)
    network = Network.from_arrays([np.stack([-row, row])], thresholds=threshold)
    return teacher().with_network(network)


@dataclass(frozen=True)
class Found:
    """A candidate; its one return says what it lost."""

    policy: Policy
    shape: tuple[int, ...]
    macs: float
    lost: float
    kind: str = "events"
    acs: float = 0.0

    @property
    def returns(self) -> np.ndarray:
        return np.array([1.0 - self.lost])

    @property
    def dense_macs(self) -> int:
        return dense_macs_of(self.shape)


@dataclass
class FakeSearch:
    """Keeps to the interface, and notes how it was made."""

    teacher: Policy
    env_id: str
    env_kwargs: Mapping[str, Any]
    seed: int
    budget: float
    workdir: Path
    say: Callable[[str], None]
    max_loss: float
    candidates: list[Found] = field(default_factory=list)
    small: Found | None = None

    def stages(self) -> Iterator[str]:
        """Find one candidate after the other."""
        event = cartpole_policy(0.02).network
        for k, one in enumerate(
            (
                Found(linear([0.0, 0.0, 1.0, 0.0], 0.5), (4, 2), 0.5, 0.015),  # falls
                Found(linear([0.0, 0.0, 1.0, 0.5], 0.02), (4, 2), 3.0, 0.0),
                Found(self.teacher.with_network(event), (4, 8, 2), 20.0, 0.0),
            )
        ):
            self.candidates.append(one)
            self.say(f"stage {k + 1}")
            yield f"stage {k + 1}"
        self.small = Found(linear([0.0, 0.0, 1.0, 0.5]), (4, 2), 8.0, 0.0, "dense")

    def loss(self, returns: np.ndarray) -> float:
        return 1.0 - float(returns.mean())

    def pairs(self, one: Found) -> Pairs | None:
        return None

    def smallest_dense(self, most: float) -> Found | None:
        """Return the linear student."""
        return self.small
