"""A streamed answer as it arrives: what may go on at once, and what waits until the answer is recorded.

Text goes on live. From the first tool-call delta on, and at the end of the answer, everything waits: its reader could
act on it before it is recorded, and a crash would then repeat what was already done. Text that may become the
endpoint's key waits for what follows it; an answer that tells the key is none.
"""

from collections.abc import Mapping

from agentforge.gateway.assembly import ChatAssembly, acts
from agentforge.gateway.canonical import decode, encode
from agentforge.gateway.failures import CallFailed, local_failure, rejected, where
from agentforge.gateway.leaks import LeakWatch
from agentforge.gateway.sse import SseEvent, SseParser
from agentforge.gateway.types import Json, ModelResponse, Secret, Upstream
from agentforge.gateway.usage import usage_in

__all__ = ["StreamReader"]

_DONE = b"[DONE]"


class StreamReader:
    """Takes the pieces of one stream. No I/O: the exchange feeds it and writes what it gives."""

    def __init__(self, upstream: Upstream, max_bytes: int) -> None:
        self._upstream = upstream
        self._max_bytes = max_bytes
        self._parser = SseParser()
        self._assembly = ChatAssembly()
        self._leaks = LeakWatch(upstream.api_key)
        self._unsure = bytearray()
        self._raw = bytearray()
        self._held = bytearray()
        self._text: list[str] = []
        self.holding = False
        self.ended = False
        """The answer is complete."""
        self.failure: CallFailed | None = None
        """Set when the stream can't become a complete answer; nothing is fed after that."""

    @property
    def waiting(self) -> bool:
        """Whether something that came does not go on yet."""
        return self.holding or bool(self._unsure)

    def feed(self, piece: bytes) -> bytes:
        """Take a piece; return what goes to the framework at once."""
        live = bytearray()
        for event in self._parser.feed(piece):
            if self.ended or self.failure is not None:
                break
            self._take(event, live)
        if len(self._raw) + self._parser.buffered > self._max_bytes:
            self._fail("upstream_error", f"sent over {self._max_bytes / 2**20:g} MiB")
        return bytes(live)

    def close(self) -> bytes:
        """Take the end of the connection; return what goes to the framework at once."""
        live = bytearray()
        if (rest := self._parser.close()) is not None:
            self._take(rest, live)
        if not self.ended and self.failure is None:
            # Servers that leave out the last word do say why the answer ended.
            self.ended = self._assembly.finished
            if not self.ended:
                self._fail("broken_stream", "ended its answer in the middle")
        return bytes(live)

    def take_text(self) -> str:
        """Return the text that came since the last call, but what waits for what follows it."""
        if self._leaks.unsure and not self.ended:
            return ""
        text = "".join(self._text)
        self._text.clear()
        return text

    def take_held(self) -> bytes:
        """Return what waited, once the answer is recorded."""
        return bytes(self._held)

    def response(self, headers: Mapping[str, str], duration_ms: float) -> ModelResponse:
        """Return the complete answer."""
        data = self._assembly.response()
        return ModelResponse(encode(data), bytes(self._raw), headers, usage_in(data), duration_ms)

    def _take(self, event: SseEvent, live: bytearray) -> None:
        raw, data = event.raw, event.data
        if (key := self._upstream.api_key) is not None:
            raw, data = _redacted(event, key)
        self._raw += raw
        if data is None:
            live += raw  # a comment: keeps the connection alive, is nothing to act on
            return
        if data.strip() == _DONE:
            self._end(raw)
            return
        chunk = self._chunk(data)
        if chunk is None:
            return
        if chunk.get("error"):
            self.failure = rejected(self._upstream, 200, {}, data)
            live += raw
            return
        self._add(chunk)
        self._unsure += raw
        if self.holding or self._must_wait(chunk):
            self.holding = True
            self._release(self._held)
        elif not self._leaks.unsure:
            self._release(live)

    def _release(self, into: bytearray) -> None:
        into += self._unsure
        self._unsure.clear()

    def _end(self, raw: bytes) -> None:
        self._release(self._held)
        self._held += raw
        if self._assembly.chunks:
            self.ended = True
        else:
            self._fail("broken_stream", "ended its answer before it began")

    def _chunk(self, data: bytes) -> dict[str, Json] | None:
        try:
            chunk = decode(data)
            if isinstance(chunk, dict):
                return chunk
        except ValueError:
            pass
        self._fail("broken_stream", "sent an event that is no JSON object")
        return None

    def _add(self, chunk: dict[str, Json]) -> None:
        try:
            self._assembly.add(chunk)
            self._leaks.take(chunk.get("choices"))
        except (ValueError, TypeError, AttributeError):
            self._fail("broken_stream", "sent an event that is no part of a chat completion")
            return
        if self._leaks.told:
            self._text.clear()
            self._fail("upstream_error", "told its own API key in the answer")
            return
        for choice in chunk.get("choices") or []:
            delta = choice.get("delta") or {}
            if not choice.get("index") and isinstance(text := delta.get("content"), str) and text:
                self._text.append(text)

    def _must_wait(self, chunk: dict[str, Json]) -> bool:
        choices = chunk.get("choices") or []
        if self.failure is not None:
            return True
        return any(acts(choice) for choice in choices) or (not choices and bool(chunk.get("usage")))

    def _fail(self, kind: str, what: str) -> None:
        message = f"Model {where(self._upstream)} {what}"
        if kind == "broken_stream":
            self.failure = local_failure("broken_stream", 502, message)
        else:
            self.failure = local_failure("upstream_error", 502, message)


def _redacted(event: SseEvent, key: Secret) -> tuple[bytes, bytes | None]:
    """Return an event and its data without the key."""
    if event.data is None:
        return key.redact_bytes(event.raw), None
    data = key.redact_json(event.data)
    if data == event.data:
        return key.redact_bytes(event.raw), data
    return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n", data
