"""Clocked spiking neurons, updated once a step, in NumPy: the engine of `ClockedLIF` networks.

What a population transmits in a step (changes of an input, or spikes) is kept for as many steps as
its longest delay. A clocked neuron's input is the sum of what its input populations hold, and of
the weights of the spikes that arrive in the step.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventsim.engines import Engine, form_of
from eventsim.errors import InputError
from eventsim.kernels.status import (
    ACS,
    BUFFER_FULL,
    EVALUATIONS,
    EVENTS,
    EXECUTED,
    MACS,
    N_COUNTERS,
    NONFINITE_INPUT,
    NONFINITE_STATE,
    OK,
    WRONG_SIZE,
)
from eventsim.network import Network
from eventsim.neurons import Input
from eventsim.spiking_neurons import ClockedLIF

Int = NDArray[np.int64]
Float = NDArray[np.float64]


def clocked_obstacle(network: Network) -> str | None:
    """Return what keeps `ClockedEngine` from running the network, or None."""
    for p in network.populations:
        if not isinstance(p.neuron, Input | ClockedLIF):
            return f"population '{p.name}' has '{p.neuron.kind}' neurons"
    return None


class ClockedEngine(Engine):
    """Networks of inputs and clocked neurons, in order of rank within a step."""

    name = "clocked"

    def __init__(
        self, network: Network, *, n_tables: int = 1, record: bool = False, wide: bool = False
    ) -> None:
        self._populations = network.populations
        index = {p.name: k for k, p in enumerate(network.populations)}
        self._first = np.cumsum([0, *(p.size for p in network.populations)])
        ranks = network.ranks
        self._order = sorted(range(len(index)), key=lambda k: ranks[network.populations[k].name])
        place = {k: n for n, k in enumerate(self._order)}
        self._incoming: list[list[tuple[int, int, Int, Int, Float]]] = [[] for _ in index]
        longest = [0] * len(index)
        self._transmits = [np.zeros(p.size, np.bool_) for p in network.populations]
        # Sums in the order of the sources; of one source the earlier transmission first.
        for q in sorted(network.projections, key=lambda q: (place[index[q.source]], -q.delay)):
            pointers, targets, weights = q.weights.rows()
            source = index[q.source]
            longest[source] = max(longest[source], q.delay)
            self._transmits[source] |= np.diff(pointers) > 0
            row = (source, q.delay, pointers, targets, weights.astype(np.float64))
            self._incoming[index[q.target]].append(row)
        sizes = [p.size for p in network.populations]
        self._sent = [np.zeros((d + 1, n)) for d, n in zip(longest, sizes, strict=True)]
        self._value = [np.zeros(n) for n in sizes]  # v of a neuron, x of an input
        self._held = [np.zeros(n) for n in sizes]  # input of a neuron, s of an input
        self._inputs = [index[name] for name in network.inputs]
        self._outputs = [index[name] for name in network.outputs]
        self._n_inputs, self._n_outputs = network.n_inputs, network.n_outputs
        self._form = form_of(network)
        self._step = np.zeros(1, np.int64)
        self._room = max(n_tables, 1)
        self._tables = np.zeros((self._room, len(index), N_COUNTERS), np.int64)
        self._last = np.zeros((len(index), N_COUNTERS), np.int64)
        self._totals = np.zeros_like(self._last)
        self._record = record
        self._values: list[Float] = []
        self._neurons: list[Int] = []
        self._done = self._detail = 0
        self.plan = self.state = np.zeros(0, np.int64)
        self.reset()

    def kernel(self, inputs: Float, outputs: Float, plan: Int, state: Int) -> int:
        """Advance by the rows of `inputs`."""
        if inputs.size * self._n_outputs != outputs.size * self._n_inputs:
            return WRONG_SIZE
        x = np.ascontiguousarray(inputs).reshape(-1, self._n_inputs)
        y = outputs.reshape(len(x), -1)
        self._done = 0
        for row, out in zip(x, y, strict=True):
            bad = np.flatnonzero(~np.isfinite(row))
            if bad.size:
                self._detail = int(bad[0])
                return NONFINITE_INPUT
            if self._record and sum(map(len, self._neurons)) > 1 << 20:
                return BUFFER_FULL
            count = np.zeros_like(self._last)
            if not self._advance(row, count):
                return NONFINITE_STATE
            step = self._step[0]
            spikes = [self._sent[k][step % len(self._sent[k])] for k in range(len(self._sent))]
            out[:] = np.concatenate(
                [self._value[k] if k in self._inputs else spikes[k] for k in self._outputs]
            )
            self._tables[self._done % self._room] = count
            self._last[:] = count
            self._totals += count
            self._step += 1
            self._done += 1
        return OK

    def _advance(self, row: Float, count: Int) -> bool:
        step, at = int(self._step[0]), 0
        given: dict[int, Float] = {}
        for k in self._inputs:
            given[k] = row[at : at + self._populations[k].size]
            at += self._populations[k].size
        for k in self._order:
            model = self._populations[k].neuron
            if isinstance(model, Input):
                pending = (given[k] != self._value[k]) | (step == 0)
                self._value[k][:] = given[k]
                change = given[k] - self._held[k]
                sends = pending & self._transmits[k] & (np.abs(change) > model.threshold)
                change = np.where(sends, change, 0.0)
                self._held[k] += change
                count[k, EVALUATIONS] = int(pending.sum())
            else:
                assert isinstance(model, ClockedLIF)  # noqa: S101 - as `choose` has seen
                spikes = self._arrivals(k, step, count)
                z = self._spiked[k]
                v = self._value[k]
                if model.reset == "zero":
                    v[:] = model.beta * ((1.0 - z) * v) + (self._held[k] + spikes)
                else:
                    v[:] = model.beta * v + (self._held[k] + spikes) - z * model.threshold
                if not np.isfinite(v).all():
                    self._detail = int(self._first[k] + np.flatnonzero(~np.isfinite(v))[0])
                    return False
                sends = v - model.threshold > 0.0
                change = sends.astype(np.float64)
                self._spiked[k][:] = change
                count[k, EVALUATIONS] = v.size
            count[k, EVENTS] = int(sends.sum())
            self._sent[k][step % len(self._sent[k])] = change
            if self._record and sends.any():
                who = np.flatnonzero(sends)
                self._neurons.append(np.stack([np.full(who.size, step), who + self._first[k]]))
                self._values.append(change[who])
        return True

    def _arrivals(self, k: int, step: int, count: Int) -> Float:
        """Add arriving changes to what is held; return the sum of arriving spikes."""
        spikes = np.zeros(self._populations[k].size)
        for source, delay, pointers, targets, weights in self._incoming[k]:
            if step < delay:
                continue
            sent = self._sent[source][(step - delay) % len(self._sent[source])]
            graded = self._populations[source].neuron.graded
            into, number = self._held[k] if graded else spikes, 0
            for i in np.flatnonzero(sent):
                here = slice(pointers[i], pointers[i + 1])
                into[targets[here]] += weights[here] * sent[i]
                number += here.stop - here.start
            count[k, MACS if graded else ACS] += number
            count[k, EXECUTED] += number
        return spikes

    def reset(self) -> None:
        for array in (*self._sent, *self._value, *self._held):
            array[:] = 0.0
        self._spiked = [np.zeros(p.size) for p in self._populations]
        self._step[0] = 0
        self._last[:] = 0
        self._totals[:] = 0
        self._neurons, self._values = [], []

    @property
    def step_index(self) -> int:
        return int(self._step[0])

    @property
    def done(self) -> int:
        return self._done

    @property
    def detail(self) -> int:
        return self._detail

    def tables(self, n_steps: int) -> Int:
        return self._tables[:n_steps]

    @property
    def last(self) -> Int:
        return self._last.copy()

    @property
    def totals(self) -> Int:
        return self._totals.copy()

    def events(self) -> tuple[Int, Int, Float]:
        pairs = np.concatenate([np.zeros((2, 0), np.int64), *self._neurons], axis=1)
        values = np.concatenate([np.zeros(0), *self._values])
        self._neurons, self._values = [], []
        return pairs[0], pairs[1], values

    def next_time(self) -> float:
        if any(isinstance(p.neuron, ClockedLIF) for p in self._populations):
            return float(self._step[0])  # all are updated at every step
        return math.inf

    def get_state(self) -> tuple[NDArray[Any], ...]:
        arrays = (*self._sent, *self._value, *self._held, *self._spiked)
        return (self._form, *(a.copy() for a in arrays), self._step.copy())

    def set_state(self, arrays: tuple[NDArray[Any], ...]) -> None:
        mine = (self._form, *self._sent, *self._value, *self._held, *self._spiked, self._step)
        same = [(a.shape, a.dtype) for a in arrays] == [(a.shape, a.dtype) for a in mine]
        if not same or not np.array_equal(arrays[0], self._form):
            raise InputError(
                "the state belongs to another network or engine; use one of this simulator's"
            )
        for here, other in zip(mine[1:], arrays[1:], strict=True):
            here[...] = other
