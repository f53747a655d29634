"""The reference engine for continuous time: an indexed heap with one crossing for every neuron.

The order of what happens at one instant is that of `eventsim.spiking_compile`. Spikes on their way
lie in a second heap, by (time, number of the spike): a row with one delay for all its synapses is
one entry; where each synapse has its own, the entry stands at the next one, and moves on.

Sets: cells, heaps, counters, spikes. Reads: the compiled arrays, external spikes.
"""

from __future__ import annotations

import math
from typing import Any

from eventsim.kernels.crossing_neurons import (
    LIF_ABOVE,
    LIF_BELOW,
    P3,
    TABLE,
    UNTIL,
    X,
    due,
    kick,
    reset,
    voltage,
)
from eventsim.kernels.jit import kernel

# What `run` returns.
FULL, STOPPED, EXTERNAL, QUIET, RUNAWAY, DELAY_FULL, NOT_FINITE, BELOW_TABLE = range(8)

# numbers, int64
N_FOLDS = 0  # how often E was divided by 2**EXPONENT
N_ARRIVALS = 1  # spikes on their way
N_EMITTED = 2  # rows sent on their way so far
N_EXTERNAL = 3  # external spikes used
N_EXTERNALS = 4  # external spikes known
N_SAME = 5  # spikes at the instant of the last one
N_BURST = 6  # how many of them are a runaway
N_SPIKES = 7  # written by the last call
N_DETAIL = 8  # neuron that an error is about
N_NUMBERS = 9

# reals, float64
R_NOW = 0  # clock at the last event
R_TAU = 1  # of the clock E; 0: it shows seconds
R_STOP = 2  # seconds; events from here on stay
R_HORIZON = 3  # seconds; external spikes from here on are not known yet
N_REALS = 4

#: E is kept below 2**EXPONENT.
EXPONENT = 32
_FOLD = 2.0**-EXPONENT
#: How much further E is taken at once while nothing is due.
_LEAP = 30
_LN2 = math.log(2.0)


@kernel
def move(keys: Any, heap: Any, place: Any, i: int, key: float) -> None:
    """Give neuron i another key, and mend the heap, which holds every neuron."""
    old = keys[i]
    if key == old:
        return
    keys[i] = key
    k = place[i]
    if key < old:
        while k > 0:
            parent = (k - 1) >> 1
            j = heap[parent]
            if keys[j] < key or (keys[j] == key and j < i):
                break
            heap[k] = j
            place[j] = k
            k = parent
    else:
        n = heap.shape[0]
        while True:
            child = 2 * k + 1
            if child >= n:
                break
            j = heap[child]
            if child + 1 < n:
                right = heap[child + 1]
                if keys[right] < keys[j] or (keys[right] == keys[j] and right < j):
                    child += 1
                    j = right
            if key < keys[j] or (key == keys[j] and i < j):
                break
            heap[k] = j
            place[j] = k
            k = child
    heap[k] = i
    place[i] = k


@kernel
def _later(time: Any, item: Any, a: int, b: int) -> bool:
    """Whether arrival a is due after arrival b."""
    if time[a, 0] != time[b, 0]:
        return bool(time[a, 0] > time[b, 0])
    return bool(item[a, 0] > item[b, 0])


@kernel
def _swap(time: Any, item: Any, a: int, b: int) -> None:
    for c in range(2):
        time[a, c], time[b, c] = time[b, c], time[a, c]
    for c in range(3):
        item[a, c], item[b, c] = item[b, c], item[a, c]


@kernel
def _rise(time: Any, item: Any, k: int) -> None:
    while k > 0 and _later(time, item, (k - 1) >> 1, k):
        _swap(time, item, (k - 1) >> 1, k)
        k = (k - 1) >> 1


@kernel
def _sink(time: Any, item: Any, n: int, k: int) -> None:
    while 2 * k + 1 < n:
        child = 2 * k + 1
        if child + 1 < n and _later(time, item, child, child + 1):
            child += 1
        if not _later(time, item, k, child):
            return
        _swap(time, item, k, child)
        k = child


@kernel
def _after(tau: float, now: float, delay: float) -> float:
    """The clock `delay` later; with E the delay is a factor."""
    return now * delay if tau > 0.0 else now + delay


@kernel
def to_clock(tau: float, folds: int, seconds: float) -> float:
    """What the clock shows at a time in seconds; inf if E would be beyond float64.

    The same bits, but for the power of two, after any number of folds: an input from outside must
    not arrive a rounding earlier or later in another engine, where a network may amplify it.
    """
    if tau == 0.0:
        return seconds
    powers = seconds / (tau * _LN2)
    if not powers < math.inf:
        return math.inf
    whole = math.floor(powers)
    power = int(whole - folds * EXPONENT)
    return math.ldexp(math.exp((powers - whole) * _LN2), power) if power < 1023 else math.inf


