"""Search the sparsity and the thresholds with which a teacher holds its return."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eventsim.errors import InputError
from eventsim.models.activity import Float
from eventsim.models.calibration import with_spread_thresholds
from eventsim.models.decoders import Argmax
from eventsim.models.policy import Policy
from eventsim.models.pruning import connection_sparsity
from eventsim.models.refit import decision_weights, prune_and_refit, refit
from eventsim.models.rollout import RandomActor, episode, make_env
from eventsim.network import Network

#: First environment seeds of what is done; the teachers' own are below.
SEEDS = {
    "record": 30_000,
    "screen": 40_000,
    "validation": 50_000,
    "confirmation": 60_000,
    "test": 70_000,
}

#: 95 % quantile of the normal distribution.
Z95 = 1.645


@dataclass(frozen=True)
class Settings:
    """How the search is done.

    Parameters
    ----------
    sparsities : tuple of float
        Ascending; each stage goes on from the one before.
    scales : tuple of float
        Threshold scales, ascending.
    input_ratios : tuple of float
        Threshold scales of the inputs, relative to those of the other neurons.
    rounds : int
        Of pruning and refitting, a stage.
    recorded : int
        Steps recorded of the teacher.
    visits, visited : int
        How often a stage's student plays and is refitted on what it saw, and the steps that are
        recorded of it each time; the best of these students is kept.
    kept : int
        Steps of students that are kept at most, the latest ones.
    stages : int
        So many are given thresholds, from the sparsest back, once one of them held the return.
    screened, screened_steps : int
        Episodes to screen a candidate: so many, or more, until they have so many steps.
    validated, confirmed, tested : int
        Episodes to choose a candidate, to try again one that was chosen, since the best of many
        owes something to luck, and to report.
    max_loss : float
        Largest loss of return, relative to the teacher's advantage over random actions, that a
        candidate may have, by the one-sided 95 % bound over the validation episodes and again
        over those of confirmation.
    give_up : float
        A search goes no further in a direction where the loss is so many times larger.
    """

    sparsities: tuple[float, ...] = (0.6, 0.75, 0.82, 0.87, 0.9, 0.925, 0.95, 0.97)
    scales: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
    input_ratios: tuple[float, ...] = (0.3, 1.0)
    rounds: int = 4
    recorded: int = 10_000
    visits: int = 4
    visited: int = 5_000
    kept: int = 40_000
    stages: int = 2
    screened: int = 20
    screened_steps: int = 6_000
    validated: int = 200
    confirmed: int = 400
    tested: int = 200
    max_loss: float = 0.01
    give_up: float = 4.0


@dataclass(frozen=True)
class Played:
    """What came of some episodes.

    Attributes
    ----------
    returns : list of float
    steps, synops : int
        Over all episodes, the first step of each included.
    """

    returns: list[float]
    steps: int
    synops: int


@dataclass(frozen=True)
class Candidate:
    """A point of the search; ``loss`` and ``reduction`` are those of the screening."""

    network: Network
    scale: float
    input_scale: float
    loss: float
    reduction: float

    def __str__(self) -> str:
        sparsity = connection_sparsity(self.network)
        return (
            f"sparsity {sparsity:.3f} scale {self.scale:g} ({self.input_scale:g} of inputs): "
            f"{self.reduction:.1f}x"
        )


class Bench:
    """One teacher in its environment, and the returns to compare with."""

    def __init__(self, teacher: Policy, env_id: str) -> None:
        self.teacher = teacher
        self.env = make_env(env_id)
        self._dense: dict[range, list[float]] = {}
        self._advantage = 0.0
        self.mean_length = 1.0

    def play(self, policy: Policy, seeds: range) -> Played:
        """Play the episodes by events."""
        session = policy.session()
        returns: list[float] = []
        steps = synops = 0
        for seed in seeds:
            one = episode(session, self.env, seed)
            returns.append(one.total)
            steps += one.steps
            synops += session.simulator.totals.synops  # type: ignore[union-attr]
        return Played(returns, steps, synops)

    def record(self, network: Network, first: int, steps: int) -> tuple[list[float], list[Float]]:
        """Returns and inputs of dense episodes from seed `first` on, until there are `steps`."""
        session = self.teacher.with_network(network).dense_session()
        returns: list[float] = []
        inputs: list[Float] = []
        while sum(map(len, inputs)) < steps:
            one = episode(session, self.env, first + len(returns), record=True)
            returns.append(one.total)
            if one.inputs is not None:
                inputs.append(one.inputs)
        return returns, inputs

    def dense(self, seeds: range) -> list[float]:
        """Returns of the teacher."""
        if seeds not in self._dense:
            session = self.teacher.dense_session()
            self._dense[seeds] = [episode(session, self.env, seed).total for seed in seeds]
        return self._dense[seeds]

    def random(self, seeds: range) -> list[float]:
        """Returns of uniformly random actions."""
        actor = RandomActor(self.env.action_space)
        returns = []
        for seed in seeds:
            actor.seed(seed)
            returns.append(episode(actor, self.env, seed).total)
        return returns

    def measure_advantage(self, seeds: range) -> None:
        """Find what the teacher's mean return is above that of random actions."""
        dense, random = self.dense(seeds), self.random(seeds)
        self._advantage = (math.fsum(dense) - math.fsum(random)) / len(seeds)
        if self._advantage <= 0.0:
            raise InputError(
                "the teacher is not better than random actions; train it for longer",
                where=f"teacher of '{self.teacher.env_id}'",
            )

    def loss(self, returns: Sequence[float], seeds: range) -> tuple[float, float]:
        """Mean loss against the teacher on the same seeds, over its advantage; standard error."""
        dense = self.dense(seeds)
        lost = [(d - r) / self._advantage for d, r in zip(dense, returns, strict=True)]
        mean = math.fsum(lost) / len(lost)
        variance = math.fsum((x - mean) ** 2 for x in lost) / max(len(lost) - 1, 1)
        return mean, math.sqrt(variance / len(lost))


