"""Distillation into students of pictures: `eventsim.models.distill` with convolutions in it.

What matters in a frame may be a ball of two pixels, of which actions alone say little. So a student
that is not yet driven by events also learns what its teacher goes by, main directions of the
teacher's last hidden layer (hints, Romero et al. 2015, arXiv 1412.6550): a linear head, which is
left out afterwards, tells them from the student's feature maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.models.distill import Module, Training, fit, long_enough, scale_of, torch_module
from eventsim.models.films import joined
from eventsim.models.picture_student import PictureStudent, fan_out
from eventsim.models.student import Demonstrations, Float

#: Weight of the squared error of hints, whose variances are 1.
_HINTED = 0.3
#: Frames of which the mean brightness is taken.
_BRIGHT_FRAMES = 512
#: Windows and steps by which a student is watched.
_WATCHED_WINDOWS, _WATCHED_STEPS = 16, 64
#: Pictures that are looked at together.
_AT_ONCE = 256


def train_pictures(
    student: PictureStudent, demonstrations: Demonstrations, training: Training, seed: int
) -> tuple[PictureStudent, dict[str, float]]:
    """Train a student for one round, as `eventsim.models.distill.train` does."""
    n_hints = demonstrations.targets[0].shape[1] - student.head.size if not training.events else 0
    module = PictureModule(
        student,
        scale_of(student.head, demonstrations),
        centre=_brightness(student, demonstrations),
        n_hints=n_hints,
        seed=seed,
    )
    return fit(module, partial(PictureWindows, student, demonstrations), training, seed)


class PictureWindows:
    """Draws windows of consecutive pictures, scaled.

    Parameters
    ----------
    student : PictureStudent
    demonstrations : Demonstrations
        Of films.
    steps : int
    rng : numpy.random.Generator
    """

    def __init__(
        self,
        student: PictureStudent,
        demonstrations: Demonstrations,
        steps: int,
        rng: np.random.Generator,
    ) -> None:
        torch = torch_module()
        self._rng, self._scale = rng, student.scale
        films = demonstrations.inputs
        self._steps, long = long_enough([len(film) for film in films], steps)
        frames, self._stack, firsts = joined([films[k] for k in long])
        self._frames = torch.from_numpy(frames)
        self._y = torch.from_numpy(np.concatenate([demonstrations.targets[k] for k in long]))
        places = [np.arange(len(films[k]) - self._steps + 1) for k in long]
        steps_before = np.cumsum([0, *(len(films[k]) for k in long)])[:-1]
        #: First step of each window, and its first frame.
        self._starts = np.stack(
            [
                np.concatenate([p + first for p, first in zip(places, offsets, strict=True)])
                for offsets in (steps_before, firsts)
            ]
        )

    def draw(self, n: int) -> tuple[Any, Any, None]:
        """Pictures (n, steps, values) in torch's order, and targets (n, steps, size)."""
        torch = torch_module()
        chosen = self._starts[:, self._rng.integers(self._starts.shape[1], size=n)]
        ahead = np.arange(self._steps)
        steps = torch.from_numpy(chosen[0][:, np.newaxis] + ahead)
        frames = (chosen[1][:, np.newaxis] + ahead)[..., np.newaxis] + np.arange(self._stack)
        x = self._frames[torch.from_numpy(frames)].reshape(n, self._steps, -1)
        return x.to(torch.float32) * self._scale, self._y[steps], None


class PictureModule(Module[PictureStudent]):
    """The parameters of a student of pictures as torch tensors.

    Parameters
    ----------
    student : PictureStudent
    scale : float
        Temperature of a discrete teacher, see `eventsim.models.distill.scale_of`.
    centre : float
        From which on the values of pictures are counted while the first layer learns, which is
        what its bias makes up for.
    n_hints : int
        Further columns of the targets.
    seed : int
        Of the head that tells them.
    half : bool
        Whether sums are of weights and activations in bfloat16, for which some processors have
        instructions; what they are rounded to, neurons then hold and compare.
    """

    def __init__(
        self,
        student: PictureStudent,
        scale: float,
        *,
        centre: float = 0.0,
        n_hints: int = 0,
        seed: int = 0,
        half: bool = False,
    ) -> None:
        self._maps = student.maps
        self._half = half
        self._kernels = student.kernels
        super().__init__(student, scale)
        self._watching: list[Watched] | None = None
        self._centre = centre
        if centre:
            with self._torch.no_grad():
                self.biases[0] += self._centre_sums()
        self._hints: Any = None  # weights and biases of their head
        self._features: Any = None  # what it goes by
        if n_hints and self._kernels:
            n = int(np.prod(self._maps[-1]))
            rng = np.random.default_rng(seed)
            start = rng.normal(size=(n_hints, n)).astype(np.float32) / math.sqrt(n)
            zeros = self._torch.zeros(n_hints, requires_grad=True)
            self._hints = (self._torch.from_numpy(start).requires_grad_(), zeros)
            self.values += self._hints

    def _centre_sums(self) -> Any:
        """What a picture of the centre's brightness adds to the first layer's sums."""
        return self._centre * (self.weights[0] * self.masks[0]).flatten(1).sum(dim=1)

    def imitation(self, outputs: Any, targets: Any) -> Any:
        """Mean loss over windows and steps, that of the hints with it."""
        size = self._template.head.size
        loss = super().imitation(outputs, targets[..., :size])
        if self._hints is None:
            return loss
        weight, bias = self._hints
        told = self._features @ weight.T + bias
        return loss + _HINTED * self._torch.square(told - targets[..., size:]).mean()

    def student(self) -> PictureStudent:
        """The parameters as arrays, brightness counted from 0 on."""
        result = super().student()
        if self._centre:
            result.biases[0] = result.biases[0] - self._centre_sums().detach().numpy()
        return result

    def fan_out(self, k: int) -> Any:
        """Surviving synapses of each neuron before layer `k`, borders exactly."""
        counted = fan_out(self._template, k).astype(np.float32)
        return self._torch.from_numpy(counted)

    def each(self, k: int, values: Any) -> Any:
        """Values a channel, for each position of its map."""
        if k >= len(self._maps):
            return values
        _, height, width = self._maps[k]
        return values.repeat_interleave(height * width)

    def sums(self, k: int, a: Any, weight: Any) -> Any:
        """Pre-activations of layer `k`, its maps in one row."""
        if k == len(self._kernels):
            self._features = a
        if k == 0 and self._centre:
            a = a - self._centre
        with self._torch.autocast("cpu", self._torch.bfloat16, enabled=self._half):
            if k >= len(self._kernels):
                return super().sums(k, a, weight).float()
            n, steps = a.shape[:2]
            kernel = self._kernels[k]
            u = self._torch.nn.functional.conv2d(
                a.reshape(n * steps, *self._maps[k]),
                weight,
                self.biases[k],
                kernel.stride,
                kernel.padding,
            )
        return u.float().reshape(n, steps, -1)

    def watch(self, k: int, values: Any, rates: Any) -> None:
        """Add up what the layer before `k` does."""
        if self._watching is not None:
            one = self._watching[k]
            wide = values.double().reshape(-1, values.shape[-1])
            one.n += len(wide)
            one.sums = one.sums + wide.sum(dim=0).numpy()
            one.squares = one.squares + wide.square().sum(dim=0).numpy()
            one.rates.append(rates.numpy())

    def watched(self, windows: PictureWindows, batches: int) -> list[Watched]:
        """See what every layer transmits over some windows."""
        self._watching = [Watched() for _ in self.weights]
        with self._torch.no_grad():
            for _ in range(batches):
                self.forward(windows.draw(_WATCHED_WINDOWS)[0], Training())
        found, self._watching = self._watching, None
        return found


