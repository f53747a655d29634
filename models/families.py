"""Kinds of students that the search may distil a teacher into, chosen by the teacher's network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eventsim.convolution import Convolution, Local, Window
from eventsim.errors import InputError, UnsupportedError
from eventsim.models.candidate import FEW_PIXELS, SEEDS, SHAPES
from eventsim.models.distill import Training, train
from eventsim.models.films import Film
from eventsim.models.games import can_play
from eventsim.models.last_layer import reinforce_last_layer
from eventsim.models.on_policy import OnPolicy, distill_on_policy
from eventsim.models.picture_cut import (
    cut_pictures,
    with_picture_thresholds,
    without_silent,
)
from eventsim.models.picture_distill import train_pictures
from eventsim.models.picture_student import (
    Kernel,
    PictureShape,
    PictureStudent,
    new_picture_student,
    picture_arrays,
    picture_student_from,
    picture_student_of,
)
from eventsim.models.policy import Policy
from eventsim.models.reinforce import Progress, Reinforcement, reinforce
from eventsim.models.student import (
    Demonstrations,
    Float,
    Float32,
    Head,
    Student,
    answers,
    cut,
    new_student,
    student_arrays,
    student_from,
    student_of,
    with_spread_thresholds,
)
from eventsim.network import Network
from eventsim.neurons import Activation, Delta
from eventsim.simulator import Simulator

#: Steps that are run at once: pictures take room.
_AT_ONCE = 256
#: Shares of the teacher's channels that convolutional students have.
_SHARES = (1 / 8, 1 / 4, 1 / 2)
#: Part of the teacher's multiplications that they have at most, and that those without convolutions
#: have: by events these cost what the pixels that change cost.
_WIDEST, _WIDEST_FLAT = 0.7, 1.0
#: Hidden layers of students that take the pixels as they are.
_FLAT: tuple[tuple[int, ...], ...] = ((), (16,), (64,), (128,), (256,))
#: Directions of what the teacher goes by that students are shown, and the least part of the
#: strongest one's variance that another must have.
_HINTS, _LEAST_HINT = 32, 1e-4


class Family(Protocol):
    """What the search asks of students; one is a `Student` or a `PictureStudent`.

    Attributes
    ----------
    head : Head
    shapes : sequence
        Layers of the dense students that are tried, cheapest first.
    finds_silent : bool
        Whether `without_silent` looks for what it can drop.
    """

    head: Head
    finds_silent: bool

    @property
    def shapes(self) -> Sequence[Any]:
        """Layers of the dense students that are tried, cheapest first."""

    def words(self, shape: Any) -> str:
        """Name of such layers."""

    def macs(self, shape: Any) -> int:
        """Dense MACs of such layers."""

    def new(self, demonstrations: Demonstrations, shape: Any, seed: int, start: int) -> Any:
        """An untrained student; `start` counts the tries."""

    def own(self, teacher: Policy, demonstrations: Demonstrations) -> Any | None:
        """The teacher itself as a student, or None if no student has its form."""

    def train(
        self, student: Any, demonstrations: Demonstrations, training: Training, seed: int
    ) -> Any:
        """Train a student for one round."""

    def with_thresholds(self, student: Any, demonstrations: Demonstrations, scale: float) -> Any:
        """Thresholds as multiples of spreads."""

    def cut(self, student: Any, demonstrations: Demonstrations, share: float) -> Any:
        """Prune a share of the surviving weights."""

    def without_silent(self, student: Any, demonstrations: Demonstrations) -> Any:
        """Drop neurons that nothing in the demonstrations made send."""

    @property
    def plays(self) -> bool:
        """Whether `reinforce` and `accompany` can be asked for."""

    @property
    def sees_frames(self) -> bool:
        """Whether pictures are frames of a screen, whose steps take long."""

    def reinforce(
        self,
        student: Any,
        own: Any,
        teacher: Policy,
        make: Callable[[], Any],
        options: Reinforcement,
        seed: int,
        on_batch: Callable[[Progress], None],
        last_layer: bool = False,
    ) -> Any:
        """Let a student learn from rewards, beside the teacher as a student if there is one.

        Or only its last layer, alone.
        """

    def accompany(
        self,
        student: Any,
        own: Any,
        teacher: Policy,
        make: Callable[[], Any],
        options: OnPolicy,
        seed: int,
    ) -> Any:
        """Let a student learn, while it plays, from the teacher as a student."""

    def arrays(self, student: Any) -> dict[str, NDArray[Any]]:
        """Arrays for a checkpoint."""

    def restored(self, activation: str, arrays: Mapping[str, NDArray[Any]]) -> Any:
        """Rebuild a student from `arrays`."""

    def sizes(self, student: Any) -> tuple[int, ...]:
        """Neurons of each layer of a student."""

    def packed(self, inputs: NDArray[Any]) -> Any:
        """An episode's recorded inputs, as demonstrations hold them."""

    def answers(self, teacher: Policy, episodes: Sequence[Any]) -> list[Float32]:
        """What the teacher would have done in packed episodes."""

    def stored(self, episode: Any) -> NDArray[Any]:
        """Array of a packed episode, for a checkpoint."""

    def opened(self, array: NDArray[Any]) -> Any:
        """Rebuild a packed episode from what `stored` gave."""


