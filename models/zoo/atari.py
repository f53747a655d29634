"""Train Atari teachers on one core of a CPU, or on several and a GPU.

Not a part of `eventsim run`: these agents come from outside, as any other would. One call trains
one game and needs ``pip install 'eventsim[train,atari]'``::

    python -m eventsim.models.zoo.atari --game pong --seed 0 --out teachers/pong

It trains until the steps are done, or for ``--minutes``, or until it is killed; the same command
goes on from the last checkpoint, exactly as if it had not been stopped. ``--episodes 30`` plays
the last checkpoint instead, by the protocol of Machado et al. 2018 (arXiv 1709.06009), and may do
so while the training runs.

The folder holds ``checkpoint.safetensors``, ``training.json`` (settings, versions, the learning
curve), and once it was played ``evaluation.json`` and ``policy.safetensors`` for ``eventsim run``.

Frames come from ale-py's vector environment. They equal those of gymnasium's AtariPreprocessing
and FrameStackObservation bit for bit, empty frames before an episode's first. A lost life ends a
return while training, but not the episode; rewards are clipped to their sign; the button that
starts a game is left to the agent.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import EventsimError, FileFormatError, InputError, MissingDependencyError
from eventsim.models.decoders import Argmax
from eventsim.models.encoders import BoxSpec, Encoder, Pixels
from eventsim.models.importers.torch_modules import from_torch
from eventsim.models.policy import Policy
from eventsim.models.rollout import make_for
from eventsim.models.wrappers import atari
from eventsim.models.zoo import imitation, lockstep
from eventsim.models.zoo.ppo import Batch, Learner, Settings
from eventsim.output import prepare_folder, write_atomically, write_text

if TYPE_CHECKING:
    from ale_py.vector_env import AtariVectorEnv

SCHEMA = "eventsim-training/1"
#: Gymnasium's name of a game, and the returns of random play and of people (Mnih et al. 2015).
GAMES = {
    "breakout": ("Breakout", 1.7, 31.8),
    "freeway": ("Freeway", 0.0, 29.6),
    "pong": ("Pong", -20.7, 9.3),
    "space_invaders": ("SpaceInvaders", 148.0, 1652.0),
}
EVALUATION_SEED = 20_000
STEPS = 10_000_000
NOOP_MAX, FRAME_SKIP, STICKY = 30, 4, 0.25
#: Updates after which the environments are begun anew: as many are played again when a training
#: goes on, since a game's state cannot be stored.
ERA = 128
#: Share of the learning rate that is left at the end.
LAST_RATE = 0.1
CHECKPOINT_SECONDS = 90.0
#: Updates between two points of the learning curve, and episodes that one is the mean of.
CURVE, RECENT = 8, 100


def env_id(game: str) -> str:
    """Gymnasium's name of a game.

    Raises
    ------
    InputError
        If there is no recipe for it.
    """
    if game not in GAMES:
        raise InputError(f"is {game!r}; use one of {', '.join(GAMES)}", where="Atari", field="game")
    return f"ALE/{GAMES[game][0]}-v5"


class Games:
    """The environments of a training, side by side.

    Parameters
    ----------
    game : str
    n : int
    threads : int, optional
        That play them; what they show does not depend on it.
    """

    def __init__(self, game: str, n: int, threads: int = 1) -> None:
        try:
            from ale_py.vector_env import AtariVectorEnv
        except ImportError as error:
            raise MissingDependencyError(
                "Training on Atari needs ale-py; run: pip install 'eventsim[atari]'"
            ) from error
        import ale_py

        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._env: AtariVectorEnv = AtariVectorEnv(
            game,
            n,
            num_threads=threads,
            repeat_action_probability=STICKY,
            frameskip=FRAME_SKIP,
            noop_max=NOOP_MAX,
            reward_clipping=False,
            use_fire_reset=False,
            autoreset_mode="SameStep",
        )
        self.n, self.n_actions = n, int(self._env.single_action_space.n)
        self.totals = np.zeros(n)
        self._lives = np.zeros(n, np.int64)

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """Begin n episodes; the same seed and actions give the same frames again."""
        frames: NDArray[np.uint8]
        frames, info = self._env.reset(seed=seed)
        self.totals[:] = 0.0
        self._lives = info["lives"].astype(np.int64)
        return frames

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_], list[float]]:
        """Act; returns frames, rewards, whether a life ended, and returns of what ended."""
        frames, rewards, over, cut, info = self._env.step(actions.astype(np.int64))
        self.totals += rewards
        ended = over | cut
        returns = self.totals[ended].tolist()
        self.totals[ended] = 0.0
        lives = info["lives"].astype(np.int64)
        lost = ended | (lives < self._lives)
        self._lives = lives
        return frames, rewards.astype(np.float32), lost, returns


class Training:
    """A training that can be stopped after any update, and goes on exactly where it was.

    Parameters
    ----------
    game : str
        One of `GAMES`.
    seed : int
    folder : Path
        Made if need be; a checkpoint in it is continued.
    steps : int, optional
        Steps of all environments in total; the learning rate falls over them. Those of the
        checkpoint by default, or `STEPS`.
    settings : Settings, optional
        Those of the checkpoint, if there is one.
    device : str, optional
        Of torch, where it learns.
    threads : int, optional
        That play the environments.

    Raises
    ------
    MissingDependencyError
        If an extra is missing.
    InputError
        If the folder holds another training.
    FileFormatError
        If its checkpoint is damaged.
    """

    def __init__(
        self,
        game: str,
        seed: int,
        folder: Path,
        steps: int | None = None,
        settings: Settings | None = None,
        device: str = "cpu",
        threads: int = 1,
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise MissingDependencyError(
                "Training needs PyTorch; run: pip install 'eventsim[train]'"
            ) from error
        torch.set_num_threads(1)
        self.folder = prepare_folder(folder)
        self._file = self.folder / "checkpoint.safetensors"
        self.record: dict[str, Any] = {
            "schema": SCHEMA,
            "game": game,
            "env_id": env_id(game),
            "seed": seed,
            "budget": steps or STEPS,
            "algorithm": "PPO",
            "settings": asdict(settings or Settings()),
            "sticky": STICKY,
            "frame_skip": FRAME_SKIP,
            "noop_max": NOOP_MAX,
            "steps": 0,
            "updates": 0,
            "seconds": 0.0,
            "cpu_seconds": 0.0,
            "episodes": 0,
            "curve_columns": ["steps", "seconds", "mean_return", "entropy"],
            "curve": [],
        }
        tensors = self._read(game, seed, steps)
        self.settings = Settings(**self.record["settings"])
        self.games = Games(game, self.settings.n_envs, threads)
        self.learner = Learner(self.games.n_actions, seed, self.settings, device)
        used = self.record.get("devices", ["cpu"] if self.record["updates"] else [])
        self.record["devices"] = [*used, *({device} - set(used))]
        self.record["versions"] = {
            name: version(name) for name in ("ale-py", "gymnasium", "numpy", "torch")
        }
        self.record["python"] = platform.python_version()
        self._actions: list[NDArray[np.uint8]] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._frames: NDArray[np.uint8] | None = None
        if tensors is not None:
            self._go_on(tensors)

    @property
    def done(self) -> bool:
        """Whether all steps of the budget are done."""
        return bool(self.record["steps"] >= self.record["budget"])

    def update(self) -> None:
        """Play a horizon in every environment, and learn from it."""
        clock, cpu = time.perf_counter(), time.process_time()
        record, s = self.record, self.settings
        frames = self._play_again() if self._frames is None else self._frames
        if record["updates"] % ERA == 0 and self._actions:
            frames = self._begin_era()
        shape = (s.horizon, s.n_envs)
        observations = np.empty((*shape, 4, 84, 84), np.uint8)
        actions, ends = np.empty(shape, np.int64), np.empty(shape, np.bool_)
        rewards, values, log_p = (np.empty(shape, np.float32) for _ in range(3))
        for t in range(s.horizon):
            observations[t] = frames
            actions[t], log_p[t], values[t] = self.learner.act(observations[t])
            frames, reward, ends[t], returns = self.games.step(actions[t])
            rewards[t] = np.sign(reward)
            self._recent.extend(returns)
            record["episodes"] += len(returns)
        self._frames, last = frames, self.learner.values(frames)
        batch = Batch(observations, actions, rewards, values, log_p, ends, last)
        left = 1.0 - record["steps"] / record["budget"]
        rate = s.learning_rate * max(left, LAST_RATE)
        losses = self.learner.update(batch, rate)
        self._actions.append(actions.astype(np.uint8))
        record["steps"] += actions.size
        record["updates"] += 1
        record["seconds"] += time.perf_counter() - clock
        record["cpu_seconds"] += time.process_time() - cpu
        if record["updates"] % CURVE == 0:
            mean = float(np.mean(self._recent)) if self._recent else None
            point = [record["steps"], round(record["seconds"], 1), mean]
            record["curve"].append([*point, round(losses["entropy"], 4)])

    def imitate(self, rounds: int, say: Callable[[str], None]) -> None:
        """Begin by imitating the game's player, before any learning from rewards.

        Parameters
        ----------
        rounds : int
            As `eventsim.models.zoo.imitation.imitate` plays them.
        say : callable
            Gets a line a round.

        Raises
        ------
        InputError
            If the training has begun already, or the game has no player.
        """
        record = self.record
        if record["updates"] or record.get("imitation"):
            raise InputError(
                "holds a training that has begun; imitate in another folder",
                where=f"'{self.folder}'",
            )
        clock, cpu = time.perf_counter(), time.process_time()
        make = partial(
            make_for,
            self.policy(),
            record["env_id"],
            repeat_action_probability=STICKY,
            disable_env_checker=True,
        )
        record["imitation"] = imitation.imitate(
            self.learner, record["game"], make, rounds, record["seed"], say
        )
        record["algorithm"] = "PPO after imitation"
        record["seconds"] += time.perf_counter() - clock
        record["cpu_seconds"] += time.process_time() - cpu

    def save(self) -> None:
        """Write the checkpoint, and the record beside it."""
        import torch
        from safetensors.torch import save_file

        tensors = self.learner.state()
        played = np.concatenate(self._actions) if self._actions else np.zeros((0, 1), np.uint8)
        tensors["actions"] = torch.from_numpy(played)
        tensors["recent"] = torch.tensor(list(self._recent), dtype=torch.float64)
        text = json.dumps(self.record)
        write_atomically(self._file, lambda path: save_file(tensors, path, {"record": text}))
        write_text(self.folder / "training.json", json.dumps(self.record, indent=1) + "\n")

    def policy(self) -> Policy:
        """What acts, as `policy_of` makes it."""
        return policy_of(self.learner, self.record)

    def evaluate(self, episodes: int) -> dict[str, Any]:
        """Play the policy in gymnasium's ordinary environment, with sticky actions and without.

        Returns
        -------
        dict
            Protocol, returns and their means.
        """
        import torch

        module, policy = self.learner.module, self.policy()

        def act(observations: NDArray[Any]) -> NDArray[Any]:
            with torch.inference_mode():
                x = torch.from_numpy(observations).to(torch.float32).mul_(1.0 / 255.0)
                actions: NDArray[Any] = module(x).argmax(1).numpy()
            return actions

        _, random, human = GAMES[self.record["game"]]
        result: dict[str, Any] = {
            "protocol": {
                "environment": self.record["env_id"],
                "frame_skip": FRAME_SKIP,
                "noop_max": NOOP_MAX,
                "action_set": "minimal",
                "life_loss_ends_episode": False,
                "rewards_clipped": False,
                "actions": "the likeliest",
                "first_seed": EVALUATION_SEED,
                "random_play": random,
                "people": human,
            },
            "steps": self.record["steps"],
        }
        for name, sticky in (("sticky", STICKY), ("not_sticky", 0.0)):
            make = partial(
                make_for,
                policy,
                self.record["env_id"],
                repeat_action_probability=sticky,
                disable_env_checker=True,
            )
            played = lockstep.returns(
                make,
                [EVALUATION_SEED + k for k in range(episodes)],
                act,
            )
            mean = float(np.mean(played))
            result[name] = {
                "repeat_action_probability": sticky,
                "mean_return": mean,
                "human_normalised": (mean - random) / (human - random),
                "returns": played,
            }
        return result

    def _begin_era(self, updates: int | None = None) -> NDArray[np.uint8]:
        """Begin the environments anew, after so many updates; by default those done."""
        self._actions = []
        done = self.record["updates"] if updates is None else updates
        sequence = np.random.SeedSequence([self.record["seed"], done // ERA])
        return self.games.reset(int(sequence.generate_state(1)[0]) >> 2)

    def _read(self, game: str, seed: int, steps: int | None) -> dict[str, Any] | None:
        """Take over the record of the checkpoint, if there is one; its tensors."""
        if not self._file.exists():
            return None
        from safetensors import SafetensorError, safe_open

        where = f"'{self._file}'"
        try:
            with safe_open(self._file, "pt") as stored:
                record = json.loads((stored.metadata() or {})["record"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError) as error:
            raise FileFormatError(
                f"is no checkpoint of a training ({error}); remove it to begin anew", where=where
            ) from error
        if (record.get("game"), record.get("seed")) != (game, seed):
            raise InputError(
                "holds the training of another game or seed; give another folder",
                where=f"'{self.folder}'",
            )
        self.record |= record
        if steps is not None:
            self.record["budget"] = steps
        return tensors

    def _go_on(self, tensors: dict[str, Any]) -> None:
        """Restore the learner."""
        try:
            self._recent.extend(tensors["recent"].tolist())
            self._actions = [tensors["actions"].numpy()]
            self.learner.load(tensors)
        except (KeyError, RuntimeError) as error:
            raise FileFormatError(
                f"does not fit the network ({error}); remove it to begin anew",
                where=f"'{self._file}'",
            ) from error

    def _play_again(self) -> NDArray[np.uint8]:
        """Bring the environments to where the checkpoint was: play its era's actions again."""
        played = np.concatenate(self._actions) if self._actions else np.zeros((0, 1), np.uint8)
        frames = self._begin_era(self.record["updates"] - len(played) // self.settings.horizon)
        for actions in played:
            frames = self.games.step(actions)[0]
            self._actions.append(actions[np.newaxis])
        return frames


def policy_of(learner: Learner, record: Mapping[str, Any]) -> Policy:
    """Return what acts, as eventsim runs it: pictures in, the likeliest action out.

    Parameters
    ----------
    learner : Learner
    record : mapping
        Of its training; the policy's metadata say the essence of it.
    """
    arguments, wrappers = atari(
        frame_skip=FRAME_SKIP, noop_max=NOOP_MAX, sticky=STICKY, padding="zero"
    )
    module = learner.module
    return Policy(
        Encoder(BoxSpec((4, 84, 84), "uint8", True), pixels=Pixels()),
        from_torch(module, (4, 84, 84), scale=1.0 / 255.0, name=record["game"]),
        Argmax(module[-1].out_features),
        {
            "name": record["game"],
            "env_id": record["env_id"],
            "env_kwargs": arguments,
            "env_wrappers": wrappers,
            "algorithm": record["algorithm"],
            "training": {k: record[k] for k in ("seed", "steps", "seconds", "versions")},
        },
    )


def train(
    game: str,
    seed: int,
    folder: Path,
    steps: int | None = None,
    minutes: float | None = None,
    settings: Settings | None = None,
    say: Callable[[str], None] = print,
    imitate: int = 0,
    device: str = "cpu",
    threads: int = 1,
) -> Training:
    """Train a teacher, and write it down.

    Parameters
    ----------
    game, seed, folder, steps, settings, device, threads
        As for `Training`.
    minutes : float, optional
        After which to stop, whatever is left.
    say : callable
        Gets a line a checkpoint.
    imitate : int, optional
        Rounds in which the game's player is imitated first, if the training begins anew.
    """
    training = Training(game, seed, folder, steps, settings, device, threads)
    begin = saved = time.monotonic()
    if imitate and not training.record["updates"] and "imitation" not in training.record:
        training.imitate(imitate, say)
        training.save()
    while not training.done:
        training.update()
        now = time.monotonic()
        if minutes is not None and now - begin > 60.0 * minutes:
            break
        if now - saved > CHECKPOINT_SECONDS:
            training.save()
            saved = now
            say(progress(training.record))
    training.save()
    training.policy().save(training.folder / "policy.safetensors")
    say(progress(training.record))
    return training


def progress(record: dict[str, Any]) -> str:
    """One line on how far a training is."""
    curve = record["curve"]
    mean = curve[-1][2] if curve else None
    return (
        f"{record['game']}: {record['steps']:,} steps, {record['seconds']:.0f} s "
        f"({record['cpu_seconds']:.0f} s of CPU), {record['episodes']} episodes, return "
        f"{'-' if mean is None else format(mean, '.2f')}"
    )


def settings_of(options: argparse.Namespace) -> Settings | None:
    """Settings that differ from the defaults; None if none does.

    Who imitates is sure of what to do, and would unlearn it for more entropy.
    """
    entropy = 0.001 if options.entropy is None and options.imitate else options.entropy
    given = {"learning_rate": options.rate, "entropy": entropy, "n_envs": options.envs}
    if options.envs is not None:
        given["minibatch"] = 8 * options.envs  # as many to an update as without
    changed = {name: value for name, value in given.items() if value is not None}
    return Settings(**changed) if changed else None


def main() -> None:
    """Train or play one game from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--game", required=True, choices=GAMES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help=f"in total; {STEPS:,} by default")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument(
        "--imitate",
        type=int,
        default=0,
        metavar="ROUNDS",
        help="begin with so many rounds of 8,192 steps of imitating a player that reads the "
        "game's memory (pong, breakout, freeway, space_invaders)",
    )
    parser.add_argument("--rate", type=float, help="learning rate at first; 5e-4 by default")
    parser.add_argument(
        "--entropy",
        type=float,
        help="weight of entropy; 0.01 by default, 0.001 if one imitates",
    )
    parser.add_argument(
        "--envs",
        type=int,
        help="environments side by side; 32 by default, and batches grow with them",
    )
    parser.add_argument("--threads", type=int, default=1, help="that play them; 1 by default")
    parser.add_argument("--device", default="cpu", help="where to learn: cpu (default) or cuda")
    parser.add_argument("--episodes", type=int, help="play so many of each kind, and do not train")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    def say(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    try:
        for name in ("envs", "threads"):
            value = getattr(options, name)
            if value is not None and value < 1:
                raise InputError(f"is {value}; give at least 1", field=name)
        if options.episodes is None:
            train(
                options.game,
                options.seed,
                options.out,
                options.steps,
                options.minutes,
                settings_of(options),
                say,
                options.imitate,
                options.device,
                options.threads,
            )
            return
        training = Training(options.game, options.seed, options.out)
        result = training.evaluate(options.episodes)
        write_text(training.folder / "evaluation.json", json.dumps(result, indent=1) + "\n")
        training.policy().save(training.folder / "policy.safetensors")
        for name in ("sticky", "not_sticky"):
            say(f"{name}: return {result[name]['mean_return']:.2f} over {options.episodes}")
    except EventsimError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
