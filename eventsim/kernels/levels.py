"""The level-ordered engine for delta networks: population after population, no queue.

Contract: that of `eventsim.kernels.delta`, and the same events bit for bit. A population is
evaluated after all that feed it, its neurons in order of id; its events are kept in a list, and
its projections then add their rows in the order of that list.

Sets: state, outputs. Reads: plan, inputs. See `eventsim.kernels.fields` for the buffers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.kernels.bits import first_bit
from eventsim.kernels.conv import add_window, take_maxima
from eventsim.kernels.evaluate import evaluate
from eventsim.kernels.fields import (
    ALL,
    BITS,
    BLOCK,
    BLOCKS,
    DETAIL,
    DONE,
    EVENT_NEURON,
    EVENT_VALUE,
    FETCHED,
    FLAGS,
    L_COUNT,
    L_CURSOR,
    L_DELAY,
    L_NEURON,
    L_PROJECTION,
    L_PROJECTION_END,
    L_VALUE,
    LAST,
    LINES,
    LOG_CAPACITY,
    LOG_NEURON,
    LOG_STEP,
    LOG_VALUE,
    MIRROR,
    MIRRORED,
    N_INPUTS,
    N_LINES,
    N_LOGGED,
    N_NEURONS,
    N_OUTPUTS,
    N_POPULATIONS,
    NONE,
    OUTPUTS,
    P_BITS,
    P_BLOCK,
    P_INDEX,
    P_INPUT,
    P_LANE,
    P_LARGE,
    P_LINE,
    P_LINE_END,
    P_MERGED,
    P_NEURON,
    P_OUTPUT,
    P_PROJECTION,
    P_PROJECTION_END,
    P_SIZE,
    P_SUPER,
    P_WATCH,
    POPULATIONS,
    PROJECTIONS,
    Q_COLUMN,
    Q_KIND,
    Q_LONG,
    Q_ROWS,
    Q_SOURCE,
    Q_TARGET,
    Q_WIDE,
    Q_WINDOW,
    STATUS,
    STEP,
    SUPERS,
    TABLE_ROWS,
    TABLES,
    THRESHOLD,
    TOTALS,
    TOUCHED,
    W_LINE,
    W_POPULATION,
    W_PROJECTION,
    S,
    U,
)
from eventsim.kernels.jit import inlined, kernel
from eventsim.kernels.lanes import count_bits, renewed_bits
from eventsim.kernels.rows import add_rows, fetch_rows
from eventsim.kernels.status import (
    BUFFER_FULL,
    EVALUATIONS,
    EVENTS,
    EXECUTED,
    N_COUNTERS,
    NONFINITE_INPUT,
    NONFINITE_STATE,
    OK,
    WRONG_SIZE,
)

_LARGEST = np.finfo(np.float64).max
_ALL_BYTES = 0x0101010101010101
_EVEN_BYTES = 0x00FF00FF00FF00FF
Unsigned = np.uint64


@kernel
def advance(inputs: Any, outputs: Any, plan: Any, state: Any) -> int:
    """Advance by the steps in `inputs`.

    Parameters
    ----------
    inputs : float64 or uint8 array of shape (T * n_inputs,)
    outputs : float64 array of shape (T * n_outputs,)
        Filled with f(u) of the output neurons.
    plan, state : int64 arrays
        As `eventsim.plan` makes them.

    Returns
    -------
    status : int
        The steps done and the status's detail stand in the state's header.
    """
    values = state.view(np.float64)
    n_inputs, n_outputs = plan[N_INPUTS], plan[N_OUTPUTS]
    n_populations, n_steps = plan[N_POPULATIONS], outputs.shape[0] // n_outputs
    n_counts = n_populations * N_COUNTERS
    table_rows, capacity = plan[TABLE_ROWS], plan[LOG_CAPACITY]
    if inputs.shape[0] != n_steps * n_inputs:
        return WRONG_SIZE
    for t in range(n_steps):
        x0 = t * n_inputs
        state[DONE] = t
        if capacity > 0 and capacity - state[N_LOGGED] < plan[N_NEURONS]:
            return BUFFER_FULL
        # The size of an item is known when this is compiled: bytes are finite.
        if inputs.itemsize > 1 and not _finite(inputs, x0, n_inputs):
            for k in range(n_inputs):
                if not abs(inputs[x0 + k]) <= _LARGEST:
                    state[DETAIL] = k
                    return NONFINITE_INPUT
        count = plan[TABLES] + (t % table_rows) * n_counts
        for k in range(n_counts):
            state[Unsigned(count) + Unsigned(k)] = 0
        if plan[N_LINES] > 0:
            _deliver(plan, state, values, count)
        failed = _levels(inputs, x0, plan, state, values, count)
        state[MIRRORED] = inputs.itemsize == 1
        if failed >= 0:
            state[DETAIL] = failed
            return NONFINITE_STATE
        first, totals = plan[OUTPUTS], plan[TOTALS]
        for k in range(n_outputs):
            outputs[Unsigned(t * n_outputs + k)] = values[Unsigned(first + k)]
        for k in range(n_counts):
            state[Unsigned(totals) + Unsigned(k)] += state[Unsigned(count) + Unsigned(k)]
        state[STEP] += 1
        state[LAST] = count
    state[DONE] = n_steps
    return OK


@inlined
def _finite(inputs: Any, x0: int, n: int) -> bool:
    """Whether all inputs of a step are finite."""
    bad = 0
    for k in range(n):
        bad |= not abs(inputs[Unsigned(x0) + Unsigned(k)]) <= _LARGEST
    return bad == 0


@kernel
def advance_all(inputs: Any, outputs: Any, plan: Any, states: Any) -> int:
    """Advance B states, each by its own steps, one after the other.

    Parameters
    ----------
    inputs : float64 array of shape (B, T * n_inputs)
    outputs : float64 array of shape (B, T * n_outputs)
    plan : int64 array
    states : int64 array of shape (B, words)

    Returns
    -------
    -1, or the number of the first state whose status is not OK; it stands in its header
    """
    failed = -1
    for b in range(states.shape[0]):
        states[b, STATUS] = advance(inputs[b], outputs[b], plan, states[b])
        if states[b, STATUS] != OK and failed < 0:
            failed = b
    return failed


@inlined
def _levels(inputs: Any, x0: int, plan: Any, state: Any, values: Any, count: int) -> int:
    """Evaluate what is pending, level by level; the id of a neuron that overflowed, or -1."""
    constants, flags = plan.view(np.float64), state.view(np.uint8)
    narrow, short, long = plan.view(np.float32), plan.view(np.uint16), plan.view(np.uint32)
    neurons, capacity = plan[EVENT_NEURON], plan[LOG_CAPACITY]
    event_neuron = state[neurons:]
    event_value = values[plan[EVENT_VALUE] :]
    for level in range(plan[N_POPULATIONS]):
        p = plan[POPULATIONS] + level * W_POPULATION
        row = count + plan[p + P_INDEX] * N_COUNTERS
        if plan[p + P_INPUT] >= 0:
            n_events = _compare(inputs, x0, plan, state, values, constants, flags, level, row)
        elif state[plan[TOUCHED] + level] == NONE:
            continue
        else:
            if plan[p + P_WATCH] >= 0:
                _watched(plan, state, values, flags, level, p)
            n_events = evaluate(plan, state, values, constants, flags, level, row)
            if n_events < 0:
                return int(plan[p + P_NEURON] - n_events - 1)
        state[plan[TOUCHED] + level] = NONE
        if n_events == 0:
            continue
        state[row + EVENTS] = n_events
        if capacity > 0:
            logged = state[N_LOGGED]
            _log(plan, state, values, state[STEP], plan[p + P_NEURON], logged, n_events)
            state[N_LOGGED] = logged + n_events
        # Where two projections share their targets, event by event; else row by row, and where
        # the rows lie far apart as many at a time as are asked for ahead.
        together = n_events
        if plan[p + P_MERGED]:
            together = 1
        elif plan[p + P_LARGE] and not _has_window(plan, p):
            together = FETCHED
        for e in range(0, n_events, together):
            end = min(e + together, n_events)
            for q in range(plan[p + P_PROJECTION], plan[p + P_PROJECTION_END]):
                if plan[p + P_LARGE]:
                    _fetch(plan, constants, narrow, short, long, event_neuron, e, end, n_events, q)
                _propagate(
                    plan, constants, narrow, short, long, state, values, flags,
                    event_neuron, event_value, e, end, q, count,
                )  # fmt: skip
        for line in range(plan[p + P_LINE], plan[p + P_LINE_END]):
            _delay(plan, state, values, plan[LINES] + line * W_LINE, plan[p + P_SIZE], n_events)
    return -1


@inlined
def _has_window(plan: Any, p: int) -> bool:
    """Whether the first projection of the population at p has a window: its rows lie together."""
    if plan[p + P_PROJECTION] == plan[p + P_PROJECTION_END]:
        return False
    q = plan[PROJECTIONS] + plan[p + P_PROJECTION] * W_PROJECTION
    return bool(plan[q + Q_WINDOW] >= 0)


@kernel
def _log(
    plan: Any, state: Any, values: Any, step: int, first: int, logged: int, n_events: int
) -> None:
    """Record the events listed, column by column."""
    at = Unsigned(plan[LOG_STEP] + logged)
    for e in range(n_events):
        state[at + Unsigned(e)] = step
    at, source = Unsigned(plan[LOG_NEURON] + logged), Unsigned(plan[EVENT_NEURON])
    for e in range(n_events):
        state[at + Unsigned(e)] = first + state[source + Unsigned(e)]
    at, source = Unsigned(plan[LOG_VALUE] + logged), Unsigned(plan[EVENT_VALUE])
    for e in range(n_events):
        values[at + Unsigned(e)] = values[source + Unsigned(e)]


@kernel
def _watched(plan: Any, state: Any, values: Any, flags: Any, level: int, p: int) -> None:
    """Set u of the max-pooling neurons that are pending."""
    q = plan[PROJECTIONS] + plan[p + P_WATCH] * W_PROJECTION
    source = plan[POPULATIONS] + plan[q + Q_SOURCE] * W_POPULATION
    take_maxima(
        plan, plan[q + Q_WINDOW], values, plan[U] + plan[p + P_LANE],
        plan[S] + plan[source + P_LANE], flags, plan[FLAGS] + plan[p + P_LANE],
        plan[p + P_SIZE], state[plan[TOUCHED] + level] == ALL,
    )  # fmt: skip


@kernel
def _fetch(
    plan: Any,
    wide: Any,
    narrow: Any,
    short: Any,
    long: Any,
    event_neuron: Any,
    e0: int,
    e1: int,
    n_events: int,
    projection: int,
) -> None:
    """Ask for the rows of events e0:e1 of one projection, and for the next ones' places."""
    q = plan[PROJECTIONS] + projection * W_PROJECTION
    rows, is_long = plan[q + Q_ROWS], plan[q + Q_LONG]
    e2 = min(e1 + FETCHED, n_events)
    if plan[q + Q_WINDOW] >= 0:
        return
    if plan[q + Q_WIDE]:
        fetch_rows(wide, plan, rows, short, long, is_long, event_neuron, e0, e1, e2)
    else:
        fetch_rows(narrow, plan, rows, short, long, is_long, event_neuron, e0, e1, e2)


