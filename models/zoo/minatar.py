"""Train convolutional teachers for MinAtar's games with Stable-Baselines3's PPO.

MinAtar (Young & Tian 2019, arXiv 1903.03176) is an optional dependency under the GPL; nothing of
it is part of this project. One call trains one game and needs the extra ``train``, and
``pip install 'eventsim[minatar]'``::

    python -m eventsim.models.zoo.minatar --game breakout --seed 0 --out teachers/breakout

The network is that of the MinAtar paper: 16 kernels of 3x3 at stride 1, 128 rectified units, one
output an action (the minimal action set). Sticky actions (0.1) and rising difficulty are on, as
the games come. A run that was stopped goes on from its last checkpoint with the same command. The
folder then holds ``MinAtar-<Game>-v1.zip`` (a Stable-Baselines3 agent), ``actor.safetensors``
(the layers as plain arrays), ``policy.safetensors`` (what `eventsim run` and `eventsim optimize`
take) and ``training.json`` with the learning curve, versions and the returns of evaluation episodes
on seeds that training has not seen.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eventsim.errors import (
    EventsimError,
    FileFormatError,
    InputError,
    MissingDependencyError,
    NetworkError,
)
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import Encoder
from eventsim.models.pixels import Pixels
from eventsim.models.policy import Policy
from eventsim.models.rollout import make_env
from eventsim.models.spaces import BoxSpec
from eventsim.output import write_text
from eventsim.stack import Stack

if TYPE_CHECKING:
    from stable_baselines3 import PPO

GAMES = ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
SCHEMA = "eventsim-training/1"
#: Layers of an actor, by their names in its file.
LAYERS = ("conv", "hidden", "output")
EVALUATION_SEED = 20_000
EVALUATION_EPISODES = 100
#: Steps after which an episode is cut, in training and evaluation: the games have no limit.
MAX_STEPS = 10_000
N_ENVS = 64
CHUNK = 100_000
LEARNING_RATE = 5e-4


def env_id(game: str) -> str:
    """Gymnasium's name of a game.

    Raises
    ------
    InputError
        If MinAtar has no such game.
    """
    if game not in GAMES:
        raise InputError(
            f"is {game!r}; use one of {', '.join(GAMES)}", where="MinAtar", field="game"
        )
    return f"MinAtar/{''.join(part.capitalize() for part in game.split('_'))}-v1"


def register() -> None:
    """Tell Gymnasium of MinAtar's games.

    Raises
    ------
    MissingDependencyError
        If MinAtar is not installed.
    """
    import logging

    try:
        # It warns at import that it cannot draw, on the root logger.
        logging.disable(logging.WARNING)
        import minatar.gym
    except ImportError as error:
        raise MissingDependencyError(
            "MinAtar is not installed; run: pip install 'eventsim[minatar]'"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    import gymnasium

    if env_id("breakout") not in gymnasium.registry:
        minatar.gym.register_envs()


def train(
    game: str,
    seed: int,
    folder: Path,
    steps: int = 5_000_000,
    say: Callable[[str], None] = print,
    *,
    seconds: float = math.inf,
) -> dict[str, Any]:
    """Train one teacher, and write it down.

    Parameters
    ----------
    game : str
        One of `GAMES`.
    seed : int
    folder : Path
        Made if need be; a checkpoint in it is continued.
    steps : int
        Environment steps in total.
    say : callable
        Gets a line a chunk.
    seconds : float
        Of training at most, over all runs that continue each other.

    Returns
    -------
    dict
        What ``training.json`` holds.
    """
    try:
        import torch
        from stable_baselines3 import PPO
    except ImportError as error:
        raise MissingDependencyError(
            "Training needs PyTorch and Stable-Baselines3; run: pip install 'eventsim[train]'"
        ) from error
    register()
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    zipped = folder / f"{env_id(game).replace('/', '-')}.zip"
    record_file = folder / "training.json"
    record: dict[str, Any] = {"curve": [], "steps": 0, "seconds": 0.0}
    if record_file.exists() and zipped.exists():
        record = json.loads(record_file.read_text(encoding="utf-8"))
        if record.get("game") != game or record.get("seed") != seed:
            raise InputError(
                "holds the training of another game or seed; give another folder",
                where=f"'{folder}'",
            )
        model = PPO.load(zipped, env=_vector(game, seed + record["steps"]), device="cpu")
    else:
        model = _new(game, seed)
    record |= {
        "schema": SCHEMA,
        "game": game,
        "env_id": env_id(game),
        "seed": seed,
        "budget": steps,
        "max_episode_steps": MAX_STEPS,
        "versions": {
            name: version(name)
            for name in ("stable-baselines3", "torch", "gymnasium", "minatar", "numpy")
        },
        "python": platform.python_version(),
    }
    while (done := max(record["steps"] / steps, record["seconds"] / seconds)) < 1.0:
        # The schedules run over the whole budget, also after a restart.
        model.learning_rate = LEARNING_RATE * (1.0 - done) + 1e-5
        model._setup_lr_schedule()
        model.clip_range = _constant(0.2 * (1.0 - done) + 0.02)
        start = time.perf_counter()
        before = model.num_timesteps
        model.learn(CHUNK, reset_num_timesteps=False)
        record["seconds"] += time.perf_counter() - start
        record["steps"] += model.num_timesteps - before
        recent = [info["r"] for info in model.ep_info_buffer]
        mean = float(np.mean(recent)) if recent else None
        record["curve"].append([record["steps"], mean])
        model.save(zipped.with_suffix(".part.zip"))
        os.replace(zipped.with_suffix(".part.zip"), zipped)
        write_text(record_file, json.dumps(record, indent=1) + "\n")
        say(f"{game}: {record['steps']:,} steps, {record['seconds']:.0f} s, return {mean}")
    actor = folder / "actor.safetensors"
    _export(model, actor, game)
    policy = policy_from(actor, seed=seed, steps=record["steps"])
    policy.save(folder / "policy.safetensors")
    record["returns"] = evaluate(model, game, EVALUATION_EPISODES)
    record["mean_return"] = float(np.mean(record["returns"]))
    write_text(record_file, json.dumps(record, indent=1) + "\n")
    say(f"{game}: return {record['mean_return']:.1f} over {EVALUATION_EPISODES} new episodes")
    return record


def policy_from(actor: str | os.PathLike[str], **metadata: Any) -> Policy:
    """Build the policy of a trained actor, as `eventsim run` and `eventsim optimize` take it.

    Parameters
    ----------
    actor : path
        ``actor.safetensors``, as `train` writes it.
    **metadata
        Plain data to be stored with the policy.

    Returns
    -------
    Policy
        Of pictures of truth values as MinAtar gives them; episodes are cut after `MAX_STEPS`.

    Raises
    ------
    FileFormatError
        If the file is none of these.
    """
    from safetensors import SafetensorError, safe_open

    where = f"'{os.fspath(actor)}'"
    try:
        with safe_open(actor, "numpy") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            game = str((stored.metadata() or {}).get("game", ""))
    except (OSError, SafetensorError) as error:
        raise FileFormatError(
            f"is no file of tensors ({error}); give the actor.safetensors of a training",
            where=where,
        ) from error
    names = {f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")}
    if set(tensors) != names or game not in GAMES:
        raise FileFormatError(
            "is not the actor of a MinAtar game; give the actor.safetensors of a training",
            where=where,
        )
    convolution, hidden, output = (
        (tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in LAYERS
    )
    size = 10
    channels = int(convolution[0].shape[1])
    try:
        stack = Stack((channels, size, size)).convolution(*convolution).activation("relu")
        stack.flatten().linear(*hidden).activation("relu").linear(*output)
        network = stack.network(name=env_id(game))
    except NetworkError as error:
        raise FileFormatError(f"its layers do not fit: {error}", where=where) from error
    return Policy(
        Encoder(BoxSpec((size, size, channels), "bool"), pixels=Pixels(channels_first=False)),
        network,
        Argmax(network.n_outputs),
        {
            "name": f"minatar-{game}",
            "env_id": env_id(game),
            "env_kwargs": {"max_episode_steps": MAX_STEPS},
            "algorithm": "PPO",
            **metadata,
        },
    )


def evaluate(model: PPO, game: str, episodes: int) -> list[float]:
    """Returns of the deterministic policy on the evaluation seeds, in order."""
    environments = [
        make_env(env_id(game), max_episode_steps=MAX_STEPS, disable_env_checker=True)
        for _ in range(episodes)
    ]
    observations = [env.reset(seed=EVALUATION_SEED + k)[0] for k, env in enumerate(environments)]
    returns = [0.0] * episodes
    alive = list(range(episodes))
    while alive:
        actions, _ = model.predict(np.stack([observations[k] for k in alive]), deterministic=True)
        left = []
        for k, action in zip(alive, actions, strict=True):
            observations[k], reward, over, cut, _ = environments[k].step(int(action))
            returns[k] += float(reward)
            if not (over or cut):
                left.append(k)
        alive = left
    return returns


def _constant(value: float) -> Callable[[float], float]:
    return lambda _: value


def _vector(game: str, seed: int) -> Any:
    """Games side by side for Stable-Baselines3, without a wrapper around each."""
    import gymnasium as gym
    import minatar
    from stable_baselines3.common.vec_env import VecEnv

    class Games(VecEnv):  # type: ignore[misc,unused-ignore]
        """Each of `N_ENVS` games starts anew when it is over, or cut after `MAX_STEPS`."""

        def __init__(self) -> None:
            self.games = [minatar.Environment(game) for _ in range(N_ENVS)]
            self.meanings = self.games[0].minimal_action_set()
            shape = tuple(self.games[0].state_shape())
            self.lengths = np.zeros(N_ENVS, np.int64)
            self.totals = np.zeros(N_ENVS)
            self.actions = np.zeros(N_ENVS, np.int64)
            self.pictures = np.zeros((N_ENVS, *shape), np.bool_)
            super().__init__(
                N_ENVS,
                gym.spaces.Box(0.0, 1.0, shape, np.bool_),  # type: ignore[arg-type]
                gym.spaces.Discrete(len(self.meanings)),
            )
            for k, one in enumerate(self.games):
                one.seed(seed + k)

        def reset(self) -> Any:
            for k, one in enumerate(self.games):
                one.reset()
                self.pictures[k] = one.state()
            self.lengths[:], self.totals[:] = 0, 0.0
            return self.pictures.copy()

        def step_async(self, actions: Any) -> None:
            self.actions = actions

        def step_wait(self) -> Any:
            rewards = np.zeros(N_ENVS, np.float32)
            ended = np.zeros(N_ENVS, np.bool_)
            infos: list[dict[str, Any]] = [{} for _ in range(N_ENVS)]
            self.lengths += 1
            for k, one in enumerate(self.games):
                rewards[k], over = one.act(self.meanings[self.actions[k]])
                self.totals[k] += rewards[k]
                cut = not over and self.lengths[k] >= MAX_STEPS
                if over or cut:
                    infos[k] = {
                        "terminal_observation": one.state(),
                        "TimeLimit.truncated": cut,
                        "episode": {"r": self.totals[k], "l": int(self.lengths[k])},
                    }
                    ended[k] = True
                    self.lengths[k], self.totals[k] = 0, 0.0
                    one.reset()
                self.pictures[k] = one.state()
            return self.pictures.copy(), rewards, ended, infos

        def close(self) -> None:
            """Nothing is open."""

        def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
            return [None] * self.num_envs

        def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
            """A game has no attributes that are set."""

        def env_method(self, method_name: str, *args: Any, **kwargs: Any) -> list[Any]:
            return [None] * self.num_envs

        def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
            return [False] * self.num_envs

    return Games()


def _new(game: str, seed: int) -> PPO:
    import torch
    from stable_baselines3 import PPO

    return PPO(
        "MlpPolicy",
        _vector(game, seed),
        n_steps=64,
        batch_size=512,
        n_epochs=3,
        learning_rate=LEARNING_RATE,
        gamma=0.99,
        gae_lambda=0.95,
        ent_coef=0.03,
        clip_range=0.2,
        seed=seed,
        device="cpu",
        policy_kwargs={
            "features_extractor_class": _extractor(),
            "net_arch": [],
            "activation_fn": torch.nn.ReLU,
        },
    )


def _extractor() -> Any:
    """Class of the shared layers; built here, so that importing needs no torch."""
    import torch
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class MinAtarCNN(BaseFeaturesExtractor):  # type: ignore[misc,unused-ignore]
        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space, features_dim=128)
            height, width, channels = observation_space.shape
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(channels, 16, 3),
                torch.nn.ReLU(),
                torch.nn.Flatten(),
                torch.nn.Linear(16 * (height - 2) * (width - 2), 128),
                torch.nn.ReLU(),
            )

        def forward(self, observations: Any) -> Any:
            return self.layers(observations.permute(0, 3, 1, 2))

    return MinAtarCNN


def _export(model: PPO, path: Path, game: str) -> None:
    """Write the actor's layers, in the order and shapes of torch's modules."""
    from safetensors.numpy import save_file

    layers = model.policy.features_extractor.layers
    tensors = {}
    for name, module in zip(LAYERS, (layers[0], layers[3], model.policy.action_net), strict=True):
        tensors[f"{name}.weight"] = module.weight.detach().numpy().copy()
        tensors[f"{name}.bias"] = module.bias.detach().numpy().copy()
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, metadata={"game": game, "env_id": env_id(game)})
    os.replace(temporary, path)


def main() -> None:
    """Train one game from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", required=True, choices=GAMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5_000_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="of training at most")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    limit = 60.0 * options.minutes
    try:
        train(options.game, options.seed, options.out, options.steps, seconds=limit)
    except EventsimError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
