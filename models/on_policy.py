"""Let a student of pictures learn from its teacher where it goes itself, events in the loop.

Distillation on recorded episodes (`eventsim.models.distill`) takes windows of a few steps, which
begin afresh: everything is sent in the first step, and what the held values lack afterwards is less
than in use, where a value may be held for thousands of steps. Here the student plays, asks its
teacher at every step what it would do (DAgger: Ross et al. 2011, arXiv 1011.0686; of networks that
learn by gradients also called on-policy distillation, arXiv 2306.13649), and each window begins
with what every neuron held there. Masks stay as they are; thresholds are learned too, as what they
cost is seen here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from eventsim.models.distill import Training, torch_module
from eventsim.models.games import Games, Player, check_length, parts_of
from eventsim.models.picture_distill import PictureModule
from eventsim.models.picture_student import PictureStudent
from eventsim.models.policy import Policy

if TYPE_CHECKING:
    from eventsim.models.games import Env

#: Part of the learning rate that is left in the end.
_LEFT = 0.05
#: Steps of a window that the teacher is asked about at once.
_AT_ONCE = 4


@dataclass(frozen=True)
class OnPolicy:
    """How a student learns from its teacher while it plays.

    Parameters
    ----------
    steps : int
        Environment steps, in all environments together; rounded up to whole batches.
    n_envs, horizon : int
        Environments side by side, and steps of a window; together a batch.
    epochs, parts : int
        Times that a batch is gone through, and minibatches each time.
    learning_rate : float
        Of Adam, falling along a cosine.
    cost : float
        Weight of the logarithm of the multiplications a step.
    learn_thresholds : bool
    half : bool
        See `eventsim.models.picture_distill.PictureModule`; of the student and the teacher.
    seconds : float
        After which no other batch is begun though steps be left; the learning rate falls
        accordingly, so that what is learned depends on the machine then.

    Raises
    ------
    InputError
        If there are no steps or no seconds.
    """

    steps: int = 600_000
    n_envs: int = 32
    horizon: int = 24
    epochs: int = 2
    parts: int = 4
    learning_rate: float = 5e-4
    cost: float = 0.01
    learn_thresholds: bool = True
    half: bool = False
    seconds: float = math.inf

    def __post_init__(self) -> None:
        check_length(self.steps, self.seconds)


@dataclass(frozen=True)
class Accompanied:
    """How far the learning is.

    Attributes
    ----------
    steps : int
    divergence : float
        Of Kullback and Leibler, of the student's choices from the teacher's, in the last batch.
    agreement : float
        Part of the steps in which both would have done the same.
    macs : float
        Multiplications a step in the last batch.
    """

    steps: int
    divergence: float
    agreement: float
    macs: float


def distill_on_policy(
    student: PictureStudent,
    teacher: PictureStudent,
    policy: Policy,
    make: Callable[[], Env],
    options: OnPolicy,
    seed: int,
    *,
    first_seed: int = 0,
    on_batch: Callable[[Accompanied], None] = lambda progress: None,
) -> PictureStudent:
    """Let a student learn from a teacher in the states that it gets into.

    Parameters
    ----------
    student : PictureStudent
        Untouched.
    teacher : PictureStudent
        The teacher in the form of a student, of outputs as `eventsim.models.distill.tempered` makes
        them; its thresholds are not looked at.
    policy : Policy
        Whose encoder stands between environment and student.
    make : callable
        Makes an environment as the policy sees it.
    options : OnPolicy
    seed : int
        Of all that is drawn.
    first_seed : int, optional
        Of the first environment's first reset; the others' follow.
    on_batch : callable, optional
        Told after every batch.

    Returns
    -------
    PictureStudent
        With the masks of the one given.

    Raises
    ------
    UnsupportedError
        If the student's actions are no single discrete choice.
    SimulationError
        If the loss is no longer finite.
    MissingDependencyError
        If torch is not installed.
    """
    began = perf_counter()
    games = Games(policy, student.head, make, options.n_envs, first_seed)
    try:
        torch_module().manual_seed(seed)
        learning = _Pupil(student, teacher, games, options, seed)
        size, done, over = options.n_envs * options.horizon, 0, 0.0
        while over < 1.0:
            done += size
            late = (perf_counter() - began) / options.seconds
            over = min(max(done / options.steps, late), 1.0)
            divergence, agreement, macs = learning.batch(over)
            on_batch(Accompanied(done, divergence, agreement, macs))
        return learning.student()
    finally:
        games.close()


class _Pupil(Player):
    """One student that plays and asks."""

    def __init__(
        self,
        student: PictureStudent,
        teacher: PictureStudent,
        games: Games,
        options: OnPolicy,
        seed: int,
    ) -> None:
        training = Training(cost=options.cost, learn_thresholds=options.learn_thresholds)
        super().__init__(student, games, training, options.learning_rate, options.half)
        self._options = options
        self._asked = PictureModule(teacher, 1.0, half=options.half)
        self._rng = np.random.default_rng(seed)

    def batch(self, done: float) -> tuple[float, float, float]:
        """Play a window in each environment and learn from it; how it was, see `Accompanied`.

        Parameters
        ----------
        done : float
            Part of the learning that is over with this batch.
        """
        torch, o = self._torch, self._options
        fall = 0.5 * (1.0 + math.cos(math.pi * done))
        self._slow_down(_LEFT + (1.0 - _LEFT) * fall)
        pictures, before, wanted = self._play()
        seen = []
        for epoch in range(o.epochs):
            for part in parts_of(o.n_envs, o.parts, self._rng):
                held = [values[part] for values in before]
                x = self._scaled(pictures[part])
                outputs, macs = self._module.forward(x, self._training, held)
                loss = self._module.imitation(outputs, wanted[part])
                self._step(self._steps, self._module.values, loss + o.cost * torch.log(macs + 0.5))
                if epoch == 0:
                    same = outputs.argmax(dim=-1) == wanted[part].argmax(dim=-1)
                    seen.append(
                        (float(loss.detach()), float(same.float().mean()), float(macs.detach()))
                    )
        loss, agreement, macs = np.mean(seen, axis=0)
        return float(loss), float(agreement), float(macs)

    def _play(self) -> tuple[Any, list[Any], Any]:
        """Pictures (N, T, values), what was held before them, and what the teacher would do."""
        torch, before, pictures = self._torch, self._held, []
        with torch.no_grad():
            for _ in range(self._options.horizon):
                x, outputs = self._forward()
                pictures.append(x)
                self._games.step(outputs.argmax(dim=1).numpy())
            seen = torch.stack(pictures, dim=1)
            dense = Training(events=False)
            wanted = [
                self._asked.forward(self._scaled(some), dense)[0]
                for some in seen.split(_AT_ONCE, dim=1)
            ]
        return seen, before, torch.cat(wanted, dim=1)


__all__ = ["Accompanied", "OnPolicy", "distill_on_policy"]
