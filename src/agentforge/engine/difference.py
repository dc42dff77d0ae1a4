"""What differs between two JSON values, told path by path, and which recorded request a new one resembles most.

Who calls it: the history for `runs diff`, and the replay when a run asks for something else than the first time. Pure
functions; what they return is bounded in size, and so is the work.
"""

from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec

from agentforge.gateway.canonical import Json, decode, request_hash
from agentforge.store import Effect

__all__ = ["LIMIT", "Change", "Request", "aligned", "changes", "nearest", "recorded_request"]

LIMIT = 20
"""Changes that are told of unless more are asked for."""
_TEXT = 200
"""A text that differs is shown with this many characters around the place; whole if it is no longer."""
_LEAD = 60
"""How many of them come before the place."""
_VALUE = 1000
"""A value whose JSON is longer is shown as that JSON, cut."""
_DEPTH = 50
_ALIGNED = 40_000
"""Lists are aligned while the product of their lengths is below this; longer ones go by index."""
_CANDIDATES = 100
_COMPARED = 200
"""Changes that are counted to find out how far two requests are apart."""

ChangeKind = Literal["changed", "added", "removed"]
_ABSENT: Any = object()


class Change(TypedDict):
    """One difference. `before` of something added and `after` of something removed are null.

    `path` leads to the place in the new value; of something removed the last step is the one that the old value had.
    """

    path: str
    kind: ChangeKind
    before: Json
    after: Json


class Request(NamedTuple):
    """What an effect asked for."""

    kind: str
    path: str
    """Of a model call the path of its endpoint, of a tool call the tool's name, else empty."""
    data: Json


class _Difference(NamedTuple):
    path: str
    before: Json
    after: Json


def changes(before: Json, after: Json, limit: int = LIMIT) -> list[Change]:
    """Return how `after` differs from `before`, at most `limit` changes in the order of `after`; empty: not at all.

    Numbers differ as they do on the wire (`1`, `1.0` and `true` are three things), the order of keys means nothing.
    Items of lists are paired with equal ones first, then with such as have the same role, type and name. Of long
    texts the surroundings of the first difference are shown, of large values the beginning of their JSON.
    """
    return [_shown(each) for each in islice(_differences("$", before, after, 0), limit)]


def nearest(request: Request, candidates: Sequence[Request]) -> int | None:
    """Return the index of the candidate that resembles the request most; None if there is none at all.

    The same kind comes first, then the same path, then the fewest changes, then the shortest ones, then the earliest.
    """
    ranks = [(each.kind != request.kind, each.path != request.path) for each in candidates]
    if not ranks:
        return None
    best = min(ranks)
    alike = [index for index, rank in enumerate(ranks) if rank == best]
    return min(alike[:_CANDIDATES], key=lambda index: (_distance(candidates[index].data, request.data), index))


def aligned(before: Sequence[Json], after: Sequence[Json]) -> Iterator[tuple[int | None, int | None]]:
    """Yield the places of two lists that belong together, in order; None: the other side has nothing for it."""
    start = 0
    while start < min(len(before), len(after)) and _same(before[start], after[start]):
        yield start, start
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and _same(before[-1 - end], after[-1 - end]):
        end += 1
    ends = len(before) - end, len(after) - end
    old = new = start
    for one, other in _pairs(before[start : ends[0]], after[start : ends[1]]):
        yield from zip_longest(range(old, start + one), range(new, start + other))
        yield start + one, start + other
        old, new = start + one + 1, start + other + 1
    yield from zip_longest(range(old, ends[0]), range(new, ends[1]))
    yield from zip(range(ends[0], len(before)), range(ends[1], len(after)), strict=True)


def recorded_request(effect: Effect) -> Request:
    """Return what a recorded effect asked for: of a tool call its name and arguments, without what is known of it."""
    data = decode(effect.request)
    if effect.kind == "tool" and isinstance(data, dict):
        data = {name: data.get(name) for name in ("name", "arguments")}
    return Request(effect.kind, _path_of(effect.kind, data), data)


def _path_of(kind: str, data: Json) -> str:
    if not isinstance(data, dict):
        return ""
    if kind == "model":  # the journal keeps the body alone; what it asks for tells where it went
        return "/v1/chat/completions" if "messages" in data else "/v1/embeddings"
    name = data.get("name")
    return name if isinstance(name, str) else ""


# ---- comparing


def _differences(path: str, before: Json, after: Json, depth: int) -> Iterator[_Difference]:
    if _same(before, after):
        return
    if depth < _DEPTH and isinstance(before, dict) and isinstance(after, dict):
        yield from _of_objects(path, before, after, depth + 1)
    elif depth < _DEPTH and isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(path, before, after, depth + 1)
    else:
        yield _Difference(path, before, after)


