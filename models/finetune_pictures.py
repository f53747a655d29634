"""Fine-tune a policy of convolutions from rewards, see `eventsim.models.reinforce`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from eventsim.convolution import Local
from eventsim.errors import InputError, UnsupportedError
from eventsim.models.distill import torch_module
from eventsim.models.families import PictureFamily
from eventsim.models.games import can_play, only_choice
from eventsim.models.last_layer import for_last_layer, reinforce_last_layer
from eventsim.models.picture_student import PictureStudent
from eventsim.models.policy import Policy
from eventsim.models.reinforce import KEPT, Progress, Reinforcement, for_frames, reinforce
from eventsim.models.rollout import check_spaces, make_for
from eventsim.models.student import Demonstrations, Head
from eventsim.network import Network

#: Batches that a training has at least: where steps are few, each is made smaller.
_BATCHES = 12
#: Least environments and steps of a window.
_LEAST = 8


def sees_pictures(network: Network) -> bool:
    """Whether a network has convolutions or pools."""
    return any(isinstance(q.weights, Local) for q in network.projections)


def train_on_rewards(
    policy: Policy,
    env_id: str,
    *,
    steps: int,
    learning_rate: float,
    looks: int,
    most_envs: int | None,
    first_seed: int,
    seed: int,
    teacher: Policy | None,
    last_layer: bool,
    returned: Callable[[Policy], float],
    look: Callable[[int, Policy, float], None],
) -> None:
    """Let a policy learn on from rewards, and play it now and then.

    Parameters
    ----------
    policy : Policy
        Its masks and thresholds are kept.
    env_id : str
    steps : int
        Environment steps.
    learning_rate : float
    looks : int
        Times that it is played on the way.
    most_envs : int, optional
        Environments side by side at most.
    first_seed : int
        Of the episodes that it learns from.
    seed : int
        Of what is drawn.
    teacher : Policy, optional
        See `eventsim.models.reinforce.reinforce`.
    last_layer : bool
        See `eventsim.models.last_layer`.
    returned : callable
        Plays a policy by events, for its mean return.
    look : callable
        Told the steps so far, the policy as it is then, and its mean return by events.

    Raises
    ------
    InputError
        If policy and environment or teacher do not fit.
    UnsupportedError
        If the network is no plain stack, its thresholds differ within a channel, or its actions are
        no single discrete choice.
    MissingDependencyError, SimulationError
        As `eventsim.models.reinforce.reinforce`.
    """
    torch_module()  # not after minutes
    if last_layer and teacher is not None:
        raise InputError(
            "is given, but a last layer that learns alone asks none: leave out one of the two",
            field="teacher",
        )

    def make() -> Any:
        return make_for(policy, env_id)

    env = make()
    try:
        check_spaces(policy, env)
    finally:
        env.close()
    student = student_with_thresholds(policy)
    own = None if teacher is None else _as_student(teacher, student)
    if teacher is not None and _plain(teacher.env_id or env_id) != _plain(env_id):
        raise InputError(
            f"plays {teacher.env_id}, the policy is to learn in {env_id}; give one that plays the "
            "same, or none",
            field="teacher",
        )
    options = Reinforcement(steps)
    if PictureFamily(policy).sees_frames:
        options = for_frames(options)
    if last_layer:
        options = for_last_layer(options)
    kept = KEPT if own is not None else 0.0
    options = replace(options, learning_rate=learning_rate, imitation=kept)
    options = _sized(replace(options, n_envs=min(options.n_envs, most_envs or options.n_envs)))
    limits = [p.parameter("threshold") for p in policy.network.populations]

    def with_weights_of(one: PictureStudent) -> Policy:
        network = one.to_policy(policy).network
        names = [p.name for p in network.populations]
        return policy.with_network(network.with_thresholds(dict(zip(names, limits, strict=True))))

    due = [round(steps * (k + 1) / looks) for k in range(looks)]

    def on_batch(progress: Progress) -> None:
        passed = [steps for steps in due if steps <= progress.steps]
        if passed:
            del due[: len(passed)]
            now = with_weights_of(progress.student())
            look(progress.steps, now, returned(now))

    look(0, policy, returned(policy))
    learn = reinforce_last_layer if last_layer else partial(reinforce, teacher=own)
    learn(student, policy, make, options, seed, first_seed=first_seed, on_batch=on_batch)


def student_with_thresholds(policy: Policy) -> PictureStudent:
    """Return a policy as a student, with the thresholds that it has.

    Raises
    ------
    UnsupportedError
        If it has no form of one.
    """
    only_choice(policy.decoder)
    kind = getattr(policy.encoder.space, "dtype", "")
    if kind not in ("uint8", "bool"):
        raise UnsupportedError(
            f"takes pictures of {kind}; only bytes and truth values are trained on",
            where="policy",
            field="encoder",
        )
    student = PictureFamily(policy).own(policy, Demonstrations())
    if student is None:
        raise UnsupportedError(
            "is no stack of convolutions and linear layers with one activation and plain outputs; "
            "only such networks of pictures are trained",
            where="policy",
        )
    network = policy.network
    for k, population in enumerate(network.populations[:-1]):
        channels = len(student.thresholds[k])
        names = ("threshold",) if population.is_input else ("threshold", "bias")
        for name in names:
            each = population.parameter(name).reshape(-1, channels)
            if (each != each[0]).any():
                raise UnsupportedError(
                    f"has a {name} that differs within a channel; give one a channel",
                    where=f"population '{population.name}'",
                    field=name,
                )
        limits = population.parameter("threshold").reshape(-1, channels)[0].copy()
        if k == 0 and student.scale != 1.0:
            # Bytes differ by whole numbers, so half of one more changes no comparison, and rounding
            # neither.
            limits = (np.floor(limits) + 0.5) * student.scale
        student.thresholds[k] = limits
    return student


def _as_student(teacher: Policy, student: PictureStudent) -> PictureStudent:
    """Return a teacher in the form of a student; its thresholds are left out."""
    own = None
    try:
        if sees_pictures(teacher.network) and can_play(Head.of(teacher.decoder)):
            own = PictureFamily(teacher).own(teacher, Demonstrations())
    except UnsupportedError as error:
        raise InputError(f"cannot be used: {error}; give another, or none", field="teacher") from (
            error
        )
    if own is None:
        raise InputError(
            "is no stack of convolutions and linear layers that sees pictures and makes a single "
            "choice; give one that is, or none",
            field="teacher",
        )
    theirs, mine = _of(own), _of(student)
    if theirs != mine:
        raise InputError(
            f"sees {theirs}, the policy {mine}; give one that plays the same, or none",
            field="teacher",
        )
    return own


def _of(student: PictureStudent) -> str:
    """What it sees and does, in words."""
    kind = "truth values" if student.scale == 1.0 else "bytes"
    start = only_choice(student.head.decoder).start
    actions = f"{student.head.size} actions, from {start} on"
    return f"pictures of {kind} of shape {student.shape} and has {actions}"


def _plain(env_id: str) -> str:
    """The name of an environment without the module that brings it."""
    return env_id.rpartition(":")[2]


def check_asked(
    kind: str | None, sparsity: float | None, start: float, critic: Any, arguments: Any
) -> None:
    """Refuse what is for networks without convolutions.

    Raises
    ------
    InputError
        If it was asked for.
    """
    for asked, field, advice in (
        (kind not in (None, "PPO"), "algorithm", "leave it out; such networks are trained by PPO"),
        (
            sparsity is not None and sparsity > start,
            "sparsity",
            "leave it out; `eventsim optimize` prunes such networks",
        ),
        (critic is not None, "critic", "leave it out; one is learned"),
        (bool(arguments), "arguments", "leave them out; Stable-Baselines3 does not train those"),
    ):
        if asked:
            raise InputError(f"is given, but the policy has convolutions: {advice}", field=field)


def _sized(options: Reinforcement) -> Reinforcement:
    """Smaller batches, where there are few steps."""
    n, horizon = options.n_envs, options.horizon
    while n * horizon * _BATCHES > options.steps and max(n, horizon) > _LEAST:
        n, horizon = (n, horizon // 2) if horizon >= n else (n // 2, horizon)
    return replace(options, n_envs=n, horizon=horizon)


__all__ = ["check_asked", "sees_pictures", "student_with_thresholds", "train_on_rewards"]
