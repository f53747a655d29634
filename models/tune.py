"""Choose the cheapest candidate that holds the return, and say what fresh episodes promise of it.

The choice is a statistical decision. Candidates stand from cheap to dear; each is tried on the
validation seeds against its teacher and random actions, one batch after the other, until a test by
betting (`eventsim.models.bounds`) shows that its loss is below the limit, or there is no hope. Such
a test may be looked at after every batch, so trying costs no confidence; trying several candidates
does, so each gets an equal part of the error that the choice may make. The first that passes ends
the first round; in the time that is left, cheaper ones that could not be told from the limit are
tried on, those first that need the fewest episodes. What is promised of the cheapest that passed is
a bound from test seeds that no stage has seen, and it stands whether or not it is within the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from eventsim.errors import InputError
from eventsim.models.bounds import (
    Pairs,
    Plan,
    Scale,
    episodes_needed,
    is_below,
    plan,
    upper_bound,
)

#: Plays candidate k on the seeds; the same call gives the same returns.
Play: TypeAlias = Callable[[int, range], Pairs]
#: Told after every batch: candidate, its trial so far.
Look: TypeAlias = Callable[[int, "Trial"], None]

#: Episodes after which a candidate may be given up, and of the first batch.
FIRST_BATCH = 20
#: Episodes after which it may be told how many a candidate needs.
_ENOUGH = 100
#: A batch adds this part of the episodes so far, so that looking stays cheap.
_GROWTH = 0.25
#: Which verdict is better.
_RANK = {"holds": 0, "undecided": 1, "running": 1, "loses": 2}
#: Standard errors by which a mean must be above the limit for a candidate to be given up; and
#: while less than a part of the patience is spent, and few episodes, as all candidates are compared
#: with the same first episodes of the teacher, whose luck would else fail all of them.
_HOPELESS, _HOPELESS_EARLY, _EARLY, _EARLY_AT_MOST = 2.0, 4.0, 0.2, 300
#: What a promise may take more than what was planned for it.
_SURE = 1.3


@dataclass(frozen=True)
class Trial:
    """What the validation seeds say of a candidate.

    Attributes
    ----------
    episodes : int
    mean : float
        Relative loss.
    upper : float
        Upper bound on it, at the confidence of this trial; infinite until the trial is over.
    verdict : {"running", "holds", "loses", "undecided"}
        Whether the loss is shown to be below the limit, is given up as too large, or cannot be
        told within the patience, the seeds or the time.
    """

    episodes: int
    mean: float
    upper: float
    verdict: str


@dataclass(frozen=True)
class Choice:
    """Outcome of `choose`.

    Attributes
    ----------
    index : int
        The candidate, one of those that hold, or, where none does, of those that are not known to
        lose more: the cheapest whose promise can be afforded, or the one that needs the fewest
        episodes. Where it is not known what can be afforded, the cheapest that holds.
    holds : bool
        Whether its trial showed that it does.
    trials : tuple of Trial
        Of the candidates tried, from the cheapest on.
    plan : Plan or None
        For its promise; None where no number of episodes would do.
    out_of_time : bool
        Whether time ended the trials.
    """

    index: int
    holds: bool
    trials: tuple[Trial, ...]
    plan: Plan | None
    out_of_time: bool = False


@dataclass(frozen=True)
class Promise:
    """What fresh episodes support.

    Attributes
    ----------
    episodes : int
    mean : float
        Relative loss, sum over sum.
    upper : float
        One-sided upper confidence bound on it.
    worst_episode : float
        Largest relative loss of an episode.
    holds : bool
        Whether the bound is within the limit.
    worst_possible : float
        Loss that no episode exceeds, as the bound assumes.
    """

    episodes: int
    mean: float
    upper: float
    worst_episode: float
    holds: bool
    worst_possible: float


def choose(
    count: int,
    play: Play,
    seeds: range,
    scale: Scale,
    limit: float,
    *,
    level: float = 0.95,
    patience: int | None = None,
    out_of_time: Callable[[], bool] = lambda: False,
    affordable: Callable[[], float] | None = None,
    known: Callable[[int], Pairs | None] = lambda k: None,
    look: Look = lambda k, trial: None,
) -> Choice:
    """Try candidates from cheap to dear, and take the cheapest whose loss is shown to be low.

    The probability that any candidate passes whose mean loss is at or above `limit` is at most
    ``1 - level`` (an e-process each, at a level corrected for their number by Bonferroni).

    Parameters
    ----------
    count : int
        Candidates, >= 1.
    play : callable
        Returns of candidate k, its teacher and random actions on given seeds.
    seeds : range
        Validation seeds; no more than these are played a candidate.
    scale : Scale
        Fixed from other episodes.
    limit : float
        Largest mean loss.
    level : float, optional
        Confidence of the choice as a whole.
    patience : int, optional
        A candidate that by its episodes so far would need more than these is left undecided at
        first, so that one just at the limit does not take the time of all; default half of the
        seeds.
    out_of_time : callable, optional
        Asked before every batch but the very first.
    affordable : callable, optional
        The episodes that a promise may take, so that none is spent on trials that the promise of a
        candidate that holds is likely to need. Of those that hold, or else of those undecided, the
        cheapest is taken that is likely to need no more, or, where none is, the one that needs the
        fewest.
    known : callable, optional
        Other episodes of candidate k, if there are. They count where it is asked whether to go on,
        so that bad luck on the first seeds ends no trial. They are no part of the test, nor of a
        plan: candidates were picked by them.
    look : callable, optional
        Told after every batch.

    Returns
    -------
    Choice

    Raises
    ------
    InputError
        If there is no candidate or no seed, a number is out of range, or a return is not finite.
    """
    if count < 1 or len(seeds) < 1:
        raise InputError("there is nothing to choose from; give a candidate and a seed")
    if not 0.0 < level < 1.0:
        raise InputError(f"is {level}; give a number between 0 and 1", field="level")
    trials: list[Trial] = []
    seen: list[Pairs] = []
    late, each = False, 1.0 - (1.0 - level) / count
    patience = len(seeds) // 2 if patience is None else patience
    early = min(round(_EARLY * patience), _EARLY_AT_MOST)

    def likely(k: int) -> Pairs:
        other = known(k)
        return seen[k] if other is None else other + seen[k]

    def attempt(k: int, wait: int, over: Callable[[], bool]) -> tuple[Trial, Pairs, bool]:
        return _try(k, play, seeds, scale, limit, each, wait, early, over, known(k), look)

    for k in range(count):
        if trials and out_of_time():
            late = True
            break
        trial, pairs, late = attempt(k, patience, out_of_time)
        trials.append(trial)
        seen.append(pairs)
        if trial.verdict == "holds" or late:
            break
    if not late:
        # What is cheaper than one that holds may hold as well, if there is time to show it.
        held = len(trials) - 1 if trials[-1].verdict == "holds" else len(trials)

        def over() -> bool:
            if out_of_time():
                return True
            planned = None if held == len(trials) else plan(seen[held], scale, limit, level=level)
            # The time that the promise of the one that holds takes is not to be spent.
            return (
                planned is not None
                and affordable is not None
                and affordable() < _SURE * planned.episodes
            )

        for k in _once_more(trials, [likely(k) for k in range(len(seen))], scale, limit, each):
            if k > held:
                continue
            trial, pairs, late = attempt(k, len(seeds), over)
            if trial.episodes >= trials[k].episodes:
                trials[k], seen[k] = trial, pairs
            if trial.verdict == "holds":
                held = k
            if late:
                break
    plans = [plan(pairs, scale, limit, level=level) for pairs in seen]
    most = 0.0 if affordable is None else affordable()

    def rank(j: int) -> tuple[int, float, float]:
        # Bounds after unlike numbers of episodes say less than what a promise would take.
        planned = plans[j]
        need = math.inf if planned is None else planned.episodes
        passed = trials[j].verdict == "holds" and affordable is None
        if passed or (math.isfinite(need) and _SURE * need <= most):
            return _RANK[trials[j].verdict], -1.0, j
        return _RANK[trials[j].verdict], need, trials[j].upper

    best = min(range(len(trials)), key=rank)
    return Choice(best, trials[best].verdict == "holds", tuple(trials), plans[best], late)


def promise(
    play: Callable[[range], Pairs],
    seeds: range,
    scale: Scale,
    limit: float,
    planned: Plan | None,
    *,
    level: float = 0.95,
    least: int = 100,
    out_of_time: Callable[[], bool] = lambda: False,
    look: Callable[[int], None] = lambda episodes: None,
) -> Promise:
    """Bound the loss of one policy by episodes that no stage has seen.

    Plays what was planned, and, where the bound is then still above the limit, more. The bound
    holds after any number of episodes, however it was come by, so going on is allowed.

    Parameters
    ----------
    play : callable
        Returns on given seeds.
    seeds : range
        Test seeds; no more than these are played.
    scale : Scale
    limit : float
    planned : Plan or None
        Made without these seeds; None spreads the stakes.
    level : float, optional
        Confidence of the bound.
    least : int, optional
        Episodes that are played in any case.
    out_of_time : callable, optional
        Asked before every further batch once `least` episodes are played.
    look : callable, optional
        Told the episodes so far.

    Returns
    -------
    Promise

    Raises
    ------
    InputError
        If a return is not finite or there is no seed.
    """
    if len(seeds) < 1:
        raise InputError("there is no test seed; give at least one")
    fraction = None if planned is None else planned.fraction
    n = min(least, len(seeds))
    aim = n if planned is None else min(max(n, planned.episodes), len(seeds))
    while True:
        pairs = play(seeds[:n])
        look(n)
        held = is_below(pairs, scale, limit, level=level, fraction=fraction)
        # An estimate is less biased if it does not stop at the first good moment.
        if (n >= aim and held) or n == len(seeds) or out_of_time():
            break
        if n >= aim and _hopeless(pairs, limit):
            break
        n = min(n + _batch(n), aim if n < aim else len(seeds))
    upper = upper_bound(pairs, scale, level=level, fraction=fraction)
    return Promise(
        len(pairs),
        pairs.mean_loss,
        upper,
        pairs.worst_loss,
        upper <= limit,
        scale.holding(pairs).worst,
    )


def describe_need(limit: float, scale: Scale, spread: float) -> tuple[int, int]:
    """Say how many episodes a bound will need, before any candidate is known.

    Parameters
    ----------
    limit : float
        Largest mean loss.
    scale : Scale
    spread : float
        Standard deviation of the teacher's own returns, relative to its advantage.

    Returns
    -------
    least : int
        If the policy does on every seed what its teacher does.
    likely : int
        If its loss varies from seed to seed as much as the teacher's returns do, its mean
        being zero.
    """
    least = episodes_needed(limit, scale) or 0
    return least, max(least, episodes_needed(limit, scale, sd=spread) or least)


def _try(
    k: int,
    play: Play,
    seeds: range,
    scale: Scale,
    limit: float,
    level: float,
    patience: int,
    early: int,
    out_of_time: Callable[[], bool],
    known: Pairs | None,
    look: Look,
) -> tuple[Trial, Pairs, bool]:
    n = min(FIRST_BATCH, len(seeds))
    late = False
    while True:
        pairs = play(k, seeds[:n])
        likely = pairs if known is None else known + pairs
        if is_below(pairs, scale, limit, level=level):
            verdict = "holds"
        elif _hopeless(likely, limit, _HOPELESS_EARLY if n < early else _HOPELESS):
            verdict = "loses"
        elif n == len(seeds) or (
            n >= max(_ENOUGH, early)
            and (n > _SURE * patience or _too_close(likely, scale, limit, level, patience))
        ):
            verdict = "undecided"
        else:
            late = out_of_time()
            verdict = "undecided" if late else "running"
        if verdict != "running":
            break
        look(k, Trial(n, pairs.mean_loss, math.inf, verdict))
        n = min(n + _batch(n), len(seeds))
    trial = Trial(n, pairs.mean_loss, upper_bound(pairs, scale, level=level), verdict)
    look(k, trial)
    return trial, pairs, late


def _once_more(
    trials: list[Trial], likely: list[Pairs], scale: Scale, limit: float, level: float
) -> list[int]:
    """Undecided candidates that episodes may decide; the cheapest of those of the least need first.

    A tie within half of the need is none: what is left of the time is a guess as well.
    """
    needs = {}
    for k, trial in enumerate(trials):
        needed = plan(likely[k], scale, limit, level=level, power=0.5)
        if trial.verdict == "undecided" and needed is not None:
            needs[k] = needed.episodes
    least = min(needs.values(), default=0)
    return sorted(needs, key=lambda k: (needs[k] > 1.5 * least, k))


def _too_close(pairs: Pairs, scale: Scale, limit: float, level: float, patience: int) -> bool:
    """Whether it would take too many episodes even if the mean were a standard error lower."""
    error = float(pairs.lost.std(ddof=1)) / math.sqrt(len(pairs))
    better = Pairs(pairs.policy + error, pairs.teacher, pairs.random)
    needed = plan(better, scale, limit, level=level, power=0.5)
    return needed is None or needed.episodes > patience


def _hopeless(pairs: Pairs, limit: float, errors: float = _HOPELESS) -> bool:
    """Whether the mean is so many standard errors above the limit; more would not mend that."""
    z = pairs.lost - limit * pairs.gained
    error = float(z.std(ddof=1)) / math.sqrt(z.size) if z.size > 1 else math.inf
    return bool(float(np.mean(z)) > errors * error)


def _batch(n: int) -> int:
    return max(FIRST_BATCH, round(_GROWTH * n))
