"""Where things stand in the block of a plan that describes a window, see `eventsim.windows`.

The first numbers are those of `eventsim.convolution.GEOMETRY`.
"""

(
    G_HEIGHT,
    G_WIDTH,
    G_CHANNELS,
    G_ROWS,
    G_COLUMNS,
    G_STRIDE_Y,
    G_STRIDE_X,
    G_PADDING_Y,
    G_PADDING_X,
    G_DILATION_Y,
    G_DILATION_X,
    G_TARGET_HEIGHT,
    G_TARGET_WIDTH,
    G_TARGET_CHANNELS,
    G_GROUPS,
    G_WATCH,  # 1 if targets take the maximum of what they watch
    G_REACH_Y,  # places of the entries of each source row, one more than rows
    G_REACH_X,  # the same for source columns
    G_GATHER,  # events from which on targets gather, instead of events spreading
    G_BY_TAP,  # events from which on they do so tap after tap
    G_POINTERS,  # in the state: first event of each source pixel, one more than pixels
    G_MARKS,  # in the state: 1 for each target position that an event reaches
    G_WORDS,  # of 64 bits each, that tell a row's surviving synapses
    G_BITS,  # in the state: so many words a target position, which targets events reach
    W_WINDOW,
) = range(25)

# An entry of a source row (column): a tap that reaches it, and the target row (column) behind it.
(
    E_TAP,  # place of the tap's first row of weights among the rows
    E_TARGET,  # place of the target row's (column's) first neuron in the population
    W_ENTRY,
) = range(3)
