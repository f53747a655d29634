"""Adding rows of weights to accumulators, event after event.

Each target receives its additions in the order of the events, whichever function does it: a group
of rows is summed from left to right into one accumulator at a time. Multiplication and addition
are one rounding. Indices of vectorised loops are unsigned, as the wrap-around of negative ones
would keep LLVM from vectorising them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.kernels.bits import fma, prefetch
from eventsim.kernels.fields import (
    ALL,
    DENSE,
    FULL,
    MIXED,
    NARROW,
    NONE,
    R_COUNT,
    R_INDEX,
    R_MASK,
    R_WEIGHT,
    SOME,
    W_ROW,
)
from eventsim.kernels.jit import inlined
from eventsim.kernels.lanes import FOUR, add_four

Unsigned = np.uint64
_ONE = Unsigned(1)
_FOUR = Unsigned(FOUR)


@inlined
def add_dense(
    w: Any,
    table: Any,
    rows: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    u: Any,
    u0: int,
    n: int,
) -> None:
    """Add the dense rows of events e0:e1 to the n accumulators from u0, four rows a pass.

    `table` holds the rows table at `rows`; `neuron` and `value` are the events, by place.
    """
    base = Unsigned(u0)
    e = e0
    while e + 4 <= e1:
        r0 = Unsigned(table[rows + W_ROW * neuron[e] + R_WEIGHT])
        r1 = Unsigned(table[rows + W_ROW * neuron[e + 1] + R_WEIGHT])
        r2 = Unsigned(table[rows + W_ROW * neuron[e + 2] + R_WEIGHT])
        r3 = Unsigned(table[rows + W_ROW * neuron[e + 3] + R_WEIGHT])
        d0, d1, d2, d3 = value[e], value[e + 1], value[e + 2], value[e + 3]
        for k in range(n):
            j = Unsigned(k)
            total = fma(w[r0 + j], d0, u[base + j])
            total = fma(w[r1 + j], d1, total)
            total = fma(w[r2 + j], d2, total)
            u[base + j] = fma(w[r3 + j], d3, total)
        e += 4
    while e < e1:
        r0 = Unsigned(table[rows + W_ROW * neuron[e] + R_WEIGHT])
        d0 = value[e]
        for k in range(n):
            j = Unsigned(k)
            u[base + j] = fma(w[r0 + j], d0, u[base + j])
        e += 1


@inlined
def add_narrow(
    w: Any,
    table: Any,
    rows: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    u: Any,
    u0: int,
    n: int,
) -> None:
    """As `add_dense` for few targets: four accumulators stay in registers over all events."""
    base, first = Unsigned(u0), Unsigned(rows + R_WEIGHT)
    width, one = Unsigned(W_ROW), Unsigned(1)
    j = Unsigned(0)
    while j + Unsigned(4) <= Unsigned(n):
        at = base + j
        a, b, c, d = u[at], u[at + one], u[at + Unsigned(2)], u[at + Unsigned(3)]
        for k in range(e0, e1):
            e = Unsigned(k)
            r = Unsigned(table[first + width * Unsigned(neuron[e])]) + j
            v = value[e]
            a = fma(w[r], v, a)
            b = fma(w[r + one], v, b)
            c = fma(w[r + Unsigned(2)], v, c)
            d = fma(w[r + Unsigned(3)], v, d)
        u[at], u[at + one], u[at + Unsigned(2)], u[at + Unsigned(3)] = a, b, c, d
        j += Unsigned(4)
    while j + Unsigned(2) <= Unsigned(n):
        a, b = u[base + j], u[base + j + one]
        for k in range(e0, e1):
            e = Unsigned(k)
            r = Unsigned(table[first + width * Unsigned(neuron[e])]) + j
            a = fma(w[r], value[e], a)
            b = fma(w[r + one], value[e], b)
        u[base + j], u[base + j + one] = a, b
        j += Unsigned(2)
    if j < Unsigned(n):
        a = u[base + j]
        for k in range(e0, e1):
            e = Unsigned(k)
            a = fma(w[Unsigned(table[first + width * Unsigned(neuron[e])]) + j], value[e], a)
        u[base + j] = a


@inlined
def add_indexed(
    w: Any,
    index: Any,
    table: Any,
    rows: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    u: Any,
    u0: int,
    flags: Any,
    f0: int,
) -> tuple[int, int]:
    """Add the indexed rows from event e0 to the first dense one, and flag their targets.

    Returns
    -------
    the event it stopped at, synapses : int
    """
    base, f = Unsigned(u0), Unsigned(f0)
    synapses = 0
    for e in range(e0, e1):
        row = Unsigned(rows + W_ROW * neuron[Unsigned(e)])
        first = table[row + Unsigned(R_INDEX)]
        if first < 0:
            return e, synapses
        i, r = Unsigned(first), Unsigned(table[row + Unsigned(R_WEIGHT)])
        n, d = table[row + Unsigned(R_COUNT)], value[Unsigned(e)]
        synapses += n
        last = i + Unsigned(n)
        while i + _FOUR <= last:
            add_four(u, base, index, i, w, r, d, flags, f)
            i += _FOUR
            r += _FOUR
        while i < last:
            j = Unsigned(index[i])
            u[base + j] = fma(w[r], d, u[base + j])
            flags[f + j] = 1
            i += _ONE
            r += _ONE
    return e1, synapses


@inlined
def add_indexed_large(
    w: Any,
    index: Any,
    table: Any,
    rows: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    u: Any,
    u0: int,
    flags: Any,
    f0: int,
    blocks: int,
    supers: int,
) -> tuple[int, int]:
    """As `add_indexed` for a large population, whose blocks and supers are flagged too.

    A row's targets ascend, so that its blocks are among those from its first to its last target.
    """
    base, f = Unsigned(u0), Unsigned(f0)
    block, higher = Unsigned(blocks), Unsigned(supers)
    synapses = 0
    for e in range(e0, e1):
        row = Unsigned(rows + W_ROW * neuron[Unsigned(e)])
        first = table[row + Unsigned(R_INDEX)]
        if first < 0:
            return e, synapses
        i, r = Unsigned(first), Unsigned(table[row + Unsigned(R_WEIGHT)])
        n, d = table[row + Unsigned(R_COUNT)], value[Unsigned(e)]
        if n == 0:
            continue
        synapses += n
        last = i + Unsigned(n)
        _mark(flags, block, index, i, n, Unsigned(6))
        _mark(flags, higher, index, i, n, Unsigned(12))
        while i + _FOUR <= last:
            add_four(u, base, index, i, w, r, d, flags, f)
            i += _FOUR
            r += _FOUR
        while i < last:
            j = Unsigned(index[i])
            u[base + j] = fma(w[r], d, u[base + j])
            flags[f + j] = 1
            i += _ONE
            r += _ONE
    return e1, synapses


@inlined
def _mark(flags: Any, first: Any, index: Any, i: Any, n: int, shift: Any) -> None:
    """Flag the blocks of 2**shift lanes in which n > 0 targets stand.

    One without any may be flagged too: it is found empty. So where they are close together the
    whole range is.
    """
    low = Unsigned(index[i]) >> shift
    span = np.int64((Unsigned(index[i + Unsigned(n - 1)]) >> shift) - low)
    if span < n:
        for k in range(span + 1):
            flags[first + low + Unsigned(k)] = 1
    else:
        for k in range(n):
            flags[first + (Unsigned(index[i + Unsigned(k)]) >> shift)] = 1


@inlined
def fetch_rows(
    w: Any,
    table: Any,
    rows: int,
    short: Any,
    long: Any,
    is_long: int,
    neuron: Any,
    e0: int,
    e1: int,
    e2: int,
) -> None:
    """Ask for the rows of events e0:e1, and for the entries in the rows' table of e1:e2."""
    width = Unsigned(W_ROW)
    for e in range(e0, e1):
        row = Unsigned(rows) + width * Unsigned(neuron[Unsigned(e)])
        prefetch(w, Unsigned(table[row + Unsigned(R_WEIGHT)]))
        first = table[row + Unsigned(R_INDEX)]
        if first >= 0:
            if is_long:
                prefetch(long, Unsigned(first))
            else:
                prefetch(short, Unsigned(first))
    for e in range(e1, e2):
        prefetch(table, Unsigned(rows) + width * Unsigned(neuron[Unsigned(e)]))


