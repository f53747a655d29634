"""The optimisation from end to end: look at the teacher, search, choose, promise, write."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim import optimize_outcome
from eventsim.errors import InputError
from eventsim.models.arena import Arena, Baseline
from eventsim.models.bounds import Pairs
from eventsim.models.compaction import shortened
from eventsim.models.policy import Policy
from eventsim.models.quantization import check_size, size_bytes
from eventsim.models.tune import Choice, Promise, Trial, choose, describe_need, promise
from eventsim.optimize_outcome import SCHEMA, Outcome, Point, mark_front
from eventsim.optimize_rounding import Rounding
from eventsim.optimize_search import Candidate, Entry, Search, SearchFactory
from eventsim.optimize_state import Settings, State, seeds_of
from eventsim.output import prepare_folder
from eventsim.tables import plural

#: Episodes of the teacher and of random actions by which it is seen what there is to lose.
BASELINE_EPISODES, RANDOM_EPISODES = 40, 100
#: Part of the budget for candidates of few bits: rounding, fine-tuning and comparing them.
ROUNDING_SHARE = 0.15
#: Test episodes at least, and at most; those of MuJoCo and Atari take longer and vary less. Those
#: of a small game take hundredths of a second and vary so much that thousands tell little.
LEAST_EPISODES, LEAST_LONG_EPISODES, MOST_EPISODES = 100, 30, 20_000
#: Candidates that are tried at most: each costs confidence.
MOST_CANDIDATES = 12
#: What a candidate may have lost by its own search's figures, in units of the limit, to be tried.
_HOPEFUL = 3.0
#: So many of the cheapest that lost next to nothing are tried beside the front.
_SAFE = 6
#: By how much each of them is dearer than the one before, at least.
_APART = 1.25
#: Part of the budget that choosing and testing may take before it is called too small.
_LARGEST_RESERVE = 0.7
#: What is kept for choosing and testing, where the budget has it, in units of the bare need.
_AMPLE = 1.6
#: Part of the budget that is kept for them in any case: near the limit many episodes are needed.
_KEPT_SHARE = 0.25


@dataclass(frozen=True)
class _Unchanged:
    """The teacher as a candidate."""

    policy: Policy
    acs: float = 0.0
    kind: ClassVar[str] = "teacher"
    returns: ClassVar[NDArray[np.float64]] = np.zeros(0)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(p.size for p in self.policy.network.populations)

    @property
    def macs(self) -> float:
        return float(self.policy.dense_macs)

    @property
    def dense_macs(self) -> int:
        return self.policy.dense_macs


def optimize(
    policy: Policy,
    env: str | None = None,
    *,
    out: str | os.PathLike[str],
    settings: Settings,
    name: str | None = None,
    workdir: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] = lambda text: None,
    search: SearchFactory | None = None,
    effort: Mapping[str, Any] | None = None,
) -> Outcome:
    """Find the cheapest event-driven version of a policy that still does the job.

    Parameters
    ----------
    policy : Policy
        The teacher.
    env : str, optional
        Default: the policy's own.
    out : path
        Where the policy is written; front and figures go beside it.
    settings : Settings
    name : str, optional
        What the outcome calls the teacher.
    workdir : path, optional
        Where the state is kept; the same call with the same folder continues. Default: `out` with
        the suffix ``.work``.
    say : callable, optional
        Told how far it is, a line at a time.
    search : SearchFactory, optional
        Default: makes an `eventsim.models.optimize.Search`.
    effort : mapping, optional
        Fields of `eventsim.models.optimize.Settings`, how hard that search tries.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        If the policy is not better than random actions or not deterministic in the environment,
        does not fit it, or the budget is too small for the promise; or the workdir belongs to
        another optimisation.
    OutputError
        If something cannot be written; said before the work begins.
    MissingDependencyError
        If torch is needed and not installed.
    """
    target = Path(out)
    prepare_folder(target.parent)
    folder = prepare_folder(target.with_suffix(".work") if workdir is None else workdir)
    if settings.weight_bits < 32:
        check_size(policy.network)
    if search is None:  # an effort that makes no sense is refused before it is written down
        search = _own_search(policy, effort or {}, settings.max_loss)
    # The clock runs from here, and over all runs that continue each other.
    state = State(folder, policy, env, settings, effort or {})
    try:
        log, jobs = folder / "episodes.jsonl", settings.jobs
        with Arena(policy, env, log=log, on_episode=state.tick, jobs=jobs) as arena:
            if state.resumed:
                say(f"continuing in {folder}, {_time(state.resumed)} done")
            one = _Optimization(arena, settings, state, say, folder)
            one.look()
            found = search(
                policy,
                arena.env_id,
                arena.env_kwargs,
                seed=settings.seed,
                budget=one.search_seconds(),
                workdir=folder / "search",
                say=say,
                max_loss=settings.max_loss,
            )
            with state.search():
                for _ in found.stages():
                    state.tick(force=True)
            outcome = one.finish(
                found, name or str(policy.metadata.get("name") or "policy"), target
            )
    finally:
        state.tick(force=True)
    return outcome


class _Optimization:
    """One optimisation under way: its arena, clock and seeds."""

    def __init__(
        self,
        arena: Arena,
        settings: Settings,
        state: State,
        say: Callable[[str], None],
        folder: Path,
    ) -> None:
        self.arena, self.settings, self.state, self.say = arena, settings, state, say
        self.seeds = seeds_of(settings.seed)
        long = arena.is_mujoco or arena.is_atari
        self.least = LEAST_LONG_EPISODES if long else LEAST_EPISODES
        self.baseline: Baseline
        self._reserve = 0.0
        self.rounding: Rounding | None = None
        if settings.weight_bits < 32:
            self.rounding = Rounding(
                settings.weight_bits,
                arena,
                self.seeds["samples"],
                seed=settings.seed,
                limit=settings.max_loss,
                folder=folder / "rounded",
                say=say,
                late=lambda: self.left() < self._kept(),
            )

    def left(self) -> float:
        """Seconds left of the budget."""
        return self.settings.budget - self.state.elapsed()

    @property
    def pair_seconds(self) -> float:
        """Seconds that a pair of episodes takes, of which as many are played at once as jobs."""
        return self.state.pair_seconds / self.settings.jobs

    def look(self) -> None:
        """See what the teacher does, and what a promise about it will need."""
        limit, say = self.settings.max_loss, self.say
        baseline = self.baseline = self.arena.measure(
            self.seeds["baseline"][:BASELINE_EPISODES], self.seeds["random"][:RANDOM_EPISODES]
        )
        if math.isfinite(baseline.seconds):
            self.state.pair_seconds = 2.0 * baseline.seconds
        pair = self.pair_seconds if math.isfinite(self.pair_seconds) else 0.0
        say(
            f"{self.arena.env_id}: the teacher returns {baseline.teacher:.4g} with "
            f"{self.arena.teacher.dense_macs:,} multiplications a step, random actions "
            f"{baseline.random:.4g}"
        )
        least, likely = describe_need(limit, baseline.scale, baseline.spread)
        least = max(least, self.least)
        say(
            f"to promise a loss of at most {100 * limit:g}% takes {least} episodes beside the "
            f"teacher's if nothing is lost, {max(likely, least)} if the loss varies as the "
            f"teacher's return does; one pair takes about {pair:.2g} s"
        )
        # As many to choose as to promise.
        self._reserve = 2.2 * least * pair
        if self._reserve > _LARGEST_RESERVE * self.settings.budget:
            raise InputError(
                f"is too small: {least} episodes to choose and {least} to promise a loss of at "
                f"most {100 * limit:g}% take about {_time(self._reserve)}; give at least "
                f"{_time(self._reserve / _LARGEST_RESERVE)}, or a larger max_loss",
                field="budget",
            )
        if least > MOST_EPISODES:
            raise InputError(
                f"is {limit:g}; a promise that tight takes {least} episodes, more than the "
                f"{MOST_EPISODES:,} that are played at most; give a larger one",
                field="max_loss",
            )

    def search_seconds(self) -> float:
        """Seconds that the search may take, over all runs that continue each other.

        Several candidates take more episodes to choose from than one, so more than the bare need
        is kept, but not so much that the search starves.
        """
        rounding = 0.0 if self.rounding is None else ROUNDING_SHARE * self.settings.budget
        # What earlier runs chose and tested is spent, and not the search's.
        besides = self.state.besides()
        return max(self.settings.budget - self._kept() - rounding - besides, 0.0)

    def _kept(self) -> float:
        """Seconds for choosing and testing."""
        budget = self.settings.budget
        return max(self._reserve, min(_AMPLE * self._reserve, 0.5 * budget), _KEPT_SHARE * budget)

    def _patience(self) -> int | None:
        """Episodes that a candidate may take to be told from the limit, None for the default."""
        pair = self.pair_seconds
        if not (math.isfinite(pair) and pair > 0.0):
            return None
        affordable = int(0.25 * self._kept() / pair)
        return min(max(affordable, self.least), MOST_EPISODES // 2)

    def finish(
        self,
        found: Search,
        name: str,
        target: Path,
    ) -> Outcome:
        """Choose, promise, and write."""
        everything = [Entry(one, found.loss(one.returns)) for one in found.candidates]
        if not everything:
            self.say("the search found nothing in its part of the budget")
        _check_finite(everything)
        tried = shortlist(everything, self.settings.max_loss)
        if self.rounding is not None and tried:
            others = [one for one in everything if one not in tried]
            tried = self.rounding.entries(tried)
            everything = others + tried
            tried = shortlist(tried, self.settings.max_loss)
        choice = self._choose(tried, found) if tried else None
        if choice is None or choice.trials[choice.index].verdict == "loses":
            self.say("nothing cheaper is near the limit; the teacher itself is left")
            teacher = self.arena.teacher
            # By events: the dearest, and it loses nothing.
            whole = teacher if self.rounding is None else self.rounding.plain(teacher)
            tried = [Entry(_Unchanged(whole), 0.0)]
            everything += tried
            choice = self._choose(tried, found)
        candidate = tried[choice.index].candidate
        policy = candidate.policy
        said = self._promise(policy, choice)
        played = self.seeds["test"][: said.episodes]
        small = found.smallest_dense(self.settings.max_loss)
        data = self._figures(policy, candidate, small, said, name, target)
        front = self._front(everything, tried, choice, small, said, data)
        notes = self._notes(choice, said)
        chosen = policy.with_network(shortened(policy.network)).with_metadata(
            teacher_dense_macs=data["dense_macs"],
            returns={
                "mean": self.arena.mean_return(policy, played),
                "episodes": said.episodes,
                "seeds": [played[0], played[-1]],
            },
            reduction=data["reduction"],
            relative_loss=data["relative_loss"],
            optimize={
                key: data[key]
                for key in ("max_loss", "promise_holds", "factors", "weight_bits", "seeds")
                if key in data
            }
            | {"max_loss": self.settings.max_loss, "worst_possible_loss": said.worst_possible},
        )
        outcome = Outcome(
            data, chosen, self.settings.max_loss, self.baseline.scale.advantage, front, (), notes
        )
        return optimize_outcome.save(outcome, target)

    def _choose(self, tried: Sequence[Entry], found: Search) -> Choice:
        total = len(tried)

        def known(k: int) -> Pairs | None:
            one = tried[k].candidate
            # What was rounded since is another policy.
            return found.pairs(one) if one in found.candidates else None

        self.say(f"trying {plural(total, 'candidate')}, from the cheapest on")

        def look(k: int, trial: Trial) -> None:
            self.state.tick()
            if trial.verdict != "running":
                self.say(
                    f"  {k + 1} of {total}: {tried[k].synops:.3g} MACs a step, loss "
                    f"{100 * trial.mean:.2f}% over {trial.episodes} episodes: {trial.verdict}"
                )

        return choose(
            total,
            lambda k, seeds: self.arena.pairs(tried[k].candidate.policy, seeds),
            self.seeds["validation"][:MOST_EPISODES],
            self.baseline.scale,
            self.settings.max_loss,
            # Half of what was kept is for the promise, and a candidate that would take more than
            # half of the other one leaves no time for those behind it.
            patience=self._patience(),
            out_of_time=lambda: self.left() < 0.5 * self._kept(),
            affordable=lambda: self.left() / max(self.pair_seconds, 1e-9),
            known=known,
            look=look,
        )

    def _promise(self, policy: Policy, choice: Choice) -> Promise:
        planned = choice.plan
        if planned is None:
            self.say("no number of episodes would show that its loss is below the limit")
        else:
            cost = planned.episodes * self.pair_seconds
            self.say(
                f"the promise will need about {planned.episodes} fresh episodes "
                f"({_time(cost) if math.isfinite(cost) else 'time unknown'})"
            )
            if cost > self.left():
                self.say(
                    f"the budget is too small for that: {_time(max(self.left(), 0.0))} are left; "
                    "the promise will be what they support"
                )

        def look(episodes: int) -> None:
            self.state.tick()
            self.say(f"  {episodes} test episodes")

        return promise(
            lambda seeds: self.arena.pairs(policy, seeds),
            self.seeds["test"][:MOST_EPISODES],
            self.baseline.scale,
            self.settings.max_loss,
            planned,
            least=self.least,
            out_of_time=lambda: self.left() <= 0.0,
            look=look,
        )

    def _figures(
        self,
        policy: Policy,
        candidate: Candidate,
        small: Candidate | None,
        said: Promise,
        name: str,
        target: Path,
    ) -> dict[str, Any]:
        played = self.seeds["test"][: said.episodes]
        work = self.arena.work(policy, played)
        teacher = self.arena.teacher.dense_macs
        unchanged = candidate.kind == _Unchanged.kind
        student = teacher if unchanged else candidate.dense_macs
        synapses = policy.network.n_synapses
        beside: dict[str, Any] | None = None
        if small is not None:
            beside = {
                "shape": list(small.shape),
                "macs": small.dense_macs,
                "relative_loss": self._loss_of(small, said.episodes),
            }
        return {
            "schema": SCHEMA,
            "teacher": name,
            "policy": str(target),
            "env": self.arena.env_id,
            "episodes": said.episodes,
            "dense_macs": teacher,
            "small_dense": beside,
            "macs": work.macs,
            "acs": work.acs,
            "reduction": _ratio(teacher, work.synops),
            "gain_over_small_dense": beside and _ratio(beside["macs"], work.synops),
            "factors": {
                "shrink": teacher / student,
                "prune": _ratio(student, synapses),
                "events": _ratio(synapses, work.synops),
            },
            "relative_loss": {
                "mean": said.mean,
                "upper95": said.upper,
                "worst_episode": said.worst_episode,
            },
            "promise_holds": said.holds,
            "weight_bits": self.settings.weight_bits,
            "bytes": size_of(policy),
            "seconds": round(self.state.elapsed(), 1),
            "seeds": {"optimization": self.settings.seed}
            | {
                "baseline": _ends(self.seeds["baseline"][: self.baseline.episodes[0]]),
                "random": _ends(self.seeds["random"][: self.baseline.episodes[1]]),
                "validation": _ends(self.seeds["validation"][:MOST_EPISODES]),
                "test": _ends(played),
            },
        }

    def _loss_of(self, small: Candidate, episodes: int) -> float:
        """Loss of the small student on the test seeds; on fewer where time is over.

        The teacher loses nothing against itself, and need not play for that.
        """
        if small.policy is self.arena.teacher:
            return 0.0
        n = self.least
        while True:
            pairs = self.arena.pairs(small.policy, self.seeds["test"][:n])
            if n >= episodes or self.left() <= 0.0:
                return pairs.mean_loss
            n = min(2 * n, episodes)

    def _front(
        self,
        everything: Sequence[Entry],
        tried: Sequence[Entry],
        choice: Choice,
        small: Candidate | None,
        said: Promise,
        data: dict[str, Any],
    ) -> tuple[Point, ...]:
        """Teacher, smallest dense student, candidates; those tried with their validation."""
        baseline = self.baseline
        trials = {id(one): t for one, t in zip(tried, choice.trials, strict=False)}

        def returned(loss: float) -> float:
            return baseline.teacher - loss * baseline.scale.advantage

        shape = tuple(p.size for p in self.arena.teacher.network.populations)
        points = [Point("teacher", "dense", shape, data["dense_macs"], 0.0, baseline.teacher, 0.0)]
        if small is not None:
            loss = data["small_dense"]["relative_loss"]
            macs = data["small_dense"]["macs"]
            points.append(
                Point("small dense", "dense", tuple(small.shape), macs, 0.0, returned(loss), loss)
            )
        for one in sorted(everything, key=lambda one: (one.synops, one.loss)):
            trial, chosen = trials.get(id(one)), one is tried[choice.index]
            loss, episodes = (one.loss, 0) if trial is None else (trial.mean, trial.episodes)
            macs, acs = one.candidate.macs, one.candidate.acs
            if chosen:
                macs, acs, loss, episodes = data["macs"], data["acs"], said.mean, said.episodes
            points.append(
                Point(
                    "candidate",
                    one.candidate.kind,
                    tuple(one.candidate.shape),
                    macs,
                    acs,
                    returned(loss),
                    loss,
                    episodes,
                    "" if trial is None else trial.verdict,
                    chosen=chosen,
                )
            )
        return mark_front(points)

    def _notes(self, choice: Choice, said: Promise) -> tuple[str, ...]:
        limit = self.settings.max_loss
        notes = [
            "The bound holds for losses of any distribution, provided that no episode loses more "
            f"than {said.worst_possible:.3g} times the teacher's advantage over random actions: "
            "the range of all returns seen."
        ]
        if choice.out_of_time and not choice.holds:
            notes.append("The budget ended the trials of candidates early; a larger one may help.")
        elif not choice.holds:
            notes.append(
                f"No candidate was shown to lose less than {100 * limit:g}%; this is the one of "
                "the lowest bound."
            )
        elif not said.holds:
            notes.append(
                "The trials said that it holds and the fresh seeds do not confirm it: this is what "
                "they support."
            )
        return tuple(notes)


def shortlist(entries: Sequence[Entry], limit: float) -> list[Entry]:
    """Return the candidates worth an episode, from cheap to dear.

    Those on the front of work against loss, as the search itself measured them, and those that
    lost next to nothing, since luck on the front must not hide them, each of these well dearer than
    the one before, as steps of one refinement share their fate; if they are many, some evenly
    chosen, for every trial costs confidence. Where none comes near the limit, the front as it is.
    """
    ordered = sorted(entries, key=lambda one: (one.synops, one.loss))
    front: list[Entry] = []
    for one in ordered:
        if not front or one.loss < front[-1].loss:
            front.append(one)
    safe: list[Entry] = []
    for one in ordered:
        apart = not safe or one.synops >= _APART * safe[-1].synops
        if one.loss <= 0.5 * limit and apart and len(safe) < _SAFE:
            safe.append(one)
    near = [one for one in ordered if one in front or one in safe]
    chosen = [one for one in near if one.loss <= _HOPEFUL * limit] or front
    if len(chosen) > MOST_CANDIDATES:
        step = (len(chosen) - 1) / (MOST_CANDIDATES - 1)
        chosen = [chosen[round(j * step)] for j in range(MOST_CANDIDATES)]
    return chosen


def size_of(policy: Policy) -> int:
    """Return the bytes of a policy's parameters, in the smaller of dense and sparse form."""
    size = size_bytes(policy)
    return min(size.dense, size.sparse)


