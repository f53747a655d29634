"""The public face: what most users need, resolved lazily by ``import eventsim``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from eventsim import runner
from eventsim.models.importers import load_policy, zoo_files
from eventsim.models.policy import Policy

if TYPE_CHECKING:
    import gymnasium as gym

    from eventsim.optimize_outcome import Outcome
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
        ``record_events``, ``step_seconds``, ``engine``, ``progress``, ``out``, ``name`` and
        ``video``.

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


def optimize(
    policy: PolicyLike,
    env: str | None = None,
    *,
    out: str | os.PathLike[str],
    max_loss: float = 0.01,
    budget: str | float = "20m",
    weight_bits: int = 32,
    seed: int = 0,
    workdir: str | os.PathLike[str] | None = None,
    effort: Mapping[str, Any] | None = None,
    jobs: int = 1,
    progress: bool | None = None,
) -> Outcome:
    """Find the cheapest event-driven version of a policy that still does the job.

    Shrinks, prunes and distils the policy with events in the loop, chooses among what came of it by
    a sequential test, and bounds the loss of the chosen one by fresh episodes (docs/optimize.md).

    Parameters
    ----------
    policy : Policy, str or path
        The teacher: a policy, or what `load` takes.
    env : str, optional
        Default: the one named in the policy's metadata.
    out : path
        Where the policy is written; the front (CSV, PNG) and the figures (JSON) go beside it.
    max_loss : float, optional
        Largest loss, ``(teacher - policy) / (teacher - random)`` in the mean.
    budget : str or float, optional
        Time that it may take, such as ``"20m"``, or seconds.
    weight_bits : int, optional
        32, 8 or 4.
    seed : int, optional
    workdir : path, optional
        Where the state is kept: the same call continues after an interruption. Default: beside
        `out`, with the suffix ``.work``.
    effort : mapping, optional
        Fields of `eventsim.models.optimize.Settings`: how hard the search tries, whatever the
        budget.
    jobs : int, optional
        Processes that play the episodes by which candidates are compared and promised; results do
        not depend on it. With more than 1, a script calls this behind
        ``if __name__ == "__main__":``.
    progress : bool, optional
        Say on stderr how far it is; default: on a terminal.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        If the policy is not better than random actions or not deterministic in the environment, or
        does not fit it; if an option is out of range, or the budget is too small.
    OutputError
        If the results cannot be written; said before the work begins.
    MissingDependencyError
        If torch is not installed.
    """
    from eventsim import optimize_run
    from eventsim.optimize_state import Settings, seconds_of

    named, name = _policy(policy, env)
    return optimize_run.optimize(
        named,
        env,
        out=out,
        settings=Settings(max_loss, seconds_of(budget), weight_bits, seed, jobs),
        name=name,
        workdir=workdir,
        say=_teller(progress),
        effort=effort,
    )


def finetune(
    policy: PolicyLike,
    env: str | None = None,
    *,
    steps: int = 100_000,
    sparsity: float | None = None,
    learning_rate: float = 1e-4,
    algorithm: str | None = None,
    critic: str | os.PathLike[str] | None = None,
    teacher: PolicyLike | None = None,
    last_layer: bool = False,
    seed: int = 0,
    progress: bool | None = None,
) -> Policy:
    """Let a pruned policy learn on by reinforcement, masks and thresholds in the loop.

    Parameters
    ----------
    policy : Policy, str or path
        A policy, or what `load` takes.
    env : str, optional
        Default: the one named in the policy's metadata.
    steps : int, optional
        Environment steps.
    sparsity : float, optional
        Share of the weights that is zero at the end, grown to gradually; default what it is.
    learning_rate : float, optional
    algorithm : str, optional
        PPO, SAC, TD3 or DQN; default the one that trained it, or its nearest of kin.
    critic : path, optional
        A Stable-Baselines3 agent whose critic SAC or TD3 starts from; default a new one.
    teacher : Policy, str or path, optional
        For a policy with convolutions, one that plays the same, such as what it was distilled from:
        it tells the critic what it goes by, and is kept to at first.
    last_layer : bool, optional
        For a policy with convolutions, whether only the last layer learns; without a teacher.
    seed : int, optional
    progress : bool, optional
        Say on stderr how far it is; default: on a terminal.

    Returns
    -------
    Policy
        The best seen by events; `Policy.save` writes it.

    Raises
    ------
    InputError, UnsupportedError, MissingDependencyError, SimulationError
        As `eventsim.models.finetune.finetune`.
    """
    from eventsim.models import finetune as module

    say = _teller(progress)

    def on_look(look: module.Look, _: Policy) -> None:
        say(
            f"{look.steps:,} steps, {100 * look.sparsity:.1f}% pruned: return {look.mean:.4g}"
            f"{', kept' if look.kept else ''}"
        )

    return module.finetune(
        _policy(policy, env)[0],
        env,
        settings=module.Settings(
            steps=steps,
            sparsity=sparsity,
            learning_rate=learning_rate,
            critic=critic,
            teacher=None if teacher is None else _policy(teacher, env)[0],
            last_layer=last_layer,
        ),
        algorithm=algorithm,
        seed=seed,
        on_look=on_look,
    )


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


def _teller(progress: bool | None) -> Callable[[str], None]:
    """Return what tells on stderr how far it is; by default only where somebody looks."""

    def say(text: str) -> None:
        if sys.stderr.isatty() if progress is None else progress:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()

    return say


def _policy(policy: PolicyLike, env: str | Env | None) -> tuple[Policy, str | None]:
    """Return the policy, and the name that the user gave it."""
    if isinstance(policy, Policy):
        return policy, None
    chosen = env if isinstance(env, str) else None
    return load_policy(policy, env=chosen), os.fspath(policy)
