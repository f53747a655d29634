"""Spiking neurons in continuous time, the sources that drive them, and clocked ones.

A model of the class "at crossing" says how its voltage runs between kicks; it spikes at the instant
at which the voltage crosses the threshold. A spike of its presynaptic neuron kicks the voltage by
the weight of the synapse (current-based delta synapses). Times are in seconds; voltages have the
unit of the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import NetworkError
from eventsim.neurons import FloatArray, NeuronModel, Scheduling, _parameter
from eventsim.response import ResponseTable, from_ode, from_response

Int = NDArray[np.int64]
Kicks: TypeAlias = Literal["lost", "kept"]
Value: TypeAlias = float | FloatArray


@dataclass(frozen=True, eq=False)
class SpikingNeuron(NeuronModel):
    """Base of the neurons that spike in continuous time; their events are binary.

    All take ``refractory``, seconds after a spike in which the voltage stays at the reset, and
    ``refractory_kicks``: ``"lost"`` kicks of that time have no effect, ``"kept"`` ones count at
    its end (where the model says, they have decayed until then). A kick at the very end counts.
    """

    scheduling: ClassVar[Scheduling] = "at crossing"
    graded: ClassVar[bool] = False
    continuous: ClassVar[bool] = True

    def at_phase(self, phase: ArrayLike) -> FloatArray:
        """Voltages at phases of the undisturbed cycle: 0 just after a spike, 1 at the next one.

        Parameters
        ----------
        phase : float or array
            In 0 <= phase < 1; time since the end of the refractory period over the rest of the
            interval between spikes.

        Raises
        ------
        NetworkError
            If the neuron does not spike without input, or a phase is out of range.
        """
        raise NotImplementedError

    def _phases(self, phase: ArrayLike) -> FloatArray:
        values = np.asarray(phase, np.float64)
        if not ((values >= 0.0) & (values < 1.0)).all():
            raise NetworkError("must lie in 0 <= phase < 1", where=self._where, field="phase")
        return values

    @property
    def _where(self) -> str:
        return f"neuron model '{self.kind}'"

    def _fail(self, field: str, message: str) -> NetworkError:
        return NetworkError(message, where=self._where, field=field)

    def _set(self, minima: dict[str, float], kicks: str, **values: ArrayLike) -> None:
        """Check the parameters and store them."""
        for field, value in values.items():
            found = _parameter(self, field, value, minima.get(field, -math.inf))
            object.__setattr__(self, field, found)
        if kicks not in ("lost", "kept"):
            raise self._fail("refractory_kicks", f"is {kicks!r}; give 'lost' or 'kept'")
        object.__setattr__(self, "refractory_kicks", kicks)

    def _below(self, field: str, value: Value, limit: Value) -> None:
        first, second = np.asarray(value), np.asarray(limit)
        if first.ndim and second.ndim and first.shape != second.shape:
            raise self._fail(field, f"has shape {first.shape}, the threshold {second.shape}")
        if not (first < second).all():
            raise self._fail(field, "must lie below the threshold")


@dataclass(frozen=True, eq=False)
class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neuron: ``tau dV/dt = drive - V``.

    At ``V = threshold`` it spikes and V becomes `reset`. In refractoriness, kept kicks decay with
    tau. (Lapicque 1907; Gerstner et al., Neuronal Dynamics, 2014, ch. 1.3.)

    Parameters
    ----------
    tau : float or array of shape (size,)
        Membrane time constant in seconds, > 0.
    drive : float or array of shape (size,)
        Voltage at which an undisturbed membrane would settle. At or below the threshold the
        neuron spikes only when it is kicked.
    threshold, reset : float or array of shape (size,)
    refractory : float or array of shape (size,)
        Seconds, >= 0.
    refractory_kicks : str
        ``"lost"`` or ``"kept"``.
    initial : float or array of shape (size,), optional
        Voltage at time 0, below the threshold; default the reset.
    """

    tau: Value = 0.01
    drive: Value = 1.1
    threshold: Value = 1.0
    reset: Value = 0.0
    refractory: Value = 0.0
    refractory_kicks: Kicks = "lost"
    initial: Value = 0.0
    kind: ClassVar[str] = "lif"

    def __init__(
        self,
        tau: ArrayLike = 0.01,
        drive: ArrayLike = 1.1,
        threshold: ArrayLike = 1.0,
        reset: ArrayLike = 0.0,
        refractory: ArrayLike = 0.0,
        refractory_kicks: str = "lost",
        initial: ArrayLike | None = None,
    ) -> None:
        self._set(
            {"tau": np.finfo(np.float64).tiny, "refractory": 0.0},
            refractory_kicks,
            tau=tau,
            drive=drive,
            threshold=threshold,
            reset=reset,
            refractory=refractory,
            initial=reset if initial is None else initial,
        )
        self._below("reset", self.reset, self.threshold)
        self._below("initial", self.initial, self.threshold)

    def at_phase(self, phase: ArrayLike) -> FloatArray:
        """Voltages ``I - (I - V_r) ((I - theta) / (I - V_r)) ** phase``."""
        phases = self._phases(phase)
        drive, threshold, reset = map(np.asarray, (self.drive, self.threshold, self.reset))
        if not (drive > threshold).all():
            raise self._fail("drive", "is not above the threshold, so there is no cycle")
        away = drive - reset
        return np.asarray(drive - away * ((drive - threshold) / away) ** phases)


