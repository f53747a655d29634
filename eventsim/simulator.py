"""Run a network event by event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.compile import Arrays, compile
from eventsim.errors import InputError, SimulationError, UnknownNameError
from eventsim.kernels import delta
from eventsim.kernels.status import BUFFER_FULL, N_COUNTERS, NONFINITE_INPUT, NONFINITE_STATE
from eventsim.network import Network
from eventsim.trace import Counters, Events, Hook

Float = NDArray[np.float64]

#: Steps that `Simulator.run` leaves to the kernel before it calls the hooks.
CHUNK = 1024


@dataclass(frozen=True, eq=False)
class SimulatorState:
    """Snapshot of a simulator between two steps; only its own kind of network takes it back."""

    arrays: tuple[NDArray[np.generic], ...]

    @property
    def step(self) -> int:
        """Steps since the last reset."""
        return int(self.arrays[-1][0])


class Simulator:
    """Simulate a network step by step, doing work only for what changed.

    Parameters
    ----------
    network : Network
    hooks : sequence of Hook, optional
        Each sees every step's counters, and its events if it asks for them.
    engine : str, optional
        ``"auto"`` or ``"reference"``, the readable priority-queue engine.
    dt : float, optional
        Simulated seconds a step, > 0.

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

    def __init__(
        self,
        network: Network,
        hooks: Sequence[Hook] = (),
        *,
        engine: str = "auto",
        dt: float = 1.0,
    ) -> None:
        if engine not in ("auto", "reference"):
            raise UnknownNameError(f"engine {engine!r} is not known; use 'auto' or 'reference'")
        if not (np.isfinite(dt) and dt > 0.0):
            raise InputError(f"dt is {dt}; give the seconds of a step, > 0")
        self.network = network
        self.hooks = tuple(hooks)
        self.engine = "reference"
        self.dt = float(dt)
        self.arrays: Arrays = compile(network)
        self._names = tuple(p.name for p in network.populations)
        self._n_inputs = self.arrays.input_neuron.size
        self._state = _new_state(self.arrays)
        self._record = any(hook.records_events for hook in self.hooks)
        n = self.arrays.order.size
        capacity = max(4 * n, 4096) if self._record else 0
        self._event_step = np.zeros(capacity, np.int64)
        self._event_neuron = np.zeros(capacity, np.int64)
        self._event_value = np.zeros(capacity, np.float64)
        self._n_events = np.zeros(1, np.int64)
        self._last = np.zeros((len(self._names), N_COUNTERS), np.int64)
        self._totals = np.zeros_like(self._last)
        for hook in self.hooks:
            hook.on_attach(self)
        self.reset()

    def reset(self) -> None:
        """Start afresh: u at the bias, s at 0, empty delay lines, every neuron pending."""
        _reset(self.arrays, self._state)
        self._last[:] = 0
        self._totals[:] = 0
        for hook in self.hooks:
            hook.on_reset()

    def step(self, inputs: ArrayLike) -> Float:
        """Advance by one step.

        Parameters
        ----------
        inputs : array of shape (n_inputs,)
            Values of the input populations, concatenated in network order.

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
        x = np.asarray(inputs, np.float64)
        if x.shape != (self._n_inputs,):
            raise InputError(f"inputs have shape {x.shape}, expected ({self._n_inputs},)")
        return np.asarray(self._advance(x[np.newaxis])[0])

    def run(self, inputs: ArrayLike) -> Float:
        """Advance by T steps.

        Parameters
        ----------
        inputs : array of shape (T, n_inputs)

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
        x = np.asarray(inputs, np.float64)
        if x.ndim != 2 or x.shape[1] != self._n_inputs:
            raise InputError(f"inputs have shape {x.shape}, expected (steps, {self._n_inputs})")
        outputs = [self._advance(x[k : k + CHUNK]) for k in range(0, x.shape[0], CHUNK)]
        return np.concatenate(outputs) if outputs else np.zeros((0, self.network.n_outputs))

    def peek(self) -> float:
        """Seconds since the reset at which the next pending event is due; inf if there is none."""
        return float(delta.next_time(self.arrays, self._state)) * self.dt

    @property
    def step_index(self) -> int:
        """Steps since the last reset."""
        return int(self._state.step[0])

    @property
    def counters(self) -> Counters:
        """Counters of the last step; zeros after a reset."""
        return Counters(self._names, self._last.copy(), self._n_inputs if self.step_index else 0)

    @property
    def totals(self) -> Counters:
        """Counters summed since the last reset."""
        return Counters(self._names, self._totals.copy(), self._n_inputs * self.step_index)

    def get_state(self) -> SimulatorState:
        """Return a copy of the state."""
        return SimulatorState(tuple(array.copy() for array in self._state))

    def set_state(self, state: SimulatorState) -> None:
        """Continue from a copy of `state`.

        Raises
        ------
        InputError
            If the state is that of another network.
        """
        if [a.shape for a in state.arrays] != [a.shape for a in self._state]:
            raise InputError("the state belongs to another network; use one of this simulator's")
        for mine, other in zip(self._state, state.arrays, strict=True):
            mine[...] = other

    def _advance(self, x: Float) -> Float:
        """Advance by the rows of x and tell the hooks."""
        n_steps = x.shape[0]
        x = np.ascontiguousarray(x)
        outputs = np.empty((n_steps, self.arrays.output_neuron.size))
        tables = np.zeros((n_steps, len(self._names), N_COUNTERS), np.int64)
        done = 0
        while done < n_steps:
            first_step = self.step_index
            self._n_events[0] = 0
            status, count, detail = delta.run(
                self.arrays,
                self._state,
                x[done:],
                outputs[done:],
                tables[done:],
                self._event_step,
                self._event_neuron,
                self._event_value,
                self._n_events,
            )
            self._report(first_step, tables[done : done + count])
            if status == NONFINITE_INPUT:
                raise InputError(
                    f"input {detail} of step {first_step + count} is {x[done + count, detail]}; "
                    "give finite observations"
                )
            if status == NONFINITE_STATE:
                raise SimulationError(self._overflow(detail, first_step + count))
            done += count
            if status == BUFFER_FULL and count == 0:
                raise SimulationError("the event buffer is smaller than a step's events")
        return outputs

    def _report(self, first_step: int, tables: NDArray[np.int64]) -> None:
        if self._record:
            events = self._drain()
            for hook in self.hooks:
                if hook.records_events:
                    hook.on_events(events)
        if tables.shape[0]:
            self._last[:] = tables[-1]
            self._totals += tables.sum(axis=0)
        if self.hooks:
            for k, table in enumerate(tables):
                counters = Counters(self._names, table, self._n_inputs)
                for hook in self.hooks:
                    hook.on_step(first_step + k, counters)

    def _drain(self) -> Events:
        n = int(self._n_events[0])
        step = self._event_step[:n].copy()
        neuron = self._event_neuron[:n]
        population = self.arrays.neuron_pop[neuron]
        return Events(
            step=step,
            time=step.astype(np.float64) * self.dt,
            population=population,
            neuron=neuron - self.arrays.pop_start[population],
            value=self._event_value[:n].copy(),
        )

    def _overflow(self, neuron: int, step: int) -> str:
        population = int(self.arrays.neuron_pop[neuron])
        local = neuron - int(self.arrays.pop_start[population])
        return (
            f"neuron {local} of population '{self._names[population]}' is no longer finite at "
            f"step {step}; scale the inputs or weights down, then reset"
        )


def _new_state(net: Arrays) -> delta.State:
    n = net.order.size
    return delta.State(
        u=np.zeros(net.initial.size),
        s=np.zeros(n),
        a=np.zeros(n),
        heap_time=np.zeros(n),
        heap_neuron=np.zeros(n, np.int64),
        heap_place=np.zeros(n, np.int64),
        heap_size=np.zeros(1, np.int64),
        line_neuron=np.zeros(int(net.line_start[-1]), np.int64),
        line_value=np.zeros(int(net.line_start[-1])),
        line_count=np.zeros(int(net.line_slot[-1]), np.int64),
        step=np.zeros(1, np.int64),
    )


def _reset(net: Arrays, state: delta.State) -> None:
    state.u[:] = net.initial
    state.s[:] = 0.0
    state.a[:] = 0.0
    # Neurons by (rank, id) at time 0 are a heap already.
    state.heap_time[:] = 0.0
    state.heap_neuron[net.order] = np.arange(net.order.size)
    state.heap_place[:] = net.order
    state.heap_size[0] = net.order.size
    state.line_count[:] = 0
    state.step[0] = 0
