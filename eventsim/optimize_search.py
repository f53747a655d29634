"""What an optimisation asks of the search that finds its candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eventsim.models.bounds import Pairs
from eventsim.models.policy import Policy


class Candidate(Protocol):
    """What a search found, as much of it as is needed here.

    Attributes
    ----------
    kind : str
        Such as dense or events.
    policy : Policy
        With its thresholds.
    shape : tuple of int
        Neurons of each layer of the dense network that it was made from.
    dense_macs : int
        Multiplications per step of that dense network.
    macs, acs : float
        Synaptic operations per step, as the search counted them.
    returns : float64 array
        As the search measured them.
    """

    @property
    def kind(self) -> str:
        """Such as dense or events."""

    @property
    def policy(self) -> Policy:
        """With its thresholds."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Neurons of each layer of the dense network that it was made from."""

    @property
    def dense_macs(self) -> int:
        """Multiplications per step of that dense network."""

    @property
    def macs(self) -> float:
        """MACs per step, as the search counted them."""

    @property
    def acs(self) -> float:
        """ACs per step, as the search counted them."""

    @property
    def returns(self) -> NDArray[np.float64]:
        """As the search measured them."""


@dataclass(frozen=True)
class Entry:
    """A candidate, and its relative loss as far as it is known before the choice."""

    candidate: Candidate
    loss: float

    @property
    def synops(self) -> float:
        """Synaptic operations per step, as they are known before the choice."""
        return self.candidate.macs + self.candidate.acs


class Search(Protocol):
    """What finds candidates; its stages are kept on disk, and found there again."""

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Those found so far."""

    def stages(self) -> Iterator[object]:
        """Go on, a stage at a time."""

    def loss(self, returns: NDArray[np.float64]) -> float:
        """Relative loss of returns that the search measured."""

    def pairs(self, one: Any) -> Pairs | None:
        """Return what it played of a candidate, unless it was made so as to do well there."""

    def smallest_dense(self, most: float) -> Candidate | None:
        """Return the smallest dense student that loses so much at most."""


class SearchFactory(Protocol):
    """Makes a search."""

    def __call__(
        self,
        teacher: Policy,
        env_id: str,
        env_kwargs: Mapping[str, Any],
        *,
        seed: int,
        budget: float,
        workdir: Path,
        say: Callable[[str], None],
        max_loss: float,
    ) -> Search:
        """Make one that may take `budget` seconds, over all runs in `workdir`."""
