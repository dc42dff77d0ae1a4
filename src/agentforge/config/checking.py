"""Check a `Source` against a pydantic model and say what is wrong in the user's terms.

Validators refuse with `refusal`, which carries our error class and hint through pydantic; everything else pydantic
finds is translated here, and nowhere else.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticCustomError

from agentforge.config.source import KeyPath, Problem, Source, did_you_mean, fault, shown
from agentforge.errors.config import ConfigError, InvalidValueError, MissingKeyError, UnknownKeyError

__all__ = ["Section", "check", "dotted", "problems_of", "refusal"]

ModelT = TypeVar("ModelT", bound=BaseModel)
_MOST_PROBLEMS = 1000
SECRET_KEYS = frozenset({"api_key"})

_EXPECTED = {
    "string_type": "text",
    "string_too_short": "text that is not empty",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "`true` or `false`",
    "date_type": "a day, for example 2026-12-31",
    "date_from_datetime_inexact": "a day, for example 2026-12-31",
    "datetime_type": "a moment, for example 2026-11-15T00:00:00Z",
    "tuple_type": "a list",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "mapping_type": "keys with values",
    "literal_error": "one of {choices}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
}


class Section(BaseModel):
    """A group of keys that a user writes: nothing unknown, nothing converted silently, never changed."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Refusal(TypedDict):
    """What a validator's refusal carries."""

    statement: str
    hint: str
    kind: type[ConfigError]
    key: NotRequired[str]


def refusal(
    statement: str, hint: str, kind: type[ConfigError] = InvalidValueError, key: str | None = None
) -> PydanticCustomError:
    """Return the error that a validator raises.

    `statement` continues after the key (`is ...`) unless `key` is given, which names the key of the section that is
    meant when a whole section is checked; then it is a sentence of its own.
    """
    statement = statement.encode(errors="backslashreplace").decode()  # pydantic can't hold halves of surrogate pairs
    context: dict[str, Any] = {"statement": statement, "hint": hint, "kind": kind}
    if key is not None:
        context["key"] = key
    return PydanticCustomError("refused", "{statement}", context)


def check(model: type[ModelT], source: Source) -> ModelT:
    """Return the source's data as a model. Raises the ConfigError of everything that is wrong with it."""
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        raise fault(problems_of(model, source, error)) from None


def problems_of(model: type[BaseModel], source: Source, error: ValidationError) -> list[Problem]:
    """Return everything that is wrong with a source, in the order of the file; of a great many the first ones."""
    found = error.errors(include_url=False)[:_MOST_PROBLEMS]
    problems = [_problem(model, source, cast("Mapping[str, Any]", each)) for each in found]
    return sorted(problems, key=_order)


def dotted(path: Sequence[str | int]) -> str:
    """Return a path as a user reads it: `tools[0].timeout_s`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _order(problem: Problem) -> tuple[int, int]:
    mark = problem.place.mark
    return (mark.line, mark.column) if mark else (0, 0)


def _problem(model: type[BaseModel], source: Source, error: Mapping[str, Any]) -> Problem:
    path = tuple(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return _unknown_key(model, source, path)
    if kind == "missing":
        return _missing_key(model, source, path)
    if path and path[-1] == "[key]":  # what pydantic adds where a key of a table, not its value, is wrong
        path = path[:-1]
    if kind == "refused":
        return _refused(source, path, error["ctx"])
    return _invalid(model, source, path, error)


def _unknown_key(model: type[BaseModel], source: Source, path: KeyPath) -> Problem:
    key = str(path[-1])
    owner = dotted(path[:-1])
    statement = f"`{key}` is not a known key" + (f" of `{owner}`" if owner else "")
    section = _section_at(model, path[:-1])
    hint = did_you_mean(key, _keys(section)) if section else ""
    return Problem(UnknownKeyError, source.key_place(path), dotted(path), statement, hint)


def _missing_key(model: type[BaseModel], source: Source, path: KeyPath) -> Problem:
    key = str(path[-1])
    owner = dotted(path[:-1])
    statement = f"`{key}` is missing" + (f" in `{owner}`" if owner else "")
    what = _description(model, path)
    return Problem(
        MissingKeyError, source.value_place(path[:-1]), dotted(path), statement, f"Add `{key}`: {what}".strip()
    )


def _refused(source: Source, path: KeyPath, context: Refusal) -> Problem:
    key = context.get("key")
    if key is None:
        statement = f"`{dotted(path)}` {context['statement']}"
        return Problem(context["kind"], source.value_place(path), dotted(path), statement, context["hint"])
    path = (*path, key) if key else path
    return Problem(context["kind"], source.key_place(path), dotted(path), context["statement"], context["hint"])


def _invalid(model: type[BaseModel], source: Source, path: KeyPath, error: Mapping[str, Any]) -> Problem:
    key = dotted(path)
    value = error["input"]
    context = dict(error.get("ctx", {}))
    choices = _choices(model, path) if error["type"] == "literal_error" else []
    context["choices"] = ", ".join(f"`{each}`" for each in choices) or context.get("expected", "")
    expected = _EXPECTED.get(error["type"])
    context |= {name: f"{number:g}" for name, number in context.items() if isinstance(number, float)}
    what = f"`{key}` has no value" if value is None else f"`{key}` is {_said(path, value)}"
    wanted = f"expected {expected.format(**context)}" if expected else error["msg"]
    hint = _description(model, path)
    is_secret = bool(path) and path[-1] in SECRET_KEYS
    if error["type"] == "string_type" and isinstance(value, bool | int | float) and not is_secret:
        hint = f'Put it in quotes if it is text: `"{shown(value)}"`.'
    elif choices and isinstance(value, str):
        hint = did_you_mean(value, choices)
    return Problem(InvalidValueError, source.value_place(path), key, f"{what}; {wanted}", hint)


def _said(path: KeyPath, value: object) -> str:
    """Return a value for a message; never one that may hold a secret."""
    if path and path[-1] in SECRET_KEYS:
        return "a value (not shown)"
    if isinstance(value, dict):
        return "a group of keys"
    if isinstance(value, list) and not all(isinstance(each, str | int | float) for each in value):
        return "a list"
    return f"`{shown(value)}`"


def _keys(section: type[BaseModel]) -> list[str]:
    return list(section.model_fields)


def _description(model: type[BaseModel], path: KeyPath) -> str:
    """Return what the key of a path is for (an item of a list or table: what that is for)."""
    for length in range(len(path), 0, -1):
        section = _section_at(model, path[: length - 1])
        field = section.model_fields.get(str(path[length - 1])) if section else None
        if field:
            return field.description or ""
    return ""


def _choices(model: type[BaseModel], path: KeyPath) -> list[str]:
    section = _section_at(model, path[:-1])
    field = section.model_fields.get(str(path[-1])) if section else None
    return [str(each) for each in _literals(field.annotation)] if field else []


def _literals(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [each for inner in typing.get_args(annotation) for each in _literals(inner)]


def _section_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the model that the value at a path is checked against."""
    here: type[BaseModel] | None = model
    inside: Any = None  # what an item of the container under way is checked against
    for part in path:
        if inside is not None:
            here, inside = _section_in(inside), None
            continue
        field = here.model_fields.get(str(part)) if here else None
        if field is None:
            return None
        container = _container_item(field.annotation)
        here, inside = (None, container) if container is not None else (_section_in(field.annotation), None)
    return here


def _container_item(annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (dict, Mapping):
        return arguments[1]
    if origin in (tuple, list):
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        return next((item for each in arguments if (item := _container_item(each)) is not None), None)
    return None


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in typing.get_args(annotation) if (found := _section_in(each))), None)
