"""JSON Schemas of arguments and answers as LlamaIndex sends them."""

from typing import Any, Dict

__all__ = ["Schema", "as_object", "titled", "unwrapped"]

Schema = Dict[str, Any]

_WRAPPED = "response"
"""The only property of the object that carries an answer which is none itself."""


def titled(schema: Schema) -> Schema:
    """Return a schema with the titles that Pydantic gives fields."""
    properties = {
        name: property if "$ref" in property else {"title": name.replace("_", " ").title(), **property}
        for name, property in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties}


def as_object(schema: Schema) -> Schema:
    """Return the schema of an object that holds the answer: models give answers as arguments of a function."""
    if _is_object(schema):
        return schema
    inner = dict(schema)
    outer: Schema = {"type": "object", "properties": {_WRAPPED: inner}, "required": [_WRAPPED]}
    if "$defs" in inner:  # references to them start at the root
        outer["$defs"] = inner.pop("$defs")
    return outer


def unwrapped(schema: Schema, value: Any) -> Any:
    """Return the answer itself. One that is not as it should be stays as it is: the host says what is wrong."""
    if _is_object(schema) or not isinstance(value, dict):
        return value
    return value.get(_WRAPPED, value)


def _is_object(schema: Schema) -> bool:
    return schema.get("type") == "object"
