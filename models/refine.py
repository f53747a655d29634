"""Make an event-driven policy that does its job cheaper still, without gradients.

What training leaves is refined against what is really wanted: the return in the environment, and
the multiplications that the simulator counts. Single changes are tried, a higher threshold of one
neuron, a synapse less, two synapses made equal where only their difference matters. What each would
save and how far it would move the actions is measured on recorded inputs, in milliseconds; the best
of them are taken together, and only they are played in the environment. Where playing says no, half
as many are taken, and a single change that fails is not tried again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.batch import BatchSimulator
from eventsim.errors import InputError, UnsupportedError
from eventsim.models.compaction import compact
from eventsim.models.decoders import Argmax, ClipBox
from eventsim.models.policy import Policy
from eventsim.network import Network
from eventsim.neurons import Delta

Float: TypeAlias = NDArray[np.float64]

#: Factors by which a threshold is raised.
_FACTORS = (1.25, 1.6, 2.5, 5.0)
#: A neuron whose threshold is 0 begins at so many spreads of what it sends.
_FIRST = 0.05
#: Added to the change of the actions, so that changes that do nothing are compared by savings.
_FREE = 1e-4


@dataclass(frozen=True, eq=False)
class Watched:
    """What came of an episode.

    Attributes
    ----------
    total : float
        Return.
    steps, macs, acs : int
        Environment steps, and synaptic operations over all of them, the cold first one included.
    inputs : float64 array of shape (steps, n_inputs)
        Encoded observations.
    """

    total: float
    steps: int
    macs: int
    acs: int
    inputs: Float


@dataclass(frozen=True)
class Refining:
    """How a policy is refined.

    Parameters
    ----------
    limit : float
        Largest mean loss on the seeds played, relative to the teacher's advantage, `caution`
        standard errors added.
    caution : float
        Where returns vary much, the best of many tries owes a good deal to luck; so it must do
        that much better.
    screened, validated : int
        Episodes of a first look, and of a whole one.
    recorded : int
        Steps on which changes are compared.
    first : int
        Changes taken together at first.
    failures : int
        Single changes that may fail in a row before it ends.
    checks : int
        Looks in the environment at most.
    shakes : int
        Random small steps of all weights, biases and thresholds that are tried when no change is
        left that holds; each that returns more makes room for further changes.
    shake : float
        Their standard deviation, relative to each value.
    """

    limit: float = 0.01
    caution: float = 0.5
    screened: int = 16
    validated: int = 64
    recorded: int = 4_000
    first: int = 8
    failures: int = 6
    checks: int = 200
    shakes: int = 12
    shake: float = 0.1


@dataclass(frozen=True, eq=False)
class Refined:
    """A policy that got cheaper and held on the seeds played.

    Attributes
    ----------
    policy : Policy
    macs, acs : float
        Multiplications and additions a step over the episodes played.
    returns : float64 array
        In the order of the seeds.
    loss, error : float
        Their mean loss, and its standard error.
    checks : int
        Looks in the environment so far.
    """

    policy: Policy
    macs: float
    acs: float
    returns: Float
    loss: float
    error: float
    checks: int

    @property
    def synops(self) -> float:
        """Synaptic operations a step."""
        return self.macs + self.acs


def refine(
    policy: Policy,
    play: Callable[[Policy, Sequence[int]], Sequence[Watched]],
    losses: Callable[[Float, Sequence[int]], Float],
    seeds: Sequence[int],
    refining: Refining | None = None,
    *,
    seed: int = 0,
    go_on: Callable[[], bool] = lambda: True,
) -> Iterator[Refined]:
    """Yield ever cheaper policies.

    Parameters
    ----------
    policy : Policy
        Of a feed-forward network of delta neurons without delays. It should hold the return; if
        it does not, changes are accepted as long as they lose no more than it does.
    play : callable
        Plays a policy by events from each of the seeds, inputs recorded.
    losses : callable
        Losses of returns on seeds, one an episode, relative to the teacher's advantage.
    seeds : sequence of int
        At least `validated` of them. The same ones throughout, so that changes are compared with
        equal luck; a final choice needs others.
    refining : Refining, optional
    seed : int, optional
        Breaks ties.
    go_on : callable, optional
        Asked before every look in the environment; False ends it.

    Raises
    ------
    InputError
        If there are too few seeds.
    UnsupportedError
        If the network is of another kind.
    """
    options = refining or Refining()
    if len(seeds) < options.validated:
        raise InputError(
            f"has {len(seeds)} entries; give at least {options.validated}", field="seeds"
        )
    _check(policy.network)
    search = _Refinement(policy, play, losses, seeds, options, np.random.default_rng(seed))
    yield from search.run(go_on)


class _Refinement:
    def __init__(
        self,
        policy: Policy,
        play: Callable[[Policy, Sequence[int]], Sequence[Watched]],
        losses: Callable[[Float, Sequence[int]], Float],
        seeds: Sequence[int],
        options: Refining,
        rng: np.random.Generator,
    ) -> None:
        self._play, self._losses, self._seeds = play, losses, seeds
        self._options, self._rng = options, rng
        self._checks = 0
        self._policy = settle(policy)
        self._first = self._policy
        self._seen: list[Float] = []
        self._episodes: list[Float] = []
        self._inputs: Float = np.zeros((0, 0))
        self._wanted: Float = np.zeros((0, 0))

    def run(self, go_on: Callable[[], bool]) -> Iterator[Refined]:
        if not go_on():
            return
        best = self._look(self._policy, math.inf)
        if best is None:
            return
        limit = self._limit(best)
        yield best
        self._anchor()
        taken, failed = self._options.first, 0
        refused: set[Change] = set()
        changes = self._ranked(refused)
        while changes and self._checks < self._options.checks and go_on():
            some = changes[:taken]
            trial = settle(self._with(some))
            found = self._look(trial, limit)
            if found is not None and found.synops < best.synops:
                best = found
                self._policy = trial
                yield best
                self._anchor(keep_wanted=True)
                taken, failed = min(2 * taken, 4 * self._options.first), 0
            elif taken > 1 and len(some) > 1:
                taken = max(1, min(taken, len(some)) // 2)
                continue
            else:
                refused.add(some[0])
                failed += 1
                if failed >= self._options.failures:
                    better = self._shaken(best, go_on)
                    if better is None:
                        return
                    best, taken, failed = better, self._options.first, 0
                    refused.clear()
                    limit = self._limit(best)
                    yield best
                    self._anchor()
            changes = self._ranked(refused)

    def _limit(self, best: Refined) -> float:
        """Return what may be lost: no less than is lost already."""
        return max(self._options.limit, best.loss + self._options.caution * best.error)

    def _look(self, policy: Policy, limit: float) -> Refined | None:
        """Play; None if it loses more than the limit."""
        options = self._options
        self._checks += 1
        played: list[Watched] = []
        for first, stop in ((0, options.screened), (options.screened, options.validated)):
            played += self._play(policy, self._seeds[first:stop])
            returns = np.array([one.total for one in played])
            losses = self._losses(returns, self._seeds[:stop])
            error = losses.std(ddof=1) / math.sqrt(len(losses))
            # The first look only sorts out what is worse by more than chance explains.
            margin = options.caution if stop == options.validated else -2.0
            if losses.mean() + margin * error > limit:
                return None
        self._seen = self._some([one.inputs for one in played])
        return Refined(
            policy,
            sum(one.macs for one in played) / sum(one.steps for one in played),
            sum(one.acs for one in played) / sum(one.steps for one in played),
            returns,
            float(losses.mean()),
            float(error),
            self._checks,
        )

    def _shaken(self, best: Refined, go_on: Callable[[], bool]) -> Refined | None:
        """Try random steps, and keep those that return more at about the same work."""
        options = self._options
        result, policy = None, self._policy
        for _ in range(options.shakes):
            if not go_on() or self._checks >= options.checks:
                break
            trial = settle(policy.with_network(shaken(policy.network, options.shake, self._rng)))
            present = result or best
            found = self._look(trial, present.loss + options.caution * present.error)
            if found is None or found.synops > 1.02 * present.synops:
                continue
            gains = found.returns - present.returns
            error = gains.std(ddof=1) / math.sqrt(gains.size)
            if gains.mean() > 0.5 * error:
                result, policy = found, trial
        if result is not None:
            self._policy = policy
            self._seen = self._inputs_of(policy)
        return result

    def _inputs_of(self, policy: Policy) -> list[Float]:
        return [one.inputs for one in self._play(policy, self._seeds[: self._options.screened])]

    def _anchor(self, keep_wanted: bool = False) -> None:
        """Take the inputs last seen for those on which changes are compared.

        The actions wanted on them are those of the policy as it was first, so that small changes
        do not add up unseen.
        """
        kept = self._some(self._seen)
        self._episodes, self._inputs = kept, np.concatenate(kept)
        if not keep_wanted:
            self._first = self._policy
        self._wanted = self._outputs(self._first.network)[0]

    def _some(self, episodes: Sequence[Float]) -> list[Float]:
        """As many as have the steps on which changes are compared."""
        kept: list[Float] = []
        total = 0
        for x in episodes:
            if kept and total >= self._options.recorded:
                break
            kept.append(x)
            total += len(x)
        return kept

    def _outputs(self, network: Network) -> tuple[Float, float]:
        """Outputs of shape (T, m) by events, and synaptic operations a step."""
        simulator = BatchSimulator(network, 1)
        outputs, synops = [], 0
        for x in self._episodes:
            simulator.reset()
            outputs.append(simulator.run(x[np.newaxis])[0])
            synops += simulator.totals.synops
        return np.concatenate(outputs), synops / len(self._inputs)

    def _moved(self, outputs: Float) -> float:
        """How far the actions are from those wanted."""
        decoder = self._policy.decoder
        mine, wanted = decoder.decode_batch(outputs), decoder.decode_batch(self._wanted)
        if not isinstance(decoder, ClipBox):
            return float((mine != wanted).mean())
        spread = np.maximum(wanted.std(axis=0, dtype=np.float64), 1e-9)
        return float(np.square((mine - wanted) / spread).mean())

    def _ranked(self, refused: set[Change]) -> list[Change]:
        """Changes that save something, the best bargains first."""
        network = self._policy.network
        before, cost = self._outputs(network)
        moved = self._moved(before)
        found = []
        for change in changes_of(self._policy):
            if change in refused:
                continue
            outputs, after = self._outputs(settle(self._with([change])).network)
            saved = math.log((cost + 1e-3) / (after + 1e-3))
            if saved > 1e-4:
                harm = max(self._moved(outputs) - moved, 0.0) + _FREE
                found.append((harm / saved, self._rng.random(), change))
        # One change a neuron or synapse at a time, or they would be taken twice over.
        chosen: dict[tuple[Any, ...], Change] = {}
        for _, _, change in sorted(found, key=lambda one: one[:2]):
            chosen.setdefault(change.place, change)
        return list(chosen.values())

    def _with(self, changes: Sequence[Change]) -> Policy:
        network = self._policy.network
        for change in changes:
            network = change.apply(network, self._inputs)
        return self._policy.with_network(network)


@dataclass(frozen=True)
class Change:
    """A single change of a network.

    Attributes
    ----------
    kind : {"threshold", "cut", "merge"}
        A threshold times `value`; a synapse less; a synapse into the output made equal to that
        into output `value`.
    name : str
        Population or projection.
    target, source : int
        Neuron, or synapse.
    value : float
    """

    kind: str
    name: str
    target: int
    source: int = -1
    value: float = 0.0

    @property
    def place(self) -> tuple[Any, ...]:
        """What it changes."""
        where = "threshold" if self.kind == "threshold" else "weight"
        # A column of the output layer has one merge or cut at a time.
        return (
            where,
            self.name,
            self.source if self.kind == "merge" else (self.target, self.source),
        )

    def apply(self, network: Network, inputs: Float) -> Network:
        """Return the changed network; `inputs` of shape (T, n) give means and spreads."""
        if self.kind == "threshold":
            theta = network[self.name].parameter("threshold").copy()
            old = theta[self.target]
            if old == 0.0:
                old = _FIRST * _values(network, self.name, inputs)[:, self.target].std()
            theta[self.target] = max(old, 1e-12) * self.value
            return network.with_thresholds({self.name: theta})
        projection = next(q for q in network.projections if q.name == self.name)
        weights = projection.weights.to_dense().copy()
        old = weights[self.target, self.source]
        new = (
            weights[int(self.value), self.source] if self.kind == "merge" else weights.dtype.type(0)
        )
        weights[self.target, self.source] = new
        mean = _values(network, projection.source, inputs)[:, self.source].mean()
        shift = np.zeros(network[projection.target].size)
        shift[self.target] = (float(old) - float(new)) * mean
        return _with_bias(network.with_weights({self.name: weights}), projection.target, shift)


def changes_of(policy: Policy) -> list[Change]:
    """All single changes of a policy that may make it cheaper."""
    network = policy.network
    found = []
    # Every change of a truth value is 1: a threshold sends it, or cuts the pixel off.
    binary = (
        policy.encoder.pixels is not None and getattr(policy.encoder.space, "dtype", "") == "bool"
    )
    for population in network.populations:
        if not network.outgoing(population.name):
            continue
        if population.is_input and binary:
            continue
        heard = np.zeros(population.size, np.bool_)
        for q in network.outgoing(population.name):
            heard |= (q.weights.to_dense() != 0).any(axis=0)
        found += [
            Change("threshold", population.name, int(j), value=factor)
            for j in np.flatnonzero(heard)
            for factor in _FACTORS
        ]
    tied = isinstance(policy.decoder, Argmax)
    for q in network.projections:
        weights = q.weights.to_dense()
        for j, i in np.argwhere(weights != 0):
            found.append(Change("cut", q.name, int(j), int(i)))
            if tied and q.target in network.outputs:
                found += [
                    Change("merge", q.name, int(j), int(i), float(k))
                    for k in range(len(weights))
                    if k != j and weights[k, i] not in (0.0, weights[j, i])
                ]
    return found


def settle(policy: Policy) -> Policy:
    """Return the same policy without what cannot matter to its actions.

    The action of the largest output is the same if one amount is added to all outputs. So where
    most synapses of one neuron onto the outputs have the same weight, this weight is taken off
    all of them: those become zero and send nothing. The events of the other neurons stay, the
    differences of the outputs stay to rounding. What no longer matters is removed
    (`eventsim.models.compaction.compact`).
    """
    network = policy.network
    if isinstance(policy.decoder, Argmax) and len(network.outputs) == 1:
        changed = {}
        for q in network.incoming(network.outputs[0]):
            weights = q.weights.to_dense()
            columns = [_without_ties(column) for column in weights.T]
            changed[q.name] = np.stack(columns, axis=1)
        network = network.with_weights(changed)
    return policy.with_network(compact(network))


def shaken(network: Network, size: float, rng: np.random.Generator) -> Network:
    """Return the network with every weight, bias and threshold moved a little at random.

    Parameters
    ----------
    network : Network
    size : float
        Standard deviation of the steps: of weights and thresholds relative to each; of biases
        relative to the root mean square of the weights into the neuron.
    rng : numpy.random.Generator
    """
    weights = {}
    scales = {p.name: np.zeros(p.size) for p in network.populations}
    for q in network.projections:
        w = q.weights.to_dense()
        weights[q.name] = (w * np.exp(size * rng.normal(size=w.shape))).astype(w.dtype)
        scales[q.target] += np.square(w.astype(np.float64)).sum(axis=1)
    result = network.with_weights(weights)
    for p in network.populations:
        theta = p.parameter("threshold") * np.exp(size * rng.normal(size=p.size))
        result = result.with_thresholds({p.name: theta})
        if isinstance(p.neuron, Delta):
            shift = size * np.sqrt(scales[p.name]) * rng.normal(size=p.size)
            result = _with_bias(result, p.name, shift)
    return result


def _without_ties(column: Float) -> Float:
    values, counts = np.unique(column, return_counts=True)
    zeros = int(counts[values == 0.0].sum())
    if counts.max() <= zeros:
        return column
    most = values[counts == counts.max()]
    # Of equally frequent values, the middle one leaves the smallest weights.
    middle = most[np.argmin([np.abs(column - v).sum() for v in most])]
    return np.asarray(column - middle)


def _values(network: Network, population: str, inputs: Float) -> Float:
    """What a population does over the inputs, dense, of shape (T, size)."""
    from eventsim.models.activity import activity

    return activity(network, inputs).activations[population]


def _with_bias(network: Network, name: str, shift: Float) -> Network:
    populations = []
    for p in network.populations:
        if p.name == name and isinstance(p.neuron, Delta):
            neuron = Delta(
                p.neuron.activation, p.parameter("bias") + shift, p.parameter("threshold")
            )
            p = replace(p, neuron=neuron)
        populations.append(p)
    return replace(network, populations=tuple(populations))


def _check(network: Network) -> None:
    if any(q.delay for q in network.projections):
        raise UnsupportedError("a network with delays cannot be refined", where="network")
    for p in network.populations:
        if not p.is_input and not isinstance(p.neuron, Delta):
            raise UnsupportedError(
                f"'{p.neuron.kind}' cannot be refined; only delta neurons can",
                where=f"population '{p.name}'",
            )


def evenly(found: Sequence[Refined], count: int) -> list[Refined]:
    """So many of a sequence, the last among them."""
    places = np.linspace(len(found) - 1, 0, min(count, len(found))).round().astype(int)
    return [found[k] for k in sorted(set(places.tolist()))]
