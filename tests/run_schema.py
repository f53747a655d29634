"""The JSON Schema of run.json, held against a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import eventsim

SCHEMA = Path(eventsim.__file__).parent / "schemas" / "eventsim-run-1.schema.json"


def undocumented(data: Any, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """Fields of `data` that the schema does not name."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for option in schema.get("anyOf", []):
        if option.get("type") != "null" and data is not None:
            return undocumented(data, option, root)
    if isinstance(data, list):
        items = schema.get("items") or {}
        return [name for entry in data for name in undocumented(entry, items, root)]
    if not isinstance(data, dict):
        return []
    known = schema.get("properties", {})
    return [name for name in data if name not in known] + [
        f"{name}.{inner}"
        for name in data
        if name in known
        for inner in undocumented(data[name], known[name], root)
    ]


def validate(data: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the schema needs jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema, cls=jsonschema.Draft202012Validator)
    assert undocumented(data, schema, schema) == []
