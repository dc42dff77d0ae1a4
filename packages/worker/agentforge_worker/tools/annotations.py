"""Read annotations: which `Type` each of them means."""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import pathlib
import sys
import types
import typing
import uuid
from typing import Any, Callable, Dict, List, Optional, Sequence

from .docstring import parse_docstring
from .errors import SignatureError
from .result import to_json
from .types import (
    JSON_TYPES,
    AnyType,
    BoolType,
    ChoiceType,
    DecimalType,
    DictType,
    Field,
    FloatType,
    IntType,
    ListType,
    Mismatch,
    ModelType,
    NullType,
    RecordType,
    StrType,
    TextType,
    TupleType,
    Type,
    UnionType,
)

__all__ = ["described", "hints_of", "type_of", "with_null"]

Json = Any
_UNIONS = (typing.Union, getattr(types, "UnionType", typing.Union))
_LISTS: Dict[Any, Callable[[List[Any]], Any]] = {
    list: list, tuple: tuple, set: set, frozenset: frozenset,
    collections.abc.Sequence: list, collections.abc.MutableSequence: list, collections.abc.Iterable: list,
    collections.abc.Collection: list, collections.abc.Set: set, collections.abc.MutableSet: set,
}  # fmt: skip
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def _datetime(text: str) -> datetime.datetime:
    # Python before 3.11 reads no `Z`, which is how JSON usually writes UTC.
    return datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)


_PLAIN: Dict[Any, Callable[[], Type]] = {
    Any: AnyType,
    object: AnyType,
    None: NullType,
    type(None): NullType,
    bool: BoolType,
    int: IntType,
    float: FloatType,
    str: StrType,
    decimal.Decimal: DecimalType,
    datetime.date: lambda: TextType("date", "a date such as 2026-01-31", datetime.date.fromisoformat),
    datetime.datetime: lambda: TextType("date-time", "a date and time such as 2026-01-31T09:30:00Z", _datetime),
    datetime.time: lambda: TextType("time", "a time such as 09:30:00", datetime.time.fromisoformat),
    uuid.UUID: lambda: TextType("uuid", "a UUID", uuid.UUID),
    pathlib.Path: lambda: TextType("path", "a path", pathlib.Path),
    pathlib.PurePath: lambda: TextType("path", "a path", pathlib.PurePath),
}


def type_of(annotation: Any) -> Type:
    """Return the type that an annotation means. Raises SignatureError for one that JSON can't hold."""
    if hasattr(annotation, "__metadata__"):  # Annotated
        return type_of(annotation.__origin__)
    try:
        if annotation in _PLAIN:
            return _PLAIN[annotation]()
    except TypeError:  # unhashable
        pass
    inner = _meaning(annotation)
    if inner is not annotation:
        return type_of(inner)
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        found = _class_type(annotation)
        if found is not None:
            return found
    return _generic_type(annotation)


def _meaning(annotation: Any) -> Any:
    """Return what an alias stands for: NewType, `type X = ...`, a bound TypeVar, Required and NotRequired."""
    if hasattr(annotation, "__supertype__"):
        return annotation.__supertype__
    if type(annotation).__name__ == "TypeAliasType":
        return annotation.__value__
    if isinstance(annotation, typing.TypeVar):
        return annotation.__bound__ or Any
    if _qualifier(annotation):
        return typing.get_args(annotation)[0]
    return annotation


def _qualifier(annotation: Any) -> str:
    """Return `Required` or `NotRequired` for an annotation that is one (of any typing module), else nothing."""
    name = str(typing.get_origin(annotation)).rpartition(".")[2]
    return name if name in ("Required", "NotRequired") else ""


def _class_type(cls: type) -> Optional[Type]:
    if hasattr(cls, "model_json_schema") and hasattr(cls, "model_validate"):
        return ModelType(cls)
    if issubclass(cls, enum.Enum):
        return _enum_type(cls)
    if dataclasses.is_dataclass(cls):
        return RecordType(cls, lambda: _dataclass_fields(cls))
    if issubclass(cls, dict) and hasattr(cls, "__total__"):
        return RecordType(cls, lambda: _typed_dict_fields(cls))
    if cls in _LISTS:
        return ListType(AnyType(), _LISTS[cls])
    return DictType(AnyType()) if cls in _DICTS else None


def _enum_type(cls: Any) -> Type:
    members = list(cls)
    if all(type(member.value) in JSON_TYPES for member in members):
        return ChoiceType({member.value: member for member in members}, dict(cls.__members__))
    if issubclass(cls, str):
        return ChoiceType({str(member.value): member for member in members}, dict(cls.__members__))
    return ChoiceType({member.name: member for member in members})