@dataclass(frozen=True, eq=False)
class QIF(SpikingNeuron):
    """Quadratic integrate-and-fire neuron: ``tau dV/dt = V**2 + drive``.

    By default it spikes at ``V = inf`` and is reset to ``-inf`` (the theta neuron of Ermentrout &
    Kopell 1986). In refractoriness, kept kicks are added to the reset at its end, which tells
    nothing to a neuron reset to -inf.

    Parameters
    ----------
    tau : float or array of shape (size,)
        Seconds, > 0.
    drive : float or array of shape (size,)
        Above 0 the neuron spikes by itself; at or below 0 only after kicks.
    threshold, reset : float or array of shape (size,)
        May be infinite.
    refractory, refractory_kicks
        As for all.
    initial : float or array of shape (size,), optional
        Voltage at time 0; default the reset.
    """

    tau: Value = 0.01
    drive: Value = 1.0
    threshold: Value = math.inf
    reset: Value = -math.inf
    refractory: Value = 0.0
    refractory_kicks: Kicks = "lost"
    initial: Value = -math.inf
    kind: ClassVar[str] = "qif"

    def __init__(
        self,
        tau: ArrayLike = 0.01,
        drive: ArrayLike = 1.0,
        threshold: ArrayLike = math.inf,
        reset: ArrayLike = -math.inf,
        refractory: ArrayLike = 0.0,
        refractory_kicks: str = "lost",
        initial: ArrayLike | None = None,
    ) -> None:
        self._set(
            {"tau": np.finfo(np.float64).tiny, "refractory": 0.0},
            refractory_kicks,
            tau=tau,
            drive=drive,
            refractory=refractory,
        )
        for field, value in (
            ("threshold", threshold),
            ("reset", reset),
            ("initial", reset if initial is None else initial),
        ):
            array = np.asarray(value, np.float64)
            whole = np.where(np.isinf(array), 0.0, array)
            _parameter(self, field, whole, -math.inf)  # one number or a list of them, no NaN
            array = array.copy()
            array.flags.writeable = False
            object.__setattr__(self, field, float(array) if array.ndim == 0 else array)
        self._below("reset", self.reset, self.threshold)
        self._below("initial", self.initial, self.threshold)

    def at_phase(self, phase: ArrayLike) -> FloatArray:
        """Voltages ``sqrt(I) tan(psi)`` with psi linear in the phase."""
        phases = self._phases(phase)
        if not (np.asarray(self.drive) > 0.0).all():
            raise self._fail("drive", "is not above 0, so there is no cycle")
        root = np.sqrt(self.drive)
        first = np.arctan(np.asarray(self.reset) / root)
        last = np.arctan(np.asarray(self.threshold) / root)
        volts = np.asarray(root * np.tan(first + phases * (last - first)))
        # tan(-pi / 2) is finite in floating point.
        return np.where(phases == 0.0, self.reset, volts)


