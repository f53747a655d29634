"""Evaluating the pending neurons of a population, block by block, and listing their events.

A block is 64 lanes. Where more than a few of them are pending the whole block is computed, in loops
that are vectorised, and the others are masked: an evaluation without cause could transmit a
rounding residue.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eventsim.kernels.activations import activate, activate_lanes
from eventsim.kernels.fields import (
    ALL,
    BITS,
    BLOCK,
    BLOCKS,
    EVENT_NEURON,
    EVENT_VALUE,
    FEW,
    FEW_CHEAP,
    FIRE,
    FLAGS,
    OUTPUTS,
    P_BITS,
    P_BLOCK,
    P_CODE,
    P_LANE,
    P_LARGE,
    P_LINE,
    P_LINE_END,
    P_OUTPUT,
    P_P0,
    P_P1,
    P_PADDED,
    P_PROJECTION,
    P_PROJECTION_END,
    P_SIZE,
    P_SUPER,
    POPULATIONS,
    POSITIONS,
    SINK,
    SPREAD,
    SUPERS,
    THRESHOLD,
    TOUCHED,
    W_POPULATION,
    WORK,
    S,
    U,
)
from eventsim.kernels.jit import inlined, kernel
from eventsim.kernels.status import (
    EVALUATIONS,
)

_LARGEST = np.finfo(np.float64).max
_ALL_BYTES = 0x0101010101010101
_EVEN_BYTES = 0x00FF00FF00FF00FF
# Times this, a word of bytes that are 0 or 1 has them as bits in its highest byte.
_GATHER_BITS = np.uint64(0x0102040810204080)
_SUM_BYTES = np.uint64(_ALL_BYTES)
Unsigned = np.uint64


@inlined
def evaluate(
    plan: Any, state: Any, values: Any, constants: Any, flags: Any, level: int, row: int
) -> int:
    """Evaluate the flagged neurons of a population and clear the flags.

    Returns
    -------
    number of events, which stand in the list, or -1 - i if neuron i overflowed : int
    """
    p = plan[POPULATIONS] + level * W_POPULATION
    n, padded, lane = plan[p + P_SIZE], plan[p + P_PADDED], plan[p + P_LANE]
    output, is_large = plan[p + P_OUTPUT], plan[p + P_LARGE]
    code, p0, p1 = plan[p + P_CODE], constants[p + P_P0], constants[p + P_P1]
    u0, s0, theta = plan[U] + lane, plan[S] + lane, plan[THRESHOLD] + lane
    f0, work, fire = plan[FLAGS] + lane, plan[WORK], plan[FIRE]
    blocks, supers = plan[BLOCKS] + plan[p + P_BLOCK], plan[SUPERS] + plan[p + P_SUPER]
    bits = plan[BITS] + plan[p + P_BITS]
    neuron, value = plan[EVENT_NEURON], plan[EVENT_VALUE]
    everything = state[plan[TOUCHED] + level] == ALL
    transmits = plan[p + P_PROJECTION_END] > plan[p + P_PROJECTION] or (
        plan[p + P_LINE_END] > plan[p + P_LINE]
    )
    # A vectorised pass over a block costs little more than one or two single evaluations, unless
    # the activation is dear.
    few = FEW_CHEAP if code <= 1 else FEW
    positions = plan.view(np.uint8)
    if is_large and not everything:
        return int(_evaluate_large(plan, state, values, constants, flags, p, row))
    n_events = 0
    n_evaluated = 0
    b = 0
    while b < padded:
        width = min(BLOCK, padded - b)
        word = (f0 + b) >> 3
        if everything:
            touched = min(width, n - b)
            if is_large:
                flags[blocks + (b >> 6)] = 0
                flags[supers + (b >> 12)] = 0
            state[bits + (b >> 6)] = 0
            _fill(state, flags, word, touched)
        else:
            _spread(plan, state, bits + (b >> 6), word, width)
            touched = _count(state, word, width)
            if touched == 0:
                b += BLOCK
                continue
        n_evaluated += touched
        if touched <= few:
            n_events = _evaluate_few(
                plan, state, values, constants, flags, p, b, width, neuron, value, n_events
            )
            if n_events < 0:
                return int(n_events)
            b += BLOCK
            continue
        activate_lanes(code, p0, p1, values, u0 + b, work, flags, f0 + b, width)
        if output >= 0:
            for k in range(min(width, n - b)):
                if flags[f0 + b + k]:
                    values[plan[OUTPUTS] + output + b + k] = values[work + k]
        if _transmit(
            values, u0 + b, work, s0 + b, constants, theta + b, flags, f0 + b, fire, width
        ):
            for k in range(width):
                if flags[f0 + b + k] and not (
                    math.isfinite(values[u0 + b + k]) and math.isfinite(values[work + k])
                ):
                    return -1 - (b + k)
        if transmits:
            n_events = _list(
                plan, positions, state, values, work, fire, width, b, neuron, value, n_events
            )
        for k in range(width >> 3):
            state[Unsigned(word) + Unsigned(k)] = 0
        b += BLOCK
    state[row + EVALUATIONS] = n_evaluated
    return n_events


@inlined
def _evaluate_few(
    plan: Any,
    state: Any,
    values: Any,
    constants: Any,
    flags: Any,
    p: int,
    b: int,
    width: int,
    neuron: int,
    value: int,
    n_events: int,
) -> int:
    """Evaluate the flagged lanes of the block at b one by one; otherwise as `evaluate`."""
    lane, output = plan[p + P_LANE] + b, plan[p + P_OUTPUT]
    code, p0, p1 = plan[p + P_CODE], constants[p + P_P0], constants[p + P_P1]
    u0, s0, theta = plan[U] + lane, plan[S] + lane, plan[THRESHOLD] + lane
    f0 = plan[FLAGS] + lane
    for word in range(f0 >> 3, (f0 + width) >> 3):
        if state[word] == 0:
            continue
        for i in range(8 * word - f0, 8 * word - f0 + 8):
            if flags[f0 + i] == 0:
                continue
            u = values[u0 + i]
            a = activate(code, p0, p1, u)
            if not (abs(u) <= _LARGEST and abs(a) <= _LARGEST):
                return -1 - (b + i)
            if output >= 0:
                values[plan[OUTPUTS] + output + b + i] = a
            d = a - values[s0 + i]
            if abs(d) > constants[theta + i]:
                values[s0 + i] += d
                state[neuron + n_events] = b + i
                values[value + n_events] = d
                n_events += 1
        state[word] = 0
    return n_events


@inlined
def _spread(plan: Any, state: Any, bits: int, word: int, width: int) -> None:
    """Turn a block's bits into bytes."""
    lanes = state[bits]
    if lanes != 0:
        state[bits] = 0
        for k in range(width >> 3):
            state[word + k] |= plan[plan[SPREAD] + ((lanes >> (8 * k)) & 255)]


