"""What Python cannot say to the compiler: hints, fused operations, comparisons that give bits.

Where Numba is switched off (NUMBA_DISABLE_JIT=1), plain functions do the same.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils as untyped_tools
from numba.core import config as untyped_config
from numba.extending import intrinsic

cgutils: Any = untyped_tools
config: Any = untyped_config
ir: Any = cgutils.ir  # llvmlite's, which comes with Numba

#: Neurons that one comparison covers.
BLOCK = 64

WORD = ir.IntType(32)
LONG = ir.IntType(64)
DOUBLE = ir.DoubleType()


def address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Emit the address of an item of an array."""
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


def _emit_prefetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    place = address(context, builder, signature.args[0], *arguments)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, WORD, WORD, WORD]),
        "llvm.prefetch.p0",
    )
    # For reading, into all levels of the cache, data.
    builder.call(function, [builder.bitcast(place, cgutils.voidptr_t), WORD(0), WORD(3), WORD(1)])
    return context.get_dummy_value()


def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the line of ``array[index]``; the index may lie beyond the array's end."""
    return types.void(array, types.uint64), _emit_prefetch


def splat(builder: Any, value: Any, n: int) -> Any:
    """Emit a vector of n equal numbers."""
    empty = ir.Constant(ir.VectorType(value.type, n), ir.Undefined)
    first = builder.insert_element(empty, value, WORD(0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(WORD, n), [0] * n))


def load_lanes(builder: Any, place: Any, n: int) -> Any:
    """Emit the reading of n float64 numbers."""
    vector = builder.bitcast(place, ir.VectorType(DOUBLE, n).as_pointer())
    return builder.load(vector, align=8)


def emit_fma(builder: Any, factor: Any, other: Any, addend: Any) -> Any:
    """Emit ``factor * other + addend``, rounded once, of float64 numbers or vectors of them."""
    kind = addend.type
    suffix = "f64" if kind == DOUBLE else f"v{kind.count}f64"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.{suffix}"
    )
    return builder.call(function, [factor, other, addend])


def _emit_scalar_fma(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    factor, other, addend = arguments
    if signature.args[0] == types.float32:
        factor = builder.fpext(factor, DOUBLE)
    return emit_fma(builder, factor, other, addend)


def _fma(typing_context: Any, factor: Any, other: Any, addend: Any) -> Any:
    """Return ``factor * other + addend``, rounded once (IEEE 754: fusedMultiplyAdd).

    The factor may be a float32 number. Loops over it are vectorised.
    """
    return types.float64(factor, types.float64, types.float64), _emit_scalar_fma


def _emit_below(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array, start, limit = arguments
    values = load_lanes(builder, address(context, builder, signature.args[0], array, start), BLOCK)
    less = builder.fcmp_ordered("<", values, splat(builder, limit, BLOCK))
    return builder.bitcast(less, LONG)


def _below(typing_context: Any, array: Any, start: Any, limit: Any) -> Any:
    """Compare 64 entries from `start` with a limit; bit j says ``array[start + j] < limit``."""
    return types.uint64(array, types.uint64, types.float64), _emit_below


def _emit_fired(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    array, start, cosine, sine = arguments
    n = 8
    turn, other = splat(builder, cosine, n), splat(builder, sine, n)
    zero = ir.Constant(ir.VectorType(DOUBLE, n), [0.0] * n)
    picks = [ir.Constant(ir.VectorType(WORD, n), list(range(k, 2 * n, 2))) for k in (0, 1)]
    mask = LONG(0)
    for k in range(BLOCK // n):
        place = builder.add(start, start.type(2 * n * k))
        pairs = address(context, builder, signature.args[0], array, place)
        both = load_lanes(builder, pairs, 2 * n)
        p, q = (builder.shuffle_vector(both, both, pick) for pick in picks)
        value = builder.fsub(builder.fmul(q, turn), builder.fmul(p, other))
        less = builder.bitcast(builder.fcmp_ordered("<", value, zero), ir.IntType(n))
        part = builder.shl(builder.zext(less, LONG), LONG(n * k))
        mask = builder.or_(mask, part)
    return mask


def _fired(typing_context: Any, array: Any, start: Any, cosine: Any, sine: Any) -> Any:
    """Turn 64 pairs (p, q) from entry `start`; bit j says ``q cosine - p sine < 0``."""
    kinds = (array, types.uint64, types.float64, types.float64)
    return types.uint64(*kinds), _emit_fired


def _emit_first(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.cttz(arguments[0], ir.IntType(1)(1))


def _first(typing_context: Any, mask: Any) -> Any:
    """Return the place of the lowest bit of a mask that is not 0."""
    return types.uint64(types.uint64), _emit_first


def _plain_prefetch(array: Any, index: int) -> None:
    pass


def pack(bits: Any) -> Any:
    """Return a word whose bits are those given, the first one lowest; of plain Python."""
    return np.uint64(sum(1 << k for k in np.flatnonzero(bits).tolist()))


def _plain_fma(factor: float, other: float, addend: float) -> Any:
    a, b, c = float(factor), float(other), float(addend)
    if not (math.isfinite(a) and math.isfinite(b)):
        return np.float64(a * b + c)
    if not math.isfinite(c):
        return np.float64(c)
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:  # then the product is exact, and the sum has the sign that it should have
        return np.float64(a * b + c)
    try:
        return np.float64(float(total))
    except OverflowError:
        return np.float64(math.inf if total > 0 else -math.inf)


def _plain_below(array: Any, start: int, limit: float) -> Any:
    return pack(array[int(start) : int(start) + BLOCK] < limit)


def _plain_fired(array: Any, start: int, cosine: float, sine: float) -> Any:
    block = array[int(start) : int(start) + 2 * BLOCK]
    return pack(block[1::2] * cosine - block[0::2] * sine < 0.0)


def _plain_first(mask: Any) -> Any:
    return np.uint64((int(mask) & -int(mask)).bit_length() - 1)


if config.DISABLE_JIT:
    prefetch: Any = _plain_prefetch
    fma: Any = _plain_fma
    below_bits: Any = _plain_below
    fired_bits: Any = _plain_fired
    first_bit: Any = _plain_first
else:
    prefetch = intrinsic(_prefetch)
    fma = intrinsic(_fma)
    below_bits = intrinsic(_below)
    fired_bits = intrinsic(_fired)
    first_bit = intrinsic(_first)
