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
    """Code for `n_vectors` registers of accumulators, of which the last begins `back` early.

    With 0 there is one register, which begins where it should and ends `back` early.
    """

    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        w, first, width, neuron, value, e0, e1, shift, u, u0, back = arguments
        kinds = signature.args
        # Lanes that another register or call adds get -0.0, which changes no number.
        numbers = ir.Constant(ir.VectorType(LONG, LANES), list(range(LANES)))
        if n_vectors:
            mine = builder.icmp_signed(">=", numbers, splat(builder, back, LANES))
        else:  # of a row of few, that is the lanes behind it
            above = splat(builder, builder.sub(LONG(LANES), back), LANES)
            mine = builder.icmp_signed("<", numbers, above)
        nothing = ir.Constant(_DOUBLES, [-0.0] * LANES)

        def at(kind: int, array: Any, place: Any) -> Any:
            return address(context, builder, kinds[kind], array, place)

        last = max(n_vectors - 1, 0)
        offsets = [LONG(LANES * k) for k in range(last)]
        offsets.append(builder.sub(LONG(LANES * last), back) if n_vectors else LONG(0))
        homes = [at(8, u, builder.add(u0, offset)) for offset in offsets]
        registers = [cgutils.alloca_once(builder, _DOUBLES) for _ in offsets]
        for home, register in zip(homes, registers, strict=True):
            builder.store(load_lanes(builder, home, LANES), register)
        with cgutils.for_range_slice(builder, e0, e1, LONG(1), LONG) as (e, _):
            event = builder.load(at(3, neuron, e), align=8)
            row = builder.add(first, builder.mul(width, builder.add(event, shift)))
            factors = splat(builder, builder.load(at(4, value, e), align=8), LANES)
            for k, (offset, register) in enumerate(zip(offsets, registers, strict=True)):
                place = at(0, w, builder.add(row, offset))
                product = builder.fmul(_load_weights(builder, place, kinds[0].dtype), factors)
                if k == last:
                    product = builder.select(mine, product, nothing)
                builder.store(builder.fadd(builder.load(register), product), register)
        # The last one first: where it overlaps another, it holds what was there before.
        for home, register in reversed(list(zip(homes, registers, strict=True))):
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
        back: Any,
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
        back: int,
    ) -> None:
        n = LANES * max(n_vectors, 1) - back
        for e in range(e0, e1):
            row = first + width * (neuron[e] + shift)
            u[u0 : u0 + n] += w[row : row + n] * value[e]

    return add


_add_0, _add_1, _add_2, _add_3, _add_4, _add_5, _add_6, _add_7, _add_8 = (
    (_plain if config.DISABLE_JIT else _compiled)(n) for n in range(9)
)


@inlined
def add_run(
    w: Any,
    weights: int,
    places: int,
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
        Place of row 0.
    places : int
        Of a row, at least eight.
    neuron, value : int64 and float64 arrays
        Of the events; neuron i has row ``i + shift``.
    u : float64 array
        It has eight entries from u0 on, if n is less.
    """
    k = 0
    while k + 64 <= n:
        _add_8(w, weights + k, places, neuron, value, e0, e1, shift, u, u0 + k, 0)
        k += 64
    # What is left, in as many registers as hold it; the last may reach back into what is done.
    many = (n - k + LANES - 1) // LANES
    back = LANES * many - (n - k)
    first, u1 = weights + k, u0 + k
    if n < LANES:
        _add_0(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
    elif many <= 4:
        if many == 4:
            _add_4(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
        elif many == 3:
            _add_3(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
        elif many == 2:
            _add_2(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
        elif many == 1:
            _add_1(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
    elif many == 8:
        _add_8(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
    elif many == 7:
        _add_7(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
    elif many == 6:
        _add_6(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
    else:
        _add_5(w, first, places, neuron, value, e0, e1, shift, u, u1, back)
