"""A door: the HTTP server on the listening socket that a worker handed over.

The worker is hostile: it may hold the socket against the host (`Acceptor` sees to that), send its requests byte by byte
or never to the end, send more than anybody can answer, or never read the answers. What it costs the host is bounded
here, whatever it does.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from agentforge.errors.models import ModelCallRefused, ModelRequestMalformed
from agentforge.gateway.accepting import Acceptor
from agentforge.gateway.failures import error_body
from agentforge.gateway.pacing import RequestPace
from agentforge.gateway.seats import Seats

__all__ = ["Door", "DoorLimits", "Handler"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_LAST_WORDS_S = 1.0
_RESET = struct.pack("ii", 1, 0)
_log = logging.getLogger(__name__)
_NO_LOG = cast(logging.Logger, None)


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What one worker may do at its door."""

    connections: int = 16384
    """At once; further ones wait to be accepted."""
    requests_per_s: float = 2000.0
    """A few more wait; beyond them they are refused with status 429."""
    connections_per_s: float = 2000.0
    """Further ones wait to be accepted."""
    head_s: float = 30.0
    """From the first byte of a request to the end of its headers."""
    body_s: float = 30.0
    """Between two bytes of a request's body."""
    idle_s: float = 300.0
    """Between two requests."""
    unread_s: float = 120.0
    """How long an answer may wait without one byte of it being read."""
    unread_bytes: int = 256 * 2**20
    """What all answers that wait to be read may take together."""
    look_s: float = 5.0
    """How often all this is looked at."""


class Door:
    """Serves one worker until it is closed. Made by `Gateway.open_door`."""

    def __init__(
        self,
        worker: str,
        listening: socket.socket,
        handler: Handler,
        max_request_bytes: int,
        limits: DoorLimits,
        seats: Seats,
        closing: Callable[["Door"], Awaitable[None]],
    ) -> None:
        """Serve on a listening socket; it belongs to the door from here on."""
        self.worker = worker
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._max_request_bytes = max_request_bytes
        self._limits = limits
        self._closing = closing
        self._closed = False
        self._pace = RequestPace(limits.requests_per_s)
        self._connections: set[_Connection] = set()
        self._connecting: set[asyncio.Task[Any]] = set()
        self._server = web.Server(self._serve, request_factory=self._request_of, handler_cancellation=True)
        self._share = seats.share(limits.connections, lambda: self._acceptor.done())
        self._acceptor = Acceptor(
            listening,
            self._take,
            most=self._share.granted,
            per_s=limits.connections_per_s,
            name=f"the door of {worker}",
        )
        self._acceptor.start()
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Stop accepting, abort the worker's calls and close the socket. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._looking.cancel()
        await self._acceptor.stop()
        await self._closing(self)
        await asyncio.gather(*self._connecting, return_exceptions=True)
        await self._server.shutdown(_LAST_WORDS_S)
        for connection in list(self._connections):
            connection.abort()
        self._share.close()

    def opened(self, connection: "_Connection") -> None:
        """Take note of a connection."""
        self._connections.add(connection)

    def ended(self, connection: "_Connection") -> None:
        """Take note of a connection's end."""
        if connection in self._connections:
            self._connections.discard(connection)
            self._share.leave()

    # ---- inside

    def _take(self, connection: socket.socket) -> None:
        self._share.sit()
        task = self._loop.create_task(self._connect(connection))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: _Connection(self, self._server, self._loop), connection)
        except OSError:  # it is gone already
            connection.close()
            self._share.leave()

    def _request_of(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        request = web.BaseRequest(
            message, payload, protocol, writer, task, self._loop, client_max_size=self._max_request_bytes
        )
        cast(_Connection, protocol).begun(request)
        return request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        wait_s, refused = self._pace.take()
        if refused:
            return _too_many(wait_s, self._limits.requests_per_s)
        if wait_s:
            await asyncio.sleep(wait_s)
        answer = await self._handler(request)
        if not request.content.is_eof():
            answer.force_close()  # the rest of the body is no next request
        return answer

    async def _look(self) -> None:
        """End the connections that take too long, and those whose answers nobody reads."""
        while True:
            await asyncio.sleep(self._limits.look_s)
            now = self._loop.time()
            unread = 0
            for connection in list(self._connections):
                waiting = connection.unread(now)
                unread += waiting
                if connection.is_unread(now, self._limits) or unread > self._limits.unread_bytes:
                    unread -= waiting
                    connection.abort()
                elif connection.is_late(now, self._limits):
                    connection.force_close()


class _Connection(RequestHandler):
    """One connection of a worker: aiohttp's, with an eye on how it is used."""

    __slots__ = ("_began_at", "_door", "_heard_at", "_served", "_unread", "_unread_since")

    def __init__(self, door: Door, server: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        # Its own timer is not needed, and would be made anew for each request.
        super().__init__(server, loop=loop, logger=_log, access_log=_NO_LOG, lingering_time=_LAST_WORDS_S)
        self._door = door
        self._served: web.BaseRequest | None = None
        self._heard_at = loop.time()
        self._began_at: float | None = None
        """When the first byte of a request came whose headers are not complete."""
        self._unread = 0
        self._unread_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._door.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._door.ended(self)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._served is None and self._began_at is None:
            self._began_at = self._heard_at
        super().data_received(data)

    def begun(self, request: web.BaseRequest) -> None:
        """Take note of a request whose headers are here."""
        self._served = request
        self._began_at = None

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._served = None
            self._heard_at = self._loop.time()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, as the OpenAI API words it; the host's log is no place for it."""
        if exc is not None and status == 500:
            _log.error("a request at the door of worker %s failed", self._door.worker, exc_info=exc)
            said = "The gateway failed; the host's log says how"
        else:
            said = f"This is no HTTP request: {(message or '').strip().splitlines()[0] if message else 'malformed'}"
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        body = error_body(status, ModelRequestMalformed.code, said[:500])
        answer = web.Response(body=body, status=status, content_type="application/json")
        answer.force_close()
        return answer

    def is_late(self, now: float, limits: DoorLimits) -> bool:
        """Whether the worker has kept this waiting for too long."""
        if self._served is not None:
            return not self._served.content.is_eof() and now - self._heard_at > limits.body_s
        if self._began_at is not None:
            return now - self._began_at > limits.head_s
        return now - self._heard_at > limits.idle_s

    def is_unread(self, now: float, limits: DoorLimits) -> bool:
        """Whether nothing of an answer was read for too long."""
        return self._unread > 0 and now - self._unread_since > limits.unread_s

    def unread(self, now: float) -> int:
        """Return how many bytes wait to be read, and take note of whether any were."""
        transport = self.transport
        waiting = cast(asyncio.WriteTransport, transport).get_write_buffer_size() if transport is not None else 0
        if not waiting or waiting < self._unread or not self._unread:
            self._unread_since = now
        self._unread = waiting
        return waiting

    def abort(self) -> None:
        """End the connection at once, and have the kernel forget what it still has to send."""
        if self.transport is None:
            return
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        cast(asyncio.WriteTransport, self.transport).abort()


def _too_many(wait_s: float, per_s: float) -> web.Response:
    message = f"More than {per_s:g} requests a second (`limits.requests_per_s`)"
    return web.Response(
        body=error_body(429, ModelCallRefused.code, message),
        status=429,
        content_type="application/json",
        headers={"Retry-After": str(max(1, round(wait_s)))},
    )
