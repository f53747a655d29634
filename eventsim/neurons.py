"""Activations and neuron models: one frozen dataclass each, with its equation.

A neuron model says in which scheduling class it is (``scheduling``), whether its events carry a
graded value or are binary (``graded``), and which receptors (input ports) its synapses may target.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import NetworkError, UnknownNameError

FloatArray: TypeAlias = NDArray[np.float64]
Scheduling: TypeAlias = Literal["on input", "every step", "at crossing"]


@dataclass(frozen=True)
class Activation(ABC):
    """Base of the activations: a scalar function f with a Lipschitz constant.

    ``code`` and ``parameters`` are what a kernel gets; calling the object evaluates f over an
    array in NumPy.
    """

    name: ClassVar[str] = ""
    code: ClassVar[int] = -1

    @property
    def parameters(self) -> tuple[float, float]:
        """Two floats for the kernel; unused ones are 0."""
        return (0.0, 0.0)

    @property
    def lipschitz(self) -> float:
        """Smallest L with ``|f(x) - f(y)| <= L |x - y|``."""
        return 1.0

    @abstractmethod
    def __call__(self, u: ArrayLike) -> FloatArray:
        """Evaluate f elementwise over `u`, any shape, in float64."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `activation` rebuilds the object."""
        return {"name": self.name, **self.__dict__}


@dataclass(frozen=True)
class Identity(Activation):
    """``f(u) = u``."""

    name: ClassVar[str] = "identity"
    code: ClassVar[int] = 0

    def __call__(self, u: ArrayLike) -> FloatArray:
        return np.asarray(u, dtype=np.float64)


@dataclass(frozen=True)
class ReLU(Activation):
    """``f(u) = max(u, 0)``."""

    name: ClassVar[str] = "relu"
    code: ClassVar[int] = 1

    def __call__(self, u: ArrayLike) -> FloatArray:
        return np.maximum(np.asarray(u, dtype=np.float64), 0.0)


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """``f(u) = u`` for ``u > 0``, else ``alpha u``."""

    alpha: float = 0.01
    name: ClassVar[str] = "leaky_relu"
    code: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _finite(self, "alpha", self.alpha)

    @property
    def parameters(self) -> tuple[float, float]:
        return (self.alpha, 0.0)

    @property
    def lipschitz(self) -> float:
        return max(1.0, abs(self.alpha))

    def __call__(self, u: ArrayLike) -> FloatArray:
        x = np.asarray(u, dtype=np.float64)
        return np.where(x > 0.0, x, self.alpha * x)


@dataclass(frozen=True)
class ELU(Activation):
    """``f(u) = u`` for ``u > 0``, else ``alpha (exp(u) - 1)`` (Clevert et al. 2016)."""

    alpha: float = 1.0
    name: ClassVar[str] = "elu"
    code: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _finite(self, "alpha", self.alpha)

    @property
    def parameters(self) -> tuple[float, float]:
        return (self.alpha, 0.0)

    @property
    def lipschitz(self) -> float:
        return max(1.0, abs(self.alpha))

    def __call__(self, u: ArrayLike) -> FloatArray:
        x = np.asarray(u, dtype=np.float64)
        return np.where(x > 0.0, x, self.alpha * np.expm1(np.minimum(x, 0.0)))


@dataclass(frozen=True)
class Tanh(Activation):
    """``f(u) = tanh(u)``."""

    name: ClassVar[str] = "tanh"
    code: ClassVar[int] = 4

    def __call__(self, u: ArrayLike) -> FloatArray:
        return np.tanh(np.asarray(u, dtype=np.float64))


@dataclass(frozen=True)
class Sigmoid(Activation):
    """``f(u) = 1 / (1 + exp(-u))``."""

    name: ClassVar[str] = "sigmoid"
    code: ClassVar[int] = 5

    @property
    def lipschitz(self) -> float:
        return 0.25

    def __call__(self, u: ArrayLike) -> FloatArray:
        return _sigmoid(np.asarray(u, dtype=np.float64))


@dataclass(frozen=True)
class Softplus(Activation):
    """``f(u) = log(1 + exp(u))``."""

    name: ClassVar[str] = "softplus"
    code: ClassVar[int] = 6

    def __call__(self, u: ArrayLike) -> FloatArray:
        x = np.asarray(u, dtype=np.float64)
        return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


@dataclass(frozen=True)
class SiLU(Activation):
    """``f(u) = u / (1 + exp(-u))``, also called swish."""

    name: ClassVar[str] = "silu"
    code: ClassVar[int] = 7

    @property
    def lipschitz(self) -> float:
        return 1.0999  # max of f', reached near u = 2.3994; rounded up

    def __call__(self, u: ArrayLike) -> FloatArray:
        x = np.asarray(u, dtype=np.float64)
        return x * _sigmoid(x)


