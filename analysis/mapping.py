"""Would it fit? Layers laid in order onto the cores of a chip, and the traffic between them."""

from __future__ import annotations

import os
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.analysis.chip import Chip, list_chips, load_chip
from eventsim.analysis.raster_data import check_events
from eventsim.errors import InputError
from eventsim.network import Network

if TYPE_CHECKING:
    from eventsim.trace import Events

Int: TypeAlias = NDArray[np.int64]
Float: TypeAlias = NDArray[np.float64]

#: Where input neurons are: outside of the chip.
OUTSIDE = -1

# Entries of a table of steps and cores that is held at once.
_TABLE = 4_000_000


@dataclass(frozen=True, eq=False)
class Traffic:
    """What the events of a run did to the cores of a mapping.

    Parameters
    ----------
    synops : int64 array of shape (cores,)
        Synaptic operations on each core, over all steps.
    busiest_core : int64 array of shape (steps,)
        The core with most synops in each step; -1 in a step without any.
    busiest_synops : int64 array of shape (steps,)
        Its synops.
    local, crossing, from_outside : int64 array of shape (steps,)
        Deliveries, one for each event and core with a target of it: to the core of the source
        neuron, to another core, and from an input neuron.
    hops : int64 array of shape (steps,), or None
        Tiles that crossing events travel, along rows and then columns; None without a mesh, or
        on several chips.
    """

    synops: Int
    busiest_core: Int
    busiest_synops: Int
    local: Int
    crossing: Int
    from_outside: Int
    hops: Int | None

    @property
    def crossing_share(self) -> float | None:
        """Crossing deliveries over those that begin on the chip; None without any."""
        crossing = int(self.crossing.sum())
        total = crossing + int(self.local.sum())
        return crossing / total if total else None

    @property
    def hops_per_step(self) -> float | None:
        """Mean hops per step, as `eventsim.analysis.energy.estimate` takes them."""
        if self.hops is None or not self.hops.size:
            return None
        return float(self.hops.mean())

    @property
    def balance(self) -> float | None:
        """Synops of the busiest core of each step over those of a mean core, summed; 1 is even."""
        per_step = self.busiest_synops[self.busiest_synops > 0]
        total = int(self.synops.sum())
        if not total:
            return None
        return float(per_step.sum()) * self.synops.size / total


