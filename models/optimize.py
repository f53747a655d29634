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
4. ``... polished ...``: the cheapest round of the teacher's ladder that holds learns on twice,
   where it can in play (`eventsim.models.on_policy`), in what time is left; of a student's
   ladder, in play only, the cheapest that holds or nearly does, before wider students.
5. ``reinforced ...``: of pictures, the cheapest of each ladder that holds or may be mended, or what
   it became in play, learns on from rewards (`eventsim.models.reinforce`), and is cut further
   while it holds; or its last layer alone does (`eventsim.models.last_layer`), and nothing is cut.
   Of frames of a screen only if it is asked for, in its part of the time left.
6. ``refined ...``: the cheapest of each ladder that holds, made cheaper still by single changes
   that are played in the environment (`eventsim.models.refine`).

The search proposes; what is promised is decided elsewhere, on seeds that no stage has seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from eventsim.errors import SimulationError
from eventsim.models.candidate import (
    SEEDS,
    SHAPES,
    Candidate,
    Settings,
    refined_from,
    settings_for,
)
from eventsim.models.compaction import unrolled
from eventsim.models.policy import Policy
from eventsim.models.refine import Refined, Refining, evenly, refine
from eventsim.models.workbench import OWN, OutOfTimeError, Workbench
from eventsim.output import write_text

__all__ = ["SEEDS", "SHAPES", "Candidate", "OutOfTimeError", "Search", "Settings", "settings_for"]

#: The same without what never sent.
_HEARD = "events own heard"
#: Part of the budget after which the teacher's ladder ends, if what it led to is to learn on.
_POLISH_FROM = 0.7
#: Seconds in which a student whose thresholds were raised does not yet learn to do with them.
_LEAST = 60.0
#: What a student may lose, in units of the slack, for rewards to be expected to mend it.
_MENDABLE = 2.0
#: Rounds of learning from rewards that may fail in a row.
_UNMENDED = 2


def _is_round(candidate: Candidate) -> bool:
    """Whether it is a round of a ladder, not what began it or came of it."""
    return candidate.name.split()[-2] == "round"


def _later(name: str) -> set[str]:
    """Names of what a round becomes that learns on, or of what becomes of that."""
    base, _, number = name.partition(" polished ")
    return {f"{base} polished {k}" for k in range(int(number) + 1 if number else 0, 2)}


