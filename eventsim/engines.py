"""The engines that `Simulator` can pick from, behind one contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numba import types
from numpy.typing import NDArray

from eventsim.compile import Arrays, compile
from eventsim.connectivity import Connectivity, Sparse
from eventsim.convolution import Convolution
from eventsim.errors import InputError, UnknownNameError, UnsupportedError
from eventsim.kernels import delta, fields, levels
from eventsim.kernels.status import N_COUNTERS, OK, WRONG_SIZE
from eventsim.network import Network
from eventsim.plan import Plan, compile_plan, supported

Int = NDArray[np.int64]
Float = NDArray[np.float64]
Kernel = Callable[[Float, Float, Int, Int], int]

AUTO = "auto"

#: Steps that the reference engine leaves to its kernel at once.
_CHUNK = 256


class Engine(ABC):
    """What a simulator asks of an engine; arrays it hands out are views unless it says so.

    Attributes
    ----------
    name : str
    kernel : callable
        ``kernel(inputs, outputs, plan, state) -> status`` advances by T steps, inputs of shape
        (T * n_inputs,) and outputs of shape (T * n_outputs,), float64 and C-contiguous; inputs of
        another size give the status WRONG_SIZE. Status codes stand in `eventsim.kernels.status`;
        `done` and `detail` tell more. A step refused
        for its inputs changes nothing.
    plan, state : arrays that the kernel gets

    Parameters
    ----------
    network : Network
    n_tables : int
        Steps of one call whose counters `tables` can give.
    record : bool
        Whether to record events.
    wide : bool
        Whether to store weights as float64 even if they are float32 numbers.
    """

    name: ClassVar[str] = ""
    kernel: Kernel
    plan: Int
    state: Int

    @abstractmethod
    def __init__(
        self, network: Network, *, n_tables: int = 1, record: bool = False, wide: bool = False
    ) -> None: ...

    def byte_kernel(self) -> Kernel | None:
        """Return a kernel as `kernel` whose inputs are uint8; None if there is none."""
        return None

    @abstractmethod
    def reset(self) -> None:
        """Start afresh: u at the bias, s at 0, every neuron pending, nothing delayed or counted."""

    @property
    @abstractmethod
    def step_index(self) -> int:
        """Steps since the last reset."""

    @property
    @abstractmethod
    def done(self) -> int:
        """Steps done by the last call."""

    @property
    @abstractmethod
    def detail(self) -> int:
        """What the last call's status is about: an input or a neuron."""

    @abstractmethod
    def tables(self, n_steps: int) -> Int:
        """Counters of the last call's first `n_steps` steps, shape (n_steps, P, N_COUNTERS)."""

    @property
    @abstractmethod
    def last(self) -> Int:
        """Copy of the counters of the last step, shape (P, N_COUNTERS)."""

    @property
    @abstractmethod
    def totals(self) -> Int:
        """Copy of the counters since the reset, shape (P, N_COUNTERS)."""

    @abstractmethod
    def events(self) -> tuple[Int, Int, Float]:
        """Take the recorded events: step, neuron id and value, copied."""

    @abstractmethod
    def next_time(self) -> float:
        """Step of the next pending event; inf if there is none."""

    @abstractmethod
    def get_state(self) -> tuple[NDArray[Any], ...]:
        """Copy the state; the last array holds the step."""

    @abstractmethod
    def set_state(self, arrays: tuple[NDArray[Any], ...]) -> None:
        """Continue from a copy; InputError if it is the state of another network."""


