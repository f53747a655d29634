"""The events of a run on one axis of steps, checked, as the raster draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError
from eventsim.network import Network, Population

if TYPE_CHECKING:
    from eventsim.trace import Events

Int: TypeAlias = NDArray[np.int64]
Float: TypeAlias = NDArray[np.float64]
Populations: TypeAlias = Network | Sequence[Population] | Sequence[tuple[str, int]]


@dataclass(frozen=True, eq=False)
class RasterData:
    """Events on one axis of steps.

    Parameters
    ----------
    names, sizes : tuple of str, int64 array of shape (P,)
    step : int64 array of shape (events,)
        Counted from the beginning of the run.
    population, neuron : int64 array of shape (events,)
    value : float64 array of shape (events,)
    starts : int64 array
        First step of every episode.
    steps : int
        Of the whole run.
    rewards : float64 array of shape (steps,) or None
    """

    names: tuple[str, ...]
    sizes: Int
    step: Int
    population: Int
    neuron: Int
    value: Float
    starts: Int
    steps: int
    rewards: Float | None

    @property
    def binary(self) -> bool:
        """Whether all events are spikes: they carry the value 1."""
        return bool(self.value.size) and bool((self.value == 1.0).all())

    @property
    def labels(self) -> list[str]:
        """Name and size of every population."""
        return [f"{name} ({size})" for name, size in zip(self.names, self.sizes, strict=True)]


def check_events(
    events: Mapping[str, ArrayLike] | Events,
    populations: Populations,
    steps: int | None = None,
    episode_lengths: Sequence[int] | None = None,
    rewards: ArrayLike | None = None,
) -> RasterData:
    """Check what `eventsim.analysis.raster.raster` was given, and put it on one axis of steps.

    Raises
    ------
    InputError
        If arrays are missing, differ in length or point outside of the network, or the lengths
        given contradict each other.
    """
    names, sizes = _populations(populations)
    columns = _columns(events)
    step, population, neuron = columns["step"], columns["population"], columns["neuron"]
    episode, value = columns["episode"], columns["value"]
    known = ((population >= 0) & (population < len(sizes))).all()
    if not known or not ((neuron >= 0) & (neuron < sizes[population])).all():
        raise InputError("name a neuron that the populations do not have", field="events")
    if (step < 0).any() or (episode < 0).any() or not np.isfinite(value).all():
        raise InputError(
            "hold a negative step or episode, or a value that is not finite", field="events"
        )
    track = None if rewards is None else np.asarray(rewards, np.float64)
    if track is not None and track.ndim != 1:
        raise InputError(f"have shape {track.shape}; give one a step", field="rewards")
    lengths = _lengths(step, episode, episode_lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    step = step + starts[episode]
    total = int(starts[-1])
    # One episode may go on after its last event; several could not be told apart.
    exact = episode_lengths is not None or len(lengths) > 1
    if steps is None:
        steps = total if exact or track is None else track.size
    if (track is not None and track.size != steps) or (exact and steps != total):
        rest = "none" if track is None else f"{track.size}"
        raise InputError(
            f"the run has {steps} steps, its episodes {total} and there are {rest} rewards; give "
            "episode_lengths, and one reward a step",
            field="steps",
        )
    if step.size and step.max() >= steps:
        raise InputError(
            f"there is an event in step {int(step.max())} of a run of {steps} steps", field="steps"
        )
    return RasterData(names, sizes, step, population, neuron, value, starts[:-1], int(steps), track)


def check_track(name: str, values: ArrayLike, steps: int) -> Float:
    """Check a track that is drawn above a raster.

    Parameters
    ----------
    name : str
        Of the track, for error messages.
    values : array of shape (steps,) or (steps, components)
    steps : int

    Returns
    -------
    float64 array of shape (steps, components)

    Raises
    ------
    InputError
        If the shape is another one, or a value is not a finite number.
    """
    try:
        track = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("are not numbers", field=f"{name}s") from error
    if track.ndim not in (1, 2) or len(track) != steps:
        raise InputError(
            f"have shape {track.shape}; give ({steps},) or ({steps}, components)",
            field=f"{name}s",
        )
    if name != "reward" and not np.isfinite(track).all():
        raise InputError("hold a value that is not finite", field=f"{name}s")
    return track.reshape(steps, -1) if steps else track.reshape(0, 1)


def _populations(populations: Populations) -> tuple[tuple[str, ...], Int]:
    members = populations.populations if isinstance(populations, Network) else populations
    pairs = [(p.name, p.size) if isinstance(p, Population) else p for p in members]
    if not pairs or any(len(p) != 2 or int(p[1]) < 1 for p in pairs):
        raise InputError("must be a Network or (name, size >= 1) pairs", field="populations")
    return tuple(str(name) for name, _ in pairs), np.array([int(n) for _, n in pairs], np.int64)


def _columns(events: Mapping[str, ArrayLike] | Events) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name in ("step", "population", "neuron", "value", "episode"):
        column = events.get(name) if isinstance(events, Mapping) else getattr(events, name, None)
        if column is None and name != "episode":
            raise InputError("is missing; give what EventRecorder.to_arrays returns", field=name)
        if column is None:
            column = np.zeros_like(columns["step"])
        array = np.asarray(column)
        if array.ndim != 1 or array.size != columns.get("step", array).size:
            raise InputError(
                f"has shape {array.shape}; give as many entries as there are events", field=name
            )
        if array.dtype.kind not in ("iufb" if name == "value" or not array.size else "iub"):
            raise InputError(f"holds {array.dtype}; give whole numbers", field=name)
        columns[name] = array.astype(np.float64 if name == "value" else np.int64, copy=False)
    return columns


def _lengths(step: Int, episode: Int, given: Sequence[int] | None) -> Int:
    episodes = int(episode.max()) + 1 if episode.size else 0
    if given is None:
        lengths = np.zeros(max(episodes, 1), np.int64)
        np.maximum.at(lengths, episode, step + 1)
        return lengths
    lengths = np.asarray(given, np.int64)
    if lengths.ndim != 1 or not lengths.size or (lengths < 0).any():
        raise InputError("must list the number of steps of each episode", field="episode_lengths")
    if episodes > lengths.size:
        raise InputError(
            f"has {lengths.size} entries, but there are events of episode {episodes - 1}",
            field="episode_lengths",
        )
    return lengths
