"""Adding the rows of shared weights that a window lays over a picture.

A row is one tap and source channel: its weights lead to the target channels (of one group) of
whatever position the tap reaches, which are neighbours in memory. Few events spread: each walks the
positions that it reaches. Many events are gathered: each position sums all events in its window at
once, so that its accumulators are read and written once for several rows. Either way a target
receives its additions in the order of the events, so both give the same bits.
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
from eventsim.kernels.jit import kernel
from eventsim.kernels.window_fields import (
    E_TARGET,
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
    G_PLACE,
    G_POINTERS,
    G_REACH_X,
    G_REACH_Y,
    G_ROWS,
    G_STRIDE_X,
    G_STRIDE_Y,
    G_TARGET_CHANNELS,
    G_TARGET_HEIGHT,
    G_TARGET_WIDTH,
    G_VALUE,
    G_WATCH,
    G_WIDTH,
    W_ENTRY,
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
                for k in range(n):
                    j = Unsigned(k)
                    u[at + j] += w[r + j] * d
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
    """Let each position sum the events in its window; of one group, all rows dense."""
    height, width = plan[window + G_HEIGHT], plan[window + G_WIDTH]
    channels, n = plan[window + G_CHANNELS], plan[window + G_TARGET_CHANNELS]
    n_rows, n_columns = plan[window + G_ROWS], plan[window + G_COLUMNS]
    step, skip = plan[window + G_DILATION_Y], plan[window + G_DILATION_X]
    pointers, place = plan[window + G_POINTERS], plan[window + G_PLACE]
    listed, weights = plan[window + G_VALUE], plan[rows + R_WEIGHT]
    marks, target_width = plan[window + G_MARKS], plan[window + G_TARGET_WIDTH]
    _point(plan, window, state, pointers, marks, height * width, channels, neuron, e0, e1)
    synapses = 0
    executed = 0
    for target_y in range(plan[window + G_TARGET_HEIGHT]):
        y0 = target_y * plan[window + G_STRIDE_Y] - plan[window + G_PADDING_Y]
        for target_x in range(target_width):
            mark = Unsigned(marks + target_y * target_width + target_x)
            if state[mark] == 0:
                continue
            state[mark] = 0
            x0 = target_x * plan[window + G_STRIDE_X] - plan[window + G_PADDING_X]
            m = 0
            for row in range(n_rows):
                y = y0 + row * step
                if y < 0 or y >= height:
                    continue
                pixels = pointers + y * width
                if skip == 1:
                    # The window's columns are neighbours, and so are the events in them.
                    a = state[pixels + min(max(x0, 0), width)]
                    b = state[pixels + min(max(x0 + n_columns, 0), width)]
                    shift = row * n_columns * channels - (y * width + x0) * channels
                    if a < b:
                        for e in range(a, b):
                            state[Unsigned(place + m)] = neuron[Unsigned(e)] + shift
                            values[Unsigned(listed + m)] = value[Unsigned(e)]
                            m += 1
                    continue
                for column in range(n_columns):
                    x = x0 + column * skip
                    if x < 0 or x >= width:
                        continue
                    shift = (row * n_columns + column - y * width - x) * channels
                    for e in range(state[pixels + x], state[pixels + x + 1]):
                        state[Unsigned(place + m)] = neuron[Unsigned(e)] + shift
                        values[Unsigned(listed + m)] = value[Unsigned(e)]
                        m += 1
            if m == 0:
                continue
            to = (target_y * target_width + target_x) * n
            executed += m * n
            if kind == FULL:
                synapses += m * n
                if touched != ALL:
                    for k in range(n):
                        flags[Unsigned(f0 + to) + Unsigned(k)] = 1
            else:
                synapses += _flag(plan, rows, state, place, m, flags, f0 + to, n, touched)
            # Rows times 0 fill the last pass: u is never -0.0, so it stays as it is.
            rest = m & 7
            fill = 0 if rest == 0 else (8 if rest > 4 else 4) - rest
            for k in range(m, m + fill):
                state[Unsigned(place + k)] = state[Unsigned(place)]
                values[Unsigned(listed + k)] = 0.0
            _sum(w, weights, state, place, values, listed, m + fill, u0 + to, n)
    return synapses, executed


@kernel
def _point(
    plan: Any,
    window: int,
    state: Any,
    pointers: int,
    marks: int,
    n_pixels: int,
    channels: int,
    neuron: Any,
    e0: int,
    e1: int,
) -> None:
    """Set the first event of each pixel, and one end more; mark the positions they reach."""
    width, target_channels = plan[window + G_WIDTH], plan[window + G_TARGET_CHANNELS]
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


@kernel
def _sum(
    w: Any,
    weights: int,
    state: Any,
    place: int,
    values: Any,
    listed: int,
    m: int,
    u0: int,
    n: int,
) -> None:
    """Add the m rows listed, a multiple of 4, to the n accumulators from u0, eight rows a pass."""
    base = Unsigned(u0)
    e = 0
    while e + 8 <= m:
        r0 = Unsigned(weights + n * state[place + e])
        r1 = Unsigned(weights + n * state[place + e + 1])
        r2 = Unsigned(weights + n * state[place + e + 2])
        r3 = Unsigned(weights + n * state[place + e + 3])
        r4 = Unsigned(weights + n * state[place + e + 4])
        r5 = Unsigned(weights + n * state[place + e + 5])
        r6 = Unsigned(weights + n * state[place + e + 6])
        r7 = Unsigned(weights + n * state[place + e + 7])
        d0, d1 = values[listed + e], values[listed + e + 1]
        d2, d3 = values[listed + e + 2], values[listed + e + 3]
        d4, d5 = values[listed + e + 4], values[listed + e + 5]
        d6, d7 = values[listed + e + 6], values[listed + e + 7]
        for k in range(n):
            j = Unsigned(k)
            total = values[base + j] + w[r0 + j] * d0
            total = total + w[r1 + j] * d1
            total = total + w[r2 + j] * d2
            total = total + w[r3 + j] * d3
            total = total + w[r4 + j] * d4
            total = total + w[r5 + j] * d5
            total = total + w[r6 + j] * d6
            values[base + j] = total + w[r7 + j] * d7
        e += 8
    if e + 4 <= m:
        r0 = Unsigned(weights + n * state[place + e])
        r1 = Unsigned(weights + n * state[place + e + 1])
        r2 = Unsigned(weights + n * state[place + e + 2])
        r3 = Unsigned(weights + n * state[place + e + 3])
        d0, d1 = values[listed + e], values[listed + e + 1]
        d2, d3 = values[listed + e + 2], values[listed + e + 3]
        for k in range(n):
            j = Unsigned(k)
            total = values[base + j] + w[r0 + j] * d0
            total = total + w[r1 + j] * d1
            total = total + w[r2 + j] * d2
            values[base + j] = total + w[r3 + j] * d3


@kernel
def _flag(
    plan: Any,
    rows: int,
    state: Any,
    place: int,
    m: int,
    flags: Any,
    f0: int,
    n: int,
    touched: int,
) -> int:
    """Flag the targets of the m rows listed, and return how many synapses these have."""
    masks = plan.view(np.uint8)
    flag = Unsigned(f0)
    synapses = 0
    full = False
    for e in range(m):
        row = Unsigned(rows + W_ROW * state[place + e])
        count = plan[row + Unsigned(R_COUNT)]
        synapses += count
        if touched == ALL or full or count == 0:
            continue
        if count == n:
            full = True
            for k in range(n):
                flags[flag + Unsigned(k)] = 1
        else:
            mask = Unsigned(plan[row + Unsigned(R_MASK)])
            for k in range(n):
                flags[flag + Unsigned(k)] |= masks[mask + Unsigned(k)]
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
