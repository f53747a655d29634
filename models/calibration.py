"""Thresholds from what the neurons do: a multiple of each one's activation spread."""

from __future__ import annotations

import numpy as np

from eventsim.errors import InputError
from eventsim.models.activity import Float, Recording, activity
from eventsim.models.policy import Policy
from eventsim.models.pruning import Scope, connection_sparsity, prune
from eventsim.models.refit import prune_and_refit
from eventsim.models.rollout import Episode, check_spaces, episode, make_for
from eventsim.network import Network
from eventsim.progress import EpisodeBar

#: How the spread is defined, as stored with every calibrated policy.
SPREAD = "standard deviation of the dense activation over the recorded steps"


def calibrate(
    policy: Policy,
    env_id: str | None = None,
    *,
    threshold_scale: float,
    sparsity: float = 0.0,
    scope: Scope = "global",
    refit: bool = False,
    episodes: int = 5,
    seed: int = 0,
    progress: bool | None = None,
) -> Policy:
    """Prune a policy, and set its thresholds from recorded episodes.

    The policy as it is, dense, plays the episodes; the spread is that of the pruned network on
    the same inputs.

    Parameters
    ----------
    policy : Policy
    env_id : str, optional
        Default: the policy's own.
    threshold_scale : float
        Thresholds in units of each neuron's spread, >= 0.
    sparsity : float, optional
        Share of the weights to prune first, in [0, 1); see `eventsim.models.pruning.prune`.
    scope : {"global", "layer"}, optional
    refit : bool, optional
        Prune in rounds, by magnitude times input, and refit the surviving weights on the recorded
        inputs after each (`eventsim.models.refit.prune_and_refit`). By default the smallest
        weights are cut at once and the others keep their values, which many policies stand only
        at low sparsity.
    episodes : int, optional
        To record, at least 1.
    seed : int, optional
        Episode i starts from ``env.reset(seed=seed + i)``.
    progress : bool, optional
        Show a bar on stderr; default: on a terminal.

    Returns
    -------
    Policy
        Its metadata's ``calibration`` says how it was made.

    Raises
    ------
    InputError
        If a number is out of range, no environment is known, or it does not fit the policy.
    UnknownNameError, MissingDependencyError
        If the environment is not there.
    """
    _check(threshold_scale, episodes)
    env_id = env_id or policy.env_id
    if env_id is None:
        raise InputError(
            "the policy does not say in which environment it acts; give one", field="env_id"
        )
    # What can be refused is refused before the episodes are played.
    network = prune(policy.network, sparsity, scope=scope)
    played = record(policy, env_id, range(seed, seed + episodes), progress=progress)
    inputs = [e.inputs for e in played if e.inputs is not None]
    if refit and sparsity:
        network = prune_and_refit(policy.network, sparsity, inputs, scope=scope)
    network = with_spread_thresholds(network, inputs, threshold_scale)
    provenance = {
        "env_id": env_id,
        "threshold_scale": float(threshold_scale),
        "spread": SPREAD,
        "sparsity": connection_sparsity(network),
        "sparsity_asked_for": float(sparsity),
        "scope": scope,
        "refit": bool(refit and sparsity),
        "episodes": episodes,
        "seed": seed,
        "steps": sum(e.steps for e in played),
    }
    return policy.with_network(network).with_metadata(calibration=provenance)


def record(
    policy: Policy,
    env_id: str,
    seeds: range,
    *,
    progress: bool | None = None,
) -> list[Episode]:
    """Play one episode per seed with the dense policy and keep the encoded observations.

    Raises
    ------
    InputError
        If the environment does not fit the policy.
    UnknownNameError, MissingDependencyError
        If it is not there.
    """
    env = make_for(policy, env_id)
    try:
        check_spaces(policy, env)
        session = policy.dense_session()
        played = []
        with EpisodeBar(len(seeds), progress) as bar:
            for i, seed in enumerate(seeds):
                bar.begin(f"recording episode {i + 1} of {len(seeds)}")
                played.append(
                    episode(session, env, seed, record=True, on_step=lambda _: bar.step())
                )
                bar.end()
    finally:
        env.close()
    return played


def activation_spread(network: Network, inputs: Recording) -> dict[str, Float]:
    """Standard deviation of every neuron's dense activation over recorded steps.

    Parameters
    ----------
    network : Network
    inputs : array of shape (T, n_inputs), or sequence of such arrays
        Encoded inputs, an array an episode; see `eventsim.models.activity.activity`.

    Returns
    -------
    dict of str to float64 array of shape (size,)
        By population, in units of the activation (of the input, for an input population).
        Exactly 0 for a neuron that never moves.

    Raises
    ------
    InputError
        If the inputs do not fit the network.
    """
    spread = {}
    for name, values in activity(network, inputs).activations.items():
        # The mean of equal numbers may differ from them by rounding.
        moves = np.ptp(values, axis=0) > 0.0
        spread[name] = np.where(moves, values.std(axis=0), 0.0)
    return spread


def with_spread_thresholds(
    network: Network, inputs: Recording, scale: float, *, input_scale: float | None = None
) -> Network:
    """Set the thresholds of all neurons that transmit to a multiple of their spread.

    A neuron that never moved gets the threshold 0: it costs nothing as long as it stays where it
    is, and should it move after all, nothing is known by which to ignore it. Populations without
    outgoing projections keep theirs, they send nothing.

    Parameters
    ----------
    network : Network
    inputs : array of shape (T, n_inputs), or sequence of such arrays
    scale : float
        Finite, >= 0.
    input_scale : float, optional
        Of the input populations; default `scale`. Inputs are few, and an error in one reaches
        all that follows, so a smaller scale costs little there.

    Returns
    -------
    Network

    Raises
    ------
    InputError
        If a scale is out of range or the inputs do not fit the network.
    """
    input_scale = scale if input_scale is None else input_scale
    for value in (scale, input_scale):
        _check(value, 1)
    spread = activation_spread(network, inputs)
    return network.with_thresholds(
        {
            name: (input_scale if network[name].is_input else scale) * spread[name]
            for name in {q.source for q in network.projections}
        }
    )


def _check(scale: float, episodes: int) -> None:
    if not (np.isfinite(scale) and scale >= 0.0):
        raise InputError(f"is {scale}; give a finite number >= 0", field="threshold_scale")
    if episodes < 1:
        raise InputError(f"is {episodes}; give at least 1", field="episodes")
