"""Students of pictures that play environments side by side, and learn from what they play.

They play as the event-driven networks that they are. A batch is of windows of consecutive steps,
and each window begins with what every neuron held there, so that training sees the errors that
holding makes in use; recorded windows begin afresh, and show little of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError, SimulationError, UnsupportedError
from eventsim.models.decoders import Argmax, Decoder
from eventsim.models.distill import FASTER, Training, torch_module
from eventsim.models.picture_distill import PictureModule
from eventsim.models.picture_student import PictureStudent
from eventsim.models.policy import Policy
from eventsim.models.screens import Screens
from eventsim.models.student import Head

if TYPE_CHECKING:
    import gymnasium as gym

    Env: TypeAlias = gym.Env[Any, Any]

Float32 = NDArray[np.float32]

#: Largest norm of a gradient.
_MAX_NORM = 0.5
#: Steps of an episode that are learned from at most.
LONGEST = 5_000


def can_play(head: Head) -> bool:
    """Whether actions are one discrete choice, of an output each, as is needed here."""
    return isinstance(head.decoder, Argmax)


def only_choice(decoder: Decoder) -> Argmax:
    """Return a decoder whose actions are one discrete choice, of an output each.

    Raises
    ------
    UnsupportedError
        If they are not.
    """
    if not isinstance(decoder, Argmax):
        raise UnsupportedError(
            f"is {decoder.kind}; only a single discrete action, of an output a choice, is "
            "learned in play",
            where="policy",
            field="decoder",
        )
    return decoder


def check_length(steps: int, seconds: float) -> None:
    """See that a learning in play has something to do.

    Raises
    ------
    InputError
        If there are no steps or no seconds.
    """
    for field, value in (("steps", steps), ("seconds", seconds)):
        if not value > 0:
            raise InputError(f"is {value}; give a number above 0", field=field)


class Games:
    """Environments side by side; each begins anew when its episode is over.

    Parameters
    ----------
    policy : Policy
        Whose encoder stands between environments and student.
    head : Head
        Of the student.
    make : callable
        Makes an environment as the policy sees it. One of Atari with the usual wrappers only says
        what is played, by ale-py's vector environment.
    n : int
    first_seed : int
        Of the first environment's first reset; the others' follow.
    longest : int, optional
        Steps after which an episode is cut: where a game is stuck, it would be most of all.

    Raises
    ------
    UnsupportedError
        If the student's actions are no single discrete choice.

    Attributes
    ----------
    pictures : uint8 array of shape (n, values)
        Of now, in torch's order of axes.
    finished : list of float
        Returns of the episodes that have ended since this was last emptied.
    cut : list of (int, uint8 array)
        Environments whose episode the last step cut, and the pictures that it would go on from.
    """

    def __init__(
        self,
        policy: Policy,
        head: Head,
        make: Callable[[], Env],
        n: int,
        first_seed: int,
        longest: int = LONGEST,
    ) -> None:
        decoder = only_choice(head.decoder)
        self._encoder, self._start = policy.encoder, decoder.start
        self._shape = policy.network[policy.network.inputs[0]].shape
        self._clocks, self._totals = np.zeros(n, np.int64), np.zeros(n)
        self._envs = _beside(make, n, longest)
        try:
            first = self._envs.reset(first_seed)
            self.pictures = np.stack([self._encode(k, one) for k, one in enumerate(first)])
        except BaseException:
            self._envs.close()
            raise
        self.finished: list[float] = []
        self.cut: list[tuple[int, NDArray[Any]]] = []

    def __len__(self) -> int:
        return len(self._clocks)

    def step(self, actions: NDArray[np.int64]) -> tuple[Float32, NDArray[np.bool_]]:
        """Take a step in every environment.

        Parameters
        ----------
        actions : int64 array of shape (n,)
            Counted from 0 on.

        Returns
        -------
        rewards : float32 array of shape (n,)
        ends : bool array of shape (n,)
            Which episodes ended, cut ones with them.
        """
        pictures, rewards, over, cut = self._envs.step(actions + self._start)
        ends: NDArray[np.bool_] = over | cut
        self._totals += rewards
        self._clocks += 1
        self.finished += self._totals[ends].tolist()
        self.cut = [
            (k, self._encode(k, self._envs.finals[k])) for k in np.flatnonzero(cut & ~over).tolist()
        ]
        self._totals[ends], self._clocks[ends] = 0.0, 0
        for k, picture in enumerate(pictures):
            self.pictures[k] = self._encode(k, picture)
        return rewards.astype(np.float32), ends

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

    def _encode(self, k: int, observation: Any) -> NDArray[Any]:
        """Bytes in torch's order of axes."""
        inputs = self._encoder.encode(observation, int(self._clocks[k]))
        return np.moveaxis(inputs.reshape(self._shape), -1, 0).ravel()


