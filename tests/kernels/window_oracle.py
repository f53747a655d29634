"""Slow twins of the window kernels: no window, no heap, the first of all neurons at every event."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from eventsim.kernels import window_lif as lif
from eventsim.kernels import window_qif as qif


@dataclass
class Lif:
    """What `eventsim.kernels.window_lif` is given, with room for its window."""

    b: list[float]
    ratio: list[float]
    rows: list[list[tuple[int, float]]]  # (target, c) of each neuron, then of external sources
    delay: float = 0.0  # exp(d / tau)
    refractory: int = lif.NO_REST
    rest: float = 1.0  # exp(refractory time / tau)
    external: list[tuple[float, int]] = field(default_factory=list)  # seconds, row
    tau: float = 0.01
    burst: int = 50

    def arrays(
        self, exponent: int = 64, target: int = 2, dtype: type = np.float64
    ) -> tuple[np.ndarray, ...]:
        n = len(self.b)
        flat = [entry for row in self.rows for entry in row]
        numbers, reals = np.zeros(lif.N_NUMBERS, np.int64), np.zeros(lif.N_REALS)
        numbers[lif.N_DEGREE] = -1
        numbers[lif.N_WEIGHTED] = 1
        numbers[lif.N_RATIOS] = 1
        numbers[lif.N_SIGNED] = int(any(c < 0 for _, c in flat))
        numbers[lif.N_EXPONENT] = exponent
        numbers[lif.N_REFRACTORY] = self.refractory
        numbers[lif.N_TARGET] = target
        numbers[lif.N_BURST] = self.burst
        numbers[lif.N_EXTERNALS] = len(self.external)
        reals[[lif.R_NOW, lif.R_LIMIT]] = 1.0
        reals[lif.R_WIDTH] = 1e-3
        reals[lif.R_WIDEST] = max(min(self.ratio) - 1.0, 1e-6) / 2
        reals[[lif.R_STOP, lif.R_HORIZON]] = np.inf
        reals[lif.R_DELAY], reals[lif.R_REST], reals[lif.R_TAU] = self.delay, self.rest, self.tau
        keys, ids = (lambda: np.full(n + 2, np.inf)), (lambda: np.zeros(n + 2, np.int32))
        ring = 1 << 10
        return (
            np.array(self.b),
            np.array(self.ratio),
            np.zeros(n),
            np.cumsum([0, *(len(row) for row in self.rows)]),
            np.array([j for j, _ in flat] or [0], np.uint32),
            np.array([c for _, c in flat] or [0], dtype),
            np.ones(1),
            np.ones(1, np.uint8),
            keys(),
            ids(),
            keys(),
            ids(),
            keys(),
            ids(),
            ids(),
            np.zeros(ring),
            np.zeros(ring, np.int32),
            np.zeros(ring),
            np.zeros(ring, np.int32),
            np.array([t for t, _ in self.external] or [0.0]),
            np.array([i for _, i in self.external] or [0], np.int32),
            numbers,
            reals,
        )

    def run(self, spikes: int) -> tuple[list[tuple[float, int]], int, int]:
        """Spikes (E, id), synaptic events, and the status."""
        n, keeps, loses = (
            len(self.b),
            self.refractory == lif.KEEPS,
            self.refractory == lif.LOSES,
        )
        b, until = list(self.b), [0.0] * len(self.b)
        on_way: deque[tuple[float, int]] = deque()
        asleep: deque[tuple[float, int]] = deque()
        outside = deque((math.exp(t / self.tau), i) for t, i in self.external)
        out: list[tuple[float, int]] = []
        now, synapses, same = 1.0, 0, 0

        def kick(row: int) -> None:
            for j, c in self.rows[row]:
                b[j] += c * now
                if c < 0 and b[j] < now and not (keeps and until[j] >= now):
                    b[j] = now

        while len(out) < spikes:
            key, i = min(((max(b[j], until[j]), j) for j in range(n)), default=(math.inf, -1))
            events = [
                (math.inf if not queue else queue[0][0], rank)
                for rank, queue in enumerate((asleep, on_way, outside))
            ]
            due, rank = min(events)
            if due <= key:
                if due == math.inf:
                    return out, synapses, lif.QUIET
                now = max(now, due)
                _, j = (asleep, on_way, outside)[rank].popleft()
                if rank == 0:
                    b[j] = self.ratio[j] * now
                else:
                    kick(j)
                    synapses += len(self.rows[j])
                continue
            same = same + 1 if key == now else 1
            if same > self.burst:
                return out, synapses, lif.RUNAWAY
            now = key
            out.append((now, i))
            b[i] = self.ratio[i] * now
            if loses:
                b[i] = math.inf
                asleep.append((now * self.rest, i))
            elif keeps:
                b[i] = self.ratio[i] * (now * self.rest)
                until[i] = now * self.rest
            if self.delay:
                on_way.append((now * self.delay, i))
            else:
                kick(i)
                synapses += len(self.rows[i])
        return out, synapses, lif.FULL


@dataclass
class Qif:
    """What `eventsim.kernels.window_qif` is given, with room for its window."""

    angles: np.ndarray  # half the phase, between -pi/2 and pi/2
    rows: list[list[tuple[int, float]]]  # (target, c)
    delay: float = 0.0  # as an angle
    external: list[tuple[float, int]] = field(default_factory=list)  # angle, row

    def arrays(self, target: int = 2, signed: bool = True) -> tuple[np.ndarray, ...]:
        n = len(self.angles)
        flat = [entry for row in self.rows for entry in row]
        numbers, reals = np.zeros(qif.N_NUMBERS, np.int64), np.zeros(qif.N_REALS)
        numbers[qif.N_DEGREE], numbers[qif.N_WEIGHTED] = -1, 1
        numbers[qif.N_SIGNED] = int(signed)
        numbers[qif.N_TARGET] = target
        numbers[qif.N_EXTERNALS] = len(self.external)
        reals[qif.R_WIDTH], reals[qif.R_WIDEST] = 1e-3, math.pi / 4
        reals[[qif.R_STOP, qif.R_HORIZON]] = np.inf
        reals[qif.R_DELAY], reals[qif.R_PACE] = self.delay, 1.0
        keys, ids = (lambda: np.full(n + 2, np.inf)), (lambda: np.zeros(n + 2, np.int32))
        pairs = np.empty(2 * n)
        pairs[0::2], pairs[1::2] = np.sin(self.angles), np.cos(self.angles)
        return (
            pairs,
            np.cumsum([0, *(len(row) for row in self.rows)]),
            np.array([j for j, _ in flat] or [0], np.uint32),
            np.array([c for _, c in flat] or [0], np.float64),
            np.ones(1),
            np.ones(1, np.uint8),
            keys(),
            ids(),
            keys(),
            ids(),
            ids(),
            np.zeros(2 * n + 4),
            keys(),
            ids(),
            ids(),
            np.zeros(1 << 10),
            np.zeros(1 << 10, np.int32),
            np.array([t for t, _ in self.external] or [0.0]),
            np.array([i for _, i in self.external] or [0], np.int32),
            numbers,
            reals,
        )

    def run(self, spikes: int, kind: type = np.longdouble) -> tuple[np.ndarray, np.ndarray]:
        """Angles of time at the spikes, and their neurons; in extended precision."""
        half = 2 * np.arctan(kind(1))
        left = half - self.angles.astype(kind)  # angle to the next spike
        rows = [
            (np.array([j for j, _ in row], np.int64), np.array([c for _, c in row], kind))
            for row in self.rows
        ]
        on_way: deque[tuple[object, int]] = deque()
        outside = deque((kind(t), i) for t, i in self.external)
        now, times, ids = kind(0), [], []

        def kick(row: int) -> None:
            for j, c in zip(*rows[row], strict=True):
                if half - left[j] > -half:  # one that has just fired is out of reach
                    left[j] = half - np.arctan(np.tan(half - left[j]) + c)

        while len(times) < spikes:
            i = int(np.argmin(left))
            key = now + left[i]
            due, queue = min(
                (on_way[0][0] if on_way else kind(np.inf), 0),
                (outside[0][0] if outside else kind(np.inf), 1),
            )
            step = min(due, key) - now
            left -= step
            now += step
            if due <= key:
                kick((on_way, outside)[queue].popleft()[1])
                continue
            times.append(now)
            ids.append(i)
            left[i] = 2 * half
            if self.delay:
                on_way.append((now + kind(self.delay), i))
            else:
                kick(i)
        return np.array(times, kind), np.array(ids)
