"""JSON Schemas as AutoGen words those of functions and models, which it reads with pydantic."""

import copy
import re
from typing import Any, ClassVar, Dict, Type

from pydantic import BaseModel, ConfigDict, create_model

__all__ = ["WRAPPED", "Answer", "as_object", "output_form", "parameters_form", "without_nulls"]

Schema = Dict[str, Any]

WRAPPED = "response"
"""The only property of the object that carries an output which is none itself."""
_BELOW = ("items", "additionalProperties", "not", "contains")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions", "patternProperties")


class Answer(BaseModel):
    """An answer. Any object is one: the host holds it against its schema."""

    model_config = ConfigDict(extra="allow")
    json_form: ClassVar[Schema] = {}

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> Schema:
        """Return the schema as it was given."""
        return copy.deepcopy(cls.json_form)


def parameters_form(schema: Schema, strict: bool) -> Schema:
    """Return a tool's parameters as those of a function: closed, all with titles and descriptions."""
    form: Schema = {"properties": {}, "required": [], **_titled(schema)}
    form.pop("title", None)
    form.pop("description", None)
    form["properties"] = {name: {"description": name, **each} for name, each in form["properties"].items()}
    form.setdefault("additionalProperties", False)
    return _strict(form) if strict else form


def output_form(schema: Schema) -> Type[Answer]:
    """Return the model of an output."""
    name = re.sub(r"\W", "_", schema.get("title", "Answer"))
    form = create_model(name, __base__=Answer)
    form.json_form = _titled(as_object(schema), name)
    return form


def as_object(schema: Schema) -> Schema:
    """Return the schema of an object: one that is none is a property of it."""
    if schema.get("type") == "object":
        return schema
    inner = dict(schema)
    outer: Schema = {"type": "object", "properties": {WRAPPED: inner}, "required": [WRAPPED]}
    if "$defs" in inner:  # references to them start at the root
        outer["$defs"] = inner.pop("$defs")
    return outer


def without_nulls(arguments: Dict[str, Any], schema: Schema) -> Dict[str, Any]:
    """Leave out nulls that stand for arguments not given: strict tools require all."""
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: value
        for name, value in arguments.items()
        if value is not None or name in required or _takes_null(properties.get(name, {}))
    }


def _titled(schema: Schema, title: str = "") -> Schema:
    form = dict(schema)
    if title and "$ref" not in form:
        form.setdefault("title", title)
    for key in _NAMED:
        if isinstance(form.get(key), dict):
            in_words = key == "properties"
            form[key] = {
                name: _titled(each, name.replace("_", " ").title() if in_words else name) if _is(each) else each
                for name, each in form[key].items()
            }
    for key in _BELOW:
        if _is(form.get(key)):
            form[key] = _titled(form[key])
    for key in _SEVERAL:
        if isinstance(form.get(key), list):
            form[key] = [_titled(each) if _is(each) else each for each in form[key]]
    return form


def _strict(schema: Schema) -> Schema:
    """Return the form that OpenAI calls strict: every property is required, the optional ones may be null."""
    form = dict(schema)
    for key in _NAMED:
        if isinstance(form.get(key), dict):
            form[key] = {name: _strict(each) if _is(each) else each for name, each in form[key].items()}
    for key in _BELOW:
        if _is(form.get(key)):
            form[key] = _strict(form[key])
    for key in _SEVERAL:
        if isinstance(form.get(key), list):
            form[key] = [_strict(each) if _is(each) else each for each in form[key]]
    if "properties" in form:
        given = set(form.get("required", ()))
        form["properties"] = {
            name: each if name in given or _takes_null(each) else _or_null(each)
            for name, each in form["properties"].items()
        }
        form["required"] = list(form["properties"])
        form["additionalProperties"] = False
    return form


def _or_null(schema: Schema) -> Schema:
    told = {key: schema[key] for key in ("title", "description") if key in schema}
    rest = {key: value for key, value in schema.items() if key not in (*told, "default")}
    return {**told, "anyOf": [rest, {"type": "null"}]}


def _takes_null(schema: Schema) -> bool:
    kinds = schema.get("type", [])
    if "null" in ([kinds] if isinstance(kinds, str) else kinds):
        return True
    return any(_takes_null(part) for key in ("anyOf", "oneOf") for part in schema.get(key, ()))


def _is(value: Any) -> bool:
    return isinstance(value, dict)