@dataclass(frozen=True)
class GELU(Activation):
    """``f(u) = u Phi(u)``, Phi the normal distribution (Hendrycks & Gimpel 2016).

    With ``approximate=True`` the tanh form ``u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3)))``.
    """

    approximate: bool = False
    name: ClassVar[str] = "gelu"
    code: ClassVar[int] = 8

    @property
    def parameters(self) -> tuple[float, float]:
        return (1.0 if self.approximate else 0.0, 0.0)

    @property
    def lipschitz(self) -> float:
        return 1.1290  # max of f', near u = sqrt(2); rounded up, and above the tanh form's too

    def __call__(self, u: ArrayLike) -> FloatArray:
        x = np.asarray(u, dtype=np.float64)
        if self.approximate:
            inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)
            return 0.5 * x * (1.0 + np.tanh(inner))
        from scipy.special import erf

        return np.asarray(0.5 * x * (1.0 + erf(x / math.sqrt(2.0))), dtype=np.float64)


@dataclass(frozen=True)
class Clip(Activation):
    """``f(u) = min(max(u, low), high)``."""

    low: float = -1.0
    high: float = 1.0
    name: ClassVar[str] = "clip"
    code: ClassVar[int] = 9

    def __post_init__(self) -> None:
        _finite(self, "low", self.low)
        _finite(self, "high", self.high)
        if self.low > self.high:
            raise NetworkError(
                f"low = {self.low} is above high = {self.high}; swap them",
                where="activation 'clip'",
                field="low",
            )

    @property
    def parameters(self) -> tuple[float, float]:
        return (self.low, self.high)

    def __call__(self, u: ArrayLike) -> FloatArray:
        return np.clip(np.asarray(u, dtype=np.float64), self.low, self.high)


@dataclass(frozen=True)
class Quantized(Activation):
    """Fixed point: another activation g, rounded and saturated.

    ``f(u) = quantum min(max(rint(g(u) / quantum), -levels), levels - 1)``, ties to even. With a
    quantum and weights that are integers times powers of two, every sum of a network is exact in
    float64, so that a run by events never drifts.

    Parameters
    ----------
    base : str, dict or Activation
        g, one without parameters.
    quantum : float
        Step of the grid, a power of two.
    levels : int
        Half the number of values: ``2 ** (bits - 1)``.
    """

    base: Activation = Identity()
    quantum: float = 2.0**-8
    levels: int = 2**15
    name: ClassVar[str] = "quantized"

    def __init__(
        self,
        base: str | Activation | dict[str, Any] = "identity",
        quantum: float = 2.0**-8,
        levels: int = 2**15,
    ) -> None:
        where = "activation 'quantized'"
        g = activation(base)
        if isinstance(g, Quantized) or g.parameters != (0.0, 0.0) or g.name == "clip":
            raise NetworkError(
                f"is {g.name!r}; fixed point takes an activation without parameters",
                where=where,
                field="base",
            )
        if not (math.isfinite(quantum) and quantum > 0.0 and math.frexp(quantum)[0] == 0.5):
            raise NetworkError(f"is {quantum}; give a power of two", where=where, field="quantum")
        if isinstance(levels, bool) or int(levels) != levels or not 1 <= levels <= 2**31:
            raise NetworkError(
                f"is {levels}; give a whole number from 1 to 2^31", where=where, field="levels"
            )
        object.__setattr__(self, "base", g)
        object.__setattr__(self, "quantum", float(quantum))
        object.__setattr__(self, "levels", int(levels))

    @property
    def code(self) -> int:  # type: ignore[override]
        """Code of g, moved to the kernel's fixed-point ones."""
        return self.base.code + 32

    @property
    def parameters(self) -> tuple[float, float]:
        return (self.quantum, float(self.levels))

    @property
    def lipschitz(self) -> float:
        """Of g. Rounding adds at most one quantum: ``|f(x) - f(y)| <= L |x - y| + quantum``."""
        return self.base.lipschitz

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "base": self.base.to_dict(),
            "quantum": self.quantum,
            "levels": self.levels,
        }

    def __call__(self, u: ArrayLike) -> FloatArray:
        level = np.rint(self.base(u) / self.quantum)
        return np.asarray(np.clip(level, -self.levels, self.levels - 1) * self.quantum)


ACTIVATIONS: dict[str, type[Activation]] = {
    cls.name: cls
    for cls in (
        Identity,
        ReLU,
        LeakyReLU,
        ELU,
        Tanh,
        Sigmoid,
        Softplus,
        SiLU,
        GELU,
        Clip,
        Quantized,
    )
}


def activation(spec: str | Activation | dict[str, Any]) -> Activation:
    """Return the activation that `spec` names.

    Parameters
    ----------
    spec : str, dict or Activation
        A name such as ``"relu"``, a dict as `Activation.to_dict` gives it, or an activation.

    Raises
    ------
    UnknownNameError
        If the name is not one of `ACTIVATIONS`.
    NetworkError
        If a dict carries fields that the activation does not have.
    """
    if isinstance(spec, Activation):
        return spec
    fields = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = fields.pop("name", None)
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise UnknownNameError(f"activation {name!r} is not known; use one of {known}")
    try:
        return ACTIVATIONS[name](**fields)
    except TypeError as error:
        raise NetworkError(
            f"cannot be built from {fields!r}; give only its own parameters",
            where=f"activation {name!r}",
        ) from error


