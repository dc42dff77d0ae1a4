"""Turn what a tool returned into a JSON value."""

import dataclasses
import datetime
import decimal
import enum
import json
import math
import pathlib
import uuid
from typing import Any, Callable, Dict, Tuple

from .errors import ResultError

__all__ = ["to_json"]

MAX_DEPTH = 100
_TEXTS: Tuple[type, ...] = (decimal.Decimal, uuid.UUID, pathlib.PurePath)
_TIMES: Tuple[type, ...] = (datetime.date, datetime.time)


def to_json(value: Any) -> Any:
    """Return a JSON value for what a tool returned. Raises ResultError saying what to return instead.

    Dataclasses, pydantic models and named tuples become objects; enums their values; dates, UUIDs, paths and
    decimals text; sets sorted lists (the same answer each time); numpy's and pandas' scalars and arrays plain values.
    """
    return _value(value, "the result", 0)


def _value(value: Any, where: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ResultError("%s is nested more than %d deep, or holds itself" % (where, MAX_DEPTH))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return _value(value.value, where, depth + 1)
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _number(float(value), where)
    if isinstance(value, dict):
        return _object(value, where, depth)
    if isinstance(value, _TEXTS):
        return str(value)
    if isinstance(value, _TIMES):
        return value.isoformat()  # type: ignore[attr-defined]
    if isinstance(value, (list, tuple, set, frozenset)):
        return _list(value, where, depth)
    return _other(value, where, depth)


def _text(value: str, where: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ResultError("%s has characters that are not Unicode text: decode it properly" % where) from None
    return str(value)


def _number(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise ResultError("%s is %r, which JSON does not have: return None instead" % (where, value))
    return value


def _object(value: "Dict[Any, Any]", where: str, depth: int) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for key, each in value.items():
        name = _key(key, where)
        if name in found:
            raise ResultError("%s has the key %r twice once keys are text" % (where, name))
        found[name] = _value(each, "%s[%r]" % (where, name), depth + 1)
    return found


def _key(key: Any, where: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return _text(key, where)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    if isinstance(key, _TIMES):
        return str(key.isoformat())  # type: ignore[attr-defined]
    if isinstance(key, _TEXTS):
        return str(key)
    raise ResultError("%s has the key %r, and keys must be text" % (where, key))


def _list(value: Any, where: str, depth: int) -> Any:
    if hasattr(value, "_asdict"):
        return _object(value._asdict(), where, depth)
    items = [_value(each, "%s[%d]" % (where, index), depth + 1) for index, each in enumerate(value)]
    return sorted(items, key=_order) if isinstance(value, (set, frozenset)) else items


def _order(value: Any) -> Tuple[str, Any]:
    if isinstance(value, (bool, int, float)):
        return "", value
    return type(value).__name__, json.dumps(value, sort_keys=True)


def _other(value: Any, where: str, depth: int) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise ResultError("%s is bytes, which JSON does not have: return text, for example base64" % where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _object(fields, where, depth)
    for name, call in _CONVERSIONS:
        if hasattr(type(value), name):
            return _value(call(value), where, depth + 1)
    if hasattr(value, "to_dict"):
        raise ResultError('%s is a table: return its rows, for example `.to_dict("records")`' % where)
    kind = type(value).__name__
    raise ResultError("%s is of type `%s`: return text, numbers, lists, dicts or dataclasses" % (where, kind))


_CONVERSIONS: Tuple[Tuple[str, Callable[[Any], Any]], ...] = (
    ("model_dump", lambda value: value.model_dump(mode="json")),  # pydantic
    ("tolist", lambda value: value.tolist()),  # numpy, pandas
)
