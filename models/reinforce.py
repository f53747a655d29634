"""Let a student of pictures learn on from rewards, with the events in the loop.

Imitation ends where a small network cannot tell what its teacher tells; which of its mistakes cost
return, imitation does not know. So the student plays, and learns by proximal policy optimisation
(Schulman et al. 2017, arXiv 1707.06347) with generalised advantages (arXiv 1506.02438).

It plays and learns as the event-driven network that it is, see `eventsim.models.games`; the
forward pass and its gradient are those of `eventsim.models.distill`, and the cost of the events is
part of the loss. Masks and thresholds stay as they are. A critic of its own, dense and small, is
thrown away in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.models.distill import Training, torch_module
from eventsim.models.games import Games, Player, parts_of
from eventsim.models.picture_student import PictureStudent
from eventsim.models.policy import Policy

if TYPE_CHECKING:
    from eventsim.models.games import Env

Float32 = NDArray[np.float32]

#: Channels of the critic's convolutions, and neurons of its hidden layer.
_CRITIC_CHANNELS, _CRITIC_HIDDEN = (16, 32, 32), 128
#: Part of the steps in which the critic learns alone.
_WARM_UP = 0.08
#: Powers of two between which the factor on the outputs is sought.
_SHARPEST = 12.0


@dataclass(frozen=True)
class Reinforcement:
    """How a student learns from rewards.

    Parameters
    ----------
    steps : int
        Environment steps, in all environments together.
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
        return _Learning(student, options, games, seed).run(on_batch)
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


class _Learning(Player):
    """One student that learns: its parameters, its critic and what trains them."""

    def __init__(
        self, student: PictureStudent, options: Reinforcement, games: Games, seed: int
    ) -> None:
        # Windows are counted as the simulator counts, and thresholds stay.
        training = Training(cost=options.cost, learn_thresholds=False)
        super().__init__(student, games, training, options.learning_rate)
        self._options = options
        self._critic = _critic(student)
        critic = self._critic.parameters()
        self._critic_steps = self._torch.optim.Adam(critic, options.critic_rate)
        self._rng = np.random.default_rng(seed)
        self._unit = _Unit(options.gamma, options.n_envs)
        self._sharpness = self._look()

    def run(self, on_batch: Callable[[Progress], None]) -> PictureStudent:
        """Learn for as many steps as were asked for."""
        o = self._options
        size = o.n_envs * o.horizon
        count = max(math.ceil(o.steps / size), 2)
        alone = max(round(_WARM_UP * count), 1)
        for k in range(count):
            batch = self._play()
            if k < alone:
                self._unit.see(batch.rewards, batch.ends)
            fall = 1.0 - 0.9 * max(k - alone, 0) / max(count - alone, 1)
            self._slow_down(fall)
            macs = self._learn(batch, k >= alone)
            ended, self._games.finished = self._games.finished, []
            mean = float(np.mean(ended)) if ended else math.nan
            on_batch(Progress((k + 1) * size, mean, macs, self.student))
        return self.student()

    def _look(self) -> float:
        """Play a window by the likeliest actions; the factor that makes outputs certain enough."""
        torch, seen = self._torch, []
        with torch.no_grad():
            for _ in range(self._options.horizon):
                outputs = self._forward()[1]
                seen.append(outputs)
                self._games.step(outputs.argmax(dim=1).numpy())
            self._games.finished = []
            outputs = torch.cat(seen)
            low, high = -_SHARPEST, _SHARPEST
            for _ in range(20):
                middle = 0.5 * (low + high)
                likeliest = torch.softmax(2.0**middle * outputs, dim=1).max(dim=1).values.mean()
                if float(likeliest) < self._options.certainty:
                    low = middle
                else:
                    high = middle
        return float(2.0**high)

    def _play(self) -> _Batch:
        """Play a window in each environment, actions drawn."""
        torch, o, games = self._torch, self._options, self._games
        before = self._held
        pictures, actions, chances, rewards, ends, cut = [], [], [], [], [], []
        with torch.no_grad():
            for t in range(o.horizon):
                x, outputs = self._forward()
                log_p = torch.log_softmax(self._sharpness * outputs, dim=-1)
                drawn = torch.multinomial(log_p.exp(), 1)
                pictures.append(x)
                actions.append(drawn[:, 0])
                chances.append(log_p.gather(1, drawn)[:, 0])
                reward, end = games.step(drawn[:, 0].numpy())
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

    def _learn(self, batch: _Batch, actor: bool) -> float:
        """Learn from a batch, or let the critic alone do so; the multiplications a step."""
        torch, o = self._torch, self._options
        with torch.no_grad():
            values = self._values(batch.pictures).numpy()
            last = self._values(batch.last_pictures[:, None])[:, 0].numpy()
            rewards = batch.rewards * np.float32(self._unit.value)
            for k, t, picture in batch.cut:  # what was cut would have gone on
                rewards[k, t] += o.gamma * float(self._values(picture[None, None]))
        gains = advantages(rewards, values, last, batch.ends, o.gamma, o.trace)
        targets = torch.from_numpy(gains + values)
        flat = (gains - gains.mean()) / (gains.std() + 1e-8)
        better = torch.from_numpy(flat.astype(np.float32))
        costs = []
        for _ in range(o.epochs):
            for part in parts_of(o.n_envs, o.parts, self._rng):
                wrong = torch.square(self._values(batch.pictures[part]) - targets[part]).mean()
                self._step(self._critic_steps, list(self._critic.parameters()), wrong)
                if not actor:
                    continue
                held = [s[part] for s in batch.held]
                x = self._scaled(batch.pictures[part])
                outputs, cost = self._module.forward(x, self._training, held)
                log_p = torch.log_softmax(self._sharpness * outputs, dim=-1)
                chosen = log_p.gather(2, batch.actions[part][..., None])[..., 0]
                ratio = (chosen - batch.log_probabilities[part]).exp()
                gain = better[part]
                clipped = ratio.clamp(1.0 - o.clip, 1.0 + o.clip)
                loss = -torch.minimum(gain * ratio, gain * clipped).mean()
                entropy = -(log_p.exp() * log_p).sum(dim=-1).mean()
                loss = loss - o.entropy * entropy + o.cost * torch.log(cost + 0.5)
                self._step(self._steps, self._module.values, loss)
                costs.append(float(cost.detach()))
        return float(np.mean(costs)) if costs else math.nan

    def _values(self, pictures: Any) -> Any:
        """Values of pictures (n, steps, values), shape (n, steps)."""
        n, steps = pictures.shape[:2]
        x = self._scaled(pictures).reshape(n * steps, -1)
        return self._critic(x).reshape(n, steps)


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


__all__ = ["Progress", "Reinforcement", "advantages", "reinforce"]
