"""A user's function, compiled by Numba, called for every event."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import InputError
from eventsim.trace import Events, Hook


class EventFunction(Hook):
    """Call a compiled function for every event, in the order in which the events were emitted.

    The loop over the events is compiled together with the function, so that a call costs what
    the function itself does. Without the hook, nothing is recorded and nothing is called.

    Parameters
    ----------
    function : callable
        ``function(step, time, population, neuron, value, state)``: int, float, int, int, float
        and the array below, which it may change; what it returns is ignored. A plain function is
        compiled by ``numba.njit``; one that is compiled already is taken as it is.
    state : array
        Handed to every call; the function's only memory.

    Attributes
    ----------
    state : array

    Raises
    ------
    InputError
        If Numba cannot compile the function; said when the hook is made.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network, Simulator
    >>> from eventsim.event_function import EventFunction
    >>> def sum_of_changes(step, time, population, neuron, value, state):
    ...     state[population] += abs(value)
    >>> hook = EventFunction(sum_of_changes, np.zeros(2))
    >>> simulator = Simulator(Network.from_arrays([np.ones((3, 2))]), hooks=[hook])
    >>> _ = simulator.run(np.array([[1.0, 2.0], [1.0, 3.0]]))
    >>> hook.state
    array([4., 0.])
    """

    records_events: ClassVar[bool] = True

    def __init__(self, function: Callable[..., Any], state: NDArray[Any]) -> None:
        import numba
        from numba.core.errors import NumbaError

        if not isinstance(state, np.ndarray):
            raise InputError(f"is a {type(state).__name__}; give a NumPy array", field="state")
        self.state = state
        name = getattr(function, "__name__", "the function")
        compiled = function if hasattr(function, "py_func") else numba.njit(function)
        self._loop = _loop()
        self._function = compiled
        none = Events(*(np.zeros(0, t) for t in (np.int64, float, np.int64, np.int64, float)))
        try:
            self.on_events(none)
        except NumbaError as error:
            first = str(error).strip().splitlines()
            raise InputError(
                f"{name} cannot be compiled by Numba ({first[0] if first else 'no reason given'}); "
                "it takes (step, time, population, neuron, value, state) and uses what Numba knows",
                field="function",
            ) from error

    def on_events(self, events: Events) -> None:
        """Call the function for each of the events."""
        self._loop(
            self._function,
            events.step,
            events.time,
            events.population,
            events.neuron,
            events.value,
            self.state,
        )


@functools.cache
def _loop() -> Callable[..., None]:
    """Return the compiled loop; made at the first use, since importing Numba takes its time."""
    import numba

    @numba.njit
    def loop(
        function: Any,
        step: NDArray[np.int64],
        time: NDArray[np.float64],
        population: NDArray[np.int64],
        neuron: NDArray[np.int64],
        value: NDArray[np.float64],
        state: NDArray[Any],
    ) -> None:
        for k in range(step.size):
            function(step[k], time[k], population[k], neuron[k], value[k], state)

    compiled: Callable[..., None] = loop
    return compiled
