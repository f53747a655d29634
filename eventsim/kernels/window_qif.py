"""Quadratic integrate-and-fire neurons by windows: no tangent for a synapse.

``tau dV/dt = V**2 + I`` with a common I > 0, spike and reset at infinity. With
``V = sqrt(I) p / q`` the pair (p, q) turns at constant speed: with the angle
``h = sqrt(I) t / tau``, common to all,

- ``p = P cos h + Q sin h`` and ``q = Q cos h - P sin h`` with constant (P, Q);
- a neuron fires when q falls to 0, at ``h = atan2(Q, P)``, and goes on from minus infinity, which
  is the same ratio: (P, Q) changes its sign, so that q is positive again;
- a kick of weight w is ``p += c q`` with ``c = w / sqrt(I)``, hence ``P += c q cos h`` and
  ``Q += c q sin h``.

The lengths of the pairs have no meaning. When h reaches pi/2 the frame is turned by that angle,
``(P, Q) = (Q, -P)``, which is exact; pairs that have become very long or short are scaled by a
power of two. A neuron is a candidate of the window that ends at h_e if
``Q cos h_e - P sin h_e < 0``. The queue is that of `window_lif`; whether a candidate has been
kicked since, its pair says. At infinity kicks have no effect, so there are no cascades.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from eventsim.kernels.bits import BLOCK, fired_bits, first_bit, prefetch
from eventsim.kernels.jit import kernel
from eventsim.kernels.window_lif import AHEAD, NO_BITS, fetch_row
from eventsim.kernels.window_queue import heap_pop, heap_push, order

Unsigned = np.uint64

# What `run` returns: the codes of `window_lif`.
FULL = 0
STOPPED = 1
EXTERNAL = 2
DELAY_FULL = 5
NOT_FINITE = 7

# numbers, int64
N_QUARTERS = 0  # turns of the frame so far
N_SYNAPSES = 1  # synaptic events so far
N_FOUND = 2  # candidates of the window
N_PLACE = 3  # the next of them
N_HEAP = 4  # entries of the heap
N_DELAY_HEAD = 5
N_DELAY = 6  # spikes on their way
N_EXTERNAL = 7  # external events used
N_EXTERNALS = 8  # external events known
N_WINDOWS = 9  # windows so far
N_SPIKES = 10  # spikes written by the last call
N_DEGREE = 11  # targets of every row, or -1: rows are pointers[i]:pointers[i + 1]
N_WEIGHTED = 12  # 1: weights has one entry a synapse, 0: none
N_ROW_SCALES = 13  # 1: scale has one entry a row, 0: one for all
N_SIGNED = 14  # 1: with weights, a kick may be excitatory
N_RESCAN = 15  # 1: the window is to be made anew
N_TARGET = 16  # candidates that a window should hold
N_NUMBERS = 17

# reals, float64
R_NOW = 0  # h of the last event
R_LIMIT = 1  # where the window ends
R_WIDTH = 2  # how wide the next one is
R_WIDEST = 3  # at most this, and less than pi / 2
R_STOP = 4  # seconds; events from here on stay
R_HORIZON = 5  # seconds; external events from here on are not known yet
R_DELAY = 6  # the delay as an angle, 0 without one
R_PACE = 7  # radians a second: sqrt(I) / tau
N_REALS = 8

# pi / 2 as a sum, so that what is left of h is exact.
_QUARTER = math.pi / 2
_QUARTER_REST = 6.123233995736766e-17
_LARGE = 2.0**200
_SMALL = 2.0**-200
#: No window is narrower, in radians.
NARROWEST = 1e-9
#: Numbers of all pairs that are too many for the cache of a core.
DISTANT = 1 << 17
#: A crossing that lies as far back is one that has been; the next is half a turn further on.
BEHIND = 0.5


@kernel
def _below(pairs: Any, cosine: float, sine: float, ids: Any) -> int:
    """Collect the neurons that fire up to an angle, in order of id; how many they are."""
    n = pairs.shape[0] >> 1
    one = Unsigned(1)
    found = 0
    start = 0
    while start + BLOCK <= n:
        bits = fired_bits(pairs, Unsigned(2 * start), cosine, sine)
        while bits != NO_BITS:
            ids[Unsigned(found)] = start + np.int64(first_bit(bits))
            found += 1
            bits &= bits - Unsigned(1)
        start += BLOCK
    for j in range(start, n):
        k = Unsigned(j) << one
        ids[Unsigned(found)] = j
        found += pairs[k + one] * cosine - pairs[k] * sine < 0.0
    return found


@kernel
def _turn(pairs: Any) -> bool:
    """Turn the frame by a quarter; whether all pairs are finite."""
    one = Unsigned(1)
    fine = True
    for j in range(pairs.shape[0] >> 1):
        k = Unsigned(j) << one
        p, q = pairs[k], pairs[k + one]
        length = max(abs(p), abs(q))
        factor = 1.0
        if length > _LARGE:
            factor = _SMALL
        elif length < _SMALL:
            factor = _LARGE
        pairs[k] = q * factor
        pairs[k + one] = -p * factor
        fine = fine and length < math.inf
    return fine


@kernel
def to_key(time: float, numbers: Any, reals: Any) -> float:
    """Turn seconds into an angle of the present frame."""
    return float(time * reals[R_PACE] - numbers[N_QUARTERS] * _QUARTER)


@kernel
def to_seconds(times: Any, start: int, end: int, numbers: Any, reals: Any) -> int:
    """Turn angles of the present frame into seconds; returns the end."""
    past = numbers[N_QUARTERS] * _QUARTER
    for s in range(start, end):
        times[Unsigned(s)] = (times[Unsigned(s)] + past) / reals[R_PACE]
    return end


@kernel
def run(
    pairs: Any,
    pointers: Any,
    targets: Any,
    weights: Any,
    scale: Any,
    excites: Any,
    keys: Any,
    slots: Any,
    heap_keys: Any,
    heap_ids: Any,
    member: Any,
    seen: Any,
    scratch_keys: Any,
    scratch_slots: Any,
    counts: Any,
    delay_key: Any,
    delay_row: Any,
    external_time: Any,
    external_row: Any,
    numbers: Any,
    reals: Any,
    spike_time: Any,
    spike_id: Any,
) -> int:
    """Simulate until the buffer of spikes is full, or something else ends the call.

    A later call goes on where this one ended; spikes do not depend on where that is, as long as no
    window has to be made anew.

    Parameters
    ----------
    pairs : float64 array of shape (2 * neurons,)
        P and Q of each neuron, side by side.
    pointers, targets, weights, scale, excites
        As in `window_lif.run`; a kick is ``c = scale`` or ``c = weight scale``.
    keys, slots, heap_keys, heap_ids, scratch_keys, scratch_slots : arrays of shape (neurons + 2,)
        The window, and room to sort; keys are float64, the others int32.
    member : int32 array of shape (neurons + 2,)
        The neuron of each candidate, in order of id.
    seen : float64 array of shape (2 * neurons + 4,)
        The pair that each candidate had.
    counts : int32 array of shape (neurons + 2,)
    delay_key, delay_row : float64 and int32 arrays, as long as a power of two
    external_time, external_row : float64 and int32 arrays; seconds
    numbers, reals : int64 and float64 arrays
        Counters and parameters, by the constants of this module.
    spike_time : float64 array; seconds, filled
    spike_id : int32 array of the same shape, filled
    """
    size = spike_id.shape[0]
    degree = numbers[N_DEGREE]
    weighted = numbers[N_WEIGHTED] != 0
    row_scales = numbers[N_ROW_SCALES] != 0
    signed = numbers[N_SIGNED] != 0
    delay = reals[R_DELAY]
    delayed = delay > 0.0
    delay_mask = delay_key.shape[0] - 1
    room = heap_keys.shape[0] - 1
    all_scale = scale[0]
    told = excites.shape[0] > 1
    # Beyond the cache of a core, pairs of the next row are asked for while this one is kicked.
    distant = degree >= 0 and pairs.shape[0] > DISTANT
    one = Unsigned(1)

    now, limit = reals[R_NOW], reals[R_LIMIT]
    limit_cosine, limit_sine = math.cos(limit), math.sin(limit)
    cosine, sine = math.cos(now), math.sin(now)
    place, found, heaped = numbers[N_PLACE], numbers[N_FOUND], numbers[N_HEAP]
    delay_head, delays = numbers[N_DELAY_HEAD], numbers[N_DELAY]
    external = numbers[N_EXTERNAL]
    synapses = numbers[N_SYNAPSES]
    rescan = numbers[N_RESCAN] != 0
    spikes = 0
    timed = 0  # spikes whose time is in seconds already; those after it are angles
    status = FULL

    stop = to_key(reals[R_STOP], numbers, reals)
    horizon = to_key(reals[R_HORIZON], numbers, reals)
    barrier = min(stop, horizon)
    external_next = math.inf
    if external < numbers[N_EXTERNALS]:
        external_next = to_key(external_time[external], numbers, reals)
    delay_next = delay_key[delay_head] if delays > 0 else math.inf
    due = min(min(delay_next, external_next), barrier)
    while spikes < size:
        if rescan:
            # The window did not hold: the next one begins now, as no neuron is before that.
            heaped, place, found = 0, 0, 0
            heap_keys[0] = keys[0] = math.inf
            rescan = False
            limit = now
        key = keys[place]
        from_heap = False
        top = heap_keys[0]
        if top < key or (top == key and top < math.inf and heap_ids[0] < member[slots[place]]):
            key = top
            from_heap = True
        # A candidate may lie behind the limit by a rounding.
        if key >= due or key == math.inf:
            if due <= limit:
                if due == barrier:
                    if stop <= due:
                        status = STOPPED
                        break
                    if due < min(delay_next, external_next):
                        status = EXTERNAL
                        break
                now = max(now, due)
                cosine, sine = math.cos(now), math.sin(now)
                if due == delay_next:
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
                        external_next = to_key(external_time[external], numbers, reals)
                due = min(min(delay_next, external_next), barrier)
            else:
                low = limit
                timed = to_seconds(spike_time, timed, spikes, numbers, reals)
                if low >= _QUARTER:
                    if not _turn(pairs):
                        status = NOT_FINITE
                        break
                    low = (low - _QUARTER) - _QUARTER_REST
                    now = (now - _QUARTER) - _QUARTER_REST
                    numbers[N_QUARTERS] += 1
                    for j in range(delays):
                        k = (delay_head + j) & delay_mask
                        delay_key[k] = (delay_key[k] - _QUARTER) - _QUARTER_REST
                    delay_next = delay_key[delay_head] if delays > 0 else math.inf
                    if external < numbers[N_EXTERNALS]:
                        external_next = to_key(external_time[external], numbers, reals)
                    stop = to_key(reals[R_STOP], numbers, reals)
                    horizon = to_key(reals[R_HORIZON], numbers, reals)
                    barrier = min(stop, horizon)
                    due = min(min(delay_next, external_next), barrier)
                width = reals[R_WIDTH]
                limit = low + width
                limit_cosine, limit_sine = math.cos(limit), math.sin(limit)
                found = _below(pairs, limit_cosine, limit_sine, member)
                crossing = 0
                for c in range(found):
                    i = member[Unsigned(c)]
                    k = Unsigned(i) << one
                    p, q = pairs[k], pairs[k + one]
                    angle = math.atan2(q, p)
                    if angle > now - BEHIND:
                        member[Unsigned(crossing)] = i
                        seen[Unsigned(2 * crossing)] = p
                        seen[Unsigned(2 * crossing + 1)] = q
                        scratch_keys[Unsigned(crossing)] = max(angle, now)
                        scratch_slots[Unsigned(crossing)] = crossing
                        crossing += 1
                found = crossing
                heaped = 0
                heap_keys[0] = math.inf
                place = 0
                if found > 0:
                    order(low, limit, found, scratch_keys, scratch_slots, counts, keys, slots)
                else:
                    keys[0] = math.inf
                change = numbers[N_TARGET] / max(found, 1)
                reals[R_WIDTH] = min(
                    max(width * min(max(change, 0.015625), 2.0), NARROWEST), reals[R_WIDEST]
                )
                numbers[N_WINDOWS] += 1
                for c in range(min(found, AHEAD)):
                    i = member[slots[c]]
                    prefetch(pairs, Unsigned(2 * i))
                    fetch_row(pointers, degree, targets, weights, weighted, i)
                continue
        else:
            if from_heap:
                i = heap_ids[0]
                heaped = heap_pop(heap_keys, heap_ids, heaped)
                k = Unsigned(i) << one
                p, q = pairs[k], pairs[k + one]
                # Kicked later since: no; kicked earlier: then it has fired and is behind.
                angle = math.atan2(q, p)
                fresh = angle <= top and angle > now - BEHIND
            else:
                c = slots[place]
                i = member[c]
                place += 1
                if place + AHEAD < found:
                    later = member[slots[place + AHEAD]]
                    prefetch(pairs, Unsigned(2 * later))
                    if not delayed:
                        fetch_row(pointers, degree, targets, weights, weighted, later)
                k = Unsigned(i) << one
                p, q = pairs[k], pairs[k + one]
                fresh = p == seen[Unsigned(2 * c)] and q == seen[Unsigned(2 * c + 1)]
            if not fresh:
                if q * limit_cosine - p * limit_sine < 0.0:
                    angle = math.atan2(q, p)
                    if angle > now - BEHIND:
                        if heaped < room:
                            heaped = heap_push(heap_keys, heap_ids, heaped, max(angle, now), i)
                        else:
                            rescan = True
                continue
            if delayed and delays > delay_mask:
                status = DELAY_FULL
                rescan = True
                break
            now = key
            spike_time[spikes] = key
            spike_id[spikes] = i
            spikes += 1
            # The pair points to its own crossing: these are the cosine and the sine of now.
            length = math.sqrt(p * p + q * q)
            cosine, sine = p / length, q / length
            pairs[k] = -p
            pairs[k + one] = -q
            row = i
            if delayed:
                if degree == 0 or (degree < 0 and pointers[row + 1] == pointers[row]):
                    continue  # nobody will hear it
                delay_key[(delay_head + delays) & delay_mask] = key + delay
                delay_row[(delay_head + delays) & delay_mask] = i
                delays += 1
                if delays == 1:
                    delay_next = key + delay
                    due = min(due, delay_next)
                continue
        if degree >= 0:
            start, count = row * degree, degree
        else:
            start = pointers[row]
            count = pointers[row + 1] - start
        synapses += count
        kick = scale[row] if row_scales else all_scale
        s = Unsigned(start)
        x, y = kick * cosine, kick * sine
        if not weighted and kick <= 0.0 and distant and place < found:
            ahead = Unsigned(member[slots[place]] * degree)
            for e in range(count):
                prefetch(pairs, Unsigned(targets[ahead + Unsigned(e)]) << one)
                k = Unsigned(targets[s + Unsigned(e)]) << one
                p, q = pairs[k], pairs[k + one]
                turned = q * cosine - p * sine
                pairs[k] = p + x * turned
                pairs[k + one] = q + y * turned
        elif not weighted and kick <= 0.0:
            for e in range(count):
                k = Unsigned(targets[s + Unsigned(e)]) << one
                p, q = pairs[k], pairs[k + one]
                turned = q * cosine - p * sine
                pairs[k] = p + x * turned
                pairs[k + one] = q + y * turned
        elif weighted and (not signed or (told and excites[row] == 0)):
            for e in range(count):
                k = Unsigned(targets[s + Unsigned(e)]) << one
                w = weights[s + Unsigned(e)]
                p, q = pairs[k], pairs[k + one]
                turned = (q * cosine - p * sine) * w
                pairs[k] = p + x * turned
                pairs[k + one] = q + y * turned
        else:
            for e in range(count):
                k = Unsigned(targets[s + Unsigned(e)]) << one
                w = weights[s + Unsigned(e)] if weighted else 1.0
                p, q = pairs[k], pairs[k + one]
                turned = (q * cosine - p * sine) * w
                p += x * turned
                q += y * turned
                pairs[k] = p
                pairs[k + one] = q
                if kick * turned > 0.0 and q * limit_cosine - p * limit_sine < 0.0:
                    angle = math.atan2(q, p)
                    if angle > now - BEHIND:
                        if heaped < room:
                            angle, i = max(angle, now), np.int64(k >> one)
                            heaped = heap_push(heap_keys, heap_ids, heaped, angle, i)
                        else:
                            rescan = True
    to_seconds(spike_time, timed, spikes, numbers, reals)
    reals[R_NOW], reals[R_LIMIT] = now, limit
    numbers[N_PLACE], numbers[N_FOUND], numbers[N_HEAP] = place, found, heaped
    numbers[N_DELAY_HEAD], numbers[N_DELAY] = delay_head, delays
    numbers[N_EXTERNAL] = external
    numbers[N_SYNAPSES] = synapses
    numbers[N_RESCAN] = 1 if rescan else 0
    numbers[N_SPIKES] = spikes
    return status
