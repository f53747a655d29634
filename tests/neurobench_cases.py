"""Networks and inputs on which eventsim and NeuroBench are compared; needs NumPy alone."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A stack of linear layers with one activation between them, its inputs, its batches."""

    name: str
    weights: tuple[Float, ...]
    biases: tuple[Float | None, ...]
    activation: str
    registered: bool  # whether the activation was registered with NeuroBench
    inputs: Float
    batch_size: int
    single: bool = False  # float32 parameters

    def digest(self) -> str:
        """SHA-256 over all numbers, so that a change of the generator is noticed."""
        arrays: list[Any] = [*self.weights, *(b for b in self.biases if b is not None)]
        found = hashlib.sha256()
        for array in (*arrays, self.inputs):
            found.update(np.ascontiguousarray(array, "<f8").tobytes())
        return found.hexdigest()


def _layers(
    rng: np.random.Generator, sizes: tuple[int, ...], pruned: float
) -> tuple[tuple[Float, ...], tuple[Float, ...]]:
    weights, biases = [], []
    for n_in, n_out in itertools.pairwise(sizes):
        w = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        w[rng.random(w.shape) < pruned] = 0.0
        weights.append(w)
        biases.append(0.1 * rng.normal(size=n_out))
    return tuple(weights), tuple(biases)


def _walk(rng: np.random.Generator, steps: int, size: int) -> Float:
    """Slow observations, some components of which are 0 for a while, as contacts are."""
    x = np.cumsum(0.1 * rng.normal(size=(steps, size)), axis=0)
    x[:, size // 2 :] *= rng.random((steps, size - size // 2)) < 0.3
    return x


def cases() -> list[Case]:
    """Every case, in the order of the recorded file."""
    rng = np.random.default_rng(20250801)
    found = []
    weights, biases = _layers(rng, (8, 64, 64, 4), 0.7)
    walk = _walk(rng, 300, 8)
    found.append(Case("relu", weights, biases, "relu", True, walk, 1))
    found.append(Case("relu-batches", weights, biases, "relu", True, walk, 32))
    # Without biases, neurons whose inputs are all 0 have tanh(0) = 0: zeros to be counted, or not.
    weights, biases = _layers(rng, (6, 32, 32, 2), 0.8)
    walk = _walk(rng, 200, 6)
    found.append(Case("tanh-registered", weights, (None,) * 3, "tanh", True, walk, 1))
    found.append(Case("tanh-unregistered", weights, (None,) * 3, "tanh", False, walk, 1))
    weights, biases = _layers(rng, (20, 48, 3), 0.6)
    bits = (rng.random((250, 20)) < 0.2).astype(np.float64)
    found.append(Case("binary", weights, (None,) * 2, "relu", True, bits, 1))
    # Signed bits count as ACs too; a graded value in a batch makes MACs of all of it.
    signed = bits * rng.choice([-1.0, 1.0], bits.shape)
    signed[100:130, 3] = 0.5
    found.append(Case("binary-batches", weights, biases, "relu", True, signed, 25))
    single = tuple(w.astype(np.float32).astype(np.float64) for w in weights)
    found.append(
        Case(
            "float32",
            single,
            (biases[0].astype(np.float32).astype(np.float64), None),
            "sigmoid",
            True,
            bits,
            50,
            True,
        )
    )
    return found
