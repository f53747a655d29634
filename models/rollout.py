"""The closed loop: environments by name, and episodes of a policy inside them."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventsim.errors import EventsimError, InputError, MissingDependencyError, UnknownNameError
from eventsim.models.decoders import Decoder, QuantileArgmax, SquashBox, decoder_for
from eventsim.models.spaces import BoxSpec, DictSpec, SpaceSpec
from eventsim.models.wrappers import recipe, wrap

if TYPE_CHECKING:
    import gymnasium as gym

    from eventsim.models.policy import Policy

    Env: TypeAlias = gym.Env[Any, Any]

# Which extra of eventsim installs what an environment's module needs.
_ATARI_FPS = 60.0
_EXTRAS = {"box2d": "box2d", "mujoco": "mujoco", "ale_py": "atari", "atari": "atari"}


class Actor(Protocol):
    """What `episode` drives: a policy's session, dense or event-driven, or `RandomActor`."""

    def reset(self) -> None:
        """Start a new episode; called once, after the environment's own reset."""

    def act(self, observation: Any) -> Any:
        """Return the action for an observation, as the environment takes it."""


class RandomActor:
    """Actions drawn uniformly from an action space: the floor of the relative loss.

    Parameters
    ----------
    space : gymnasium.Space
    """

    def __init__(self, space: Any) -> None:
        self.space = space

    def seed(self, seed: int) -> None:
        """Seed the draws."""
        self.space.seed(seed)

    def reset(self) -> None:
        """Nothing is carried from one episode to the next but the generator."""

    def act(self, observation: Any) -> Any:
        """Draw an action, whatever was observed."""
        return self.space.sample()


@dataclass(frozen=True, eq=False)
class Episode:
    """A finished episode.

    Attributes
    ----------
    seed : int
        With which the environment was reset.
    rewards : float64 array of shape (T,)
    inputs : float64 array of shape (T, n_inputs), or None
        Encoded observations, if they were recorded; uint8 where pictures are given as bytes.
    """

    seed: int
    rewards: NDArray[np.float64]
    inputs: NDArray[Any] | None = None

    @property
    def steps(self) -> int:
        """Number of environment steps."""
        return int(self.rewards.size)

    @property
    def total(self) -> float:
        """Return: the sum of the rewards, not discounted."""
        return math.fsum(self.rewards.tolist())


def make_for(policy: Policy, env_id: str, **kwargs: Any) -> Env:
    """Make an environment as a policy sees it, see `eventsim.models.wrappers.recipe`.

    Parameters
    ----------
    policy : Policy
    env_id : str
    **kwargs
        Handed to ``gymnasium.make`` over what the policy says.

    Raises
    ------
    UnknownNameError, MissingDependencyError
        As `make_env`.
    InputError
        If the policy's wrappers do not fit.
    """
    arguments, wrappers = recipe(policy, env_id)
    env = make_env(env_id, **{**arguments, **kwargs})
    try:
        return wrap(env, wrappers)
    except BaseException:
        env.close()
        raise


def make_env(env_id: str, **kwargs: Any) -> Env:
    """Make an environment by name.

    Parameters
    ----------
    env_id : str
        What ``gymnasium.make`` takes, ``"module:Id"`` included, which imports the module first.
    **kwargs
        Handed to ``gymnasium.make``.

    Raises
    ------
    UnknownNameError
        If there is no such environment; the message suggests near ones.
    MissingDependencyError
        If what it is built on is not installed; the message names the extra.
    """
    import gymnasium as gym
    from gymnasium import error

    module, _, name = env_id.rpartition(":")
    where = f"environment '{env_id}'"
    # Gymnasium knows the Atari games only once their package has been imported.
    if name.startswith("ALE/") and importlib.util.find_spec("ale_py") is not None:
        ale = importlib.import_module("ale_py")
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # else it greets on stderr
    if name.startswith("MinAtar/"):
        from eventsim.models.zoo.minatar import register

        register()
    try:
        with _quiet_mujoco(_where(name)):
            return gym.make(env_id, **kwargs)
    except error.DependencyNotInstalled as reason:
        raise MissingDependencyError(_install(name, str(reason)), where=where) from reason
    except error.NamespaceNotFound as reason:
        if name.startswith("ALE/"):
            raise MissingDependencyError(
                "the Atari games are not installed; run: pip install 'eventsim[atari]'", where=where
            ) from reason
        raise _unknown(env_id, name) from reason
    except error.Error as reason:
        raise _unknown(env_id, name) from reason
    except ImportError as reason:
        # Gymnasium wraps the error of an import of its own.
        cause = reason.__cause__ if isinstance(reason.__cause__, ImportError) else reason
        if cause.name is None:  # said by Gymnasium of an environment that has moved elsewhere
            raise _unknown(env_id, name, str(cause)) from reason
        if module and f"{module}.".startswith(f"{cause.name}."):
            raise UnknownNameError(
                f"there is no module '{module}' to import; give it as 'module:Id' where Python "
                "finds it",
                where=where,
            ) from reason
        raise MissingDependencyError(
            f"needs '{cause.name}', which is not installed; install it with pip", where=where
        ) from reason