@dataclass(frozen=True, eq=False)
class Tabulated(SpikingNeuron):
    """Any neuron with one variable that spikes by itself, from its equation or phase response.

    ``dV/dt = right_side(V) > 0`` from `lowest` to `threshold`. Two functions are approximated by
    piecewise Chebyshev polynomials: the time from V to the spike, and its inverse. A kick then
    costs one evaluation of each. Kicks kept in refractoriness are added to the reset at its end.

    Parameters
    ----------
    right_side : callable or ResponseTable
        Takes an array of voltages, returns their rates of change per second; smooth.
    threshold, reset : float
    lowest : float
        The table begins here; a neuron that inhibition brings lower ends the simulation with an
        error that says so.
    accuracy : float
        Seconds by which the time to the spike may be off, relative to the time from `reset` to
        `threshold`.
    refractory, refractory_kicks
        As for all.
    initial : float or array of shape (size,), optional
        Voltage at time 0; default the reset.

    Raises
    ------
    NetworkError
        If the right side is not positive throughout, or the accuracy is out of reach.

    Examples
    --------
    >>> from eventsim import Tabulated
    >>> leaky = Tabulated(lambda v: (1.2 - v) / 0.01, threshold=1.0, reset=0.0, lowest=-5.0)
    >>> round(leaky.table.period, 6)  # 0.01 ln(1.2 / 0.2)
    0.017918
    """

    table: ResponseTable = None  # type: ignore[assignment]
    refractory: Value = 0.0
    refractory_kicks: Kicks = "lost"
    initial: Value = 0.0
    kind: ClassVar[str] = "tabulated"

    def __init__(
        self,
        right_side: Callable[[FloatArray], FloatArray] | ResponseTable,
        threshold: float = 1.0,
        reset: float = 0.0,
        lowest: float | None = None,
        accuracy: float = 1e-13,
        refractory: ArrayLike = 0.0,
        refractory_kicks: str = "lost",
        initial: ArrayLike | None = None,
    ) -> None:
        if isinstance(right_side, ResponseTable):
            table = right_side
        else:
            low = reset - 10.0 * (threshold - reset) if lowest is None else lowest
            table = from_ode(right_side, threshold, reset, low, accuracy, self._where)
        object.__setattr__(self, "table", table)
        self._set(
            {"refractory": 0.0},
            refractory_kicks,
            refractory=refractory,
            initial=table.reset if initial is None else initial,
        )
        self._below("initial", self.initial, table.threshold)
        if (np.asarray(self.initial) < table.lowest).any():
            raise self._fail("initial", f"lies below the table, which begins at {table.lowest:g}")

    @classmethod
    def from_phase_response(
        cls,
        phases: ArrayLike,
        response: ArrayLike,
        period: float,
        *,
        accuracy: float = 1e-13,
        refractory: ArrayLike = 0.0,
        refractory_kicks: str = "lost",
    ) -> Tabulated:
        """Build the model from a measured phase response.

        Parameters
        ----------
        phases : array of shape (n,)
            Ascending to 1, the spike; 0 is the reset. Phases below 0, if any, say what inhibition
            reaches.
        response : array of shape (n,)
            Advance of the phase for each unit of a small kick, > 0. Between the entries a cubic
            spline through its logarithm is taken.
        period : float
            Seconds between spikes without input, refractoriness apart.

        Returns
        -------
        Tabulated
            With voltages in the unit of the kicks, 0 at the reset.
        """
        table = from_response(phases, response, period, accuracy, f"neuron model '{cls.kind}'")
        return cls(table, refractory=refractory, refractory_kicks=refractory_kicks)

    def at_phase(self, phase: ArrayLike) -> FloatArray:
        """Voltages by the table."""
        return self.table.voltage((1.0 - self._phases(phase)) * self.table.period)