@kernel
def to_seconds(tau: float, folds: int, clock: float) -> float:
    """Seconds since the reset."""
    if tau == 0.0:
        return clock
    return tau * (math.log(clock) + folds * (EXPONENT * _LN2))


@kernel
def _fold(
    code: Any, cell: Any, keys: Any, arrival_time: Any, numbers: Any, reals: Any, times: int
) -> None:
    """Divide E by 2**EXPONENT, exactly, in all that is measured by it."""
    for _ in range(times):
        for i in range(keys.shape[0]):
            if code[i] == LIF_ABOVE or code[i] == LIF_BELOW:
                cell[i, X] *= _FOLD
                cell[i, UNTIL] *= _FOLD
            keys[i] *= _FOLD
        for a in range(numbers[N_ARRIVALS]):
            arrival_time[a, 0] *= _FOLD
            arrival_time[a, 1] *= _FOLD
        reals[R_NOW] *= _FOLD
        numbers[N_FOLDS] += 1


@kernel
def start(code: Any, cell: Any, keys: Any, now: float) -> None:
    """Compute when every neuron is due."""
    for i in range(keys.shape[0]):
        keys[i] = due(code[i], cell, i, now)


@kernel
def voltages(
    code: Any,
    cell: Any,
    now: float,
    tables: Any,
    volt_edges: Any,
    volt_coefficients: Any,
    found: Any,
) -> None:
    """Compute all voltages at a time of the clock, no earlier than the last event."""
    for i in range(found.shape[0]):
        found[i] = voltage(code[i], cell, i, now, tables, volt_edges, volt_coefficients)


