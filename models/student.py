"""Students: small layered networks as plain arrays, to be distilled, cut and made policies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.connectivity import Dense, Sparse
from eventsim.errors import InputError, UnsupportedError
from eventsim.models.activity import activity
from eventsim.models.decoders import (
    Argmax,
    ClipBox,
    Decoder,
    MultiBinary,
    MultiDiscreteArgmax,
    QuantileArgmax,
)
from eventsim.models.films import Film
from eventsim.models.policy import Policy
from eventsim.network import Network, Population, Projection
from eventsim.neurons import Delta, Input, activation

Float: TypeAlias = NDArray[np.float64]
Float32: TypeAlias = NDArray[np.float32]
HeadKind: TypeAlias = Literal["discrete", "binary", "box"]

#: Activations that a student may have.
STUDENT_ACTIVATIONS = ("relu", "tanh")


@dataclass(frozen=True)
class Head:
    """What the outputs of teacher and student mean, and how far apart they are.

    Parameters
    ----------
    kind : str
        ``"discrete"``: groups of logits or Q-values, an argmax each; ``"binary"``: logits;
        ``"box"``: actions.
    decoder : Decoder
        Of the student.
    groups : tuple of int
        Outputs of each sub-action.
    """

    kind: HeadKind
    decoder: Decoder
    groups: tuple[int, ...]

    @classmethod
    def of(cls, decoder: Decoder) -> Head:
        """Head for a teacher's decoder.

        Raises
        ------
        UnsupportedError
            If there is no loss for it.
        """
        if isinstance(decoder, Argmax):
            return cls("discrete", decoder, (decoder.n,))
        if isinstance(decoder, QuantileArgmax):
            return cls("discrete", Argmax(decoder.n_actions, decoder.start), (decoder.n_actions,))
        if isinstance(decoder, MultiDiscreteArgmax):
            return cls("discrete", decoder, decoder.nvec)
        if isinstance(decoder, MultiBinary):
            return cls("binary", decoder, (decoder.n,))
        if isinstance(decoder, ClipBox):
            return cls("box", decoder, (decoder.size,))
        raise UnsupportedError(f"decoder '{decoder.kind}' cannot be distilled")

    @property
    def size(self) -> int:
        """Outputs of the student."""
        return self.decoder.size

    def targets(self, teacher: Decoder, outputs: Float) -> Float32:
        """What the student shall give: teacher's outputs of shape (T, m) to (T, size).

        Discrete values are shifted to a largest of 0; actions are those in the box, scaled to
        [-1, 1] where the box is bounded.
        """
        values = outputs
        if isinstance(teacher, QuantileArgmax):
            shape = (-1, teacher.n_quantiles, teacher.n_actions)
            values = outputs.reshape(shape).mean(axis=1)
        if self.kind == "discrete":
            parts = np.split(values, np.cumsum(self.groups)[:-1], axis=1)
            values = np.concatenate([p - p.max(axis=1, keepdims=True) for p in parts], axis=1)
        elif self.kind == "box":
            actions = teacher.decode_batch(values).reshape(len(values), -1).astype(np.float64)
            low, high = self.bounds()
            values = (actions - low) / (high - low) * 2.0 - 1.0
        return values.astype(np.float32)

    def bounds(self) -> tuple[Float, Float]:
        """Ends of a box, by which its actions are scaled to [-1, 1]; those of 1 without any."""
        if not isinstance(self.decoder, ClipBox):
            raise UnsupportedError("only a box has bounds")
        low = self.decoder.low.astype(np.float64).reshape(-1)
        high = self.decoder.high.astype(np.float64).reshape(-1)
        bounded = np.isfinite(low) & np.isfinite(high)
        return np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)


@dataclass(eq=False)
class Demonstrations:
    """Episodes of encoded inputs with the teacher's answers, from whoever played them.

    Attributes
    ----------
    inputs : list of float32 array of shape (T, n_inputs), or of Film
    targets : list of float32 array of shape (T, size)
        Students of pictures are told more in further columns, see `PictureFamily.answers`.
    """

    inputs: list[Any] = field(default_factory=list)
    targets: list[Float32] = field(default_factory=list)

    @property
    def steps(self) -> int:
        """Steps in all."""
        return sum(len(x) for x in self.inputs)

    def add(self, inputs: Sequence[Float | Film], targets: Sequence[Float32]) -> None:
        """Append episodes."""
        self.inputs += [x if isinstance(x, Film) else np.asarray(x, np.float32) for x in inputs]
        self.targets += list(targets)

    def latest(self, steps: int) -> Demonstrations:
        """The first episode, and the last ones up to so many steps."""
        kept, total = 0, 0
        while kept < len(self.inputs) and total < steps:
            kept += 1
            total += len(self.inputs[-kept])
        first = 0 if kept < len(self.inputs) else 1
        chosen = slice(len(self.inputs) - kept, None)
        return Demonstrations(
            self.inputs[: 1 - first] + self.inputs[chosen],
            self.targets[: 1 - first] + self.targets[chosen],
        )


@dataclass(eq=False)
class Student:
    """A layered network in standardised inputs, as plain arrays: what training takes and gives.

    Attributes
    ----------
    head : Head
    activation : str
    mean, std : float64 array of shape (n_inputs,)
        Of the inputs.
    weights : list of float64 array of shape (n_out, n_in)
        Of standardised inputs.
    biases : list of float64 array of shape (n_out,)
    masks : list of bool array of shape (n_out, n_in)
    thresholds : list of float64 array
        Of the standardised inputs and of each hidden layer.
    """

    head: Head
    activation: str
    mean: Float
    std: Float
    weights: list[Float]
    biases: list[Float]
    masks: list[NDArray[np.bool_]]
    thresholds: list[Float]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Sizes of the hidden layers."""
        return tuple(len(b) for b in self.biases[:-1])

    @property
    def n_synapses(self) -> int:
        """Surviving synapses."""
        return sum(int(m.sum()) for m in self.masks)

    @property
    def dense_macs(self) -> int:
        """Multiplications a step without pruning and events."""
        return sum(m.size for m in self.masks)

    def copy(self) -> Student:
        """Return a deep copy."""
        return Student(
            self.head,
            self.activation,
            self.mean.copy(),
            self.std.copy(),
            [w.copy() for w in self.weights],
            [b.copy() for b in self.biases],
            [m.copy() for m in self.masks],
            [t.copy() for t in self.thresholds],
        )

    def to_policy(self, teacher: Policy, *, events: bool = True, **metadata: Any) -> Policy:
        """Return the student as a policy, with the teacher's encoder and dense MACs.

        Standardisation is folded into weights, biases and thresholds. The teacher's dense MACs
        are booked on the projections, the whole of them on the first one, so that reductions
        are against the teacher; with ``events=False`` thresholds are 0.
        """
        names = ["input", *(f"hidden{k + 1}" for k in range(len(self.weights) - 1)), "output"]
        limits = [t if events else np.zeros_like(t) for t in self.thresholds]
        populations = [Population(names[0], len(self.mean), Input(limits[0] * self.std))]
        projections = []
        macs = _shares(teacher.dense_macs, len(self.weights))
        for k, (w, b, mask) in enumerate(zip(self.weights, self.biases, self.masks, strict=True)):
            weight, bias = np.where(mask, w, 0.0), b
            if k == 0:
                weight = weight / self.std
                bias = bias - weight @ self.mean
            weight = weight.astype(np.float32)
            last = k == len(self.weights) - 1
            neuron = (
                Delta("identity", bias) if last else Delta(self.activation, bias, limits[k + 1])
            )
            populations.append(Population(names[k + 1], len(b), neuron))
            projections.append(Projection(names[k], names[k + 1], weight, dense_macs=macs[k]))
        network = Network(tuple(populations), tuple(projections), name=teacher.network.name)
        return Policy(teacher.encoder, network, self.head.decoder, {**teacher.metadata, **metadata})


