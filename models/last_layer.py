"""Let the last layer of a student of pictures alone learn from rewards.

Where few steps tell anything, as in Pong, whose points take hundreds, noise moves the many
parameters of a whole student more than what it learns. The last layer has few, and their gradient
is exact, as no event stands between them and the outputs. So the layers before it stay as imitation
made them. What it receives is kept from playing, so that going through a batch again takes no pass
through the layers before, and the events, hence the multiplications, of given frames stay the same.

Otherwise it is the proximal policy optimisation of `eventsim.models.reinforce`. The critic goes by
what the last two layers receive; there is no teacher.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import UnsupportedError
from eventsim.models.distill import torch_module
from eventsim.models.games import Games, parts_of
from eventsim.models.picture_student import PictureStudent
from eventsim.models.policy import Policy
from eventsim.models.reinforce import (
    TOLD_WARM_UP,
    Learning,
    Progress,
    Reinforcement,
    advantages,
    told_critic,
)

if TYPE_CHECKING:
    from eventsim.models.games import Env

Float32 = NDArray[np.float32]

#: Neurons of the critic's hidden layer.
_HIDDEN = 128
#: What the critic goes by is counted in units of its spread, which is at least this part of the
#: whole layer's, and cut where it is more than so many.
_LEAST_SPREAD, _MOST = 1e-3, 8.0


def for_last_layer(options: Reinforcement) -> Reinforcement:
    """Return options as suits the last layer alone, of which batches can be large."""
    return replace(
        options,
        horizon=128,
        epochs=4,
        learning_rate=3e-4,
        critic_rate=3e-4,
        clip=0.2,
        entropy=0.0,
    )


def reinforce_last_layer(
    student: PictureStudent,
    policy: Policy,
    make: Callable[[], Env],
    options: Reinforcement,
    seed: int,
    *,
    first_seed: int = 0,
    on_batch: Callable[[Progress], None] = lambda progress: None,
) -> PictureStudent:
    """Let the last layer of a student learn from the rewards of an environment.

    Parameters
    ----------
    student, policy, make, seed, first_seed, on_batch
        As `eventsim.models.reinforce.reinforce` takes them.
    options : Reinforcement
        The minibatches are of steps, not of windows. The weight of the multiplications changes
        nothing, and there is no teacher to be kept to; see `for_last_layer`.

    Returns
    -------
    PictureStudent
        With the masks and thresholds of the one given, and its layers but the last.

    Raises
    ------
    UnsupportedError
        If the student's actions are no single discrete choice, or its last layer is a convolution.
    SimulationError
        If the loss is no longer finite.
    MissingDependencyError
        If torch is not installed.
    """
    if student.weights[-1].ndim != 2:
        raise UnsupportedError(
            "ends in a convolution; its last layer cannot learn alone, let all of it learn",
            where="policy",
        )
    games = Games(policy, student.head, make, options.n_envs, first_seed)
    try:
        torch_module().manual_seed(seed)
        return _LastLayer(student, options, games, seed).run(on_batch)
    finally:
        games.close()


@dataclass(frozen=True, eq=False)
class _Steps:
    """T steps of N games: what the last layer received, and what the critic goes by.

    That is of one step more, to tell what follows the last.
    """

    heard: Any
    told: Any
    actions: Any
    log_probabilities: Any
    rewards: Float32
    ends: NDArray[np.bool_]
    #: Environment and step of episodes that a limit of time cut.
    cut: list[tuple[int, int]]
    macs: float


class _LastLayer(Learning):
    """A student whose last layer learns."""

    def __init__(
        self, student: PictureStudent, options: Reinforcement, games: Games, seed: int
    ) -> None:
        super().__init__(student, options, games, seed)
        self._given = student
        self._learned = [self._module.weights[-1], self._module.biases[-1]]
        self._mask = self._module.masks[-1]
        learned = {id(one) for one in self._learned}
        for one in self._module.values:
            one.requires_grad_(id(one) in learned)

    def student(self) -> PictureStudent:
        """The student as it is now, its layers but the last untouched."""
        made = super().student()
        given = self._given
        made.weights[:-1] = [one.copy() for one in given.weights[:-1]]
        made.biases[:-1] = [one.copy() for one in given.biases[:-1]]
        return made

    def _new_critic(self, student: PictureStudent, teacher: PictureStudent | None) -> Any:
        return told_critic(sum(student.sizes[-3:-1]), _HIDDEN)

    def _most_alone(self, count: int) -> int:
        return TOLD_WARM_UP

    def _look(self) -> float:
        torch, outputs, received = self._torch, [], []
        with torch.no_grad():
            for _ in range(self._options.horizon):
                outputs.append(self._forward()[1])
                received.append(self._received())
                self._games.step(outputs[-1].argmax(dim=1).numpy())
            self._games.finished = []
            seen = torch.cat(received)
            self._mean = seen.mean(dim=0)
            self._spread = seen.std(dim=0, correction=0) + _LEAST_SPREAD * seen.std() + 1e-8
        return self._certain(torch.cat(outputs))

    def _received(self) -> Any:
        """What the last two layers received in the last step, (games, values)."""
        return self._torch.cat(self._held[-2:], dim=1)

    def _told(self) -> Any:
        return ((self._received() - self._mean) / self._spread).clamp_(-_MOST, _MOST)

    def _values(self, shown: Any) -> Any:
        return self._critic(shown)[..., 0]

    def _outputs(self, heard: Any) -> Any:
        """Outputs for what the last layer receives."""
        weight, bias = self._learned
        return heard @ (weight * self._mask).T + bias

    def _play(self) -> _Steps:
        torch, games = self._torch, self._games
        heard, told, actions, chances, rewards, ends, spent = [], [], [], [], [], [], []
        cut: list[tuple[int, int]] = []
        with torch.no_grad():
            for t in range(self._options.horizon):
                self._forward()
                spent.append(float(self._spent))
                heard.append(self._held[-1])
                told.append(self._told())
                action, chance = self._draw(self._outputs(heard[-1]))
                actions.append(action)
                chances.append(chance)
                reward, end = games.step(action.numpy())
                rewards.append(reward)
                ends.append(end)
                cut += [(k, t) for k, _ in games.cut]
            # The next batch begins with the same pictures, which send nothing then.
            self._forward()
            spent.append(float(self._spent))
            told.append(self._told())
        return _Steps(
            torch.stack(heard, dim=1),
            torch.stack(told, dim=1),
            torch.stack(actions, dim=1),
            torch.stack(chances, dim=1),
            np.stack(rewards, axis=1),
            np.stack(ends, axis=1),
            cut,
            float(np.sum(spent)) / self._options.horizon,
        )

    def _learn(self, batch: Any, actor: bool, imitation: float = 0.0) -> float:
        torch, o = self._torch, self._options
        with torch.no_grad():
            values = self._values(batch.told).numpy()
        rewards = batch.rewards * np.float32(self._unit.value)
        for k, t in batch.cut:  # what was cut would have gone on, much as it was
            rewards[k, t] += o.gamma * values[k, t]
        now = np.ascontiguousarray(values[:, :-1])
        gains = advantages(rewards, now, values[:, -1], batch.ends, o.gamma, o.trace)
        targets = torch.from_numpy(gains + now).flatten()
        better = torch.from_numpy((gains - gains.mean()) / (gains.std() + 1e-8)).flatten()
        heard, told = batch.heard.flatten(0, 1), batch.told[:, :-1].flatten(0, 1)
        actions, before = batch.actions.flatten(), batch.log_probabilities.flatten()
        for _ in range(o.epochs):
            for part in parts_of(len(heard), o.parts, self._rng):
                self._criticise(told[part], targets[part])
                if not actor:
                    continue
                log_p = self._log_chances(self._outputs(heard[part]))
                loss = self._unlikely(log_p, actions[part], before[part], better[part])
                self._step(self._steps, self._learned, loss)
        return batch.macs if actor else math.nan


__received_ = ["for_last_layer", "reinforce_last_layer"]
