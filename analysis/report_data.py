"""What a report shows of a run, taken from its folder or from the run itself."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.analysis.energy import DEFAULT_DEVICES
from eventsim.analysis.figures import run_data
from eventsim.errors import FileFormatError, InputError
from eventsim.records import Records, Trace

if TYPE_CHECKING:
    from eventsim.network import Network

Int: TypeAlias = NDArray[np.int64]
Float: TypeAlias = NDArray[np.float64]


class Counted(Protocol):
    """Counters of every step, as `eventsim.result.StepCounters` holds them."""

    @property
    def episode(self) -> Int:
        """Episode of each step, shape (steps,)."""
        ...

    @property
    def step(self) -> Int:
        """Step inside its episode, shape (steps,)."""
        ...

    @property
    def reward(self) -> Float:
        """Reward of each step, shape (steps,)."""
        ...

    @property
    def evaluations(self) -> Int:
        """Neurons evaluated, shape (steps, P)."""
        ...

    @property
    def events(self) -> Int:
        """Events, shape (steps, P)."""
        ...

    @property
    def macs(self) -> Int:
        """MACs, shape (steps, P)."""
        ...

    @property
    def acs(self) -> Int:
        """ACs, shape (steps, P)."""
        ...


class Finished(Protocol):
    """A run in memory, such as `eventsim.result.Run`."""

    @property
    def data(self) -> dict[str, Any]:
        """The figures of run.json."""
        ...

    @property
    def network(self) -> Network:
        """The network as it ran."""
        ...

    @property
    def counters(self) -> Counted:
        """Counters of every step."""
        ...

    @property
    def events(self) -> dict[str, NDArray[Any]] | None:
        """Events, or None."""
        ...


Source: TypeAlias = "Finished | Trace | str | os.PathLike[str]"


@dataclass(frozen=True)
class Link:
    """A projection in the network graph: from one population to another."""

    source: str
    target: str


@dataclass(frozen=True, eq=False)
class RunView:
    """One run, as the sections of a report need it.

    Parameters
    ----------
    label : str
        Folder, or name of the policy.
    data : dict
        run.json.
    starts : int64 array of shape (episodes,)
        First step of every episode, counted over the whole run.
    counts, synops : int64 array of shape (steps, P)
        Events, and MACs and ACs together.
    reward : float64 array of shape (steps,), or None
    events : dict of str to array, or None
        ``step`` (over the whole run), ``population``, ``neuron`` and ``value`` of the first
        events, in order of steps; None if events were not recorded.
    n_events : int
        Of the run.
    n_shown_steps : int
        Steps that `events` are complete for.
    links : tuple of Link, or None
        None if the projections are not known.
    notes : tuple of str
        What is missing from the run.
    network : Network or None
        As it ran, if it is at hand.
    """

    label: str
    data: dict[str, Any]
    starts: Int
    counts: Int
    synops: Int
    reward: Float | None
    events: dict[str, NDArray[Any]] | None
    n_events: int
    n_shown_steps: int
    links: tuple[Link, ...] | None
    notes: tuple[str, ...]
    network: Network | None

    @property
    def names(self) -> list[str]:
        """Names of the populations."""
        return [str(layer["name"]) for layer in self.data["layers"]]

    @property
    def sizes(self) -> Int:
        """Neurons of each population."""
        return np.array([layer["neurons"] for layer in self.data["layers"]], np.int64)

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return len(self.counts)


def view(source: Source, max_events: int, network: Network | None = None) -> RunView:
    """Read a run for a report.

    Parameters
    ----------
    source : Run, Trace or path
    max_events : int
        Events kept for the raster; whole steps from the beginning.
    network : Network, optional
        Of a run that is a folder.

    Raises
    ------
    UnknownNameError, FileFormatError
        If a folder holds no run, or a damaged one.
    InputError
        If `source` is something else, or the run was cut short before it had figures, or
        the network is another one.
    """
    if isinstance(source, str | os.PathLike):
        source = Trace(source)
    if isinstance(source, Trace):
        return _from_folder(source, max_events, network)
    if not all(hasattr(source, name) for name in ("data", "network", "counters", "events")):
        raise InputError(f"a {type(source).__name__} is not a run; give a Run, a Trace or a folder")
    return _from_memory(source, max_events)


def command(data: Mapping[str, Any]) -> str:
    """Return the command line that makes a run, from its settings.

    Options of the import, and the path of a device's file, are not among them.
    """
    words = ["eventsim", "run", data["policy"], "--env", data["env"]]
    # A run that was killed does not know what else came of what it was asked for.
    asked = data.get("asked", {})
    words += ["--episodes", str(asked.get("episodes", data["episodes"]))]
    words += ["--seed", str(data["seed"])]
    for option in ("threshold", "threshold_scale"):
        if data[option] is not None:
            words += [f"--{option.replace('_', '-')}", f"{data[option]:g}"]
    if data["carry_state"]:
        words.append("--carry-state")
    if not asked.get("dense", data["dense_return"] is not None):
        words.append("--no-dense")
    devices = [row["device"] for row in data["energy"]]
    if devices != list(DEFAULT_DEVICES):
        words += [word for device in devices for word in ("--device", device)]
    if data["step_seconds_source"] == "given":
        words += ["--step-seconds", f"{data['step_seconds']:g}"]
    return " ".join(shlex.quote(str(word)) for word in words)


def is_network_of(network: Network, data: Mapping[str, Any]) -> bool:
    """Whether layers, sizes, weights and surviving synapses are those of a run.json."""
    found = []
    for population in network.populations:
        incoming = network.incoming(population.name)
        weights = sum(p.weights.n_positions for p in incoming)
        synapses = sum(p.weights.n_synapses for p in incoming)
        sparsity = (weights - synapses) / weights if weights else None
        found.append((population.name, population.size, weights, sparsity))
    keys = ("name", "neurons", "weights", "connection_sparsity")
    return found == [tuple(layer[key] for key in keys) for layer in data["layers"]]


def _links(network: Network) -> tuple[Link, ...]:
    return tuple(Link(p.source, p.target) for p in network.projections)


def _from_folder(trace: Trace, max_events: int, network: Network | None) -> RunView:
    data = run_data(trace)
    notes: tuple[str, ...] = ()
    if network is None:
        network, notes = _own_network(trace, data)
    elif not is_network_of(network, data):
        raise InputError(
            f"is not that of the run in '{trace.folder}': layers, sizes or weights differ",
            field="networks",
        )
    n = len(trace.populations)
    columns: dict[str, NDArray[Any]] = {
        k: np.zeros(0, np.int64) for k in ("episode", "events", "macs")
    }
    if trace.has_counters:
        names = ["episode", "population", "events", "macs", "acs"]
        # Records of a simulator alone have no reward.
        names += ["reward"] * ("reward" in trace.counters.names)
        columns = trace.counters.to_numpy(names)
        rows = columns["population"]
        whole = rows.size // n * n
        if (rows[:whole].reshape(-1, n) != np.arange(n)).any():
            raise FileFormatError(
                "does not hold a row for each population and step, in order",
                where=str(trace.folder / "counters"),
            )
        columns = {name: column[:whole] for name, column in columns.items()}
        columns["macs"] = columns["macs"] + columns["acs"]
    episode = columns["episode"].reshape(-1, n)[:, 0]
    counts, synops = (columns[k].reshape(-1, n) for k in ("events", "macs"))
    reward = columns["reward"].reshape(-1, n)[:, 0] if "reward" in columns else None
    starts, notes = _starts(episode), trace.notes + notes
    if len(counts) != data["steps"]:
        notes += (f"run.json tells of {data['steps']} steps, counters are there for {len(counts)}",)
    events, shown, n_events = None, 0, 0
    if trace.has_events:
        n_events = len(trace.events)
        shown = _steps_within(counts, max_events)
        events = _first_events(trace.events, starts, shown, trace.sizes)
    label = Path(os.path.abspath(trace.folder)).name
    links = _stated_links(data) if network is None else _links(network)
    return RunView(
        label,
        data,
        starts,
        counts,
        synops,
        reward,
        events,
        n_events,
        shown,
        links,
        tuple(notes),
        network,
    )


def _own_network(trace: Trace, data: Mapping[str, Any]) -> tuple[Network | None, tuple[str, ...]]:
    """Return the network that lies in the folder, and what to say if it is of no use."""
    try:
        network = trace.network
    except FileFormatError as error:
        return None, (str(error),)
    if network is not None and not is_network_of(network, data):
        return None, ("the network in the folder is that of another run, and is left out",)
    return network, ()


def _from_memory(run: Finished, max_events: int) -> RunView:
    counters = run.counters
    episode = np.asarray(counters.episode, np.int64)
    counts = np.asarray(counters.events, np.int64)
    starts = _starts(episode)
    events, shown, n_events = None, 0, 0
    # Those that lie in a folder are read no further than they are shown.
    recorded = getattr(run, "recorded", None)
    if isinstance(recorded, Records):
        n_events, shown = len(recorded), _steps_within(counts, max_events)
        sizes = np.array([p.size for p in run.network.populations])
        events = _first_events(recorded, starts, shown, sizes)
    elif (held := run.events) is not None:
        n_events, shown = int(held["step"].size), _steps_within(counts, max_events)
        step = held["step"] + _at(starts, held["episode"])
        kept = step < shown
        events = {"step": step[kept]}
        events |= {name: held[name][kept] for name in ("population", "neuron", "value")}
    notes = ("the run was interrupted: its last episode is not whole",)
    return RunView(
        Path(str(run.data["policy"])).name,
        run.data,
        starts,
        counts,
        np.asarray(counters.macs + counters.acs, np.int64),
        np.asarray(counters.reward, np.float64),
        events,
        n_events,
        shown,
        _links(run.network),
        notes if run.data["interrupted"] else (),
        run.network,
    )


def _first_events(records: Records, starts: Int, shown: int, sizes: Int) -> dict[str, NDArray[Any]]:
    """Read events chunk by chunk, until the first one past the steps that are shown."""
    names = ("step", "population", "neuron", "value")
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for chunk in records.chunks(["episode", *names]):
        if (chunk["episode"] >= starts.size).any() or (chunk["episode"] < 0).any():
            kept = (chunk["episode"] < starts.size) & (chunk["episode"] >= 0)
            chunk = {name: column[kept] for name, column in chunk.items()}
        chunk["step"] = chunk["step"] + _at(starts, chunk["episode"])
        if ((chunk["neuron"] < 0) | (chunk["neuron"] >= sizes[chunk["population"]])).any():
            raise FileFormatError(
                "names a neuron that its population does not have; events and run.json are of "
                "different runs",
                where=str(records.paths[0].parent),
            )
        kept = (chunk["step"] >= 0) & (chunk["step"] < shown)
        for name in names:
            parts[name].append(chunk[name][kept])
        if kept.size and not kept[-1]:
            break
    if not parts["step"]:
        return {name: np.zeros(0, float if name == "value" else np.int64) for name in names}
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _starts(episode: Int) -> Int:
    if not episode.size:
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(episode)) + 1]).astype(np.int64)


def _at(starts: Int, episode: Int) -> Int:
    return starts[episode] if starts.size else np.zeros_like(episode)


def _steps_within(counts: Int, max_events: int) -> int:
    """Return how many steps from the beginning have at most `max_events` events together."""
    return int(np.searchsorted(np.cumsum(counts.sum(axis=1)), max_events, side="right"))


def _stated_links(data: Mapping[str, Any]) -> tuple[Link, ...] | None:
    """Return the projections that run.json names, or those that the sizes leave no choice about."""
    names = [layer["name"] for layer in data["layers"]]
    stated = data.get("projections")
    if isinstance(stated, list):
        links = [
            Link(row["source"], row["target"])
            for row in stated
            if isinstance(row, dict) and {row.get("source"), row.get("target")} <= set(names)
        ]
        return tuple(links) if len(links) == len(stated) else None
    layers = data["layers"]
    # A dense chain: every layer has as many weights as pairs with the layer before it.
    chain = all(
        after["weights"] == before["neurons"] * after["neurons"]
        for before, after in itertools.pairwise(layers)
    )
    if not chain or len(layers) < 2 or layers[0]["weights"]:
        return None
    return tuple(Link(a, b) for a, b in itertools.pairwise(names))
