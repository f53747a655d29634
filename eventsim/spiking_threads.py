"""Two threads for one window: what `eventsim.kernels.window_threads` gains, as measured.

Engines run on one core. This goes through the same spikes on several, for the plainest networks of
LIF neurons, to see what that would bring.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import UnsupportedError
from eventsim.kernels import window_lif as lif
from eventsim.kernels import window_threads as kernels
from eventsim.spiking_window import WindowLIF

Float = NDArray[np.float64]


class ThreadedLIF:
    """Inhibitory LIF neurons with one weight and rows of one length, from an engine's state.

    Parameters
    ----------
    engine : WindowLIF
        It is left as it is.
    threads : int

    Raises
    ------
    UnsupportedError
        If the network has weights of its own, excitation, a delay, refractoriness or sources, or
        rows of different lengths or not in ascending order.
    """

    def __init__(self, engine: WindowLIF, threads: int) -> None:
        arguments, numbers, reals = engine._arguments, engine._numbers, engine._reals
        b, ratio, targets, scale = (arguments[k] for k in (0, 1, 4, 6))
        degree = int(numbers[lif.N_DEGREE])
        plain = degree > 0 and numbers[lif.N_WEIGHTED] == 0 and scale.size == ratio.size == 1
        plain = plain and reals[lif.R_DELAY] == 0.0 and numbers[lif.N_REFRACTORY] == lif.NO_REST
        if not plain or scale[0] < 0.0 or np.isinf(b).any():
            raise UnsupportedError(
                "is not one of inhibitory LIF neurons with one weight, without delay",
                where="network",
            )
        if (np.diff(targets[: 100 * degree].reshape(-1, degree).astype(np.int64)) < 0).any():
            raise UnsupportedError("has rows that do not ascend; sort them", where="network")
        n = b.size
        self.threads, self._degree = threads, degree
        self._b, self._targets = b.copy(), targets
        self._ratio, self._scale = float(ratio[0]), float(scale[0])
        self._widest = float(reals[lif.R_WIDEST])
        self._target = int(numbers[lif.N_TARGET])
        self._width = float(reals[lif.R_WIDTH])
        self._numbers, self._tau = numbers.copy(), float(reals[lif.R_TAU])
        self._limit = float(reals[lif.R_NOW])
        keys, ids = (
            [np.empty(n + 2) for _ in range(4)],
            [np.empty(n + 2, np.int32) for _ in range(5)],
        )
        self._keys, self._heap_keys, self._scratch, self._spike_key = keys
        self._ids, self._heap_ids, self._member, self._counts, self._spike_id = ids
        self._flags = np.zeros(n // 8 + 1, np.uint8)
        self._bounds = [n * k // threads for k in range(threads + 1)]

    def run(self, spikes: int) -> tuple[Float, NDArray[np.int32]]:
        """Simulate whole windows until there are at least so many spikes: seconds, neurons."""
        times, ids, done = [np.zeros(0)], [np.zeros(0, np.int32)], 0
        with ThreadPoolExecutor(max(self.threads - 1, 1)) as pool:
            while done < spikes:
                keys, who = self._window(pool)
                lif.to_seconds(keys, 0, keys.size, self._tau, self._numbers)
                times.append(keys)
                ids.append(who)
                done += who.size
        return np.concatenate(times), np.concatenate(ids)

    def _window(self, pool: ThreadPoolExecutor) -> tuple[Float, NDArray[np.int32]]:
        low, fold = self._limit, 2.0 ** -float(self._numbers[lif.N_EXPONENT])
        while low * fold >= 1.0:
            low *= fold
            self._b *= fold
            self._numbers[lif.N_FOLDS] += 1
        self._limit = limit = low * (1.0 + self._width)
        b, targets, degree, scale = self._b, self._targets, self._degree, self._scale
        window = (self._keys, self._ids)
        found = kernels.candidates(
            b, low, limit, *window, self._scratch, self._member, self._counts
        )
        count = kernels.spikes_of_window(
            *(b, self._ratio, targets, degree, scale, limit, found, *window),
            *(self._heap_keys, self._heap_ids, self._flags, self._spike_key, self._spike_id),
        )
        spikes = (count, self._spike_key, self._spike_id)
        parts = [
            partial(
                kernels.kick_others, b, targets, degree, scale, self._flags, *spikes, first, last
            )
            for first, last in pairwise(self._bounds)
        ]
        others = [pool.submit(part) for part in parts[1:]]
        parts[0]()
        wait(others)
        for other in others:
            other.result()
        kernels.clear(self._flags, found, self._ids)
        change = min(max(self._target / max(found, 1), 0.015625), 2.0)
        self._width = min(max(self._width * change, 1e-9), self._widest)
        return self._spike_key[:count].copy(), self._spike_id[:count].copy()
