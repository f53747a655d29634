"""Policies that ship with the package, by name; `eventsim.models.zoo.build` makes them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventsim.errors import UnknownNameError

if TYPE_CHECKING:
    from eventsim.models.policy import Policy


def files() -> dict[str, Path]:
    """Return the files of the policies by name, in order of name."""
    folder = Path(__file__).resolve().parent
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def names() -> tuple[str, ...]:
    """Return the names of the policies, in order."""
    return tuple(files())


def path(name: str) -> Path:
    """Return the file of the policy `name`, in any case.

    Raises
    ------
    UnknownNameError
        If there is none; the message suggests near names.

    Examples
    --------
    >>> from eventsim.models import zoo
    >>> zoo.path("CartPole").name
    'cartpole.safetensors'
    """
    known = files()
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known)}"
    raise UnknownNameError(f"the zoo has no policy '{name}'; {hint}")


def load(name: str) -> Policy:
    """Load the policy `name`.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    from eventsim.models.policy import Policy

    return Policy.load(path(name))


def metadata(name: str) -> dict[str, Any]:
    """Return what is stored about the policy `name`; docs/zoo.md lists the fields.

    Raises
    ------
    UnknownNameError
        If there is none.
    """
    return dict(load(name).metadata)
