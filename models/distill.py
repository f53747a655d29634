"""Distillation with the events in the loop.

A student learns what the teacher does, and to move as little as it can while it does so.

The student is a small network of delta neurons. It is trained on windows of consecutive steps; in
each, every neuron holds what it last sent until its activation has moved by more than its
threshold, exactly as the simulator does, and the layers above see what was sent. The gradient
passes the hold straight through (Bengio et al. 2013, arXiv 1308.3432); a threshold theta gets the
gradient of the error that it causes, which is theta times a share in [-1, 1].

The cost is what the simulator will count, the sum of surviving fan-out times event rate. Rates are
measured, not differentiated; their gradient is that of ``rate ~ |activation change| / theta``, the
law of a signal that moves much less than theta a step, so that the training both raises thresholds
where this is harmless and makes activations move less.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import MissingDependencyError, SimulationError
from eventsim.models.decoders import SquashBox
from eventsim.models.student import Demonstrations, Float, Head, Student

# Steps at the start of a window whose holds are still too fresh to count events by.
_WARM_UP = 4


class Trainable(Protocol):
    """What of a student is trained; see `eventsim.models.student.Student`."""

    head: Head
    activation: str
    weights: list[Float]
    biases: list[Float]
    masks: list[NDArray[np.bool_]]
    thresholds: list[Float]

    def copy(self) -> Any:
        """Return a deep copy."""


S = TypeVar("S", bound=Trainable)


class Windows(Protocol):
    """Draws windows of consecutive steps."""

    def draw(self, n: int) -> tuple[Any, Any]:
        """Inputs and targets of n windows, (n, steps) first."""


@dataclass(frozen=True)
class Training:
    """How a student is trained in one round.

    Parameters
    ----------
    iterations : int
    windows, steps : int
        Windows in a batch, and steps in a window.
    learning_rate : float
        Of Adam (Kingma & Ba 2015), falling to a tenth along a cosine.
    events : bool
        Hold the activations by their thresholds; otherwise the student is trained dense.
    cost : float
        Weight of the logarithm of the cost in the loss.
    learn_thresholds : bool
    weight_bits : int
        Below 32, weights are rounded in the loop as `eventsim.models.quantization` will.
    """

    iterations: int = 600
    windows: int = 64
    steps: int = 32
    learning_rate: float = 3e-3
    events: bool = True
    cost: float = 0.0
    learn_thresholds: bool = True
    weight_bits: int = 32


def train(
    student: Student, demonstrations: Demonstrations, training: Training, seed: int
) -> tuple[Student, dict[str, float]]:
    """Train a student for one round.

    Parameters
    ----------
    student : Student
        Untouched.
    demonstrations : Demonstrations
    training : Training
    seed : int

    Returns
    -------
    Student
    dict
        ``loss`` (imitation), ``cost`` (multiplications a step on the demonstrations), means of
        the last tenth of the iterations.

    Raises
    ------
    SimulationError
        If the loss is no longer finite.
    MissingDependencyError
        If torch is not installed.
    """
    module = Module(student, scale_of(student.head, demonstrations))
    return fit(module, partial(_Windows, student, demonstrations), training, seed)


def fit(
    module: Module[S],
    windows: Callable[[int, np.random.Generator], Windows],
    training: Training,
    seed: int,
) -> tuple[S, dict[str, float]]:
    """Train the parameters of a module for one round, as `train` does.

    Parameters
    ----------
    module : Module
        Of a student; changed.
    windows : callable
        Makes windows of so many steps.
    training : Training
    seed : int
    """
    torch = torch_module()
    torch.manual_seed(seed)
    batches = windows(training.steps if training.events else 1, np.random.default_rng(seed))
    count = training.windows if training.events else training.windows * 16
    groups = [{"params": module.values, "lr": training.learning_rate}]
    if training.events and training.learn_thresholds:
        groups.append({"params": module.logs, "lr": 3.0 * training.learning_rate})
    optimiser = torch.optim.Adam(groups)
    rates = [g["lr"] for g in optimiser.param_groups]
    kept: list[tuple[float, float]] = []
    tail = max(1, training.iterations // 10)
    for k in range(training.iterations):
        fall = 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * k / training.iterations))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * fall
        x, y = batches.draw(count)
        outputs, cost = module.forward(x, training)
        loss = module.imitation(outputs, y)
        total = loss
        if training.events and training.cost > 0.0:
            total = loss + training.cost * torch.log(cost + 0.5)
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        value = float(total.detach())
        if not math.isfinite(value):
            raise SimulationError(
                f"the distillation's loss became {value} in iteration {k}; lower the learning "
                "rate, or look for huge values in the teacher's outputs"
            )
        torch.nn.utils.clip_grad_norm_(module.values, 1.0)
        optimiser.step()
        if k >= training.iterations - tail:
            kept.append((float(loss.detach()), float(cost.detach())))
    means = np.mean(kept, axis=0) if kept else np.zeros(2)
    return module.student(), {"loss": float(means[0]), "cost": float(means[1])}


def scale_of(head: Head, demonstrations: Demonstrations) -> float:
    """Temperature of a discrete teacher: a quarter of the mean gap between its values."""
    if head.kind == "box":
        return 1.0
    y = np.concatenate(demonstrations.targets)
    if head.kind == "binary":
        return max(float(np.abs(y).mean()), 1e-6)
    gaps, first = [], 0
    for n in head.groups:
        gaps.append(-y[:, first : first + n].min(axis=1))
        first += n
    return max(0.25 * float(np.mean(gaps)), 1e-6)


def long_enough(lengths: Sequence[int], steps: int) -> tuple[int, list[int]]:
    """Steps of a window, and the episodes that hold one.

    Where all episodes are shorter than a window, the shortest windows that fit.
    """
    steps = min(steps, max(lengths))
    return steps, [k for k, n in enumerate(lengths) if n >= steps]


class _Windows:
    """Draws windows of consecutive steps."""

    def __init__(
        self,
        student: Student,
        demonstrations: Demonstrations,
        steps: int,
        rng: np.random.Generator,
    ) -> None:
        torch = torch_module()
        self._rng = rng
        self._steps, long = long_enough([len(x) for x in demonstrations.inputs], steps)
        xs = [(demonstrations.inputs[k] - student.mean) / student.std for k in long]
        self._x = torch.from_numpy(np.concatenate(xs).astype(np.float32))
        self._y = torch.from_numpy(np.concatenate([demonstrations.targets[k] for k in long]))
        edges = np.cumsum([0, *(len(x) for x in xs)])
        self._starts = np.concatenate(
            [np.arange(a, b - self._steps + 1) for a, b in itertools.pairwise(edges)]
        )
        self._ahead = np.arange(self._steps)

    def draw(self, n: int) -> tuple[Any, Any]:
        """Inputs (n, steps, n_inputs) and targets (n, steps, size)."""
        starts = self._starts[self._rng.integers(len(self._starts), size=n)]
        places = torch_module().from_numpy(starts[:, None] + self._ahead)
        return self._x[places], self._y[places]


class Module(Generic[S]):
    """The parameters of a student as torch tensors.

    Parameters
    ----------
    student : Student, or one of pictures
    scale : float
        Temperature of a discrete teacher, see `scale_of`.
    """

    def __init__(self, student: S, scale: float) -> None:
        torch = torch_module()
        self._torch = torch
        self._template = student
        self._scale = scale

        def parameter(values: Float) -> Any:
            return torch.tensor(values, dtype=torch.float32, requires_grad=True)

        self.weights = [
            parameter(np.where(m, w, 0.0))
            for w, m in zip(student.weights, student.masks, strict=True)
        ]
        self.biases = [parameter(b) for b in student.biases]
        self.masks = [torch.tensor(m, dtype=torch.float32) for m in student.masks]
        self.values = [*self.weights, *self.biases]
        self.logs = [parameter(np.log(np.maximum(t, 1e-6))) for t in student.thresholds]
        self._zero = [torch.tensor(t == 0.0) for t in student.thresholds]
        self._f = torch.relu if student.activation == "relu" else torch.tanh
        self._fan_outs = [self.fan_out(k) for k in range(len(self.weights))]

    def fan_out(self, k: int) -> Any:
        """Surviving synapses of each neuron before layer `k`."""
        return self.masks[k].sum(dim=0)

    def each(self, k: int, values: Any) -> Any:
        """Values of the thresholds before layer `k`, for each of its neurons."""
        return values

    def sums(self, k: int, a: Any, weight: Any) -> Any:
        """Pre-activations of layer `k` for what it receives, of shape (n, steps, size)."""
        return a @ weight.T + self.biases[k]

    def watch(self, k: int, values: Any, rates: Any) -> None:
        """Told the activations before layer `k`, and their events a step."""

    def forward(self, x: Any, training: Training) -> tuple[Any, Any]:
        """Outputs of shape (n, steps, size) and the multiplications a step."""
        torch = self._torch
        cost = torch.zeros(())
        a = x
        last = len(self.weights) - 1
        for k, (w, mask) in enumerate(zip(self.weights, self.masks, strict=True)):
            weight = w * mask
            if training.weight_bits < 32:
                from eventsim.models.quantization import straight_through

                weight = straight_through(weight, training.weight_bits)
            if training.events:
                a, part = self._sent(k, a)
                cost = cost + part
            u = self.sums(k, a, weight)
            a = u if k == last else self._f(u)
        return a, cost

    def _sent(self, k: int, a: Any) -> tuple[Any, Any]:
        """What the layer's targets see, and what its events cost."""
        torch = self._torch
        theta = self.each(k, torch.exp(self.logs[k]).masked_fill(self._zero[k], 0.0))
        fixed = theta.detach()
        with torch.no_grad():
            values = a.detach()
            s = values[:, 0]
            held, fires = [s], []
            for t in range(1, values.shape[1]):
                fire = (values[:, t] - s).abs() > fixed
                s = torch.where(fire, values[:, t], s)
                held.append(s)
                if t >= min(_WARM_UP, values.shape[1] - 1):
                    fires.append(fire)
            sent = torch.stack(held, dim=1)
            error = sent - values
            rate = (
                torch.stack(fires, dim=1).float().mean(dim=(0, 1))
                if fires
                else torch.ones_like(fixed)
            )
            share = error / torch.clamp(fixed, min=1e-9)
        self.watch(k, values, rate)
        price = rate * self._fan_outs[k]
        if a.shape[1] > 1:
            moved = (a[:, 1:] - a[:, :-1]).abs().mean(dim=(0, 1)) + 1e-8
            price = price * (moved / moved.detach())
        safe = torch.clamp(theta, min=1e-9)
        price = price * (safe.detach() / safe)
        return a + share * theta, price.sum()

    def imitation(self, outputs: Any, targets: Any) -> Any:
        """Mean loss over windows and steps."""
        torch = self._torch
        head = self._template.head
        if head.kind == "discrete":
            loss = torch.zeros(())
            first = 0
            for n in head.groups:
                wanted = torch.softmax(targets[..., first : first + n] / self._scale, dim=-1)
                got = torch.log_softmax(outputs[..., first : first + n], dim=-1)
                entropy = torch.special.entr(wanted).sum(dim=-1)
                loss = loss + (-(wanted * got).sum(dim=-1) - entropy).mean()
                first += n
            return loss
        if head.kind == "binary":
            return torch.nn.functional.binary_cross_entropy_with_logits(
                outputs, torch.sigmoid(targets / self._scale)
            )
        if isinstance(head.decoder, SquashBox):
            return torch.square(torch.tanh(outputs) - targets).mean()
        low, high = (torch.tensor(v, dtype=torch.float32) for v in head.bounds())
        scaled = (outputs - low) / (high - low) * 2.0 - 1.0
        # Beyond the box the action is the same, but the gradient must find the way back.
        clipped = scaled.clamp(-1.0, 1.0)
        inside = torch.where((clipped == targets) & (scaled != clipped), clipped, scaled)
        return torch.square(inside - targets).mean()

    def student(self) -> S:
        """The parameters as arrays."""
        result: S = self._template.copy()

        def array(tensor: Any) -> Float:
            return np.asarray(tensor.detach().numpy(), np.float64)

        result.weights = [array(w * m) for w, m in zip(self.weights, self.masks, strict=True)]
        result.biases = [array(b) for b in self.biases]
        result.thresholds = [
            np.where(zero.numpy(), 0.0, array(self._torch.exp(log)))
            for log, zero in zip(self.logs, self._zero, strict=True)
        ]
        return result


def torch_module() -> Any:
    """Torch, or an error that says how to install it."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "Distillation needs PyTorch; run: pip install 'eventsim[train]'"
        ) from error
    return torch