def _own_search(policy: Policy, effort: Mapping[str, Any], max_loss: float) -> SearchFactory:
    module = importlib.import_module("eventsim.models.optimize")
    try:
        settings = module.settings_for(policy, **{"slack": max_loss, **effort})
    except TypeError as error:
        raise InputError(f"has a field that is unknown: {error}", field="effort") from error

    def make(
        teacher: Policy, env_id: str, env_kwargs: Mapping[str, Any], max_loss: float, **options: Any
    ) -> Search:
        made: Search = module.Search(teacher, env_id, env_kwargs, settings=settings, **options)
        return made

    return make


def _check_finite(entries: Sequence[Entry]) -> None:
    bad = [one for one in entries if not math.isfinite(one.loss + one.synops)]
    if bad:
        raise InputError(
            f"{len(bad)} of {len(entries)} candidates have a loss that is not finite: the "
            "distillation diverged, or the environment gives rewards that are not numbers",
            where="search",
        )


def _ratio(above: float, below: float) -> float | None:
    return above / below if below else None


def _ends(seeds: range) -> list[int]:
    return [seeds[0], seeds[-1]]


def _time(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s" if seconds >= 10.0 else f"{seconds:.1f} s"
    return f"{seconds / 60.0:.0f} min" if seconds < 5400.0 else f"{seconds / 3600.0:.1f} h"