def student_of(policy: Policy, inputs: Sequence[Float]) -> Student | None:
    """Return a policy as a student that can be trained further, or None if it has another form.

    Parameters
    ----------
    policy : Policy
        Of a layered feed-forward network of delta neurons, no synapse past a layer, none of its
        own over time.
    inputs : sequence of array of shape (T, n_inputs)
        Encoded, for their means and standard deviations.

    Returns
    -------
    Student or None
        ``student.to_policy(policy)`` gives the policy again, to the rounding of float32.
    """
    network, head = policy.network, Head.of(policy.decoder)
    layers = [p for p in network.populations if not p.is_input]
    chain = [*network.inputs, *(p.name for p in layers)]
    neurons = [p.neuron for p in layers if isinstance(p.neuron, Delta)]
    names = [n.activation.name for n in neurons]
    hidden = names[0] if len(names) > 1 else STUDENT_ACTIVATIONS[0]
    if (
        [(q.source, q.target) for q in network.projections] != list(itertools.pairwise(chain))
        or any(q.delay or not isinstance(q.weights, Dense | Sparse) for q in network.projections)
        or hidden not in STUDENT_ACTIVATIONS
        or names != [hidden] * (len(layers) - 1) + ["identity"]
        or head.decoder is not policy.decoder
    ):
        return None
    mean, std = _standard(np.concatenate(inputs))
    weights = [q.weights.to_dense().astype(np.float64) for q in network.projections]
    biases = [p.parameter("bias").astype(np.float64) for p in layers]
    masks = [w != 0.0 for w in weights]
    biases[0] = biases[0] + weights[0] @ mean
    weights[0] = weights[0] * std
    thresholds = [network[name].parameter("threshold").copy() for name in chain[:-1]]
    thresholds[0] = thresholds[0] / std
    return Student(head, hidden, mean, std, weights, biases, masks, thresholds)


