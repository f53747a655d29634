"""Adding the rows of shared weights that a window lays over a picture.

A row is one tap and source channel: its weights lead to the target channels (of one group) of
whatever position the tap reaches, which are neighbours in memory. Few events spread: each walks the
positions that it reaches. Many events are gathered: each position sums the events in its window, so
that its accumulators are read and written once for several rows. Either way a target receives its
additions in the order of the events, so both give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

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
    G_BITS,
    G_BY_TAP,
    G_CHANNELS,
    G_COLUMNS,
    G_DILATION_X,
    G_DILATION_Y,
    G_GATHER,
    G_GROUPS,
    G_HEIGHT,
    G_MARKS,
    G_PADDING_X,
    G_PADDING_Y,
    G_POINTERS,
    G_REACH_X,
    G_REACH_Y,
    G_ROWS,
    G_STRIDE_X,
    G_STRIDE_Y,
    G_TARGET_CHANNELS,
    G_TARGET_HEIGHT,
    G_TARGET_WIDTH,
    G_WATCH,
    G_WIDTH,
    G_WORDS,
    W_ENTRY,
)
from eventsim.kernels.window_lanes import add_run

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
    u0, f0 : int
        Places of the first target's accumulator in `values`, and of its flag.
    touched : int
        What is flagged of the targets so far.

    Returns
    -------
    synapses, executed multiplications or comparisons, what is flagged now : int
    """
    if plan[window + G_WATCH]:
        synapses = _watch(plan, window, neuron, e0, e1, flags, f0, touched)
        executed = synapses
    elif kind != MIXED and e1 - e0 >= plan[window + G_GATHER]:
        synapses, executed = _gather(
            w,
            plan,
            window,
            rows,
            kind,
            neuron,
            value,
            e0,
            e1,
            state,
            values,
            u0,
            flags,
            f0,
            touched,
        )
    else:
        synapses, executed = _spread(
            w, short, plan, window, rows, neuron, value, e0, e1, values, u0, flags, f0, touched
        )
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
    u: Any,
    u0: int,
    flags: Any,
    f0: int,
    touched: int,
) -> tuple[int, int]:
    """Let each event walk the positions that it reaches."""
    channels, width = plan[window + G_CHANNELS], plan[window + G_WIDTH]
    groups = plan[window + G_GROUPS]
    n, per_group = plan[window + G_TARGET_CHANNELS] // groups, channels // groups
    masks = plan.view(np.uint8)
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
                        u[at + j] += w[r + Unsigned(k)] * d
                        flags[flag + j] = 1
                    continue
                executed += n
                add_run(
                    w, plan[row + Unsigned(R_WEIGHT)], neuron, value, e, e + 1, -i, u, u0 + to, n
                )
                if touched == ALL:
                    continue
                if count == n:
                    for k in range(n):
                        flags[flag + Unsigned(k)] = 1
                else:
                    mask = Unsigned(plan[row + Unsigned(R_MASK)])
                    for k in range(n):
                        flags[flag + Unsigned(k)] |= masks[mask + Unsigned(k)]
    return synapses, executed


@kernel
def _gather(
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
    flags: Any,
    f0: int,
    touched: int,
) -> tuple[int, int]:
    """Let each position sum the events in its window; of one group, all rows dense.

    Of many events it is tap after tap that the positions sum, so that a tap's weights stay at hand:
    a target's taps are in the order of its sources, and so are its additions.
    """
    n = plan[window + G_TARGET_CHANNELS]
    n_positions = plan[window + G_TARGET_HEIGHT] * plan[window + G_TARGET_WIDTH]
    n_rows, n_columns = plan[window + G_ROWS], plan[window + G_COLUMNS]
    _point(plan, window, state, neuron, e0, e1)
    tall, wide = n_rows, n_columns
    if e1 - e0 >= plan[window + G_BY_TAP]:
        tall, wide = 1, 1
    synapses = 0
    executed = 0
    for row in range(0, n_rows, tall):
        for column in range(0, n_columns, wide):
            found, done = _sum(
                w, plan, window, rows, kind, neuron, value, state, values, u0, touched,
                row, row + tall, column, column + wide,
            )  # fmt: skip
            synapses += found
            executed += done
    marks, words = plan[window + G_MARKS], plan[window + G_WORDS]
    for position in range(n_positions):
        mark = Unsigned(marks + position)
        if state[mark] == 0:
            continue
        state[mark] = 0
        if touched == ALL:
            continue
        flag = f0 + position * n
        if kind == FULL:
            for k in range(n):
                flags[Unsigned(flag) + Unsigned(k)] = 1
            continue
        for word in range(words):
            place = Unsigned(plan[window + G_BITS] + position * words + word)
            bits = Unsigned(state[place])
            state[place] = 0
            for k in range(min(64, n - 64 * word)):
                bit = (bits >> Unsigned(k)) & Unsigned(1)
                flags[Unsigned(flag + 64 * word) + Unsigned(k)] |= np.uint8(bit)
    return synapses, executed


