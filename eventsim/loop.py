"""The closed loop of a run: three policies take turns on the same seeds, and one is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError
from eventsim.models import rollout
from eventsim.progress import EpisodeBar
from eventsim.recording import EVENT_COLUMNS
from eventsim.records import Records
from eventsim.result import StepCounters
from eventsim.run_recording import RunRecorder
from eventsim.simulator import Simulator
from eventsim.trace import CounterRecorder, EventRecorder, Hook

if TYPE_CHECKING:
    import gymnasium as gym

    from eventsim.analysis.video import Film
    from eventsim.models.policy import Policy, Session
    from eventsim.network import Network

    Env: TypeAlias = gym.Env[Any, Any]


def environment(policy: Policy, env: str | Env | None, *, render: bool = False) -> Env:
    """Return an environment by name, as it is, or as the policy's metadata name it.

    With `render`, one that is made here gives pictures.

    Raises
    ------
    InputError
        If neither the caller nor the policy names one.
    UnknownNameError, MissingDependencyError
        As `eventsim.models.rollout.make_env`.
    """
    if env is None:
        env = policy.env_id
        if env is None:
            raise InputError(
                "the policy does not say in which environment it acts; name one by env (--env)"
            )
    if not isinstance(env, str):
        return env
    return rollout.make_for(policy, env, **({"render_mode": "rgb_array"} if render else {}))


# Numbers of an action that is kept.
_LONGEST_ACTION = 32


class Worlds:
    """The environments: one for each policy that plays, or the user's own for all of them.

    Those made here are made anew for every episode: some remember their past beyond a reset (a
    Box2D world does), and then a return would depend on more than the policy and the seed.
    """

    def __init__(
        self, policy: Policy, env: str | Env | None, dense: bool, render: bool = False
    ) -> None:
        self._policy, self._env, self._with_dense = policy, env, dense
        self._render = render
        self._own: list[Env] = []
        self.event: Env
        self.dense: Env | None
        self.random: Env | None
        self.renew()
        spec = self.event.spec
        self.name = env if isinstance(env, str) else spec.id if spec else type(self.event).__name__
        if env is None:
            self.name = str(policy.env_id)

    def renew(self) -> None:
        """Begin an episode with fresh environments; the user's own stays as it is."""
        self.close()
        if self._env is None or isinstance(self._env, str):
            count = 3 if self._with_dense else 1
            self._own = [
                environment(self._policy, self._env, render=self._render and not k)
                for k in range(count)
            ]
            self.event = self._own[0]
            self.dense, self.random = self._own[1:] or (None, None)
        else:
            self.event = self._env
            self.dense = self.random = self._env if self._with_dense else None

    def close(self) -> None:
        """Close what was made here."""
        for env in self._own:
            env.close()
        self._own = []

    def __enter__(self) -> Worlds:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Player:
    """A session as the actor of episodes that may keep their neurons' state.

    The first episode starts cold in any case.
    """

    def __init__(self, session: Session, carry_state: bool) -> None:
        self.session = session
        self._carry = carry_state
        self._begun = False

    def reset(self) -> None:
        """Start an episode."""
        self.session.reset(carry_state=self._carry and self._begun)
        self._begun = True

    def act(self, observation: Any) -> Any:
        """Return the action for an observation."""
        return self.session.act(observation)


