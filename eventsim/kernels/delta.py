"""The reference engine for delta networks: a plain priority-queue loop.

Contract of every step-by-step engine (design: Order):

1. Delayed deltas due at this step are added first, in source (rank, id) order; of one neuron the
   one transmitted earlier first.
2. Inputs are compared; those that changed become pending.
3. Pending neurons are evaluated by (time, rank, id), each at most once a step, because whatever
   feeds a neuron without delay has a lower rank.
4. A target's u + w d is rounded once.

Sets: state, outputs, counters, event buffers. Reads: the compiled arrays, inputs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from eventsim.kernels.activations import activate
from eventsim.kernels.queue import pop, push
from eventsim.kernels.status import (
    BUFFER_FULL,
    EVALUATIONS,
    EVENTS,
    EXECUTED,
    NONFINITE_INPUT,
    NONFINITE_STATE,
    OK,
)
from eventsim.kernels.walk import add_row, add_window, window_max


class State(NamedTuple):
    """Everything that changes during a run; flat arrays, copied by a snapshot."""

    u: NDArray[np.float64]  # (accumulators,)
    s: NDArray[np.float64]  # (N,) what the targets have received
    a: NDArray[np.float64]  # (N,) f(u) at the last evaluation
    heap_time: NDArray[np.float64]  # (N,) in steps
    heap_neuron: NDArray[np.int64]  # (N,)
    heap_place: NDArray[np.int64]  # (N,)
    heap_size: NDArray[np.int64]  # (1,)
    line_neuron: NDArray[np.int64]  # delayed events, line by line, slot by slot
    line_value: NDArray[np.float64]
    line_count: NDArray[np.int64]  # (slots,)
    step: NDArray[np.int64]  # (1,) steps since the reset


@njit(cache=True)
def run(
    net: Any,
    state: Any,
    inputs: Any,
    outputs: Any,
    counters: Any,
    event_step: Any,
    event_neuron: Any,
    event_value: Any,
    n_events: Any,
) -> tuple[int, int, int]:
    """Advance by the rows of `inputs`.

    Parameters
    ----------
    net : Arrays
    state : State
    inputs : float64 array of shape (T, n_inputs)
    outputs : float64 array of shape (T, n_outputs)
        Filled with f(u) of the output neurons.
    counters : int64 array of shape (T, P, N_COUNTERS)
        Added to.
    event_step, event_neuron, event_value : arrays of one length, 0 to record nothing
        Filled with the events of the call; the length must be at least N otherwise.
    n_events : int64 array of shape (1,)
        Number of events in the buffer.

    Returns
    -------
    status, steps done, detail : int
    """
    record = event_step.shape[0] > 0
    # Locals, once: an access to a field of so large a tuple costs as much as a synapse.
    order, threshold, transmits = net.order, net.threshold, net.transmits
    neuron_pop, pop_start, pop_watch = net.neuron_pop, net.pop_start, net.pop_watch
    code, p0, p1 = net.pop_activation, net.pop_p0, net.pop_p1
    pop_out, out_proj, pop_line = net.pop_out, net.out_proj, net.pop_line
    proj_line, proj_row, proj_target = net.proj_line, net.proj_row, net.proj_target
    proj_accumulator, proj_neuron = net.proj_accumulator, net.proj_neuron
    proj_source, proj_column = net.proj_source, net.proj_column
    proj_window, windows = net.proj_window, net.windows
    row, syn_target, syn_weight = net.row, net.syn_target, net.syn_weight
    line_delay, line_start, line_slot = net.line_delay, net.line_start, net.line_slot
    line_neuron, line_value, line_count = state.line_neuron, state.line_value, state.line_count
    input_neuron, output_neuron, clock = net.input_neuron, net.output_neuron, state.step
    u, s, a = state.u, state.s, state.a
    heap = (state.heap_time, state.heap_neuron, state.heap_place, state.heap_size, order)
    n_neurons = order.shape[0]
    for t in range(inputs.shape[0]):
        if record and event_step.shape[0] - n_events[0] < n_neurons:
            return BUFFER_FULL, t, 0
        for i in range(inputs.shape[1]):
            if not math.isfinite(inputs[t, i]):
                return NONFINITE_INPUT, t, i
        step, count = clock[0], counters[t]
        now = float(step)
        if line_delay.shape[0] > 0:
            _deliver_delayed(net, state, heap, count, step)
        for i in range(inputs.shape[1]):
            # A delta neuron has one receptor, so its accumulator has its number.
            neuron = input_neuron[i]
            if inputs[t, i] != u[neuron]:
                u[neuron] = inputs[t, i]
                push(*heap, neuron, now)
        while heap[3][0] > 0 and heap[0][0] <= now:
            neuron = pop(*heap)
            p = neuron_pop[neuron]
            count[p, EVALUATIONS] += 1
            if pop_watch[p] >= 0:
                # What the events added there only made it pending.
                u[neuron] = window_max(
                    windows[proj_window[pop_watch[p]]],
                    neuron - pop_start[p],
                    s,
                    pop_start[proj_source[pop_watch[p]]],
                )
            a[neuron] = activate(code[p], p0[p], p1[p], u[neuron])
            if not (math.isfinite(u[neuron]) and math.isfinite(a[neuron])):
                return NONFINITE_STATE, t, neuron  # tanh would hide an infinite u
            d = a[neuron] - s[neuron]
            if not transmits[neuron] or abs(d) <= threshold[neuron]:
                continue
            s[neuron] += d
            count[p, EVENTS] += 1
            if record:
                event_step[n_events[0]] = step
                event_neuron[n_events[0]] = neuron
                event_value[n_events[0]] = d
                n_events[0] += 1
            for k in range(pop_out[p], pop_out[p + 1]):
                q = out_proj[k]
                if proj_line[q] < 0:
                    n = _transmit(
                        proj_window,
                        windows,
                        proj_row,
                        row,
                        syn_target,
                        syn_weight,
                        proj_accumulator,
                        proj_neuron,
                        u,
                        heap,
                        q,
                        neuron - pop_start[p],
                        d,
                        now,
                    )
                    count[proj_target[q], proj_column[q]] += n
                    count[proj_target[q], EXECUTED] += n
            for line in range(pop_line[p], pop_line[p + 1]):
                slot = step % (line_delay[line] + 1)
                tail = line_slot[line] + slot
                entry = line_start[line] + slot * (pop_start[p + 1] - pop_start[p])
                entry += line_count[tail]
                line_neuron[entry] = neuron
                line_value[entry] = d
                line_count[tail] += 1
        for i in range(outputs.shape[1]):
            outputs[t, i] = a[output_neuron[i]]
        clock[0] += 1
    return OK, inputs.shape[0], 0


@njit(cache=True)
def next_time(net: Any, state: Any) -> float:
    """Step of the next pending evaluation or delayed delta; inf if there is none."""
    best = math.inf
    if state.heap_size[0] > 0:
        best = state.heap_time[0]
    step = state.step[0]
    for line in range(net.line_delay.shape[0]):
        n_slots = net.line_delay[line] + 1
        # A slot holds what was transmitted in one of the last `delay` steps.
        for age in range(1, n_slots):
            sent = step - age
            if sent >= 0 and state.line_count[net.line_slot[line] + sent % n_slots] > 0:
                best = min(best, float(sent + net.line_delay[line]))
    return best


@njit(cache=True)
def _transmit(
    proj_window: Any,
    windows: Any,
    proj_row: Any,
    row: Any,
    syn_target: Any,
    syn_weight: Any,
    proj_accumulator: Any,
    proj_neuron: Any,
    u: Any,
    heap: Any,
    q: int,
    source: int,
    d: float,
    now: float,
) -> int:
    """Send d of source neuron `source` along projection q; the number of synapses."""
    first, accumulator, neuron = proj_row[q], proj_accumulator[q], proj_neuron[q]
    if proj_window[q] < 0:
        return add_row(
            row[first + source],
            row[first + source + 1],
            syn_target,
            syn_weight,
            d,
            u,
            accumulator,
            heap,
            neuron,
            now,
        )
    return add_window(
        windows[proj_window[q]],
        row,
        first,
        source,
        syn_target,
        syn_weight,
        d,
        u,
        accumulator,
        heap,
        neuron,
        now,
    )


@njit(cache=True)
def _deliver_delayed(net: Any, state: Any, heap: Any, count: Any, step: int) -> None:
    """Merge the lines' slots that are due: each is sorted by (rank, id) already."""
    n_lines = net.line_delay.shape[0]
    cursor = np.zeros(n_lines, np.int64)
    while True:
        best = -1
        best_order = 0
        for line in range(n_lines):
            entry, length = _due(net, state, line, step)
            if cursor[line] >= length:
                continue
            order = net.order[state.line_neuron[entry + cursor[line]]]
            # Of one neuron, the longer delay was transmitted earlier.
            if (
                best < 0
                or order < best_order
                or (order == best_order and net.line_delay[line] > net.line_delay[best])
            ):
                best, best_order = line, order
        if best < 0:
            break
        entry, _ = _due(net, state, best, step)
        neuron = state.line_neuron[entry + cursor[best]]
        d = state.line_value[entry + cursor[best]]
        cursor[best] += 1
        p = net.line_pop[best]
        for k in range(net.pop_out[p], net.pop_out[p + 1]):
            q = net.out_proj[k]
            if net.proj_line[q] == best:
                n = _transmit(
                    net.proj_window,
                    net.windows,
                    net.proj_row,
                    net.row,
                    net.syn_target,
                    net.syn_weight,
                    net.proj_accumulator,
                    net.proj_neuron,
                    state.u,
                    heap,
                    q,
                    neuron - net.pop_start[p],
                    d,
                    float(step),
                )
                count[net.proj_target[q], net.proj_column[q]] += n
                count[net.proj_target[q], EXECUTED] += n
    for line in range(n_lines):
        slot = (step - net.line_delay[line]) % (net.line_delay[line] + 1)
        state.line_count[net.line_slot[line] + slot] = 0


@njit(cache=True)
def _due(net: Any, state: Any, line: int, step: int) -> tuple[int, int]:
    """First entry and number of entries of the slot that is due."""
    slot = (step - net.line_delay[line]) % (net.line_delay[line] + 1)
    p = net.line_pop[line]
    size = net.pop_start[p + 1] - net.pop_start[p]
    return (
        net.line_start[line] + slot * size,
        state.line_count[net.line_slot[line] + slot],
    )