@kernel
def _sum(
    w: Any,
    plan: Any,
    window: int,
    rows: int,
    kind: int,
    neuron: Any,
    value: Any,
    state: Any,
    values: Any,
    u0: int,
    touched: int,
    row0: int,
    row1: int,
    column0: int,
    column1: int,
) -> tuple[int, int]:
    """Add the events below some of a window's taps, at each position that is marked."""
    height, width = plan[window + G_HEIGHT], plan[window + G_WIDTH]
    channels, n = plan[window + G_CHANNELS], plan[window + G_TARGET_CHANNELS]
    n_columns = plan[window + G_COLUMNS]
    step, skip = plan[window + G_DILATION_Y], plan[window + G_DILATION_X]
    pointers, weights = plan[window + G_POINTERS], plan[rows + R_WEIGHT]
    marks, target_width = plan[window + G_MARKS], plan[window + G_TARGET_WIDTH]
    bits, words = plan[window + G_BITS], plan[window + G_WORDS]
    # A window's neighbouring columns are neighbours below it, and so are the events in them.
    together = column1 - column0 if skip == 1 else 1
    synapses = 0
    executed = 0
    for target_y in range(plan[window + G_TARGET_HEIGHT]):
        y0 = target_y * plan[window + G_STRIDE_Y] - plan[window + G_PADDING_Y]
        for target_x in range(target_width):
            position = target_y * target_width + target_x
            if state[Unsigned(marks + position)] == 0:
                continue
            x0 = target_x * plan[window + G_STRIDE_X] - plan[window + G_PADDING_X]
            for row in range(row0, row1):
                y = y0 + row * step
                if y < 0 or y >= height:
                    continue
                pixels = pointers + y * width
                for column in range(column0, column1, together):
                    x = x0 + column * skip
                    a = state[pixels + min(max(x, 0), width)]
                    b = state[pixels + min(max(x + together, 0), width)]
                    if a == b:
                        continue
                    shift = (row * n_columns + column - y * width - x) * channels
                    add_run(w, weights, neuron, value, a, b, shift, values, u0 + position * n, n)
                    executed += (b - a) * n
                    if kind != FULL:
                        synapses += _reached(
                            plan, rows, neuron, a, b, shift, state, bits + position * words, words,
                            n, touched,
                        )  # fmt: skip
    return executed if kind == FULL else synapses, executed


@kernel
def _point(
    plan: Any,
    window: int,
    state: Any,
    neuron: Any,
    e0: int,
    e1: int,
) -> None:
    """Set the first event of each pixel, and one end more; mark the positions they reach."""
    width, target_channels = plan[window + G_WIDTH], plan[window + G_TARGET_CHANNELS]
    channels, n_pixels = plan[window + G_CHANNELS], plan[window + G_HEIGHT] * width
    pointers, marks = plan[window + G_POINTERS], plan[window + G_MARKS]
    pixel = 0
    first = 0
    for e in range(e0, e1):
        if neuron[Unsigned(e)] < first:
            continue  # of the same pixel
        while neuron[Unsigned(e)] >= first:
            state[Unsigned(pointers + pixel)] = e
            pixel += 1
            first += channels
        y = Unsigned(plan[window + G_REACH_Y] + (pixel - 1) // width)
        x = Unsigned(plan[window + G_REACH_X] + (pixel - 1) % width)
        x0, x1 = plan[x], plan[x + Unsigned(1)]
        for a in range(plan[y], plan[y + Unsigned(1)], W_ENTRY):
            to_y = plan[Unsigned(a) + Unsigned(E_TARGET)]
            for b in range(x0, x1, W_ENTRY):
                to = to_y + plan[Unsigned(b) + Unsigned(E_TARGET)]
                state[Unsigned(marks + to // target_channels)] = 1
    for k in range(pixel, n_pixels + 1):
        state[Unsigned(pointers + k)] = e1


@inlined
def _reached(
    plan: Any,
    rows: int,
    neuron: Any,
    e0: int,
    e1: int,
    shift: int,
    state: Any,
    bits: int,
    words: int,
    n: int,
    touched: int,
) -> int:
    """Note the targets of the rows of events e0:e1, and return how many synapses these have."""
    synapses = 0
    if touched == ALL:
        for e in range(e0, e1):
            row = Unsigned(rows + W_ROW * (neuron[Unsigned(e)] + shift))
            synapses += plan[row + Unsigned(R_COUNT)]
        return synapses
    behind = (n + 7) // 8  # the words of a row's bytes
    for word in range(words):
        found = state[Unsigned(bits + word)]
        for e in range(e0, e1):
            row = Unsigned(rows + W_ROW * (neuron[Unsigned(e)] + shift))
            if word == 0:
                synapses += plan[row + Unsigned(R_COUNT)]
            found |= plan[Unsigned(plan[row + Unsigned(R_MASK)] // 8 + behind + word)]
        state[Unsigned(bits + word)] = found
    return synapses


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
