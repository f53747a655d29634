"""Errors that eventsim raises on purpose: one clear sentence each, with the remedy."""

from __future__ import annotations


class EventsimError(Exception):
    """Base class of every error that eventsim raises on purpose.

    Parameters
    ----------
    message : str
        One sentence that names what is wrong and how to mend it.
    where : str, optional
        The object or file at fault, such as ``"projection 'input->hidden'"``.
    field : str, optional
        The field of that object, such as ``"weights"``.
    """

    def __init__(self, message: str, *, where: str | None = None, field: str | None = None) -> None:
        self.where = where
        self.field = field
        prefix = where or ""
        if field is not None:
            prefix = f"{prefix}, field '{field}'" if prefix else f"field '{field}'"
        super().__init__(f"{prefix}: {message}" if prefix else message)


class NetworkError(EventsimError, ValueError):
    """A network description that contradicts itself or is not supported."""


class InputError(EventsimError, ValueError):
    """Input values that a simulator, encoder or function cannot take."""


class SimulationError(EventsimError, ArithmeticError):
    """A state that is no longer a finite number."""


class FileFormatError(EventsimError, ValueError):
    """A file that is not what it should be: damaged, foreign or hostile."""


class UnsupportedError(EventsimError, NotImplementedError):
    """A feature of the user's file or network that eventsim does not offer."""


class MissingDependencyError(EventsimError, ImportError):
    """An optional library that is not installed; the message names the extra."""


class UnknownNameError(EventsimError, LookupError):
    """A name of a policy, device or environment that is not known."""


class OutputError(EventsimError, OSError):
    """A place that cannot be written."""