def search(bench: Bench, settings: Settings) -> tuple[Candidate, dict[str, Any]]:
    """Find the largest reduction of which fresh episodes say that it holds the return.

    Prune ever further; then, from the sparsest stage back, find thresholds. Where the action is
    that of the largest output, all of it is done twice: once with every recorded step counting
    the same, and once by how near the decision was.

    Returns
    -------
    Candidate
    dict
        What was tried.

    Raises
    ------
    InputError
        If the teacher is not better than random actions, or no candidate holds the return.
    """
    bench.measure_advantage(seeds("screen", settings.screened))
    best: tuple[Candidate, dict[str, Any]] | None = None
    tried = {"screened_candidates": 0, "validated_candidates": 0, "confirmed_candidates": 0}
    decides = isinstance(bench.teacher.decoder, Argmax)
    for weighted in (False, True) if decides else (False,):
        networks, inputs = _stages(bench, settings, weighted)
        examined = 0
        for network in reversed(networks):
            candidates = _screen(bench, network, inputs, settings)
            tried["screened_candidates"] += len(candidates)
            hopeful = [
                one
                for one in sorted(candidates, key=lambda one: -one.reduction)
                if one.loss <= 2 * settings.max_loss
                and (best is None or one.reduction > best[0].reduction)
            ]
            holds = False
            for one in hopeful:
                tried["validated_candidates"] += 1
                holds = _holds(bench, one, seeds("validation", settings.validated), settings)
                if holds:
                    tried["confirmed_candidates"] += 1
                    holds = _holds(bench, one, seeds("confirmation", settings.confirmed), settings)
                if holds:
                    figures = {
                        "weighted_by_decision": weighted,
                        "recorded_steps": sum(map(len, inputs)),
                    }
                    best = one, figures
                    break
            # Denser stages seldom do better than one that holds.
            examined += holds or (best is not None and not hopeful)
            if examined == settings.stages:
                break
    if best is None:
        raise InputError(
            f"no candidate holds the return within {settings.max_loss:g}; allow lower thresholds "
            "or sparsities",
            where=f"teacher of '{bench.teacher.env_id}'",
        )
    return best[0], {**best[1], **tried}


