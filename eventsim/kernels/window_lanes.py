"""Adding runs of rows to accumulators that stay in vector registers.

LLVM would load and store the accumulators of a plain loop over rows for every few of them, and
test first that no row lies among the accumulators. Multiplication and addition are one rounding,
and each accumulator receives its additions in the order of the events.

Where Numba is switched off (NUMBA_DISABLE_JIT=1), plain functions do the same.
"""

from __future__ import annotations

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
    emit_fma,
    fma,
    ir,
    load_lanes,
    pack,
    splat,
)
from eventsim.kernels.jit import inlined
from eventsim.kernels.lanes import count_bits

#: Accumulators of one vector.
LANES = 8
#: Vectors that stay in registers over a run, at most.
MOST_VECTORS = 8
#: Accumulators of as many.
LONGEST = LANES * MOST_VECTORS

#: Events that `listed_below` compares.
LISTED = 32

Unsigned = np.uint64
_DOUBLES = ir.VectorType(DOUBLE, LANES)
_LISTED = ir.VectorType(LONG, LISTED)
_FLOATS = ir.VectorType(ir.FloatType(), LANES)


def _load_weights(builder: Any, place: Any, kind: Any) -> Any:
    """Emit the reading of a vector of weights, as float64."""
    if kind != types.float32:
        return load_lanes(builder, place, LANES)
    loaded = builder.load(builder.bitcast(place, _FLOATS.as_pointer()), align=4)
    return builder.fpext(loaded, _DOUBLES)


def _emit_run(
    context: Any, builder: Any, kinds: Any, run: Any, n_vectors: int, masks: Any = None
) -> None:
    """Emit adding a run to `n_vectors` registers, of which the last begins `back` early.

    With 0 there is one register, which begins where it should and ends `back` early. `masks` emits
    what is done with each row besides, of which it is given the number.
    """
    w, first, width, neuron, value, e0, e1, shift, u, u0, back = run
    numbers = ir.Constant(ir.VectorType(LONG, LANES), list(range(LANES)))
    if n_vectors:
        mine = builder.icmp_signed(">=", numbers, splat(builder, back, LANES))
    else:  # of a row of few, that is the lanes behind it
        above = splat(builder, builder.sub(LONG(LANES), back), LANES)
        mine = builder.icmp_signed("<", numbers, above)

    def at(kind: int, array: Any, place: Any) -> Any:
        return address(context, builder, kinds[kind], array, place)

    last = max(n_vectors - 1, 0)
    offsets = [LONG(LANES * k) for k in range(last)]
    offsets.append(builder.sub(LONG(LANES * last), back) if n_vectors else LONG(0))
    homes = [at(8, u, builder.add(u0, offset)) for offset in offsets]
    sums = [cgutils.alloca_once(builder, _DOUBLES) for _ in offsets]
    for home, total in zip(homes, sums, strict=True):
        builder.store(load_lanes(builder, home, LANES), total)
    with cgutils.for_range_slice(builder, e0, e1, LONG(1), LONG) as (e, _):
        number = builder.add(builder.load(at(3, neuron, e), align=8), shift)
        row = builder.add(first, builder.mul(width, number))
        factors = splat(builder, builder.load(at(4, value, e), align=8), LANES)
        for k, (offset, total) in enumerate(zip(offsets, sums, strict=True)):
            place = at(0, w, builder.add(row, offset))
            weights = _load_weights(builder, place, kinds[0].dtype)
            before = builder.load(total)
            after = emit_fma(builder, weights, factors, before)
            if k == last:  # lanes that another register or call adds stay as they are
                after = builder.select(mine, after, before)
            builder.store(after, total)
        if masks is not None:
            masks(number)
    # The last one first: where it overlaps another, it holds what was there before.
    for home, total in reversed(list(zip(homes, sums, strict=True))):
        place = builder.bitcast(home, _DOUBLES.as_pointer())
        builder.store(builder.load(total), place, align=8)


def _emit_runs(
    context: Any, builder: Any, signature: Any, arguments: Any, masks: Any = None
) -> None:
    """Emit a run for each number of registers, of which one is taken."""
    *run, many, back = arguments[:12]
    end = builder.append_basic_block("added")
    choice = builder.switch(many, end)
    for n_vectors in range(MOST_VECTORS + 1):
        block = builder.append_basic_block(f"registers.{n_vectors}")
        choice.add_case(LONG(n_vectors), block)
        with builder.goto_block(block):
            _emit_run(context, builder, signature.args, (*run, back), n_vectors, masks)
            builder.branch(end)
    builder.position_at_end(end)


