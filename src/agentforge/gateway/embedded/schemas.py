"""JSON Schemas as the engine and the model need them. Pure functions."""

from collections.abc import Sequence
from typing import Any

__all__ = ["call_schema", "choice_schema", "shown"]

Json = Any

_HIDDEN = frozenset({"enum", "const", "additionalProperties", "title", "$schema", "strict", "default", "examples"})
_NAMED = frozenset({"properties", "$defs", "definitions"})
"""Under these keys stand names that the tool's author chose, not words of JSON Schema."""


def shown(schema: Json) -> Json:
    """Return the part of a schema that goes into the prompt.

    Lists of allowed values stay out. The grammar enforces them anyway, and a model this small is led astray by them: of
    84 questions that each name one of six values, it picked the right one 40 times with the list, 82 times without.
    """
    if isinstance(schema, list):
        return [shown(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: shown(part) for name, part in value.items()}
        if key in _NAMED and isinstance(value, dict)
        else shown(value)
        for key, value in schema.items()
        if key not in _HIDDEN
    }


def call_schema(parameters: Json) -> Json:
    """Return the schema that forces the arguments of one tool."""
    return _closed(parameters)


def choice_schema(tools: Sequence[tuple[str, Json]]) -> Json:
    """Return the schema that forces `{"name": ..., "arguments": {...}}` for one of several tools.

    Each tool's own definitions move to the root, where references are looked up, under a prefix that keeps them apart.
    """
    definitions: dict[str, Json] = {}
    choices = []
    for at, (name, parameters) in enumerate(tools):
        arguments = _closed(parameters)
        for key in ("$defs", "definitions"):
            for own, definition in arguments.pop(key, {}).items():
                definitions[f"tool{at}_{own}"] = _moved(definition, at)
        choices.append(
            {
                "type": "object",
                "properties": {"name": {"const": name}, "arguments": _moved(arguments, at)},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Json] = {"anyOf": choices}
    return {**schema, "$defs": definitions} if definitions else schema


def _closed(parameters: Json) -> dict[str, Json]:
    """Return an object schema without room for invented arguments."""
    schema = dict(parameters) if isinstance(parameters, dict) else {}
    schema.setdefault("type", "object")
    schema.setdefault("properties", {})
    schema["additionalProperties"] = False
    return schema


def _moved(schema: Json, at: int) -> Json:
    if isinstance(schema, list):
        return [_moved(part, at) for part in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: _moved(value, at) for key, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        for key in ("#/$defs/", "#/definitions/"):
            if reference.startswith(key):
                moved["$ref"] = f"#/$defs/tool{at}_{reference.removeprefix(key)}"
    return moved
