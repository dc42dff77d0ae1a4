"""What the scripted model keeps of each request, and waiting for it without sleeping."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from agentforge_conformance.scripted_model.deciding import Conversation
from agentforge_conformance.scripted_model.formats import chat_conversation
from agentforge_conformance.scripted_model.steps import Json

__all__ = ["RecordedRequest", "Recording"]


@dataclass(eq=False)
class RecordedRequest:
    """A request as it came in, byte for byte."""

    method: str
    path: str
    """With the query."""
    headers: tuple[tuple[str, str], ...]
    """In their order, names as they were written."""
    body: bytes
    at: float
    """Monotonic seconds."""
    peer: str
    """The connection it came on: equal for two requests that shared one."""
    status: int | None = None
    """What was answered; None while it is open, and for good if the answer never became complete."""
    aborted: bool = False
    """The client left before the answer was complete."""

    @property
    def json(self) -> Json:
        """The body parsed. Raises ValueError if it is no JSON."""
        return json.loads(self.body)

    @property
    def model(self) -> str:
        """The model it names."""
        return str(self.json.get("model", ""))

    @property
    def conversation(self) -> Conversation:
        """The conversation of a chat request, tool calls in text read into messages too."""
        return chat_conversation(self.json)

    def header(self, name: str) -> str | None:
        """Return the value of a header, whatever its case; None if it has none."""
        return next((value for known, value in self.headers if known.lower() == name.lower()), None)

    def to_dict(self) -> dict[str, Json]:
        """Return it as JSON: `body` is base64, `json` the parsed body or null."""
        try:
            parsed = self.json
        except ValueError:
            parsed = None
        return {
            "method": self.method,
            "path": self.path,
            "headers": [list(pair) for pair in self.headers],
            "body": base64.b64encode(self.body).decode(),
            "json": parsed,
            "peer": self.peer,
            "status": self.status,
            "aborted": self.aborted,
        }


class Recording:
    """The requests of one model."""

    def __init__(self) -> None:
        self.requests: list[RecordedRequest] = []
        self.keeping = True
        self.open_requests = 0
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def begin(self, request: web.Request, body: bytes) -> RecordedRequest:
        """Record a request whose answer is open."""
        headers = tuple((n.decode("latin-1"), v.decode("latin-1")) for n, v in request.raw_headers)
        transport = request.transport
        peer = str(transport.get_extra_info("peername") or id(transport)) if transport else ""
        record = RecordedRequest(request.method, request.path_qs, headers, body, time.monotonic(), peer)
        if self.keeping:
            self.requests.append(record)
        self.open_requests += 1
        self._changed()
        return record

    def end(self, record: RecordedRequest, status: int | None, *, aborted: bool = False) -> None:
        """Record how it was answered."""
        record.status = status
        record.aborted = aborted
        self.open_requests -= 1
        self._changed()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on this recording holds."""
        if condition():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, waiter))
        await waiter

    def _changed(self) -> None:
        for entry in [e for e in self._waiting if e[1].done() or e[0]()]:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result(None)
