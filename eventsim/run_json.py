"""Read run.json, which anybody may have edited: every field is held against the schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from eventsim.errors import FileFormatError

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
# Larger than any run.json: something else is not read into memory.
_LARGEST = 256 * 1024 * 1024


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    FileFormatError
        If it is not one.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise FileFormatError(f"is larger than {_LARGEST} bytes", where=str(path))
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"cannot be read as JSON ({error})", where=str(path)) from error
    if not isinstance(data, dict):
        raise FileFormatError("does not hold a JSON object", where=str(path))
    return data


def read_run(path: Path) -> dict[str, Any]:
    """Read run.json and check it against the schema ``eventsim-run/1``.

    Raises
    ------
    FileFormatError
        If the file is damaged or foreign; the message names file and field.
    """
    data = read_json(path)
    check_run(data, str(path), "write it again with eventsim run --out")
    return data


def check_run(data: Mapping[str, Any], where: str, remedy: str) -> None:
    """Hold figures against the schema.

    Raises
    ------
    FileFormatError
        If a field breaks it; the message names file and field.
    """
    file = resources.files("eventsim") / "schemas" / "eventsim-run-1.schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    fault = _fault(data, schema, schema, "")
    if fault is not None:
        field, reason = fault
        raise FileFormatError(f"{reason}; {remedy}", where=where, field=field)


def _fault(
    data: Any, schema: Mapping[str, Any], root: Mapping[str, Any], at: str
) -> tuple[str, str] | None:
    """Return the first field that breaks the schema, and how; the keywords are those it uses."""
    if "$ref" in schema:
        return _fault(data, root["$defs"][schema["$ref"].rpartition("/")[2]], root, at)
    name = at or "/"
    if "const" in schema and data != schema["const"]:
        return name, f"is {_short(data)}, not {schema['const']!r}"
    if "enum" in schema and data not in schema["enum"]:
        return name, f"is {_short(data)}, not one of {schema['enum']}"
    if "anyOf" in schema:
        faults = [_fault(data, option, root, at) for option in schema["anyOf"]]
        if None not in faults:
            # The option that got furthest says most.
            return max((f for f in faults if f is not None), key=lambda f: len(f[0]))
    if "type" in schema and not _is(data, schema["type"]):
        return name, f"is {_short(data)}, not of type {schema['type']}"
    if isinstance(data, int | float) and not isinstance(data, bool):
        if isinstance(data, float) and not math.isfinite(data):
            return name, f"is {data}, not a finite number"
        if data < schema.get("minimum", -math.inf) or data > schema.get("maximum", math.inf):
            return name, f"is {data}, out of range"
        if data <= schema.get("exclusiveMinimum", -math.inf):
            return name, f"is {data}, out of range"
        # Arrays hold no larger integers.
        if isinstance(data, int) and not -(2**63) <= data < 2**63:
            return name, f"is {_short(data)}, out of range"
    if isinstance(data, list):
        if not schema.get("minItems", 0) <= len(data) <= schema.get("maxItems", len(data)):
            return name, f"has {len(data)} entries"
        inner = list(zip(range(len(data)), data, _item_schemas(schema, len(data)), strict=True))
        return _first(inner, root, at)
    if isinstance(data, dict):
        missing = [key for key in schema.get("required", ()) if key not in data]
        if missing:
            return f"{at}.{missing[0]}".lstrip("."), "is missing"
        known = schema.get("properties", {})
        rest = schema.get("additionalProperties", {})
        rest = rest if isinstance(rest, dict) else {}
        return _first([(k, v, known.get(k, rest)) for k, v in data.items()], root, at)
    return None


def _item_schemas(schema: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    first: list[Mapping[str, Any]] = list(schema.get("prefixItems", ()))
    return [*first[:count], *[schema.get("items") or {}] * (count - len(first))]


def _first(
    entries: list[tuple[Any, Any, Mapping[str, Any]]], root: Mapping[str, Any], at: str
) -> tuple[str, str] | None:
    for key, value, schema in entries:
        fault = _fault(value, schema, root, f"{at}.{key}".lstrip("."))
        if fault is not None:
            return fault
    return None


def _is(data: Any, kind: str | list[str]) -> bool:
    if isinstance(kind, list):
        return any(_is(data, one) for one in kind)
    if kind in ("integer", "number") and isinstance(data, bool):
        return False
    return isinstance(data, _TYPES[kind])


def _short(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:57]}..."