@kernel
def _propagate(
    plan: Any,
    wide: Any,
    narrow: Any,
    short: Any,
    long: Any,
    state: Any,
    values: Any,
    flags: Any,
    event_neuron: Any,
    event_value: Any,
    e0: int,
    e1: int,
    projection: int,
    count: int,
) -> None:
    """Add the rows of events e0:e1 of one projection, and count them."""
    q = plan[PROJECTIONS] + projection * W_PROJECTION
    target = plan[q + Q_TARGET]
    p = plan[POPULATIONS] + target * W_POPULATION
    lane, touched = plan[p + P_LANE], plan[TOUCHED] + target
    if plan[q + Q_WINDOW] >= 0:
        if plan[q + Q_WIDE]:
            synapses, executed, flagged = add_window(
                wide, short, plan, plan[q + Q_WINDOW], plan[q + Q_ROWS], plan[q + Q_KIND],
                event_neuron, event_value, e0, e1, state, values, plan[U] + lane,
                flags, plan[FLAGS] + lane, plan[BITS] + plan[p + P_BITS], state[touched],
            )  # fmt: skip
        else:
            synapses, executed, flagged = add_window(
                narrow, short, plan, plan[q + Q_WINDOW], plan[q + Q_ROWS], plan[q + Q_KIND],
                event_neuron, event_value, e0, e1, state, values, plan[U] + lane,
                flags, plan[FLAGS] + lane, plan[BITS] + plan[p + P_BITS], state[touched],
            )  # fmt: skip
    elif plan[q + Q_WIDE]:
        synapses, executed, flagged = add_rows(
            wide, plan, plan[q + Q_ROWS], plan[q + Q_KIND], short, long, plan[q + Q_LONG],
            event_neuron, event_value, e0, e1, values, plan[U] + lane,
            state, flags, plan[FLAGS] + lane, plan[BITS] + plan[p + P_BITS],
            plan[p + P_SIZE], state[touched], plan[p + P_LARGE],
            plan[BLOCKS] + plan[p + P_BLOCK], plan[SUPERS] + plan[p + P_SUPER],
        )  # fmt: skip
    else:
        synapses, executed, flagged = add_rows(
            narrow, plan, plan[q + Q_ROWS], plan[q + Q_KIND], short, long, plan[q + Q_LONG],
            event_neuron, event_value, e0, e1, values, plan[U] + lane,
            state, flags, plan[FLAGS] + lane, plan[BITS] + plan[p + P_BITS],
            plan[p + P_SIZE], state[touched], plan[p + P_LARGE],
            plan[BLOCKS] + plan[p + P_BLOCK], plan[SUPERS] + plan[p + P_SUPER],
        )  # fmt: skip
    state[touched] = flagged
    row = count + plan[p + P_INDEX] * N_COUNTERS
    state[row + plan[q + Q_COLUMN]] += synapses
    state[row + EXECUTED] += executed