def new_student(
    head: Head,
    demonstrations: Demonstrations,
    hidden: Sequence[int],
    seed: int,
    activation_name: str = "relu",
) -> Student:
    """Return an untrained dense student.

    Parameters
    ----------
    head : Head
    demonstrations : Demonstrations
        For the means and standard deviations of the inputs.
    hidden : sequence of int
        Sizes of the hidden layers; none for a linear student.
    seed : int
    activation_name : str
        One of `STUDENT_ACTIVATIONS`.

    Raises
    ------
    InputError
        If there is nothing to learn from.
    """
    if demonstrations.steps == 0:
        raise InputError("hold no step; record at least one episode", where="demonstrations")
    if activation_name not in STUDENT_ACTIVATIONS:
        raise InputError(
            f"is {activation_name!r}; use one of {', '.join(STUDENT_ACTIVATIONS)}",
            where="student",
            field="activation",
        )
    rng = np.random.default_rng(seed)
    mean, std = _standard(np.concatenate(demonstrations.inputs))
    sizes = [len(mean), *hidden, head.size]
    weights = [
        rng.normal(size=(m, n)) * math.sqrt((2.0 if k < len(hidden) else 1.0) / n)
        for k, (n, m) in enumerate(itertools.pairwise(sizes))
    ]
    biases = [rng.uniform(-0.5, 0.5, size=m) for m in sizes[1:-1]] + [np.zeros(sizes[-1])]
    return Student(
        head,
        activation_name,
        mean,
        std,
        weights,
        biases,
        [np.ones(w.shape, np.bool_) for w in weights],
        [np.zeros(n) for n in sizes[:-1]],
    )


def answers(teacher: Policy, head: Head, inputs: Sequence[Float]) -> list[Float32]:
    """What the teacher would have done at each step of each episode of encoded inputs."""
    result = []
    for x in inputs:
        values = activity(teacher.network, x).activations
        outputs = np.concatenate([values[name] for name in teacher.network.outputs], axis=1)
        result.append(head.targets(teacher.decoder, outputs))
    return result


def _activations(student: Student, x: Float) -> list[Float]:
    """Standardised inputs of shape (T, n_inputs), and what each hidden layer makes of them."""
    result, f = [x], activation(student.activation)
    for w, b, mask in zip(student.weights[:-1], student.biases[:-1], student.masks[:-1],
                          strict=True):  # fmt: skip
        result.append(f(result[-1] @ np.where(mask, w, 0.0).T + b))
    return result


def spread(student: Student, demonstrations: Demonstrations, steps: int = 4096) -> list[Float]:
    """Standard deviation of the standardised inputs and of each hidden activation, dense."""
    x = _some_inputs(student, demonstrations, steps)
    return [a.std(axis=0) for a in _activations(student, x)]


def peaks(student: Student, demonstrations: Demonstrations) -> list[Float]:
    """Largest absolute value of each input, as the encoder gives it, and hidden neuron, dense."""
    raw = np.concatenate(demonstrations.inputs).astype(np.float64)
    values = _activations(student, (raw - student.mean) / student.std)
    return [np.abs(a).max(axis=0) for a in (raw, *values[1:])]


def with_spread_thresholds(
    student: Student, demonstrations: Demonstrations, scale: float
) -> Student:
    """Set each threshold to a multiple of its neuron's spread on the demonstrations."""
    result = student.copy()
    result.thresholds = [scale * np.maximum(s, 1e-3) for s in spread(student, demonstrations)]
    return result


