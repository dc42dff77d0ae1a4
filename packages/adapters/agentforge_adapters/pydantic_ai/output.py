"""Structured answers: they come as the arguments of a tool, so one that is no object travels inside of one."""

from typing import Any, Dict, Optional

from pydantic_ai import StructuredDict, ToolOutput

__all__ = ["OUTPUT_TOOL", "Schema", "output_type", "unwrapped"]

OUTPUT_TOOL = "final_result"
"""pydantic-ai's own name for the tool. It is no part of the conversation."""
_WRAPPED = "response"
"""pydantic-ai's own name for the property that holds an answer which is no object."""

Schema = Dict[str, Any]


def output_type(schema: Optional[Schema]) -> Any:
    """Return what an agent takes as its output type."""
    if schema is None:
        return str
    return ToolOutput(StructuredDict(schema if _is_object(schema) else _wrapper(schema)), name=OUTPUT_TOOL)


def unwrapped(schema: Optional[Schema], value: Any) -> Any:
    """Return the answer itself. One that is not as it should be stays as it is: the host says what is wrong."""
    if schema is None or _is_object(schema) or not isinstance(value, dict):
        return value
    return value.get(_WRAPPED, value)


def _wrapper(schema: Schema) -> Schema:
    inner = dict(schema)
    outer: Schema = {"type": "object", "properties": {_WRAPPED: inner}, "required": [_WRAPPED]}
    if "$defs" in inner:  # references to them start at the root
        outer["$defs"] = inner.pop("$defs")
    return outer


def _is_object(schema: Schema) -> bool:
    return schema.get("type") == "object"