def _brightness(student: PictureStudent, demonstrations: Demonstrations) -> float:
    """Mean value of bytes, scaled; 0 where a centre would be no constant, or changes little."""
    if student.scale == 1.0 or not student.kernels or student.kernels[0].padding != (0, 0):
        return 0.0
    frames = [film.frames for film in demonstrations.inputs]
    every = max(sum(map(len, frames)) // _BRIGHT_FRAMES, 1)
    means = [part[::every].mean() for part in frames]
    return student.scale * float(np.average(means, weights=[len(part) for part in frames]))


@dataclass
class Watched:
    """Activations of the neurons before a layer, dense where their thresholds are 0.

    Attributes
    ----------
    n : int
        Steps.
    sums, squares : float64 array
        Of the activations.
    rates : list of float32 array
        Events a step, by batch.
    """

    n: int
    sums: Any
    squares: Any
    rates: list[Any]

    def __init__(self) -> None:
        self.n, self.sums, self.squares, self.rates = 0, 0.0, 0.0, []

    @property
    def mean(self) -> Float:
        """Mean activation of each neuron, in torch's order."""
        return np.asarray(self.sums / max(self.n, 1), np.float64)

    @property
    def variance(self) -> Float:
        """Variance of each neuron's activation."""
        spread = self.squares / max(self.n, 1) - np.square(self.mean)
        return np.asarray(np.maximum(spread, 0.0), np.float64)

    @property
    def rate(self) -> Float:
        """Events a step of each neuron."""
        return np.asarray(np.mean(self.rates, axis=0), np.float64)


def watch(
    student: PictureStudent, demonstrations: Demonstrations, seed: int = 0, steps: int = 8192
) -> list[Watched]:
    """See what picture and layers of a student do on demonstrations, by events.

    Parameters
    ----------
    student : PictureStudent
    demonstrations : Demonstrations
        Of films.
    seed : int
        Of the windows that are looked at.
    steps : int
        About so many are looked at.

    Returns
    -------
    list of Watched
        One a layer, of what it receives.
    """
    module = PictureModule(student, 1.0)
    rng = np.random.default_rng(seed)
    windows = PictureWindows(student, demonstrations, _WATCHED_STEPS, rng)
    return module.watched(windows, math.ceil(steps / (_WATCHED_WINDOWS * _WATCHED_STEPS)))


def ever_sent(student: PictureStudent, demonstrations: Demonstrations) -> list[NDArray[np.bool_]]:
    """Tell which channels and hidden neurons ever differ from 0 in all of the demonstrations.

    Parameters
    ----------
    student : PictureStudent
    demonstrations : Demonstrations
        Of films.

    Returns
    -------
    list of bool array
        A value a channel of each convolution, a value a neuron of each hidden linear layer.
    """
    torch = torch_module()
    module = PictureModule(student, 1.0)
    found = [np.zeros(len(b), np.bool_) for b in student.biases[:-1]]
    with torch.no_grad():
        layers = [w * m for w, m in zip(module.weights, module.masks, strict=True)][:-1]
        for film in demonstrations.inputs:
            pictures = film.pictures()
            for first in range(0, len(pictures), _AT_ONCE):
                part = np.moveaxis(pictures[first : first + _AT_ONCE], -1, 1)
                a = torch.from_numpy(part.reshape(1, len(part), -1).astype(np.float32))
                a *= student.scale
                for k, weight in enumerate(layers):
                    a = module.activation(module.sums(k, a, weight))
                    sent = (a != 0.0).reshape(len(part), len(found[k]), -1)
                    found[k] |= sent.any(dim=2).any(dim=0).numpy()
    return found


__all__ = ["PictureModule", "PictureWindows", "Watched", "ever_sent", "train_pictures", "watch"]
