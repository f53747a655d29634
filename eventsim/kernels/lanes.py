"""Neurons eight lanes at a time, and the flags of 64 of them as the bits of a word.

The compiler vectorises neither by itself: a list of events grows by as many as there are, and it
does not know that a byte of flags is a bit. Where Numba is switched off (NUMBA_DISABLE_JIT=1),
plain functions do the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.core import codegen as untyped_codegen
from numba.extending import intrinsic

from eventsim.kernels.bits import (
    DOUBLE,
    LONG,
    WORD,
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

untyped: Any = untyped_codegen
binding = untyped.ll  # llvmlite's

#: Lanes that `transmit` takes.
LANES = 8
#: Code of the activation that `transmit` computes.
RELU = 1
#: Synapses that `add_four` takes.
FOUR = 4

_LARGEST = float(np.finfo(np.float64).max)
_BYTE = ir.IntType(8)
_FLAGS = ir.VectorType(_BYTE, 64)
_BITS = ir.VectorType(ir.IntType(1), LANES)
_LONGS, _DOUBLES = ir.VectorType(LONG, LANES), ir.VectorType(DOUBLE, LANES)
_NOT_THE_SIGN = (1 << 63) - 1


def _emit_flagged(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    place = address(context, builder, signature.args[0], *arguments)
    flags = builder.load(builder.bitcast(place, _FLAGS.as_pointer()), align=8)
    return builder.bitcast(builder.icmp_unsigned("!=", flags, ir.Constant(_FLAGS, None)), LONG)


def _flagged(typing_context: Any, flags: Any, start: Any) -> Any:
    """Gather 64 flags from `start`, a multiple of 8; bit j says ``flags[start + j] != 0``."""
    return types.uint64(flags, types.uint64), _emit_flagged


def _emit_unflag(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    place = address(context, builder, signature.args[0], *arguments)
    builder.store(ir.Constant(_FLAGS, None), builder.bitcast(place, _FLAGS.as_pointer()), align=8)
    return context.get_dummy_value()


def _unflag(typing_context: Any, flags: Any, start: Any) -> Any:
    """Clear 64 flags from `start`, a multiple of 8."""
    return types.void(flags, types.uint64), _emit_unflag


def _emit_renewed(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    new, at, old, place = arguments
    kinds = signature.args
    # Of inputs that are no bytes this is compiled too, but never run.
    source = builder.bitcast(address(context, builder, kinds[0], new, at), _FLAGS.as_pointer())
    target = builder.bitcast(address(context, builder, kinds[2], old, place), _FLAGS.as_pointer())
    fresh = builder.load(source, align=1)
    differ = builder.icmp_unsigned("!=", fresh, builder.load(target, align=1))
    builder.store(fresh, target, align=1)
    return builder.bitcast(differ, LONG)


def _renewed(typing_context: Any, new: Any, at: Any, old: Any, place: Any) -> Any:
    """Copy 64 bytes from `at` to `place`; bit j says that byte j there was another one."""
    return types.uint64(new, types.uint64, old, types.uint64), _emit_renewed


def _emit_count(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.ctpop(arguments[0])


def _count(typing_context: Any, mask: Any) -> Any:
    """Count the bits of a mask."""
    return types.int64(types.uint64), _emit_count


def _size(builder: Any, vector: Any) -> Any:
    """Emit the absolute values of eight numbers."""
    bits = builder.bitcast(vector, _LONGS)
    mask = ir.Constant(_LONGS, [_NOT_THE_SIGN] * LANES)
    return builder.bitcast(builder.and_(bits, mask), _DOUBLES)


def _can_compress(context: Any) -> bool:
    """Whether the machine moves the lanes wanted together in one go, and the compiler knows."""
    features = context.codegen().magic_tuple()[2]
    return binding.llvm_version_info[0] >= 20 and "+avx512f" in features


def _append(context: Any, builder: Any, place: Any, vector: Any, mask: Any) -> None:
    """Emit writing the lanes of a mask one after the other from a place on.

    As many as there are lanes are written in all; what was too much is overwritten later.
    """
    if _can_compress(context):
        kind = vector.type
        name = "f64" if kind == _DOUBLES else "i64"
        compress = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(kind, [kind, _BITS, kind]),
            f"llvm.experimental.vector.compress.v{LANES}{name}",
        )
        packed = builder.call(compress, [vector, mask, ir.Constant(kind, ir.Undefined)])
        builder.store(packed, builder.bitcast(place, kind.as_pointer()), align=8)
        return
    count = LONG(0)
    for k in range(LANES):
        builder.store(builder.extract_element(vector, WORD(k)), builder.gep(place, [count]))
        bit = builder.zext(builder.extract_element(mask, WORD(k)), LONG)
        count = builder.add(count, bit)


def _emit_transmit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    values, constants, state, code, u, a, s, theta, pending, first, neuron, value = arguments
    kinds = signature.args

    def at(kind: int, array: Any, place: Any) -> Any:
        return address(context, builder, kinds[kind], array, place)

    asked = builder.bitcast(builder.trunc(pending, _BYTE), _BITS)
    before = load_lanes(builder, at(0, values, s), LANES)
    after = load_lanes(builder, at(0, values, a), LANES)
    zero = ir.Constant(_DOUBLES, None)
    below = builder.fcmp_ordered("<", after, zero)
    is_relu = builder.icmp_signed("==", code, LONG(RELU))
    after = builder.select(builder.and_(below, splat(builder, is_relu, LANES)), zero, after)
    limit = load_lanes(builder, at(1, constants, theta), LANES)
    d = builder.fsub(after, before)
    fires = builder.and_(builder.fcmp_ordered(">", _size(builder, d), limit), asked)
    largest = ir.Constant(_DOUBLES, [_LARGEST] * LANES)
    # True of NaN too.
    bad = builder.or_(
        builder.fcmp_unordered(
            ">", _size(builder, load_lanes(builder, at(0, values, u), LANES)), largest
        ),
        builder.fcmp_unordered(">", _size(builder, after), largest),
    )
    bad = builder.and_(bad, asked)
    place = builder.bitcast(at(0, values, s), _DOUBLES.as_pointer())
    builder.store(builder.select(fires, builder.fadd(before, d), before), place, align=8)
    ids = builder.add(splat(builder, first, LANES), ir.Constant(_LONGS, list(range(LANES))))
    _append(context, builder, at(2, state, neuron), ids, fires)
    _append(context, builder, at(0, values, value), d, fires)
    word = builder.shl(builder.zext(builder.bitcast(bad, _BYTE), LONG), LONG(LANES))
    return builder.or_(word, builder.zext(builder.bitcast(fires, _BYTE), LONG))


def _transmit(
    typing_context: Any,
    values: Any,
    constants: Any,
    state: Any,
    code: Any,
    u: Any,
    a: Any,
    s: Any,
    theta: Any,
    pending: Any,
    first: Any,
    neuron: Any,
    value: Any,
) -> Any:
    """Compare the activations of eight neurons with what they sent, and list those that transmit.

    `u`, `a`, `s` are places in `values`, `theta` one in `constants`; if `code` is that of relu, `a`
    is its argument. The lower eight bits of `pending` say which neurons are asked. The numbers of
    those that transmit, from `first` on, are written from ``state[neuron]`` on, their differences
    from ``values[value]`` on; eight are
    written always. The lower eight bits of the result say which transmit, the next eight which of
    those asked are not finite.
    """
    places = (types.uint64,) * 8
    return types.uint64(values, constants, state, types.int64, *places), _emit_transmit


def _emit_add(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    u, u0, index, first, w, weight, d, flags, f0 = arguments
    kinds = signature.args
    place = address(context, builder, kinds[4], w, weight)
    kind = ir.VectorType(ir.FloatType() if kinds[4].dtype == types.float32 else DOUBLE, FOUR)
    weights = builder.load(
        builder.bitcast(place, kind.as_pointer()), align=kinds[4].dtype.bitwidth // 8
    )
    if kinds[4].dtype == types.float32:
        weights = builder.fpext(weights, ir.VectorType(DOUBLE, FOUR))
    for k in range(FOUR):
        at = builder.load(address(context, builder, kinds[2], index, builder.add(first, LONG(k))))
        at = builder.zext(at, LONG)
        place = address(context, builder, kinds[0], u, builder.add(u0, at))
        one = builder.extract_element(weights, WORD(k))
        builder.store(emit_fma(builder, one, d, builder.load(place)), place)
        flag = address(context, builder, kinds[7], flags, builder.add(f0, at))
        builder.store(_BYTE(1), flag)
    return context.get_dummy_value()


def _add(
    typing_context: Any,
    u: Any,
    u0: Any,
    index: Any,
    first: Any,
    w: Any,
    weight: Any,
    d: Any,
    flags: Any,
    f0: Any,
) -> Any:
    """Add four synapses of an event of size d, and flag their targets.

    Their targets stand from ``index[first]`` on, their weights, which are read together, from
    ``w[weight]`` on. Target j has its accumulator at ``u[u0 + j]``, its flag at
    ``flags[f0 + j]``.
    """
    place = types.uint64
    kinds = (u, place, index, place, w, place, types.float64, flags, place)
    return types.void(*kinds), _emit_add


def _plain_flagged(flags: Any, start: int) -> Any:
    return pack(flags[int(start) : int(start) + 64])


def _plain_unflag(flags: Any, start: int) -> None:
    flags[int(start) : int(start) + 64] = 0


def _plain_renewed(new: Any, at: int, old: Any, place: int) -> Any:
    here = slice(int(place), int(place) + 64)
    fresh = new[int(at) : int(at) + 64]
    differ = pack(fresh != old[here])
    old[here] = fresh
    return differ


def _plain_count(mask: Any) -> int:
    return int(mask).bit_count()


def _plain_transmit(
    values: Any,
    constants: Any,
    state: Any,
    code: int,
    u: int,
    a: int,
    s: int,
    theta: int,
    pending: int,
    first: int,
    neuron: int,
    value: int,
) -> Any:
    def lanes(array: Any, place: int) -> Any:
        return array[int(place) : int(place) + LANES]

    asked = ((int(pending) & 255) >> np.arange(LANES)) & 1 == 1
    after, sent = lanes(values, a).copy(), lanes(values, s)
    if code == RELU:
        after = np.where(after < 0.0, 0.0, after)
    with np.errstate(all="ignore"):
        d = after - sent
    fires = asked & (np.abs(d) > lanes(constants, theta))
    bad = asked & ~((np.abs(lanes(values, u)) <= _LARGEST) & (np.abs(after) <= _LARGEST))
    with np.errstate(all="ignore"):
        sent[fires] += d[fires]
    n = int(fires.sum())
    lanes(state, neuron)[:n] = int(first) + np.flatnonzero(fires)
    lanes(values, value)[:n] = d[fires]
    return np.uint64(int(pack(fires)) | int(pack(bad)) << LANES)


def _plain_add(
    u: Any, u0: int, index: Any, first: int, w: Any, weight: int, d: float, flags: Any, f0: int
) -> None:
    for k in range(FOUR):
        j = int(index[int(first) + k])
        u[int(u0) + j] = fma(w[int(weight) + k], d, u[int(u0) + j])
        flags[int(f0) + j] = 1


if config.DISABLE_JIT:
    flagged_bits: Any = _plain_flagged
    unflag: Any = _plain_unflag
    renewed_bits: Any = _plain_renewed
    count_bits: Any = _plain_count
    transmit: Any = _plain_transmit
    add_four: Any = _plain_add
else:
    flagged_bits = intrinsic(_flagged)
    unflag = intrinsic(_unflag)
    renewed_bits = intrinsic(_renewed)
    count_bits = intrinsic(_count)
    transmit = intrinsic(_transmit)
    add_four = intrinsic(_add)
