"""Leaky integrate-and-fire neurons by windows: no exponential or logarithm for a synapse.

Between kicks a neuron with constant drive I above its threshold theta follows
``V(t) = I - (I - theta) B exp(-t / tau)`` with a constant B. Let ``E = exp(t / tau)``. Then

- it fires when E reaches B;
- its reset to V_r is ``B = R E`` with ``R = (I - V_r) / (I - theta)``;
- a kick of weight w is ``B += c E`` with ``c = -w / (I - theta)``, and ``B = E`` if that is less.

So keys of time are values of E. When E reaches 2**p all keys and all B are multiplied by 2**-p,
which is exact, and the count n of that gives ``t = tau (ln E + n p ln 2)``.

The window: a pass over B takes all neurons below a limit, `order` sorts them, and the next event is
the first of these, of the heap, or of what is due by itself (a delayed or external kick, the end of
a refractory period). An entry may be stale. What holds is: every neuron with B below the limit has
an entry whose key is at most B. An inhibitory kick thus needs no look at the queue at all; it is
when a stale entry comes up that the neuron is entered again, if it is still below the limit.

Simultaneous spikes come in order of id; one that a kick causes at the same instant joins them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eventsim.kernels.bits import BLOCK, below_bits, first_bit, prefetch
from eventsim.kernels.jit import kernel
from eventsim.kernels.window_queue import heap_pop, heap_push, order

Unsigned = np.uint64

# What `run` returns.
FULL = 0  # the buffer of spikes is full
STOPPED = 1  # the next event lies at or beyond reals[R_STOP]
EXTERNAL = 2  # the external events known so far are used up
QUIET = 3  # nothing will ever happen
RUNAWAY = 4  # numbers[N_BURST] spikes at one instant
DELAY_FULL = 5  # the ring of delayed spikes has no room; nothing was lost
REFRACTORY_FULL = 6
NOT_FINITE = 7  # some B is not a number

# numbers, int64
N_FOLDS = 0  # renormalisations so far
N_SYNAPSES = 1  # synaptic events so far
N_FOUND = 2  # candidates of the window
N_PLACE = 3  # the next of them
N_HEAP = 4  # entries of the heap
N_DELAY_HEAD = 5
N_DELAY = 6  # spikes on their way
N_REST_HEAD = 7
N_REST = 8  # neurons in their refractory period, where kicks are lost
N_EXTERNAL = 9  # external events used
N_EXTERNALS = 10  # external events known
N_SAME = 11  # spikes at the instant of the last one
N_BURST = 12  # how many of them are too many
N_WINDOWS = 13  # windows so far
N_SPIKES = 14  # spikes written by the last call
N_DEGREE = 15  # targets of every row, or -1: rows are pointers[i]:pointers[i + 1]
N_WEIGHTED = 16  # 1: weights has one entry a synapse, 0: none
N_ROW_SCALES = 17  # 1: scale has one entry a row, 0: one for all
N_RATIOS = 18  # 1: ratio has one entry a neuron, 0: one for all
N_SIGNED = 19  # 1: with weights, a kick may be excitatory
N_EXPONENT = 20  # p
N_REFRACTORY = 21  # NO_REST, LOSES or KEEPS
N_RESCAN = 22  # 1: the window is to be made anew
N_TARGET = 23  # candidates that a window should hold
N_NUMBERS = 24

NO_REST = 0
LOSES = 1  # kicks in the refractory period are lost
KEEPS = 2  # they decay until its end, and count then

# reals, float64
R_NOW = 0  # E of the last event
R_LOW = 1  # where the window begins
R_LIMIT = 2  # where it ends
R_WIDTH = 3  # g: the limit is low (1 + g)
R_WIDEST = 4  # the largest g
R_STOP = 5  # seconds; events from here on stay
R_HORIZON = 6  # seconds; external events from here on are not known yet
R_DELAY = 7  # exp(d / tau), 0 without a delay
R_REST = 8  # exp(refractory time / tau)
R_TAU = 9
N_REALS = 10

#: How many candidates ahead rows are asked for.
AHEAD = 4
#: Synapses of a row that are asked for; the processor goes on by itself.
FETCHED = 256
NO_BITS = Unsigned(0)
_LN2 = math.log(2.0)


@kernel
def fetch_row(
    pointers: Any, degree: int, targets: Any, weights: Any, weighted: bool, row: int
) -> None:
    """Ask for the targets and weights of a row."""
    if degree >= 0:
        start, count = row * degree, degree
    else:
        start = pointers[row]
        count = pointers[row + 1] - start
    for line in range(min(count, FETCHED) // 16 + 1):
        prefetch(targets, Unsigned(start + 16 * line))
        if weighted:
            prefetch(weights, Unsigned(start + 16 * line))


@kernel
def below(b: Any, until: Any, keeps: bool, limit: float, keys: Any, ids: Any) -> int:
    """Collect the neurons below the limit, in order of id, with their keys; how many they are."""
    n = b.shape[0]
    found = 0
    start = 0
    while start + BLOCK <= n:
        bits = below_bits(b, Unsigned(start), limit)
        while bits != NO_BITS:
            ids[Unsigned(found)] = start + np.int64(first_bit(bits))
            found += 1
            bits &= bits - Unsigned(1)
        start += BLOCK
    for j in range(start, n):
        ids[Unsigned(found)] = j
        found += b[Unsigned(j)] < limit
    if not keeps:
        for c in range(found):
            keys[Unsigned(c)] = b[Unsigned(ids[Unsigned(c)])]
        return found
    ready = 0
    for c in range(found):
        i = ids[c]
        value = max(b[i], until[i])
        if value < limit:
            keys[ready] = value
            ids[ready] = i
            ready += 1
    return ready


@kernel
def _lowest(b: Any, until: Any, keeps: bool) -> float:
    """Return the first key of all; NaN if some B is not a number."""
    low = math.inf
    for j in range(b.shape[0]):
        value = max(b[j], until[j]) if keeps else b[j]
        if value < low:
            low = value
        elif value != value:
            return math.nan
    return low


@kernel
def to_key(time: float, tau: float, numbers: Any) -> float:
    """Turn seconds into a value of E: the same bits, but for the power of two, at any time."""
    powers = time / (tau * _LN2)
    if not powers < math.inf:
        return math.inf
    whole = math.floor(powers)
    power = int(whole - numbers[N_FOLDS] * numbers[N_EXPONENT])
    return math.ldexp(math.exp((powers - whole) * _LN2), power)


@kernel
def to_seconds(times: Any, start: int, end: int, tau: float, numbers: Any) -> int:
    """Turn values of E into seconds; returns the end."""
    past = numbers[N_FOLDS] * numbers[N_EXPONENT]
    for s in range(start, end):
        part, exponent = math.frexp(times[Unsigned(s)])
        times[Unsigned(s)] = tau * (math.log(part) + (exponent + past) * _LN2)
    return end


@kernel
def run(
    b: Any,
    ratio: Any,
    until: Any,
    pointers: Any,
    targets: Any,
    weights: Any,
    scale: Any,
    excites: Any,
    keys: Any,
    ids: Any,
    heap_keys: Any,
    heap_ids: Any,
    scratch_keys: Any,
    scratch_ids: Any,
    counts: Any,
    delay_key: Any,
    delay_row: Any,
    rest_key: Any,
    rest_id: Any,
    external_time: Any,
    external_row: Any,
    numbers: Any,
    reals: Any,
    spike_time: Any,
    spike_id: Any,
) -> int:
    """Simulate until the buffer of spikes is full, or something else ends the call.

    A later call goes on where this one ended; spikes do not depend on where that is.

    Parameters
    ----------
    b : float64 array of shape (neurons,)
    ratio : float64 array of shape (neurons,) or (1,)
        R of each neuron, or of all.
    until : float64 array of shape (neurons,) if kicks in refractoriness are kept, else (1,)
        E at which the neuron may fire again.
    pointers : int64 array of shape (rows + 1,), or (1,) if rows are equally long
        Row i belongs to neuron i; the rows beyond the neurons to external sources.
    targets : uint32 array of shape (synapses,)
    weights : float32 or float64 array of shape (synapses,) or (1,)
    scale : float64 array of shape (rows,) or (1,)
        A kick is ``B += scale E`` or ``B += weight scale E``.
    excites : uint8 array of shape (rows,) or (1,)
        With weights: 0 for rows without excitation. The one is for all.
    keys, ids, heap_keys, heap_ids, scratch_keys, scratch_ids : arrays of shape (neurons + 2,)
        The window, and room to sort; keys are float64, ids int32.
    counts : int32 array of shape (neurons + 2,)
    delay_key, delay_row, rest_key, rest_id : float64 and int32 arrays, as long as powers of two
        Rings of spikes on their way, and of neurons at rest.
    external_time, external_row : float64 and int32 arrays
        External kicks in order of time, in seconds.
    numbers, reals : int64 and float64 arrays
        Counters and parameters, by the constants of this module.
    spike_time : float64 array; seconds, filled
    spike_id : int32 array of the same shape, filled
    """
    n = b.shape[0]
    size = spike_id.shape[0]
    degree = numbers[N_DEGREE]
    weighted = numbers[N_WEIGHTED] != 0
    row_scales = numbers[N_ROW_SCALES] != 0
    ratios = numbers[N_RATIOS] != 0
    signed = numbers[N_SIGNED] != 0
    resting = numbers[N_REFRACTORY]
    keeps = resting == KEEPS
    delayed = reals[R_DELAY] > 0.0
    delay, rest = reals[R_DELAY], reals[R_REST]
    delay_mask = delay_key.shape[0] - 1
    rest_mask = rest_key.shape[0] - 1
    room = heap_keys.shape[0] - 1
    burst = numbers[N_BURST]
    all_ratio, all_scale = ratio[0], scale[0]
    told = excites.shape[0] > 1

    now, limit = reals[R_NOW], reals[R_LIMIT]
    place, found, heaped = numbers[N_PLACE], numbers[N_FOUND], numbers[N_HEAP]
    delay_head, delays = numbers[N_DELAY_HEAD], numbers[N_DELAY]
    rest_head, rests = numbers[N_REST_HEAD], numbers[N_REST]
    external = numbers[N_EXTERNAL]
    same, synapses = numbers[N_SAME], numbers[N_SYNAPSES]
    rescan = numbers[N_RESCAN] != 0
    spikes = 0
    timed = 0  # spikes whose time is in seconds already; those after it are E
    status = FULL
    stale_key, stale_id = -1.0, -1

    stop = to_key(reals[R_STOP], reals[R_TAU], numbers)
    horizon = to_key(reals[R_HORIZON], reals[R_TAU], numbers)
    barrier = min(stop, horizon)
    external_next = math.inf
    if external < numbers[N_EXTERNALS]:
        external_next = to_key(external_time[external], reals[R_TAU], numbers)
    delay_next = delay_key[delay_head] if delays > 0 else math.inf
    rest_next = rest_key[rest_head] if rests > 0 else math.inf
    due = min(min(delay_next, rest_next), min(external_next, barrier))
    # What the heap and the candidates alone must stay below.
    gate = min(due, limit)
    while spikes < size:
        if rescan:
            # The window did not hold: the next one begins now, as no neuron is before that.
            heaped, place, found = 0, 0, 0
            heap_keys[0] = keys[0] = math.inf
            rescan = False
            limit = now
            gate = limit
        key = keys[place]
        from_heap = False
        top = heap_keys[0]
        if top < key or (top == key and top < math.inf and heap_ids[0] < ids[place]):
            key = top
            from_heap = True
        if key >= gate:
            row = -1
            if due <= limit and due < math.inf:
                if due == barrier:
                    if stop <= due:
                        status = STOPPED
                        break
                    if due < min(rest_next, min(delay_next, external_next)):
                        status = EXTERNAL
                        break
                now = max(now, due)
                if due == rest_next:
                    i = rest_id[rest_head]
                    value = (ratio[i] if ratios else all_ratio) * now
                    b[i] = value
                    rest_head = (rest_head + 1) & rest_mask
                    rests -= 1
                    rest_next = rest_key[rest_head] if rests > 0 else math.inf
                    if value < limit:
                        if heaped < room:
                            heaped = heap_push(heap_keys, heap_ids, heaped, value, i)
                        else:
                            rescan = True
                elif due == delay_next:
                    row = delay_row[delay_head]
                    if delays > AHEAD:
                        later = delay_row[(delay_head + AHEAD) & delay_mask]
                        fetch_row(pointers, degree, targets, weights, weighted, later)
                    delay_head = (delay_head + 1) & delay_mask
                    delays -= 1
                    delay_next = delay_key[delay_head] if delays > 0 else math.inf
                else:
                    row = external_row[external]
                    external += 1
                    external_next = math.inf
                    if external < numbers[N_EXTERNALS]:
                        external_next = to_key(external_time[external], reals[R_TAU], numbers)
                due = min(min(delay_next, rest_next), min(external_next, barrier))
                gate = min(due, limit)
                if row < 0:
                    continue
            else:
                # The window is empty: the next one begins where it ended.
                low = limit
                timed = to_seconds(spike_time, timed, spikes, reals[R_TAU], numbers)
                fold = 2.0 ** -float(numbers[N_EXPONENT])
                while low * fold >= 1.0:
                    low *= fold
                    now *= fold
                    limit *= fold
                    numbers[N_FOLDS] += 1
                    for j in range(n):
                        b[Unsigned(j)] *= fold
                    if keeps:
                        for j in range(n):
                            until[Unsigned(j)] *= fold
                    for j in range(delays):
                        delay_key[(delay_head + j) & delay_mask] *= fold
                    for j in range(rests):
                        rest_key[(rest_head + j) & rest_mask] *= fold
                    stop *= fold
                    horizon *= fold
                    barrier *= fold
                    due *= fold
                    delay_next *= fold
                    rest_next *= fold
                    external_next *= fold
                width = reals[R_WIDTH]
                limit = low * (1.0 + width)
                found = below(b, until, keeps, limit, scratch_keys, scratch_ids)
                if found == 0:
                    first_key = _lowest(b, until, keeps)
                    if not first_key >= 0.0:
                        status = NOT_FINITE
                        limit = low
                        break
                    if first_key == math.inf:
                        if due == math.inf:
                            status = QUIET
                            limit = low
                            break
                        limit = due
                    else:
                        low = max(low, first_key)
                        limit = low * (1.0 + width)
                        found = below(b, until, keeps, limit, scratch_keys, scratch_ids)
                heaped = 0
                heap_keys[0] = math.inf
                stale_id = -1
                place = 0
                if found > 0:
                    order(low, limit, found, scratch_keys, scratch_ids, counts, keys, ids)
                else:
                    keys[0] = math.inf
                # The next width, from how many this one held.
                change = numbers[N_TARGET] / max(found, 1)
                reals[R_WIDTH] = min(
                    max(width * min(max(change, 0.015625), 2.0), 1e-9), reals[R_WIDEST]
                )
                numbers[N_WINDOWS] += 1
                for c in range(min(found, AHEAD)):
                    prefetch(b, Unsigned(ids[c]))
                    fetch_row(pointers, degree, targets, weights, weighted, ids[c])
                gate = min(due, limit)
                continue
        else:
            if from_heap:
                i = heap_ids[0]
                heaped = heap_pop(heap_keys, heap_ids, heaped)
            else:
                i = ids[place]
                place += 1
                if place + AHEAD < found:
                    later = ids[place + AHEAD]
                    prefetch(b, Unsigned(later))
                    if not delayed:
                        fetch_row(pointers, degree, targets, weights, weighted, later)
            value = b[i]
            if keeps:
                value = max(value, until[i])
            if value != key:
                if value < limit and not (key == stale_key and i == stale_id):
                    if heaped < room:
                        heaped = heap_push(heap_keys, heap_ids, heaped, value, i)
                    else:
                        rescan = True
                stale_key = key
                stale_id = i
                continue
            if key == now:
                same += 1
                if same > burst:
                    status = RUNAWAY
                    rescan = True
                    break
            else:
                same = 1
            if delayed and delays > delay_mask:
                status = DELAY_FULL
                rescan = True
                break
            if resting == LOSES and rests > rest_mask:
                status = REFRACTORY_FULL
                rescan = True
                break
            now = key
            spike_time[spikes] = key
            spike_id[spikes] = i
            spikes += 1
            value = (ratio[i] if ratios else all_ratio) * key
            if resting == NO_REST:
                b[i] = value
            elif resting == LOSES:
                b[i] = math.inf
                rest_key[(rest_head + rests) & rest_mask] = key * rest
                rest_id[(rest_head + rests) & rest_mask] = i
                rests += 1
                if rests == 1:
                    rest_next = key * rest
                    due = min(due, rest_next)
                    gate = min(due, limit)
                value = math.inf
            else:
                # This order of products is the reference engine's, to the bit.
                value = (ratio[i] if ratios else all_ratio) * (key * rest)
                b[i] = value
                until[i] = key * rest
            if value < limit:
                if heaped < room:
                    heaped = heap_push(heap_keys, heap_ids, heaped, value, i)
                else:
                    rescan = True
            row = i
            if delayed:
                if degree == 0 or (degree < 0 and pointers[row + 1] == pointers[row]):
                    continue  # nobody will hear it
                delay_key[(delay_head + delays) & delay_mask] = key * delay
                delay_row[(delay_head + delays) & delay_mask] = i
                delays += 1
                if delays == 1:
                    delay_next = key * delay
                    due = min(due, delay_next)
                    gate = min(due, limit)
                continue
        # The kick of a row, now.
        if degree >= 0:
            start, count = row * degree, degree
        else:
            start = pointers[row]
            count = pointers[row + 1] - start
        synapses += count
        factor = scale[row] if row_scales else all_scale
        kick = factor * now
        s = Unsigned(start)
        if not weighted and kick >= 0.0:
            for e in range(count):
                b[Unsigned(targets[s + Unsigned(e)])] += kick
        elif weighted and (not signed or (told and excites[row] == 0)):
            for e in range(count):
                # The order of these products is that of the reference engine, to the bit.
                b[Unsigned(targets[s + Unsigned(e)])] += (weights[s + Unsigned(e)] * factor) * now
        else:
            for e in range(count):
                k = Unsigned(targets[s + Unsigned(e)])
                step = kick
                if weighted:
                    step = (weights[s + Unsigned(e)] * factor) * now
                value = b[k] + step
                b[k] = value
                if value < limit and step < 0.0:
                    if keeps:
                        value = max(value, until[k])
                    if value < now:
                        value = now
                        b[k] = value
                    if value < limit:
                        if heaped < room:
                            heaped = heap_push(heap_keys, heap_ids, heaped, value, np.int64(k))
                        else:
                            rescan = True
    to_seconds(spike_time, timed, spikes, reals[R_TAU], numbers)
    reals[R_NOW], reals[R_LIMIT] = now, limit
    numbers[N_PLACE], numbers[N_FOUND], numbers[N_HEAP] = place, found, heaped
    numbers[N_DELAY_HEAD], numbers[N_DELAY] = delay_head, delays
    numbers[N_REST_HEAD], numbers[N_REST] = rest_head, rests
    numbers[N_EXTERNAL] = external
    numbers[N_SAME], numbers[N_SYNAPSES] = same, synapses
    numbers[N_RESCAN] = 1 if rescan else 0
    numbers[N_SPIKES] = spikes
    return status
