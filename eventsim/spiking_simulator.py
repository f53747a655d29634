"""Run a spiking network in continuous time; what `Simulator` becomes for one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError, UnsupportedError
from eventsim.kernels.status import N_COUNTERS
from eventsim.network import Network
from eventsim.progress import RunBar
from eventsim.simulator import Simulator, SimulatorState
from eventsim.spiking_compile import Status, compile_spiking
from eventsim.spiking_engines import choose_spiking
from eventsim.trace import Counters, Events, Hook

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Stop = Callable[[Counters], bool]

#: Seconds of a bin in which hooks see a run, unless told otherwise.
DEFAULT_BIN = 1e-3
_ALL = 1 << 62
#: Parts of a run between which a progress bar moves.
_PARTS = 200


class SpikingSimulator(Simulator):
    """Simulate a spiking network, every spike at its exact time.

    `Simulator` makes one of these when the network is in continuous time. There are no steps:
    `run` goes on until a time or for a number of spikes. Hooks see the run in bins of `dt` seconds;
    ``step`` of an event is the number of its bin. A run that stops inside a bin reports it in two
    parts.

    Parameters
    ----------
    network : Network
        With ``network.continuous``.
    hooks : sequence of Hook, optional
    engine : str, optional
        ``"auto"`` picks the fastest that supports the network; ``"reference"`` is the readable
        heap of crossings.
    dt : float, optional
        Seconds of a bin; default 1 ms. It changes no spike.
    precision : str, optional
        ``"auto"`` or ``"float64"``; the state is float64 always.

    Attributes
    ----------
    engine, engine_reason : str
        Name of the engine picked, and why it was.
    engine_seconds : float
        Wall-clock seconds in the engine, over all runs: hooks, building and drawing apart.

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    UnsupportedError
        If no engine supports the network.
    InputError
        If `dt` is not a positive number.

    Examples
    --------
    >>> from eventsim import LIF, Network, Population, Simulator
    >>> network = Network([Population("cells", 2, LIF(tau=0.01, drive=[1.1, 1.5]))], [])
    >>> simulator = Simulator(network)
    >>> simulator.run(until=0.1)
    Counters(cells: 13 events, 0 synops)
    >>> round(simulator.peek(), 6)
    0.109861
    """

    def __init__(
        self,
        network: Network,
        hooks: Sequence[Hook] = (),
        *,
        engine: str = "auto",
        dt: float | None = None,
        precision: str = "auto",
    ) -> None:
        self.dt = DEFAULT_BIN if dt is None else float(dt)
        if not (math.isfinite(self.dt) and self.dt > 0.0):
            raise InputError(f"dt is {dt}; give the seconds of a bin, > 0")
        if precision not in ("auto", "float64"):
            raise InputError(
                f"is {precision!r}; spiking networks run in float64", field="precision"
            )
        picked, self.engine_reason = choose_spiking(network, engine)
        self.network = network
        self.hooks = tuple(hooks)
        self.engine = picked.name
        self.precision = precision
        self._names = tuple(p.name for p in network.populations)
        self._first = np.cumsum([0, *(p.size for p in network.populations)])
        self._record = any(hook.records_events for hook in self.hooks)
        self._steppers = [h for h in self.hooks if type(h).on_step is not Hook.on_step]
        self._core = picked(compile_spiking(network))
        self._stopped = False
        self.engine_seconds = 0.0
        for hook in self.hooks:
            hook.on_attach(self)
        self._begin()

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)

    def reset(self) -> None:
        """Start afresh: time 0, initial voltages, nothing delayed or counted."""
        self._core.reset()
        self._begin()

    def _begin(self) -> None:
        self._bin = 0
        zeros = np.zeros((len(self._names), N_COUNTERS), np.int64)
        self._reported, self._last = zeros, zeros.copy()
        for hook in self.hooks:
            hook.on_reset()

    def step(self, inputs: ArrayLike) -> Float:
        """Refuse: there are no steps in continuous time.

        Raises
        ------
        UnsupportedError
            Always.
        """
        raise UnsupportedError(
            "time is continuous in this network: there are no steps; use run(until=seconds)"
        )

    @overload
    def run(self, inputs: ArrayLike) -> Float: ...

    @overload
    def run(
        self,
        *,
        until: float | None = None,
        spikes: int | None = None,
        stop: Stop | None = None,
        progress: bool | None = False,
    ) -> Counters: ...

    def run(
        self,
        inputs: ArrayLike | None = None,
        *,
        until: float | None = None,
        spikes: int | None = None,
        stop: Stop | None = None,
        progress: bool | None = False,
    ) -> Float | Counters:
        """Simulate until a time, for a number of spikes, or until something is the case.

        Parameters
        ----------
        until : float, optional
            Seconds since the reset; what happens at that time or later stays for the next run.
        spikes : int, optional
            Spikes of neurons from now on, those of sources not counted.
        stop : callable, optional
            Gets the `Counters` of every bin and returns whether to stop after it. A hook may call
            `stop` of the simulator instead.
        progress : bool, optional
            Whether to draw a bar on stderr; None: if stderr is a terminal.

        Returns
        -------
        Counters
            Of this run.

        Raises
        ------
        InputError
            If there is neither a time nor a number of spikes, or the time has passed.
        SimulationError
            At a runaway avalanche, a state that is not finite, or a voltage below its table; reset
            before going on.
        """
        if inputs is not None:
            raise InputError(
                "time is continuous in this network, which takes no inputs for its steps; use "
                "run(until=seconds) and sources of spikes"
            )
        end, count = self._limits(until, spikes)
        core, before = self._core, self._core.totals
        self._stopped = False
        binned = bool(self._steppers) or stop is not None
        left, began = count, core.now
        with RunBar(progress, count if count < _ALL else end - began, count < _ALL) as bar:
            part = (end - core.now) / _PARTS if bar.shown and math.isfinite(end) else math.inf
            while left > 0 and not self._stopped:
                if binned:
                    if math.isinf(end) and math.isinf(core.peek()):
                        break
                    edge = (self._bin + 1) * self.dt
                else:
                    edge = core.now + part
                to = min(end, edge)
                started = time.perf_counter()
                times, ids = core.run(to, min(left, _ALL))
                self.engine_seconds += time.perf_counter() - started
                left -= times.size
                self._tell(times, ids)
                bar.update(count - left if count < _ALL else core.now - began)
                if core.status is Status.SPIKES:
                    continue
                if binned and to == edge:
                    self._tell_bin(stop)
                if core.status is Status.QUIET or to >= end:
                    break
        if binned and (core.totals != self._reported).any():
            self._tell_bin(stop, whole=False)
        if not binned:
            self._bin = self._bin_of(np.array([core.now]))[0]
        self._last = core.totals - before
        return self.counters

    def _limits(self, until: float | None, spikes: int | None) -> tuple[float, int]:
        if until is None and spikes is None:
            raise InputError("say when to stop: run(until=seconds), or run(spikes=number)")
        end = math.inf if until is None else float(until)
        if math.isnan(end) or end < self._core.now:
            raise InputError(
                f"is {until}, but the time is {self._core.now:g} s already", field="until"
            )
        count = _ALL if spikes is None else spikes
        if isinstance(count, bool) or int(count) != count or count < 0:
            raise InputError(f"is {spikes}; give a whole number >= 0", field="spikes")
        if math.isinf(end) and spikes is None:
            raise InputError("is infinite; give seconds, or a number of spikes", field="until")
        return end, int(count)

    def stop(self) -> None:
        """End the present run; for hooks, which are called after every bin or buffer of spikes."""
        self._stopped = True

    def peek(self) -> float:
        """Seconds since the reset at which the next event is due; inf if there is none."""
        return self._core.peek()

    @property
    def now(self) -> float:
        """Seconds since the reset."""
        return self._core.now

    @property
    def step_index(self) -> int:
        """Bins of `dt` that are over."""
        return int(self._bin)

    @property
    def counters(self) -> Counters:
        """Counters of the last run."""
        return Counters(self._names, self._last, 0)

    @property
    def totals(self) -> Counters:
        """Counters summed since the last reset."""
        return Counters(self._names, self._core.totals, 0)

    def voltages(self, population: str) -> Float:
        """Voltages of a population's neurons at the present time, shape (size,).

        Raises
        ------
        UnknownNameError
            If there is no such population.
        """
        self.network[population]
        k = self._names.index(population)
        return self._core.voltages()[int(self._first[k]) : int(self._first[k + 1])]

    def get_state(self) -> SimulatorState:
        """Return a copy of the state; a run that goes on from it is the same bit for bit."""
        own = (self._reported.copy(), np.array([self._bin], np.int64))
        return SimulatorState((*self._core.get_state(), *own))

    def set_state(self, state: SimulatorState) -> None:
        """Continue from a copy of `state`.

        Raises
        ------
        InputError
            If the state is that of another network or engine.
        """
        if len(state.arrays) < 2 or state.arrays[-2].shape != self._reported.shape:
            raise InputError(
                "the state belongs to another network or engine; use one of this simulator's"
            )
        self._core.set_state(state.arrays[:-2])
        self._reported = np.array(state.arrays[-2], np.int64)
        self._bin = int(state.arrays[-1][0])

    def _bin_of(self, times: Float) -> Int:
        """Number of the bin; its edges are whole multiples of dt, as rounded."""
        number = np.floor(times / self.dt)
        number -= times < number * self.dt
        number += times >= (number + 1.0) * self.dt
        return number.astype(np.int64)

    def _tell(self, times: Float, ids: Int) -> None:
        """Give the hooks the events of a piece of the run."""
        outer_times, outer_ids = self._core.external()
        if not self._record or not (times.size or outer_times.size):
            return
        if outer_times.size:  # sources go before neurons at one instant
            times = np.concatenate([outer_times, times])
            ids = np.concatenate([outer_ids, ids])
            order = np.argsort(times, kind="stable")
            times, ids = times[order], ids[order]
        population = np.searchsorted(self._first, ids, side="right") - 1
        events = Events(
            step=self._bin_of(times),
            time=times,
            population=population,
            neuron=ids - self._first[population],
            value=np.ones(times.size),
        )
        for hook in self.hooks:
            if hook.records_events:
                hook.on_events(events)

    def _tell_bin(self, stop: Stop | None, whole: bool = True) -> None:
        totals = self._core.totals
        counters = Counters(self._names, totals - self._reported, 0)
        self._reported = totals
        for hook in self._steppers:
            hook.on_step(self._bin, counters)
        if stop is not None and stop(counters):
            self._stopped = True
        self._bin += whole
