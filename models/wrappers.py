"""How the environment of a policy is wrapped, as plain data that a policy file carries.

A wrapper is named, with its arguments: ``{"name": "FrameStackObservation", "arguments":
{"stack_size": 4}}``. Names are those of `WRAPPERS`; nothing else is imported or run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from eventsim.errors import InputError, MissingDependencyError
from eventsim.models.spaces import BoxSpec

if TYPE_CHECKING:
    import gymnasium as gym

    from eventsim.models.policy import Policy

    Env: TypeAlias = gym.Env[Any, Any]

Wrapper: TypeAlias = Mapping[str, Any]

_ALE = "ALE/"
_SCREEN = (84, 84)

#: Wrappers that a policy file may name: those of ``gymnasium.wrappers``, and `fire_on_reset`.
WRAPPERS = (
    "AtariPreprocessing",
    "ClipReward",
    "FireOnReset",
    "FrameStackObservation",
    "GrayscaleObservation",
    "MaxAndSkipObservation",
    "ResizeObservation",
    "TimeLimit",
)


def atari(
    *,
    frame_skip: int = 4,
    stack: int = 4,
    noop_max: int = 30,
    sticky: float = 0.25,
    full_action_space: bool = False,
    fire_on_reset: bool = False,
    padding: str = "reset",
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Describe an Atari environment as agents see it (Machado et al. 2018).

    Parameters
    ----------
    frame_skip : int, optional
        Frames an action is repeated for, by the wrapper: the environment itself skips none.
    stack : int, optional
        Frames that an observation holds.
    noop_max : int, optional
        Idle actions at the beginning of an episode, drawn from 1 to this.
    sticky : float, optional
        Probability that the environment repeats the last action instead.
    full_action_space : bool, optional
        18 actions instead of those that the game knows.
    fire_on_reset : bool, optional
        Press the button first, as a wrapper of Stable-Baselines3 does.
    padding : str, optional
        What stands before the first frame: ``"reset"``, copies of it, or ``"zero"``.

    Returns
    -------
    arguments of ``gymnasium.make``, and the wrappers
    """
    arguments = {
        "frameskip": 1,
        "repeat_action_probability": float(sticky),
        "full_action_space": bool(full_action_space),
    }
    preprocessing = {"noop_max": int(noop_max), "frame_skip": int(frame_skip)}
    wrappers = [
        {"name": "AtariPreprocessing", "arguments": preprocessing},
        *([{"name": "FireOnReset", "arguments": {}}] if fire_on_reset else []),
        {
            "name": "FrameStackObservation",
            "arguments": {"stack_size": int(stack), "padding_type": padding},
        },
    ]
    return arguments, wrappers


def recipe(policy: Policy, env_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return how the policy's environment, or another one, is made for the policy.

    A policy's ``env_kwargs`` and ``env_wrappers`` are those of the environment that it was made
    for, and of other Atari games if it is one. An Atari game for a policy that says nothing but
    sees a stack of 84 x 84 frames is wrapped as `atari` does by default.

    Returns
    -------
    arguments of ``gymnasium.make``, and the wrappers
    """
    arguments = dict(policy.metadata.get("env_kwargs") or {})
    wrappers = list(policy.metadata.get("env_wrappers") or [])
    name = env_id.rpartition(":")[2]
    if env_id != policy.env_id and not (_is_atari(policy.env_id) and name.startswith(_ALE)):
        arguments, wrappers = {}, []
    if not wrappers and name.startswith(_ALE):
        space = policy.encoder.space
        if (
            policy.encoder.pixels is not None
            and isinstance(space, BoxSpec)
            and space.shape[1:] == _SCREEN
        ):
            default, wrappers = atari(
                stack=space.shape[0], full_action_space=policy.decoder.size == 18
            )
            arguments = {**default, **arguments}
    return arguments, wrappers


def without_others(metadata: Mapping[str, Any], env_id: str) -> dict[str, Any]:
    """Fields to replace when a policy is to act in `env_id`: what belonged to another one goes."""
    if _is_atari(metadata.get("env_id")) and _is_atari(env_id):
        return {}
    return {key: {} for key in ("env_kwargs",) if metadata.get(key)} | {
        key: [] for key in ("env_wrappers",) if metadata.get(key)
    }


def wrap(env: Env, wrappers: Sequence[Wrapper]) -> Env:
    """Put wrappers around an environment, the first one innermost.

    Raises
    ------
    InputError
        If one is not of `WRAPPERS`, or does not take its arguments or the environment.
    MissingDependencyError
        If it needs a library that is not installed.
    """
    import gymnasium as gym

    for number, entry in enumerate(wrappers):
        where = f"env_wrappers[{number}]"
        if not isinstance(entry, Mapping) or set(entry) - {"name", "arguments"}:
            raise InputError("is no wrapper; give its name and arguments", where=where)
        name, arguments = entry.get("name"), entry.get("arguments") or {}
        if name not in WRAPPERS or not isinstance(arguments, Mapping):
            raise InputError(
                f"is {name!r}; this version knows {', '.join(WRAPPERS)}", where=where, field="name"
            )
        make = fire_on_reset if name == "FireOnReset" else getattr(gym.wrappers, str(name))
        try:
            env = make(env, **arguments)
        except gym.error.DependencyNotInstalled as error:
            raise MissingDependencyError(
                f"{name} needs opencv, which is not installed; run: pip install 'eventsim[atari]'",
                where=where,
            ) from error
        except (TypeError, ValueError, AssertionError, AttributeError) as error:
            raise InputError(
                f"{name} does not fit the environment: {error}", where=where
            ) from error
    return env


def fire_on_reset(env: Env) -> Env:
    """Press the button once after every reset: some games wait for it.

    Raises
    ------
    InputError
        If the environment has no such action.
    """
    import gymnasium as gym

    meanings: list[str] = getattr(env.unwrapped, "get_action_meanings", list)()
    if len(meanings) < 2 or meanings[1] != "FIRE":
        raise InputError("needs an environment whose action 1 is FIRE", where="FireOnReset")

    class FireOnReset(gym.Wrapper[Any, Any, Any, Any]):
        """Start every episode by the button."""

        def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
            self.env.reset(**options)
            observation, _, terminated, truncated, info = self.env.step(1)
            if terminated or truncated:
                observation, info = self.env.reset()
            return observation, info

    return FireOnReset(env)


def _is_atari(env_id: Any) -> bool:
    return isinstance(env_id, str) and env_id.rpartition(":")[2].startswith(_ALE)