def _generic_type(annotation: Any) -> Type:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in _UNIONS:
        return UnionType([type_of(each) for each in arguments])
    if origin is typing.Literal:
        return _literal_type(arguments)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis and arguments != ((),):
        return TupleType([type_of(each) for each in arguments])
    if origin in _LISTS:
        return ListType(type_of(arguments[0]) if arguments and arguments != ((),) else AnyType(), _LISTS[origin])
    if origin in _DICTS:
        if arguments and arguments[0] not in (str, Any) and not isinstance(arguments[0], typing.TypeVar):
            raise SignatureError("%s has keys that are not text: write Dict[str, ...]" % _shown(annotation))
        return DictType(type_of(arguments[1]) if arguments else AnyType())
    if origin is not None and isinstance(origin, type):
        found = _class_type(origin)
        if found is not None:
            return found
    raise SignatureError(
        "%s can't be written as JSON: use str, int, float, bool, lists, dicts, dataclasses, enums or dates"
        % _shown(annotation)
    )


def _literal_type(values: Sequence[Any]) -> Type:
    plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
    for value in plain:
        if type(value) not in JSON_TYPES:
            raise SignatureError("the literal %r can't be written as JSON" % (value,))
    pairs = [(value, values[index]) for index, value in enumerate(plain)]
    if len({(type(value), value) for value in plain}) == len(set(plain)):
        return ChoiceType(dict(pairs))
    return UnionType([ChoiceType({value: literal}) for value, literal in pairs])  # 1 and True are one key


def _shown(annotation: Any) -> str:
    return "`%s`" % (getattr(annotation, "__name__", None) if isinstance(annotation, type) else str(annotation))


def hints_of(owner: Any) -> Dict[str, Any]:
    """Return the annotations of a function or class, evaluated. Raises SignatureError naming a broken one."""
    extras: Dict[str, Any] = {"include_extras": True} if sys.version_info >= (3, 9) else {}
    try:
        return typing.get_type_hints(owner, **extras)
    except Exception as error:  # any: annotations are the user's expressions
        name = getattr(owner, "__name__", str(owner))
        raise SignatureError(
            "the annotations of `%s` can't be evaluated on Python %d.%d: %s: %s"
            % (name, sys.version_info[0], sys.version_info[1], type(error).__name__, error)
        ) from error


def described(annotation: Any) -> str:
    """Return the description that `Annotated` gives: a text, or an object that has one (pydantic's Field, Doc)."""
    if _qualifier(annotation):
        return described(typing.get_args(annotation)[0])
    for extra in getattr(annotation, "__metadata__", ()):
        text = extra if isinstance(extra, str) else None
        text = text or getattr(extra, "description", None) or getattr(extra, "documentation", None)
        if isinstance(text, str):
            return text
    return ""


def with_null(found: Type) -> Type:
    """Return the type with None as a further member (a parameter whose default is None takes it)."""
    try:
        found.read(None, "")
    except Mismatch:
        return UnionType([found, NullType()])
    return found


def _dataclass_fields(record: Any) -> List[Field]:
    hints, documented = hints_of(record), parse_docstring(record.__doc__).parameters
    found: List[Field] = []
    for field in dataclasses.fields(record):
        if not field.init:
            continue
        hint = hints[field.name]
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        description = field.metadata.get("description") or described(hint) or documented.get(field.name, "")
        schema: Dict[str, Json] = {}
        if not required:
            default = field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            schema.update(_default(default))
        found.append(_field(field.name, hint, required, schema, description))
    return found


def _typed_dict_fields(record: Any) -> List[Field]:
    hints, documented = hints_of(record), parse_docstring(record.__doc__).parameters
    mandatory = getattr(record, "__required_keys__", None)
    found: List[Field] = []
    for name, hint in hints.items():
        required = name in mandatory if mandatory is not None else bool(record.__total__)
        if _qualifier(hint):  # not in __required_keys__ when annotations are postponed
            required = _qualifier(hint) == "Required"
        found.append(_field(name, hint, required, {}, described(hint) or documented.get(name, "")))
    return found


def _field(name: str, hint: Any, required: bool, schema: Dict[str, Json], description: str) -> Field:
    if description:
        schema["description"] = description
    return Field(name, type_of(hint), required, schema)


def _default(value: Any) -> Dict[str, Json]:
    try:
        return {"default": to_json(value)}
    except Exception:  # a default that JSON can't hold is simply not told
        return {}