def family_of(teacher: Policy) -> VectorFamily | PictureFamily:
    """Return the students for a teacher.

    Raises
    ------
    UnsupportedError
        If its decoder cannot be distilled, or its network has pools or convolutions of a form that
        no student has.
    """
    if any(isinstance(q.weights, Local) for q in teacher.network.projections):
        return PictureFamily(teacher)
    return VectorFamily(teacher)


class VectorFamily:
    """Dense layers on standardised inputs.

    Parameters
    ----------
    teacher : Policy
    """

    #: Of few neurons, most smooth, hardly one is silent.
    finds_silent = False

    def __init__(self, teacher: Policy) -> None:
        self.head = Head.of(teacher.decoder)
        self._n_inputs = teacher.network.n_inputs

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Hidden layers, cheapest first."""
        return SHAPES

    def words(self, shape: Sequence[int]) -> str:
        """Sizes of all layers."""
        return "-".join(map(str, self._sizes(shape)))

    def macs(self, shape: Sequence[int]) -> int:
        """Weights of all layers."""
        return sum(n * m for n, m in itertools.pairwise(self._sizes(shape)))

    def new(
        self, demonstrations: Demonstrations, shape: Sequence[int], seed: int, start: int
    ) -> Student:
        """An untrained student, of one activation and the other in turn."""
        f = "tanh" if start % 2 else "relu"
        return new_student(self.head, demonstrations, shape, seed, f)

    def own(self, teacher: Policy, demonstrations: Demonstrations) -> Student | None:
        """See `eventsim.models.student.student_of`; dense, so without thresholds."""
        dense = teacher.with_network(teacher.network.with_thresholds(0.0))
        return student_of(dense, demonstrations.inputs)

    def train(
        self, student: Student, demonstrations: Demonstrations, training: Training, seed: int
    ) -> Student:
        """See `eventsim.models.distill.train`."""
        return train(student, demonstrations, training, seed)[0]

    def with_thresholds(
        self, student: Student, demonstrations: Demonstrations, scale: float
    ) -> Student:
        """See `eventsim.models.student.with_spread_thresholds`."""
        return with_spread_thresholds(student, demonstrations, scale)

    def cut(self, student: Student, demonstrations: Demonstrations, share: float) -> Student:
        """See `eventsim.models.student.cut`."""
        return cut(student, demonstrations, share)

    def without_silent(self, student: Student, demonstrations: Demonstrations) -> Student:
        """The student as it is."""
        del demonstrations
        return student

    @property
    def plays(self) -> bool:
        """They do not; `eventsim.models.finetune` is for them."""
        return False

    @property
    def sees_frames(self) -> bool:
        """They see none."""
        return False

    def reinforce(
        self,
        student: Student,
        own: Student | None,
        teacher: Policy,
        make: Callable[[], Any],
        options: Reinforcement,
        seed: int,
        on_batch: Callable[[Progress], None],
        last_layer: bool = False,
    ) -> Student:
        """Raise UnsupportedError."""
        raise UnsupportedError("has no pictures; use eventsim.models.finetune", where="policy")

    def accompany(
        self,
        student: Student,
        own: Student,
        teacher: Policy,
        make: Callable[[], Any],
        options: OnPolicy,
        seed: int,
    ) -> Student:
        """Raise UnsupportedError."""
        raise UnsupportedError("has no pictures; train on what was recorded", where="policy")

    def arrays(self, student: Student) -> dict[str, NDArray[Any]]:
        """See `eventsim.models.student.student_arrays`."""
        return student_arrays(student)

    def restored(self, activation: str, arrays: Mapping[str, NDArray[Any]]) -> Student:
        """See `eventsim.models.student.student_from`."""
        return student_from(self.head, activation, arrays)

    def sizes(self, student: Student) -> tuple[int, ...]:
        """Inputs, hidden layers, outputs."""
        return self._sizes(student.hidden)

    def packed(self, inputs: Float) -> Float:
        """The inputs as they are."""
        return inputs

    def answers(self, teacher: Policy, episodes: Sequence[Float]) -> list[Float32]:
        """See `eventsim.models.student.answers`."""
        return answers(teacher, self.head, episodes)

    def stored(self, episode: Float) -> NDArray[Any]:
        """In single precision."""
        return np.asarray(episode, np.float32)

    def opened(self, array: NDArray[Any]) -> Float:
        """In double precision."""
        return array.astype(np.float64)

    def _sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (self._n_inputs, *shape, self.head.size)


class PictureFamily:
    """Convolutions as the teacher's, with fewer channels, and linear layers; or these alone.

    Parameters
    ----------
    teacher : Policy
        Convolutions first, linear layers behind them.
    """

    finds_silent = True

    def __init__(self, teacher: Policy) -> None:
        self.head = Head.of(teacher.decoder)
        network = teacher.network
        if teacher.encoder.pixels is None or len(network.inputs) != 1:
            raise UnsupportedError(
                "has convolutions, but its encoder does not give pictures; build it with "
                "Encoder(space, pixels=Pixels())",
                where="policy",
            )
        channels, hidden, kernels = _layers(network)
        height, width, depth = network[network.inputs[0]].shape
        self._shape = (depth, height, width)
        self._kernels = kernels
        # Truth values are 0 and 1; anything else comes as bytes.
        self._scale = 1.0 if getattr(teacher.encoder.space, "dtype", "") == "bool" else 1.0 / 255.0
        pixels = height * width * depth
        few = pixels <= FEW_PIXELS
        # What a screen shows is in places, which no weight a pixel finds again elsewhere.
        flat, shares = (_FLAT, _SHARES) if few else ((), (0.5 * _SHARES[0], *_SHARES))
        found = [PictureShape((), sizes) for sizes in flat]
        for share in shares:
            found.append(
                PictureShape(
                    tuple(max(1, round(share * n)) for n in channels),
                    tuple(max(1, round(share * n / 2)) for n in hidden),
                )
            )
        # Wider ones would hardly be smaller than the teacher, whose own weights are better then.
        sizes = {shape: self.macs(shape) for shape in dict.fromkeys(found)}
        cheapest = sorted(sizes, key=lambda shape: sizes[shape])
        most = {s: (_WIDEST if s.channels else _WIDEST_FLAT) * teacher.dense_macs for s in cheapest}
        self._shapes = tuple(s for s in cheapest if sizes[s] <= most[s] or s is cheapest[0])
        #: Mean of the teacher's last hidden layer, and its main directions.
        self._directions: tuple[Float, Float] | None = None

    @property
    def shapes(self) -> tuple[PictureShape, ...]:
        """Layers, cheapest first."""
        return self._shapes

    def words(self, shape: PictureShape) -> str:
        """Such as ``400-8c3-32-3``: pixels, channels and their kernels' height, sizes."""
        sizes = [kernel.size[0] for kernel in self._kernels]
        maps = (f"{n}c{size}" for n, size in zip(shape.channels, sizes, strict=False))
        pixels = int(np.prod(self._shape))
        return "-".join(map(str, (pixels, *maps, *shape.hidden, self.head.size)))

    def macs(self, shape: PictureShape) -> int:
        """Multiplications of all layers."""
        return self._untrained(shape, 0).dense_macs

    def new(
        self, demonstrations: Demonstrations, shape: PictureShape, seed: int, start: int
    ) -> PictureStudent:
        """An untrained student of rectified units."""
        del start
        if demonstrations.steps == 0:
            raise InputError("hold no step; record at least one episode", where="demonstrations")
        return self._untrained(shape, seed)

    def own(self, teacher: Policy, demonstrations: Demonstrations) -> PictureStudent | None:
        """See `eventsim.models.picture_student.picture_student_of`."""
        return picture_student_of(teacher, self.head, self._shape, self._scale, self._kernels)

    def train(
        self, student: PictureStudent, demonstrations: Demonstrations, training: Training, seed: int
    ) -> PictureStudent:
        """See `eventsim.models.picture_distill.train_pictures`."""
        return train_pictures(student, demonstrations, training, seed)[0]

    def with_thresholds(
        self, student: PictureStudent, demonstrations: Demonstrations, scale: float
    ) -> PictureStudent:
        """See `eventsim.models.picture_cut.with_picture_thresholds`."""
        return with_picture_thresholds(student, demonstrations, scale)

    def cut(
        self, student: PictureStudent, demonstrations: Demonstrations, share: float
    ) -> PictureStudent:
        """See `eventsim.models.picture_cut.cut_pictures`."""
        return cut_pictures(student, demonstrations, share)

    def without_silent(
        self, student: PictureStudent, demonstrations: Demonstrations
    ) -> PictureStudent:
        """See `eventsim.models.picture_cut.without_silent`."""
        return without_silent(student, demonstrations)

    @property
    def plays(self) -> bool:
        """See `eventsim.models.games.can_play`."""
        return can_play(self.head)

    @property
    def sees_frames(self) -> bool:
        """Whether pictures have more values than those of small games."""
        return math.prod(self._shape) > FEW_PIXELS

    def reinforce(
        self,
        student: PictureStudent,
        own: PictureStudent | None,
        teacher: Policy,
        make: Callable[[], Any],
        options: Reinforcement,
        seed: int,
        on_batch: Callable[[Progress], None],
        last_layer: bool = False,
    ) -> PictureStudent:
        """See `eventsim.models.reinforce` and `eventsim.models.last_layer`."""
        first = SEEDS["reinforce"] + seed % 90_000
        if last_layer:
            return reinforce_last_layer(
                student, teacher, make, options, seed, first_seed=first, on_batch=on_batch
            )
        return reinforce(
            student, teacher, make, options, seed, teacher=own, first_seed=first, on_batch=on_batch
        )

    def accompany(
        self,
        student: PictureStudent,
        own: PictureStudent,
        teacher: Policy,
        make: Callable[[], Any],
        options: OnPolicy,
        seed: int,
    ) -> PictureStudent:
        """See `eventsim.models.on_policy.distill_on_policy`."""
        first = SEEDS["accompany"] + seed % 90_000
        return distill_on_policy(student, own, teacher, make, options, seed, first_seed=first)

    def arrays(self, student: PictureStudent) -> dict[str, NDArray[Any]]:
        """See `eventsim.models.picture_student.picture_arrays`."""
        return picture_arrays(student)

    def restored(self, activation: str, arrays: Mapping[str, NDArray[Any]]) -> PictureStudent:
        """See `eventsim.models.picture_student.picture_student_from`."""
        return picture_student_from(self.head, activation, arrays)

    def sizes(self, student: PictureStudent) -> tuple[int, ...]:
        """Neurons of each layer."""
        return student.sizes

    def packed(self, inputs: NDArray[Any]) -> Film:
        """Pictures as bytes, each frame once."""
        if inputs.dtype != np.uint8:
            raise UnsupportedError(
                f"sees pictures of {inputs.dtype}; only truth values and bytes are distilled",
                where="policy",
            )
        depth, height, width = self._shape
        return Film.of(inputs.reshape(-1, height, width, depth))

    def answers(self, teacher: Policy, episodes: Sequence[Film]) -> list[Float32]:
        """What the teacher would have done, some steps at a time, and behind it what it goes by.

        By events at threshold 0, which give the dense outputs but for rounding: from one frame to
        the next little changes. What it goes by are the principal components of its last hidden
        layer in the first episodes ever given, each with a variance of 1 there.
        """
        network = teacher.network.with_thresholds(0.0)
        below = self._below(network)
        simulator = Simulator(below[0] if below else network)
        outputs, hidden = [], []
        for film in episodes:
            simulator.reset()
            x = film.inputs()
            parts = [simulator.run(x[k : k + _AT_ONCE]) for k in range(0, len(x), _AT_ONCE)]
            values = np.concatenate(parts)
            if below is not None:
                hidden.append(values)
                last = network.projections[-1]
                sums = (last.weights @ values.T).T + network[last.target].parameter("bias")
                values = below[1](sums)
            outputs.append(values)
        answered = [self.head.targets(teacher.decoder, values) for values in outputs]
        if not hidden:
            return answered
        if self._directions is None:
            self._directions = _main_directions(np.concatenate(hidden))
        mean, directions = self._directions
        return [
            np.concatenate([y, ((h - mean) @ directions).astype(np.float32)], axis=1)
            for y, h in zip(answered, hidden, strict=True)
        ]

    def _below(self, network: Network) -> tuple[Network, Activation] | None:
        """The network up to its last hidden layer, and the outputs' activation.

        None if that layer is not linear and behind convolutions.
        """
        *before, last = network.projections
        neuron = network[last.target].neuron
        if len(before) < 2 or isinstance(before[-1].weights, Local):
            return None
        if not isinstance(neuron, Delta):
            return None
        kept = tuple(p for p in network.populations if p.name != last.target)
        return Network(kept, tuple(before), name=network.name), neuron.activation

    def stored(self, episode: Film) -> NDArray[Any]:
        """Frames alone; how many make a picture follows from the picture's shape."""
        return episode.frames

    def opened(self, array: NDArray[Any]) -> Film:
        """Rebuild a film from its frames."""
        return Film(array, self._shape[0] // array.shape[-1])

    def _untrained(self, shape: PictureShape, seed: int) -> PictureStudent:
        return new_picture_student(self.head, self._shape, self._scale, self._kernels, shape, seed)


def _main_directions(values: Float) -> tuple[Float, Float]:
    """Mean of values of shape (n, m), and directions (m, k) along which they have variance 1."""
    mean = values.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(values - mean, rowvar=False))
    kept = np.flatnonzero(variances > _LEAST_HINT * variances[-1])[-_HINTS:]
    return mean, directions[:, kept] / np.sqrt(variances[kept])


