"""Whether two programs asked a model the same: requests compared, differences in words.

The native program of a framework and its adapter must send the same requests for the same agent; only where they go
and who asks may differ.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from agentforge_conformance.scripted_model import RecordedRequest

__all__ = ["Difference", "compare", "differing_paths", "readable"]

Json = Any
Difference = tuple[int, str, Json, Json]
"""Number of the request (from 1), path in it, the native value, the adapter's value."""

ABSENT = "(absent)"
"""Stands for a value that one side does not have."""

_OWN_HEADERS = {"host", "authorization", "content-length", "traceparent", "tracestate"}
"""Where a request goes, who asks, the trace it belongs to."""


def compare(native: Sequence[RecordedRequest], adapter: Sequence[RecordedRequest]) -> list[Difference]:
    """Return how an adapter's requests differ from the native program's.

    Bodies are compared parsed, ids of tool calls by their order of appearance, headers without their case and
    without those that must differ.
    """
    differences: list[Difference] = []
    if len(native) != len(adapter):
        differences.append((0, "requests", len(native), len(adapter)))
    for number, (left, right) in enumerate(zip(native, adapter, strict=False), 1):
        differences += [(number, *rest) for rest in _differ("", _view(left), _view(right))]
    return differences


def differing_paths(differences: Sequence[Difference]) -> set[str]:
    """Return the paths that differ, positions in lists left out: `body.tools[].function.strict`."""
    return {re.sub(r"\[\d+\]", "[]", path) for _, path, _, _ in differences}


def readable(differences: Sequence[Difference]) -> str:
    """Return the differences as text, one paragraph each."""
    return "\n".join(
        f"request {number}: {path}\n  native:  {_shown(native)}\n  adapter: {_shown(adapter)}"
        for number, path, native, adapter in differences
    )


def _view(request: RecordedRequest) -> Json:
    headers = {name.lower(): value for name, value in request.headers if name.lower() not in _OWN_HEADERS}
    return {"method": request.method, "path": request.path, "headers": headers, "body": _with_plain_ids(request)}


def _with_plain_ids(request: RecordedRequest) -> Json:
    ids: dict[str, str] = {}

    def plain(match: "re.Match[str]") -> str:
        return ids.setdefault(match[0], f"call-{len(ids) + 1}")

    # The scripted model numbers its answers; two programs that share one see other numbers.
    return json.loads(re.sub(r"call_\d{8}_\d+", plain, request.body.decode()))


def _differ(path: str, left: Json, right: Json) -> Iterator[tuple[str, Json, Json]]:
    if isinstance(left, dict) and isinstance(right, dict):
        for name in [*left, *(name for name in right if name not in left)]:
            inner = f"{path}.{name}" if path else name
            yield from _differ(inner, left.get(name, ABSENT), right.get(name, ABSENT))
    elif isinstance(left, list) and isinstance(right, list):
        for index in range(max(len(left), len(right))):
            ours = left[index] if index < len(left) else ABSENT
            theirs = right[index] if index < len(right) else ABSENT
            yield from _differ(f"{path}[{index}]", ours, theirs)
    elif left != right or type(left) is not type(right):
        yield path, left, right


def _shown(value: Json) -> str:
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:200] + " ... " + text[-80:]
