"""JSON Schemas as Python types: what CrewAI's older releases know tools and outputs by."""

import re
from typing import Any, Dict, List, Literal, Mapping, Optional, Tuple, Type, Union

from pydantic import BaseModel, Field, create_model

__all__ = ["Form", "form_of", "type_of"]

_TYPES: Dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
    "object": Dict[str, Any],
    "array": List[Any],
}
_DEEPEST = 20
"""Levels of a schema; what lies deeper, in one that contains itself, is any value."""

Schema = Mapping[str, Any]


class Form(BaseModel):
    """A value that fits a schema."""

    def model_dump(self, **options: Any) -> Dict[str, Any]:
        """Return what was given, as JSON values: nothing filled in."""
        return super().model_dump(**{"mode": "json", "exclude_unset": True, **options})


def form_of(schema: Schema, name: str) -> Type[Form]:
    """Return the pydantic model of an object's schema."""
    return _form(schema, re.sub(r"\W", "_", schema.get("title", name)), schema, 0)


def type_of(schema: Schema, root: Schema) -> Any:
    """Return the Python type of a schema; `root` is the document that its references point into."""
    return _type(schema, "Value", root, 0)


def _type(schema: Schema, name: str, root: Schema, depth: int) -> Any:
    if depth > _DEEPEST:
        return Any
    if "$ref" in schema:
        return _type(_referred(schema["$ref"], root), schema["$ref"].rpartition("/")[2], root, depth + 1)
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        plain = all(value is None or isinstance(value, (str, int)) for value in values)
        return Literal[tuple(values)] if plain and values else Any
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return _one_of([_type(part, name, root, depth + 1) for part in schema[key]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _one_of([_type({**schema, "type": each}, name, root, depth + 1) for each in kind])
    if kind == "array" and isinstance(schema.get("items"), dict):
        return List[_type(schema["items"], name, root, depth + 1)]  # type: ignore[misc]
    if schema.get("properties"):
        return _form(schema, re.sub(r"\W", "_", schema.get("title", name.title())), root, depth + 1)
    return _TYPES.get(str(kind), Any)


def _form(schema: Schema, name: str, root: Schema, depth: int) -> Type[Form]:
    fields: Dict[str, Tuple[Any, Any]] = {}
    for key, inner in schema.get("properties", {}).items():
        default = ... if key in schema.get("required", ()) else inner.get("default")
        fields[key] = (_type(inner, key, root, depth), Field(default, description=inner.get("description")))
    closed = schema.get("additionalProperties") is False
    base = type("Form", (Form,), {"model_config": {"extra": "forbid"}}) if closed else Form
    made: Type[Form] = create_model(name, __base__=base, **fields)  # type: ignore[call-overload]
    return made


def _one_of(types: List[Any]) -> Any:
    return Union[tuple(types)] if types else Any


def _referred(reference: str, root: Schema) -> Schema:
    found: Optional[Any] = root
    for part in reference.lstrip("#/").split("/"):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {}
