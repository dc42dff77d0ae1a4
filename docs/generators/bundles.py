"""The reference of the file that environments travel in. Out of the forms that an import checks."""

import json
from typing import Any

import msgspec

from agentforge.environments.bundle import Manifest
from generators.exports import kind_of
from generators.markdown import table

__all__ = ["environment_bundle", "environment_bundle_schema"]


def environment_bundle_schema() -> str:
    """The JSON Schema of the manifest."""
    return json.dumps(_schema(), indent=2, ensure_ascii=False) + "\n"


def environment_bundle() -> str:
    """Every field of the manifest."""
    parts = []
    for name, form in _schema()["$defs"].items():
        rows = [(f"`{field}`", _kind(value)) for field, value in form["properties"].items()]
        parts += [f"### {name}", form["description"], table(("field", "value"), rows)]
    return "\n\n".join(parts)


def _kind(value: dict[str, Any]) -> str:
    item = value.get("items", {})
    if value.get("type") != "array" or not item:
        return kind_of(value)
    inner = f"`{item['$ref'].rpartition('/')[2]}`" if "$ref" in item else kind_of(item)
    return f"list of {inner}" + (f" ({value['description']})" if "description" in value else "")


def _schema() -> dict[str, Any]:
    schema = msgspec.json.schema(Manifest)
    order = ("Manifest", "BundledEnvironment", "BundledPackage", "Part")
    return {**schema, "$defs": {name: schema["$defs"][name] for name in order}}