@dataclass(frozen=True, eq=False)
class EIF(SpikingNeuron):
    """Exponential integrate-and-fire neuron (Fourcaud-Trocme et al. 2003).

    ``tau dV/dt = drive - V + slope exp((V - knee) / slope)``, with a spike at ``V = threshold``.
    It has no closed form: it runs by a table as in `Tabulated`, one for all neurons.

    Parameters
    ----------
    tau : float
        Seconds, > 0.
    drive : float
        Above ``knee - slope``, so that the neuron spikes by itself.
    threshold, reset : float
    knee, slope : float
        Where the upstroke begins, and how sharply, > 0.
    lowest, accuracy
        As for `Tabulated`; by default the table begins 50 times the way from threshold to reset
        below the reset.
    refractory, refractory_kicks, initial
        As for `Tabulated`.
    """

    tau: float = 0.01
    drive: float = 1.1
    threshold: float = 2.0
    reset: float = 0.0
    knee: float = 1.0
    slope: float = 0.1
    table: ResponseTable = None  # type: ignore[assignment]
    refractory: Value = 0.0
    refractory_kicks: Kicks = "lost"
    initial: Value = 0.0
    kind: ClassVar[str] = "eif"

    def __init__(
        self,
        tau: float = 0.01,
        drive: float = 1.1,
        threshold: float = 2.0,
        reset: float = 0.0,
        knee: float = 1.0,
        slope: float = 0.1,
        lowest: float | None = None,
        accuracy: float = 1e-13,
        refractory: ArrayLike = 0.0,
        refractory_kicks: str = "lost",
        initial: ArrayLike | None = None,
    ) -> None:
        for field, value in (
            ("tau", tau),
            ("drive", drive),
            ("threshold", threshold),
            ("reset", reset),
            ("knee", knee),
            ("slope", slope),
        ):
            if np.ndim(value) or not math.isfinite(value):
                raise self._fail(field, f"is {value}; give one finite number for the population")
            object.__setattr__(self, field, float(value))
        if not (tau > 0.0 and slope > 0.0):
            raise self._fail("tau" if tau <= 0.0 else "slope", "must be above 0")
        if drive <= knee - slope:
            raise self._fail(
                "drive", f"is {drive:g}; give more than knee - slope = {knee - slope:g}"
            )
        low = reset - 50.0 * (threshold - reset) if lowest is None else lowest

        def right_side(v: FloatArray) -> FloatArray:
            return np.asarray((drive - v + slope * np.exp((v - knee) / slope)) / tau)

        table = from_ode(right_side, threshold, reset, low, accuracy, self._where)
        object.__setattr__(self, "table", table)
        self._set(
            {"refractory": 0.0},
            refractory_kicks,
            refractory=refractory,
            initial=reset if initial is None else initial,
        )
        self._below("initial", self.initial, self.threshold)

    def at_phase(self, phase: ArrayLike) -> FloatArray:
        """Voltages by the table."""
        return self.table.voltage((1.0 - self._phases(phase)) * self.table.period)


@dataclass(frozen=True, eq=False)
class SpikeSource(NeuronModel):
    """Base of the neurons that spike by themselves and take no synapses."""

    graded: ClassVar[bool] = False
    continuous: ClassVar[bool] = True
    receptors: ClassVar[tuple[str, ...]] = ()


@dataclass(frozen=True, eq=False)
class PoissonInput(SpikeSource):
    """Independent Poisson processes.

    Parameters
    ----------
    rate : float or array of shape (size,)
        Spikes a second, >= 0.
    seed : int
        The spikes follow from the seed, the rates and the population's place in the network.
    """

    rate: Value = 0.0
    seed: int = 0
    kind: ClassVar[str] = "poisson"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", _parameter(self, "rate", self.rate, 0.0))
        if isinstance(self.seed, bool) or int(self.seed) != self.seed or self.seed < 0:
            raise NetworkError(
                f"is {self.seed!r}; give a whole number >= 0",
                where=f"neuron model '{self.kind}'",
                field="seed",
            )


