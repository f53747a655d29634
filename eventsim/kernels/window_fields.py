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
    G_ALIKE,  # for each source column, the end of those that reach the same, each by the next tap
    G_ROW_PLACES,  # of a dense row
    G_FAN_OUT,  # surviving synapses of each source neuron, as uint32, where events walk together
    G_MASKS,  # words whose bits tell the synapses of the first row, if they do not all survive
    W_WINDOW,
) = range(23)

# An entry of a source row (column): a tap that reaches it, and the target row (column) behind it.
(
    E_TAP,  # place of the tap's first row of weights among the rows
    E_TARGET,  # place of the target row's (column's) first neuron in the population
    W_ENTRY,
) = range(3)
