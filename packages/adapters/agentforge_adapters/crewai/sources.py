"""What the adapters of all releases share: outputs that are no objects."""

from typing import Any, Dict, Mapping, Optional

__all__ = ["as_object", "unwrapped"]

_WRAPPED = "response"
"""The only property of the object that carries an output which is none itself."""


def as_object(schema: Dict[str, Any]) -> Dict[str, Any]:
    """Return the schema of an object that carries an output: CrewAI's are pydantic models."""
    if _is_object(schema):
        return schema
    inner = dict(schema)
    outer: Dict[str, Any] = {"type": "object", "properties": {_WRAPPED: inner}, "required": [_WRAPPED]}
    if "$defs" in inner:
        outer["$defs"] = inner.pop("$defs")
    return outer


def unwrapped(value: Mapping[str, Any], schema: Optional[Dict[str, Any]]) -> Any:
    """Return the output that such an object carries."""
    return value if _is_object(schema) else value[_WRAPPED]


def _is_object(schema: Optional[Dict[str, Any]]) -> bool:
    return schema is not None and schema.get("type") == "object"
