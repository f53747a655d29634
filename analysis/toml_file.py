"""What the readers of device profiles and of chips share: files by name, errors with a line."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from eventsim.errors import FileFormatError, UnknownNameError

CONFIDENCES = ("H", "M", "L")
T = TypeVar("T")


def names_in(package: str) -> tuple[str, ...]:
    """Names of the TOML files that ship in a package, sorted."""
    names = (entry.name for entry in resources.files(package).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def load_named(
    name: str | os.PathLike[str], kind: str, package: str, parse: Callable[[str, str], T]
) -> T:
    """Parse a file by the name under which it ships in `package`, or by its path.

    Raises
    ------
    UnknownNameError
        If there is no such name or file.
    FileFormatError
        If the file cannot be read as text, or as `parse` raises it.
    """
    text = os.fspath(name)
    if isinstance(name, str) and not text.endswith(".toml") and Path(text).name == text:
        names = names_in(package)
        if text not in names:
            near = difflib.get_close_matches(text.lower(), names, 3, 0.5)
            hint = (
                f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}."
            )
            raise UnknownNameError(
                f"{kind} '{text}' is not known; {hint} Your own is given as a path to a .toml file."
            )
        entry = resources.files(package) / f"{text}.toml"
        return parse(entry.read_text(encoding="utf-8"), f"{kind} '{text}'")
    try:
        content = Path(text).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UnknownNameError(f"{kind} '{text}' does not exist; check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"cannot be read as a text file ({error})", where=text) from error
    return parse(content, text)


class TomlReader:
    """Holds the text of a file, so that an error can name the line.

    Parameters
    ----------
    text : str
    where : str
        Name of the file, for error messages.

    Raises
    ------
    FileFormatError
        If the text is not TOML.
    """

    def __init__(self, text: str, where: str) -> None:
        self.text = text
        self.where = where
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise FileFormatError(f"is not valid TOML: {error}", where=where) from error

    def fail(self, message: str, table: str, key: str = "") -> FileFormatError:
        """Return the error that names file, line and key."""
        line = find_line(self.text, table, key)
        where = self.where if line is None else f"{self.where}, line {line}"
        field = ".".join(part for part in (table, key) if part)
        return FileFormatError(message, where=where, field=field or None)

    def only_known(self, found: Iterable[str], known: tuple[str, ...], table: str) -> None:
        """Refuse a key that has no meaning."""
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
                raise self.fail(f"is not a known key here; {hint}", table, key)

    def string(self, table: dict[str, Any], name: str, key: str) -> str:
        """Return a text that is not empty."""
        if key not in table:
            raise self.fail("is missing; give a string", name, key)
        value = table[key]
        if not isinstance(value, str) or not value.strip():
            raise self.fail(f"is {value!r}; give a non-empty string", name, key)
        return value.strip()

    def strings(self, key: str) -> tuple[str, ...]:
        """Return a list of sentences, which may be absent."""
        value = self.data.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.fail("must be a list of sentences", "", key)
        return tuple(value)

    def choice(self, value: str, choices: Iterable[str], table: str, key: str) -> None:
        """Refuse a text that is not one of a few."""
        choices = tuple(choices)
        if value not in choices:
            raise self.fail(f"is '{value}'; give one of {', '.join(choices)}", table, key)


def find_line(text: str, table: str, key: str) -> int | None:
    """Line of `key` in `table`, else that of the table's head; best effort, by searching."""
    current, head = "", None
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\s*([\w-]+)\s*\]", line):
            current = match[1]
            if current == (table or key):
                head = number
        elif match := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line):
            if key and (current, match[1]) == (table, key):
                return number
            if (current, match[1]) == ("", table):
                head = number
    return head
