"""Random connectivities and example networks, built lean: 4 bytes a synapse.

Every connectivity is a `Rows`: ``Projection(source, target, fixed_in_degree(...))``. The same seed
gives the same synapses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.connectivity import Rows, connectivity
from eventsim.errors import InputError
from eventsim.network import Network, Population, Projection
from eventsim.spiking_neurons import EIF, LIF, QIF, SpikingNeuron

if TYPE_CHECKING:
    import networkx as nx

#: One weight for all synapses, or a function of a generator and a number of synapses.
Weight: TypeAlias = float | Callable[[np.random.Generator, int], ArrayLike]
Model: TypeAlias = Literal["lif", "qif", "eif"]

MODELS: tuple[Model, ...] = ("lif", "qif", "eif")


def fixed_out_degree(
    n_sources: int, n_targets: int, k: int, weight: Weight, *, seed: int = 0, autapses: bool = False
) -> Rows:
    """Give every source k distinct random targets.

    Parameters
    ----------
    n_sources, n_targets : int
    k : int
    weight : float or callable
        One for all synapses (4 bytes a synapse), or ``f(generator, n)`` that returns n weights,
        stored as float32 (8 bytes a synapse).
    seed : int
    autapses : bool
        Whether neuron i may reach neuron i: give True where the two populations differ.

    Raises
    ------
    InputError
        If there are not k targets to choose from.
    """
    from eventsim.kernels import wiring

    _check(n_sources, n_targets, seed)
    _room("k", k, n_targets, autapses)
    targets = np.empty(n_sources * k, np.uint32)
    if k:
        wiring.fixed_out(seed, n_targets, k, autapses, targets)
    pointers = np.arange(n_sources + 1, dtype=np.int64) * k
    return _rows((n_targets, n_sources), pointers, targets, weight, seed)


def fixed_in_degree(
    n_sources: int, n_targets: int, k: int, weight: Weight, *, seed: int = 0, autapses: bool = False
) -> Rows:
    """Give every target k distinct random sources; parameters as for `fixed_out_degree`.

    Raises
    ------
    InputError
        If there are not k sources to choose from.
    """
    from eventsim.kernels import wiring

    _check(n_sources, n_targets, seed)
    _room("k", k, n_sources, autapses)
    pointers = np.zeros(n_sources + 1, np.int64)
    targets = np.empty(n_targets * k, np.uint32)
    if k:
        one = np.empty(k, np.int64)
        draw = (seed, n_sources, n_targets, k, autapses, one)
        wiring.fixed_in(*draw, pointers, targets[:0])
        np.cumsum(pointers, out=pointers)
        wiring.fixed_in(*draw, pointers[:-1].copy(), targets)
    return _rows((n_targets, n_sources), pointers, targets, weight, seed)


def bernoulli(
    n_sources: int,
    n_targets: int,
    p: float,
    weight: Weight,
    *,
    seed: int = 0,
    autapses: bool = False,
) -> Rows:
    """Connect every pair with probability `p`; other parameters as for `fixed_out_degree`.

    Raises
    ------
    InputError
        If `p` is no probability.
    """
    from eventsim.kernels import wiring

    _check(n_sources, n_targets, seed)
    if not 0.0 <= p <= 1.0:
        raise InputError(f"is {p}; give a probability", field="p")
    pointers = np.zeros(n_sources + 1, np.int64)
    targets = np.empty(0, np.uint32)
    if p > 0.0:
        wiring.bernoulli(seed, n_targets, float(p), autapses, pointers, targets)
        np.cumsum(pointers, out=pointers)
        targets = np.empty(int(pointers[-1]), np.uint32)
        if targets.size:
            wiring.bernoulli(seed, n_targets, float(p), autapses, pointers, targets)
    return _rows((n_targets, n_sources), pointers, targets, weight, seed)


def distance_dependent(
    sources: ArrayLike,
    targets: ArrayLike,
    probability: Callable[[NDArray[np.float64]], ArrayLike],
    weight: Weight,
    *,
    reach: float,
    box: float | None = None,
    seed: int = 0,
    autapses: bool = False,
) -> Rows:
    """Connect pairs with a probability that depends on their distance.

    Parameters
    ----------
    sources, targets : array of shape (n, dimensions)
        Positions.
    probability : callable
        Takes an array of distances, returns probabilities.
    weight, seed, autapses
        As for `fixed_out_degree`.
    reach : float
        Farther pairs are not connected; the work grows with the number of nearer ones.
    box : float, optional
        Side of a periodic box from 0; by default space has no edges.

    Raises
    ------
    InputError
        If positions or probabilities are out of range.
    """
    from scipy.spatial import KDTree

    a, b = np.atleast_2d(np.asarray(sources, float)), np.atleast_2d(np.asarray(targets, float))
    _check(len(a), len(b), seed)
    if a.shape[1] != b.shape[1] or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("must be finite, of shape (n, dimensions)", field="sources")
    if not (np.isfinite(reach) and reach > 0.0) or (box is not None and reach > 0.5 * box):
        raise InputError(
            f"is {reach}; give a distance > 0, in a box at most half its side", field="reach"
        )
    try:
        tree: Any = KDTree(b, boxsize=box)  # type: ignore[arg-type]
        KDTree(a, boxsize=box)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"lie outside the box ({error})", field="sources") from error
    random = np.random.default_rng(seed)
    pointers, parts = np.zeros(len(a) + 1, np.int64), [np.empty(0, np.uint32)]
    for first in range(0, len(a), 256):
        near = tree.query_ball_point(a[first : first + 256], reach, return_sorted=True)
        sizes = np.array([len(found) for found in near])
        row = np.repeat(np.arange(first, first + sizes.size), sizes)
        who = np.concatenate([np.asarray(found, np.int64) for found in near])
        away = a[row] - b[who]
        if box is not None:
            away -= box * np.round(away / box)
        chance = np.asarray(probability(np.sqrt((away**2).sum(axis=1))), np.float64)
        if chance.shape != who.shape or not ((chance >= 0.0) & (chance <= 1.0)).all():
            raise InputError("must give one number of 0 to 1 a distance", field="probability")
        chosen = random.random(who.size) < chance
        if not autapses:
            chosen &= row != who
        parts.append(who[chosen].astype(np.uint32))
        pointers[1:] += np.bincount(row[chosen], minlength=len(a))
    np.cumsum(pointers, out=pointers)
    return _rows((len(b), len(a)), pointers, np.concatenate(parts), weight, seed)


def from_networkx(graph: nx.Graph[Any], weight: str | None = "weight") -> Rows:
    """Turn a graph into the synapses of a population onto itself.

    Parameters
    ----------
    graph : networkx graph
        Neurons in the order of its nodes; an edge from u to v is a synapse from u to v, an
        undirected one goes both ways, parallel ones add up.
    weight : str, optional
        Attribute of the edges; edges without it, or all with None, have weight 1.
    """
    import networkx as nx

    matrix = nx.to_scipy_sparse_array(graph, weight=weight, dtype=np.float64, format="csr")
    return from_scipy(matrix.T)


def from_scipy(matrix: Any) -> Rows:
    """Turn a scipy.sparse matrix of shape (target size, source size) into lean rows.

    Raises
    ------
    NetworkError
        If it holds NaN or infinity.
    """
    rows = connectivity(matrix, "scipy.sparse matrix").indexed()
    values = np.unique(rows.weights)
    return Rows(
        rows.size, rows.pointers, rows.targets, values[0] if values.size == 1 else rows.weights
    )


def balanced(
    neurons: int,
    indegree: int,
    model: Model = "lif",
    *,
    rate: float = 1.0,
    strength: float = 1.0,
    tau: float = 0.01,
    seed: int = 0,
) -> Network:
    """An inhibitory network in the balanced state (van Vreeswijk & Sompolinsky 1996).

    Every neuron inhibits `indegree` distinct random others with ``w = -strength / sqrt(k)``; its
    constant drive lies above what is needed to spike by ``sqrt(k) strength rate tau``, so that
    drive and mean inhibition cancel at a rate near `rate` for large k. Initial phases are uniform
    random. (Monteforte & Wolf 2010; Engelken, SparseProp, 2023.)

    Parameters
    ----------
    neurons, indegree : int
        N and k; synapses a neuron on average, exactly so many out of it.
    model : str
        ``"lif"`` (threshold 1, reset 0), ``"qif"`` or ``"eif"`` (knee 1, slope 0.1, threshold 2).
    rate : float
        Hertz.
    strength : float
        J0.
    tau : float
        Seconds.
    seed : int

    Returns
    -------
    Network
        One population, "neurons".

    Raises
    ------
    InputError
        If a number is out of range or the model is not known.
    """
    if model not in MODELS:
        raise InputError(f"is {model!r}; give {', '.join(MODELS)}", field="model")
    if isinstance(indegree, bool) or not 1 <= indegree < neurons:
        raise InputError(f"is {indegree}; give 1 to neurons - 1 = {neurons - 1}", field="indegree")
    for field, value in (("rate", rate), ("strength", strength), ("tau", tau)):
        if not (np.isfinite(value) and value > 0.0):
            raise InputError(f"is {value}; give a number > 0", field=field)
    root = float(np.sqrt(indegree))
    rows = fixed_out_degree(neurons, neurons, indegree, -strength / root, seed=seed)
    above = root * strength * rate * tau
    phases = np.random.default_rng([seed, 1]).random(neurons)
    neuron: SpikingNeuron
    if model == "lif":
        neuron = LIF(tau, 1.0 + above, initial=LIF(tau, 1.0 + above).at_phase(phases))
    elif model == "qif":
        neuron = QIF(tau, above, initial=QIF(tau, above).at_phase(phases))
    else:
        plain = EIF(tau, 0.9 + above)
        neuron = EIF(tau, 0.9 + above, initial=plain.at_phase(phases))
    return Network(
        (Population("neurons", neurons, neuron),),
        (Projection("neurons", "neurons", rows),),
        name=f"balanced-{model}",
    )


def excitatory_inhibitory(
    neurons: int,
    indegree: int,
    *,
    excitatory: float = 0.8,
    g: float = 6.0,
    rate: float = 1.0,
    strength: float = 0.5,
    tau: float = 0.01,
    delay: float = 0.0015,
    refractory: float = 0.002,
    seed: int = 0,
) -> Network:
    """A network of excitatory and inhibitory LIF neurons, after Brunel (2000).

    Every neuron gets synapses from ``excitatory k`` excitatory and ``(1 - excitatory) k``
    inhibitory neurons, of weight ``w = strength / sqrt(k)`` and ``-g w``. A constant drive above
    threshold takes the place of external Poisson input; it cancels the mean recurrent input at
    a rate near `rate` for large k.

    Parameters
    ----------
    neurons, indegree : int
    excitatory : float
        Share of the neurons.
    g : float
        How much stronger inhibition is, large enough for it to prevail:
        ``g (1 - excitatory) > excitatory``.
    rate, strength, tau, seed
        As for `balanced`.
    delay, refractory : float
        Seconds.

    Returns
    -------
    Network
        Two populations, "excitatory" and "inhibitory".

    Raises
    ------
    InputError
        If a number is out of range.
    """
    _check(neurons, neurons, seed)
    if not (0.0 < excitatory < 1.0 and g * (1.0 - excitatory) > excitatory):
        raise InputError(
            f"is {g} for a share of {excitatory}; inhibition must prevail: "
            "g (1 - excitatory) > excitatory",
            field="g",
        )
    for field, value in (("rate", rate), ("strength", strength), ("tau", tau)):
        if not (np.isfinite(value) and value > 0.0):
            raise InputError(f"is {value}; give a number > 0", field=field)
    n = {"excitatory": round(excitatory * neurons)}
    n["inhibitory"] = neurons - n["excitatory"]
    k = {"excitatory": round(excitatory * indegree)}
    k["inhibitory"] = indegree - k["excitatory"]
    for name in n:
        if not 1 <= k[name] < n[name]:
            raise InputError(
                f"is {indegree}: {k[name]} synapses from {n[name]} {name} neurons; give fewer "
                "synapses, or more neurons",
                field="indegree",
            )
    weight = strength / float(np.sqrt(indegree))
    weights = {"excitatory": weight, "inhibitory": -g * weight}
    above = (g * k["inhibitory"] - k["excitatory"]) * weight * rate * tau
    random = np.random.default_rng([seed, 1])
    populations, projections = [], []
    for a, (target, size) in enumerate(n.items()):
        plain = LIF(tau, 1.0 + above)
        start = plain.at_phase(random.random(size))
        neuron = LIF(tau, 1.0 + above, refractory=refractory, initial=start)
        populations.append(Population(target, size, neuron))
        for b, source in enumerate(n):
            rows = fixed_in_degree(
                n[source],
                size,
                k[source],
                weights[source],
                seed=4 * seed + 2 * a + b,
                autapses=source != target,
            )
            projections.append(Projection(source, target, rows, delay_seconds=delay))
    return Network(tuple(populations), tuple(projections), name="excitatory-inhibitory")


def _check(n_sources: int, n_targets: int, seed: int) -> None:
    for field, value, least in (
        ("n_sources", n_sources, 1),
        ("n_targets", n_targets, 1),
        ("seed", seed, 0),
    ):
        if isinstance(value, bool) or int(value) != value or not least <= value < 2**32:
            raise InputError(f"is {value}; give a whole number from {least} to 2^32", field=field)


def _room(field: str, k: int, size: int, autapses: bool) -> None:
    most = size - (not autapses)
    if isinstance(k, bool) or int(k) != k or not 0 <= k <= most:
        raise InputError(f"is {k}; give a whole number from 0 to {most}", field=field)


def _rows(
    size: tuple[int, int], pointers: Any, targets: NDArray[np.uint32], weight: Weight, seed: int
) -> Rows:
    if not callable(weight):
        return Rows(size, pointers, targets, float(weight))
    drawn = np.asarray(weight(np.random.default_rng([seed, 2]), targets.size))
    return Rows(size, pointers, targets, drawn.astype(np.float32))


__all__ = [
    "MODELS",
    "balanced",
    "bernoulli",
    "distance_dependent",
    "excitatory_inhibitory",
    "fixed_in_degree",
    "fixed_out_degree",
    "from_networkx",
    "from_scipy",
]
