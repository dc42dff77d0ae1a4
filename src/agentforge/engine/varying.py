"""What varies in a framework's requests from one execution to the next, taken out before they are compared.

A manifest names such places as JSON paths: `$.seed`, `$.messages[0].content`, `$.messages[*].id`. What stands there is
replaced one to one: the first value by 0, the next different one by 1, so that equal values stay equal.
"""

import copy
import re
from collections.abc import Iterable, Sequence
from typing import Any

from agentforge.gateway import request_hash

__all__ = ["hash_of_request", "settled"]

_PART = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+|\*)\]")


def hash_of_request(path: str, data: dict[str, Any], varies: Sequence[str]) -> str:
    """Return the hash of a model request without what varies."""
    return request_hash(path, settled(data, varies))


def settled(data: dict[str, Any], varies: Sequence[str]) -> dict[str, Any]:
    """Return a model request without what varies."""
    if not varies:
        return data
    same = copy.deepcopy(data)
    seen: list[Any] = []
    for each in varies:
        parts = [found["key"] or found["index"] for found in _PART.finditer(each)]
        for holder, key in _places(same, parts):
            if holder[key] not in seen:
                seen.append(holder[key])
            holder[key] = seen.index(holder[key])
    return same


def _places(value: Any, parts: Sequence[str]) -> Iterable[tuple[Any, Any]]:
    """Yield the containers that a path leads to, each with the key in it."""
    if not parts:
        return
    first, rest = parts[0], parts[1:]
    for key in _keys(value, first):
        if rest:
            yield from _places(value[key], rest)
        else:
            yield value, key


def _keys(value: Any, part: str) -> list[Any]:
    if isinstance(value, dict):
        return list(value) if part == "*" else [part] if part in value else []
    if isinstance(value, list):
        if part == "*":
            return list(range(len(value)))
        return [int(part)] if part.isdecimal() and int(part) < len(value) else []
    return []
