"""Server-sent events, both ends."""

from collections.abc import AsyncIterator
from typing import Any

from agentforge.api.encoding import decode, encode

__all__ = ["MEDIA_TYPE", "read_sse", "sse"]

MEDIA_TYPE = "text/event-stream"


def sse(data: Any, *, kind: str = "message", number: int | None = None) -> bytes:
    """Return one event; `number` is what a client resumes after (`Last-Event-ID`)."""
    head = f"id: {number}\nevent: {kind}\n" if number is not None else f"event: {kind}\n"
    return head.encode() + b"data: " + encode(data) + b"\n\n"


async def read_sse(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Any]]:
    """Yield (kind, data) of the events in a response's lines."""
    kind, data = "message", ""
    async for line in lines:
        if line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            yield kind, decode(data)
            kind, data = "message", ""
