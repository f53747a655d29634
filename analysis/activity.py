"""What single neurons did in a run, and how still its inputs were.

Every ratio is a sum over a sum, and NaN in an array (None alone) where its denominator is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.analysis.raster_data import RasterData, check_events
from eventsim.errors import InputError
from eventsim.network import Network

if TYPE_CHECKING:
    import pandas as pd

    from eventsim.trace import Events

Int: TypeAlias = NDArray[np.int64]
Float: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NeuronTable:
    """Figures of every neuron; all arrays have one entry a neuron, in network order.

    Parameters
    ----------
    names : tuple of str
        Populations.
    population, neuron : int64 array
        Index into `names`, and index inside the population.
    events : int64 array
    activity_sparsity : float64 array
        Share of steps without an event; NaN for neurons that have no outgoing surviving synapse.
    connection_sparsity : float64 array
        Share of exact zeros in the incoming weights; NaN without incoming weights.
    fan_in, fan_out : int64 array
        Surviving synapses.
    synops : int64 array
        Caused in the targets: events times `fan_out`.
    mean_change : float64 array
        Mean absolute value of the events; NaN without events.
    interval : float64 array
        Median steps between two events in one episode; NaN with fewer than two.
    silent, saturated : bool array
        Could emit, and never did; emitted at every step.
    """

    names: tuple[str, ...]
    population: Int
    neuron: Int
    events: Int
    activity_sparsity: Float
    connection_sparsity: Float
    fan_in: Int
    fan_out: Int
    synops: Int
    mean_change: Float
    interval: Float
    silent: NDArray[np.bool_]
    saturated: NDArray[np.bool_]

    def summary(self) -> list[dict[str, int | str]]:
        """Return, for each population, how many neurons can emit, are silent, are saturated."""
        rows: list[dict[str, int | str]] = []
        for k, name in enumerate(self.names):
            mine = self.population == k
            rows.append(
                {
                    "name": name,
                    "neurons": int(mine.sum()),
                    "senders": int((self.fan_out[mine] > 0).sum()),
                    "silent": int(self.silent[mine].sum()),
                    "saturated": int(self.saturated[mine].sum()),
                }
            )
        return rows

    def to_dataframe(self) -> pd.DataFrame:
        """Return a row for each neuron, with the name of its population."""
        import pandas as pd

        columns = {name: value for name, value in vars(self).items() if name != "names"}
        columns["population"] = pd.Categorical.from_codes(
            self.population.tolist(), pd.Index(self.names)
        )
        return pd.DataFrame(columns)


def neuron_table(
    network: Network,
    events: Mapping[str, ArrayLike] | Events,
    *,
    steps: int | None = None,
    episode_lengths: Sequence[int] | None = None,
) -> NeuronTable:
    """Return the figures of every neuron of a run.

    Parameters
    ----------
    network : Network
    events : mapping of str to array, or Events
        As for `eventsim.analysis.raster.raster`, such as ``Run.events``.
    steps : int, optional
    episode_lengths : sequence of int, optional
        As there.

    Raises
    ------
    InputError
        If the events do not fit the network or the lengths.

    Examples
    --------
    >>> import numpy as np
    >>> from eventsim import EventRecorder, Network, Simulator
    >>> from eventsim.analysis.activity import neuron_table
    >>> recorder = EventRecorder()
    >>> network = Network.from_arrays([np.eye(2), np.ones((1, 2))])
    >>> simulator = Simulator(network, hooks=[recorder])
    >>> _ = simulator.run([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    >>> table = neuron_table(network, recorder.to_arrays(), steps=3)
    >>> table.saturated.tolist(), table.silent.tolist()
    ([True, False, True, False, False], [False, True, False, True, False])
    """
    data = check_events(events, network, steps, episode_lengths)
    offsets = np.concatenate([[0], np.cumsum(data.sizes)]).astype(np.int64)
    n = int(offsets[-1])
    ids = offsets[data.population] + data.neuron
    counts = np.bincount(ids, minlength=n).astype(np.int64)
    size = np.bincount(ids, weights=np.abs(data.value), minlength=n)
    fan_in, fan_out, weights = _fans(network, offsets)
    senders = fan_out > 0
    nan = np.full(n, np.nan)
    intervals = nan.copy()
    gaps, owners = _intervals(data, ids)
    # Sorted by owner, then gap, as one number each: far faster than sorting by two keys.
    longest = int(gaps.max(initial=0)) + 1
    owners, gaps = np.divmod(np.sort(owners * longest + gaps), longest)
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    length = np.diff(np.append(first, owners.size))
    middle = gaps[first + (length - 1) // 2] + gaps[first + length // 2]
    intervals[owners[first]] = middle / 2.0
    return NeuronTable(
        names=data.names,
        population=np.repeat(np.arange(len(data.sizes)), data.sizes),
        neuron=np.arange(n) - np.repeat(offsets[:-1], data.sizes),
        events=counts,
        activity_sparsity=np.where(senders, 1.0 - counts / data.steps, np.nan)
        if data.steps
        else nan,
        connection_sparsity=np.divide(weights - fan_in, weights, out=nan.copy(), where=weights > 0),
        fan_in=fan_in,
        fan_out=fan_out,
        synops=counts * fan_out,
        mean_change=np.divide(size, counts, out=nan.copy(), where=counts > 0),
        interval=intervals,
        silent=senders & (counts == 0),
        saturated=senders & (counts >= data.steps) & (data.steps > 0),
    )


def inter_event_intervals(
    network: Network,
    events: Mapping[str, ArrayLike] | Events,
    *,
    episode_lengths: Sequence[int] | None = None,
) -> dict[str, Int]:
    """Return the steps between two events of one neuron in one episode, for each population.

    Parameters
    ----------
    network : Network
    events : mapping of str to array, or Events
    episode_lengths : sequence of int, optional
        As for `neuron_table`.

    Returns
    -------
    dict of str to int64 array
        Of no fixed length; ordered by neuron, then by time.
    """
    data = check_events(events, network, None, episode_lengths)
    offsets = np.concatenate([[0], np.cumsum(data.sizes)]).astype(np.int64)
    gaps, owners = _intervals(data, offsets[data.population] + data.neuron)
    return {
        name: gaps[(owners >= offsets[k]) & (owners < offsets[k + 1])]
        for k, name in enumerate(data.names)
    }


@dataclass(frozen=True, eq=False)
class InputStatistics:
    """How still the inputs are from step to step: what a delta network lives on.

    Parameters
    ----------
    autocorrelation : float64 array of shape (n,)
        Of each input with itself `lag` steps later, about its mean; NaN for a constant input.
    within : float64 array of shape (n,)
        Share of the pairs of steps whose values differ by no more than the threshold; NaN
        without pairs.
    unchanged : float64 array of shape (n,)
        Share of the pairs with equal values.
    mean_autocorrelation, mean_within, mean_unchanged : float or None
        The same over all inputs: sums over sums, so an input counts by its variance in the first.
    pairs : int
        Pairs of steps, none of them across episodes.
    """

    autocorrelation: Float
    within: Float
    unchanged: Float
    mean_autocorrelation: float | None
    mean_within: float | None
    mean_unchanged: float | None
    pairs: int


def input_statistics(
    inputs: ArrayLike,
    threshold: ArrayLike = 0.0,
    episode: ArrayLike | None = None,
    *,
    lag: int = 1,
) -> InputStatistics:
    """Return how much inputs resemble themselves from step to step.

    Parameters
    ----------
    inputs : array of shape (T, n)
        Encoded inputs, or any other signals such as activations.
    threshold : float or array of shape (n,)
        Theta: of the network's inputs, ``population.parameter("threshold")``.
    episode : int array of shape (T,), optional
        Episode of each step; default one episode.
    lag : int
        Steps, at least 1.

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite or a threshold is negative.

    Examples
    --------
    >>> from eventsim.analysis.activity import input_statistics
    >>> found = input_statistics([[0.0, 1.0], [0.1, 1.0], [0.2, 3.0]], threshold=0.15)
    >>> found.within.tolist(), found.unchanged.tolist()
    ([1.0, 0.5], [0.0, 0.5])
    """
    x = np.asarray(inputs, np.float64)
    if x.ndim != 2 or not np.isfinite(x).all():
        raise InputError(
            f"have shape {x.shape}, or a value that is not finite; give numbers (steps, inputs)",
            field="inputs",
        )
    theta = np.asarray(threshold, np.float64)
    if theta.shape not in ((), x.shape[1:]) or not (theta >= 0.0).all():
        raise InputError(
            f"has shape {theta.shape}, or is negative; give one number >= 0, or {x.shape[1]}",
            field="threshold",
        )
    if lag < 1:
        raise InputError(f"is {lag}; give at least 1", field="lag")
    owner = np.zeros(len(x), np.int64) if episode is None else np.asarray(episode)
    if owner.shape != (len(x),):
        raise InputError(
            f"has shape {owner.shape}; give one entry for each of the {len(x)} steps",
            field="episode",
        )
    same = owner[lag:] == owner[:-lag]
    before, after = x[:-lag][same], x[lag:][same]
    pairs, n = len(before), x.shape[1]
    distance = np.abs(after - before)
    within, unchanged = (distance <= theta).sum(axis=0), (distance == 0.0).sum(axis=0)
    if pairs:
        # Pearson's correlation of the pairs; a constant side has none.
        a, b = before - before.mean(axis=0), after - after.mean(axis=0)
        product, scale = (a * b).sum(axis=0), np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    else:
        product = scale = np.zeros(n)
    varies = scale > 0.0
    total = float(scale[varies].sum())
    return InputStatistics(
        autocorrelation=np.divide(product, scale, out=np.full(n, np.nan), where=varies),
        within=within / pairs if pairs else np.full(n, np.nan),
        unchanged=unchanged / pairs if pairs else np.full(n, np.nan),
        mean_autocorrelation=float(product[varies].sum()) / total if total else None,
        mean_within=float(within.sum()) / (pairs * n) if pairs * n else None,
        mean_unchanged=float(unchanged.sum()) / (pairs * n) if pairs * n else None,
        pairs=pairs,
    )


def _fans(network: Network, offsets: Int) -> tuple[Int, Int, Int]:
    """Surviving incoming and outgoing synapses, and incoming weights, of every neuron."""
    n = int(offsets[-1])
    first = {p.name: int(offsets[k]) for k, p in enumerate(network.populations)}
    fan_in, fan_out, weights = (np.zeros(n, np.int64) for _ in range(3))
    for projection in network.projections:
        pointers, targets, _ = projection.weights.rows()
        n_out, n_in = projection.weights.shape
        source, target = first[projection.source], first[projection.target]
        fan_out[source : source + n_in] += np.diff(pointers)
        fan_in[target : target + n_out] += np.bincount(targets, minlength=n_out)
        weights[target : target + n_out] += n_in
    return fan_in, fan_out, weights


def _intervals(data: RasterData, ids: Int) -> tuple[Int, Int]:
    """Steps between successive events of a neuron inside an episode, and the neuron's id."""
    # Time and neuron as one number each: far faster than sorting by two keys.
    neuron, step = np.divmod(np.sort(ids * max(data.steps, 1) + data.step), max(data.steps, 1))
    episode = np.searchsorted(data.starts, step, side="right")
    same = (neuron[1:] == neuron[:-1]) & (episode[1:] == episode[:-1])
    return np.diff(step)[same], neuron[1:][same]
