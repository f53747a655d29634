"""Let a student of pictures learn on from rewards, with the events in the loop.

Imitation ends where a small network cannot tell what its teacher tells; which of its mistakes cost
return, imitation does not know. So the student plays, and learns by proximal policy optimisation
(Schulman et al. 2017, arXiv 1707.06347) with generalised advantages (arXiv 1506.02438).

It plays and learns as the event-driven network that it is, see `eventsim.models.games`; the
forward pass and its gradient are those of `eventsim.models.distill`, and the cost of the events is
part of the loss. Masks and thresholds stay as they are. A critic of its own, dense and small, is
thrown away in the end.

Where there is a teacher, the critic goes by what the teacher's last hidden layer tells of a
picture. And the student is held to the teacher's choices
at first, less and less (kickstarting: Schmitt et al. 2018, arXiv 1803.03835), as a critic that
knows little yet would lead it away from what it can do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.models.distill import Training, torch_module
from eventsim.models.games import Games, Player, check_length, parts_of
from eventsim.models.picture_distill import PictureModule
from eventsim.models.picture_student import PictureStudent
from eventsim.models.policy import Policy

if TYPE_CHECKING:
    from eventsim.models.games import Env

Float32 = NDArray[np.float32]

#: Channels of the critic's convolutions, and neurons of its hidden layer.
_CRITIC_CHANNELS, _CRITIC_HIDDEN = (16, 32, 32), 128
#: Neurons of the one that goes by a teacher's hidden layer, steps of its minibatches, and times
#: that a batch is gone through: it costs next to nothing.
_TOLD_HIDDEN, _TOLD_PART, _TOLD_EPOCHS = 64, 256, 4
#: Weight of the divergence from a teacher's choices, to begin with.
KEPT = 0.03
#: Part of the learning in which the critic learns alone.
_WARM_UP = 0.08
#: Batches of that at most, if it is told what a network has made of the pictures.
TOLD_WARM_UP = 12
#: Part of the learning in which the teacher's choices count.
_IMITATING = 0.25
#: Steps of a window that the teacher is asked about at once.
_AT_ONCE = 4
#: Powers of two between which the factor on the outputs is sought.
_SHARPEST = 12.0


@dataclass(frozen=True)
class Reinforcement:
    """How a student learns from rewards.

    Parameters
    ----------
    steps : int
        Environment steps, in all environments together; rounded up to whole batches, and to two.
    n_envs, horizon : int
        Environments side by side, and steps of a window; together a batch.
    epochs, parts : int
        Times that a batch is gone through, and minibatches each time.
    learning_rate : float
        Of Adam, falling linearly to a tenth; the critic's is constant, and `critic_rate`.
    gamma, trace : float
        Discount, and decay of the generalised advantages.
    clip : float
        Of the ratio of probabilities.
    entropy, cost : float
        Weights of the entropy and of the logarithm of the multiplications a step.
    certainty : float
        Mean probability of the likeliest action in the beginning, by a factor on the outputs: those
        of a student are soft, Q-values no logits at all, and in the end the likeliest is taken.
    imitation : float
        Weight, to begin with, of the divergence from what the teacher would do if there is one; it
        falls to 0 over the first quarter.
    half : bool
        See `eventsim.models.picture_distill.PictureModule`.
    seconds : float
        After which no other batch is begun though steps be left; rates and weights fall
        accordingly, so that what is learned depends on the machine then.

    Raises
    ------
    InputError
        If there are no steps or no seconds.
    """

    steps: int = 1_500_000
    n_envs: int = 64
    horizon: int = 64
    epochs: int = 3
    parts: int = 8
    learning_rate: float = 2e-4
    critic_rate: float = 1e-3
    gamma: float = 0.99
    trace: float = 0.95
    clip: float = 0.1
    entropy: float = 0.002
    cost: float = 0.001
    certainty: float = 0.85
    imitation: float = 0.0
    half: bool = False
    seconds: float = math.inf

    def __post_init__(self) -> None:
        check_length(self.steps, self.seconds)


def for_frames(options: Reinforcement) -> Reinforcement:
    """Return options as suits frames of a screen, whose steps take long."""
    return replace(options, epochs=2, learning_rate=4e-4, imitation=KEPT, half=True)


@dataclass(frozen=True)
class Progress:
    """How far the learning is.

    Attributes
    ----------
    steps : int
    mean_return : float
        Of the episodes that ended in the last batch, actions drawn; NaN if none did.
    macs : float
        Multiplications a step in the last batch; NaN while the critic learns alone.
    student : callable
        Makes the student as it is now.
    """

    steps: int
    mean_return: float
    macs: float
    student: Callable[[], PictureStudent]


def reinforce(
    student: PictureStudent,
    policy: Policy,
    make: Callable[[], Env],
    options: Reinforcement,
    seed: int,
    *,
    teacher: PictureStudent | None = None,
    first_seed: int = 0,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> PictureStudent:
    """Let a student learn from the rewards of an environment.

    Parameters
    ----------
    student : PictureStudent
        Untouched.
    policy : Policy
        Whose encoder stands between environment and student.
    make : callable
        Makes an environment as the policy sees it.
    options : Reinforcement
    seed : int
        Of all that is drawn.
    teacher : PictureStudent, optional
        Whose hidden layer the critic goes by and whose choices are kept to at first, dense: its
        thresholds are not looked at. It sees the student's pictures and has its actions.
    first_seed : int, optional
        Of the first environment's first reset; the others' follow.
    on_batch : callable, optional
        Told after every batch.

    Returns
    -------
    PictureStudent
        With the masks and thresholds of the one given.

    Raises
    ------
    UnsupportedError
        If the student's actions are no single discrete choice.
    SimulationError
        If the loss is no longer finite.
    MissingDependencyError
        If torch is not installed.
    """
    games = Games(policy, student.head, make, options.n_envs, first_seed)
    try:
        torch_module().manual_seed(seed)
        return Learning(student, options, games, seed, teacher).run(on_batch)
    finally:
        games.close()


@dataclass(frozen=True, eq=False)
class _Batch:
    """Steps of all environments: N windows of T, and what the neurons held before them."""

    pictures: Any
    held: list[Any]
    actions: Any
    log_probabilities: Any
    rewards: Float32
    ends: NDArray[np.bool_]
    last_pictures: Any
    #: Environment, step and picture behind it, of episodes that a limit of time cut.
    cut: list[tuple[int, int, Any]]


class Learning(Player):
    """One student that learns: its parameters, its critic and what trains them.

    Parameters
    ----------
    student, options, games, seed, teacher
        As `reinforce` takes them, or makes them of that.
    """

    def __init__(
        self,
        student: PictureStudent,
        options: Reinforcement,
        games: Games,
        seed: int,
        teacher: PictureStudent | None = None,
    ) -> None:
        # Windows are counted as the simulator counts, and thresholds stay.
        training = Training(cost=options.cost, learn_thresholds=False)
        super().__init__(student, games, training, options.learning_rate, options.half)
        self._options = options
        self._teacher = None if teacher is None else _Teacher(teacher, options.half)
        self._critic = self._new_critic(student, teacher)
        critic = self._critic.parameters()
        self._critic_steps = self._torch.optim.Adam(critic, options.critic_rate)
        self._rng = np.random.default_rng(seed)
        self._unit = _Unit(options.gamma, options.n_envs)
        self._sharpness = self._look()

    def run(self, on_batch: Callable[[Progress], None]) -> PictureStudent:
        """Learn for as many steps as were asked for, or for as long."""
        o, began = self._options, perf_counter()
        size = o.n_envs * o.horizon
        count = max(math.ceil(o.steps / size), 2)
        alone = min(max(round(_WARM_UP * count), 1), self._most_alone(count))
        first = 0.0  # part of the time in which the critic learned alone
        for k in range(count):
            late = (perf_counter() - began) / o.seconds
            if late >= 1.0:
                break
            if k < alone and late >= _WARM_UP:
                alone = max(k, 1)
            batch = self._play()
            if k < alone:
                self._unit.see(batch.rewards, batch.ends)
            elif k == alone:
                first = late
            done = 0.0
            if k >= alone:
                done = max((k - alone) / max(count - alone, 1), (late - first) / (1.0 - first))
            self._slow_down(1.0 - 0.9 * done)
            imitation = o.imitation * max(1.0 - done / _IMITATING, 0.0) if self._teacher else 0.0
            macs = self._learn(batch, k >= alone, imitation)
            ended, self._games.finished = self._games.finished, []
            mean = float(np.mean(ended)) if ended else math.nan
            on_batch(Progress((k + 1) * size, mean, macs, self.student))
        return self.student()

    def _new_critic(self, student: PictureStudent, teacher: PictureStudent | None) -> Any:
        return _critic(student) if teacher is None else told_critic(teacher.sizes[-2])

    def _most_alone(self, count: int) -> int:
        """Batches of so many in which the critic learns alone at most."""
        return TOLD_WARM_UP if self._teacher else count

    def _look(self) -> float:
        """Play a window by the likeliest actions; the factor that makes outputs certain enough."""
        torch, seen, pictures = self._torch, [], []
        with torch.no_grad():
            for _ in range(self._options.horizon):
                x, outputs = self._forward()
                seen.append(outputs)
                pictures.append(x)
                self._games.step(outputs.argmax(dim=1).numpy())
            self._games.finished = []
            if self._teacher is not None:
                self._teacher.look(torch.stack(pictures, dim=1), self._certain)
        return self._certain(torch.cat(seen))

    def _certain(self, outputs: Any) -> float:
        """The factor by which outputs (steps, size) are as certain as is asked for."""
        torch = self._torch
        low, high = -_SHARPEST, _SHARPEST
        for _ in range(20):
            middle = 0.5 * (low + high)
            likeliest = torch.softmax(2.0**middle * outputs, dim=1).max(dim=1).values.mean()
            if float(likeliest) < self._options.certainty:
                low = middle
            else:
                high = middle
        return float(2.0**high)

    def _play(self) -> Any:
        """Play a window in each environment, actions drawn; a `_Batch`."""
        torch, o, games = self._torch, self._options, self._games
        before = self._held
        pictures, actions, chances, rewards, ends, cut = [], [], [], [], [], []
        with torch.no_grad():
            for t in range(o.horizon):
                x, outputs = self._forward()
                action, chance = self._draw(outputs)
                pictures.append(x)
                actions.append(action)
                chances.append(chance)
                reward, end = games.step(action.numpy())
                rewards.append(reward)
                ends.append(end)
                cut += [(k, t, torch.from_numpy(picture)) for k, picture in games.cut]
        return _Batch(
            torch.stack(pictures, dim=1),
            before,
            torch.stack(actions, dim=1),
            torch.stack(chances, dim=1),
            np.stack(rewards, axis=1),
            np.stack(ends, axis=1),
            torch.from_numpy(games.pictures.copy()),
            cut,
        )

    def _learn(self, batch: Any, actor: bool, imitation: float = 0.0) -> float:
        """Learn from a batch, or let the critic alone do so; the multiplications a step."""
        torch, o = self._torch, self._options
        shown, wanted = self._shown(batch.pictures)
        with torch.no_grad():
            values = self._values(shown).numpy()
            last = self._values(self._shown(batch.last_pictures[:, None])[0])[:, 0].numpy()
            rewards = batch.rewards * np.float32(self._unit.value)
            for k, t, picture in batch.cut:  # what was cut would have gone on
                more = self._values(self._shown(picture[None, None])[0])
                rewards[k, t] += o.gamma * float(more)
        gains = advantages(rewards, values, last, batch.ends, o.gamma, o.trace)
        targets = torch.from_numpy(gains + values)
        better = torch.from_numpy((gains - gains.mean()) / (gains.std() + 1e-8))
        if self._teacher is not None:
            self._tell(shown, targets)
        costs = []
        for _ in range(o.epochs):
            for part in parts_of(o.n_envs, o.parts, self._rng):
                if self._teacher is None:
                    self._criticise(shown[part], targets[part])
                if not actor:
                    continue
                held = [s[part] for s in batch.held]
                x = self._scaled(batch.pictures[part])
                outputs, cost = self._module.forward(x, self._training, held)
                log_p = self._log_chances(outputs)
                loss = self._unlikely(
                    log_p, batch.actions[part], batch.log_probabilities[part], better[part]
                )
                loss = loss + o.cost * torch.log(cost + 0.5)
                if imitation > 0.0:
                    right = wanted[part]
                    loss = loss + imitation * (right.exp() * (right - log_p)).sum(dim=-1).mean()
                self._step(self._steps, self._module.values, loss)
                costs.append(float(cost.detach()))
        return float(np.mean(costs)) if costs else math.nan

    def _log_chances(self, outputs: Any) -> Any:
        """Logarithms of the probabilities of actions."""
        return self._torch.log_softmax(self._sharpness * outputs, dim=-1)

    def _draw(self, outputs: Any) -> tuple[Any, Any]:
        """An action of each game for outputs (games, actions), and its log probability."""
        log_p = self._log_chances(outputs)
        drawn = self._torch.multinomial(log_p.exp(), 1)
        return drawn[:, 0], log_p.gather(1, drawn)[:, 0]

    def _unlikely(self, log_p: Any, actions: Any, before: Any, gain: Any) -> Any:
        """The clipped objective, less the entropy: lower the likelier what gained more is."""
        torch, o = self._torch, self._options
        ratio = (log_p.gather(-1, actions[..., None])[..., 0] - before).exp()
        clipped = ratio.clamp(1.0 - o.clip, 1.0 + o.clip)
        entropy = -(log_p.exp() * log_p).sum(dim=-1).mean()
        return -torch.minimum(gain * ratio, gain * clipped).mean() - o.entropy * entropy

    def _shown(self, pictures: Any) -> tuple[Any, Any]:
        """What the critic goes by, and the teacher's log probabilities, of (n, steps, values)."""
        if self._teacher is None:
            return pictures, None
        with self._torch.no_grad():
            return self._teacher.told(pictures)

    def _tell(self, shown: Any, targets: Any) -> None:
        """Let a critic that is told learn from a batch."""
        shown, targets = shown.flatten(0, 1), targets.flatten()
        for _ in range(_TOLD_EPOCHS):
            for part in parts_of(len(shown), math.ceil(len(shown) / _TOLD_PART), self._rng):
                self._criticise(shown[part][:, None], targets[part][:, None])

    def _criticise(self, shown: Any, targets: Any) -> None:
        """Take a step of the critic."""
        wrong = self._torch.square(self._values(shown) - targets).mean()
        self._step(self._critic_steps, list(self._critic.parameters()), wrong)

    def _values(self, shown: Any) -> Any:
        """Values of what the critic goes by, (n, steps, size); shape (n, steps)."""
        n, steps = shown.shape[:2]
        x = self._scaled(shown) if self._teacher is None else shown
        return self._critic(x.reshape(n * steps, -1)).reshape(n, steps)


