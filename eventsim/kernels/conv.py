"""Adding the rows of shared weights that a window lays over a picture.

A row is one tap and source channel: its weights lead to the target channels (of one group) of
whatever position the tap reaches, which are neighbours in memory. Events come in the order of
their pixels, and all events of a pixel, and of neighbours within a stride, reach the same
positions: at each of these their rows are added together, so that its accumulators are read and
written once for them. A target receives its additions in the order of the events.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eventsim.kernels.bits import fma
from eventsim.kernels.fields import (
    ALL,
    FULL,
    MIXED,
    R_COUNT,
    R_INDEX,
    R_MASK,
    R_WEIGHT,
    SOME,
    W_ROW,
)
from eventsim.kernels.jit import inlined, kernel
from eventsim.kernels.window_fields import (
    E_TARGET,
    G_ALIKE,
    G_CHANNELS,
    G_COLUMNS,
    G_DILATION_X,
    G_DILATION_Y,
    G_FAN_OUT,
    G_GROUPS,
    G_HEIGHT,
    G_MASKS,
    G_PADDING_X,
    G_PADDING_Y,
    G_REACH_X,
    G_REACH_Y,
    G_ROW_PLACES,
    G_ROWS,
    G_STRIDE_X,
    G_STRIDE_Y,
    G_TARGET_CHANNELS,
    G_TARGET_WIDTH,
    G_WATCH,
    G_WIDTH,
    W_ENTRY,
)
from eventsim.kernels.window_lanes import (
    LANES,
    LONGEST,
    add_registers,
    add_registers_masked,
    add_run,
    end_below,
    registers,
)

Unsigned = np.uint64


@kernel
def add_window(
    w: Any,
    short: Any,
    plan: Any,
    window: int,
    rows: int,
    kind: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    state: Any,
    values: Any,
    u0: int,
    flags: Any,
    f0: int,
    bits: int,
    touched: int,
) -> tuple[int, int, int]:
    """Add the rows of events e0:e1 of one window to its targets, or make them watch.

    Parameters
    ----------
    w : float32 or float64 array
        The plan as weights, and `short` as indices.
    window, rows : int
        Places of the window's block and of its rows' table in the plan.
    kind : int
        How its rows are stored: all dense, or MIXED.
    u0, f0, bits : int
        Places of the first target's accumulator in `values`, of its flag, and of the word of the
        state whose lowest bit is its bit.
    touched : int
        What is flagged of the targets so far.

    Returns
    -------
    synapses, executed multiplications or comparisons, what is flagged now : int
    """
    if plan[window + G_WATCH]:
        synapses = _watch(plan, window, neuron, e0, e1, flags, f0, touched)
        executed = synapses
    elif kind != MIXED and plan[window + G_GROUPS] == 1:
        synapses, executed = _walk(
            w, plan, window, rows, kind, neuron, value, e0, e1, state, values, u0, bits, touched
        )
    else:
        synapses, executed = _spread(
            w, short, plan, window, rows, neuron, value, e0, e1, state, values, u0, flags, f0,
            bits, touched,
        )  # fmt: skip
    return synapses, executed, touched if touched == ALL or synapses == 0 else SOME


@kernel
def _spread(
    w: Any,
    short: Any,
    plan: Any,
    window: int,
    rows: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    state: Any,
    u: Any,
    u0: int,
    flags: Any,
    f0: int,
    bits: int,
    touched: int,
) -> tuple[int, int]:
    """Let each event walk the positions that it reaches."""
    channels, width = plan[window + G_CHANNELS], plan[window + G_WIDTH]
    groups = plan[window + G_GROUPS]
    n, per_group = plan[window + G_TARGET_CHANNELS] // groups, channels // groups
    places = plan[window + G_ROW_PLACES]
    synapses = 0
    executed = 0
    first = -1
    y0 = y1 = x0 = x1 = 0
    for e in range(e0, e1):
        i, d = neuron[Unsigned(e)], value[Unsigned(e)]
        if first < 0 or i >= first + channels:
            pixel = i // channels
            first = pixel * channels
            y = Unsigned(plan[window + G_REACH_Y] + pixel // width)
            x = Unsigned(plan[window + G_REACH_X] + pixel % width)
            y0, y1 = plan[y], plan[y + Unsigned(1)]
            x0, x1 = plan[x], plan[x + Unsigned(1)]
        channel = i - first
        group = 0 if groups == 1 else n * (channel // per_group)
        for a in range(y0, y1, W_ENTRY):
            tap_y = plan[Unsigned(a)] + channel
            to_y = plan[Unsigned(a) + Unsigned(E_TARGET)] + group
            for b in range(x0, x1, W_ENTRY):
                row = Unsigned(rows + W_ROW * (tap_y + plan[Unsigned(b)]))
                count = plan[row + Unsigned(R_COUNT)]
                if count == 0:
                    continue
                to = to_y + plan[Unsigned(b) + Unsigned(E_TARGET)]
                at, flag = Unsigned(u0 + to), Unsigned(f0 + to)
                r = Unsigned(plan[row + Unsigned(R_WEIGHT)])
                index = plan[row + Unsigned(R_INDEX)]
                synapses += count
                if index >= 0:
                    executed += count
                    first_index = Unsigned(index)
                    for k in range(count):
                        j = Unsigned(short[first_index + Unsigned(k)])
                        u[at + j] = fma(w[r + Unsigned(k)], d, u[at + j])
                        flags[flag + j] = 1
                    continue
                executed += n
                if n < LANES:
                    for k in range(n):
                        place = at + Unsigned(k)
                        u[place] = fma(w[r + Unsigned(k)], d, u[place])
                else:
                    add_run(w, np.int64(r), places, neuron, value, e, e + 1, -i, u, u0 + to, n)
                if touched == ALL:
                    continue
                if count == n:
                    _flag_all(state, bits, to, n)
                    continue
                mask = plan[row + Unsigned(R_MASK)]
                for k in range((n + 63) >> 6):
                    _flag(state, bits, to + 64 * k, Unsigned(plan[Unsigned(mask + k)]))
    return synapses, executed


@kernel
def _walk(
    w: Any,
    plan: Any,
    window: int,
    rows: int,
    kind: int,
    neuron: Any,
    value: Any,
    e0: int,
    e1: int,
    state: Any,
    values: Any,
    u0: int,
    bits: int,
    touched: int,
) -> tuple[int, int]:
    """Let events walk the positions that they reach; of one group, rows dense.

    Those of a pixel walk together, and with them those of its neighbours in the same stride.
    """
    n, channels = plan[window + G_TARGET_CHANNELS], plan[window + G_CHANNELS]
    width, places = plan[window + G_WIDTH], plan[window + G_ROW_PLACES]
    weights = plan[rows + R_WEIGHT]
    reach_y, reach_x = plan[window + G_REACH_Y], plan[window + G_REACH_X]
    masks, alike = plan[window + G_MASKS], plan[window + G_ALIKE]
    executed = 0
    many, back = registers(n)
    masked = n <= LONGEST and kind != FULL and touched != ALL
    # Pixels ascend, so their rows are counted, not divided for.
    line = y = 0
    end = e0
    while end < e1:
        e = end
        pixel = np.int64(Unsigned(neuron[Unsigned(e)]) // Unsigned(channels))
        first = pixel * channels
        while pixel >= line + width:
            line += width
            y += 1
        limit = channels * (line + plan[Unsigned(alike + pixel - line)])
        end = end_below(neuron, e + 1, e1, limit)
        place = Unsigned(reach_x + pixel - line)
        x0, x1 = plan[place], plan[place + Unsigned(1)]
        place = Unsigned(reach_y + y)
        for a in range(plan[place], plan[place + Unsigned(1)], W_ENTRY):
            shift_y, to_y = plan[Unsigned(a)] - first, plan[Unsigned(a + E_TARGET)]
            for b in range(x0, x1, W_ENTRY):
                shift, to = shift_y + plan[Unsigned(b)], to_y + plan[Unsigned(b + E_TARGET)]
                executed += (end - e) * n
                if masked:
                    found = add_registers_masked(
                        w, weights, places, neuron, value, e, end, shift, values, u0 + to,
                        many, back, plan, masks,
                    )  # fmt: skip
                    _flag(state, bits, to, found)
                    continue
                if n <= LONGEST:
                    add_registers(
                        w, weights, places, neuron, value, e, end, shift, values, u0 + to,
                        many, back,
                    )  # fmt: skip
                else:
                    add_run(w, weights, places, neuron, value, e, end, shift, values, u0 + to, n)
                if touched == ALL:
                    continue
                if kind == FULL:
                    _flag_all(state, bits, to, n)
                else:
                    _flag_rows(plan, masks, neuron, e, end, shift, state, bits, to, n)
    return executed if kind == FULL else _fan_out(plan, window, neuron, e0, e1), executed


@inlined
def _fan_out(plan: Any, window: int, neuron: Any, e0: int, e1: int) -> int:
    """Return how many surviving synapses events e0:e1 reach."""
    synapses = np.int64(0)
    counts, fan_out = plan.view(np.uint32), Unsigned(plan[window + G_FAN_OUT])
    for e in range(e0, e1):
        synapses += np.int64(counts[fan_out + Unsigned(neuron[Unsigned(e)])])
    return synapses  # type: ignore[return-value]


@inlined
def _flag_rows(
    plan: Any,
    masks: int,
    neuron: Any,
    e0: int,
    e1: int,
    shift: int,
    state: Any,
    bits: int,
    first: int,
    n: int,
) -> None:
    """Set the bits of the targets of the rows of events e0:e1, which are n from `first` on.

    For rows longer than one run: others tell theirs while they are added.
    """
    words = (n + 63) >> 6
    for word in range(words):
        whole, place = _lowest(n - 64 * word), Unsigned(masks + word)
        found = Unsigned(0)
        for e in range(e0, e1):
            row = Unsigned(words * (neuron[Unsigned(e)] + shift))
            found |= Unsigned(plan[place + row])
            if found == whole:
                break
        _flag(state, bits, first + 64 * word, found)


@inlined
def _lowest(n: int) -> Any:
    """Return a word of which the n > 0 lowest bits are set, or all of them."""
    return ~Unsigned(0) >> Unsigned(64 - min(n, 64))


@inlined
def _flag(state: Any, bits: int, first: int, word: Any) -> None:
    """Set the bits of the targets from `first` on that are bits of a word."""
    place = Unsigned(bits) + (Unsigned(first) >> Unsigned(6))
    shift = Unsigned(first) & Unsigned(63)
    state[place] |= np.int64(word << shift)
    above = (word >> Unsigned(1)) >> (Unsigned(63) - shift)
    if above != Unsigned(0):
        state[place + Unsigned(1)] |= np.int64(above)


@inlined
def _flag_all(state: Any, bits: int, first: int, n: int) -> None:
    """Set the bits of n targets from `first` on."""
    for k in range(0, n, 64):
        _flag(state, bits, first + k, _lowest(n - k))


@kernel
def _watch(
    plan: Any, window: int, neuron: Any, e0: int, e1: int, flags: Any, f0: int, touched: int
) -> int:
    """Flag the targets whose window holds an event; how many pairs of both there are."""
    channels, width = plan[window + G_CHANNELS], plan[window + G_WIDTH]
    synapses = 0
    for e in range(e0, e1):
        pixel, channel = neuron[e] // channels, neuron[e] % channels
        y = plan[window + G_REACH_Y] + pixel // width
        x = plan[window + G_REACH_X] + pixel % width
        for a in range(plan[y], plan[y + 1], W_ENTRY):
            for b in range(plan[x], plan[x + 1], W_ENTRY):
                synapses += 1
                if touched != ALL:
                    flags[f0 + plan[a + E_TARGET] + plan[b + E_TARGET] + channel] = 1
    return synapses


@kernel
def take_maxima(
    plan: Any, window: int, values: Any, u0: int, s0: int, flags: Any, f0: int, n: int, every: bool
) -> None:
    """Set u of the n targets that are flagged, or of all, to the largest s in their window.

    `s0` is the place of the first source's s.
    """
    channels, width = plan[window + G_CHANNELS], plan[window + G_WIDTH]
    height, target_width = plan[window + G_HEIGHT], plan[window + G_TARGET_WIDTH]
    for i in range(n):
        if not (every or flags[f0 + i]):
            continue
        pixel, channel = i // channels, i % channels
        y0 = (pixel // target_width) * plan[window + G_STRIDE_Y] - plan[window + G_PADDING_Y]
        x0 = (pixel % target_width) * plan[window + G_STRIDE_X] - plan[window + G_PADDING_X]
        best = -np.inf
        for row in range(plan[window + G_ROWS]):
            y = y0 + row * plan[window + G_DILATION_Y]
            if y < 0 or y >= height:
                continue
            for column in range(plan[window + G_COLUMNS]):
                x = x0 + column * plan[window + G_DILATION_X]
                if 0 <= x < width:
                    best = max(best, values[s0 + (y * width + x) * channels + channel])
        values[u0 + i] = best
