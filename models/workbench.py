"""What a search for cheap policies works with: data, trainings, checkpoints, and its time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
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
    Candidate,
    Float,
    Kind,
    Settings,
    check_identity,
    found_of,
    identity_of,
    key_of,
    settings_for,
)
from eventsim.models.distill import Training, tempered
from eventsim.models.families import Family, family_of
from eventsim.models.games import LONGEST
from eventsim.models.last_layer import for_last_layer
from eventsim.models.on_policy import OnPolicy
from eventsim.models.playground import Playground
from eventsim.models.policy import Policy
from eventsim.models.reinforce import Progress, Reinforcement, for_frames
from eventsim.models.rollout import make_for
from eventsim.models.student import Demonstrations
from eventsim.models.validation import Validation
from eventsim.output import write_atomically, write_text

#: Seconds of a training after which it is seen whether it will be done in time.
_LOOK_AFTER = 5.0
#: Seconds after which one that goes on for long says how far it is.
_SAY_AFTER = 180.0
#: Name of the teacher as a student.
OWN = "own"


class OutOfTimeError(Exception):
    """The budget is spent; what there is counts."""


class Workbench:
    """Students, what they learn from, and what has come of them; see `eventsim.models.optimize`."""

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
        self._ground = Playground(self._make)
        self._validation = Validation(self._ground, self.settings.screened, self.settings.slack)
        self._demonstrations = Demonstrations()
        self._students: dict[str, Any] = {}
        self._losses: dict[str, float] = {}
        self._spent = 0.0
        self._began = time.perf_counter()
        workdir.mkdir(parents=True, exist_ok=True)
        check_identity(workdir, identity_of(teacher, env_id, self.env_kwargs, seed, self.settings))

    def _held(self, kind: Kind, start: str | None = None) -> list[Candidate]:
        """Candidates of a kind, and of a ladder, that held the return on the validation seeds."""
        return self._within(self.settings.slack, kind, start)

    def _within(self, most: float, kind: Kind, start: str | None) -> list[Candidate]:
        """Those that lost so much at most."""
        return [
            c
            for c in self.candidates
            if c.kind == kind and start in (None, c.start) and self.loss(c.returns) <= most
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
        """Validation episodes of a candidate, unless it was made so as to do well on them.

        Nor of a teacher with thresholds: here it played without.
        """
        if one.name.startswith("refined") or self._teacher_holds:
            return None
        return self._validation.pairs(one.returns)

    @property
    def _teacher_holds(self) -> bool:
        return any(p.parameter("threshold").any() for p in self.teacher.network.populations)

    # -- what stages do ------------------------------------------------------------------------

    def _make(self) -> Any:
        """An environment as the teacher sees it."""
        return make_for(self.teacher, self.env_id, **self.env_kwargs)

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
            returns = self._validation.check(student.to_policy(self.teacher, events=False)).returns
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
        student = self._students[OWN] = tempered(student, self._demonstrations)
        return found_of(OWN, "dense", student.dense_macs, 0.0, self.teacher_returns, OWN)

    def _events(
        self, name: str, before: str, start: str, number: int, gentle: int = 0
    ) -> dict[str, Any]:
        """One round of a ladder, so many after its first; the gentler, the more have failed."""
        options = self.settings.from_teacher() if start == OWN else self.settings
        options = replace(
            options,
            cut_share=options.cut_share * 0.5**gentle,
            event_iterations=options.event_iterations * 2**gentle,
        )
        student = self._students[before]
        if start == OWN and number == gentle == 0:
            # What students have visited that could not do it says little; so it plays again.
            session = student.to_policy(self.teacher, events=False).session()
            self._add(self._record(session, self.settings.own_steps, self._key(OWN)))
        if number == 0:
            scale = options.first_threshold
            student = self.family.with_thresholds(student, self._demonstrations, scale)
        else:
            shown = self._demonstrations.latest(options.kept_steps)
            student = self.family.cut(student, shown, options.cut_share)
        cost = options.cost * options.cost_growth**number
        training = options.training(options.event_iterations, start == OWN, cost=cost)
        return self._trained(name, student, training, start, options)

    def _polished(self, name: str, before: str, start: str, seconds: float) -> dict[str, Any]:
        """A student that goes on learning; nothing is cut.

        Where it plays, it takes so many seconds at most, and its thresholds are raised before if
        it holds.
        """
        options = self.settings.from_teacher()
        if not self._accompanies:
            training = options.training(options.own_polish, True, learn_thresholds=False)
            return self._trained(name, self._students[before], training, start, options)
        own = start == OWN
        learning = OnPolicy(
            options.own_accompanied,
            learning_rate=options.own_learning_rate if own else options.accompanied_rate,
            cost=options.accompanied_cost if own else self.settings.cost,
            half=self.family.sees_frames,
            seconds=seconds,
        )
        student = self._students[before].copy()
        if self._losses[before] <= options.slack:
            student.thresholds = [options.accompanied_raise * t for t in student.thresholds]
        student = self.family.accompany(
            student,
            self._students[OWN],
            self.teacher,
            self._make,
            learning,
            self._key(name),
        )
        return self._candidate(name, student, start)

    @property
    def _accompanies(self) -> bool:
        """Whether ladders learn on while they play."""
        return bool(self.settings.own_accompanied and self.family.plays)

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

    def _reinforced(
        self, name: str, before: str, start: str, share: float, seconds: float
    ) -> dict[str, Any]:
        """A student that is cut by a share, and learns from rewards.

        On frames of a screen it takes so many seconds at most.
        """
        options, seed = self.settings, self._key(name)
        self._check_time()
        student = self._students[before]
        if share > 0.0:
            student = self.family.cut(
                student, self._demonstrations.latest(options.kept_steps), share
            )
        learning, own = Reinforcement(options.reinforced_steps), None
        told: Callable[[Progress], None] = self._while_it_fits(learning.steps)
        if self.family.sees_frames:
            learning, own = for_frames(replace(learning, seconds=seconds)), self._students.get(OWN)
            told = self._now_and_then(name)
        last = options.reinforced_last_layer
        if last:
            learning = for_last_layer(learning)
        student = self.family.reinforce(
            student, own, self.teacher, self._make, learning, seed, told, last
        )
        # A further cut goes by what it visits now.
        self._add(
            self._record(student.to_policy(self.teacher).session(), options.visited_steps, seed)
        )
        return self._candidate(name, student, start)

    def _now_and_then(self, name: str) -> Callable[[Progress], None]:
        """Something to be told of batches, which says how far a long learning is."""
        said, seen = [self.seconds], list[float]()

        def look(progress: Progress) -> None:
            if not math.isnan(progress.mean_return):
                seen.append(progress.mean_return)
            if self.seconds - said[0] > _SAY_AFTER and seen:
                said[0], mean = self.seconds, float(np.mean(seen))
                self._say(f"{name}: {progress.steps:,} steps, drawn actions return {mean:.4g}")
                seen.clear()

        return look

    def _while_it_fits(self, steps: int) -> Callable[[Progress], None]:
        """Something to be told of batches, which ends what will not be done within the budget."""
        first: list[float] = []  # the first batch begins with what is done but once

        def look(progress: Progress) -> None:
            now, done = self.seconds, progress.steps
            if not first:
                first.extend((now, done))
            elif 2 * done < steps and now - first[0] > _LOOK_AFTER:
                rate = (done - first[1]) / (now - first[0])
                if now + (steps - done) / rate > self.budget:
                    raise OutOfTimeError
            if done < steps:
                self._check_time()

        return look

    def _candidate(self, name: str, student: Any, start: str) -> dict[str, Any]:
        """An event-driven student, played, though time be over: what it learned took longer."""
        played = self._validation.check(student.to_policy(self.teacher))
        macs, acs = played.macs / played.steps, played.acs / played.steps
        self._students[name] = student
        self._say(
            f"{name}: {student.n_synapses:,} synapses, {macs:.4g} MACs, loss "
            f"{self.loss(played.returns):.2%}"
        )
        return found_of(name, "events", macs, acs, played.returns, start)

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

    def _record(self, session: Any, steps: int, key: int) -> list[Any]:
        """Encoded inputs of episodes, or of the first part of one, at least so many steps."""
        rng = np.random.default_rng(key)
        recorded: list[Any] = []
        while sum(len(x) for x in recorded) < steps:
            seed = SEEDS["record"] + int(rng.integers(100_000))
            played = self._ground.play(session, seed, record=True, most=LONGEST)
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
        if name == OWN and not self._teacher_holds:
            # Of which all is known. One with thresholds plays otherwise than it would dense.
            policy = self.teacher
        else:
            policy = student.to_policy(
                self.teacher,
                events=data["kind"] == "events",
                optimised_from=self.teacher.metadata.get("source"),
            )
        self.candidates.append(
            Candidate(
                name,
                data["kind"],
                policy,
                data["macs"],
                data["acs"],
                returns,
                self.family.sizes(student),
                data["start"],
                student.dense_macs,
            )
        )