@kernel
def _evaluate_large(
    plan: Any, state: Any, values: Any, constants: Any, flags: Any, p: int, row: int
) -> int:
    """As `evaluate` for a large population of which few neurons are flagged.

    Its memory is read in loops whose rounds do not wait for one another: first the blocks flagged
    are listed, then the lanes flagged in them, then these are evaluated.
    """
    lane, output = plan[p + P_LANE], plan[p + P_OUTPUT]
    code, p0, p1 = plan[p + P_CODE], constants[p + P_P0], constants[p + P_P1]
    u0, s0, theta = plan[U] + lane, plan[S] + lane, plan[THRESHOLD] + lane
    f0, n_words = plan[FLAGS] + lane, plan[p + P_PADDED] >> 3
    bits = plan[BITS] + plan[p + P_BITS]
    neuron, value, listed = plan[EVENT_NEURON], plan[EVENT_VALUE], plan[EVENT_VALUE]
    n_blocks = _list_blocks(plan, state, flags, p, listed)
    n_pending = 0
    for k in range(n_blocks):
        block = state[listed + k]
        ahead = state[listed + min(k + 6, n_blocks - 1)]
        # Read now what is needed six rounds later; the sink keeps the compiler from dropping it.
        state[SINK] ^= state[(f0 >> 3) + 8 * ahead] ^ state[bits + ahead]
        words = min(8, n_words - 8 * block)
        first = (f0 >> 3) + 8 * block
        _spread(plan, state, bits + block, first, 8 * words)
        for word in range(first, first + words):
            if state[word] == 0:
                continue
            for i in range(8 * word, 8 * word + 8):
                state[neuron + n_pending] = i - f0
                n_pending += int(flags[i])
            state[word] = 0
    n_events = 0
    for k in range(n_pending):
        i = state[neuron + k]
        u = values[u0 + i]
        a = activate(code, p0, p1, u)
        if not (abs(u) <= _LARGEST and abs(a) <= _LARGEST):
            return int(-1 - i)
        if output >= 0:
            values[plan[OUTPUTS] + output + i] = a
        d = a - values[s0 + i]
        fires = abs(d) > constants[theta + i]
        values[s0 + i] += d if fires else 0.0
        state[neuron + n_events] = i
        values[value + n_events] = d
        n_events += int(fires)
    state[row + EVALUATIONS] = n_pending
    return n_events