def _of_objects(path: str, before: dict[str, Json], after: dict[str, Json], depth: int) -> Iterator[_Difference]:
    for name, value in after.items():
        yield from _differences(path + _step(name), before.get(name, _ABSENT), value, depth)
    for name, value in before.items():
        if name not in after:
            yield _Difference(path + _step(name), value, _ABSENT)


def _of_lists(path: str, before: list[Json], after: list[Json], depth: int) -> Iterator[_Difference]:
    for old, new in aligned(before, after):
        if new is None:
            yield _Difference(f"{path}[{old}]", before[old or 0], _ABSENT)
        elif old is None:
            yield _Difference(f"{path}[{new}]", _ABSENT, after[new])
        else:
            yield from _differences(f"{path}[{new}]", before[old], after[new], depth)


def _step(name: str) -> str:
    return f".{name}" if name.isidentifier() else f"[{msgspec.json.encode(name).decode()}]"


def _same(before: Json, after: Json) -> bool:
    if type(before) is not type(after):
        return False
    if isinstance(before, dict | list):
        return before is after or (len(before) == len(after) and _digest(before) == _digest(after))
    return bool(before == after)


def _digest(value: Json) -> str:
    try:
        return request_hash("", value)
    except RecursionError:
        return str(id(value))


# ---- lists


def _pairs(before: Sequence[Json], after: Sequence[Json]) -> list[tuple[int, int]]:
    """Return the pairs of the best alignment: equal items count most, then items of one shape."""
    if not before or not after or len(before) * len(after) > _ALIGNED:
        return []
    old, new = [(_digest(each), _shape(each)) for each in before], [(_digest(each), _shape(each)) for each in after]
    scores = [[0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in reversed(range(len(old))):
        for j in reversed(range(len(new))):
            scores[i][j] = max(scores[i + 1][j], scores[i][j + 1], scores[i + 1][j + 1] + _score(old[i], new[j]))
    return list(_traced(scores, old, new))


def _traced(scores: list[list[int]], old: list[Any], new: list[Any]) -> Iterator[tuple[int, int]]:
    i = j = 0
    while i < len(old) and j < len(new):
        score = _score(old[i], new[j])
        if score and scores[i][j] == scores[i + 1][j + 1] + score:
            yield i, j
            i, j = i + 1, j + 1
        elif scores[i][j] == scores[i + 1][j]:
            i += 1
        else:
            j += 1


def _score(old: tuple[str, Json], new: tuple[str, Json]) -> int:
    if old[0] == new[0]:
        return 4
    return 1 if old[1] == new[1] else 0


def _shape(value: Json) -> tuple[str, ...]:
    """Return what makes two items of a list the same thing in two states: a message's role, a tool's name."""
    if not isinstance(value, dict):
        return (type(value).__name__,)
    inner = value.get("function")
    named = inner if isinstance(inner, dict) else value
    return ("dict", str(value.get("role")), str(value.get("type")), str(named.get("name")))


# ---- how far apart


def _distance(before: Json, after: Json) -> tuple[int, int]:
    count = size = 0
    for _, old, new in islice(_differences("$", before, after, 0), _COMPARED):
        count += 1
        size += _extent(old, new)
    return count, size


def _extent(before: Json, after: Json) -> int:
    old, new = (each if isinstance(each, str) else _json(each) for each in (before, after))
    start = _common(old, new)
    rest = _common(old[start:][::-1], new[start:][::-1])
    return len(old) + len(new) - 2 * (start + rest)


def _common(one: str, other: str) -> int:
    """Return how many characters both begin with: bisected, because comparing slices is what Python does fast."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


# ---- showing


def _shown(difference: _Difference) -> Change:
    path, before, after = difference
    kind: ChangeKind = "added" if before is _ABSENT else "removed" if after is _ABSENT else "changed"
    if isinstance(before, str) and isinstance(after, str):
        place = _common(before, after)
        return Change(path=path, kind=kind, before=_around(before, place), after=_around(after, place))
    return Change(path=path, kind=kind, before=_cut(before), after=_cut(after))


def _around(text: str, place: int) -> str:
    if len(text) <= _TEXT:
        return text
    start = max(0, place - _LEAD)
    end = start + _TEXT
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


def _cut(value: Json) -> Json:
    if value is _ABSENT:
        return None
    text = value if isinstance(value, str) else _json(value)
    return value if len(text) <= _VALUE else text[:_VALUE] + "…"


def _json(value: Json) -> str:
    if value is _ABSENT:
        return ""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return repr(value)
    except RecursionError:
        return "…" * (_VALUE + 1)