def seeds(what: str, count: int) -> range:
    """Environment seeds: `count` of those kept for `what`, a key of `SEEDS`."""
    return range(SEEDS[what], SEEDS[what] + count)


def say(text: str) -> None:
    """Tell on stderr how far it is."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _holds(bench: Bench, one: Candidate, episodes: range, settings: Settings) -> bool:
    """Whether the bound of a candidate's loss over some episodes is small enough."""
    played = bench.play(bench.teacher.with_network(one.network), episodes)
    loss, error = bench.loss(played.returns, episodes)
    say(f"  {one}, loss {loss:.4f} +- {error:.4f} over {len(episodes)} episodes")
    return loss + Z95 * error <= settings.max_loss


def _screen(
    bench: Bench, network: Network, inputs: list[Float], settings: Settings
) -> list[Candidate]:
    """Raise the thresholds of one stage until the return goes."""
    # As many episodes as it takes: some tasks end within a few dozen steps.
    enough = math.ceil(settings.screened_steps / bench.mean_length)
    chosen = seeds("screen", max(settings.screened, enough))
    candidates = []
    for ratio in settings.input_ratios:
        for scale in settings.scales:
            event = with_spread_thresholds(network, inputs, scale, input_scale=ratio * scale)
            played = bench.play(bench.teacher.with_network(event), chosen)
            loss, _ = bench.loss(played.returns, chosen)
            reduction = event.dense_macs() * played.steps / max(played.synops, 1)
            candidates.append(Candidate(event, scale, ratio * scale, loss, reduction))
            say(f"  {candidates[-1]}, loss {loss:.4f}")
            if loss > settings.give_up * settings.max_loss:
                break  # higher thresholds lose more
    return candidates


def _stages(bench: Bench, settings: Settings, weighted: bool) -> tuple[list[Network], list[Float]]:
    """Networks of growing sparsity that hold the return, dense; and the inputs recorded.

    The inputs are those that the teacher saw, and those that its students saw (Ross et al. 2011,
    "DAgger"): a pruned policy comes into states that its teacher never visits, and it is there
    that it must do as the teacher would.
    """
    teacher = bench.teacher.network
    returns, taught = bench.record(teacher, SEEDS["record"], settings.recorded)
    bench.mean_length = sum(map(len, taught)) / len(taught)
    first = SEEDS["record"] + len(returns)
    visited: list[Float] = []
    network, inputs, stages = teacher, taught, []
    for sparsity in settings.sparsities:
        network = prune_and_refit(
            network,
            sparsity,
            inputs,
            teacher=teacher,
            step_weights=decision_weights(teacher, inputs) if weighted else None,
            rounds=settings.rounds,
        )
        best = (math.inf, network)
        for _ in range(settings.visits):
            returns, seen = bench.record(network, first, settings.visited)
            loss, _ = bench.loss(returns, range(first, first + len(returns)))
            first += len(returns)
            best = min(best, (loss, network), key=lambda one: one[0])
            # The students seen longest ago are the least like this one.
            visited = [*visited, *seen]
            while sum(map(len, visited)) > settings.kept:
                visited = visited[1:]
            inputs = taught + visited
            step_weights = decision_weights(teacher, inputs) if weighted else None
            network = refit(network, teacher, inputs, step_weights=step_weights)
        loss, network = best
        say(f"  sparsity {sparsity:.3f} without thresholds: loss {loss:.4f}")
        if loss > settings.give_up * settings.max_loss:
            break
        stages.append(network)
    return stages, inputs
