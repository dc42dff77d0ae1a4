"""Python types as JSON: objects that say the schema of an annotation and read its values.

A schema has no titles and repeats nested types in place (only recursive ones use `$defs`): models follow that best,
and it is what frameworks send. `annotations.type_of` makes these objects.
"""

import decimal
import math
import re
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

__all__ = [
    "JSON_TYPES",
    "AnyType",
    "BoolType",
    "ChoiceType",
    "DecimalType",
    "DictType",
    "Field",
    "FloatType",
    "IntType",
    "ListType",
    "Mismatch",
    "ModelType",
    "NullType",
    "RecordType",
    "Schemas",
    "StrType",
    "TextType",
    "TupleType",
    "Type",
    "UnionType",
]

Json = Any
SHOWN = 60
JSON_TYPES: Dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class Mismatch(Exception):
    """A value does not fit a type."""

    def __init__(self, where: str, expected: str, value: Json) -> None:
        super().__init__(where, expected)
        self.where = where
        self.expected = expected
        self.value = value

    def __str__(self) -> str:
        text = repr(self.value)
        text = text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
        return "`%s`: expected %s, got %s" % (self.where, self.expected, text)


class Schemas:
    """The making of one schema: which records are under way, and the definitions that recursive ones need."""

    def __init__(self) -> None:
        self.definitions: Dict[str, Json] = {}
        self._open: List[type] = []
        self._recursive: Set[type] = set()

    def record(self, record: type, make: Callable[[], Dict[str, Json]]) -> Dict[str, Json]:
        """Return a record's schema, or a reference if the record is part of itself."""
        reference = {"$ref": "#/$defs/" + record.__name__}
        if record in self._open:
            self._recursive.add(record)
            return reference
        if record in self._recursive:
            return reference
        self._open.append(record)
        schema = make()
        self._open.pop()
        if record not in self._recursive:
            return schema
        self.definitions[record.__name__] = schema
        return reference


class Type:
    """What a value may be."""

    expected = "a value"

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        """Return the JSON Schema."""
        raise NotImplementedError

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        """Return the Python value for a JSON value. Raises Mismatch.

        Like the frameworks' own validation it takes `"3"` for 3 unless `exact` is set.
        """
        raise NotImplementedError

    def refuse(self, value: Json, where: str) -> Mismatch:
        """Return the exception for a value that does not fit."""
        return Mismatch(where, self.expected, value)


class AnyType(Type):
    """Anything."""

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {}

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        return value


class NullType(Type):
    """None."""

    expected = "null"

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"type": "null"}

    def read(self, value: Json, where: str, exact: bool = False) -> None:
        if value is not None:
            raise self.refuse(value, where)


class BoolType(Type):
    """True or False."""

    expected = "true or false"

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"type": "boolean"}

    def read(self, value: Json, where: str, exact: bool = False) -> bool:
        if isinstance(value, bool):
            return value
        if not exact and isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise self.refuse(value, where)


class IntType(Type):
    """A whole number."""

    expected = "an integer"

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"type": "integer"}

    def read(self, value: Json, where: str, exact: bool = False) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if not exact and isinstance(value, float) and value.is_integer():
            return int(value)
        if not exact and isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,4000}\s*", value):
            return int(value)
        raise self.refuse(value, where)


class FloatType(Type):
    """A number."""

    expected = "a number"

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"type": "number"}

    def read(self, value: Json, where: str, exact: bool = False) -> float:
        if isinstance(value, float):
            return value
        if exact or isinstance(value, bool) or not isinstance(value, (int, str)):
            raise self.refuse(value, where)
        try:
            number = float(value)
        except (ValueError, OverflowError):
            raise self.refuse(value, where) from None
        if not math.isfinite(number):
            raise self.refuse(value, where)
        return number


class StrType(Type):
    """Text."""

    expected = "a string"

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"type": "string"}

    def read(self, value: Json, where: str, exact: bool = False) -> str:
        if not isinstance(value, str):
            raise self.refuse(value, where)
        return value


class TextType(Type):
    """A type that JSON writes as text: dates, UUIDs, paths."""

    def __init__(self, format: Optional[str], expected: str, parse: Callable[[str], Any]) -> None:
        self._format = format
        self._parse = parse
        self.expected = expected

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"type": "string", "format": self._format} if self._format else {"type": "string"}

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        if not isinstance(value, str):
            raise self.refuse(value, where)
        try:
            return self._parse(value)
        except ValueError:
            raise self.refuse(value, where) from None


class DecimalType(Type):
    """A decimal number, as a number or (exactly) as text."""

    expected = "a number, or a decimal number as text"

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"anyOf": [{"type": "number"}, {"type": "string"}]}

    def read(self, value: Json, where: str, exact: bool = False) -> decimal.Decimal:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise self.refuse(value, where)
        try:
            number = decimal.Decimal(str(value).strip())
        except decimal.InvalidOperation:
            raise self.refuse(value, where) from None
        if not number.is_finite():
            raise self.refuse(value, where)
        return number


class ListType(Type):
    """A list of items of one type, built as list, tuple, set or frozenset."""

    expected = "a list"

    def __init__(self, item: Type, build: Callable[[List[Any]], Any]) -> None:
        self._item = item
        self._build = build

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        schema: Dict[str, Json] = {"type": "array", "items": self._item.schema(schemas)}
        return {**schema, "uniqueItems": True} if self._build in (set, frozenset) else schema

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        if not isinstance(value, list):
            raise self.refuse(value, where)
        items = [self._item.read(each, "%s[%d]" % (where, i), exact) for i, each in enumerate(value)]
        try:
            return self._build(items)
        except TypeError:  # unhashable items of a set
            raise Mismatch(where, "a list of plain values", value) from None