class Search(Workbench):
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
        own_after = max(options.own_after, options.narrowest)
        first = len(shapes) - 1
        if self.family.finds_silent:  # it takes little, and loses nothing
            yield from self._own_begin()
        for k in range(options.narrowest, len(shapes)):
            if k == own_after:
                yield from self._own_ladder()
                yield from self._reinforcements([OWN])
            yield self._dense_stage(k)
            if self._losses[self._dense_name(k)] <= options.slack:
                first = k
                break
        else:
            # Where the capacity is needed, what the teacher has learned is the better start.
            if own_after >= len(shapes):
                yield from self._own_ladder()
                yield from self._reinforcements([OWN])
            if OWN in self._students:
                yield from self._refinements([OWN])
                return
        starts = [OWN] if f"events {OWN} round 0" in self._students else []
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
            yield from self._accompaniment(start)
            starts.append(start)
        students = [start for start in starts if start != OWN]
        yield from self._reinforcements(students)
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

        What a round has destroyed is not built on: the next one begins where the last that nearly
        held ended, cuts half as much and trains twice as long.
        """
        if OWN not in self._students:
            yield from self._own_begin()
        if OWN not in self._students:
            return
        options = self.settings
        last = _HEARD if _HEARD in self._students else OWN
        held, gentle, failed = 0, 0, 0
        for number in range(options.rounds):
            name, following = (f"events {OWN} round {number + k}" for k in (0, 1))
            self._stage(name, partial(self._events, name, last, OWN, held, gentle))
            yield name
            if self._nearly_holds(self.candidates[-1]):
                last, held, failed = name, held + 1, 0
            else:
                gentle, failed = gentle + 1, failed + 1
            yield from self._polish(name, self._done)
            late = self.seconds > _POLISH_FROM * self.budget and not self._done(following)
            if failed >= options.patience or (late and (self._to_polish() or self._to_mend(OWN))):
                break
        yield from self._polish(self._to_polish(), lambda _: True)

    def _accompaniment(self, start: str) -> Iterator[str]:
        """Let a student's round learn on in play: the cheapest that holds or nearly does.

        Recorded windows do not show what thresholds do in play, so that rounds lose by them. It
        comes before any wider student: this one is known to be wide enough.
        """
        if not self._accompanies or OWN not in self._students:
            return
        near = [
            c
            for c in self.candidates
            if (c.kind, c.start) == ("events", start) and _is_round(c) and self._nearly_holds(c)
        ]
        if near:
            base = min(near, key=lambda c: c.macs)
            yield from self._polish(base.name, lambda _: True, start)

    def _nearly_holds(self, candidate: Candidate) -> bool:
        """Whether it lost no more than it may, or a standard error above that.

        Where returns vary much, few episodes say little.
        """
        error = self._validation.error(candidate.returns)
        return self.loss(candidate.returns) - error <= self.settings.slack

    def _polish(self, base: str, asked: Callable[[str], bool], start: str = OWN) -> Iterator[str]:
        """A round of a ladder learns on, twice, as far as it is asked for."""
        name = base
        for number in range(2 if base else 0):
            before, name = name, f"{base} polished {number}"
            if name in self._students:
                continue
            left = self.budget - self.seconds
            fits = self._done(name) or not self._accompanies or left >= _LEAST
            if not (asked(name) and fits):
                return
            # The second one gets half of the time, unless that is too little for both.
            share = 0.5 if number == 0 and left >= 2.0 * _LEAST else 1.0
            try:
                self._stage(name, partial(self._polished, name, before, start, share * left))
            except SimulationError as error:
                self._say(f"{name}: left out, {error}")
                return
            yield name

    def _to_polish(self) -> str:
        """Name of the cheapest round of the teacher's ladder that held, if it is to learn on."""
        held = [c for c in self._held("events", OWN) if _is_round(c)]
        if not held:
            return ""
        if self._accompanies:
            asked = self.budget - self.seconds >= _LEAST
        else:
            asked = bool(self.settings.own_polish)
        return min(held, key=lambda c: c.macs).name if asked else ""

    def _own_begin(self) -> Iterator[str]:
        """The teacher as a student, if it has the form of one, and what of it is ever heard."""
        own = self.family.own(self.teacher, self._demonstrations)
        if own is None:
            return
        self._stage(OWN, partial(self._own, own))
        yield OWN
        if self.family.finds_silent:
            yield self._heard_stage(OWN)

    def _heard_stage(self, start: str) -> str:
        """A dense student by events without what never sent: while that is silent, the same."""
        name, loose = f"events {start.removeprefix('dense ')} heard", self.family.without_silent
        make = partial(loose, self._students[start], self._demonstrations)
        self._stage(name, lambda: self._candidate(name, make(), start))
        return name

    def _to_mend(self, start: str) -> Candidate | None:
        """The cheapest of a ladder from which rewards may come to what holds, if that is asked."""
        options = self.settings
        if not (options.reinforced_steps and self.family.plays):
            return None
        near = [
            c
            for c in self._within(_MENDABLE * options.slack, "events", start)
            # What was never cut has nothing to mend.
            if not c.name.endswith("heard") and "reinforced" not in c.name
        ]
        # Of a round that learned on, what it became last.
        names = {c.name for c in near}
        near = [c for c in near if not names & _later(c.name)]
        return min(near, key=lambda c: c.macs, default=None)

    def _reinforcements(self, starts: Sequence[str]) -> Iterator[str]:
        """Let the cheapest of each ladder learn from rewards, the cheapest of all first.

        On frames of a screen each gets its part of the time that is left.
        """
        bases = [base for start in starts if (base := self._to_mend(start)) is not None]
        for k, base in enumerate(sorted(bases, key=lambda c: c.macs)):
            until = self.seconds + (self.budget - self.seconds) / (len(bases) - k)
            options = self.settings.from_teacher() if base.start == OWN else self.settings
            name, failed = base.name, 0
            for number in range(options.reinforced_rounds):
                holds = self._losses[name] <= options.slack
                # What a cut does to other layers, the last one alone could not mend.
                cuts = number and holds and not options.reinforced_last_layer
                share = options.cut_share if cuts else 0.0
                before, name = name, f"{base.name} reinforced {number}"
                left = until - self.seconds
                if self.family.sees_frames and left < _LEAST and not self._done(name):
                    break
                begin = partial(self._reinforced, name, before, base.start, share, left)
                try:
                    self._stage(name, begin)
                except SimulationError as error:
                    self._say(f"{name}: left out, {error}")
                    break
                yield name
                failed = failed + 1 if self._losses[name] > options.slack else 0
                if failed >= _UNMENDED:
                    break

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

    def smallest_dense(self, most: float) -> Candidate | None:
        """The smallest dense student that lost so much at most on the validation seeds, if any.

        And that the search took to hold the return.
        """
        found = self._within(min(most, self.settings.slack), "dense", None)
        return min(found, key=lambda c: c.macs, default=None)

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
