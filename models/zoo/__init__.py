"""Policies that ship with the package, by name.

An event-driven policy has a short name, such as ``cartpole``; the dense teacher that it was made
from ships as ``cartpole-dense``. `eventsim.models.zoo.train` trains the teachers. Teachers of
policies that see pictures are too large to ship; `eventsim.models.zoo.atari` and
`eventsim.models.zoo.minatar` train them.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventsim.errors import UnknownNameError

if TYPE_CHECKING:
    from eventsim.models.policy import Policy

_DENSE = "-dense"


def files() -> dict[str, Path]:
    """Return the files of the policies by name, in order of name."""
    folder = Path(__file__).resolve().parent
    paths = {path.stem: path for path in folder.glob("[!.]*.safetensors")}
    return dict(sorted(paths.items()))


def names() -> tuple[str, ...]:
    """Return the names of the policies, in order, each before its teacher."""
    return tuple(files())


def event_driven() -> tuple[str, ...]:
    """Return the names of the event-driven policies, in order."""
    return tuple(name for name in names() if not is_dense(name))


def paired() -> tuple[str, ...]:
    """Return the names of the event-driven policies whose teachers ship with them, in order."""
    known = names()
    return tuple(name for name in event_driven() if dense_name(name) in known)


def dense_name(name: str) -> str:
    """Return the name of the teacher of the policy `name`.

    Examples
    --------
    >>> from eventsim.models import zoo
    >>> zoo.dense_name("cartpole")
    'cartpole-dense'
    """
    return name + _DENSE


def is_dense(name: str) -> bool:
    """Whether `name` is that of a dense teacher."""
    return name.endswith(_DENSE)


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