@inlined
def _compare(
    inputs: Any,
    x0: int,
    plan: Any,
    state: Any,
    values: Any,
    constants: Any,
    flags: Any,
    level: int,
    row: int,
) -> int:
    """Take over the inputs that changed; list and return the events of the population.

    Bytes are compared with those of the step before, so that a picture of which nothing changes is
    read once and no neuron's state with it.
    """
    p = plan[POPULATIONS] + level * W_POPULATION
    n, lane, output = plan[p + P_SIZE], plan[p + P_LANE], plan[p + P_OUTPUT]
    u0, s0, theta = plan[U] + lane, plan[S] + lane, plan[THRESHOLD] + lane
    x0 += plan[p + P_INPUT]
    mirror = plan[MIRROR] + plan[p + P_INPUT]
    mirrored = inputs.itemsize == 1 and state[MIRRORED] == 1
    neuron, value = plan[EVENT_NEURON], plan[EVENT_VALUE]
    first = state[plan[TOUCHED] + level] == ALL
    n_events = 0
    n_changed = 0
    whole = n - n % BLOCK if mirrored and not first else 0
    for b in range(0, whole, BLOCK):
        differ = renewed_bits(inputs, Unsigned(x0 + b), flags, Unsigned(mirror + b))
        n_changed += count_bits(differ)
        while differ != Unsigned(0):
            j = Unsigned(b) + first_bit(differ)
            differ &= differ - Unsigned(1)
            x = np.float64(inputs[Unsigned(x0) + j])
            values[Unsigned(u0) + j] = x
            d = x - values[Unsigned(s0) + j]
            fires = int(abs(d) > constants[Unsigned(theta) + j])
            state[Unsigned(neuron + n_events)] = j
            values[Unsigned(value + n_events)] = d
            n_events += fires
            values[Unsigned(s0) + j] += d if fires else 0.0
    for b in range(whole, n, BLOCK):
        end = min(b + BLOCK, n)
        if inputs.itemsize == 1:
            for k in range(b, end):
                j = Unsigned(k)
                flags[Unsigned(mirror) + j] = np.uint8(inputs[Unsigned(x0) + j])
        elif end - b > 16:
            changed = int(first)
            for k in range(b, end):
                changed |= inputs[Unsigned(x0 + k)] != values[Unsigned(u0 + k)]
            if not changed:
                continue
        for k in range(b, end):
            j = Unsigned(k)
            x, u = np.float64(inputs[Unsigned(x0) + j]), values[Unsigned(u0) + j]
            changed = int((x != u) | first)
            n_changed += changed
            # 0.0 and -0.0 are equal, so the old one stays.
            x = x if x != u else u
            values[Unsigned(u0) + j] = x
            d = x - values[Unsigned(s0) + j]
            fires = changed & int(abs(d) > constants[Unsigned(theta) + j])
            state[Unsigned(neuron + n_events)] = k
            values[Unsigned(value + n_events)] = d
            n_events += fires
            values[Unsigned(s0) + j] += d if fires else 0.0
    state[row + EVALUATIONS] = n_changed
    if output >= 0 and n_changed:
        for k in range(n):
            values[plan[OUTPUTS] + output + k] = values[u0 + k]
    return n_events


