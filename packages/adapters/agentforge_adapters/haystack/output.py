"""Structured answers: OpenAI's `response_format`, whose schema has to be that of an object."""

import json
from typing import Any, Dict

__all__ = ["response_format", "unwrapped"]

Schema = Dict[str, Any]

_NAME = "answer"
_WRAPPED = "response"
"""The only property of the object that carries an answer which is none itself."""


def response_format(schema: Schema) -> Dict[str, Any]:
    """Return what a model is told of the form of its answer."""
    shown = schema if _is_object(schema) else _wrapper(schema)
    return {"type": "json_schema", "json_schema": {"name": _NAME, "schema": shown}}


def unwrapped(schema: Schema, text: str) -> Any:
    """Return the answer itself. One that is not as it should be stays as it is: the host says what is wrong."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if _is_object(schema) or not isinstance(value, dict) else value.get(_WRAPPED, value)


def _wrapper(schema: Schema) -> Schema:
    inner = dict(schema)
    outer: Schema = {"type": "object", "properties": {_WRAPPED: inner}, "required": [_WRAPPED]}
    if "$defs" in inner:  # references to them start at the root
        outer["$defs"] = inner.pop("$defs")
    return outer


def _is_object(schema: Schema) -> bool:
    return schema.get("type") == "object"
