"""Status codes that kernels return; the simulator turns them into errors or continues."""

OK = 0
BUFFER_FULL = 1  # the event buffer may not hold another step: drain it and go on
NONFINITE_INPUT = 2  # detail: index of the input value; the state has not been touched
NONFINITE_STATE = 3  # detail: neuron whose activation or accumulator is not finite
WRONG_SIZE = 4  # the inputs are not those of the steps asked for; nothing has been touched

# Columns of a counter table of shape (populations, N_COUNTERS).
EVALUATIONS = 0
EVENTS = 1
MACS = 2
ACS = 3
EXECUTED = 4
N_COUNTERS = 5