@kernel
def _delay(plan: Any, state: Any, values: Any, line: int, size: int, n_events: int) -> None:
    """Put the events listed into a delay line."""
    slot = state[STEP] % (plan[line + L_DELAY] + 1)
    entry = slot * size
    for e in range(n_events):
        state[plan[line + L_NEURON] + entry + e] = state[plan[EVENT_NEURON] + e]
        values[plan[line + L_VALUE] + entry + e] = values[plan[EVENT_VALUE] + e]
    state[plan[line + L_COUNT] + slot] = n_events


@kernel
def _deliver(plan: Any, state: Any, values: Any, count: int) -> None:
    """Add the delayed events that are due, of each population in order of id.

    Of one neuron the longest delay comes first, as it was transmitted first; lines stand in that
    order, and each line's slot is sorted by id.
    """
    constants, flags = plan.view(np.float64), state.view(np.uint8)
    narrow, short, long = plan.view(np.float32), plan.view(np.uint16), plan.view(np.uint32)
    event_neuron = state[plan[EVENT_NEURON] :]
    event_value = values[plan[EVENT_VALUE] :]
    step = state[STEP]
    for level in range(plan[N_POPULATIONS]):
        p = plan[POPULATIONS] + level * W_POPULATION
        size, first, end = plan[p + P_SIZE], plan[p + P_LINE], plan[p + P_LINE_END]
        for number in range(first, end):
            state[plan[plan[LINES] + number * W_LINE + L_CURSOR]] = 0
        while True:
            best = -1
            neuron = size
            for number in range(first, end):
                line = plan[LINES] + number * W_LINE
                slot = (step - plan[line + L_DELAY]) % (plan[line + L_DELAY] + 1)
                cursor = state[plan[line + L_CURSOR]]
                if cursor < state[plan[line + L_COUNT] + slot]:
                    entry = slot * size + cursor
                    if state[plan[line + L_NEURON] + entry] < neuron:
                        best = line
                        neuron = state[plan[line + L_NEURON] + entry]
                        event_value[0] = values[plan[line + L_VALUE] + entry]
            if best < 0:
                break
            event_neuron[0] = neuron
            state[plan[best + L_CURSOR]] += 1
            for q in range(plan[best + L_PROJECTION], plan[best + L_PROJECTION_END]):
                _propagate(
                    plan, constants, narrow, short, long, state, values, flags,
                    event_neuron, event_value, np.int64(0), np.int64(1), q, count,
                )  # fmt: skip
        for number in range(first, end):
            line = plan[LINES] + number * W_LINE
            slot = (step - plan[line + L_DELAY]) % (plan[line + L_DELAY] + 1)
            state[plan[line + L_COUNT] + slot] = 0
