"""Teacher, random actions and candidates on the same seeds; every episode is kept on disk."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from eventsim.convolution import Local
from eventsim.errors import InputError, OutputError
from eventsim.models.bounds import Pairs, Scale
from eventsim.models.playground import Playground
from eventsim.models.policy import Policy, Session
from eventsim.models.rollout import RandomActor, check_spaces, make_for
from eventsim.models.team import Team
from eventsim.models.wrappers import recipe

_TEACHER, _RANDOM = "teacher", "random"
#: Steps after which no more episodes than the fewest are played to know the teacher's return.
AMPLE_STEPS, FEWEST = 100_000, 20
#: Standard errors by which a teacher must be better than random actions.
_CHANCE = 2.0
# A policy is immutable, and its fingerprint is asked for at every episode.
_DIGESTS: WeakKeyDictionary[Policy, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class Outcome:
    """What came of an episode.

    Attributes
    ----------
    total : float
        Return.
    steps, macs, acs : int
        Environment steps, and synaptic operations over all of them, the cold first one included;
        none are counted where the dense network or random actions play.
    """

    total: float
    steps: int
    macs: int = 0
    acs: int = 0


@dataclass(frozen=True)
class Work:
    """Synaptic operations per step over some episodes."""

    steps: int
    macs: float
    acs: float

    @property
    def synops(self) -> float:
        """MACs and ACs per step."""
        return self.macs + self.acs


@dataclass(frozen=True)
class Baseline:
    """What a policy has to lose in its environment.

    Attributes
    ----------
    scale : Scale
        The lowest and highest returns seen of the teacher and of random actions, and their
        difference in the mean.
    teacher, random : float
        Mean returns.
    spread : float
        Standard deviation of the teacher's returns, relative to its advantage.
    seconds : float
        Of an episode of the teacher; NaN if all of them were found in the log.
    episodes : tuple of int
        Of the teacher, and of random actions.
    """

    scale: Scale
    teacher: float
    random: float
    spread: float
    seconds: float
    episodes: tuple[int, int] = (0, 0)


class Arena:
    """An environment in which policies are compared seed by seed.

    An episode is a function of policy and seed, so each is played once: it is remembered, and, with
    a log, found there by whoever continues after an interruption.

    Parameters
    ----------
    teacher : Policy
        Plays by the dense forward pass. It plays by events if it has thresholds, which then are a
        part of it, or convolutions: at threshold 0 events give the dense outputs but for rounding,
        several times faster.
    env_id : str, optional
        Default: the teacher's own.
    log : Path, optional
        File to which a line an episode is appended.
    on_episode : callable, optional
        Called after every episode that had to be played.
    jobs : int, optional
        Processes that `pairs` lets play, see `eventsim.models.team.Team`; with 1 it plays itself.

    Attributes
    ----------
    teacher : Policy
    env_id : str
    env_kwargs : dict
        For ``gymnasium.make``.

    Raises
    ------
    InputError
        If no environment is known, or it does not fit the teacher.
    UnknownNameError, MissingDependencyError
        If it is not there.
    OutputError
        If the log cannot be written.
    """

    def __init__(
        self,
        teacher: Policy,
        env_id: str | None = None,
        *,
        log: Path | None = None,
        on_episode: Callable[[], None] | None = None,
        jobs: int = 1,
    ) -> None:
        env_id = env_id or teacher.env_id
        if env_id is None:
            raise InputError(
                "the policy does not say in which environment it acts; name one by env (--env)"
            )
        self.teacher = teacher
        self.env_id = env_id
        self.env_kwargs: dict[str, Any] = recipe(teacher, env_id)[0]
        self._ground = Playground(lambda: make_for(teacher, env_id))
        self._on_episode = on_episode
        self._jobs = jobs
        self._team: Team | None = None
        self._level = math.nan
        self._known: dict[tuple[str, int], Outcome] = {}
        self._session: tuple[str, Session] | None = None
        network = teacher.network
        by_events = any(p.parameter("threshold").any() for p in network.populations) or any(
            isinstance(q.weights, Local) for q in network.projections
        )
        self._taught = teacher.session() if by_events else teacher.dense_session()
        self._log = log
        try:
            check_spaces(teacher, self._ground.env)
        except BaseException:
            self.close()
            raise
        self._teacher = f"{_TEACHER} {digest(teacher)}"
        if log is not None:
            self._read(log)

    def close(self) -> None:
        """Close the environment, and end the processes."""
        self._ground.close()
        if self._team is not None:
            self._team.close()
            self._team = None

    def __enter__(self) -> Arena:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, seeds: Sequence[int], random_seeds: Sequence[int]) -> Baseline:
        """Play the teacher and random actions, and see what there is to lose.

        Where episodes are long, fewer than all seeds are played: after `AMPLE_STEPS` steps of the
        one or the other `FEWEST` episodes are enough.

        Parameters
        ----------
        seeds, random_seeds : sequence of int
            At least two each.

        Returns
        -------
        Baseline

        Raises
        ------
        InputError
            If the teacher is not deterministic, or not better than random actions by more than
            chance explains.
        """
        self.check_repeatable(seeds[0])
        began, steps = time.perf_counter(), len(self._known)
        taught = _returns(self.taught, seeds)
        played = len(self._known) - steps
        seconds = (time.perf_counter() - began) / played if played else math.nan
        random = _returns(self.random, random_seeds)
        advantage = float(taught.mean() - random.mean())
        error = math.sqrt(taught.var(ddof=1) / taught.size + random.var(ddof=1) / random.size)
        if not advantage > _CHANCE * error:
            raise InputError(
                f"the policy returns {taught.mean():.4g} in the mean over {taught.size} episodes, "
                f"random actions {random.mean():.4g} over {random.size}: it is not better than "
                "random, so there is nothing to keep; give a trained policy, and the environment "
                "it was trained for",
                where=f"environment '{self.env_id}'",
            )
        self._level = float(random.mean())
        low, high = (pick([pick(taught), pick(random)]) for pick in (np.min, np.max))
        scale = Scale(float(low), float(high), advantage)
        return Baseline(
            scale,
            float(taught.mean()),
            self._level,
            float(taught.std(ddof=1)) / advantage,
            seconds,
            (taught.size, random.size),
        )

    def pairs(self, policy: Policy, seeds: Sequence[int]) -> Pairs:
        """Returns of a policy, by events, and of the teacher; `measure` must have been called.

        Random actions stand in it with their mean over the episodes of `measure`: as its error
        counts in the denominator alone, it is not worth an episode a seed.

        Parameters
        ----------
        policy : Policy
        seeds : sequence of int
            Given to ``env.reset``.

        Raises
        ------
        InputError
            If a reward is not finite, there is no seed, or a process cannot play.
        """
        if self._jobs > 1:
            self._play_ahead(policy, seeds)
        # In turn, so that what an interruption leaves are whole pairs.
        rows = [(self.taught(seed).total, self.outcome(policy, seed).total) for seed in seeds]
        if not rows:
            raise InputError("there is no episode to compare; give at least one seed")
        taught, mine = np.array(rows).T
        return Pairs(mine, taught, np.full(len(rows), self._level))

    def outcome(self, policy: Policy, seed: int) -> Outcome:
        """Episode of a policy by events, from a reset state."""
        key = digest(policy)

        def play() -> Outcome:
            if self._session is None or self._session[0] != key:
                # One policy plays many seeds in a row; the simulator of the last is let go.
                self._session = key, policy.session()
            session = self._session[1]
            one = self._ground.play(session, seed)
            counted = session.simulator.totals  # type: ignore[union-attr]
            return Outcome(one.total, one.steps, int(counted.macs.sum()), int(counted.acs.sum()))

        return self._recall(key, seed, play)

    def inputs(self, policy: Policy, seeds: Sequence[int]) -> list[NDArray[np.float64]]:
        """Encoded observations of episodes of a policy by events, an array each; not logged."""
        session = policy.session()
        played = [self._ground.play(session, seed, record=True) for seed in seeds]
        return [one.inputs for one in played if one.inputs is not None]

    def taught(self, seed: int) -> Outcome:
        """Episode of the teacher."""

        def play() -> Outcome:
            one = self._ground.play(self._taught, seed)
            return Outcome(one.total, one.steps)

        return self._recall(self._teacher, seed, play)

    def random(self, seed: int) -> Outcome:
        """Episode of uniformly random actions."""

        def play() -> Outcome:
            actor = RandomActor(self._ground.env.action_space)
            actor.seed(seed)
            one = self._ground.play(actor, seed)
            return Outcome(one.total, one.steps)

        return self._recall(_RANDOM, seed, play)

    def work(self, policy: Policy, seeds: Sequence[int]) -> Work:
        """Synaptic operations per step of a policy: sum over sum."""
        played = [self.outcome(policy, seed) for seed in seeds]
        steps = sum(one.steps for one in played)
        return Work(
            steps, sum(one.macs for one in played) / steps, sum(one.acs for one in played) / steps
        )

    def mean_return(self, policy: Policy, seeds: Sequence[int]) -> float:
        """Mean return of a policy over the episodes from these seeds."""
        return math.fsum(self.outcome(policy, seed).total for seed in seeds) / len(seeds)

    @property
    def is_mujoco(self) -> bool:
        """Whether the environment is one of Gymnasium's on MuJoCo."""
        return self._ground.is_mujoco

    @property
    def is_atari(self) -> bool:
        """Whether the environment is one of the Arcade Learning Environment."""
        return self._ground.is_atari

    def check_repeatable(self, seed: int) -> None:
        """Play the teacher twice on one seed, and see that nothing differs.

        Raises
        ------
        InputError
            If it does: pairs of episodes would mean nothing then.
        """
        first, second = (self._ground.play(self._taught, seed) for _ in range(2))
        if not np.array_equal(first.rewards, second.rewards):
            raise InputError(
                f"two episodes of the teacher from seed {seed} differ (returns {first.total:g} and "
                f"{second.total:g}); policy and environment must be deterministic given the seed, "
                "or no comparison by seeds is possible",
                where=f"environment '{self.env_id}'",
            )

    def _play_ahead(self, policy: Policy, seeds: Sequence[int]) -> None:
        """Let processes play what is not known of a policy and of the teacher."""
        both = ((self._teacher, None), (digest(policy), policy))
        tasks = [
            (key, one, seed)
            for seed in seeds
            for key, one in both
            if (key, seed) not in self._known
        ]
        if len(tasks) < 2:
            return
        if self._team is None:
            self._team = Team(self.teacher, self.env_id, self._jobs)
        for number, row in self._team.play(tasks):
            key, _, seed = tasks[number]
            self._keep(key, seed, Outcome(*row))

    def _recall(self, key: str, seed: int, play: Callable[[], Outcome]) -> Outcome:
        found = self._known.get((key, seed))
        return self._keep(key, seed, play()) if found is None else found

    def _keep(self, key: str, seed: int, found: Outcome) -> Outcome:
        self._known[key, seed] = found
        self._write(key, seed, found)
        if self._on_episode is not None:
            self._on_episode()
        return found

    def _write(self, key: str, seed: int, found: Outcome) -> None:
        if self._log is None:
            return
        row = [key, seed, found.total, found.steps, found.macs, found.acs]
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(
            f"cannot be written ({error.strerror}); choose another workdir", where=str(self._log)
        )

    def _read(self, log: Path) -> None:
        """Take over what an earlier run played; a last line that was cut is dropped."""
        if not log.exists():
            return
        try:
            content = log.read_bytes()
        except OSError as error:
            raise self._cannot_write(error) from error
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(log, len(whole))
        for number, line in enumerate(whole.decode("utf-8", "replace").splitlines(), 1):
            try:
                key, seed, total, steps, macs, acs = json.loads(line)
                self._known[str(key), int(seed)] = Outcome(
                    float(total), int(steps), int(macs), int(acs)
                )
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"line {number} is damaged; delete the file to play its episodes again",
                    where=str(log),
                ) from error


def _returns(play: Callable[[int], Outcome], seeds: Sequence[int]) -> NDArray[np.float64]:
    """Returns of episodes from the first seeds; of all of them, if episodes are not long."""
    totals: list[float] = []
    steps = 0
    for seed in seeds:
        if len(totals) >= FEWEST and steps >= AMPLE_STEPS:
            break
        one = play(seed)
        totals.append(one.total)
        steps += one.steps
    return np.array(totals)


def digest(policy: Policy) -> str:
    """Return a fingerprint of what a policy does."""
    if policy not in _DIGESTS:
        _DIGESTS[policy] = policy.fingerprint()[:16]
    return _DIGESTS[policy]