class TupleType(Type):
    """A list of fixed length with a type for each place."""

    def __init__(self, items: Sequence[Type]) -> None:
        self._items = items
        self.expected = "a list of %d" % len(items)

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        count = len(self._items)
        items = [item.schema(schemas) for item in self._items]
        return {"type": "array", "prefixItems": items, "minItems": count, "maxItems": count}

    def read(self, value: Json, where: str, exact: bool = False) -> Tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(self._items):
            raise self.refuse(value, where)
        items = enumerate(self._items)
        return tuple(item.read(value[index], "%s[%d]" % (where, index), exact) for index, item in items)


class DictType(Type):
    """An object with any keys and values of one type."""

    expected = "an object"

    def __init__(self, value: Type) -> None:
        self._value = value

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return {"type": "object", "additionalProperties": self._value.schema(schemas) or True}

    def read(self, value: Json, where: str, exact: bool = False) -> Dict[str, Any]:
        if not isinstance(value, dict):
            raise self.refuse(value, where)
        return {key: self._value.read(each, "%s.%s" % (where, key), exact) for key, each in value.items()}


class UnionType(Type):
    """One of several types: the first that fits exactly, else the first that fits."""

    def __init__(self, members: Sequence[Type]) -> None:
        self._members = members
        self.expected = " or ".join(dict.fromkeys(member.expected for member in members))

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        choices: List[Json] = []
        for member in self._members:
            schema = member.schema(schemas)
            choices.extend(schema["anyOf"] if list(schema) == ["anyOf"] else [schema])
        return {"anyOf": choices}

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        inner: Optional[Mismatch] = None
        for exactly in (True,) if exact else (True, False):
            for member in self._members:
                try:
                    return member.read(value, where, exactly)
                except Mismatch as mismatch:
                    if mismatch.where != where:
                        inner = mismatch  # the value was of this kind, something inside was not
        raise inner or self.refuse(value, where)


class ChoiceType(Type):
    """One of some constants: a Literal, or an Enum by its members' values."""

    def __init__(self, choices: "Mapping[Any, Any]", names: Optional[Mapping[str, Any]] = None) -> None:
        self._choices = list(choices.items())
        self._names = names or {}
        self.expected = "one of " + ", ".join(repr(written) for written in choices)

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        values = [written for written, _ in self._choices]
        schema: Dict[str, Json] = {"const": values[0]} if len(values) == 1 else {"enum": values}
        kinds = {JSON_TYPES.get(type(value)) for value in values}
        kind = kinds.pop()
        return {**schema, "type": kind} if not kinds and kind else schema

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        for written, choice in self._choices:
            if type(written) is type(value) and written == value:
                return choice
        if not exact and isinstance(value, str):
            for written, choice in self._choices:
                if str(written) == value:
                    return choice
            if value in self._names:
                return self._names[value]
        raise self.refuse(value, where)


class Field(NamedTuple):
    """A key of a record."""

    name: str
    type: Type
    required: bool
    schema: Dict[str, Json]
    """What its schema has besides the type's: description and default."""


class RecordType(Type):
    """An object with known keys: a dataclass or a TypedDict."""

    expected = "an object"

    def __init__(self, record: Any, fields: Callable[[], List[Field]]) -> None:
        self._record = record
        self._find_fields = fields
        self._known_fields: Optional[List[Field]] = None

    @property
    def _fields(self) -> List[Field]:
        if self._known_fields is None:  # on first use: a record may be part of itself
            self._known_fields = self._find_fields()
        return self._known_fields

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        return schemas.record(self._record, lambda: self._object(schemas))

    def _object(self, schemas: Schemas) -> Dict[str, Json]:
        properties = {field.name: {**field.type.schema(schemas), **field.schema} for field in self._fields}
        required = [field.name for field in self._fields if field.required]
        schema: Dict[str, Json] = {"type": "object", "properties": properties}
        return {**schema, "required": required} if required else schema

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        if not isinstance(value, dict):
            raise self.refuse(value, where)
        known = {field.name: field for field in self._fields}
        for name in value:
            if name not in known:
                raise Mismatch("%s.%s" % (where, name), "no such key (known: %s)" % ", ".join(known), value[name])
        for field in self._fields:
            if field.required and field.name not in value:
                raise Mismatch(where, "an object with the key `%s`" % field.name, value)
        read = {name: known[name].type.read(each, "%s.%s" % (where, name), exact) for name, each in value.items()}
        try:
            return self._record(**read)
        except (ValueError, TypeError) as error:  # __post_init__ checks of the user's own
            raise Mismatch(where, "a valid %s (%s)" % (self._record.__name__, error), value) from error


class ModelType(Type):
    """A class that makes its own schema and checks its own values, as pydantic models do."""

    expected = "an object"

    def __init__(self, model: Any) -> None:
        self._model = model

    def schema(self, schemas: Schemas) -> Dict[str, Json]:
        schema: Dict[str, Json] = _without_titles(self._model.model_json_schema())
        schemas.definitions.update(schema.pop("$defs", {}))
        return schema

    def read(self, value: Json, where: str, exact: bool = False) -> Any:
        try:
            return self._model.model_validate(value)
        except ValueError as error:  # pydantic's ValidationError is one
            raise Mismatch(where, "a valid %s (%s)" % (self._model.__name__, _reasons(error)), value) from error


def _without_titles(schema: Any, names: bool = False) -> Any:
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(each, not names and key in ("properties", "$defs"))
        for key, each in schema.items()
        if names or key != "title" or not isinstance(each, str)
    }


def _reasons(error: Exception) -> str:
    """Return a pydantic validation error in one line."""
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return str(error)
    return "; ".join("%s: %s" % (".".join(map(str, each["loc"])), each["msg"]) for each in errors())