@dataclass(frozen=True, eq=False)
class Mapping:
    """A network on the cores of a chip.

    Parameters
    ----------
    chip : Chip
    names : tuple of str
        Populations.
    sizes : int64 array of shape (P,)
    core : int64 array of shape (neurons,)
        Core of each neuron, in network order; `OUTSIDE` for inputs.
    neurons, memory_bits, fan_in, fan_out : int64 array of shape (cores,)
        What each core holds, as `Chip` defines it.
    weight_bits : int
    problems : tuple of str
        Sentences: limits that are broken; empty if it fits.
    """

    chip: Chip
    names: tuple[str, ...]
    sizes: Int
    core: Int
    neurons: Int
    memory_bits: Int
    fan_in: Int
    fan_out: Int
    weight_bits: int
    problems: tuple[str, ...]
    # Synapses from each neuron (row) onto each core (column), sparse.
    _synapses: Any = field(repr=False)

    @property
    def cores_used(self) -> int:
        """Number of cores that hold a neuron."""
        return int(self.neurons.size)

    @property
    def chips_used(self) -> int:
        """Number of chips, each filled before the next."""
        return -(-self.cores_used // int(self.chip["cores"] or 1))

    @property
    def fits(self) -> bool:
        """Whether one chip holds it and no limit is broken."""
        return not self.problems

    @property
    def utilisation(self) -> dict[str, float | None]:
        """Mean share of each limit that the used cores take; None without a limit."""
        found: dict[str, float | None] = {
            "cores": self.cores_used / int(self.chip["cores"] or 1),
        }
        for name, used in (
            ("neurons", self.neurons),
            ("memory", self.memory_bits),
            ("fan_in", self.fan_in),
            ("fan_out", self.fan_out),
        ):
            limit = self.chip[name]
            found[name] = None if limit is None or not used.size else float(used.mean()) / limit
        return found

    def table(self) -> list[dict[str, Any]]:
        """Return, for each population, its neurons, how many cores hold them, and which."""
        rows = []
        first = np.concatenate([[0], np.cumsum(self.sizes)])
        for k, name in enumerate(self.names):
            cores = np.unique(self.core[first[k] : first[k + 1]])
            cores = cores[cores != OUTSIDE]
            rows.append(
                {
                    "name": name,
                    "neurons": int(self.sizes[k]),
                    "cores": int(cores.size),
                    "first_core": int(cores[0]) if cores.size else None,
                    "last_core": int(cores[-1]) if cores.size else None,
                }
            )
        return rows

    def traffic(
        self,
        events: MappingType[str, ArrayLike] | Events,
        *,
        steps: int | None = None,
        episode_lengths: Sequence[int] | None = None,
    ) -> Traffic:
        """Count what the events of a run did to the cores.

        Parameters
        ----------
        events : mapping of str to array, or Events
            As for `eventsim.analysis.raster.raster`, such as ``Run.events``.
        steps : int, optional
        episode_lengths : sequence of int, optional
            As there. Delayed events count in the step in which they were sent.

        Raises
        ------
        InputError
            If the events do not fit the network or the lengths.
        """
        from scipy.sparse import csr_array

        pairs = list(zip(self.names, self.sizes.tolist(), strict=True))
        data = check_events(events, pairs, steps, episode_lengths)
        first = np.concatenate([[0], np.cumsum(self.sizes)])
        neuron = first[data.population] + data.neuron
        cores = self.cores_used
        total = np.zeros(cores, np.int64)
        busiest, most = (np.full(data.steps, fill, np.int64) for fill in (OUTSIDE, 0))
        # In chunks of steps, so that a dense (steps, cores) table stays small.
        chunk = max(1, _TABLE // max(cores, 1))
        step, sender = data.step, neuron
        if (np.diff(step) < 0).any():
            order = np.argsort(step, kind="stable")
            step, sender = step[order], sender[order]
        for start in range(0, data.steps, chunk):
            stop = min(start + chunk, data.steps)
            low, high = np.searchsorted(step, (start, stop))
            one = np.ones(high - low, np.int64)
            sent = csr_array(
                (one, (step[low:high] - start, sender[low:high])),
                shape=(stop - start, self.core.size),
            )
            load = (sent @ self._synapses).toarray()
            total += load.sum(axis=0)
            if cores:
                most[start:stop] = load.max(axis=1)
                busiest[start:stop] = np.where(most[start:stop] > 0, load.argmax(axis=1), OUTSIDE)

        def per_step(weight: Int) -> Int:
            count = np.bincount(data.step, weights=weight[neuron], minlength=data.steps)
            return np.rint(count).astype(np.int64)

        deliveries = self._deliveries
        hops = self._hops
        return Traffic(
            synops=total,
            busiest_core=busiest,
            busiest_synops=most,
            local=per_step(deliveries[0]),
            crossing=per_step(deliveries[1]),
            from_outside=per_step(deliveries[2]),
            hops=None if hops is None else per_step(hops),
        )

    @cached_property
    def _deliveries(self) -> tuple[Int, Int, Int]:
        """Of an event of each neuron: to its own core, to others, from outside."""
        targets = np.diff(self._synapses.indptr).astype(np.int64)
        rows = np.repeat(np.arange(self.core.size), targets)
        own = np.bincount(
            rows[self.core[rows] == self._synapses.indices], minlength=self.core.size
        ).astype(np.int64)
        outside = self.core == OUTSIDE
        return own, np.where(outside, 0, targets - own), np.where(outside, targets, 0)

    @cached_property
    def _hops(self) -> Int | None:
        """Tiles that an event of each neuron travels in all."""
        mesh = self.chip.mesh
        if mesh is None or self.chips_used > 1:
            return None
        tile = np.arange(max(self.cores_used, 1)) // mesh.cores_per_tile
        x, y = tile % mesh.width, tile // mesh.width
        rows = np.repeat(np.arange(self.core.size), np.diff(self._synapses.indptr))
        source, target = self.core[rows], self._synapses.indices
        inside = source != OUTSIDE
        rows, source, target = rows[inside], source[inside], target[inside]
        distance = np.abs(x[source] - x[target]) + np.abs(y[source] - y[target])
        found = np.bincount(rows, weights=distance, minlength=self.core.size)
        return np.rint(found).astype(np.int64)


def map_network(
    network: Network,
    chip: str | os.PathLike[str] | Chip,
    *,
    weight_bits: int | None = None,
    share_cores: bool = False,
) -> Mapping:
    """Lay the layers of a network onto the cores of a chip, in order.

    Neurons are taken in network order. One goes onto the present core unless a limit of neurons,
    memory or fan-in would be broken, and else begins the next core. The synapses of a neuron lie
    where the neuron is. Input neurons are outside of the chip. Fan-out depends on all cores, so it
    is checked at the end.

    Parameters
    ----------
    network : Network
    chip : str, path or Chip
        A name of `list_chips`, or a TOML file.
    weight_bits : int, optional
        Of a synapse; default the chip's.
    share_cores : bool
        Let a layer begin on the last core of the layer before; by default a core holds one layer.

    Raises
    ------
    InputError
        If `weight_bits` is below 1.
    UnknownNameError, FileFormatError
        As for `load_chip`.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import Network
    >>> from eventsim.analysis.mapping import map_network
    >>> network = Network.from_arrays([np.ones((2000, 10)), np.ones((4, 2000))])
    >>> mapping = map_network(network, "loihi")
    >>> mapping.cores_used, mapping.fits, mapping.neurons.tolist()
    (3, True, [1024, 976, 4])
    """
    limits = chip if isinstance(chip, Chip) else load_chip(chip)
    if weight_bits is not None and weight_bits < 1:
        raise InputError(f"is {weight_bits}; give at least 1", field="weight_bits")
    bits = int(limits["weight"] or 1) if weight_bits is None else weight_bits
    incoming = _incoming(network)
    layer = _Layer(limits, bits, int(limits["state"] or 0))
    cores = np.full(incoming.shape[0], OUTSIDE, np.int64)
    first = 0
    for population in network.populations:
        if not population.is_input:
            if not share_cores:
                layer.next_core()
            for neuron in range(first, first + population.size):
                begin, end = incoming.indptr[neuron : neuron + 2]
                cores[neuron] = layer.place(incoming.indices[begin:end])
        first += population.size
    layer.next_core()
    table = np.array(layer.done, np.int64).reshape(-1, 3)
    synapses = _onto_cores(incoming, cores, len(table))
    fan_out = _fan_out(synapses, cores, len(table))
    return Mapping(
        chip=limits,
        names=tuple(p.name for p in network.populations),
        sizes=np.array([p.size for p in network.populations], np.int64),
        core=cores,
        neurons=table[:, 0],
        memory_bits=table[:, 1],
        fan_in=table[:, 2],
        fan_out=fan_out,
        weight_bits=bits,
        problems=_problems(limits, table, fan_out),
        _synapses=synapses,
    )


class _Layer:
    """Fills one core after the other."""

    def __init__(self, chip: Chip, weight_bits: int, state_bits: int) -> None:
        self.limits = [
            np.iinfo(np.int64).max if value is None else value
            for value in (chip["neurons"], chip["memory"], chip["fan_in"])
        ]
        self.weight_bits, self.state_bits = weight_bits, state_bits
        self.done: list[tuple[int, int, int]] = []
        self._empty()

    def _empty(self) -> None:
        self.neurons = self.bits = 0
        self.sources: set[int] = set()

    def next_core(self) -> None:
        if self.neurons:
            self.done.append((self.neurons, self.bits, len(self.sources)))
            self._empty()

    def place(self, sources: NDArray[Any]) -> int:
        """Core of the next neuron, which has synapses from these neurons."""
        bits = sources.size * self.weight_bits + self.state_bits
        both = self.sources.union(sources.tolist())
        after = (self.neurons + 1, self.bits + bits, len(both))
        # A neuron that breaks a limit alone is placed too, on a core of its own.
        full = any(count > limit for count, limit in zip(after, self.limits, strict=True))
        if self.neurons and full:
            self.next_core()
            return self.place(sources)
        self.neurons, self.bits, self.sources = after[0], after[1], both
        return len(self.done)


def _incoming(network: Network) -> Any:
    """Surviving synapses: row j has an entry for each source neuron of neuron j."""
    from scipy.sparse import csr_array

    sizes = [p.size for p in network.populations]
    first = dict(
        zip(
            (p.name for p in network.populations), np.cumsum([0, *sizes])[:-1].tolist(), strict=True
        )
    )
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for projection in network.projections:
        pointers, targets, _ = projection.weights.rows()
        rows.append(targets + first[projection.target])
        sources = np.repeat(np.arange(pointers.size - 1), np.diff(pointers))
        columns.append(sources + first[projection.source])
    row, column = np.concatenate(rows), np.concatenate(columns)
    n = sum(sizes)
    # Parallel synapses between two neurons stay apart: each takes memory.
    order = np.lexsort((column, row))
    pointers = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
    return csr_array((np.ones(row.size, np.int64), column[order], pointers), shape=(n, n))


def _onto_cores(incoming: Any, cores: Int, n_cores: int) -> Any:
    from scipy.sparse import coo_array

    target = np.repeat(np.arange(cores.size), np.diff(incoming.indptr))
    held = cores[target] != OUTSIDE
    source, core = incoming.indices[held], cores[target[held]]
    found = coo_array(
        (np.ones(source.size, np.int64), (source, core)), shape=(cores.size, max(n_cores, 0))
    ).tocsr()
    found.sum_duplicates()
    return found


def _fan_out(synapses: Any, cores: Int, n_cores: int) -> Int:
    """Pairs of a neuron of the core and a core that it sends to."""
    pairs = np.diff(synapses.indptr)
    inside = cores != OUTSIDE
    found = np.bincount(cores[inside], weights=pairs[inside], minlength=n_cores)
    return np.rint(found).astype(np.int64)


def _problems(chip: Chip, table: Int, fan_out: Int) -> tuple[str, ...]:
    found = []
    available = int(chip["cores"] or 1)
    if len(table) > available:
        found.append(f"it takes {len(table)} cores, and a chip has {available}")
    used = {
        "neurons": table[:, 0],
        "memory": table[:, 1],
        "fan_in": table[:, 2],
        "fan_out": fan_out,
    }
    names = {
        "neurons": "neurons",
        "memory": "bits of memory",
        "fan_in": "source neurons",
        "fan_out": "pairs of neuron and target core",
    }
    for name, count in used.items():
        limit = chip[name]
        over = [] if limit is None else np.flatnonzero(count > limit).tolist()
        if over:
            found.append(
                f"core {over[0]} needs {int(count[over[0]])} {names[name]}, and has {limit}"
                + (f"; the same on {len(over) - 1} more" if len(over) > 1 else "")
            )
    return tuple(found)


__all__ = ["OUTSIDE", "Chip", "Mapping", "Traffic", "list_chips", "load_chip", "map_network"]
