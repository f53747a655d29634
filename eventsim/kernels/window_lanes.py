"""Adding runs of rows to accumulators that stay in vector registers.

LLVM would load and store the accumulators of a plain loop over rows for every few of them, and
test first that no row lies among the accumulators. Multiplication and addition stay two roundings,
and each accumulator receives its additions in the order of the events.

Where Numba is switched off (NUMBA_DISABLE_JIT=1), plain functions do the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from eventsim.kernels.bits import (
    DOUBLE,
    LONG,
    address,
    cgutils,
    config,
    ir,
    load_lanes,
    splat,
)
from eventsim.kernels.jit import inlined

#: Accumulators of one vector.
LANES = 8

Unsigned = np.uint64
_DOUBLES = ir.VectorType(DOUBLE, LANES)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


def _load_weights(builder: Any, place: Any, kind: Any) -> Any:
    """Emit the reading of a vector of weights, as float64."""
    if kind != types.float32:
        return load_lanes(builder, place, LANES)
    loaded = builder.load(builder.bitcast(place, _FLOATS.as_pointer()), align=4)
    return builder.fpext(loaded, _DOUBLES)


def _emit(n_vectors: int) -> Callable[..., Any]:
    """Code for `n_vectors` registers of accumulators."""

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        w, first, width, neuron, value, e0, e1, shift, u, u0, done = arguments
        kinds = signature.args
        # Lanes that another call adds get -0.0, which changes no number.
        numbers = ir.Constant(ir.VectorType(LONG, LANES), list(range(LANES)))
        mine = builder.icmp_signed(">=", numbers, splat(builder, done, LANES))
        nothing = ir.Constant(_DOUBLES, [-0.0] * LANES)

        def at(kind: int, array: Any, place: Any) -> Any:
            return address(context, builder, kinds[kind], array, place)

        offsets = [LONG(LANES * k) for k in range(n_vectors)]
        homes = [at(8, u, builder.add(u0, offset)) for offset in offsets]
        registers = [cgutils.alloca_once(builder, _DOUBLES) for _ in offsets]
        for home, register in zip(homes, registers, strict=True):
            builder.store(load_lanes(builder, home, LANES), register)
        with cgutils.for_range_slice(builder, e0, e1, LONG(1), LONG) as (e, _):
            event = builder.load(at(3, neuron, e), align=8)
            row = builder.add(first, builder.mul(width, builder.add(event, shift)))
            factors = splat(builder, builder.load(at(4, value, e), align=8), LANES)
            for offset, register in zip(offsets, registers, strict=True):
                place = at(0, w, builder.add(row, offset))
                product = builder.fmul(_load_weights(builder, place, kinds[0].dtype), factors)
                if n_vectors == 1:
                    product = builder.select(mine, product, nothing)
                builder.store(builder.fadd(builder.load(register), product), register)
        for home, register in zip(homes, registers, strict=True):
            place = builder.bitcast(home, _DOUBLES.as_pointer())
            builder.store(builder.load(register), place, align=8)
        return context.get_dummy_value()

    return emit


def _compiled(n_vectors: int) -> Any:
    def add(
        typing_context: Any,
        w: Any,
        first: Any,
        width: Any,
        neuron: Any,
        value: Any,
        e0: Any,
        e1: Any,
        shift: Any,
        u: Any,
        u0: Any,
        done: Any,
    ) -> Any:
        n = types.int64
        return types.void(w, n, n, neuron, value, n, n, n, u, n, n), _emit(n_vectors)

    return intrinsic(add)


def _plain(n_vectors: int) -> Any:
    def add(
        w: Any,
        first: int,
        width: int,
        neuron: Any,
        value: Any,
        e0: int,
        e1: int,
        shift: int,
        u: Any,
        u0: int,
        done: int,
    ) -> None:
        n = LANES * n_vectors
        for e in range(e0, e1):
            row = first + width * (neuron[e] + shift)
            u[u0 + done : u0 + n] += w[row + done : row + n] * value[e]

    return add


_add_8, _add_16, _add_32, _add_64 = (
    (_plain if config.DISABLE_JIT else _compiled)(n // LANES) for n in (8, 16, 32, 64)
)


@inlined
def add_run(
    w: Any,
    weights: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    shift: int,
    u: Any,
    u0: int,
    n: int,
) -> None:
    """Add the rows of events e0:e1 to the n accumulators from u0.

    Parameters
    ----------
    w : float32 or float64 array
    weights : int
        Place of row 0; rows of n weights follow one another.
    neuron, value : int64 and float64 arrays
        Of the events; neuron i has row ``i + shift``.
    u : float64 array
    """
    k = 0
    while k + 64 <= n:
        _add_64(w, weights + k, n, neuron, value, e0, e1, shift, u, u0 + k, 0)
        k += 64
    if k + 32 <= n:
        _add_32(w, weights + k, n, neuron, value, e0, e1, shift, u, u0 + k, 0)
        k += 32
    if k + 16 <= n:
        _add_16(w, weights + k, n, neuron, value, e0, e1, shift, u, u0 + k, 0)
        k += 16
    while k < n and n >= 8:
        # The last lanes of all may overlap those before them, which are done.
        start = min(k, n - 8)
        _add_8(w, weights + start, n, neuron, value, e0, e1, shift, u, u0 + start, k - start)
        k = start + 8
    while k < n:
        total = u[Unsigned(u0 + k)]
        for e in range(e0, e1):
            row = Unsigned(weights + k + n * (neuron[Unsigned(e)] + shift))
            total += w[row] * value[Unsigned(e)]
        u[Unsigned(u0 + k)] = total
        k += 1