class ReferenceEngine(Engine):
    """The readable priority-queue loop of `eventsim.kernels.delta`."""

    name = "reference"

    def __init__(
        self, network: Network, *, n_tables: int = 1, record: bool = False, wide: bool = True
    ) -> None:
        self.arrays: Arrays = compile(network)
        n, n_populations = self.arrays.order.size, len(network.populations)
        self._state = _new_state(self.arrays)
        self._form = form_of(network)
        self._tables = np.zeros((max(n_tables, _CHUNK), n_populations, N_COUNTERS), np.int64)
        self._last = np.zeros((n_populations, N_COUNTERS), np.int64)
        self._totals = np.zeros_like(self._last)
        capacity = max(4 * n, 4096) if record else 0
        self._event_step = np.zeros(capacity, np.int64)
        self._event_neuron = np.zeros(capacity, np.int64)
        self._event_value = np.zeros(capacity)
        self._n_events = np.zeros(1, np.int64)
        self._done = self._detail = 0
        self.plan = self.state = np.zeros(0, np.int64)

    def kernel(self, inputs: Float, outputs: Float, plan: Int, state: Int) -> int:
        """Advance; in chunks of the tables that are kept."""
        net = self.arrays
        if inputs.size * net.output_neuron.size != outputs.size * net.input_neuron.size:
            return WRONG_SIZE
        x = np.ascontiguousarray(inputs).reshape(-1, net.input_neuron.size)
        y = outputs.reshape(-1, net.output_neuron.size)
        chunk = len(self._tables)
        self._done = 0
        while self._done < len(x):
            here = slice(self._done, self._done + chunk)
            self._tables[: len(x[here])] = 0
            status, done, self._detail = delta.run(
                net,
                self._state,
                x[here],
                y[here],
                self._tables,
                self._event_step,
                self._event_neuron,
                self._event_value,
                self._n_events,
            )
            self._done += done
            if done:
                self._last[:] = self._tables[done - 1]
                self._totals += self._tables[:done].sum(axis=0)
            if status != OK:
                return int(status)
        return OK

    def reset(self) -> None:
        _reset(self.arrays, self._state)
        self._last[:] = 0
        self._totals[:] = 0
        self._n_events[0] = 0

    @property
    def step_index(self) -> int:
        return int(self._state.step[0])

    @property
    def done(self) -> int:
        return self._done

    @property
    def detail(self) -> int:
        return self._detail

    def tables(self, n_steps: int) -> Int:
        return self._tables[:n_steps]

    @property
    def last(self) -> Int:
        return self._last.copy()

    @property
    def totals(self) -> Int:
        return self._totals.copy()

    def events(self) -> tuple[Int, Int, Float]:
        n = int(self._n_events[0])
        self._n_events[0] = 0
        return (
            self._event_step[:n].copy(),
            self._event_neuron[:n].copy(),
            self._event_value[:n].copy(),
        )

    def next_time(self) -> float:
        return float(delta.next_time(self.arrays, self._state))

    def get_state(self) -> tuple[NDArray[Any], ...]:
        return (self._form, *(array.copy() for array in self._state))

    def set_state(self, arrays: tuple[NDArray[Any], ...]) -> None:
        _same_form(arrays, (self._form, *self._state))
        for mine, other in zip(self._state, arrays[1:], strict=True):
            mine[...] = other


class LevelEngine(Engine):
    """The level-ordered engine of `eventsim.kernels.levels`."""

    name = "levels"

    def __init__(
        self,
        network: Network,
        *,
        n_tables: int = 1,
        record: bool = False,
        wide: bool = False,
    ) -> None:
        self.compiled: Plan = compile_plan(network, n_tables=n_tables, log=record, wide=wide)
        self.plan = self.compiled.buffer
        self.state = self.compiled.new_state()
        self.kernel = level_kernel()
        self._n_populations = len(network.populations)
        self._form = form_of(network)

    def byte_kernel(self) -> Kernel:
        array, values = types.Array(types.int64, 1, "C"), types.Array(types.float64, 1, "C")
        return _entry(levels.advance, types.Array(types.uint8, 1, "C"), values, array, array)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "kernel"}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self.kernel = level_kernel()

    def reset(self) -> None:
        self.compiled.reset(self.state)

    @property
    def step_index(self) -> int:
        return int(self.state[fields.STEP])

    @property
    def done(self) -> int:
        return int(self.state[fields.DONE])

    @property
    def detail(self) -> int:
        return int(self.state[fields.DETAIL])

    def tables(self, n_steps: int) -> Int:
        return self._counters(fields.TABLES, n_steps)

    @property
    def last(self) -> Int:
        first, n = int(self.state[fields.LAST]), self._n_populations * N_COUNTERS
        if first == 0:
            return np.zeros((self._n_populations, N_COUNTERS), np.int64)
        counters: Int = self.state[first : first + n]
        return counters.reshape(-1, N_COUNTERS).copy()

    @property
    def totals(self) -> Int:
        totals: Int = self._counters(fields.TOTALS, 1)[0]
        return totals.copy()

    def events(self) -> tuple[Int, Int, Float]:
        n = int(self.state[fields.N_LOGGED])
        self.state[fields.N_LOGGED] = 0
        first = [int(self.plan[k]) for k in (fields.LOG_STEP, fields.LOG_NEURON, fields.LOG_VALUE)]
        step, neuron, value = (self.state[k : k + n].copy() for k in first)
        return step, neuron, value.view(np.float64)

    def next_time(self) -> float:
        return self.compiled.next_time(self.state)

    def get_state(self) -> tuple[NDArray[Any], ...]:
        return level_state(self.state[: self.plan[fields.KEPT]], self._form)

    def set_state(self, arrays: tuple[NDArray[Any], ...]) -> None:
        restore_level_state(self.state[: self.plan[fields.KEPT]], arrays, self._form)

    def _counters(self, place: int, n_steps: int) -> Int:
        first, n = int(self.plan[place]), n_steps * self._n_populations * N_COUNTERS
        counters: Int = self.state[first : first + n]
        return counters.reshape(n_steps, self._n_populations, N_COUNTERS)


ENGINES: dict[str, type[Engine]] = {cls.name: cls for cls in (ReferenceEngine, LevelEngine)}


