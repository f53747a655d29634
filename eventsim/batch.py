"""Many independent copies of one network: batched environments, and sequences over threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.engines import (
    LevelEngine,
    batch_kernel,
    form_of,
    level_state,
    restore_level_state,
)
from eventsim.errors import InputError, SimulationError, UnsupportedError
from eventsim.kernels import fields
from eventsim.kernels.status import N_COUNTERS, NONFINITE_STATE
from eventsim.network import Network
from eventsim.plan import compile_plan, supported
from eventsim.simulator import SimulatorState
from eventsim.trace import Counters

Int = NDArray[np.int64]
Float = NDArray[np.float64]


class BatchSimulator:
    """Simulate B independent copies of a network: one call a step, one state each.

    Each copy gives the outputs, counters and events that a `Simulator` of its own would give, bit
    for bit.

    Parameters
    ----------
    network : Network
        Of input and delta populations.
    batch : int
        Number of copies B, >= 1.
    threads : int, optional
        Threads over which `run` spreads the copies, >= 1; a step is too short to spread.

    Raises
    ------
    InputError
        If `batch` or `threads` is below 1.
    UnsupportedError
        If the network has populations of other kinds.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network
    >>> from eventsim.batch import BatchSimulator
    >>> simulator = BatchSimulator(Network.from_arrays([np.array([[1.0, -2.0]])]), 2)
    >>> simulator.step([[3.0, 1.0], [0.0, 1.0]])
    array([[ 1.],
           [-2.]])
    >>> simulator.run(np.ones((2, 3, 2))).shape
    (2, 3, 1)
    """

    def __init__(self, network: Network, batch: int, *, threads: int = 1) -> None:
        for name, value in (("batch", batch), ("threads", threads)):
            if value < 1:
                raise InputError(f"{name} is {value}; give at least 1")
        obstacle = supported(network)
        if obstacle:
            raise UnsupportedError(f"{obstacle}, which cannot be batched; use a Simulator each")
        self.network = network
        self.batch = int(batch)
        self.threads = int(threads)
        self.engine = LevelEngine.name
        self._compiled = compile_plan(network)
        self._plan = self._compiled.buffer
        self._states = self._compiled.new_states(self.batch)
        self._kernel = batch_kernel()
        self._form = form_of(network)
        self._names = tuple(p.name for p in network.populations)
        self._n_inputs, self._n_outputs = network.n_inputs, network.n_outputs
        self.reset()

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "_kernel"}

    def __setstate__(self, attributes: dict[str, object]) -> None:
        self.__dict__.update(attributes)
        self._kernel = batch_kernel()

    def reset(self, which: ArrayLike | None = None) -> None:
        """Start copies afresh.

        Parameters
        ----------
        which : bool array of shape (B,) or array of int, optional
            The copies, such as the environments whose episode has ended; default all.
        """
        chosen = np.arange(self.batch)
        for b in chosen if which is None else chosen[np.asarray(which)]:
            self._compiled.reset(self._states[b])

    def step(self, inputs: ArrayLike) -> Float:
        """Advance every copy by one step.

        Parameters
        ----------
        inputs : array of shape (B, n_inputs)

        Returns
        -------
        float64 array of shape (B, n_outputs)

        Raises
        ------
        InputError
            If the inputs have another shape or are not finite; no copy has been touched.
        SimulationError
            If a neuron's state overflowed; reset that copy before going on.
        """
        x = self._checked(inputs, (self.batch, self._n_inputs))
        outputs = np.empty((self.batch, self._n_outputs))
        failed = self._kernel(x, outputs, self._plan, self._states)
        if failed >= 0:
            raise SimulationError(self._message(failed))
        return outputs

    def run(self, inputs: ArrayLike) -> Float:
        """Advance every copy by T steps, over `threads` threads.

        Parameters
        ----------
        inputs : array of shape (B, T, n_inputs)

        Returns
        -------
        float64 array of shape (B, T, n_outputs)

        Raises
        ------
        InputError, SimulationError
            As in `step`.
        """
        x = np.asarray(inputs, np.float64)
        n_steps = x.shape[1] if x.ndim == 3 else 0
        x = self._checked(x, (self.batch, n_steps, self._n_inputs)).reshape(self.batch, -1)
        outputs = np.empty((self.batch, n_steps * self._n_outputs))
        share = -(-self.batch // self.threads)
        parts = [slice(b, b + share) for b in range(0, self.batch, share)]

        def advance(part: slice) -> int:
            failed = self._kernel(x[part], outputs[part], self._plan, self._states[part])
            return failed + part.start if failed >= 0 else -1

        if len(parts) == 1:
            failures: Sequence[int] = [advance(parts[0])]
        else:
            with ThreadPoolExecutor(len(parts)) as pool:
                failures = list(pool.map(advance, parts))
        failed = [b for b in failures if b >= 0]
        if failed:
            raise SimulationError(self._message(min(failed)))
        return outputs.reshape(self.batch, n_steps, self._n_outputs)

    @property
    def step_index(self) -> Int:
        """Steps of each copy since its last reset, shape (B,)."""
        return self._states[:, fields.STEP].copy()

    @property
    def counters(self) -> Counters:
        """Counters of the last step, summed over the copies."""
        started = int(np.count_nonzero(self.step_index))
        return Counters(
            self._names, self._tables(fields.TABLES).sum(axis=0), self._n_inputs * started
        )

    @property
    def totals(self) -> Counters:
        """Counters since each copy's last reset, summed over the copies."""
        return Counters(
            self._names,
            self._tables(fields.TOTALS).sum(axis=0),
            self._n_inputs * int(self.step_index.sum()),
        )

    @property
    def tables(self) -> Int:
        """Counters of the last step of each copy, (B, P, 5); columns as in `Counters.table`."""
        return self._tables(fields.TABLES).copy()

    def get_state(self, copy: int) -> SimulatorState:
        """Return the state of one copy; a `Simulator` with engine ``"levels"`` takes it too."""
        kept = self._states[copy, : self._plan[fields.KEPT]]
        return SimulatorState(level_state(kept, self._form))

    def set_state(self, copy: int, state: SimulatorState) -> None:
        """Let one copy continue from a state; InputError if it is another network's."""
        kept = self._states[copy, : self._plan[fields.KEPT]]
        restore_level_state(kept, state.arrays, self._form)

    def _tables(self, place: int) -> Int:
        first, n = int(self._plan[place]), len(self._names) * N_COUNTERS
        return self._states[:, first : first + n].reshape(self.batch, -1, N_COUNTERS)

    def _checked(self, inputs: ArrayLike, shape: tuple[int, ...]) -> Float:
        x = np.ascontiguousarray(inputs, np.float64)
        if x.shape != shape:
            known = ("batch", "steps", "inputs")[:: 2 if len(shape) == 2 else 1]
            raise InputError(
                f"inputs have shape {x.shape}, expected {shape} = ({', '.join(known)})"
            )
        if not np.isfinite(x).all():
            b = int(np.argwhere(~np.isfinite(x))[0][0])
            raise InputError(f"inputs of copy {b} hold NaN or infinity; give finite observations")
        return x

    def _message(self, copy: int) -> str:
        state = self._states[copy]
        if state[fields.STATUS] != NONFINITE_STATE:
            return f"copy {copy} failed with status {state[fields.STATUS]}"
        neuron = int(state[fields.DETAIL])
        for population in self.network.populations:
            if neuron < population.size:
                break
            neuron -= population.size
        return (
            f"neuron {neuron} of population '{population.name}' of copy {copy} is no longer finite "
            f"at step {state[fields.STEP]}; scale the inputs or weights down, then reset"
        )