@dataclass(frozen=True, eq=False)
class NeuronModel:
    """Base of the neuron models.

    Class attributes
    ----------------
    scheduling : str
        ``"on input"`` (evaluated when touched), ``"every step"`` or ``"at crossing"``.
    graded : bool
        True if an event carries a graded value (a synapse then costs a MAC), False if it is
        binary (an AC).
    receptors : tuple of str
        Ports that a projection may target; the first one is the default.
    continuous : bool
        True if it lives in continuous time, where there are no steps.
    """

    kind: ClassVar[str] = ""
    scheduling: ClassVar[Scheduling] = "on input"
    graded: ClassVar[bool] = True
    receptors: ClassVar[tuple[str, ...]] = ("input",)
    continuous: ClassVar[bool] = False


@dataclass(frozen=True, eq=False)
class Input(NeuronModel):
    """Input neuron: a delta neuron with the identity, whose u is set from outside.

    In a step, ``d = x - s``; if ``|d| > threshold`` then ``s += d`` and d is transmitted.

    Parameters
    ----------
    threshold : float or array of shape (size,)
        Transmission threshold, in units of the input, >= 0.
    """

    threshold: float | FloatArray = 0.0
    kind: ClassVar[str] = "input"
    receptors: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", _parameter(self, "threshold", self.threshold, 0.0))


@dataclass(frozen=True, eq=False)
class Delta(NeuronModel):
    """Delta neuron: transmits the change of its activation once it exceeds a threshold.

    With pre-activation u (starts at the bias) and s, what its targets have received (starts at
    0), whenever u has changed: ``d = f(u) - s``; if ``|d| > threshold`` then ``s += d`` and
    ``w d`` is added to the u of every target over a surviving synapse (Neil et al. 2016,
    O'Connor & Welling 2017, Ivanov et al. 2022).

    Parameters
    ----------
    activation : str or Activation
        f.
    bias : float or array of shape (size,)
        Pre-activation without input.
    threshold : float or array of shape (size,)
        Transmission threshold, in units of the activation, >= 0.
    """

    activation: Activation = Identity()
    bias: float | FloatArray = 0.0
    threshold: float | FloatArray = 0.0
    kind: ClassVar[str] = "delta"

    def __init__(
        self,
        activation: str | Activation | dict[str, Any] = "identity",
        bias: ArrayLike = 0.0,
        threshold: ArrayLike = 0.0,
    ) -> None:
        object.__setattr__(self, "activation", globals()["activation"](activation))
        object.__setattr__(self, "bias", _parameter(self, "bias", bias, -math.inf))
        object.__setattr__(self, "threshold", _parameter(self, "threshold", threshold, 0.0))


@dataclass(frozen=True, eq=False)
class MaxPool(NeuronModel):
    """Max-pooling neuron: transmits the change of the largest value that its window has received.

    With s_i, what source neuron i has transmitted: whenever one of them in the window has changed,
    ``u = max_i s_i`` and, as in `Delta` with the identity, ``d = u - s``; if ``|d| > threshold``
    then ``s += d`` and d is transmitted. Its one incoming projection is a
    `eventsim.convolution.MaxWindow` without delay.

    Parameters
    ----------
    threshold : float or array of shape (size,)
        Transmission threshold, in units of the source, >= 0.
    """

    threshold: float | FloatArray = 0.0
    kind: ClassVar[str] = "max_pool"

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", _parameter(self, "threshold", self.threshold, 0.0))


def _sigmoid(x: FloatArray) -> FloatArray:
    # exp of a negative number only: no overflow at either end.
    e = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, e) / (1.0 + e)


def _finite(owner: Activation, field: str, value: float) -> None:
    if not math.isfinite(value):
        raise NetworkError(
            f"is {value}; give a finite number",
            where=f"activation '{owner.name}'",
            field=field,
        )


def _parameter(
    owner: NeuronModel, field: str, value: ArrayLike, minimum: float
) -> float | FloatArray:
    where = f"neuron model '{owner.kind}'"
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise NetworkError(
            "is not numeric; give a float or an array", where=where, field=field
        ) from error
    if array.ndim > 1:
        raise NetworkError(
            f"has shape {array.shape}; give one float or one value a neuron",
            where=where,
            field=field,
        )
    if not np.isfinite(array).all():
        raise NetworkError("holds NaN or infinity; give finite numbers", where=where, field=field)
    if (array < minimum).any():
        raise NetworkError(
            f"is below {minimum:g}; give numbers >= {minimum:g}", where=where, field=field
        )
    if array.ndim == 0:
        return float(array)
    array.flags.writeable = False
    return array