class Recording(Player):
    """The event-driven player, and what is kept of its steps.

    A step counts once `step` has been called for it: Ctrl-C may leave the recorders one step
    ahead, which `counters` and `events` then cut off.
    """

    def __init__(
        self,
        policy: Policy,
        carry_state: bool,
        hooks: Sequence[Hook],
        events: EventRecorder | RunRecorder | None,
        engine: str,
        seconds: float | None,
    ) -> None:
        self.policy = policy
        self.network: Network = policy.network
        self._counters = CounterRecorder()
        self._events = events
        own = [self._counters] if self._events is None else [self._counters, self._events]
        dt = 1.0 if seconds is None else seconds
        super().__init__(policy.session(hooks=(*own, *hooks), engine=engine, dt=dt), carry_state)
        self._rewards: list[float] = []
        self._action = np.zeros(0)
        self._actions: list[NDArray[np.float64]] = []
        self._starts: list[int] = []
        self._resets: list[int] = []  # steps before each reset
        # The same inputs with every threshold at 0: what unchanged values alone save.
        self._twin: Simulator | None = None
        if any(p.parameter("threshold").any() for p in self.network.populations):
            self._twin = Simulator(self.network.with_thresholds(0.0), engine=engine, dt=dt)
        self._twin_synops: list[int] = []
        #: Called once an action is chosen, before the environment takes it.
        self.on_act: Callable[[], None] | None = None
        self._resets_before = self._counters.episode + 1

    @property
    def n_steps(self) -> int:
        """Complete steps so far."""
        return len(self._rewards)

    def reset(self) -> None:
        cold = not (self._carry and self._begun)
        super().reset()
        if cold:
            self._resets.append(self.n_steps)
            if self._twin is not None:
                self._twin.reset()
        self._starts.append(self.n_steps)
        if isinstance(self._events, RunRecorder):
            self._events.begin_episode()

    def act(self, observation: Any) -> Any:
        action = super().act(observation)
        self._action = _numbers(action)
        if self.on_act is not None:
            self.on_act()
        return action

    def step(self, reward: float) -> None:
        """Count a complete step."""
        if self._actions and self._action.size != self._actions[0].size:
            self._action = np.full(self._actions[0].size, np.nan)
        if self._twin is not None:
            self._twin.step(self.session.inputs)
            self._twin_synops.append(self._twin.counters.synops)
        if isinstance(self._events, RunRecorder):
            self._events.commit(reward, self._action)
        self._actions.append(self._action)
        self._rewards.append(reward)

    def first_steps(self) -> NDArray[np.bool_]:
        """Which steps began from a reset."""
        first = np.zeros(self.n_steps, np.bool_)
        first[[k for k in self._resets if k < self.n_steps]] = True
        return first

    def counters(self) -> StepCounters:
        """Counters of the steps that count."""
        starts = np.array(self._starts, np.int64)
        steps = np.arange(self.n_steps)
        episode = np.searchsorted(starts, steps, side="right") - 1
        return StepCounters(
            populations=tuple(p.name for p in self.network.populations),
            episode=episode,
            step=steps - starts[episode],
            reward=np.array(self._rewards, np.float64),
            table=self._counters.table[: self.n_steps],
            action=np.stack(self._actions[: self.n_steps]) if self.n_steps else None,
        )

    def synops_at_zero(self, synops: int) -> int:
        """MACs and ACs of the same steps with every threshold at 0."""
        return synops if self._twin is None else sum(self._twin_synops[: self.n_steps])

    def events(self, counters: StepCounters) -> dict[str, NDArray[Any]] | Records | None:
        """Events of the steps that count, numbered by episode and step inside it."""
        if self._events is None:
            return None
        if isinstance(self._events, RunRecorder):
            n_events = int(counters.events.sum())
            path = self._events.gather(n_events)
            return Records((path,), counters.populations, EVENT_COLUMNS, n_events)
        arrays = self._events.to_arrays()
        # The recorder counts resets, also the ones made before the first episode.
        resets = np.array(self._resets, np.int64)
        overall = resets[arrays["episode"] - self._resets_before] + arrays["step"]
        keep = overall < self.n_steps
        starts = np.array(self._starts, np.int64)
        episode = np.searchsorted(starts, overall, side="right") - 1
        arrays |= {"episode": episode, "step": overall - starts[episode]}
        return {name: array[keep] for name, array in arrays.items()}


def _numbers(action: Any) -> NDArray[np.float64]:
    """Return an action of a few numbers as an array; none for a longer or structured one."""
    try:
        found = np.asarray(action, np.float64).reshape(-1)
    except (TypeError, ValueError):
        return np.zeros(0)
    return found if found.size <= _LONGEST_ACTION else np.zeros(0)


@dataclass
class Played:
    """Returns of the finished episodes."""

    event: list[float] = field(default_factory=list)
    dense: list[float] | None = None
    random: list[float] | None = None
    interrupted: bool = False


def play(
    log: Recording,
    worlds: Worlds,
    episodes: int,
    seed: int,
    carry_state: bool,
    bar: EpisodeBar,
    film: Film | None = None,
) -> Played:
    """Run the episodes; the policies take turns, so that an interrupted run has whole pairs.

    A film shows the first episode.
    """
    played = Played()

    def turn(kind: str, actor: rollout.Actor, world: Env, i: int) -> float:
        def on_step(reward: float) -> None:
            bar.step()
            if actor is log:
                log.step(reward)

        bar.begin(f"episode {i + 1} of {episodes}, {kind}")
        total = rollout.episode(actor, world, seed + i, on_step=on_step).total
        bar.end()
        return total

    dense = random = None
    if worlds.dense is not None and worlds.random is not None:
        played.dense, played.random = [], []
        dense = Player(log.policy.dense_session(), carry_state)
        random = rollout.RandomActor(worlds.random.action_space)
    try:
        for i in range(episodes):
            if i:
                worlds.renew()
            if film is not None and i == 0:
                log.on_act = partial(_shoot, film, worlds.event)
            played.event.append(turn("by events", log, worlds.event, i))
            log.on_act = None
            if dense is not None and played.dense is not None and worlds.dense is not None:
                played.dense.append(turn("dense", dense, worlds.dense, i))
            if random is not None and played.random is not None and worlds.random is not None:
                random.seed(seed + i)
                played.random.append(turn("random", random, worlds.random, i))
    except KeyboardInterrupt:
        if log.n_steps == 0:
            raise
        played.interrupted = True
    return played


def _shoot(film: Film, env: Env) -> None:
    film.frame(env.render())