def choose(network: Network, wanted: str = AUTO) -> tuple[type[Engine], str]:
    """Pick the engine for a network.

    Parameters
    ----------
    network : Network
    wanted : str
        ``"auto"`` or an engine's name.

    Returns
    -------
    engine class, and why it was picked in one sentence

    Raises
    ------
    UnknownNameError
        If there is no such engine.
    UnsupportedError
        If the engine wanted cannot run the network.
    """
    if any(p.neuron.scheduling == "every step" for p in network.populations):
        return _clocked(network, wanted)
    if wanted not in (AUTO, *ENGINES):
        known = " or ".join(repr(name) for name in (AUTO, *ENGINES))
        raise UnknownNameError(f"engine {wanted!r} is not known; use {known}")
    obstacle = supported(network)
    if wanted == LevelEngine.name and obstacle:
        raise UnsupportedError(f"{obstacle}, which engine 'levels' does not run; use 'auto'")
    if wanted != AUTO:
        return ENGINES[wanted], "it was asked for"
    if obstacle:
        return ReferenceEngine, f"it runs every network; 'levels' does not: {obstacle}"
    return LevelEngine, "it is the fastest that runs input and delta populations"


def _clocked(network: Network, wanted: str) -> tuple[type[Engine], str]:
    """Pick the engine of neurons that are updated at every step."""
    from eventsim.clocked import ClockedEngine, clocked_obstacle

    if wanted not in (AUTO, ClockedEngine.name):
        raise UnsupportedError(
            f"engine {wanted!r} does not run neurons that are updated at every step; use 'auto'"
        )
    obstacle = clocked_obstacle(network)
    if obstacle:
        raise UnsupportedError(
            f"{obstacle}, which engine 'clocked' does not run beside clocked ones; use inputs and "
            "clocked neurons only"
        )
    return ClockedEngine, "it runs neurons that are updated at every step"


def rounded(network: Network) -> Network:
    """Return the network with its weights rounded to float32.

    Raises
    ------
    NetworkError
        If a weight is beyond the range of float32.
    """

    def float32(weights: Connectivity) -> Any:
        with np.errstate(over="ignore"):
            if isinstance(weights, Sparse | Convolution):
                return replace(weights, weights=weights.weights.astype(np.float32))
            return weights.to_dense().astype(np.float32)

    return network.with_weights(
        {
            q.name: float32(q.weights)
            for q in network.projections
            if q.weights.trainable and q.weights.dtype != np.float32
        }
    )


def level_kernel() -> Kernel:
    """Return the compiled `levels.advance`."""
    array, values = types.Array(types.int64, 1, "C"), types.Array(types.float64, 1, "C")
    return _entry(levels.advance, values, values, array, array)


def batch_kernel() -> Kernel:
    """Return the compiled `levels.advance_all`."""
    rows, states = types.Array(types.float64, 2, "C"), types.Array(types.int64, 2, "C")
    return _entry(levels.advance_all, rows, rows, types.Array(types.int64, 1, "C"), states)


def _entry(function: Any, *signature: types.Type) -> Kernel:
    """Compile for a signature, and skip Numba's dispatch by argument types: half of a call."""
    if not hasattr(function, "get_overload"):  # NUMBA_DISABLE_JIT=1
        plain: Kernel = function
        return plain
    function.compile(signature)
    entry: Kernel = function.get_overload(signature)
    return entry


def form_of(network: Network) -> Int:
    """Sizes and wiring of a network, to know its states from those of another one."""
    index = {p.name: k for k, p in enumerate(network.populations)}
    wiring = [(index[q.source], index[q.target], q.delay) for q in network.projections]
    return np.array([*(p.size for p in network.populations), *sum(wiring, ())], np.int64)


def level_state(kept: Int, form: Int) -> tuple[NDArray[Any], ...]:
    """Copy what the level-ordered engine keeps from step to step."""
    return form, kept.copy(), kept[fields.STEP : fields.STEP + 1].copy()


def restore_level_state(kept: Int, arrays: tuple[NDArray[Any], ...], form: Int) -> None:
    """Continue from what `level_state` gave; InputError if it is another network's."""
    _same_form(arrays, (form, kept, kept[fields.STEP : fields.STEP + 1]))
    last = kept[fields.LAST]
    kept[:] = arrays[1]
    kept[fields.LAST] = last  # the counters are not part of a state


def _same_form(theirs: tuple[NDArray[Any], ...], mine: tuple[NDArray[Any], ...]) -> None:
    """Compare the states' arrays; the first one is what `form_of` gives."""
    same = [(a.shape, a.dtype) for a in theirs] == [(a.shape, a.dtype) for a in mine]
    if not same or not np.array_equal(theirs[0], mine[0]):
        raise InputError(
            "the state belongs to another network or engine; use one of this simulator's"
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
