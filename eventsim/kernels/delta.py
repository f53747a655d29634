"""The reference engine for delta networks: a plain priority-queue loop.

Contract of every step-by-step engine (design: Order):

1. Delayed deltas due at this step are added first, in source (rank, id) order; of one neuron the
   one transmitted earlier first.
2. Inputs are compared; those that changed become pending.
3. Pending neurons are evaluated by (time, rank, id), each at most once a step, because whatever
   feeds a neuron without delay has a lower rank.

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
    ACS,
    BUFFER_FULL,
    EVALUATIONS,
    EVENTS,
    EXECUTED,
    MACS,
    NONFINITE_INPUT,
    NONFINITE_STATE,
    OK,
)


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
    n_neurons = net.order.shape[0]
    for t in range(inputs.shape[0]):
        if record and event_step.shape[0] - n_events[0] < n_neurons:
            return BUFFER_FULL, t, 0
        for i in range(inputs.shape[1]):
            if not math.isfinite(inputs[t, i]):
                return NONFINITE_INPUT, t, i
        step = state.step[0]
        now = float(step)
        _deliver_delayed(net, state, counters[t], step)
        for i in range(inputs.shape[1]):
            neuron = net.input_neuron[i]
            k = _accumulator(net, neuron)
            if inputs[t, i] != state.u[k]:
                state.u[k] = inputs[t, i]
                _touch(net, state, neuron, now)
        while state.heap_size[0] > 0 and state.heap_time[0] <= now:
            neuron = pop(
                state.heap_time, state.heap_neuron, state.heap_place, state.heap_size, net.order
            )
            d = _evaluate(net, state, counters[t], neuron)
            if not math.isfinite(d):
                return NONFINITE_STATE, t, neuron
            if d != 0.0:
                if record:
                    event_step[n_events[0]] = step
                    event_neuron[n_events[0]] = neuron
                    event_value[n_events[0]] = d
                    n_events[0] += 1
                _transmit(net, state, counters[t], neuron, d, step)
        for i in range(outputs.shape[1]):
            outputs[t, i] = state.a[net.output_neuron[i]]
        state.step[0] += 1
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
def _accumulator(net: Any, neuron: int) -> int:
    """Accumulator of a neuron of a one-receptor population: all delta populations are."""
    return neuron


@njit(cache=True)
def _touch(net: Any, state: Any, neuron: int, now: float) -> None:
    push(
        state.heap_time,
        state.heap_neuron,
        state.heap_place,
        state.heap_size,
        net.order,
        neuron,
        now,
    )


@njit(cache=True)
def _evaluate(net: Any, state: Any, counters: Any, neuron: int) -> float:
    """Evaluate a neuron; return the delta to transmit, 0 if none, non-finite on overflow."""
    p = net.neuron_pop[neuron]
    counters[p, EVALUATIONS] += 1
    u = state.u[_accumulator(net, neuron)]
    a = activate(net.pop_activation[p], net.pop_p0[p], net.pop_p1[p], u)
    state.a[neuron] = a
    if not (math.isfinite(u) and math.isfinite(a)):  # tanh would hide an infinite u
        return math.nan
    if not net.transmits[neuron]:
        return 0.0
    d = a - state.s[neuron]
    if abs(d) <= net.threshold[neuron]:
        return 0.0
    state.s[neuron] += d
    counters[p, EVENTS] += 1
    return float(d)


@njit(cache=True)
def _transmit(net: Any, state: Any, counters: Any, neuron: int, d: float, step: int) -> None:
    p = net.neuron_pop[neuron]
    for k in range(net.pop_out[p], net.pop_out[p + 1]):
        q = net.out_proj[k]
        if net.proj_line[q] < 0:
            _add_row(net, state, counters, q, neuron, d, float(step))
    for line in range(net.pop_line[p], net.pop_line[p + 1]):
        n_slots = net.line_delay[line] + 1
        slot = step % n_slots
        size = net.pop_start[p + 1] - net.pop_start[p]
        entry = net.line_start[line] + slot * size + state.line_count[net.line_slot[line] + slot]
        state.line_neuron[entry] = neuron
        state.line_value[entry] = d
        state.line_count[net.line_slot[line] + slot] += 1


@njit(cache=True)
def _add_row(
    net: Any, state: Any, counters: Any, q: int, neuron: int, d: float, now: float
) -> None:
    """Add w d over the surviving synapses of one neuron in projection q."""
    p = net.neuron_pop[neuron]
    row = net.proj_row[q] + neuron - net.pop_start[p]
    first, last = net.row[row], net.row[row + 1]
    for k in range(first, last):
        j = net.syn_target[k]
        state.u[net.proj_accumulator[q] + j] += net.syn_weight[k] * d
        _touch(net, state, net.proj_neuron[q] + j, now)
    target = net.proj_target[q]
    counters[target, MACS if net.pop_graded[p] else ACS] += last - first
    counters[target, EXECUTED] += last - first


@njit(cache=True)
def _deliver_delayed(net: Any, state: Any, counters: Any, step: int) -> None:
    """Merge the lines' slots that are due: each is sorted by (rank, id) already."""
    n_lines = net.line_delay.shape[0]
    if n_lines == 0:
        return
    cursor = np.zeros(n_lines, np.int64)
    while True:
        best = -1
        best_order = 0
        for line in range(n_lines):
            entry, count = _due(net, state, line, step)
            if cursor[line] >= count:
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
        entry, count = _due(net, state, best, step)
        neuron = state.line_neuron[entry + cursor[best]]
        d = state.line_value[entry + cursor[best]]
        cursor[best] += 1
        p = net.line_pop[best]
        for k in range(net.pop_out[p], net.pop_out[p + 1]):
            q = net.out_proj[k]
            if net.proj_line[q] == best:
                _add_row(net, state, counters, q, neuron, d, float(step))
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
