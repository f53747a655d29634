"""Evaluating the pending neurons of a population, block by block, and listing their events.

A block is 64 lanes, and those pending are the bits of a word. Where more than a few of them are,
the whole block is computed, eight lanes at a time, and the others are masked: an evaluation without
cause could transmit a rounding residue.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.kernels.activations import activate, activate_lanes
from eventsim.kernels.bits import first_bit, prefetch
from eventsim.kernels.fields import (
    AHEAD,
    ALL,
    BITS,
    BLOCK,
    BLOCKS,
    EVENT_NEURON,
    EVENT_VALUE,
    FEW,
    FEW_CHEAP,
    FLAGS,
    OUTPUTS,
    P_BITS,
    P_BLOCK,
    P_CODE,
    P_LANE,
    P_LARGE,
    P_OUTPUT,
    P_P0,
    P_P1,
    P_PADDED,
    P_SIZE,
    P_SUPER,
    P_THRESHOLDS,
    POPULATIONS,
    SINK,
    SUPERS,
    THRESHOLD,
    TOUCHED,
    W_POPULATION,
    WORK,
    S,
    U,
)
from eventsim.kernels.jit import inlined, kernel
from eventsim.kernels.lanes import LANES, RELU, count_bits, flagged_bits, transmit, unflag
from eventsim.kernels.status import (
    EVALUATIONS,
)

Unsigned = np.uint64
_LARGEST = np.finfo(np.float64).max
_NONE = Unsigned(0)
_ONE = Unsigned(1)
_EVERY = ~Unsigned(0)
_EIGHT = Unsigned(255)
_LANES = Unsigned(LANES)


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
    f0, work = plan[FLAGS] + lane, plan[WORK]
    blocks, supers = plan[BLOCKS] + plan[p + P_BLOCK], plan[SUPERS] + plan[p + P_SUPER]
    bits = plan[BITS] + plan[p + P_BITS]
    neuron, value = plan[EVENT_NEURON], plan[EVENT_VALUE]
    everything = state[plan[TOUCHED] + level] == ALL
    # A vectorised pass over a block costs little more than one or two single evaluations, unless
    # the activation is dear.
    few = FEW_CHEAP if code <= 1 else FEW
    if is_large and not everything:
        return int(_evaluate_large(plan, state, values, constants, flags, p, row))
    n_events = 0
    n_evaluated = 0
    for b in range(0, padded, BLOCK):
        width = min(BLOCK, padded - b)
        if everything:
            pending = _EVERY >> Unsigned(BLOCK - min(width, n - b))
            if is_large:
                flags[blocks + (b >> 6)] = 0
                flags[supers + (b >> 12)] = 0
        else:
            # Flags of the next population may stand in the rest of the 64.
            pending = flagged_bits(flags, Unsigned(f0 + b)) & (_EVERY >> Unsigned(BLOCK - width))
            pending |= Unsigned(state[bits + (b >> 6)])
            if pending == _NONE:
                continue
        state[bits + (b >> 6)] = 0
        if width == BLOCK:
            unflag(flags, Unsigned(f0 + b))
        else:
            for k in range(width >> 3):
                state[((f0 + b) >> 3) + k] = 0
        touched = count_bits(pending)
        n_evaluated += touched
        if touched <= few:
            n_events = _evaluate_few(
                plan, state, values, constants, p, b, pending, neuron, value, n_events
            )
            if n_events < 0:
                return int(n_events)
            continue
        after = u0 + b
        if code > RELU or output >= 0:
            after = work
            activate_lanes(code, p0, p1, values, u0 + b, work, pending, width)
        if output >= 0:
            rest = pending
            while rest != _NONE:
                i = np.int64(first_bit(rest))
                rest &= rest - _ONE
                values[plan[OUTPUTS] + output + b + i] = values[after + i]
        for k in range(0, width, LANES):
            if (pending >> Unsigned(k)) & _EIGHT == _NONE:
                continue
            found = transmit(
                values,
                constants,
                state,
                code,
                Unsigned(u0 + b + k),
                Unsigned(after + k),
                Unsigned(s0 + b + k),
                Unsigned(theta + b + k),
                pending >> Unsigned(k),
                Unsigned(b + k),
                Unsigned(neuron + n_events),
                Unsigned(value + n_events),
            )
            if found > _EIGHT:
                return int(-1 - (b + k) - np.int64(first_bit(found >> _LANES)))
            n_events += count_bits(found)
    state[row + EVALUATIONS] = n_evaluated
    return n_events


@inlined
def _evaluate_few(
    plan: Any,
    state: Any,
    values: Any,
    constants: Any,
    p: int,
    b: int,
    pending: Any,
    neuron: int,
    value: int,
    n_events: int,
) -> int:
    """Evaluate the pending lanes of the block at b one by one; otherwise as `evaluate`."""
    lane, output = plan[p + P_LANE] + b, plan[p + P_OUTPUT]
    code, p0, p1 = plan[p + P_CODE], constants[p + P_P0], constants[p + P_P1]
    u0, s0, theta = plan[U] + lane, plan[S] + lane, plan[THRESHOLD] + lane
    while pending != _NONE:
        i = np.int64(first_bit(pending))
        pending &= pending - _ONE
        u = values[u0 + i]
        a = activate(code, p0, p1, u)
        if not (abs(u) <= _LARGEST and abs(a) <= _LARGEST):
            return int(-1 - (b + i))
        if output >= 0:
            values[plan[OUTPUTS] + output + b + i] = a
        d = a - values[s0 + i]
        if abs(d) > constants[theta + i]:
            values[s0 + i] += d
            state[neuron + n_events] = b + i
            values[value + n_events] = d
            n_events += 1
    return n_events


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
    differ = plan[p + P_THRESHOLDS]
    f0, padded = plan[FLAGS] + lane, plan[p + P_PADDED]
    bits = plan[BITS] + plan[p + P_BITS]
    neuron, value, listed = plan[EVENT_NEURON], plan[EVENT_VALUE], plan[EVENT_VALUE]
    n_blocks = _list_blocks(plan, state, flags, p, listed)
    n_pending = 0
    for k in range(n_blocks):
        block = state[listed + k]
        ahead = state[listed + min(k + 6, n_blocks - 1)]
        # Read now what is needed six rounds later; the sink keeps the compiler from dropping it.
        state[SINK] ^= state[(f0 >> 3) + 8 * ahead] ^ state[bits + ahead]
        b = BLOCK * block
        width = min(BLOCK, padded - b)
        pending = flagged_bits(flags, Unsigned(f0 + b)) & (_EVERY >> Unsigned(BLOCK - width))
        pending |= Unsigned(state[bits + block])
        state[bits + block] = 0
        for word in range((f0 + b) >> 3, (f0 + b + width) >> 3):
            state[word] = 0
        while pending != _NONE:
            state[neuron + n_pending] = b + np.int64(first_bit(pending))
            pending &= pending - _ONE
            n_pending += 1
    n_events = 0
    for k in range(n_pending):
        i = state[neuron + k]
        ahead = Unsigned(state[neuron + min(k + AHEAD, n_pending - 1)])
        prefetch(values, Unsigned(u0) + ahead)
        prefetch(values, Unsigned(s0) + ahead)
        u = values[u0 + i]
        a = activate(code, p0, p1, u)
        if not (abs(u) <= _LARGEST and abs(a) <= _LARGEST):
            return int(-1 - i)
        if output >= 0:
            values[plan[OUTPUTS] + output + i] = a
        d = a - values[s0 + i]
        fires = abs(d) > constants[theta + i * differ]
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
