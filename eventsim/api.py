"""The public face: what most users need, resolved lazily by ``import eventsim``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from eventsim import runner
from eventsim.models.importers import load_policy, zoo_files
from eventsim.models.policy import Policy

if TYPE_CHECKING:
    import gymnasium as gym

    from eventsim.result import Run

    Env: TypeAlias = gym.Env[Any, Any]

PolicyLike: TypeAlias = "Policy | str | os.PathLike[str]"

load = load_policy


@dataclass(frozen=True)
class ZooEntry:
    """A policy that ships with eventsim.

    Attributes
    ----------
    name : str
        By which `load` and ``eventsim run`` know it.
    path : Path
    env : str or None
        Environment id.
    metadata : dict
        As stored in the file; `returns` and `reduction` are from there.
    """

    name: str
    path: Path
    env: str | None
    metadata: dict[str, Any]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    def load(self) -> Policy:
        """Return the policy."""
        return load_policy(self.name)


def zoo() -> list[ZooEntry]:
    """Return the policies that ship with eventsim, by name."""
    entries = []
    for name, path in zoo_files().items():
        policy = Policy.load(path)
        entries.append(ZooEntry(name, path, policy.env_id, dict(policy.metadata)))
    return entries


def run(policy: PolicyLike, env: str | Env | None = None, **options: Any) -> Run:
    """Run a policy event by event in its environment, beside the dense one.

    Parameters
    ----------
    policy : Policy, str or path
        A policy, or what `load` takes.
    env : str or gymnasium.Env, optional
        Default: the one named in the policy's metadata.
    **options
        Those of `eventsim.runner.run`: ``episodes``, ``seed``, ``threshold``,
        ``threshold_scale``, ``carry_state``, ``dense``, ``devices``, ``hooks``,
        ``record_events``, ``step_seconds``, ``engine``, ``progress``, ``out`` and ``name``.

    Returns
    -------
    Run
        Figures, arrays and tables; `Run.save` writes them.

    Raises
    ------
    EventsimError
        If the policy, the environment or an option is not usable; the message says why.

    Examples
    --------
    >>> import eventsim
    >>> result = eventsim.run("cartpole", episodes=1, progress=False)
    >>> result.to_dict()["schema"]
    'eventsim-run/1'
    """
    named, name = _policy(policy, env)
    return runner.run(named, env, **({"name": name} | options))


def evaluate(
    policy: PolicyLike,
    env: str | Env | None = None,
    episodes: int = 10,
    seed: int = 0,
    *,
    dense: bool = False,
    progress: bool | None = None,
) -> runner.Evaluation:
    """Measure the returns of a policy over some episodes.

    Parameters
    ----------
    policy : Policy, str or path
        A policy, or what `load` takes.
    env, episodes, seed, dense, progress
        As for `eventsim.runner.evaluate`.

    Returns
    -------
    Evaluation
        With ``returns``, ``mean``, ``std`` and ``ci95``.
    """
    return runner.evaluate(
        _policy(policy, env)[0], env, episodes, seed, dense=dense, progress=progress
    )


def calibrate(
    policy: PolicyLike, env: str | None = None, *, threshold_scale: float, **options: Any
) -> Policy:
    """Prune a policy, and set its thresholds from what its neurons do in the environment.

    Parameters
    ----------
    policy : Policy, str or path
        A policy, or what `load` takes.
    env : str, optional
        Default: the one named in the policy's metadata.
    threshold_scale : float
        Thresholds in units of each neuron's spread, >= 0.
    **options
        Those of `eventsim.models.calibration.calibrate`: ``sparsity``, ``scope``, ``refit``,
        ``episodes``, ``seed`` and ``progress``.

    Returns
    -------
    Policy
        A new one; `Policy.save` writes it.
    """
    from eventsim.models import calibration

    source, _ = _policy(policy, env)
    return calibration.calibrate(source, env, threshold_scale=threshold_scale, **options)


def prune(policy: PolicyLike, sparsity: float, **options: Any) -> Policy:
    """Cut a policy's smallest weights.

    Parameters
    ----------
    policy : Policy, str or path
        A policy, or what `load` takes.
    sparsity : float
        Share of the weights to cut.
    **options
        Those of `eventsim.models.pruning.prune`.

    Returns
    -------
    Policy
        A new one.
    """
    from eventsim.models import pruning

    source, _ = _policy(policy, None)
    return source.with_network(pruning.prune(source.network, sparsity, **options))


def _policy(policy: PolicyLike, env: str | Env | None) -> tuple[Policy, str | None]:
    """Return the policy, and the name that the user gave it."""
    if isinstance(policy, Policy):
        return policy, None
    chosen = env if isinstance(env, str) else None
    return load_policy(policy, env=chosen), os.fspath(policy)
