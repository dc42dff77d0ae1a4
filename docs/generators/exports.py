"""The reference of the file that a run is exported to. Out of the forms that an import checks."""

import json
from typing import Any

from agentforge.engine.exported import export_schema
from generators.markdown import table

__all__ = ["kind_of", "run_export", "run_export_schema"]


def run_export_schema() -> str:
    """The JSON Schema of the entries."""
    return json.dumps(export_schema(), indent=2, ensure_ascii=False) + "\n"


def run_export() -> str:
    """Every field of every entry."""
    schema = export_schema()
    parts = []
    for name, entry in schema["properties"].items():
        form = schema["$defs"][_form(entry)]
        rows = [(f"`{field}`", kind_of(value)) for field, value in form["properties"].items()]
        parts += [f"### `{name}`", form["description"], table(("field", "value"), rows)]
    return "\n\n".join(parts)


def _form(entry: dict[str, Any]) -> str:
    return str((entry.get("items") or entry)["$ref"]).rpartition("/")[2]


def kind_of(value: dict[str, Any]) -> str:
    """Return what a field may hold, in words."""
    if "anyOf" in value:
        return " or ".join(kind_of(each) for each in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    words = {"object": "object", "null": "null", "string": "text", "integer": "whole number", "number": "number"}
    kind = words.get(value.get("type", ""), str(value.get("type", "any JSON")))
    inner = value.get("additionalProperties")
    if isinstance(inner, dict) and inner:
        kind = f"object of {kind_of(inner) if '$ref' not in inner else 'objects with `sha256` and `size`'}"
    return f"{kind} ({value['description']})" if "description" in value else kind
