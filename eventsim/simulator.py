"""Run a network event by event."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim import files
from eventsim.engines import Kernel, choose, rounded
from eventsim.errors import InputError, SimulationError, UnknownNameError
from eventsim.kernels.status import BUFFER_FULL, NONFINITE_INPUT, NONFINITE_STATE, OK, WRONG_SIZE
from eventsim.network import Network
from eventsim.trace import Counters, DrainedEvents, Events, Hook

Float = NDArray[np.float64]

#: Steps that `Simulator.run` leaves to the kernel before it calls the hooks.
CHUNK = 1024

_asarray, _empty, _float64 = np.asarray, np.empty, np.float64

PRECISIONS = ("auto", "float32", "float64")


@dataclass(frozen=True, eq=False)
class SimulatorState:
    """Snapshot of a simulator between two steps; only its own kind of network takes it back."""

    arrays: tuple[NDArray[np.generic], ...]

    @property
    def step(self) -> int:
        """Steps since the last reset."""
        return int(self.arrays[-1][0])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a safetensors file.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        files.save_state(path, self.arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SimulatorState:
        """Read a state that `save` wrote.

        Raises
        ------
        FileFormatError
            If there is no such file, or it is damaged or foreign.
        """
        return cls(files.load_state(path))


class Simulator:
    """Simulate a network step by step, doing work only for what changed.

    For a network in continuous time this makes a `SpikingSimulator`, whose `run` takes a time or
    a number of spikes instead of inputs.

    Parameters
    ----------
    network : Network
    hooks : sequence of Hook, optional
        Each sees every step's counters, and its events if it asks for them.
    engine : str, optional
        ``"auto"`` picks the fastest that supports the network; ``"reference"`` is the readable
        priority-queue engine, ``"levels"`` the level-ordered one. All give the same events.
    dt : float, optional
        Simulated seconds a step, > 0; default 1.
    precision : str, optional
        How weights are stored. ``"auto"``: as they are, in float32 where that loses nothing;
        ``"float32"``: rounded to float32; ``"float64"``: float64 throughout. Accumulators,
        thresholds and events are float64 always, so that ``"auto"`` and ``"float64"`` give the
        same bits.

    Attributes
    ----------
    engine, engine_reason : str
        Name of the engine picked, and why it was.

    Raises
    ------
    UnknownNameError
        If there is no such engine or precision.
    UnsupportedError
        If the engine, or every engine, does not support the network.
    InputError
        If `dt` is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network, Simulator
    >>> network = Network.from_arrays([np.array([[1.0, -2.0]])], thresholds=0.1)
    >>> simulator = Simulator(network)
    >>> simulator.step([3.0, 1.0])
    array([1.])
    >>> simulator.step([3.05, 1.0])  # moved by less than the threshold: nothing is sent
    array([1.])
    >>> simulator.counters.synops
    0
    """

    def __new__(cls, network: Network | None = None, *_: Any, **__: Any) -> Simulator:
        """Make the simulator that the network needs."""
        if cls is Simulator and network is not None and getattr(network, "continuous", False):
            from eventsim.spiking_simulator import SpikingSimulator

            return object.__new__(SpikingSimulator)
        return object.__new__(cls)

    def __init__(
        self,
        network: Network,
        hooks: Sequence[Hook] = (),
        *,
        engine: str = "auto",
        dt: float | None = None,
        precision: str = "auto",
    ) -> None:
        dt = 1.0 if dt is None else dt
        if precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise UnknownNameError(f"precision {precision!r} is not known; use one of {known}")
        if precision == "float32":
            network = rounded(network)
        if not (np.isfinite(dt) and dt > 0.0):
            raise InputError(f"dt is {dt}; give the seconds of a step, > 0")
        picked, self.engine_reason = choose(network, engine)
        self.network = network
        self.hooks = tuple(hooks)
        self.engine = picked.name
        self.dt = float(dt)
        self.precision = precision
        self._names = tuple(p.name for p in network.populations)
        self._first = np.cumsum([0, *(p.size for p in network.populations)])
        self._n_inputs, self._n_outputs = network.n_inputs, network.n_outputs
        # Pictures may come as bytes, and are compared as such.
        self._pictures = any(len(network[name].shape) == 3 for name in network.inputs)
        self._record = any(hook.records_events for hook in self.hooks)
        places = np.repeat(np.arange(len(self._names)), np.diff(self._first))
        self._population_of = places if self._record else places[:0]
        # Calling every step what does nothing would cost more than the step.
        self._steppers = [h for h in self.hooks if type(h).on_step is not Hook.on_step]
        self._engine = picked(
            network,
            n_tables=CHUNK if self.hooks else 1,
            record=self._record,
            wide=precision == "float64",
        )
        self._bind()
        for hook in self.hooks:
            hook.on_attach(self)
        self.reset()

    def _bind(self) -> None:
        # At hand in one piece for `step`, where every look-up of an attribute shows.
        engine = self._engine
        self._bound = (
            engine.kernel,
            engine.plan,
            engine.state,
            self._n_outputs,
            bool(self.hooks),
            self._pictures,
        )
        self._bytes: Kernel | None = None  # compiled when bytes come

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_bound", "_bytes")}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self._bind()

    def reset(self) -> None:
        """Start afresh: u at the bias, s at 0, empty delay lines, every neuron pending."""
        self._engine.reset()
        for hook in self.hooks:
            hook.on_reset()

    def step(self, inputs: ArrayLike) -> Float:
        """Advance by one step.

        Parameters
        ----------
        inputs : array of shape (n_inputs,)
            Values of the input populations, concatenated in network order. uint8 is fastest for
            populations that are pictures.

        Returns
        -------
        float64 array of shape (n_outputs,)
            f(u) of the output populations, concatenated.

        Raises
        ------
        InputError
            If the inputs have another shape or are not finite; the state is untouched.
        SimulationError
            If a neuron's state overflowed; reset before going on.
        """
        kernel, plan, state, n_outputs, hooked, pictures = self._bound
        if pictures and (taken := self._as_bytes(inputs)) is not None:
            kernel, x = taken
        else:
            x = _asarray(inputs, _float64, "C")
        if x.ndim != 1:
            raise self._misshapen(x)
        outputs = _empty(n_outputs)
        status = kernel(x, outputs, plan, state)  # which knows how many inputs there are
        if status or hooked:  # OK is 0
            if status == WRONG_SIZE:
                raise self._misshapen(x)
            self._finish(status, x[np.newaxis], outputs)
        return outputs

    @overload
    def run(self, inputs: ArrayLike) -> Float: ...

    @overload
    def run(
        self,
        *,
        until: float | None = None,
        spikes: int | None = None,
        stop: Callable[[Counters], bool] | None = None,
        progress: bool | None = False,
    ) -> Counters: ...

    def run(
        self,
        inputs: ArrayLike | None = None,
        *,
        until: float | None = None,
        spikes: int | None = None,
        stop: Callable[[Counters], bool] | None = None,
        progress: bool | None = False,
    ) -> Float | Counters:
        """Advance by T steps.

        Parameters
        ----------
        inputs : array of shape (T, n_inputs)
        until, spikes, stop, progress
            For networks in continuous time only: see `SpikingSimulator.run`.

        Returns
        -------
        float64 array of shape (T, n_outputs)

        Raises
        ------
        InputError
            As in `step`; the steps before the one at fault have been done.
        SimulationError
            As in `step`.
        """
        if inputs is None or until is not None or spikes is not None or stop is not None:
            raise InputError(
                "this network runs in steps: give inputs of shape (steps, "
                f"{self._n_inputs}); until, spikes and stop are for continuous time"
            )
        kernel, plan, state = self._bound[:3]
        if self._pictures and (taken := self._as_bytes(inputs)) is not None:
            kernel, x = taken
        else:
            x = np.asarray(inputs, np.float64)
        if x.ndim != 2 or x.shape[1] != self._n_inputs:
            raise InputError(f"inputs have shape {x.shape}, expected (steps, {self._n_inputs})")
        x = np.ascontiguousarray(x)
        outputs = np.empty((len(x), self._n_outputs))
        chunk = CHUNK if self.hooks else max(len(x), 1)
        for k in range(0, len(x), chunk):
            rows, results = x[k : k + chunk], outputs[k : k + chunk].reshape(-1)
            status = kernel(rows.reshape(-1), results, plan, state)
            if status != OK or self.hooks:
                self._finish(status, rows, results)
        return outputs

    def _as_bytes(self, inputs: ArrayLike) -> tuple[Kernel, Any] | None:
        """Return the kernel for bytes, and the inputs, if they are bytes and it takes them."""
        if getattr(inputs, "dtype", None) != np.uint8:
            return None
        if self._bytes is None:
            self._bytes = self._engine.byte_kernel()
        return None if self._bytes is None else (self._bytes, np.asarray(inputs, order="C"))

    def peek(self) -> float:
        """Seconds since the reset at which the next pending event is due; inf if there is none."""
        return self._engine.next_time() * self.dt

    @property
    def step_index(self) -> int:
        """Steps since the last reset."""
        return self._engine.step_index

    @property
    def counters(self) -> Counters:
        """Counters of the last step; zeros after a reset."""
        return Counters(self._names, self._engine.last, self._n_inputs if self.step_index else 0)

    @property
    def totals(self) -> Counters:
        """Counters summed since the last reset."""
        return Counters(self._names, self._engine.totals, self._n_inputs * self.step_index)

    def get_state(self) -> SimulatorState:
        """Return a copy of the state."""
        return SimulatorState(self._engine.get_state())

    def set_state(self, state: SimulatorState) -> None:
        """Continue from a copy of `state`.

        Raises
        ------
        InputError
            If the state is that of another network.
        """
        self._engine.set_state(state.arrays)

    def _misshapen(self, x: Any) -> InputError:
        return InputError(f"inputs have shape {x.shape}, expected ({self._n_inputs},)")

    def _finish(self, status: int, x: Float, outputs: Float) -> None:
        """Tell the hooks of the steps done; go on with a drained buffer, or raise the error.

        x has shape (T, n_inputs), outputs (T * n_outputs,).
        """
        x = np.asarray(x, np.float64)  # what is left after bytes goes on as numbers
        while True:
            done = self._engine.done
            self._report(done)
            if status == OK:
                return
            if status == NONFINITE_INPUT:
                detail = self._engine.detail
                raise InputError(
                    f"input {detail} of step {self.step_index} is {x[done, detail]}; "
                    "give finite observations"
                )
            if status == NONFINITE_STATE:
                raise SimulationError(self._overflow(self._engine.detail, self.step_index))
            if status != BUFFER_FULL:
                raise SimulationError(f"the engine gave the unknown status {status}")
            x, outputs = x[done:], outputs[done * self._n_outputs :]
            kernel, plan, state = self._bound[:3]
            status = kernel(x.reshape(-1), outputs, plan, state)

    def _report(self, done: int) -> None:
        if self._record:
            events = self._drain()
            for hook in self.hooks:
                if hook.records_events:
                    hook.on_events(events)
        first = self.step_index - done
        for k, table in enumerate(self._engine.tables(done) if self._steppers else ()):
            counters = Counters(self._names, table.copy(), self._n_inputs)
            for hook in self._steppers:
                hook.on_step(first + k, counters)

    def _drain(self) -> Events:
        step, neuron, value = self._engine.events()
        return DrainedEvents(step, neuron, value, self._first, self._population_of, self.dt)

    def _overflow(self, neuron: int, step: int) -> str:
        population = int(np.searchsorted(self._first, neuron, side="right")) - 1
        local = neuron - int(self._first[population])
        return (
            f"neuron {local} of population '{self._names[population]}' is no longer finite at "
            f"step {step}; scale the inputs or weights down, then reset"
        )
