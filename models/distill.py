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
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import MissingDependencyError, SimulationError
from eventsim.kernels.hold import hold
from eventsim.models.decoders import SquashBox
from eventsim.models.encoders import FixedPoint
from eventsim.models.quantization import quanta_for, round_weights, straight_through
from eventsim.models.student import Demonstrations, Float, Head, Student, held_before, peaks

#: Learning rate of thresholds, in units of that of weights.
FASTER = 3.0
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

    def draw(self, n: int) -> tuple[Any, Any, list[Any] | None]:
        """Inputs and targets of n windows, (n, steps) first, and what was held before, if told."""


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
        Below 32, weights, inputs and activations are rounded in the loop as
        `eventsim.models.quantization.quantize` will, with the gradient of the identity; the
        weights returned are the rounded ones.
    activation_bits : int
        Of inputs and activations, where `weight_bits` is below 32.
    carried : bool
        Windows begin with what the neurons of the untrained student hold there, instead of afresh.
        For a student with large thresholds that shall stay what it is.
    temperature : float, optional
        By which answers of discrete actions are divided; default: a quarter of the mean gap
        between them.
    batch : int, optional
        Steps in a batch where there are no events; default: 16 times the windows.
    """

    iterations: int = 600
    windows: int = 64
    steps: int = 32
    learning_rate: float = 3e-3
    events: bool = True
    cost: float = 0.0
    learn_thresholds: bool = True
    weight_bits: int = 32
    activation_bits: int = 8
    carried: bool = False
    temperature: float | None = None
    batch: int | None = None


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
    scale = training.temperature or scale_of(student.head, demonstrations)
    grid = _Grid(student, demonstrations, training) if training.weight_bits < 32 else None

    def windows(steps: int, rng: np.random.Generator) -> _Windows:
        return _Windows(student, demonstrations, steps, rng, grid, training.carried)

    return fit(Module(student, scale, grid), windows, training, seed)


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
    count = training.windows if training.events else training.batch or 16 * training.windows
    groups = [{"params": module.values, "lr": training.learning_rate}]
    if training.events and training.learn_thresholds:
        groups.append({"params": module.logs, "lr": FASTER * training.learning_rate})
    optimiser = torch.optim.Adam(groups)
    rates = [g["lr"] for g in optimiser.param_groups]
    kept: list[tuple[float, float]] = []
    tail = max(1, training.iterations // 10)
    for k in range(training.iterations):
        fall = 0.1 + 0.9 * 0.5 * (1.0 + math.cos(math.pi * k / training.iterations))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * fall
        x, y, held = batches.draw(count)
        outputs, cost = module.forward(x, training, held)
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
    y = np.concatenate([y[:, : head.size] for y in demonstrations.targets])
    if head.kind == "binary":
        return max(float(np.abs(y).mean()), 1e-6)
    gaps, first = [], 0
    for n in head.groups:
        gaps.append(-y[:, first : first + n].min(axis=1))
        first += n
    return max(0.25 * float(np.mean(gaps)), 1e-6)


def tempered(student: S, demonstrations: Demonstrations) -> S:
    """Return a student whose outputs are a teacher's as one whose outputs are what it is taught.

    Discrete answers are taught over a temperature, see `scale_of`. A network that gives them as
    they are would first have to learn to be less sure, at the expense of all else it knows.
    """
    result: S = student.copy()
    scale = scale_of(student.head, demonstrations)
    result.weights[-1] = result.weights[-1] / scale
    result.biases[-1] = result.biases[-1] / scale
    return result


def long_enough(lengths: Sequence[int], steps: int) -> tuple[int, list[int]]:
    """Steps of a window, and the episodes that hold one.

    Where all episodes are shorter than a window, the shortest windows that fit.
    """
    steps = min(steps, max(lengths))
    return steps, [k for k, n in enumerate(lengths) if n >= steps]


class _Grid:
    """The values that a student in fixed point can have."""

    def __init__(
        self, student: Student, demonstrations: Demonstrations, training: Training
    ) -> None:
        self._bits, self._levels = training.weight_bits, 2 ** (training.activation_bits - 1)
        inputs, *hidden = peaks(student, demonstrations)
        quanta = quanta_for(inputs, training.activation_bits)
        self.inputs = FixedPoint(quanta, self._levels)
        self._hidden = [
            float(quanta_for(p.max(keepdims=True), training.activation_bits)[0]) for p in hidden
        ]
        # A layer's sources have one step, but for the inputs.
        self._quanta: list[Any] = [quanta / student.std, *self._hidden]

    def weight(self, k: int, weight: Any) -> Any:
        """Round the weights of layer k."""
        return straight_through(weight, self._bits, self._quanta[k])

    def activation(self, k: int, a: Any) -> Any:
        """Round what hidden layer k sends."""
        q = self._hidden[k]
        rounded = (a.detach() / q).round().clamp(-self._levels, self._levels - 1) * q
        return a + (rounded - a).detach()

    def arrays(self, weights: list[Float]) -> list[Float]:
        """Round the weights of all layers."""
        pairs = zip(weights, self._quanta, strict=True)
        return [round_weights(w, self._bits, quanta) for w, quanta in pairs]


class _Windows:
    """Draws windows of consecutive steps."""

    def __init__(
        self,
        student: Student,
        demonstrations: Demonstrations,
        steps: int,
        rng: np.random.Generator,
        grid: _Grid | None,
        carried: bool,
    ) -> None:
        torch = torch_module()
        self._rng = rng
        self._steps, long = long_enough([len(x) for x in demonstrations.inputs], steps)
        raw = [np.array(demonstrations.inputs[k], np.float64) for k in long]
        xs = [((x if grid is None else grid.inputs(x)) - student.mean) / student.std for x in raw]
        self._x = torch.from_numpy(np.concatenate(xs).astype(np.float32))
        self._y = torch.from_numpy(np.concatenate([demonstrations.targets[k] for k in long]))
        edges = np.cumsum([0, *(len(x) for x in xs)])
        self._starts = np.concatenate(
            [np.arange(a, b - self._steps + 1) for a, b in itertools.pairwise(edges)]
        )
        self._ahead = np.arange(self._steps)
        held = [held_before(student, demonstrations.inputs[k]) for k in long] if carried else []
        self._held = [
            torch.from_numpy(np.concatenate(layer).astype(np.float32))
            for layer in zip(*held, strict=True)
        ]

    def draw(self, n: int) -> tuple[Any, Any, list[Any] | None]:
        """Inputs (n, steps, n_inputs), targets (n, steps, size), and values held before, if any."""
        starts = self._starts[self._rng.integers(len(self._starts), size=n)]
        places = torch_module().from_numpy(starts[:, None] + self._ahead)
        held = [values[starts] for values in self._held] or None
        return self._x[places], self._y[places], held


class Module(Generic[S]):
    """The parameters of a student as torch tensors.

    Parameters
    ----------
    student : Student, or one of pictures
    scale : float
        Temperature of a discrete teacher, see `scale_of`.
    grid : optional
        Rounds weights and activations, if the student shall be one in fixed point.
    """

    def __init__(self, student: S, scale: float, grid: _Grid | None = None) -> None:
        torch = torch_module()
        self._torch = torch
        self._template = student
        self._scale = scale
        self._grid = grid

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
        self.activation = torch.relu if student.activation == "relu" else torch.tanh
        self._fan_outs = [self.fan_out(k) for k in range(len(self.weights))]
        #: What inputs and hidden neurons hold after the last forward pass by events.
        self.held: list[Any] = []

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

    def forward(self, x: Any, training: Training, held: list[Any] | None = None) -> tuple[Any, Any]:
        """Outputs of shape (n, steps, size) and the multiplications a step."""
        torch = self._torch
        cost = torch.zeros(())
        self.held = []
        a = x
        last = len(self.weights) - 1
        for k, (w, mask) in enumerate(zip(self.weights, self.masks, strict=True)):
            weight = w * mask
            if self._grid is not None:
                weight = self._grid.weight(k, weight)
            if training.events:
                before = None if held is None else held[k]
                a, part = self._sent(k, a, before, training.learn_thresholds)
                cost = cost + part
            u = self.sums(k, a, weight)
            a = u if k == last else self.activation(u)
            if self._grid is not None and k < last:
                a = self._grid.activation(k, a)
        return a, cost

    def _sent(self, k: int, a: Any, before: Any, learn: bool) -> tuple[Any, Any]:
        """What the layer's targets see, and what its events cost."""
        torch = self._torch
        theta = self.each(k, torch.exp(self.logs[k]).masked_fill(self._zero[k], 0.0))
        if not learn:
            theta = theta.detach()
        fixed = theta.detach()
        with torch.no_grad():
            values = a.detach().to(torch.float32).contiguous()
            n, length, size = values.shape
            # Begun afresh, all is sent in the first step, and the next ones tell little of rates.
            counted = min(_WARM_UP, length - 1) if before is None else 0
            s = (values[:, 0] if before is None else before).clone(
                memory_format=torch.contiguous_format
            )
            sent, fires = torch.empty_like(values), np.zeros(size, np.int64)
            flat = (x.view(-1).numpy() for x in (values, s, fixed.contiguous()))
            hold(*flat, counted, sent.view(-1).numpy(), fires)
            self.held.append(s)
            seen = n * (length - counted)
            alone = before is None and length == 1  # nothing but what is sent to begin with
            rate = torch.ones(size) if alone else torch.from_numpy(fires / seen).to(torch.float32)
        self.watch(k, values, rate)
        price = rate * self._fan_outs[k]
        if a.requires_grad and a.shape[1] > 1:
            moved = (a[:, 1:] - a[:, :-1]).abs().mean(dim=(0, 1)) + 1e-8
            price = price * (moved / moved.detach())
        safe = torch.clamp(theta, min=1e-9)
        price = price * (safe.detach() / safe)
        return _straight_through().apply(a, theta, sent, values, fixed), price.sum()

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
        if self._grid is not None:
            result.weights = self._grid.arrays(result.weights)
        result.biases = [array(b) for b in self.biases]
        result.thresholds = [
            np.where(zero.numpy(), 0.0, array(self._torch.exp(log)))
            for log, zero in zip(self.logs, self._zero, strict=True)
        ]
        return result


@cache
def _straight_through() -> Any:
    """What was sent, with the gradients of what was to be sent and of the thresholds."""
    torch = torch_module()

    class StraightThrough(torch.autograd.Function):  # type: ignore[name-defined]
        """The error is the threshold times a share; what is not differentiated costs nothing."""

        @staticmethod
        def forward(ctx: Any, a: Any, theta: Any, sent: Any, values: Any, fixed: Any) -> Any:
            if ctx.needs_input_grad[1]:
                ctx.save_for_backward(sent, values, fixed)
            return sent

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            of_theta = None
            if ctx.needs_input_grad[1]:
                sent, values, fixed = ctx.saved_tensors
                error = (sent - values).mul_(gradient).sum(dim=(0, 1))
                of_theta = error / torch.clamp(fixed, min=1e-9)
            return gradient if ctx.needs_input_grad[0] else None, of_theta, None, None, None

    return StraightThrough


def torch_module() -> Any:
    """Torch, or an error that says how to install it."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "Distillation needs PyTorch; run: pip install 'eventsim[train]'"
        ) from error
    return torch
