"""What a run leaves behind: counters per step and population, event records, hooks.

Counters are always on. Everything else is a `Hook` given to the simulator when it is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from eventsim.kernels.status import ACS, EVALUATIONS, EVENTS, EXECUTED, MACS

if TYPE_CHECKING:
    from eventsim.simulator import Simulator

Int = NDArray[np.int64]
Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counters:
    """Counts of one step, or sums over steps.

    A population's ``macs`` and ``acs`` are those of its incoming synapses; ``events`` and
    ``evaluations`` are its own.

    Parameters
    ----------
    populations : tuple of str
        P names, in network order.
    table : int64 array of shape (P, 5)
    input_comparisons : int
        Input values compared with their predecessors.
    """

    populations: tuple[str, ...]
    table: Int
    input_comparisons: int

    @property
    def evaluations(self) -> Int:
        """Neurons evaluated, shape (P,)."""
        return self.table[:, EVALUATIONS]

    @property
    def events(self) -> Int:
        """Events emitted, shape (P,)."""
        return self.table[:, EVENTS]

    @property
    def macs(self) -> Int:
        """Synaptic operations of graded events on incoming synapses, shape (P,)."""
        return self.table[:, MACS]

    @property
    def acs(self) -> Int:
        """Synaptic operations of binary events on incoming synapses, shape (P,)."""
        return self.table[:, ACS]

    @property
    def executed_macs(self) -> Int:
        """What the host multiplied or added for incoming synapses, shape (P,)."""
        return self.table[:, EXECUTED]

    @property
    def synops(self) -> int:
        """MACs and ACs over all populations."""
        return int(self.macs.sum() + self.acs.sum())

    def __repr__(self) -> str:
        rows = ", ".join(
            f"{name}: {int(e)} events, {int(m + a)} synops"
            for name, e, m, a in zip(
                self.populations, self.events, self.macs, self.acs, strict=True
            )
        )
        return f"Counters({rows})"


@dataclass(frozen=True, eq=False)
class Events:
    """Event records, in the order in which they were emitted; all arrays have one length.

    Parameters
    ----------
    step : int64 array
        Steps since the last reset.
    time : float64 array
        Seconds since the last reset.
    population : int64 array
        Index into ``network.populations``.
    neuron : int64 array
        Index inside its population.
    value : float64 array
        Transmitted delta.
    """

    step: Int
    time: Float
    population: Int
    neuron: Int
    value: Float

    def __len__(self) -> int:
        return int(self.step.size)


class DrainedEvents(Events):
    """Events as an engine recorded them: the other columns are worked out when they are asked for.

    Recording is paid for in every step, and most of it is memory.

    Parameters
    ----------
    step, value
        As in `Events`.
    identity : int64 array
        Number of the neuron in the network.
    first : int64 array of shape (P,)
        Number of each population's first neuron.
    population_of : int64 array of shape (n_neurons,)
    dt : float
        Seconds a step.
    """

    def __init__(
        self, step: Int, identity: Int, value: Float, first: Int, population_of: Int, dt: float
    ) -> None:
        fixed = {"step": step, "value": value, "_identity": identity, "_first": first}
        self.__dict__.update(fixed, _population_of=population_of, _dt=dt)

    @property
    def time(self) -> Float:
        """Seconds since the last reset."""
        return self.step.astype(np.float64) * float(self.__dict__["_dt"])

    @property
    def population(self) -> Int:
        """Index into ``network.populations``."""
        found: Int = self.__dict__["_population_of"][self.__dict__["_identity"]]
        return found

    @property
    def neuron(self) -> Int:
        """Index inside its population."""
        found: Int = self.__dict__["_identity"] - self.__dict__["_first"][self.population]
        return found


class Hook:
    """Base of the hooks: override what you need.

    A hook sees every step after it happened. In `Simulator.run`, steps come in chunks: first the
    chunk's events, then `on_step` for each of its steps.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Hook, Network, Simulator
    >>> class Busiest(Hook):
    ...     most = 0
    ...     def on_step(self, step, counters):
    ...         self.most = max(self.most, counters.synops)
    >>> hook = Busiest()
    >>> simulator = Simulator(Network.from_arrays([np.ones((3, 2))]), hooks=[hook])
    >>> _ = simulator.run(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]]))
    >>> hook.most
    6
    """

    #: Set to True to get `on_events`; recording costs time only then.
    records_events: ClassVar[bool] = False

    def on_attach(self, simulator: Simulator) -> None:
        """Run once, when the simulator is built."""

    def on_reset(self) -> None:
        """Run at every reset, the one at construction included."""

    def on_step(self, step: int, counters: Counters) -> None:
        """Run after every step; `step` counts from 0 since the last reset."""

    def on_events(self, events: Events) -> None:
        """Run with the events of one or several steps, in order."""


class CounterRecorder(Hook):
    """Keep every step's counters."""

    def __init__(self) -> None:
        self.episode = -1
        self._tables: list[Int] = []
        self._episodes: list[int] = []
        self._steps: list[int] = []

    def on_reset(self) -> None:
        """Begin a new episode."""
        self.episode += 1

    def on_step(self, step: int, counters: Counters) -> None:
        """Keep a copy of the step's table."""
        self._tables.append(counters.table.copy())
        self._episodes.append(self.episode)
        self._steps.append(step)

    @property
    def table(self) -> Int:
        """All counters, int64 of shape (steps, P, 5); columns as in `eventsim.kernels.status`."""
        return np.stack(self._tables) if self._tables else np.zeros((0, 0, 5), np.int64)

    @property
    def episodes(self) -> Int:
        """Episode of each step, shape (steps,): resets seen before it, less one."""
        return np.array(self._episodes, np.int64)

    @property
    def steps(self) -> Int:
        """Step inside its episode, shape (steps,)."""
        return np.array(self._steps, np.int64)