@kernel
def _list_blocks(plan: Any, state: Any, flags: Any, p: int, listed: int) -> int:
    """List the blocks flagged in a large population, clear their flags, return their number."""
    blocks, supers = plan[BLOCKS] + plan[p + P_BLOCK], plan[SUPERS] + plan[p + P_SUPER]
    n_blocks = (plan[p + P_PADDED] + BLOCK - 1) >> 6
    n = 0
    for k in range((n_blocks + 63) >> 6):
        if flags[supers + k] == 0:
            continue
        flags[supers + k] = 0
        first = (blocks >> 3) + 8 * k
        for word in range(first, first + min(8, (n_blocks - 64 * k + 7) >> 3)):
            if state[word] == 0:
                continue
            for i in range(8):
                state[listed + n] = 8 * (word - (blocks >> 3)) + i
                n += int(flags[8 * word + i])
            state[word] = 0
    return n


@inlined
def _count(state: Any, word: int, width: int) -> int:
    """Sum the flags of a block, bytes of 0 or 1: eight lanes a word, then the word's bytes."""
    lanes = np.int64(0)
    for k in range(width >> 3):
        lanes += state[Unsigned(word) + Unsigned(k)]
    if lanes == 0:
        return 0
    pairs = (lanes & _EVEN_BYTES) + ((lanes >> 8) & _EVEN_BYTES)
    fours = pairs + (pairs >> 32)
    return int((fours + (fours >> 16)) & 0xFFFF)


@inlined
def _fill(state: Any, flags: Any, word: int, n: int) -> None:
    """Set the first n flags of a block."""
    for k in range(n >> 3):
        state[Unsigned(word) + Unsigned(k)] = _ALL_BYTES
    for k in range(n & ~7, n):
        flags[8 * word + k] = 1


@inlined
def _list(
    plan: Any,
    positions: Any,
    state: Any,
    values: Any,
    work: int,
    fire: int,
    width: int,
    b: int,
    neuron: int,
    value: int,
    n_events: int,
) -> int:
    """Append the lanes of the block at b that fire to the list of events.

    Eight lanes at a time, without a branch for each: a table gives the places of the set ones, of
    which all eight are written; the next ones overwrite what was too much.
    """
    before = n_events
    for k in range(width >> 3):
        word = Unsigned(state[Unsigned(fire >> 3) + Unsigned(k)])
        if word == Unsigned(0):
            continue
        bits = (word * _GATHER_BITS) >> Unsigned(56)
        found = Unsigned(8) * (Unsigned(plan[POSITIONS]) + bits)
        at, first = Unsigned(neuron + n_events), b + 8 * k
        for i in range(8):
            state[at + Unsigned(i)] = first + np.int64(positions[found + Unsigned(i)])
        # int alone would leave it unsigned, and a sum of both kinds is a float.
        n_events = int(n_events + np.int64((word * _SUM_BYTES) >> Unsigned(56)))
    d = Unsigned(work)
    for e in range(before, n_events):
        j = Unsigned(state[Unsigned(neuron) + Unsigned(e)] - b)
        values[Unsigned(value) + Unsigned(e)] = values[d + j]
    return n_events


@inlined
def _transmit(
    values: Any,
    u0: int,
    work: int,
    s0: int,
    constants: Any,
    theta0: int,
    flags: Any,
    f0: int,
    fire0: int,
    width: int,
) -> int:
    """Turn activations into differences from s, mark the flagged ones above threshold, move s.

    Returns
    -------
    whether a flagged neuron's accumulator or activation is not finite; then `work` is as it was
    """
    u, a, s, theta = Unsigned(u0), Unsigned(work), Unsigned(s0), Unsigned(theta0)
    f, fire = Unsigned(f0), Unsigned(fire0)
    bad = 0
    for k in range(width):
        j = Unsigned(k)
        fine = (abs(values[u + j]) <= _LARGEST) & (abs(values[a + j]) <= _LARGEST)
        bad |= int(flags[f + j]) & int(not fine)
    if bad:
        return 1
    for k in range(width):
        j = Unsigned(k)
        old = values[s + j]
        d = values[a + j] - old
        fires = np.uint8(abs(d) > constants[theta + j]) & flags[f + j]
        values[a + j] = d
        values[s + j] = old + (d if fires else 0.0)
        flags[fire + j] = fires
    return 0
