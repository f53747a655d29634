"""Where things stand in the two buffers of the level-ordered engine.

The plan (constant) and the state of one simulator are one int64 buffer each, viewed as other
types where needed: a call with four arrays costs half of one with eight, and a state is copied in
one piece. All places are counted in elements of the view's type.

A population's neurons stand in *lanes*: contiguous, padded to a multiple of `PAD`, in level order
(rank, then order of declaration). Flags are bytes, 1 where a neuron is pending.
"""

# The plan's header. Places of tables in the plan; places of regions in the state.
(
    N_POPULATIONS,
    N_INPUTS,
    N_OUTPUTS,
    N_NEURONS,
    N_LINES,
    POPULATIONS,  # table of W_POPULATION columns, in level order
    PROJECTIONS,  # table of W_PROJECTION columns, those of one source together
    LINES,  # table of W_LINE columns, those of one source together, longest delay first
    THRESHOLD,  # a value a lane; inf for a neuron that transmits to nobody
    INITIAL,  # a value a lane
    U,
    S,
    FLAGS,  # byte place
    TOUCHED,  # one a population: NONE, SOME or ALL of its neurons are pending
    BITS,  # a word for 64 lanes: what dense rows flag, beside the bytes
    BLOCKS,  # byte place; one byte for 64 lanes of a large population
    SUPERS,  # byte place; one byte for 64 blocks of a large population
    OUTPUTS,
    MIRROR,  # byte place: the inputs of the last step, if they were bytes
    KEPT,  # what comes before this place in the state is a snapshot
    TOTALS,
    TABLES,
    TABLE_ROWS,
    EVENT_NEURON,  # events of the population at hand
    EVENT_VALUE,
    WORK,  # BLOCK lanes of activations
    LOG_STEP,
    LOG_NEURON,
    LOG_VALUE,
    LOG_CAPACITY,
    W_HEADER,
) = range(31)

# A population in level order.
(
    P_INDEX,  # in the network
    P_SIZE,
    P_LANE,
    P_PADDED,
    P_NEURON,  # id of its first neuron
    P_CODE,
    P_P0,  # a float64 in the same bytes
    P_P1,
    P_INPUT,  # place of its values among the inputs, -1 if it is none
    P_OUTPUT,  # place of its values among the outputs, -1 if it is none
    P_PROJECTION,  # first projection without delay
    P_PROJECTION_END,
    P_LINE,
    P_LINE_END,
    P_COLUMN,  # counter column that its events count in, MACS or ACS
    P_MERGED,  # two of its projections share a target: go event by event
    P_LARGE,  # 1 if blocks and supers are kept
    P_BLOCK,  # its first block among all blocks of large populations
    P_SUPER,
    P_BITS,  # its first word of bits
    P_WATCH,  # max pooling: the projection that it watches, else -1
    P_THRESHOLDS,  # 0 if all its neurons have the same threshold, else 1
    W_POPULATION,
) = range(23)

# A projection; the rows of a source neuron stand in a table of W_ROW columns.
(
    Q_TARGET,  # population in level order
    Q_ROWS,
    Q_WIDE,  # 1 if its weights are float64
    Q_LONG,  # 1 if its indices are uint32
    Q_KIND,  # MIXED, DENSE or FULL
    Q_WINDOW,  # block of a window, whose rows are by tap and source channel; -1 if it has none
    Q_SOURCE,  # population in level order
    Q_COLUMN,  # counter column of its synapses, MACS or ACS
    W_PROJECTION,
) = range(9)
(
    R_WEIGHT,  # place of its first weight
    R_INDEX,  # place of its first index, -1 if the row is dense
    R_COUNT,  # surviving synapses
    R_MASK,  # of a dense row: place of its bits, one a target, set where a synapse survives
    W_ROW,
) = range(5)
MIXED, DENSE, FULL = range(3)

(
    L_DELAY,
    L_COUNT,  # one count a slot, delay + 1 slots
    L_CURSOR,
    L_NEURON,
    L_VALUE,
    L_PROJECTION,
    L_PROJECTION_END,
    W_LINE,
) = range(8)

# The state's header.
(
    STEP,
    N_LOGGED,
    DONE,  # steps of the last call
    DETAIL,  # of its status
    LAST,  # place of the last step's counters, 0 after a reset
    STATUS,  # of the last call that advanced several states
    SINK,  # takes what is read only to have it at hand
    MIRRORED,  # 1 if the last step's inputs were bytes
    W_STATE,
) = range(9)

NONE, SOME, ALL = range(3)
PAD = 16
BLOCK = 64
FEW = 8  # flagged neurons of a block up to which they are evaluated one by one
FEW_CHEAP = 2  # the same where the activation is the identity or relu
LARGE = 8192  # lanes above which a population keeps blocks
AHEAD = 16  # neurons of a large population that are asked for ahead
FETCHED = 64  # rows of a large population that are asked for ahead
NARROW = 16  # targets below which an event's row is shorter than the call that adds it
