"""Server-sent events, read as they arrive (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

import re
from dataclasses import dataclass

__all__ = ["SseEvent", "SseParser"]

# Atomic groups: \r\n is one line end and must never be taken for two.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LONGEST_MATCH = 4


@dataclass(frozen=True, slots=True)
class SseEvent:
    """A block up to and with its blank line. `data` is None where the block holds none (a comment, an id)."""

    raw: bytes
    data: bytes | None


class SseParser:
    """Cuts a byte stream into events, however its pieces were split. Joined `raw` is the stream, byte for byte."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    @property
    def buffered(self) -> int:
        """How many bytes wait for the rest of their event."""
        return len(self._buffer)

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Take a piece; return the events that are complete now."""
        self._buffer += piece
        events: list[SseEvent] = []
        start = 0
        while found := _BLANK_LINE.search(self._buffer, max(start, self._searched)):
            end = found.end()
            events.append(_event(bytes(self._buffer[start:end])))
            start = self._searched = end
        if start:
            del self._buffer[:start]
        self._searched = max(0, len(self._buffer) - _LONGEST_MATCH)
        return events

    def close(self) -> SseEvent | None:
        """Return what is left at the end of the stream: some servers leave out the last blank line."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return _event(rest) if rest else None


def _event(raw: bytes) -> SseEvent:
    if raw.startswith(b"data: ") and raw.endswith(b"\n\n") and raw.find(b"\n", 0, -2) < 0 and b"\r" not in raw:
        return SseEvent(raw, raw[6:-2])  # one line, which is nearly every event
    values = [value for line in _LINE_END.split(raw) if (value := _data_of(line)) is not None]
    return SseEvent(raw, b"\n".join(values) if values else None)


def _data_of(line: bytes) -> bytes | None:
    name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
    if name != b"data":
        return None
    return value.removeprefix(b" ")
