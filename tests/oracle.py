"""A slow twin of the reference engine in plain Python: dictionaries, lists, one loop a synapse."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from eventsim.kernels.activations import tanh
from eventsim.network import Network, Population
from eventsim.neurons import Delta


def scalar_activation(name: str, p: dict[str, float], u: float) -> float:
    """f(u) with the math module, but for tanh, which tests/kernels/test_tanh.py holds to mpmath."""
    sigmoid = (1.0 if u >= 0 else math.exp(-abs(u))) / (1.0 + math.exp(-abs(u)))
    table = {
        "identity": lambda: u,
        "relu": lambda: max(u, 0.0),
        "leaky_relu": lambda: u if u > 0 else p["alpha"] * u,
        "elu": lambda: u if u > 0 else p["alpha"] * math.expm1(u),
        "tanh": lambda: tanh(u),
        "sigmoid": lambda: sigmoid,
        "softplus": lambda: max(u, 0.0) + math.log1p(math.exp(-abs(u))),
        "silu": lambda: u * sigmoid,
        "gelu": lambda: (
            0.5 * u * (1 + tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u)))
            if p["approximate"]
            else 0.5 * u * (1 + math.erf(u * math.sqrt(0.5)))
        ),
        "clip": lambda: min(max(u, p["low"]), p["high"]),
    }
    return float(table[name]())


def once_rounded(w: float, d: float, u: float) -> float:
    """Return u + w d, rounded once; of finite numbers."""
    exact = Fraction(float(w)) * Fraction(float(d)) + Fraction(float(u))
    return float(exact) if exact else w * d + u


@dataclass
class Twin:
    """Simulate `network` and keep every step's counts and events."""

    network: Network
    events: list[tuple[int, str, int, float]] = field(default_factory=list)
    counts: list[dict[str, dict[str, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.synapses: dict[tuple[str, int], list[tuple[int, str, int, float]]] = defaultdict(list)
        for q in self.network.projections:
            dense = q.weights.to_dense().astype(float)
            for i in range(dense.shape[1]):
                for j in range(dense.shape[0]):
                    if dense[j, i] != 0.0:
                        self.synapses[q.source, i].append((q.delay, q.target, j, dense[j, i]))
        self.reset()

    def reset(self) -> None:
        self.step_index = 0
        self.u = {p.name: self._bias(p) for p in self.network.populations}
        self.s = {p.name: [0.0] * p.size for p in self.network.populations}
        self.a = {p.name: [0.0] * p.size for p in self.network.populations}
        self.pending = {(p.name, i) for p in self.network.populations for i in range(p.size)}
        self.delayed: dict[
            int, list[tuple[tuple[int, int, int, int], str, int, tuple[float, float], int]]
        ] = defaultdict(list)

    def _bias(self, p: Population) -> list[float]:
        return (
            [float(b) for b in p.parameter("bias")]
            if isinstance(p.neuron, Delta)
            else [0.0] * p.size
        )

    def _global_id(self, name: str, neuron: int) -> int:
        base = 0
        for p in self.network.populations:
            if p.name == name:
                return base + neuron
            base += p.size
        raise KeyError(name)

    def step(self, x: np.ndarray) -> np.ndarray:
        t = self.step_index
        count = {
            p.name: {"evaluations": 0, "events": 0, "macs": 0} for p in self.network.populations
        }
        for _, target, j, (w, d), _ in sorted(self.delayed.pop(t, []), key=lambda e: e[0]):
            self.u[target][j] = once_rounded(w, d, self.u[target][j])
            self.pending.add((target, j))
            count[target]["macs"] += 1
        k = 0
        for name in self.network.inputs:
            for i in range(self.network[name].size):
                if float(x[k]) != self.u[name][i]:
                    self.u[name][i] = float(x[k])
                    self.pending.add((name, i))
                k += 1
        while self.pending:
            name, i = min(
                self.pending,
                key=lambda e: (self.network.ranks[e[0]], self._global_id(*e)),
            )
            self.pending.remove((name, i))
            self._evaluate(name, i, t, count)
        self.counts.append(count)
        self.step_index += 1
        return np.array([v for name in self.network.outputs for v in self.a[name]])

    def _evaluate(self, name: str, i: int, t: int, count: dict[str, dict[str, int]]) -> None:
        population = self.network[name]
        count[name]["evaluations"] += 1
        a = self.u[name][i]
        if isinstance(population.neuron, Delta):
            f = population.neuron.activation
            a = scalar_activation(f.name, dict(f.__dict__), a)
        self.a[name][i] = a
        if not self.synapses[name, i]:
            return
        d = a - self.s[name][i]
        if abs(d) <= population.parameter("threshold")[i]:
            return
        self.s[name][i] += d
        count[name]["events"] += 1
        self.events.append((t, name, i, d))
        for number, (delay, target, j, w) in enumerate(self.synapses[name, i]):
            if delay == 0:
                self.u[target][j] = once_rounded(w, d, self.u[target][j])
                self.pending.add((target, j))
                count[target]["macs"] += 1
            else:
                key = (self.network.ranks[name], self._global_id(name, i), t, number)
                self.delayed[t + delay].append((key, target, j, (w, d), t))

    def run(self, xs: np.ndarray) -> np.ndarray:
        return np.stack([self.step(x) for x in xs])