class _Teacher:
    """What a teacher goes by, and what it would do."""

    def __init__(self, teacher: PictureStudent, half: bool) -> None:
        self._torch = torch_module()
        self._module, self._scale = PictureModule(teacher, 1.0, half=half), teacher.scale
        with self._torch.no_grad():
            pairs = zip(self._module.weights, self._module.masks, strict=True)
            self._layers = [weight * mask for weight, mask in pairs]
        self._mean, self._spread, self._sharpness = 0.0, 1.0, 1.0

    def look(self, pictures: Any, certain: Callable[[Any], float]) -> None:
        """Get to know the size of what it goes by, and how certain it is."""
        hidden, outputs = self._asked(pictures)
        self._mean, self._spread = float(hidden.mean()), float(hidden.std()) + 1e-8
        self._sharpness = certain(outputs.flatten(0, 1))

    def told(self, pictures: Any) -> tuple[Any, Any]:
        """What it goes by, in units of that, and the logarithms of its probabilities."""
        hidden, outputs = self._asked(pictures)
        log_p = self._torch.log_softmax(self._sharpness * outputs, dim=-1)
        return (hidden - self._mean) / self._spread, log_p

    def _asked(self, pictures: Any) -> tuple[Any, Any]:
        """The last hidden layer and the outputs for pictures (n, steps, values)."""
        parts = [self._forward(some) for some in pictures.split(_AT_ONCE, dim=1)]
        hidden, outputs = zip(*parts, strict=True)
        return self._torch.cat(hidden, dim=1), self._torch.cat(outputs, dim=1)

    def _forward(self, pictures: Any) -> tuple[Any, Any]:
        *before, last = self._layers
        x = pictures.to(self._torch.float32).mul_(self._scale)
        for k, weight in enumerate(before):
            x = self._module.activation(self._module.sums(k, x, weight))
        return x, self._module.sums(len(before), x, last)


