"""What was saved, layer by layer: the rows of a run's table from its counters, and their spread.

Every ratio is a sum over a sum, and None where its denominator is 0. A mean over no steps is None
too. docs/sparsity.md explains the figures, and how they differ from NeuroBench's; single neurons
and inputs are in `eventsim.analysis.activity`.
"""

from __future__ import annotations

from typing import TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import InputError
from eventsim.network import Network

Int: TypeAlias = NDArray[np.int64]


class LayerRow(TypedDict):
    """A population: its own neurons, events and evaluations, its incoming weights and synops.

    `macs`, `acs`, `events` and `evaluations` are means per step.
    """

    name: str
    neurons: int
    weights: int
    connection_sparsity: float | None
    dense_macs: int
    macs: float | None
    acs: float | None
    events: float | None
    evaluations: float | None
    activity_sparsity: float | None


class TotalRow(TypedDict):
    """The whole network; `macs` and `acs` are means per step."""

    connection_sparsity: float | None
    dense_macs: int
    macs: float | None
    acs: float | None
    activity_sparsity: float | None
    reduction: float | None
    reduction_after_first_step: float | None


def layer_rows(
    network: Network,
    evaluations: ArrayLike,
    events: ArrayLike,
    macs: ArrayLike,
    acs: ArrayLike,
) -> list[LayerRow]:
    """Return a row for each population, in network order.

    Parameters
    ----------
    network : Network
    evaluations, events, macs, acs : int array of shape (T, P)
        Counters of T steps; synops are those of incoming synapses.

    Returns
    -------
    list of dict
        `weights` counts the incoming weights, zeros included, and `connection_sparsity` is the
        share of exact zeros in them (None without incoming weights). `activity_sparsity` is the
        share of neuron-steps without an event, over the neurons that have an outgoing surviving
        synapse, since no other can emit one.

    Raises
    ------
    InputError
        If a shape does not fit the network, or a count is negative.
    """
    tables = {
        name: _table(network, name, value)
        for name, value in (
            ("evaluations", evaluations),
            ("events", events),
            ("macs", macs),
            ("acs", acs),
        )
    }
    steps = _steps(tables)
    senders = sending_neurons(network)
    rows: list[LayerRow] = []
    for k, population in enumerate(network.populations):
        incoming = network.incoming(population.name)
        weights = sum(p.weights.n_positions for p in incoming)
        synapses = sum(p.weights.n_synapses for p in incoming)
        total = {name: int(table[:, k].sum()) for name, table in tables.items()}
        silent = int(senders[population.name].sum()) * steps - total["events"]
        rows.append(
            {
                "name": population.name,
                "neurons": population.size,
                "weights": weights,
                "connection_sparsity": _ratio(weights - synapses, weights),
                "dense_macs": network.dense_macs(population.name),
                "macs": _ratio(total["macs"], steps),
                "acs": _ratio(total["acs"], steps),
                "events": _ratio(total["events"], steps),
                "evaluations": _ratio(total["evaluations"], steps),
                "activity_sparsity": _ratio(silent, silent + total["events"]),
            }
        )
    return rows


def total_row(
    network: Network,
    events: ArrayLike,
    macs: ArrayLike,
    acs: ArrayLike,
    first_steps: ArrayLike | None = None,
) -> TotalRow:
    """Return the figures of the whole network.

    Parameters
    ----------
    network : Network
    events, macs, acs : int array of shape (T, P)
        As for `layer_rows`.
    first_steps : bool array of shape (T,), optional
        Steps that began from a reset, where every neuron is new; default the first one only.

    Returns
    -------
    dict
        `reduction` is dense MACs over synops, both summed over the same steps: all of them, and
        those that did not begin from a reset (`reduction_after_first_step`).

    Raises
    ------
    InputError
        If a shape does not fit the network, or a count is negative.
    """
    tables = {
        name: _table(network, name, value)
        for name, value in (("events", events), ("macs", macs), ("acs", acs))
    }
    steps = _steps(tables)
    if first_steps is None:
        first = np.arange(steps) == 0
    else:
        first = np.asarray(first_steps, dtype=bool)
        if first.shape != (steps,):
            raise InputError(
                f"has shape {first.shape}; give one entry for each of the {steps} steps",
                field="first_steps",
            )
    dense = network.dense_macs()
    weights = sum(p.weights.n_positions for p in network.projections)
    synops = tables["macs"].sum(axis=1) + tables["acs"].sum(axis=1)
    emitted = int(tables["events"].sum())
    chances = sum(int(mask.sum()) for mask in sending_neurons(network).values()) * steps
    return {
        "connection_sparsity": _ratio(weights - network.n_synapses, weights),
        "dense_macs": dense,
        "macs": _ratio(int(tables["macs"].sum()), steps),
        "acs": _ratio(int(tables["acs"].sum()), steps),
        "activity_sparsity": _ratio(chances - emitted, chances),
        "reduction": _ratio(dense * steps, int(synops.sum())),
        "reduction_after_first_step": _ratio(
            dense * int(np.count_nonzero(~first)), int(synops[~first].sum())
        ),
    }