def event_rates(student: Student, demonstrations: Demonstrations, steps: int = 8192) -> list[Float]:
    """Events a step of each input and hidden neuron on the latest demonstrations."""
    counts = [np.zeros(len(t)) for t in student.thresholds]
    total = 0
    for x in demonstrations.latest(steps).inputs:
        for k, (_, fires) in enumerate(_by_events(student, x)):
            counts[k] += fires.sum(axis=0)
        total += len(x)
    return [c / max(total, 1) for c in counts]


def held_before(student: Student, inputs: Float32) -> list[Float]:
    """What the targets of the inputs and of each hidden layer hold before each step.

    Parameters
    ----------
    student : Student
    inputs : array of shape (T, n_inputs)
        Of an episode.

    Returns
    -------
    list of float64 array of shape (T, n)
        Inputs standardised.
    """
    starts = _starts(student)
    sent = [s for s, _ in _by_events(student, inputs)]
    return [np.concatenate([[a], s[:-1]]) for a, s in zip(starts, sent, strict=True)]


def _starts(student: Student) -> list[Float]:
    """What targets take for received before the first step: 0, before standardising."""
    zeros = [np.zeros(len(t)) for t in student.thresholds[1:]]
    return [-student.mean / student.std, *zeros]


def _by_events(student: Student, inputs: Float32) -> Iterator[tuple[Float, NDArray[np.bool_]]]:
    """What inputs and hidden layers have sent at each step of an episode, and where it changed."""
    f = activation(student.activation)
    a = (inputs.astype(np.float64) - student.mean) / student.std
    for k, (theta, start) in enumerate(zip(student.thresholds, _starts(student), strict=True)):
        sent, fires = _hold(a, theta, start)
        yield sent, fires
        w = np.where(student.masks[k], student.weights[k], 0.0)
        a = f(sent @ w.T + student.biases[k])


def cut(
    student: Student,
    demonstrations: Demonstrations,
    share: float,
    *,
    keep_inputs: bool = True,
) -> Student:
    """Prune a share of the surviving synapses, the least important for what they cost.

    Importance is ``w^2 var(a) / (rate + r0)``: the variance that the synapse adds to its target's
    sum, over its multiplications a step. The mean of what is cut goes into the bias.

    Parameters
    ----------
    student : Student
    demonstrations : Demonstrations
    share : float
        In [0, 1).
    keep_inputs : bool
        Let every input that still has a synapse keep its most important one, and likewise every
        output: a policy may live on an input of small variance, such as a cart's position.

    Returns
    -------
    Student
        At least one synapse into each output survives.
    """
    result = student.copy()
    spreads = spread(student, demonstrations)
    rates = event_rates(student, demonstrations)
    scores = []
    for k, (w, mask) in enumerate(zip(student.weights, student.masks, strict=True)):
        # In units of its target's own spread, so that layers can be compared; but a rectified unit
        # that hardly ever wakes is not worth the more for that, and one that never does nothing.
        contributions = np.square(np.where(mask, w, 0.0)) * np.square(spreads[k])
        sums = np.sqrt(contributions.sum(axis=1))
        target = spreads[k + 1] if k + 1 < len(spreads) else sums
        scale = np.maximum(np.maximum(target, 0.1 * sums), 1e-3)[:, np.newaxis]
        part = np.where(target[:, np.newaxis] > 0.0, contributions / np.square(scale), 0.0)
        score = np.where(mask, part / (rates[k] + 0.02), np.inf)
        if keep_inputs and k == 0:
            best = np.where(mask, part, -1.0).argmax(axis=0)
            score[best, np.arange(w.shape[1])] = np.inf
        if k == len(student.weights) - 1:
            best = np.where(mask, part, -1.0).argmax(axis=1)
            score[np.arange(w.shape[0]), best] = np.inf
        scores.append(score)
    flat = np.concatenate([s.ravel() for s in scores])
    available = np.flatnonzero(np.isfinite(flat))
    count = min(round(share * student.n_synapses), available.size)
    gone = np.zeros(flat.size, np.bool_)
    gone[available[np.argsort(flat[available], kind="stable")[:count]]] = True
    means = _means(student, demonstrations)
    first = 0
    for k, mask in enumerate(result.masks):
        here = gone[first : first + mask.size].reshape(mask.shape)
        first += mask.size
        result.biases[k] = result.biases[k] + np.where(here, student.weights[k], 0.0) @ means[k]
        result.masks[k] = mask & ~here
    return _compact(result)