class _Unit:
    """What rewards are multiplied by: one over the spread of discounted sums of them."""

    def __init__(self, gamma: float, n: int) -> None:
        self._gamma, self._sums = gamma, np.zeros(n)
        self._seen: list[NDArray[np.float64]] = []
        self.value = 1.0

    def see(self, rewards: Float32, ends: NDArray[np.bool_]) -> None:
        """Look at steps (N, T)."""
        for reward, end in zip(rewards.T, ends.T, strict=True):
            self._sums = self._gamma * self._sums + reward
            self._seen.append(self._sums.copy())
            self._sums[end] = 0.0
        spread = float(np.std(self._seen))
        self.value = 1.0 / spread if spread > 1e-8 else 1.0


def advantages(
    rewards: Float32,
    values: Float32,
    last_values: Float32,
    ends: NDArray[np.bool_],
    gamma: float,
    trace: float,
) -> Float32:
    """Generalised advantage estimates.

    Parameters
    ----------
    rewards, values : float32 array of shape (N, T)
    last_values : float32 array of shape (N,)
        Of what follows the last step.
    ends : bool array of shape (N, T)
        Whether the episode ended with the step.
    gamma, trace : float

    Returns
    -------
    float32 array of shape (N, T)
    """
    result = np.zeros_like(values)
    following, running = last_values, np.zeros_like(last_values)
    for t in reversed(range(values.shape[1])):
        goes_on = 1.0 - ends[:, t].astype(np.float32)
        error = rewards[:, t] + gamma * goes_on * following - values[:, t]
        running = error + gamma * trace * goes_on * running
        result[:, t], following = running, values[:, t]
    return result


def _critic(student: PictureStudent) -> Any:
    """A dense network that tells values from pictures, its convolutions as the student's."""
    nn = torch_module().nn
    maps = student.maps
    layers: list[Any] = [nn.Unflatten(1, student.shape)]
    channels = student.shape[0]
    for k, kernel in enumerate(student.kernels):
        n = _CRITIC_CHANNELS[min(k, len(_CRITIC_CHANNELS) - 1)]
        layers += [nn.Conv2d(channels, n, kernel.size, kernel.stride, kernel.padding), nn.ReLU()]
        channels = n
    _, height, width = maps[-1]
    hidden = nn.Linear(channels * height * width, _CRITIC_HIDDEN)
    return nn.Sequential(*layers, nn.Flatten(), hidden, nn.ReLU(), nn.Linear(_CRITIC_HIDDEN, 1))


def told_critic(size: int, hidden: int = _TOLD_HIDDEN) -> Any:
    """A network that tells values from so many of what another has made of the pictures."""
    nn = torch_module().nn
    return nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 1))


__all__ = [
    "KEPT",
    "TOLD_WARM_UP",
    "Learning",
    "Progress",
    "Reinforcement",
    "advantages",
    "for_frames",
    "reinforce",
    "told_critic",
]