def sending_neurons(network: Network) -> dict[str, NDArray[np.bool_]]:
    """Return, for each population, which neurons have an outgoing surviving synapse.

    Returns
    -------
    dict of str to bool array of shape (size,)
    """
    masks = {p.name: np.zeros(p.size, dtype=np.bool_) for p in network.populations}
    for projection in network.projections:
        masks[projection.source] |= projection.weights.fan_out() > 0
    return masks


class Spread(TypedDict):
    """How a count per step is spread over the steps and over the episodes.

    `std` is over steps, `episode_std` over the means of the episodes; both have n - 1 in the
    denominator and are None for fewer than two.
    """

    mean: float | None
    std: float | None
    minimum: float | None
    median: float | None
    p95: float | None
    maximum: float | None
    episode_std: float | None
    episode_minimum: float | None
    episode_maximum: float | None


class SpreadRow(TypedDict):
    """Spread of a population's events and of its incoming synops."""

    name: str
    events: Spread
    synops: Spread


def spread_rows(
    network: Network,
    events: ArrayLike,
    macs: ArrayLike,
    acs: ArrayLike,
    episode: ArrayLike | None = None,
) -> list[SpreadRow]:
    """Return the spread of events and synops per step of each population.

    Parameters
    ----------
    network : Network
    events, macs, acs : int array of shape (T, P)
        As for `layer_rows`.
    episode : int array of shape (T,), optional
        Episode of each step, as in `StepCounters`; default one episode.

    Returns
    -------
    list of dict
        In network order, with a last row called ``total``: the sums over all populations.

    Raises
    ------
    InputError
        If a shape does not fit.
    """
    tables = {
        name: _table(network, name, value)
        for name, value in (("events", events), ("macs", macs), ("acs", acs))
    }
    steps = _steps(tables)
    episodes = np.zeros(steps, np.int64) if episode is None else np.asarray(episode)
    if episodes.shape != (steps,) or episodes.dtype.kind not in "iu":
        raise InputError(
            f"has shape {episodes.shape}; give one whole number for each of the {steps} steps",
            field="episode",
        )
    synops = tables["macs"] + tables["acs"]
    rows: list[SpreadRow] = [
        {
            "name": population.name,
            "events": _spread(tables["events"][:, k], episodes),
            "synops": _spread(synops[:, k], episodes),
        }
        for k, population in enumerate(network.populations)
    ]
    total = (tables["events"].sum(axis=1), synops.sum(axis=1))
    rows.append(
        {
            "name": "total",
            "events": _spread(total[0], episodes),
            "synops": _spread(total[1], episodes),
        }
    )
    return rows


def _spread(count: Int, episode: NDArray[np.integer]) -> Spread:
    if not count.size:
        return {
            "mean": None, "std": None, "minimum": None, "median": None, "p95": None,
            "maximum": None, "episode_std": None, "episode_minimum": None, "episode_maximum": None,
        }  # fmt: skip
    _, index = np.unique(episode, return_inverse=True)
    means = np.bincount(index, weights=count) / np.bincount(index)
    return {
        "mean": float(count.mean()),
        "std": float(count.std(ddof=1)) if count.size > 1 else None,
        "minimum": float(count.min()),
        "median": float(np.median(count)),
        "p95": float(np.quantile(count, 0.95)),
        "maximum": float(count.max()),
        "episode_std": float(means.std(ddof=1)) if means.size > 1 else None,
        "episode_minimum": float(means.min()),
        "episode_maximum": float(means.max()),
    }


def _table(network: Network, name: str, value: ArrayLike) -> NDArray[np.int64]:
    table = np.asarray(value)
    if table.ndim != 2 or table.shape[1] != len(network.populations):
        raise InputError(
            f"has shape {table.shape}; give (steps, {len(network.populations)}), a column for "
            "each population",
            field=name,
        )
    if table.dtype.kind not in "iub" or (table < 0).any():
        raise InputError("must hold whole numbers >= 0", field=name)
    return table.astype(np.int64)


def _steps(tables: dict[str, NDArray[np.int64]]) -> int:
    lengths = {name: len(table) for name, table in tables.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"the counters differ in their number of steps: {lengths}")
    return next(iter(lengths.values()))


def _ratio(above: int, below: int) -> float | None:
    return above / below if below else None
