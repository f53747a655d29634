"""Turn what a user has (a name, a file, a folder) into a `Policy`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventsim.errors import FileFormatError, InputError, UnknownNameError

if TYPE_CHECKING:
    from eventsim.models.policy import Policy


@dataclass(frozen=True)
class Importer:
    """One format that `load_policy` reads.

    Parameters
    ----------
    name : str
        For messages, such as ``"Stable-Baselines3 zip"``.
    accepts : callable
        Tells from a Path to an existing file or folder whether it is of this format.
    load : callable
        Given the Path and those `options` that the caller set, as keywords; returns the Policy.
    options : frozenset of str
        Options of `load_policy` that `load` takes.
    """

    name: str
    accepts: Callable[[Path], bool]
    load: Callable[..., Policy]
    options: frozenset[str] = frozenset()


def load_policy(
    source: str | os.PathLike[str],
    *,
    env: str | None = None,
    normalization: str | os.PathLike[str] | bool | None = None,
    time_feature: bool | int | None = None,
    algorithm: str | None = None,
) -> Policy:
    """Load a policy from wherever it is.

    Parameters
    ----------
    source : str or path
        A name of the zoo, a policy that eventsim saved, a Stable-Baselines3 zip, or a folder of
        the RL Zoo layout ``<algorithm>/<environment>/``. What lies beside a zip
        (``config.yml``, ``args.yml``, ``vecnormalize.pkl``) is read with it.
    env : str, optional
        Environment that the policy acts in, in place of the one that the files name.
    normalization : path, bool or None, optional
        ``VecNormalize`` file of an imported agent; False (or ``"none"``) for none.
    time_feature : bool, int or None, optional
        Whether an imported agent sees the remaining time, or the steps of a full episode.
    algorithm : str, optional
        Algorithm of an imported agent, such as ``"PPO"``, where the file does not say.

    Raises
    ------
    UnknownNameError
        If there is neither such a name nor such a file; the message suggests near names.
    FileFormatError
        If the file is of no known format, damaged or hostile.
    UnsupportedError
        If it holds a policy that eventsim cannot run.
    InputError
        If an option does not apply to this format.
    """
    if isinstance(normalization, str) and normalization.lower() == "none":
        normalization = False
    options = {
        name: value
        for name, value in (
            ("env", env),
            ("normalization", normalization),
            ("time_feature", time_feature),
            ("algorithm", algorithm),
        )
        if value is not None
    }
    path = zoo_files().get(os.fspath(source).lower())
    path = Path(source) if path is None else path
    try:
        if not path.exists():
            raise _unknown(source)
        importer = next((i for i in IMPORTERS if i.accepts(path)), None)
    except (OSError, ValueError) as error:
        raise FileFormatError(
            "cannot be read; check its name and rights", where=path.name
        ) from error
    if importer is None:
        raise FileFormatError(
            "is of no known format; give one of: " + ", ".join(i.name for i in IMPORTERS),
            where=path.name,
        )
    unknown = sorted(set(options) - importer.options)
    if unknown:
        raise InputError(f"does not apply to a {importer.name}; leave it out", field=unknown[0])
    return importer.load(path, **options)


def zoo_files() -> dict[str, Path]:
    """Return the policies that ship with the package, by their name in lower case."""
    from eventsim.models import zoo

    return zoo.files()


def _unknown(source: str | os.PathLike[str]) -> UnknownNameError:
    name = os.fspath(source)
    if os.sep in name or Path(name).suffix in (".zip", ".safetensors"):
        return UnknownNameError(f"there is no file or folder '{name}'; check the path")
    known = sorted(zoo_files())
    near = difflib.get_close_matches(name.lower(), known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the zoo has {', '.join(known)}"
    return UnknownNameError(f"there is no policy '{name}', neither a file nor in the zoo; {hint}")


def _is_saved(path: Path) -> bool:
    if path.is_dir():
        return False
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        head = file.read(9)
    # safetensors: the length of the header as 64 bits, then its JSON object
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < 2**32


def _load_saved(path: Path, env: str | None = None) -> Policy:
    from eventsim.models.policy import Policy
    from eventsim.models.wrappers import without_others

    policy = Policy.load(path)
    if env is None or env == policy.env_id:
        return policy
    return policy.with_metadata(env_id=env, **without_others(policy.metadata, env))


def _is_sb3(path: Path) -> bool:
    from eventsim.models.importers import sb3

    return path.is_dir() or sb3.is_agent(path)


def _load_sb3(path: Path, **options: Any) -> Policy:
    from eventsim.models.importers import rl_zoo, sb3

    return sb3.load(rl_zoo.find_agent(path) if path.is_dir() else path, **options)


IMPORTERS: list[Importer] = [
    Importer("saved eventsim policy (.safetensors)", _is_saved, _load_saved, frozenset({"env"})),
    Importer(
        "Stable-Baselines3 zip or RL Zoo folder",
        _is_sb3,
        _load_sb3,
        frozenset({"env", "normalization", "time_feature", "algorithm"}),
    ),
]
"""Formats, in the order in which `load_policy` asks them; append to add one."""
