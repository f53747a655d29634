"""The description of a network: immutable, validated, independent of any engine.

A `Network` holds populations (neurons that share one model) and projections (synapses from one
population to another). `eventsim.compile` turns it into flat arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventsim.errors import NetworkError, UnknownNameError
from eventsim.neurons import Activation, Delta, Input, MaxPool, NeuronModel
from eventsim.parts import MAX_DELAY, Population, Projection

if TYPE_CHECKING:
    import networkx as nx


Thresholds: TypeAlias = float | Mapping[str, ArrayLike]


@dataclass(frozen=True, eq=False)
class Network:
    """Populations and projections, checked against each other.

    Parameters
    ----------
    populations : sequence of Population
        Neuron ids follow this order.
    projections : sequence of Projection
    outputs : sequence of str, optional
        Populations whose activations a step returns, concatenated. Default: the populations
        without outgoing projection.
    name : str, optional

    Raises
    ------
    NetworkError
        If names clash or are unknown, shapes do not fit, there is no input or output, or a cycle
        of projections has no delay.
    """

    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    outputs: tuple[str, ...] = ()
    name: str = ""
    _ranks: dict[str, int] = field(default_factory=dict, repr=False, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "populations", tuple(self.populations))
        object.__setattr__(self, "projections", tuple(self.projections))
        _unique("population", [p.name for p in self.populations])
        _unique("projection", [p.name for p in self.projections])
        for projection in self.projections:
            self._check_projection(projection)
        for population in self.populations:
            self._check_pool(population)
        if self.continuous:
            self._check_continuous()
            return
        if not any(p.is_input for p in self.populations):
            raise NetworkError("needs at least one population of Input neurons", where="network")
        for q in self.projections:
            if q.delay_seconds != 0.0:
                raise NetworkError(
                    "needs continuous time; in a network that steps, give delay in whole steps",
                    where=f"projection '{q.name}'",
                    field="delay_seconds",
                )
        object.__setattr__(self, "_ranks", _ranks(self.populations, self.projections))
        sources = {p.source for p in self.projections}
        outputs = tuple(self.outputs) or tuple(
            p.name for p in self.populations if p.name not in sources and not p.is_input
        )
        if not outputs:
            raise NetworkError(
                "every population has outgoing projections; name the output populations",
                where="network",
                field="outputs",
            )
        _unique("output", outputs)
        for name in outputs:
            self._population(name, "network", "outputs")
        object.__setattr__(self, "outputs", outputs)

    def _check_continuous(self) -> None:
        """In continuous time a cycle needs no delay, and nothing is returned by a step."""
        for p in self.populations:
            if not p.neuron.continuous:
                raise NetworkError(
                    f"'{p.neuron.kind}' neurons step, but the network has others in continuous "
                    "time; put them into two networks",
                    where=f"population '{p.name}'",
                    field="neuron",
                )
        for q in self.projections:
            if q.delay:
                raise NetworkError(
                    "is in steps, which continuous time does not have; give delay_seconds",
                    where=f"projection '{q.name}'",
                    field="delay",
                )
        object.__setattr__(self, "_ranks", dict.fromkeys((p.name for p in self.populations), 0))
        object.__setattr__(self, "outputs", tuple(self.outputs))
        _unique("output", self.outputs)
        for name in self.outputs:
            self._population(name, "network", "outputs")

    def _population(self, name: str, where: str, field: str) -> Population:
        try:
            return self[name]
        except UnknownNameError:
            known = ", ".join(p.name for p in self.populations)
            raise NetworkError(
                f"population {name!r} does not exist; there are: {known}", where=where, field=field
            ) from None

    def _check_projection(self, projection: Projection) -> None:
        where = f"projection '{projection.name}'"
        source = self._population(projection.source, where, "source")
        target = self._population(projection.target, where, "target")
        if target.is_input:
            raise NetworkError(
                f"'{target.name}' is an input population, which takes no synapses",
                where=where,
                field="target",
            )
        receptors = target.neuron.receptors
        if not projection.receptor:
            object.__setattr__(projection, "receptor", receptors[0])
        elif projection.receptor not in receptors:
            raise NetworkError(
                f"'{projection.receptor}' is not a port of '{target.name}', which has: "
                + ", ".join(receptors),
                where=where,
                field="receptor",
            )
        expected = (target.size, source.size)
        if projection.weights.shape != expected:
            raise NetworkError(
                f"have shape {projection.weights.shape}, expected {expected} = (size of "
                f"'{target.name}', size of '{source.name}')",
                where=where,
                field="weights",
            )

        if weights := getattr(projection.weights, "window", None):
            for population, axes in ((source, weights.source), (target, weights.target)):
                if len(population.shape) == 3 and population.shape[: len(axes)] != axes:
                    raise NetworkError(
                        f"have a window over {axes}, but '{population.name}' has the shape "
                        f"{population.shape}; give (height, width, channels)",
                        where=where,
                        field="weights",
                    )

    def _check_pool(self, population: Population) -> None:
        """See that max-pooling neurons, and they alone, watch a window."""
        incoming = self.incoming(population.name)
        watching = [q for q in incoming if q.weights.kind == "max_window"]
        if isinstance(population.neuron, MaxPool):
            if len(incoming) != 1 or len(watching) != 1 or incoming[0].delay:
                raise NetworkError(
                    "takes exactly one incoming projection, a max window without delay",
                    where=f"population '{population.name}'",
                    field="neuron",
                )
        elif watching:
            raise NetworkError(
                f"are a max window, but '{population.name}' are not max-pooling neurons",
                where=f"projection '{watching[0].name}'",
                field="weights",
            )

    def __getitem__(self, name: str) -> Population:
        """Return the population called `name`; UnknownNameError if there is none."""
        for population in self.populations:
            if population.name == name:
                return population
        raise UnknownNameError(f"the network has no population {name!r}")

    @cached_property
    def continuous(self) -> bool:
        """Whether time is continuous: some population is of the class "at crossing", or spikes."""
        return any(p.neuron.continuous for p in self.populations)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the input populations, in the order in which `step` takes their values."""
        return tuple(p.name for p in self.populations if p.is_input)

    @property
    def n_inputs(self) -> int:
        """Number of input values a step takes."""
        return sum(self[name].size for name in self.inputs)

    @property
    def n_outputs(self) -> int:
        """Number of output values a step returns."""
        return sum(self[name].size for name in self.outputs)

    @property
    def n_neurons(self) -> int:
        """Number of neurons, inputs included."""
        return sum(p.size for p in self.populations)

    @property
    def n_synapses(self) -> int:
        """Number of surviving (non-zero) synapses, unrolled."""
        return sum(p.weights.n_synapses for p in self.projections)

    @property
    def ranks(self) -> Mapping[str, int]:
        """Topological level of every population over the projections without delay."""
        return dict(self._ranks)

    def incoming(self, name: str) -> tuple[Projection, ...]:
        """Projections into population `name`."""
        return tuple(p for p in self.projections if p.target == name)

    def outgoing(self, name: str) -> tuple[Projection, ...]:
        """Projections out of population `name`."""
        return tuple(p for p in self.projections if p.source == name)

    def dense_macs(self, name: str | None = None) -> int:
        """Dense MACs per step into population `name`, or of the whole network."""
        return sum(p.dense_macs for p in self.projections if name in (None, p.target))

    def with_thresholds(self, thresholds: Thresholds) -> Network:
        """Return the network with other thresholds.

        Parameters
        ----------
        thresholds : float or mapping of str to float or array of shape (size,)
            One value for all populations, or values for the populations named; the others keep
            theirs.
        """
        if not isinstance(thresholds, Mapping):
            thresholds = dict.fromkeys((p.name for p in self.populations), thresholds)
        for name in thresholds:
            self._population(name, "network", "thresholds")
        populations = [
            replace(p, neuron=_with_threshold(p, thresholds[p.name])) if p.name in thresholds else p
            for p in self.populations
        ]
        return replace(self, populations=tuple(populations))

    def scale_thresholds(self, scale: float) -> Network:
        """Return the network with all thresholds multiplied by `scale`, >= 0."""
        if not (np.isfinite(scale) and scale >= 0.0):
            raise NetworkError(f"threshold scale is {scale}; give a finite number >= 0")
        return self.with_thresholds(
            {p.name: getattr(p.neuron, "threshold", 0.0) * scale for p in self.populations}
        )

    def with_weights(self, weights: Mapping[str, Any]) -> Network:
        """Return the network with other weights for the projections named.

        Dense MACs stay those of the present projections: a pruned layer is still compared with
        the layer it was made from.
        """
        unknown = set(weights) - {p.name for p in self.projections}
        if unknown:
            raise NetworkError(f"no projection is called {sorted(unknown)[0]!r}")
        projections = [
            Projection(
                p.source,
                p.target,
                weights[p.name],
                p.delay,
                p.receptor,
                p.name,
                p.dense_macs,
                p.delay_seconds if p.synapse_delays is None else p.synapse_delays,
            )
            if p.name in weights
            else p
            for p in self.projections
        ]
        return replace(self, projections=tuple(projections))

    def __repr__(self) -> str:
        positions = sum(p.weights.n_positions for p in self.projections)
        sizes = "-".join(str(p.size) for p in self.populations)
        name = f" '{self.name}'" if self.name else ""
        return f"<Network{name}: {sizes} neurons, {self.n_synapses} of {positions} synapses>"

    def _repr_html_(self) -> str:
        from eventsim import tables

        rows = []
        for population in self.populations:
            incoming = self.incoming(population.name)
            positions = sum(p.weights.n_positions for p in incoming)
            synapses = sum(p.weights.n_synapses for p in incoming)
            activation = getattr(population.neuron, "activation", None)
            rows.append(
                {
                    "name": population.name,
                    "neurons": str(population.size),
                    "model": f"{type(population.neuron).__name__.lower()} "
                    f"{getattr(activation, 'name', '')}",
                    "from": ", ".join(p.source for p in incoming),
                    "weights": str(positions),
                    "sparsity": tables.percent(1.0 - synapses / positions if positions else None),
                    "dense": str(self.dense_macs(population.name)),
                }
            )
        keys = {
            "name": "population",
            "neurons": "neurons",
            "model": "model",
            "from": "from",
            "weights": "weights",
            "sparsity": "connection sparsity",
            "dense": "dense MACs",
        }
        return tables.plain_table(repr(self), keys, rows, left=("name", "model", "from")).to_html()

    def to_networkx(self) -> nx.MultiDiGraph:
        """Return the population graph.

        Nodes carry ``size``, ``model``, ``rank``; edges (keyed by projection name) carry
        ``synapses``, ``dense_macs``, ``connection_sparsity``, ``delay``, ``receptor``.
        """
        import networkx as nx

        graph = nx.MultiDiGraph(name=self.name)
        for p in self.populations:
            graph.add_node(p.name, size=p.size, model=p.neuron.kind, rank=self._ranks[p.name])
        for q in self.projections:
            graph.add_edge(
                q.source,
                q.target,
                key=q.name,
                synapses=q.weights.n_synapses,
                dense_macs=q.dense_macs,
                connection_sparsity=q.connection_sparsity,
                delay=q.delay,
                receptor=q.receptor,
            )
        return graph

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[Any],
        biases: Sequence[ArrayLike | None] | None = None,
        activation: str | Activation | Sequence[str | Activation] = "relu",
        thresholds: float | Sequence[ArrayLike] = 0.0,
        *,
        output_activation: str | Activation = "identity",
        name: str = "",
    ) -> Network:
        """Build a feed-forward network from its layers.

        Parameters
        ----------
        weights : sequence of array or scipy.sparse matrix of shape (n_out, n_in)
            One a layer, in order, as in ``torch.nn.Linear.weight``.
        biases : sequence of array of shape (n_out,) or None, optional
            One a layer; default none.
        activation : str, Activation or a sequence of them, optional
            Of the hidden layers; a sequence has one a hidden layer.
        thresholds : float or sequence, optional
            One value for all populations, or one entry (float or array) for the input and each
            hidden layer; a further entry for the output is accepted.
        output_activation : str or Activation, optional
            Of the last layer.

        Returns
        -------
        Network
            With populations ``input``, ``hidden1``, ..., ``output``.

        Raises
        ------
        NetworkError
            If lengths or shapes do not fit.

        Examples
        --------
        >>> import numpy as np
        >>> from eventsim import Network
        >>> net = Network.from_arrays([np.ones((3, 2)), np.ones((1, 3))], activation="tanh")
        >>> [p.name for p in net.populations]
        ['input', 'hidden1', 'output']
        """
        n_layers = len(weights)
        if n_layers == 0:
            raise NetworkError("give at least one layer", where="from_arrays", field="weights")
        shapes = [np.shape(w) for w in weights]
        for i, shape in enumerate(shapes):
            if len(shape) != 2:
                raise NetworkError(
                    f"layer {i} has shape {shape}; give (n_out, n_in)",
                    where="from_arrays",
                    field="weights",
                )
        n_hidden = n_layers - 1
        hidden = _per_layer(activation, n_hidden)
        layer_biases = [None] * n_layers if biases is None else list(biases)
        limits = _per_layer(thresholds, n_layers + 1)
        if len(limits) == n_layers:
            limits.append(0.0)
        for what, values, count in (
            ("activation", hidden, n_hidden),
            ("biases", layer_biases, n_layers),
            ("thresholds", limits, n_layers + 1),
        ):
            if len(values) != count:
                raise NetworkError(
                    f"has {len(values)} entries for {n_layers} layers; expected {count}",
                    where="from_arrays",
                    field=what,
                )
        names = ["input", *(f"hidden{i + 1}" for i in range(n_hidden)), "output"]
        populations = [Population("input", int(shapes[0][1]), Input(limits[0]))]
        projections = []
        for i, (weight, bias) in enumerate(zip(weights, layer_biases, strict=True)):
            f = hidden[i] if i < n_hidden else output_activation
            neuron = Delta(f, 0.0 if bias is None else bias, limits[i + 1])
            populations.append(Population(names[i + 1], int(shapes[i][0]), neuron))
            projections.append(Projection(names[i], names[i + 1], weight))
        return cls(tuple(populations), tuple(projections), name=name)