def _layers(network: Network) -> tuple[list[int], list[int], list[Kernel]]:
    """Channels and kernels of the convolutions of a network, and its hidden linear layers."""
    channels: list[int] = []
    hidden: list[int] = []
    kernels: list[Kernel] = []
    for q in network.projections:
        where, weights = f"projection '{q.name}'", q.weights
        neuron = network[q.target].neuron
        alone = len(network.incoming(q.target)) == 1 and len(network.outgoing(q.target)) <= 1
        if isinstance(weights, Local) and not isinstance(weights, Convolution):
            raise UnsupportedError(
                "pools; students of pictures have convolutions and linear layers only; give a "
                "teacher whose convolutions have strides instead",
                where=where,
            )
        if q.delay or not alone or not isinstance(neuron, Delta):
            raise UnsupportedError(
                "is not one of a plain stack of layers, as students of pictures are",
                where=where,
            )
        if isinstance(weights, Convolution):
            window = weights.window
            plain = Window(window.source, window.size, window.stride, window.padding)
            if hidden or weights.groups > 1 or plain != window:
                raise UnsupportedError(
                    "has groups, dilation or uneven padding, or follows a linear layer; students "
                    "of pictures have plain convolutions before their linear layers",
                    where=where,
                )
            channels.append(weights.n_channels)
            kernels.append(Kernel(window.size, window.stride, window.padding))
        elif q.target not in network.outputs:
            hidden.append(network[q.target].size)
    return channels, hidden, kernels


__all__ = ["Family", "PictureFamily", "VectorFamily", "family_of"]
