"""Train the dense teachers of the shipped policies with Stable-Baselines3.

One call trains one agent and needs the extra ``train`` (``box2d`` for the lander, ``mujoco`` for
the double pendulum)::

    python -m eventsim.models.zoo.train --env CartPole-v1 --seed 0 --out teachers/cartpole

The folder then holds ``<env>.zip`` (an ordinary Stable-Baselines3 agent, readable by
``eventsim import``) and ``training.json``: recipe, seed, versions, wall time and the returns of
the evaluation episodes. Three disjoint sets of environment seeds are used: one to train, one to
choose the checkpoint that is kept, one to report, so the reported return is not the one that
the checkpoint was chosen by.

Actors are two hidden layers of 64 rectified units: such a unit that stays off sends nothing, in
the dense network and by events alike. Observations go in as the environment gives them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eventsim.errors import (
    EventsimError,
    InputError,
    MissingDependencyError,
    OutputError,
    UnknownNameError,
)
from eventsim.models.rollout import episode, make_env

if TYPE_CHECKING:
    from stable_baselines3 import PPO

SCHEMA = "eventsim-training/1"
CHECKPOINT_SEED = 10_000
EVALUATION_SEED = 20_000
CHECKPOINT_EPISODES = 30
EVALUATION_EPISODES = 100


class Linear(NamedTuple):
    """A hyperparameter that goes linearly from `start` to `end` over the training."""

    start: float
    end: float = 0.0


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one teacher is trained, by PPO.

    Parameters
    ----------
    steps : int
        Environment steps in total, over all copies of the environment.
    checkpoint_every : int
        Steps between two looks at the policy; the best one seen is kept.
    n_envs : int
        Copies of the environment stepped together.
    arguments : mapping
        Keyword arguments of ``stable_baselines3.PPO``, by its own names; `Linear` where a value
        decays.
    actor, critic : tuple of int
        Sizes of the hidden layers, all rectified units.
    """

    steps: int
    checkpoint_every: int
    n_envs: int
    arguments: Mapping[str, float | str | Linear]
    actor: tuple[int, ...] = (64, 64)
    critic: tuple[int, ...] = (64, 64)


RECIPES: Mapping[str, Recipe] = {
    # Balances for the full 500 steps from about 40,000 steps on; the rest is at a falling rate.
    "CartPole-v1": Recipe(
        steps=300_000,
        checkpoint_every=20_000,
        n_envs=8,
        arguments={
            "n_steps": 128,
            "batch_size": 256,
            "n_epochs": 10,
            "learning_rate": Linear(1e-3),
            "clip_range": Linear(0.2),
            "gamma": 0.99,
            "gae_lambda": 0.9,
            "ent_coef": 0.0,
        },
    ),
    "Acrobot-v1": Recipe(
        steps=1_000_000,
        checkpoint_every=50_000,
        n_envs=16,
        arguments={
            "n_steps": 256,
            "batch_size": 256,
            "n_epochs": 6,
            "learning_rate": Linear(1e-3),
            "clip_range": 0.2,
            "gamma": 0.99,
            "gae_lambda": 0.94,
            "ent_coef": 0.001,
        },
    ),
    # Gamma near 1: a landing pays at the end, hundreds of steps after the burns that made it.
    "LunarLander-v3": Recipe(
        steps=1_500_000,
        checkpoint_every=50_000,
        n_envs=16,
        arguments={
            "n_steps": 1024,
            "batch_size": 256,
            "n_epochs": 6,
            "learning_rate": Linear(7e-4),
            "clip_range": 0.2,
            "gamma": 0.999,
            "gae_lambda": 0.98,
            "ent_coef": 0.01,
        },
    ),
    # A swing takes a second or two, 20 to 40 steps: a short horizon, gamma 0.95, covers it.
    "Pendulum-v1": Recipe(
        steps=500_000,
        checkpoint_every=20_000,
        n_envs=8,
        arguments={
            "n_steps": 512,
            "batch_size": 256,
            "n_epochs": 10,
            "learning_rate": Linear(1e-3),
            "clip_range": 0.2,
            "gamma": 0.95,
            "gae_lambda": 0.95,
            "ent_coef": 0.0,
        },
    ),
    # Not shipped: a task to optimise that no setting was chosen on. A fall takes a second or two,
    # 20 to 40 steps; the returns are large, and a short horizon keeps the critic's targets small.
    "InvertedDoublePendulum-v5": Recipe(
        steps=600_000,
        checkpoint_every=30_000,
        n_envs=8,
        arguments={
            "n_steps": 256,
            "batch_size": 256,
            "n_epochs": 10,
            "learning_rate": Linear(1e-3),
            "clip_range": 0.2,
            "gamma": 0.98,
            "gae_lambda": 0.9,
            "ent_coef": 0.0,
        },
    ),
}


