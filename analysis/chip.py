"""The limits of a chip, read from a TOML file (schema eventsim-chip/1)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from eventsim.analysis.toml_file import CONFIDENCES, TomlReader, load_named, names_in

SCHEMA = "eventsim-chip/1"

# Each limit, and whether its table must say a unit.
_LIMITS = {
    "cores": False,
    "neurons": False,
    "memory": True,
    "weight": True,
    "state": True,
    "fan_in": False,
    "fan_out": False,
}
_MESH = ("width", "height", "cores_per_tile")
_BITS = {"bit": 1, "byte": 8, "KiB": 8192}
_PACKAGE = "eventsim.analysis.chips"


@dataclass(frozen=True)
class Limit:
    """One limit of a chip.

    Parameters
    ----------
    value : int or None
        A number of things, or bits; None where it is not published or does not apply.
    source, confidence, includes, note : str
        As in an energy profile.
    """

    value: int | None = None
    source: str = ""
    confidence: str = ""
    includes: str = ""
    note: str = ""


@dataclass(frozen=True)
class Mesh:
    """Tiles of cores in a rectangle, through which events travel."""

    width: int
    height: int
    cores_per_tile: int
    source: str
    confidence: str


@dataclass(frozen=True, eq=False)
class Chip:
    """Limits of a chip and its cores. Read one with `load_chip`.

    Parameters
    ----------
    name, title : str
    limits : mapping of str to Limit
        ``cores`` of a chip; of each core ``neurons``, ``memory`` (bits), ``fan_in`` (source
        neurons whose events it takes) and ``fan_out`` (pairs of one of its neurons and a target
        core); ``weight`` and ``state``, bits of a synapse and of a neuron.
    mesh : Mesh or None
    assumptions : tuple of str
    """

    name: str
    title: str
    limits: Mapping[str, Limit]
    mesh: Mesh | None = None
    assumptions: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> int | None:
        return self.limits[name].value

    @property
    def sources(self) -> tuple[str, ...]:
        """Citations, each once."""
        found = [limit.source for limit in self.limits.values() if limit.source]
        if self.mesh is not None:
            found.append(self.mesh.source)
        return tuple(dict.fromkeys(found))


def list_chips() -> tuple[str, ...]:
    """Names of the chips that ship with eventsim, sorted."""
    return names_in(_PACKAGE)


def load_chip(name: str | os.PathLike[str]) -> Chip:
    """Load the limits of a chip.

    Parameters
    ----------
    name : str or path
        A name of `list_chips`, or a TOML file.

    Raises
    ------
    UnknownNameError
        If there is no such chip or file.
    FileFormatError
        If the file is not in order; the message has file, line and key.

    Examples
    --------
    >>> from eventsim.analysis.chip import load_chip
    >>> load_chip("loihi")["neurons"]
    1024
    """
    return load_named(name, "chip", _PACKAGE, parse_chip)


def parse_chip(text: str, where: str) -> Chip:
    """Parse the text of a chip file.

    Parameters
    ----------
    text : str
        TOML.
    where : str
        Name of the file, for error messages.

    Raises
    ------
    FileFormatError
        If it is not TOML, or a key is missing, unknown or out of range.
    """
    return _Reader(text, where).chip()


class _Reader(TomlReader):
    def chip(self) -> Chip:
        data = self.data
        self.only_known(data, ("schema", "name", "title", "assumptions", "mesh", *_LIMITS), "")
        texts = {key: self.string(data, "", key) for key in ("schema", "name", "title")}
        self.choice(texts["schema"], (SCHEMA,), "", "schema")
        assumptions = self.strings("assumptions")
        limits = {name: self.limit(data, name, unit) for name, unit in _LIMITS.items()}
        for name in ("cores", "weight"):
            if limits[name].value is None:
                raise self.fail("must have a value: nothing can be placed without it", name)
        mesh = None
        if "mesh" in data:
            table = self.table(data, "mesh")
            self.only_known(table, (*_MESH, "source", "confidence"), "mesh")
            width, height, cores = (self.count(table, "mesh", key) for key in _MESH)
            mesh = Mesh(width, height, cores, *self.citation(table, "mesh"))
        return Chip(texts["name"], texts["title"], MappingProxyType(limits), mesh, assumptions)

    def limit(self, data: dict[str, Any], name: str, unit: bool) -> Limit:
        table = self.table(data, name)
        if "unknown" in table:
            self.only_known(table, ("unknown", "note"), name)
            if table["unknown"] is not True:
                raise self.fail("must be true, or left out", name, "unknown")
            return Limit(note=str(table.get("note", "")))
        allowed = ("value", "source", "confidence", "includes", "note", *(["unit"] if unit else []))
        self.only_known(table, allowed, name)
        value = self.count(table, name, "value")
        if unit:
            found = self.string(table, name, "unit")
            self.choice(found, _BITS, name, "unit")
            value *= _BITS[found]
        source, confidence = self.citation(table, name)
        rest = {key: str(table.get(key, "")) for key in ("includes", "note")}
        return Limit(value, source, confidence, **rest)

    def table(self, data: dict[str, Any], name: str) -> dict[str, Any]:
        table = data.get(name)
        if not isinstance(table, dict):
            raise self.fail(
                f"is missing; add the table [{name}], with 'unknown = true' if no figure is "
                "published",
                name,
            )
        return table

    def citation(self, table: dict[str, Any], name: str) -> tuple[str, str]:
        source, confidence = (self.string(table, name, key) for key in ("source", "confidence"))
        self.choice(confidence, CONFIDENCES, name, "confidence")
        return source, confidence

    def count(self, table: dict[str, Any], name: str, key: str) -> int:
        value = table.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fail(f"is {value!r}; give a whole number above 0", name, key)
        return value