class EventRecorder(Hook):
    """Keep every event in memory.

    Attributes
    ----------
    episode : int
        Resets seen, less one: the episode to which new events belong.
    """

    records_events: ClassVar[bool] = True

    def __init__(self) -> None:
        self.episode = -1
        self._chunks: list[tuple[int, Events]] = []

    def on_reset(self) -> None:
        """Begin a new episode."""
        self.episode += 1

    def on_events(self, events: Events) -> None:
        """Keep the events."""
        if len(events):
            self._chunks.append((self.episode, events))

    def __len__(self) -> int:
        return sum(len(events) for _, events in self._chunks)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return ``episode``, ``step``, ``time``, ``population``, ``neuron`` and ``value``."""
        chunks = self._chunks
        episode = [np.full(len(events), number, np.int64) for number, events in chunks]
        arrays: dict[str, NDArray[Any]] = {
            "episode": np.concatenate(episode) if chunks else np.zeros(0, np.int64)
        }
        for name in ("step", "time", "population", "neuron", "value"):
            dtype = np.float64 if name in ("time", "value") else np.int64
            parts = [getattr(events, name) for _, events in chunks]
            arrays[name] = np.concatenate(parts) if parts else np.zeros(0, dtype)
        return arrays


class EnergyModel(Protocol):
    """What `EnergyHook` needs of a hardware profile."""

    def joules(
        self,
        evaluations: Int,
        events: Int,
        macs: Int,
        acs: Int,
        sizes: Int,
        is_input: NDArray[np.bool_],
    ) -> Float:
        """Dynamic joules, in the shape of the counts."""
        ...


class EnergyHook(Hook):
    """Estimate the dynamic joules of every step and population on one device.

    Parameters
    ----------
    profile : EnergyModel
        Such as ``eventsim.load_profile("loihi")``.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import EnergyHook, Network, Simulator, load_profile
    >>> hook = EnergyHook(load_profile("cmos45-fp32"))
    >>> simulator = Simulator(Network.from_arrays([np.ones((3, 2))]), hooks=[hook])
    >>> _ = simulator.run(np.array([[1.0, 2.0], [1.0, 3.0]]))
    >>> hook.joules.shape
    (2, 2)
    """

    def __init__(self, profile: EnergyModel) -> None:
        self.profile = profile
        self._joules: list[Float] = []
        self._sizes = np.zeros(0, np.int64)
        self._is_input = np.zeros(0, np.bool_)

    def on_attach(self, simulator: Simulator) -> None:
        """Learn the population sizes."""
        populations = simulator.network.populations
        self._sizes = np.array([p.size for p in populations], np.int64)
        self._is_input = np.array([p.is_input for p in populations], np.bool_)

    def on_step(self, step: int, counters: Counters) -> None:
        """Price the step's counters."""
        self._joules.append(
            self.profile.joules(
                counters.evaluations,
                counters.events,
                counters.macs,
                counters.acs,
                self._sizes,
                self._is_input,
            )
        )

    @property
    def joules(self) -> Float:
        """Dynamic joules, shape (steps, P)."""
        return np.stack(self._joules) if self._joules else np.zeros((0, self._sizes.size))
