"""The search for the cheapest event-driven policy that still does the teacher's job.

Stages, each of which leaves a checkpoint:

1. ``teacher``: returns of the teacher and of random actions on the validation seeds, and recorded
   episodes to learn from. Of one that sees pictures also ``events own heard``: itself by events,
   without channels and neurons that never sent.
2. ``dense ...``: dense students of growing width, several starts each, distilled on what they
   themselves visit (DAgger: Ross et al. 2011, arXiv 1011.0686). The smallest that holds the return
   is the honest baseline.
3. ``events ...``: from that student and from wider ones, or, where none holds, from the teacher's
   own weights: rounds of pruning and fine-tuning with the thresholds in the loop. Each round's
   student is a candidate, and of pictures what they begin with, at threshold 0.
4. ``refined ...``: the cheapest of each ladder that holds, made cheaper still by single changes
   that are played in the environment (`eventsim.models.refine`).

The search proposes; what is promised is decided elsewhere, on seeds that no stage has seen.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, SimulationError
from eventsim.models.bounds import Pairs
from eventsim.models.candidate import (
    SEEDS,
    SHAPES,
    Candidate,
    Float,
    Kind,
    Settings,
    check_identity,
    found_of,
    identity_of,
    key_of,
    refined_from,
)
from eventsim.models.compaction import unrolled
from eventsim.models.distill import Training, tempered
from eventsim.models.families import Family, family_of, settings_for
from eventsim.models.playground import Playground
from eventsim.models.policy import Policy
from eventsim.models.refine import Refined, Refining, evenly, refine
from eventsim.models.rollout import make_for
from eventsim.models.student import Demonstrations
from eventsim.models.validation import Played, Validation
from eventsim.output import write_atomically, write_text

__all__ = ["SEEDS", "SHAPES", "Candidate", "OutOfTimeError", "Search", "Settings", "settings_for"]

#: Name of the teacher as a student.
_OWN = "own"
#: The same without what never sent.
_HEARD = "events own heard"
#: Part of the budget after which the teacher's ladder ends, if what it led to is to learn on.
_POLISH_FROM = 0.7
#: Steps of an episode that are recorded at most: where a game is stuck, it would be most of all.
_LONGEST = 5_000


class OutOfTimeError(Exception):
    """The budget is spent; what there is counts."""


class Search:
    """Search for cheap policies.

    Parameters
    ----------
    teacher : Policy
    env_id : str
    env_kwargs : mapping, optional
        For ``gymnasium.make``.
    seed : int, optional
        Of every random choice.
    budget : float, optional
        Seconds of work, over all runs of the search in `workdir`.
    workdir : Path
        Checkpoints go here; a search of the same teacher, environment, seed and settings goes on
        from them.
    say : callable, optional
        Gets a line when something has come out.
    settings : Settings, optional

    Attributes
    ----------
    candidates : list of Candidate
        So far, in the order of the stages.

    Raises
    ------
    InputError
        If `workdir` holds another search.
    UnsupportedError
        If the teacher's decoder cannot be distilled.
    """

    def __init__(
        self,
        teacher: Policy,
        env_id: str,
        env_kwargs: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        budget: float = math.inf,
        workdir: Path,
        say: Callable[[str], None] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.teacher, self.env_id, self.env_kwargs = teacher, env_id, dict(env_kwargs or {})
        self.seed, self.budget, self.workdir = seed, budget, workdir
        self._key = partial(key_of, seed)
        self.settings = settings or settings_for(teacher)
        self.candidates: list[Candidate] = []
        self.family: Family = family_of(teacher)
        self._say = say or (lambda _: None)
        self._ground = Playground(lambda: make_for(teacher, env_id, **self.env_kwargs))
        self._validation = Validation(self._ground, self.settings.screened, self.settings.slack)
        self._demonstrations = Demonstrations()
        self._students: dict[str, Any] = {}
        self._losses: dict[str, float] = {}
        self._spent = 0.0
        self._began = time.perf_counter()
        workdir.mkdir(parents=True, exist_ok=True)
        check_identity(workdir, identity_of(teacher, env_id, self.env_kwargs, seed, self.settings))

    # -- the stages ----------------------------------------------------------------------------

    def stages(self) -> Iterator[str]:
        """Do the stages one by one, yielding each one's name when it is done.

        Stops early, and without an error, when the budget is spent.
        """
        try:
            yield from self._stages()
        except OutOfTimeError:
            self._say("the budget is spent")
        finally:
            self._ground.close()

    def _stages(self) -> Iterator[str]:
        self._stage("teacher", self._teacher)
        yield "teacher"
        options, shapes = self.settings, self.family.shapes
        first = len(shapes) - 1
        if self.family.finds_silent:  # it takes little, and loses nothing
            yield from self._own_begin()
        for k in range(len(shapes)):
            if k == options.own_after:
                yield from self._own_ladder()
            yield self._dense_stage(k)
            if self._losses[self._dense_name(k)] <= options.slack:
                first = k
                break
        else:
            # Where the capacity is needed, what the teacher has learned is the better start.
            if options.own_after >= len(shapes):
                yield from self._own_ladder()
            if _OWN in self._students:
                yield from self._refinements([_OWN])
                return
        starts = [_OWN] if f"events {_OWN} round 0" in self._students else []
        # Each ladder at once after its dense start: what a small budget cuts are the wider ones.
        done: set[int] = set()
        for above in self.settings.wider:
            k = min(first + above, len(shapes) - 1)
            too_wide = self.family.macs(shapes[k]) >= self.teacher.dense_macs
            if k in done or (done and too_wide):
                continue
            done.add(k)
            start = self._dense_name(k)
            if start not in self._students:
                yield self._dense_stage(k)
            yield from self._ladder(start)
            starts.append(start)
        yield from self._refinements(starts)

    def _dense_name(self, k: int) -> str:
        return f"dense {self.family.words(self.family.shapes[k])}"

    def _dense_stage(self, k: int) -> str:
        name = self._dense_name(k)
        self._stage(name, partial(self._dense, name, self.family.shapes[k]))
        return name

    def _ladder(self, start: str) -> Iterator[str]:
        """Rounds of pruning and fine-tuning from a dense student."""
        options = self.settings
        if self.family.finds_silent:
            yield self._heard_stage(start)
        failed = 0
        name = start
        for number in range(options.rounds):
            before, name = name, f"events {start.removeprefix('dense ')} round {number}"
            self._stage(name, partial(self._events, name, before, start, number))
            yield name
            failed = failed + 1 if self._losses[name] > options.slack else 0
            if failed >= options.patience or self._losses[name] > 0.3:
                break

    def _own_ladder(self) -> Iterator[str]:
        """Rounds from the teacher's own weights, if it has the form of a student.

        What a round has destroyed is not built on: the next one begins where the last that held
        ended, cuts half as much and trains twice as long. A loss within a standard error of what
        may be lost counts as held: where returns vary much, few episodes say little.
        """
        if _OWN not in self._students:
            yield from self._own_begin()
        if _OWN not in self._students:
            return
        options = self.settings
        last = _HEARD if _HEARD in self._students else _OWN
        held, gentle, failed = 0, 0, 0
        for number in range(options.rounds):
            name, following = (f"events {_OWN} round {number + k}" for k in (0, 1))
            self._stage(name, partial(self._events, name, last, _OWN, held, gentle))
            yield name
            error = self._validation.error(self.candidates[-1].returns)
            if self._losses[name] - error <= options.slack:
                last, held, failed = name, held + 1, 0
            else:
                gentle, failed = gentle + 1, failed + 1
            if self._done(f"{name} polished 0"):
                yield from self._polish(name)
            late = self.seconds > _POLISH_FROM * self.budget and not self._done(following)
            if failed >= options.patience or (late and self._to_polish()):
                break
        base = self._to_polish()
        if not self._done(f"{base} polished 0"):
            yield from self._polish(base)

    def _polish(self, base: str) -> Iterator[str]:
        """A round of the teacher's ladder learns on, twice."""
        name = base
        for number in range(2 if base else 0):
            before, name = name, f"{base} polished {number}"
            self._stage(name, partial(self._polished, name, before))
            yield name

    def _to_polish(self) -> str:
        """Name of the cheapest round of the teacher's ladder that held, if it is to learn on."""
        held = [c for c in self._held("events", _OWN) if "round" in c.name.split()[-2]]
        return min(held, key=lambda c: c.macs).name if held and self.settings.own_polish else ""

    def _own_begin(self) -> Iterator[str]:
        """The teacher as a student, if it has the form of one, and what of it is ever heard."""
        own = self.family.own(self.teacher, self._demonstrations)
        if own is None:
            return
        self._stage(_OWN, partial(self._own, own))
        yield _OWN
        if self.family.finds_silent:
            yield self._heard_stage(_OWN)

    def _heard_stage(self, start: str) -> str:
        """A dense student by events without what never sent: while that is silent, the same."""
        name, loose = f"events {start.removeprefix('dense ')} heard", self.family.without_silent
        make = partial(loose, self._students[start], self._demonstrations)
        self._stage(name, lambda: self._candidate(name, make(), start))
        return name

    def _refinements(self, starts: Sequence[str]) -> Iterator[str]:
        """Refine the cheapest of each ladder that holds, the cheapest of all first.

        Where playing takes long, one refinement could take all the time, and a candidate with more
        to spare would never come to be; so each gets its part of what is left.
        """
        options = self.settings
        bases = []
        for start in starts:
            held = self._held("events", start)
            if held and options.refine_checks:
                bases.append(min(held, key=lambda c: c.macs))
        bases.sort(key=lambda c: c.macs)
        for k, base in enumerate(bases):
            name = f"refined {base.start.removeprefix('dense ')}"
            network = unrolled(base.policy.network)
            if network.n_synapses > options.refine_synapses:
                self._say(
                    f"{name}: left out, {network.n_synapses:,} synapses are too many to try one "
                    "by one"
                )
                continue
            until = self.seconds + (self.budget - self.seconds) / (len(bases) - k)
            self._refined(name, replace(base, policy=base.policy.with_network(network)), until)
            yield name

    def smallest_dense(self) -> Candidate | None:
        """The smallest dense student that held the return on the validation seeds, if any."""
        return min(self._held("dense"), key=lambda c: c.macs, default=None)

    def _held(self, kind: Kind, start: str | None = None) -> list[Candidate]:
        """Candidates of a kind, and of a ladder, that held the return on the validation seeds."""
        return [
            c
            for c in self.candidates
            if c.kind == kind and start in (None, c.start)
            if self.loss(c.returns) <= self.settings.slack
        ]

    @property
    def teacher_returns(self) -> Float:
        """Of the teacher on the validation seeds."""
        return self._validation.teacher

    @property
    def random_returns(self) -> Float:
        """Of random actions on the validation seeds."""
        return self._validation.random

    def loss(self, returns: Float) -> float:
        """Mean loss, relative to the teacher's advantage over random actions."""
        return self._validation.loss(returns)

    def pairs(self, one: Candidate) -> Pairs | None:
        """Validation episodes of a candidate, unless it was made so as to do well on them."""
        return None if one.name.startswith("refined") else self._validation.pairs(one.returns)

    def _teacher(self) -> dict[str, Any]:
        # At threshold 0 events give the dense outputs, and faster.
        exact = self.teacher.with_network(self.teacher.network.with_thresholds(0.0))
        session = exact.session()
        returns = self._validation.play(session, self._validation.episodes).returns
        random_returns = self._validation.play_random(self.seed)
        inputs = self._record(session, self.settings.recorded_steps, self._key("teacher"))
        self._add(inputs)
        self._say(
            f"teacher: return {returns.mean():.4g} (random {random_returns.mean():.4g}), "
            f"{self.teacher.dense_macs:,} MACs"
        )
        return {
            "returns": returns.tolist(),
            "random": random_returns.tolist(),
        }

    def _dense(self, name: str, shape: Any) -> dict[str, Any]:
        """The best of several starts."""
        options = self.settings
        best: tuple[float, Any, Float] | None = None
        for start in range(options.starts):
            seed = self._key(name, start)
            student = self.family.new(self._demonstrations, shape, seed, start)
            training = Training(
                options.dense_iterations, options.windows, batch=options.dense_batch, events=False
            )
            for visit in range(options.visits + 1):
                student = self._train(student, training, seed + visit)
                if visit == options.visits:
                    break
                policy = student.to_policy(self.teacher, events=False)
                self._add(self._record(policy.session(), options.visited_steps, seed + 100 + visit))
                training = replace(training, iterations=options.dense_iterations // 2)
            returns = self._validate(student.to_policy(self.teacher, events=False)).returns
            loss = self.loss(returns)
            if best is None or loss < best[0]:
                best = (loss, student, returns)
            if loss <= 0.25 * options.slack or loss > options.hopeless:
                break
        if best is None:
            raise InputError(f"is {options.starts}; give at least 1", field="starts")
        loss, student, returns = best
        self._students[name] = student
        self._say(f"{name}: {student.dense_macs:,} MACs, loss {loss:.2%}")
        return found_of(name, "dense", student.dense_macs, 0.0, returns, name)

    def _own(self, student: Any) -> dict[str, Any]:
        """The teacher as a student: dense, it does what it did."""
        student = self._students[_OWN] = tempered(student, self._demonstrations)
        return found_of(_OWN, "dense", student.dense_macs, 0.0, self.teacher_returns, _OWN)

    def _events(
        self, name: str, before: str, start: str, number: int, gentle: int = 0
    ) -> dict[str, Any]:
        """One round of a ladder, so many after its first; the gentler, the more have failed."""
        options = self.settings.from_teacher() if start == _OWN else self.settings
        options = replace(
            options,
            cut_share=options.cut_share * 0.5**gentle,
            event_iterations=options.event_iterations * 2**gentle,
        )
        student = self._students[before]
        if start == _OWN and number == gentle == 0:
            # What students have visited that could not do it says little; so it plays again.
            session = student.to_policy(self.teacher, events=False).session()
            self._add(self._record(session, self.settings.own_steps, self._key(_OWN)))
        if number == 0:
            scale = options.first_threshold
            student = self.family.with_thresholds(student, self._demonstrations, scale)
        else:
            shown = self._demonstrations.latest(options.kept_steps)
            student = self.family.cut(student, shown, options.cut_share)
        cost = options.cost * options.cost_growth**number
        training = options.training(options.event_iterations, start == _OWN, cost=cost)
        return self._trained(name, student, training, start, options)

    def _polished(self, name: str, before: str) -> dict[str, Any]:
        """A student of the teacher's ladder that goes on learning, with nothing cut or dearer."""
        options = self.settings.from_teacher()
        training = options.training(options.own_polish, True, learn_thresholds=False)
        return self._trained(name, self._students[before], training, _OWN, options)

    def _trained(
        self, name: str, student: Any, training: Training, start: str, options: Settings
    ) -> dict[str, Any]:
        """A student that learns, plays, and learns from that too."""
        seed = self._key(name)
        student = self._train(student, training, seed, options.kept_steps)
        policy = student.to_policy(self.teacher)
        self._add(self._record(policy.session(), options.visited_steps // 2, seed + 1))
        student = self._train(student, training, seed + 2, options.kept_steps)
        return self._candidate(name, student, start)

    def _candidate(self, name: str, student: Any, start: str) -> dict[str, Any]:
        """An event-driven student, played."""
        played = self._validate(student.to_policy(self.teacher))
        macs, acs = played.macs / played.steps, played.acs / played.steps
        self._students[name] = student
        self._say(
            f"{name}: {student.n_synapses:,} synapses, {macs:.4g} MACs, loss "
            f"{self.loss(played.returns):.2%}"
        )
        return found_of(name, "events", macs, acs, played.returns, start)

    def _refined(self, name: str, base: Candidate, until: float) -> None:
        """Refine a candidate for so many seconds, or read what came of it."""
        record = self.workdir / f"{name.replace(' ', '-')}.json"
        if record.exists():
            data = json.loads(record.read_text(encoding="utf-8"))
            self._spent = max(self._spent, float(data["seconds"]))
            self._propose(name, base, data["refined"])
            return
        self._check_time()
        options = self.settings
        seeds = self._validation.seeds
        found: list[Refined] = []
        for one in refine(
            base.policy,
            self._validation.watch,
            self._validation.lost_on,
            seeds,
            Refining(
                limit=options.refine_slack * options.slack,
                screened=min(options.screened, len(seeds)),
                validated=len(seeds),
                checks=options.refine_checks,
            ),
            seed=self._key(name),
            go_on=lambda: self.seconds <= until,
        ):
            found.append(one)
            self._say(
                f"{name}: {one.policy.network.n_synapses:,} synapses, {one.macs:.4g} MACs, loss "
                f"{one.loss:.2%} ({one.checks} looks)"
            )
        kept = []
        for k, one in enumerate(evenly(found[1:], options.refine_kept)):
            file = f"{name.replace(' ', '-')}-{k}.safetensors"
            one.policy.save(self.workdir / file)
            kept.append(
                {"file": file, "macs": one.macs, "acs": one.acs, "returns": one.returns.tolist()}
            )
        self._propose(name, base, kept)
        # A refinement that time cut is a proposal, and is begun anew with a larger budget.
        self._check_time()
        if self.seconds > until:
            return
        write_text(record, json.dumps({"refined": kept, "seconds": self.seconds}) + "\n")

    def _propose(self, name: str, base: Candidate, kept: Sequence[dict[str, Any]]) -> None:
        for k, one in enumerate(kept):
            policy = Policy.load(self.workdir / one["file"])
            self.candidates.append(refined_from(base, f"{name} {k + 1}", policy, one))

    def _train(
        self, student: Any, training: Training, seed: int, kept_steps: int | None = None
    ) -> Any:
        self._check_time()
        shown = self._demonstrations.latest(kept_steps or self.settings.kept_steps)
        try:
            return self.family.train(student, shown, training, seed)
        except SimulationError:
            # One more try, gently; the second failure is the user's to see.
            gentle = replace(training, learning_rate=training.learning_rate / 10.0)
            return self.family.train(student, shown, gentle, seed + 7)

    def _validate(self, policy: Policy) -> Played:
        self._check_time()
        return self._validation.check(policy)

    def _record(self, session: Any, steps: int, key: int) -> list[Any]:
        """Encoded inputs of episodes, or of the first part of one, at least so many steps."""
        rng = np.random.default_rng(key)
        recorded: list[Any] = []
        while sum(len(x) for x in recorded) < steps:
            seed = SEEDS["record"] + int(rng.integers(100_000))
            played = self._ground.play(session, seed, record=True, most=_LONGEST)
            if played.inputs is not None:
                recorded.append(self.family.packed(played.inputs))
        return recorded

    def _add(self, inputs: Sequence[Any]) -> None:
        self._demonstrations.add(inputs, self.family.answers(self.teacher, inputs))
        self._fresh.extend(self.family.stored(x) for x in inputs)

    # -- time and checkpoints ------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Work so far, earlier runs included."""
        return self._spent + time.perf_counter() - self._began

    def _check_time(self) -> None:
        if self.seconds > self.budget:
            raise OutOfTimeError

    def _done(self, name: str) -> bool:
        """Whether a stage has been done."""
        return (self.workdir / f"{name.replace(' ', '-')}.json").exists()

    def _stage(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do a stage, or read what it left."""
        slug = name.replace(" ", "-")
        record = self.workdir / f"{slug}.json"
        arrays = self.workdir / f"{slug}.npz"
        if self._done(name):
            self._restore(name, json.loads(record.read_text(encoding="utf-8")), arrays)
            return
        self._check_time()
        self._fresh: list[NDArray[Any]] = []
        data = work()
        student = self._students.get(name)
        stored: dict[str, Any] = {f"inputs/{k}": x for k, x in enumerate(self._fresh)}
        if student is not None:
            stored |= {f"student/{k}": v for k, v in self.family.arrays(student).items()}
            data["activation"] = student.activation

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, **stored)

        write_atomically(arrays, write)
        data["seconds"] = self.seconds
        write_text(record, json.dumps(data) + "\n")  # last: it says that the stage is whole
        self._remember(name, data)

    def _restore(self, name: str, data: dict[str, Any], arrays: Path) -> None:
        with np.load(arrays, allow_pickle=False) as stored:
            inputs = [
                self.family.opened(stored[f"inputs/{k}"])
                for k in range(sum(key.startswith("inputs/") for key in stored))
            ]
            if "activation" in data:
                parts = {
                    key.removeprefix("student/"): stored[key]
                    for key in stored
                    if key.startswith("student/")
                }
                self._students[name] = self.family.restored(data["activation"], parts)
        self._fresh = []
        self._add(inputs)
        self._spent = max(self._spent, float(data["seconds"]))
        self._remember(name, data)

    def _remember(self, name: str, data: dict[str, Any]) -> None:
        if name == "teacher":
            self._validation.teacher = np.array(data["returns"])
            self._validation.random = np.array(data["random"])
            return
        returns = np.array(data["returns"])
        self._losses[name] = self.loss(returns)
        student = self._students[name]
        self.candidates.append(
            Candidate(
                name,
                data["kind"],
                student.to_policy(
                    self.teacher,
                    events=data["kind"] == "events",
                    optimised_from=self.teacher.metadata.get("source"),
                ),
                data["macs"],
                data["acs"],
                returns,
                self.family.sizes(student),
                data["start"],
                student.dense_macs,
            )
        )
