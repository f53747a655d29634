"""What reading a pickle inertly gives, and the rules of what it may build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np


class MalformedError(ValueError):
    """A pickle that does not make sense; the message goes on from "holds a pickle that"."""


@dataclass(frozen=True)
class Name:
    """A global that a pickle names, such as ``numpy.dtype``; it is never imported."""

    module: str
    attribute: str

    def __str__(self) -> str:
        text = f"{self.module}.{self.attribute}"
        return text if len(text) <= 80 else f"{text[:77]}..."


@dataclass(eq=False, repr=False)
class Inert:
    """An object that a pickle would build by calling something; nothing was called.

    Attributes
    ----------
    constructor : object
        What would be called, as a rule a `Name`.
    arguments : object
        As a rule the tuple of its arguments.
    state : object
        What the pickle would set on the new object.
    items : list
        What it would append, or the (key, value) pairs that it would set.
    """

    constructor: Any
    arguments: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)

    @property
    def kind(self) -> Name | None:
        """Class of the object, if the pickle names one."""
        named = self.constructor
        if isinstance(named, Name) and named.attribute in _RECONSTRUCTORS:
            named = self.arguments[0] if isinstance(self.arguments, tuple) and self.arguments else 0
        return named if isinstance(named, Name) else None

    @property
    def fields(self) -> dict[str, Any]:
        """Attributes of the object by name, as far as its state is a dict (or dict and slots)."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        return {
            key: value
            for part in parts
            if isinstance(part, dict)
            for key, value in part.items()
            if isinstance(key, str)
        }


# How protocols 0 to 2 write any object: copyreg's helper, with the class as first argument.
_RECONSTRUCTORS = ("_reconstructor", "__newobj__", "__newobj_ex__")

Builder: TypeAlias = Callable[..., Any]


def admit_all(name: Name) -> bool:
    """Admit every name: an inert one does nothing."""
    return True


@dataclass(frozen=True)
class Rules:
    """What a pickle may build.

    Parameters
    ----------
    builders : mapping of (module, attribute) to callable
        Called with the arguments that the pickle gives, unchecked, in place of the name. It
        raises ValueError (or TypeError) on arguments that do not fit.
    admit : callable, optional
        Whether a name without builder may stand in the file; default every name that is not
        known to run commands.
    set_state : callable, optional
        Given an object that a builder made and the state that the pickle sets on it, unchecked.
        It raises ValueError (or TypeError) if they do not fit.
    persistent : callable, optional
        Turns a persistent id into an object; default: refused.
    """

    builders: Mapping[tuple[str, str], Builder]
    admit: Callable[[Name], bool] = admit_all
    set_state: Callable[[Any, Any], None] | None = None
    persistent: Callable[[Any], Any] | None = None


# Nothing is ever called, so this list guards nothing: it lets the error say what the file is.
_COMMANDS = frozenset(
    """
    os posix nt ntpath posixpath subprocess pty commands popen2 shutil socket sys importlib imp
    runpy code codeop webbrowser ctypes pickle _pickle cPickle marshal multiprocessing asyncio
    threading signal tempfile pathlib urllib http ftplib smtplib pip
    """.split()  # noqa: SIM905
)
_COMMAND_BUILTINS = frozenset(
    """
    eval exec execfile compile open __import__ input breakpoint globals locals vars
    """.split()  # noqa: SIM905
)


def runs_commands(name: Name) -> bool:
    """Whether a call of `name` could run commands or touch files."""
    if name.module in ("builtins", "__builtin__", "__builtins__", "io", "_io"):
        return name.attribute.split(".")[0] in _COMMAND_BUILTINS
    return name.module.split(".")[0] in _COMMANDS


_ATOMS = (str, int, float, bytes, type(None), Name, Inert, np.generic)


def atom(value: Any) -> Any:
    """Return `value` if it may be a key or an element of a set; raise MalformedError if not."""
    # Tuples of atoms at most: hashing deeply nested tuples can exhaust the C stack.
    flat = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(item, _ATOMS) for item in flat):
        raise MalformedError("uses a container as a key")
    return value