def train(
    env_id: str,
    seed: int,
    out: str | os.PathLike[str],
    *,
    steps: int | None = None,
    checkpoint_episodes: int = CHECKPOINT_EPISODES,
    evaluation_episodes: int = EVALUATION_EPISODES,
) -> dict[str, Any]:
    """Train one teacher and write it with its record.

    The best checkpoint so far is always on disk, so a training cut short leaves an agent. Two
    runs with one seed on one machine give the same weights: everything random is seeded, and
    torch runs on one CPU thread.

    Parameters
    ----------
    env_id : str
        A key of `RECIPES`.
    seed : int
        Seeds the weights, the actions and the training environments.
    out : path
        Folder for ``<env_id>.zip`` and ``training.json``; made if absent.
    steps : int, optional
        Environment steps, in place of the recipe's.
    checkpoint_episodes, evaluation_episodes : int
        Deterministic episodes at each checkpoint, and at the end.

    Returns
    -------
    dict
        What ``training.json`` holds; returns are undiscounted, in the environment's reward.

    Raises
    ------
    UnknownNameError
        If `env_id` has no recipe.
    InputError
        If `steps`, `checkpoint_episodes` or `evaluation_episodes` is not positive.
    MissingDependencyError
        If Stable-Baselines3 or the environment's own packages are missing.
    OutputError
        If the folder cannot be made.
    """
    if env_id not in RECIPES:
        raise UnknownNameError(f"no recipe for {env_id!r}; choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[env_id]
    if steps is not None:
        recipe = dataclasses.replace(recipe, steps=steps)
    counts = {
        "steps": recipe.steps,
        "checkpoint_episodes": checkpoint_episodes,
        "evaluation_episodes": evaluation_episodes,
    }
    for field, count in counts.items():
        if count < 1:
            raise InputError(f"must be at least 1, not {count}", field=field)
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot be made a folder ({error.strerror}); choose another", where=str(folder)
        ) from error
    agent_file = folder / f"{env_id}.zip"

    began = time.perf_counter()
    model = _build(env_id, recipe, seed)
    checkpoint_seeds = range(CHECKPOINT_SEED, CHECKPOINT_SEED + checkpoint_episodes)
    kept: dict[str, float] = {}
    due = recipe.checkpoint_every

    def look(*_: object) -> bool:
        nonlocal due
        if model.num_timesteps >= due:
            due = model.num_timesteps + recipe.checkpoint_every
            _keep_if_best(model, env_id, checkpoint_seeds, agent_file, kept)
        return True

    model.learn(recipe.steps, callback=look)
    _keep_if_best(model, env_id, checkpoint_seeds, agent_file, kept)

    # The file, not the model in memory: what is reported is what was saved.
    best = type(model).load(agent_file, device="cpu")
    seeds = range(EVALUATION_SEED, EVALUATION_SEED + evaluation_episodes)
    returns = episode_returns(best, env_id, seeds)
    record = {
        "schema": SCHEMA,
        "env": env_id,
        "agent": agent_file.name,
        "algorithm": "PPO",
        "seed": seed,
        "hyperparameters": _plain(recipe),
        "steps": model.num_timesteps,
        "checkpoint": {
            "steps": int(kept["steps"]),
            "mean": kept["mean"],
            "sd": kept["sd"],
            "seeds": [checkpoint_seeds.start, checkpoint_seeds.stop - 1],
        },
        "evaluation": {
            "mean": _mean_sd(returns)[0],
            "sd": _mean_sd(returns)[1],
            "episodes": len(returns),
            "deterministic": True,
            "seeds": [seeds.start, seeds.stop - 1],
            "per_episode": returns,
        },
        "wall_seconds": round(time.perf_counter() - began, 1),
        "versions": _versions(),
    }
    _replace(folder / "training.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


def episode_returns(model: PPO, env_id: str, seeds: Sequence[int]) -> list[float]:
    """Return of one deterministic episode per seed.

    Parameters
    ----------
    model : PPO
        A Stable-Baselines3 agent that takes the environment's own observations.
    env_id : str
        Gymnasium id.
    seeds : sequence of int
        Given to ``reset``, one an episode.

    Returns
    -------
    list of float
        Undiscounted sums of reward, in the order of `seeds`.
    """
    env = make_env(env_id)
    returns = [episode(_Greedy(model), env, seed).total for seed in seeds]
    env.close()
    return returns


class _Greedy:
    """An agent that takes its most probable action (mean action, where actions are real)."""

    def __init__(self, model: PPO) -> None:
        self._model = model

    def reset(self) -> None:
        """Nothing is carried from one episode to the next."""

    def act(self, observation: Any) -> Any:
        return self._model.predict(observation, deterministic=True)[0]


def _build(env_id: str, recipe: Recipe, seed: int) -> PPO:
    """Make the untrained agent with its training environments, all seeded."""
    try:
        import torch
        from stable_baselines3 import PPO
        from stable_baselines3.common.env_util import make_vec_env
        from stable_baselines3.common.utils import LinearSchedule
    except ImportError as error:
        raise MissingDependencyError(
            "training needs Stable-Baselines3: pip install 'eventsim[train]'"
        ) from error
    torch.set_num_threads(1)  # a sum split over threads may round differently on another run
    arguments = {
        name: LinearSchedule(value.start, value.end, 1.0) if isinstance(value, Linear) else value
        for name, value in recipe.arguments.items()
    }
    return PPO(
        "MlpPolicy",
        make_vec_env(lambda: make_env(env_id), n_envs=recipe.n_envs, seed=seed),
        policy_kwargs={
            "net_arch": {"pi": list(recipe.actor), "vf": list(recipe.critic)},
            "activation_fn": torch.nn.ReLU,
        },
        seed=seed,
        device="cpu",
        **arguments,
    )


def _keep_if_best(
    model: PPO, env_id: str, seeds: Sequence[int], file: Path, kept: dict[str, float]
) -> None:
    """Save the agent if it is the best yet; `kept` describes the one on disk."""
    mean, sd = _mean_sd(episode_returns(model, env_id, seeds))
    # A standard deviation off the mean: one crash in thirty weighs more than a faster landing.
    # Of equals the later is kept, it has trained at the lower rate.
    best = not kept or mean - sd >= kept["mean"] - kept["sd"]
    if best:
        kept.update(steps=model.num_timesteps, mean=mean, sd=sd)
        partial = file.with_name(f".{file.stem}.partial.zip")
        model.save(partial)
        os.replace(partial, file)
    print(
        f"{env_id} {model.num_timesteps:>9} steps  return {mean:8.2f} sd {sd:7.2f}"
        f"{'  kept' if best else ''}",
        file=sys.stderr,
        flush=True,
    )


def _mean_sd(returns: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single episode)."""
    import numpy as np

    return float(np.mean(returns)), float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON takes it."""
    arguments = {
        name: {"linear": list(value)} if isinstance(value, Linear) else value
        for name, value in recipe.arguments.items()
    }
    return {
        "steps": recipe.steps,
        "checkpoint_every": recipe.checkpoint_every,
        "n_envs": recipe.n_envs,
        "arguments": arguments,
        "actor": list(recipe.actor),
        "critic": list(recipe.critic),
        "activation": "relu",
    }


def _versions() -> dict[str, str]:
    """Versions of everything that the weights depend on."""
    from importlib.metadata import version

    names = ("numpy", "torch", "stable_baselines3", "gymnasium")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _replace(file: Path, content: bytes) -> None:
    """Write a file so that it is never seen half done."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, file)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m eventsim.models.zoo.train", description="Train a teacher of the zoo."
    )
    parser.add_argument("--env", required=True, choices=tuple(RECIPES), help="environment id")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, type=Path, help="folder for agent and record")
    parser.add_argument("--steps", type=int, help="environment steps (default: the recipe's)")
    options = parser.parse_args(argv)
    try:
        record = train(options.env, options.seed, options.out, steps=options.steps)
    except EventsimError as error:
        parser.exit(2, f"{error}\n")
    score = record["evaluation"]
    print(
        f"{record['env']} seed {record['seed']}: return {score['mean']:.2f} sd {score['sd']:.2f} "
        f"over {score['episodes']} episodes, {record['wall_seconds']:.0f} s"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
