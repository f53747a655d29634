"""Fine-tune a policy with its rounding in the loop, so that few bits lose little.

`eventsim.models.quantization.quantize` rounds every weight by itself. Where the weights are few and
the bits too, that moves decisions; a little training while weights, inputs and activations are
rounded as they will be (straight through: Bengio et al. 2013, arXiv 1308.3432) moves them back.
What is learned is the policy itself, unrounded and by events: a small policy that was chosen by its
return is not what its teacher would do, and would be lost by imitating that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from eventsim.batch import BatchSimulator
from eventsim.models.distill import Training, train
from eventsim.models.policy import Policy
from eventsim.models.quantization import quantize
from eventsim.models.student import Demonstrations, Float, Float32, Head, student_of

_KEPT = Training(
    600, windows=32, learning_rate=3e-3, learn_thresholds=False, carried=True, temperature=1.0
)
#: How it may be done: with the thresholds as they are, by small steps or by large ones, which get
#: farther from a bad start; or with learned ones, at a price on multiplications.
WAYS: Mapping[str, Training] = MappingProxyType(
    {
        "same thresholds": _KEPT,
        "same thresholds, large steps": replace(_KEPT, iterations=300, learning_rate=1e-2),
        "learned thresholds": replace(_KEPT, iterations=300, cost=0.1, learn_thresholds=True),
    }
)


def fine_tuned(
    policy: Policy, weight_bits: int, inputs: Sequence[Float], training: Training, seed: int
) -> Policy | None:
    """Return the policy in fixed point, fine-tuned before.

    Parameters
    ----------
    policy : Policy
        In floating point.
    weight_bits : int
        Below 32.
    inputs : sequence of array of shape (T, n_inputs)
        Encoded, of episodes that the policy itself plays.
    training : Training
        One of `WAYS`, say; its `weight_bits` are those given here.
    seed : int

    Returns
    -------
    Policy or None
        None if the network has no form that can be trained, see
        `eventsim.models.student.student_of`.

    Raises
    ------
    SimulationError
        If the loss is no longer finite.
    MissingDependencyError
        If torch is not installed.
    """
    student = student_of(policy, inputs)
    if student is None:
        return None
    demonstrations = Demonstrations()
    demonstrations.add(inputs, _answers(policy, student.head, inputs))
    training = replace(training, weight_bits=weight_bits)
    student, _ = train(student, demonstrations, training, seed)
    return quantize(
        student.to_policy(policy), weight_bits, inputs, activation_bits=training.activation_bits
    )


def _answers(policy: Policy, head: Head, inputs: Sequence[Float]) -> list[Float32]:
    """What the policy does by events, as targets of a student."""
    simulator = BatchSimulator(policy.network, 1)
    answers = []
    for x in inputs:
        simulator.reset()
        answers.append(head.targets(policy.decoder, simulator.run(x[np.newaxis])[0]))
    return answers