@dataclass(frozen=True, eq=False)
class SpikeInput(SpikeSource):
    """Recorded spikes.

    Parameters
    ----------
    times : array of shape (n,), or sequence of `size` arrays
        Seconds, >= 0; with a sequence of arrays, those of each neuron.
    neurons : array of shape (n,), optional
        Which neuron spikes at each of the times.

    Attributes
    ----------
    spikes : tuple of float64 array and int64 array
        Times and neurons, by time and then neuron.
    """

    spikes: tuple[FloatArray, Int] = (np.zeros(0), np.zeros(0, np.int64))
    kind: ClassVar[str] = "spikes"

    def __init__(
        self, times: ArrayLike | Sequence[ArrayLike], neurons: ArrayLike | None = None
    ) -> None:
        where = f"neuron model '{self.kind}'"
        try:
            if neurons is None:
                rows = [np.asarray(row, np.float64).reshape(-1) for row in times]  # type: ignore[union-attr]
                when = np.concatenate([*rows, np.zeros(0)])
                who = np.repeat(np.arange(len(rows)), [row.size for row in rows])
            else:
                when = np.asarray(times, np.float64).reshape(-1)
                who = np.asarray(neurons).reshape(-1)
        except (TypeError, ValueError) as error:
            raise NetworkError("are not numbers", where=where, field="times") from error
        if when.size != who.size or (who.size and who.dtype.kind not in "iu"):
            raise NetworkError(
                "must be whole numbers, one for each of the times", where=where, field="neurons"
            )
        if not ((when >= 0.0) & np.isfinite(when)).all() or (who < 0).any():
            raise NetworkError("must be finite and >= 0", where=where, field="times")
        order = np.lexsort((who, when))
        arrays = (when[order], who[order].astype(np.int64))
        for array in arrays:
            array.flags.writeable = False
        object.__setattr__(self, "spikes", arrays)

    def check_size(self, size: int) -> None:
        """Raise NetworkError if a neuron beyond `size` spikes."""
        who = self.spikes[1]
        if who.size and who.max() >= size:
            raise NetworkError(
                f"neuron {int(who.max())} spikes in a population of {size}",
                where=f"neuron model '{self.kind}'",
                field="neurons",
            )


@dataclass(frozen=True, eq=False)
class ClockedLIF(NeuronModel):
    """Leaky integrate-and-fire neuron that is updated once a step, as in snnTorch and Norse.

    With the input x of the step, the threshold theta, and z = 1 where the neuron spiked in the
    step before::

        reset="zero":      v = beta (1 - z) v + x
        reset="subtract":  v = beta v + x - z theta

    It spikes if ``v > theta``. These are the equations of ``snntorch.Leaky`` with its default
    ``reset_delay=True``; Norse resets in the step of the spike, which gives the same spikes for
    "zero". A spike is worth its synapse's weight in its own step; what a delta population
    transmitted counts in every step until it changes.

    Parameters
    ----------
    beta : float or array of shape (size,)
        Decay of v in a step, 0 <= beta <= 1: ``exp(-dt / tau)``.
    threshold : float or array of shape (size,)
    reset : str
        ``"zero"`` or ``"subtract"``.
    """

    beta: Value = 0.9
    threshold: Value = 1.0
    reset: Literal["zero", "subtract"] = "subtract"
    kind: ClassVar[str] = "clocked_lif"
    scheduling: ClassVar[Scheduling] = "every step"
    graded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", _parameter(self, "beta", self.beta, 0.0))
        where = f"neuron model '{self.kind}'"
        if (np.asarray(self.beta) > 1.0).any():
            raise NetworkError("is above 1; give a decay", where=where, field="beta")
        threshold = _parameter(self, "threshold", self.threshold, -math.inf)
        object.__setattr__(self, "threshold", threshold)
        if self.reset not in ("zero", "subtract"):
            raise NetworkError(
                f"is {self.reset!r}; give 'zero' or 'subtract'", where=where, field="reset"
            )


@dataclass(frozen=True, eq=False)
class ClockedIF(ClockedLIF):
    """Plain integrate-and-fire neuron, updated once a step: `ClockedLIF` with ``beta = 1``."""

    beta: Value = 1.0
    kind: ClassVar[str] = "clocked_if"

    def __init__(
        self, threshold: ArrayLike = 1.0, reset: Literal["zero", "subtract"] = "subtract"
    ) -> None:
        object.__setattr__(self, "beta", 1.0)
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "reset", reset)
        self.__post_init__()


def spiking_parameter(model: Any, name: str, size: int) -> FloatArray:
    """Values of a parameter as a fresh float64 array of shape (size,)."""
    return np.full(size, getattr(model, name), np.float64)