def _compact(student: Student) -> Student:
    """Drop hidden neurons that nobody hears, and fold those that hear nothing into biases."""
    result = student.copy()
    changed = True
    while changed:
        changed = False
        for k in range(len(result.weights) - 1):
            heard = result.masks[k + 1].any(axis=0)
            hears = result.masks[k].any(axis=1)
            keep = heard & hears
            if keep.all():
                continue
            if not keep.any():  # a layer of nothing cannot be; one silent neuron stays
                keep = np.arange(keep.size) == 0
                if keep.size == 1:
                    continue
            changed = True
            silent = heard & ~hears
            constant = sent_by_silent(result, k, silent)
            after = np.where(result.masks[k + 1], result.weights[k + 1], 0.0)
            result.biases[k + 1] = result.biases[k + 1] + after[:, ~keep] @ constant[~keep]
            result.weights[k], result.masks[k] = result.weights[k][keep], result.masks[k][keep]
            result.biases[k] = result.biases[k][keep]
            result.thresholds[k + 1] = result.thresholds[k + 1][keep]
            result.weights[k + 1] = result.weights[k + 1][:, keep]
            result.masks[k + 1] = result.masks[k + 1][:, keep]
    return result


def sent_by_silent(student: Any, k: int, silent: NDArray[np.bool_] | np.bool_) -> Float:
    """What neurons or channels of layer `k` without inputs send: 0 where it is held back."""
    constant = np.where(silent, activation(student.activation)(student.biases[k]), 0.0)
    return np.where(np.abs(constant) > student.thresholds[k + 1], constant, 0.0)


def _hold(a: Float, theta: Float, start: Float) -> tuple[Float, NDArray[np.bool_]]:
    """What the targets have received, and where it changed, for activations of shape (T, n)."""
    sent = np.empty_like(a)
    fires = np.empty(a.shape)
    s = start
    for t in range(len(a)):
        fires[t] = np.abs(a[t] - s) > theta
        s = np.where(fires[t] > 0.0, a[t], s)
        sent[t] = s
    return sent, fires > 0.0


def _standard(inputs: NDArray[Any]) -> tuple[Float, Float]:
    """Means and standard deviations of inputs of shape (T, n)."""
    x = inputs.astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0)
    # An input that never moves would be blown up by a division by its rounding error.
    return mean, np.where(std > 1e-6 * (1.0 + np.abs(mean)), std, 1.0)


def _some_inputs(student: Student, demonstrations: Demonstrations, steps: int) -> Float:
    x = np.concatenate(demonstrations.inputs)
    x = x[:: max(1, len(x) // steps)].astype(np.float64)
    return np.asarray((x - student.mean) / student.std)


def _means(student: Student, demonstrations: Demonstrations) -> list[Float]:
    x = _some_inputs(student, demonstrations, 4096)
    return [a.mean(axis=0) for a in _activations(student, x)]


def _shares(total: int, n: int) -> list[int]:
    return [total, *([0] * (n - 1))]


def student_arrays(student: Student) -> dict[str, NDArray[Any]]:
    """Arrays of a student, by name, for a checkpoint."""
    return {"mean": student.mean, "std": student.std, **layer_arrays(student)}


def layer_arrays(student: Any) -> dict[str, NDArray[Any]]:
    """Arrays of the layers of a student, by name and number."""
    return {
        f"{name}/{k}": values
        for name in ("weights", "biases", "masks", "thresholds")
        for k, values in enumerate(getattr(student, name))
    }


def listed_arrays(arrays: Mapping[str, NDArray[Any]], prefix: str) -> list[NDArray[Any]]:
    """Return those of one name from `layer_arrays`, in order."""
    n = sum(key.startswith(f"{prefix}/") for key in arrays)
    return [np.array(arrays[f"{prefix}/{k}"]) for k in range(n)]


def student_from(head: Head, name: str, arrays: Mapping[str, NDArray[Any]]) -> Student:
    """Rebuild a student from `student_arrays`."""
    return Student(
        head,
        name,
        np.array(arrays["mean"]),
        np.array(arrays["std"]),
        listed_arrays(arrays, "weights"),
        listed_arrays(arrays, "biases"),
        [m.astype(np.bool_) for m in listed_arrays(arrays, "masks")],
        listed_arrays(arrays, "thresholds"),
    )