@contextlib.contextmanager
def _quiet_mujoco(where: str) -> Iterator[None]:
    """Hold back what MuJoCo says of the age of Gymnasium's own models.

    Nobody who plays in them can do anything about it, and it would come with every environment
    that is made, past Python on stderr and in a file MUJOCO_LOG.TXT in the working folder.
    Anything else that it says of a model becomes a Python warning.
    """
    if not where.startswith("gymnasium.envs.mujoco"):
        yield
        return
    try:
        import mujoco

        before = mujoco.get_mju_user_warning()
    except (ImportError, AttributeError):  # said by gymnasium.make; or of another age itself
        yield
        return
    said: list[str] = []
    mujoco.set_mju_user_warning(said.append)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)
    for message in said:
        if "is deprecated" not in message:
            warnings.warn(message, RuntimeWarning, stacklevel=4)


def _where(name: str) -> str:
    """Place of the environment `name`, as ``module:class`` or the module; else nothing."""
    import gymnasium as gym

    entry = gym.registry[name].entry_point if name in gym.registry else ""
    return entry if isinstance(entry, str) else getattr(entry, "__module__", "")


def _install(name: str, reason: str) -> str:
    """Say which extra brings what the environment `name` lacks."""
    parts = _where(name).replace(":", ".").split(".")
    extra = next((_EXTRAS[part] for part in parts if part in _EXTRAS), None)
    if extra is None:
        return reason.strip()
    return f"{reason.partition(', ')[0]}; run: pip install 'eventsim[{extra}]'"


def _unknown(env_id: str, name: str, reason: str = "") -> UnknownNameError:
    import gymnasium as gym

    known = [k for k in gym.registry if k != name]
    same = [k for k in known if k.rpartition("-v")[0] == name.rpartition("-v")[0]]
    # Other versions of the same environment come first, the newest of them before all.
    near = same[::-1] or _near(name, known)
    hint = f"did you mean {' or '.join(near[:3])}?" if near else "give a name such as CartPole-v1"
    why = f" ({reason.strip().rstrip('.')})" if reason else ""
    return UnknownNameError(f"there is no environment '{env_id}'{why}; {hint}")


def _near(name: str, known: list[str]) -> list[str]:
    """Names that resemble `name`, whatever their case."""
    lower = {k.lower(): k for k in known}
    return [lower[k] for k in difflib.get_close_matches(name.lower(), lower, 3, 0.5)]


def check_spaces(policy: Policy, env: Env) -> None:
    """See that a policy and an environment speak of the same observations and actions.

    Bounds of observations are not compared, those of actions are.

    Raises
    ------
    InputError
        If they do not; the message has both sides.
    UnsupportedError
        If the environment has a space that no policy takes.
    """
    name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    mine = policy.encoder.space
    theirs = SpaceSpec.from_gymnasium(env.observation_space)
    if not _same_picture(policy, theirs) and _observed(mine) != _observed(theirs):
        hint = "choose the environment the policy was trained for"
        if _observed(theirs) == {"kind": "box", "shape": [mine.size - 1]}:
            hint += ", or import it with its time feature"
        raise InputError(
            f"the policy takes observations of {_words(mine)}, the environment gives "
            f"{_words(theirs)}; {hint}",
            where=f"environment '{name}'",
        )
    if not _same_actions(policy.decoder, env.action_space):
        raise InputError(
            f"the policy's actions ({_action_words(policy.decoder)}) are not those of the "
            f"environment, {env.action_space}; choose the environment the policy was trained for",
            where=f"environment '{name}'",
        )


def _same_picture(policy: Policy, space: SpaceSpec) -> bool:
    """Whether the environment gives the policy's pictures, be their channels first or last."""
    pixels, mine = policy.encoder.pixels, policy.encoder.space
    if pixels is None or not isinstance(mine, BoxSpec) or not isinstance(space, BoxSpec):
        return False
    return space.shape in pixels.shapes(mine)


def _observed(space: SpaceSpec) -> dict[str, Any]:
    """What must agree of two observation spaces; the order of a dict's keys need not."""
    if isinstance(space, DictSpec):
        return {"kind": space.kind, "spaces": {key: _observed(s) for key, s in space.spaces}}
    fields = space.to_dict()
    fields.pop("dtype", None)
    fields.pop("image", None)
    return fields