@inlined
def add_rows(
    w: Any,
    table: Any,
    rows: int,
    kind: int,
    short: Any,
    long: Any,
    is_long: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    u: Any,
    u0: int,
    state: Any,
    flags: Any,
    f0: int,
    bits: int,
    n: int,
    touched: int,
    is_large: int,
    blocks: int,
    supers: int,
) -> tuple[int, int, int]:
    """Add the rows of events e0:e1 of one projection to its n targets.

    Returns
    -------
    synapses, executed multiplications, what is flagged of the targets (NONE, SOME or ALL) : int
    """
    synapses = 0
    executed = 0
    e = e0
    while e < e1:
        if kind != MIXED or table[rows + W_ROW * neuron[e] + R_INDEX] < 0:
            # As many dense rows as follow one another.
            last = e
            if kind == FULL:
                last = e1
                synapses = (e1 - e) * n
                touched = ALL
            while last < e1 and (kind == DENSE or table[rows + W_ROW * neuron[last] + R_INDEX] < 0):
                synapses += table[rows + W_ROW * neuron[last] + R_COUNT]
                last += 1
            executed += (last - e) * n
            if n < NARROW:
                add_narrow(w, table, rows, neuron, value, e, last, u, u0, n)
            else:
                add_dense(w, table, rows, neuron, value, e, last, u, u0, n)
            if touched != ALL:
                touched = flag_rows(table, rows, neuron, e, last, state, bits, n)
                if is_large:
                    flags[blocks : blocks + ((n + 63) >> 6)] = 1
                    flags[supers : supers + ((n + 4095) >> 12)] = 1
            e = last
            continue
        if touched == NONE:
            touched = SOME
        if is_large:
            if is_long:
                e, count = add_indexed_large(
                    w, long, table, rows, neuron, value, e, e1, u, u0, flags, f0, blocks, supers
                )
            else:
                e, count = add_indexed_large(
                    w, short, table, rows, neuron, value, e, e1, u, u0, flags, f0, blocks, supers
                )
        else:
            # A small population has few enough targets for short indices.
            e, count = add_indexed(w, short, table, rows, neuron, value, e, e1, u, u0, flags, f0)
        synapses += count
        executed += count
    return synapses, executed, touched


@inlined
def flag_rows(
    table: Any, rows: int, neuron: Any, e0: int, e1: int, state: Any, bits: int, n: int
) -> int:
    """Flag the targets of dense rows in the bits of their population; SOME or ALL.

    A few rows reach all targets, mostly; the others need not be looked at then.
    """
    n_words = (n + 63) >> 6
    beyond = np.int64(0) if n & 63 == 0 else np.int64(-1) << np.int64(n & 63)
    for e in range(e0, e1):
        row = rows + W_ROW * neuron[e]
        if table[row + R_COUNT] == n:
            return ALL
        mask = table[row + R_MASK]
        common = np.int64(-1)
        for k in range(n_words - 1):
            word = state[bits + k] | table[mask + k]
            state[bits + k] = word
            common &= word
        word = state[bits + n_words - 1] | table[mask + n_words - 1]
        state[bits + n_words - 1] = word
        if common & (word | beyond) == -1:
            return ALL
    return SOME