def _emit_add(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _emit_runs(context, builder, signature, arguments)
    return context.get_dummy_value()


def _emit_add_masked(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    masks, first = arguments[12:]
    found = cgutils.alloca_once_value(builder, LONG(0))

    def gather(number: Any) -> None:
        place = address(context, builder, signature.args[12], masks, builder.add(first, number))
        mask = builder.load(place, align=8)
        builder.store(builder.or_(builder.load(found), mask), found)

    _emit_runs(context, builder, signature, arguments, gather)
    return builder.load(found)


def _add(
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
    many: Any,
    back: Any,
) -> Any:
    """Add rows to the accumulators of so many registers, or of a part of one if that is 0."""
    n = types.int64
    return types.void(w, n, n, neuron, value, n, n, n, u, n, n, n), _emit_add


def _add_masked(
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
    many: Any,
    back: Any,
    masks: Any,
    mask: Any,
) -> Any:
    """As `_add`; which bits the rows' masks have, of which row 0's is ``masks[mask]``."""
    n = types.int64
    kinds = (w, n, n, neuron, value, n, n, n, u, n, n, n, masks, n)
    return types.uint64(*kinds), _emit_add_masked


def _plain_add(
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
    many: int,
    back: int,
) -> None:
    n = LANES * max(many, 1) - back
    for e in range(e0, e1):
        row = first + width * (neuron[e] + shift)
        for k in range(n):
            u[u0 + k] = fma(w[row + k], value[e], u[u0 + k])


def _plain_add_masked(*arguments: Any) -> Any:
    *run, masks, mask = arguments
    _plain_add(*run)
    neuron, e0, e1, shift = (run[k] for k in (3, 5, 6, 7))
    return np.bitwise_or.reduce(masks[mask + neuron[e0:e1] + shift]).view(Unsigned)


def _emit_below(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    neuron, e, limit = arguments
    place = address(context, builder, signature.args[0], neuron, e)
    listed = builder.load(builder.bitcast(place, _LISTED.as_pointer()), align=8)
    below = builder.icmp_signed("<", listed, splat(builder, limit, LISTED))
    return builder.zext(builder.bitcast(below, ir.IntType(LISTED)), LONG)


def _below(typing_context: Any, neuron: Any, e: Any, limit: Any) -> Any:
    """Compare `LISTED` events from e on; bit k says ``neuron[e + k] < limit``."""
    return types.uint64(neuron, types.uint64, types.int64), _emit_below


def _plain_below(neuron: Any, e: int, limit: int) -> Any:
    return pack(neuron[int(e) : int(e) + LISTED] < limit)


if config.DISABLE_JIT:
    listed_below: Any = _plain_below
    add_registers: Any = _plain_add
    add_registers_masked: Any = _plain_add_masked
else:
    listed_below = intrinsic(_below)
    add_registers = intrinsic(_add)
    add_registers_masked = intrinsic(_add_masked)


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
    n : int
        At least 1.
    """
    k = 0
    while k + LONGEST < n:
        add_registers(
            w, weights + k, places, neuron, value, e0, e1, shift, u, u0 + k,
            np.int64(MOST_VECTORS), np.int64(0),
        )  # fmt: skip
        k += LONGEST
    # The last register may reach back into what is done.
    many, back = registers(n - k)
    if n >= LANES and many == 0:
        many = 1
    add_registers(w, weights + k, places, neuron, value, e0, e1, shift, u, u0 + k, many, back)


@inlined
def end_below(neuron: Any, e: int, end: int, limit: int) -> int:
    """Return the end of the events from e on whose neuron is below a limit; they ascend.

    What stands behind `end` may be anything, but must be there: `LISTED` more.
    """
    while True:
        found = count_bits(
            listed_below(neuron, Unsigned(e), limit)
            & ~(~Unsigned(0) << Unsigned(min(end - e, LISTED)))
        )
        e += found
        if found < LISTED or e == end:
            return e


@inlined
def registers(n: int) -> tuple[int, int]:
    """Return how many registers hold n > 0 accumulators, and how many lanes are too many.

    The number is 0 where the one is not even full.
    """
    many = (n + LANES - 1) // LANES
    return many if n >= LANES else 0, LANES * many - n