def _words(space: SpaceSpec) -> str:
    if isinstance(space, DictSpec):
        return "{" + ", ".join(f"{key}: {_words(s)}" for key, s in space.spaces) + "}"
    fields = _observed(space)
    kind = fields.pop("kind")
    if kind == "box":
        return f"shape {tuple(fields['shape'])}"
    return f"{kind} ({', '.join(f'{key} {value}' for key, value in fields.items())})"


def _same_actions(decoder: Decoder, space: Any) -> bool:
    expected = decoder_for(
        space,
        squash=isinstance(decoder, SquashBox),
        n_quantiles=decoder.n_quantiles if isinstance(decoder, QuantileArgmax) else None,
    )
    mine, theirs = decoder.to_dict(), expected.to_dict()
    mine.pop("dtype", None)
    theirs.pop("dtype", None)
    if mine != theirs:
        return False
    bounds = expected.arrays()
    return all(np.allclose(v, bounds[key], rtol=1e-5) for key, v in decoder.arrays().items())


def _action_words(decoder: Decoder) -> str:
    fields = decoder.to_dict() | {key: v.tolist() for key, v in decoder.arrays().items()}
    kind = fields.pop("kind")
    fields.pop("dtype", None)
    return f"{kind}: {', '.join(f'{key} {value}' for key, value in fields.items())}"


def step_seconds(env: Env) -> tuple[float | None, str]:
    """Duration of a step in seconds, as the environment itself states it.

    Looked up in this order: ``env.unwrapped.dt`` (MuJoCo, Pendulum, Acrobot),
    ``env.unwrapped.tau`` (CartPole), the frames of an Atari game that a step skips, 60 a second,
    ``1 / env.metadata["render_fps"]``.

    Returns
    -------
    seconds : float or None
        None if the environment says nothing.
    source : str
        ``"dt"``, ``"tau"``, ``"frame_skip"``, ``"render_fps"`` or ``"unknown"``.
    """
    for source in ("dt", "tau"):
        seconds = _positive(getattr(env.unwrapped, source, None))
        if seconds is not None:
            return seconds, source
    if hasattr(env.unwrapped, "ale"):
        return _frames_skipped(env) / _ATARI_FPS, "frame_skip"
    fps = _positive((env.metadata or {}).get("render_fps"))
    return (None, "unknown") if fps is None else (1.0 / fps, "render_fps")


def _frames_skipped(env: Any) -> int:
    """Frames of an Atari game that one step takes: by the game itself, and by wrappers."""
    frames = 1
    while True:
        skip = getattr(env, "__dict__", {}).get("frame_skip", 1)
        frames *= skip if isinstance(skip, int) and skip > 0 else 1
        if env is env.unwrapped:
            own = getattr(env, "_frameskip", 1)  # a pair if it is drawn at random
            return frames * (own if isinstance(own, int) else 1)
        env = env.env


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return None
    number = float(value)
    return number if math.isfinite(number) and number > 0.0 else None


def episode(
    actor: Actor,
    env: Env,
    seed: int,
    *,
    record: bool = False,
    most: float = math.inf,
    on_step: Callable[[float], None] | None = None,
) -> Episode:
    """Run one episode to its end.

    Parameters
    ----------
    actor : Actor
        A session of a policy, event-driven or dense, or a `RandomActor`.
    env : gymnasium.Env
    seed : int
        For ``env.reset``.
    record : bool
        Keep the encoded observations; the actor must have `inputs`.
    most : float, optional
        Steps after which the episode is left.
    on_step : callable, optional
        Called with the reward once a step is complete.

    Returns
    -------
    Episode

    Raises
    ------
    InputError
        If an observation or reward is NaN or infinite, or does not fit the policy.
    """
    observation, _ = env.reset(seed=seed)
    actor.reset()
    rewards: list[float] = []
    inputs: list[NDArray[Any]] = []
    done = False
    while not done:
        try:
            action = actor.act(observation)
        except EventsimError as reason:
            raise type(reason)(f"{reason} (seed {seed}, step {len(rewards)})") from reason
        observation, reward, terminated, truncated, _ = env.step(action)
        value = float(reward)
        if not math.isfinite(value):
            raise InputError(
                f"the environment gave the reward {value}; it must be finite "
                f"(seed {seed}, step {len(rewards)})"
            )
        rewards.append(value)
        if record:
            inputs.append(np.array(actor.inputs))  # type: ignore[attr-defined]
        if on_step is not None:
            on_step(value)
        done = bool(terminated or truncated) or len(rewards) >= most
    return Episode(seed, np.array(rewards), np.array(inputs) if record else None)