def _per_layer(value: Any, count: int) -> list[Any]:
    """One entry a layer: a list, tuple or array as it is, anything else repeated."""
    if isinstance(value, list | tuple) or np.ndim(value) > 0:
        return list(value)
    return [value] * count


def _with_threshold(population: Population, threshold: ArrayLike) -> NeuronModel:
    neuron = population.neuron
    if isinstance(neuron, Input | MaxPool):
        return type(neuron)(threshold)  # type: ignore[arg-type]
    if isinstance(neuron, Delta):
        return Delta(neuron.activation, neuron.bias, threshold)
    return neuron


def _unique(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise NetworkError(f"{kind} '{name}' is declared twice; give each its own name")
        seen.add(name)


def _ranks(populations: Sequence[Population], projections: Sequence[Projection]) -> dict[str, int]:
    """Longest path from a source over the projections without delay."""
    immediate = [(p.source, p.target) for p in projections if p.delay == 0]
    waiting = {p.name: 0 for p in populations}
    for _, target in immediate:
        waiting[target] += 1
    ranks = dict.fromkeys(waiting, 0)
    ready = [name for name, count in waiting.items() if count == 0]
    done = 0
    while ready:
        name = ready.pop()
        done += 1
        for source, target in immediate:
            if source == name:
                ranks[target] = max(ranks[target], ranks[name] + 1)
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
    if done < len(waiting):
        cycle = sorted(name for name, count in waiting.items() if count > 0)
        raise NetworkError(
            "a cycle without delay runs through population(s) "
            + ", ".join(f"'{name}'" for name in cycle)
            + "; give one of its projections a delay of at least 1 step",
            where="network",
            field="projections",
        )
    return ranks


__all__ = ["MAX_DELAY", "NDArray", "Network", "Population", "Projection"]