class _Each:
    """Environments of any kind, one after another, see `eventsim.models.screens.Screens`."""

    def __init__(self, envs: list[Env], longest: int) -> None:
        self._envs, self._longest = envs, longest
        self._clocks = np.zeros(len(envs), np.int64)
        self.finals: dict[int, Any] = {}

    def reset(self, seed: int) -> list[Any]:
        """Begin the episodes, the k-th one by the seed ``seed + k``."""
        return [env.reset(seed=seed + k)[0] for k, env in enumerate(self._envs)]

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[list[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
        """Act."""
        n = len(self._envs)
        pictures, rewards = [], np.zeros(n)
        over, cut = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self._clocks += 1
        self.finals = {}
        for k, env in enumerate(self._envs):
            picture, rewards[k], over[k], cut[k], _ = env.step(int(actions[k]))
            cut[k] |= self._clocks[k] >= self._longest
            if over[k] or cut[k]:
                # An environment may show all that it shows in the same array.
                self.finals[k], self._clocks[k] = copy.deepcopy(picture), 0
                picture, _ = env.reset()
            pictures.append(picture)
        return pictures, rewards, over, cut

    def close(self) -> None:
        """Close them."""
        for env in self._envs:
            env.close()


def _beside(make: Callable[[], Env], n: int, longest: int) -> Screens | _Each:
    """N environments, by one that plays them all where there is such a one."""
    envs = [make()]
    try:
        found = Screens.arguments_of(envs[0], longest)
        if found is not None:
            envs.pop().close()
            return Screens(found[0], n, found[1])
        envs += [make() for _ in range(n - 1)]
    except BaseException:
        for env in envs:
            env.close()
        raise
    return _Each(envs, longest)


class Player:
    """A student that plays by events and learns; its masks stay as they are.

    Parameters
    ----------
    student : PictureStudent
        Untouched.
    games : Games
    training : Training
        How windows are held and counted, and whether thresholds are learned.
    learning_rate : float
        Of Adam, to begin with.
    half : bool
        See `eventsim.models.picture_distill.PictureModule`.
    """

    def __init__(
        self,
        student: PictureStudent,
        games: Games,
        training: Training,
        learning_rate: float,
        half: bool = False,
    ) -> None:
        self._torch = torch_module()
        self._games, self._training = games, training
        self._scale, self._thresholds = student.scale, student.thresholds
        self._module = PictureModule(student, 1.0, half=half)
        groups: list[dict[str, Any]] = [{"params": self._module.values, "lr": learning_rate}]
        if training.learn_thresholds:
            groups.append({"params": self._module.logs, "lr": FASTER * learning_rate})
        self._steps = self._torch.optim.Adam(groups, eps=1e-5)
        self._rates = [group["lr"] for group in groups]
        # As after a reset. A later episode begins with what the last one left, which is within the
        # thresholds of what it would send.
        self._held = [self._torch.zeros(len(games), size) for size in student.sizes[:-1]]
        #: Multiplications of the last step, mean of the games.
        self._spent: Any = None

    def student(self) -> PictureStudent:
        """The student as it is now; thresholds that are not learned are unrounded."""
        made = self._module.student()
        if not self._training.learn_thresholds:
            made.thresholds = [theta.copy() for theta in self._thresholds]
        return made

    def _slow_down(self, factor: float) -> None:
        """Go on at so much of the first learning rate."""
        for group, rate in zip(self._steps.param_groups, self._rates, strict=True):
            group["lr"] = factor * rate

    def _forward(self) -> tuple[Any, Any]:
        """Pictures of now, and the outputs for them, by events."""
        x = self._torch.from_numpy(self._games.pictures.copy())
        outputs, spent = self._module.forward(self._scaled(x[:, None]), self._training, self._held)
        self._held, self._spent = self._module.held, spent
        self._check(float(outputs.sum()))
        return x, outputs[:, 0]

    def _scaled(self, pictures: Any) -> Any:
        return pictures.to(self._torch.float32).mul_(self._scale)

    def _step(self, optimiser: Any, parameters: list[Any], loss: Any) -> None:
        self._check(float(loss.detach()))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._torch.nn.utils.clip_grad_norm_(parameters, _MAX_NORM)
        optimiser.step()

    def _check(self, value: float) -> None:
        if not math.isfinite(value):
            raise SimulationError(
                f"learning in play diverged, to {value}; lower the learning rate, or look for "
                "rewards and outputs that are not finite"
            )


def parts_of(n: int, parts: int, rng: np.random.Generator) -> Iterator[Any]:
    """Numbers of n windows, shuffled, in so many parts if there are as many."""
    for part in np.array_split(rng.permutation(n), min(parts, n)):
        yield torch_module().from_numpy(part)


__all__ = ["LONGEST", "Games", "Player", "can_play", "check_length", "only_choice", "parts_of"]