@kernel
def run(
    code: Any,
    keeps: Any,
    cell: Any,
    keys: Any,
    heap: Any,
    place: Any,
    population: Any,
    pop_start: Any,
    pop_bundle: Any,
    bundle_delay: Any,
    bundle_seconds: Any,
    bundle_row: Any,
    pointers: Any,
    targets: Any,
    weights: Any,
    row_weight: Any,
    delays: Any,
    tables: Any,
    time_edges: Any,
    time_coefficients: Any,
    volt_edges: Any,
    volt_coefficients: Any,
    arrival_time: Any,
    arrival_item: Any,
    external_time: Any,
    external_id: Any,
    counts: Any,
    numbers: Any,
    reals: Any,
    spike_time: Any,
    spike_id: Any,
) -> int:
    """Simulate until the buffer of spikes is full, or something else ends the call.

    Parameters
    ----------
    code, keeps : int8 arrays of shape (N,)
    cell : float64 array of shape (N, N_COLUMNS)
    keys : float64 array of shape (N,), when each is due
    heap, place : int64 arrays of shape (N,)
        Neurons in the heap, and where each stands.
    population : int32 array of shape (N,)
    pop_start, pop_bundle : int64 arrays of shape (P + 1,)
    bundle_delay : float64 array of shape (L,)
        For the clock: added to seconds, a factor of E; NaN: that of each synapse.
    bundle_seconds : float64 array of shape (L,)
        The same in seconds, in which inputs from outside are delayed.
    bundle_row, pointers, targets, weights, row_weight, delays
        As in `SpikingPlan`; delays are for the clock.
    tables : int64 array of shape (tables, 4)
        Slices of the edges of the time to the spike, and of the voltage.
    arrival_time, arrival_item : float64 array (room, 2), int64 array (room, 3)
        Heap: due and sent; number, row, next synapse or -1.
    external_time, external_id : float64 and int64 arrays
        In seconds, by (time, id).
    counts : int64 array of shape (P, 2)
        Events, and ACs delivered; added to.
    numbers, reals : by the constants of this module
    spike_time, spike_id : float64 and int64 arrays; filled, in seconds
    """
    tau, now = reals[R_TAU], reals[R_NOW]
    stop = to_clock(tau, numbers[N_FOLDS], reals[R_STOP])
    horizon = to_clock(tau, numbers[N_FOLDS], reals[R_HORIZON])
    uniform = weights.shape[0] == 0
    spikes = 0
    status = FULL
    while True:
        key = keys[heap[0]]
        arrival = arrival_time[0, 0] if numbers[N_ARRIVALS] > 0 else math.inf
        outside, outside_seconds = math.inf, math.inf
        if numbers[N_EXTERNAL] < numbers[N_EXTERNALS]:
            outside_seconds = external_time[numbers[N_EXTERNAL]]
            outside = to_clock(tau, numbers[N_FOLDS], outside_seconds)
        first = min(key, min(arrival, outside))
        if tau > 0.0 and first >= 1.0 / _FOLD:
            # Also where what comes next is so far away that E would overflow.
            far = min(outside_seconds, min(reals[R_STOP], reals[R_HORIZON]))
            if first < math.inf or far < math.inf:
                if min(first, min(stop, horizon)) == math.inf:
                    _fold(code, cell, keys, arrival_time, numbers, reals, _LEAP)
                elif min(first, min(stop, horizon)) >= 1.0 / _FOLD:
                    _fold(code, cell, keys, arrival_time, numbers, reals, 1)
                else:
                    status = STOPPED if stop <= horizon else EXTERNAL
                    break
                now = reals[R_NOW]
                stop = to_clock(tau, numbers[N_FOLDS], reals[R_STOP])
                horizon = to_clock(tau, numbers[N_FOLDS], reals[R_HORIZON])
                continue
        if first >= stop and stop <= horizon:
            status = QUIET if first == math.inf and stop == math.inf else STOPPED
            break
        if first >= horizon:
            status = EXTERNAL
            break
        crosses = key < arrival and key < outside
        if crosses and spikes == spike_id.shape[0]:
            break
        if arrival <= outside and not crosses:
            now = arrival
            row, synapse = arrival_item[0, 1], arrival_item[0, 2]
            begin, end = pointers[row], pointers[row + 1]
            if synapse >= 0:
                begin, end = synapse, synapse + 1
            if synapse >= 0 and synapse + 1 < pointers[row + 1]:
                arrival_item[0, 2] = synapse + 1
                arrival_time[0, 0] = _after(tau, arrival_time[0, 1], delays[synapse + 1])
            else:
                numbers[N_ARRIVALS] -= 1
                _swap(arrival_time, arrival_item, 0, numbers[N_ARRIVALS])
            _sink(arrival_time, arrival_item, numbers[N_ARRIVALS], 0)
            p, bundle, last = 0, 0, 0  # nothing is emitted
        else:
            i = heap[0] if crosses else external_id[numbers[N_EXTERNAL]]
            p = population[i]
            bundle, last = pop_bundle[p], pop_bundle[p + 1]
            if numbers[N_ARRIVALS] + last - bundle > arrival_item.shape[0]:
                status = DELAY_FULL
                break
            if crosses:
                if key == now:
                    numbers[N_SAME] += 1
                    if numbers[N_SAME] > numbers[N_BURST]:
                        status = RUNAWAY
                        numbers[N_DETAIL] = i
                        break
                else:
                    numbers[N_SAME] = 1
                now = key
                spike_time[spikes] = to_seconds(tau, numbers[N_FOLDS], now)
                spike_id[spikes] = i
                spikes += 1
                move(keys, heap, place, i, reset(code[i], cell, i, now))
            else:
                now = outside
                numbers[N_EXTERNAL] += 1
            counts[p, 0] += 1
            row = begin = end = 0
        reals[R_NOW] = now
        # An arrival has one piece of a row to deliver, a spike one row for every bundle.
        delivers = bundle == last
        while True:
            if bundle < last:
                row = bundle_row[bundle] + i - pop_start[p]
                begin, end = pointers[row], pointers[row + 1]
                delay = bundle_delay[bundle]
                immediate = delay == (1.0 if tau > 0.0 else 0.0)
                bundle += 1
                delivers = immediate and begin < end
                if not immediate and begin < end:
                    k = numbers[N_ARRIVALS]
                    each = delay != delay
                    wait = delays[begin] if each else delay
                    if crosses or each:
                        arrival_time[k, 0] = _after(tau, now, wait)
                    else:
                        due = outside_seconds + bundle_seconds[bundle - 1]
                        arrival_time[k, 0] = to_clock(tau, numbers[N_FOLDS], due)
                    arrival_time[k, 1] = now
                    arrival_item[k, 0] = numbers[N_EMITTED]
                    arrival_item[k, 1] = row
                    arrival_item[k, 2] = begin if each else -1
                    numbers[N_ARRIVALS] += 1
                    numbers[N_EMITTED] += 1
                    _rise(arrival_time, arrival_item, k)
            if delivers:
                for e in range(begin, end):
                    j = targets[e]
                    weight = row_weight[row] if uniform else weights[e]
                    at = kick(
                        code[j],
                        keeps[j] != 0,
                        cell,
                        j,
                        weight,
                        now,
                        keys[j],
                        tables,
                        time_edges,
                        time_coefficients,
                        volt_edges,
                        volt_coefficients,
                    )
                    counts[population[j], 1] += 1
                    if at != at:
                        numbers[N_DETAIL] = j
                        numbers[N_SPIKES] = spikes
                        table = code[j] == TABLE and cell[j, P3] == cell[j, P3]
                        return BELOW_TABLE if table else NOT_FINITE
                    move(keys, heap, place, j, at)
            if bundle >= last:
                break
            delivers = False
    numbers[N_SPIKES] = spikes
    return status
