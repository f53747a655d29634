"""The fast engines of continuous time: LIF and QIF networks by windows.

What they keep in memory and how they go about it is said in `eventsim.kernels.window_lif` and
`eventsim.kernels.window_qif`.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.kernels import window_lif as lif
from eventsim.kernels import window_qif as qif
from eventsim.network import Network
from eventsim.spiking_neurons import LIF, QIF, SpikeSource
from eventsim.window_engine import LONGEST, RING, WindowEngine, common_value, neurons_of, obstacle

Float = NDArray[np.float64]

#: E may become 2**64 before it is renormalised.
_EXPONENT = 64


class WindowLIF(WindowEngine):
    """LIF neurons of one time constant, driven above their thresholds; see `window_lif`.

    Drive, threshold and reset may differ from neuron to neuron. All delays are one, and so are
    all refractory periods; sources may have another delay.
    """

    name = "window-lif"
    _kernel: ClassVar[ModuleType] = lif
    _toward: ClassVar[int] = -1
    _at: ClassVar[dict[str, int]] = {"delay": 15, "rest": 17, "external": 19}
    _rings: ClassVar[dict[int, tuple[str, int, int]]] = {
        lif.DELAY_FULL: ("delay", lif.N_DELAY_HEAD, lif.N_DELAY),
        lif.REFRACTORY_FULL: ("rest", lif.N_REST_HEAD, lif.N_REST),
    }

    @classmethod
    def supports(cls, network: Network) -> str | None:
        """Return what keeps the engine from running the network, or None."""
        found = obstacle(network, LIF, ("tau", "refractory"))
        if found is not None:
            return found
        neurons = neurons_of(network)
        if len({p.neuron.refractory_kicks for p in neurons}) > 1:  # type: ignore[attr-defined]
            return "it has neurons of different refractory_kicks"
        if any((p.parameter("drive") <= p.parameter("threshold")).any() for p in neurons):
            return "it has neurons whose drive is not above their threshold"
        longest = LONGEST * float(common_value(neurons, "tau") or 0.0)
        if float(common_value(neurons, "refractory") or 0.0) > longest:
            return f"it has a refractory time of more than {LONGEST:g} time constants"
        return None

    def _gather(self, name: str, source: float) -> Float:
        parts = [
            np.full(p.size, source) if isinstance(p.neuron, SpikeSource) else p.parameter(name)
            for p in self.plan.network.populations
        ]
        return np.concatenate(parts)

    def _initial(self) -> list[NDArray[Any]]:
        neurons = neurons_of(self.plan.network)
        tau = float(common_value(neurons, "tau") or 0.0)
        rest = float(common_value(neurons, "refractory") or 0.0)
        keeps = neurons[0].neuron.refractory_kicks == "kept"  # type: ignore[attr-defined]
        drive, reset = self._gather("drive", 1.0), self._gather("reset", 0.0)
        above = drive - self._gather("threshold", 0.5)
        b = (drive - self._gather("initial", 0.0)) / above
        b[self._sources] = np.inf
        ratio = (drive - reset) / above
        synapses, flags = self._synapses(-1.0 / above)
        own = ratio[~self._sources]
        same = bool((own == own[0]).all())
        mode = lif.NO_REST if rest == 0.0 else lif.KEEPS if keeps else lif.LOSES
        flags |= {
            "N_RATIOS": int(not same),
            "N_EXPONENT": _EXPONENT,
            "N_REFRACTORY": mode,
            "N_BURST": self.plan.burst,
        }
        numbers, reals = self._parameters(
            flags,
            {
                "R_NOW": 1.0,
                "R_LIMIT": 1.0,
                "R_WIDTH": 1e-3,
                "R_WIDEST": max(float(own.min()) - 1.0, 1e-9) / 2.0,
                "R_DELAY": math.exp(self._delay / tau) if self._delay > 0.0 else 0.0,
                "R_REST": math.exp(rest / tau),
                "R_TAU": tau,
            },
        )
        keys, ids = self._scratch()
        return [
            b,
            own[:1] if same else ratio,
            np.zeros(b.size if mode == lif.KEEPS else 1),
            self._pointers,
            self._targets,
            *synapses,
            *(keys(), ids(), keys(), ids(), keys(), ids(), ids()),
            *(np.zeros(RING), np.zeros(RING, np.int32)),
            *(np.zeros(RING), np.zeros(RING, np.int32)),
            np.zeros(1),
            np.zeros(1, np.int32),
            numbers,
            reals,
        ]

    def _live(self) -> list[tuple[int, int]]:
        numbers = self._numbers
        found, heaped = int(numbers[lif.N_FOUND]) + 1, max(int(numbers[lif.N_HEAP]), 1)
        until = self._arguments[2].size
        return [
            (0, self.plan.n_neurons),
            (2, until),
            (8, found),
            (9, found),
            (10, heaped),
            (11, heaped),
        ]

    def _seconds(self, key: float | None = None) -> float:
        times = np.array([self._reals[lif.R_NOW] if key is None else key])
        if times[0] == math.inf:
            return math.inf
        lif.to_seconds(times, 0, 1, float(self._reals[lif.R_TAU]), self._numbers)
        return float(times[0])

    def _keys(self) -> Float:
        b, until = self._arguments[0], self._arguments[2]
        keys = np.maximum(b, until) if until.size == b.size else b
        first = float(keys.min(initial=math.inf))
        resting = int(self._numbers[lif.N_REST])
        if resting:
            # B is infinite meanwhile; at the end it will be the ratio times the end.
            ends, ids = self._arguments[self._at["rest"]], self._arguments[self._at["rest"] + 1]
            places = (np.arange(resting) + self._numbers[lif.N_REST_HEAD]) % ends.size
            ratio = self._arguments[1]
            own = ratio[ids[places]] if ratio.size > 1 else ratio
            first = min(first, float((own * ends[places]).min()))
        return np.array([self._seconds(first)])

    def voltages(self) -> Float:
        b, until = self._arguments[0], self._arguments[2]
        drive, reset = self._gather("drive", 1.0), self._gather("reset", 0.0)
        above = drive - self._gather("threshold", 0.5)
        tau = float(self._reals[lif.R_TAU])
        now = max(float(self._reals[lif.R_NOW]), lif.to_key(self.now, tau, self._numbers))
        volts = drive - above * (np.where(np.isinf(b), 0.0, b) / now)
        resting = np.isinf(b) | ((until > now) if until.size == b.size else False)
        volts = np.where(resting, reset, volts)
        volts[self._sources] = np.nan
        return volts


class WindowQIF(WindowEngine):
    """QIF neurons of one time constant and one drive above 0; see `window_qif`.

    All delays are one; sources may have another. There is no refractoriness.
    """

    name = "window-qif"
    _kernel: ClassVar[ModuleType] = qif
    _toward: ClassVar[int] = 1
    _at: ClassVar[dict[str, int]] = {"delay": 15, "external": 17}
    _rings: ClassVar[dict[int, tuple[str, int, int]]] = {
        qif.DELAY_FULL: ("delay", qif.N_DELAY_HEAD, qif.N_DELAY)
    }

    @classmethod
    def supports(cls, network: Network) -> str | None:
        """Return what keeps the engine from running the network, or None."""
        found = obstacle(network, QIF, ("tau", "drive"))
        if found is not None:
            return found
        neurons = neurons_of(network)
        if float(common_value(neurons, "drive") or 0.0) <= 0.0:
            return "it has neurons whose drive is not above 0"
        for p in neurons:
            if not (
                np.isposinf(p.parameter("threshold")).all()
                and np.isneginf(p.parameter("reset")).all()
            ):
                return "it has neurons of finite threshold or reset"
            if p.parameter("refractory").any():
                return "it has neurons with a refractory time"
        return None

    def _initial(self) -> list[NDArray[Any]]:
        plan, neurons = self.plan, neurons_of(self.plan.network)
        root = math.sqrt(float(common_value(neurons, "drive") or 0.0))
        pace = root / float(common_value(neurons, "tau") or 0.0)
        pairs = np.zeros((plan.n_neurons, 2))  # a pair of zeros never fires
        for k, p in enumerate(plan.network.populations):
            if not isinstance(p.neuron, SpikeSource):
                v = p.parameter("initial") / root
                below = np.isneginf(v)
                length = np.hypot(1.0, np.where(below, 0.0, v))
                here = pairs[plan.start[k] : plan.start[k + 1]]
                here[:, 0] = np.where(below, -1.0, v / length)
                here[:, 1] = np.where(below, 0.0, 1.0 / length)
        synapses, flags = self._synapses(np.full(plan.n_neurons, 1.0 / root))
        numbers, reals = self._parameters(
            flags,
            {
                "R_WIDTH": 1e-3,
                "R_WIDEST": math.pi / 4,
                "R_DELAY": self._delay * pace,
                "R_PACE": pace,
            },
        )
        keys, ids = self._scratch()
        return [
            pairs.reshape(-1),
            self._pointers,
            self._targets,
            *synapses,
            *(keys(), ids(), keys(), ids(), ids()),
            np.empty(2 * plan.n_neurons + 4),
            *(keys(), ids(), ids()),
            np.zeros(RING),
            np.zeros(RING, np.int32),
            np.zeros(1),
            np.zeros(1, np.int32),
            numbers,
            reals,
        ]

    def _live(self) -> list[tuple[int, int]]:
        numbers = self._numbers
        found, heaped = int(numbers[qif.N_FOUND]) + 1, max(int(numbers[qif.N_HEAP]), 1)
        window = [(6, found), (7, found), (8, heaped), (9, heaped), (10, found), (11, 2 * found)]
        return [(0, 2 * self.plan.n_neurons), *window]

    def _seconds(self, key: float | None = None) -> float:
        times = np.array([self._reals[qif.R_NOW] if key is None else key])
        qif.to_seconds(times, 0, 1, self._numbers, self._reals)
        return float(times[0])

    def _keys(self) -> Float:
        pairs = self._arguments[0].reshape(-1, 2)[~self._sources]
        now = float(self._reals[qif.R_NOW])
        angles = np.arctan2(pairs[:, 1], pairs[:, 0])
        # One that lies behind has been; the next is a whole turn of the ratio further on.
        angles = np.where(angles > now - qif.BEHIND, np.maximum(angles, now), angles + 2 * math.pi)
        first = float(angles.min(initial=math.inf))
        return np.array([self._seconds(first)])

    def voltages(self) -> Float:
        pairs = self._arguments[0].reshape(-1, 2)
        root = math.sqrt(float(common_value(neurons_of(self.plan.network), "drive") or 0.0))
        now = max(float(self._reals[qif.R_NOW]), qif.to_key(self.now, self._numbers, self._reals))
        p = pairs[:, 0] * math.cos(now) + pairs[:, 1] * math.sin(now)
        q = pairs[:, 1] * math.cos(now) - pairs[:, 0] * math.sin(now)
        with np.errstate(divide="ignore", invalid="ignore"):
            volts = root * (p / q)
        # Just fired, to within a rounding.
        volts = np.where(np.abs(q) <= 1e-15 * np.abs(p), -math.inf, volts)
        volts[self._sources] = np.nan
        return volts
