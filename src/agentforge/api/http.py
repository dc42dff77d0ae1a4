"""HTTP/1.1 for clients of the API: connections kept open to one server, whole answers and streams.

Of our own for two reasons. Every command passes here, and the libraries take longer to import than a warm run takes.
And a program may have thousands of runs under way: their pools look at every connection for each request.
"""

import asyncio
import contextlib
import select
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import httptools

__all__ = ["AnswerBroken", "ConnectFailed", "HeaderUnfit", "HttpAnswer", "HttpClient"]

Header = tuple[str, str]
_CONNECT_TIMEOUT_S = 30.0
_MOST_IDLE = 100
_MOST_CONNECTING = 64
"""Connections being made at once: a Unix socket refuses those that its backlog has no room for."""
_HIGH_WATER = 1 << 20
"""Bytes of an answer that may wait for a reader before the server has to."""


class ConnectFailed(ConnectionError):
    """There is no connection to the server: it has taken nothing."""


class AnswerBroken(ConnectionError):
    """The connection ended before the answer was complete; the server may have done what was asked."""


class HeaderUnfit(ValueError):
    """A header that HTTP can't carry."""


class HttpAnswer:
    """The answer of a server: its status, then its body, whole or piece by piece."""

    def __init__(self, status: int, line: "_Line") -> None:
        self.status = status
        self._line = line

    async def whole(self) -> bytes:
        """Return the rest of the body. Raises AnswerBroken."""
        await self._line.until(lambda: self._line.complete)
        return self._line.take()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises AnswerBroken."""
        while True:
            await self._line.until(lambda: self._line.complete or self._line.waiting > 0)
            piece = self._line.take()
            if not piece:
                return
            yield piece


class HttpClient:
    """A client of one server, at a Unix socket or a URL. Use it on one event loop."""

    def __init__(self, *, socket: Path | None = None, url: str | None = None) -> None:
        self._socket = socket
        parts = urlsplit(url or "http://host")
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._secure = parts.scheme == "https"
        self._prefix = parts.path.rstrip("/")
        self._host_line = f"Host: {parts.netloc.rpartition('@')[2]}"
        self._tls: ssl.SSLContext | None = None
        self._idle: list[_Line] = []
        self._connecting = asyncio.Semaphore(_MOST_CONNECTING)
        self._closed = False

    async def close(self) -> None:
        """Close the connections that serve no request; the others when their request ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, target: str, headers: Iterable[Header], content: bytes = b""
    ) -> AsyncIterator[HttpAnswer]:
        """Send a request; yield its answer once its headers are here. Leaving before its end breaks it off.

        Raises ConnectFailed, AnswerBroken, HeaderUnfit.
        """
        head = self._head(method, target, headers, len(content))
        line = self._reusable() or await self._connected()
        try:
            line.send(head + content)
            await line.until(lambda: line.status > 0)
            yield HttpAnswer(line.status, line)
        except BaseException:
            line.abort()
            raise
        self._release(line)

    def _head(self, method: str, target: str, headers: Iterable[Header], length: int) -> bytes:
        lines = [f"{method} {self._prefix}{target} HTTP/1.1", self._host_line, f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if any("\r" in line or "\n" in line for line in lines):
            raise HeaderUnfit("a header has a line break in it")
        try:
            return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        except UnicodeEncodeError as error:
            raise HeaderUnfit(f"a header can't hold the character `{error.object[error.start]}`") from None

    def _reusable(self) -> "_Line | None":
        while self._idle:
            line = self._idle.pop()
            if line.usable():
                return line
            line.abort()
        return None

    def _release(self, line: "_Line") -> None:
        if line.complete and line.keeps_alive and not self._closed and len(self._idle) < _MOST_IDLE:
            self._idle.append(line)
        else:
            line.abort()

    async def _connected(self) -> "_Line":
        loop = asyncio.get_running_loop()
        try:
            async with self._connecting, asyncio.timeout(_CONNECT_TIMEOUT_S):
                if self._socket is not None:
                    return (await loop.create_unix_connection(_Line, str(self._socket)))[1]
                return (await loop.create_connection(_Line, self._host, self._port, ssl=self._tls_context()))[1]
        except OSError as error:
            raise ConnectFailed(f"{type(error).__name__}: {error}") from error

    def _tls_context(self) -> ssl.SSLContext | None:
        if self._secure and self._tls is None:
            from agentforge.config.trust import tls_context

            self._tls = tls_context()
        return self._tls


class _Line(asyncio.Protocol):
    """One connection: a request at a time, its answer parsed as it comes."""

    def __init__(self) -> None:
        self.status = 0
        self.complete = True
        self.keeps_alive = True
        self.waiting = 0
        """Bytes of the body that nobody has taken."""
        self._pieces: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._failure: Exception | None = None
        self._ready: Callable[[], bool] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False

    def send(self, request: bytes) -> None:
        """Begin a request."""
        self.status, self.complete = 0, False
        self._transport.write(request)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until the answer has come so far. Raises AnswerBroken."""
        if not ready():
            if self._failure is None:
                self._ready, self._waiter = ready, asyncio.get_running_loop().create_future()
                await self._waiter
            if not ready():
                raise AnswerBroken(f"the connection ended before the answer did ({self._failure})") from self._failure

    def take(self) -> bytes:
        """Return what has come of the body since the last time."""
        taken, self._pieces, self.waiting = b"".join(self._pieces), [], 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return taken

    def usable(self) -> bool:
        """Whether the server has not closed the connection: its end may be waiting to be read."""
        if self._transport.is_closing() or self._failure is not None:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def abort(self) -> None:
        """End the connection."""
        self._transport.abort()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._failure = error
            self._transport.abort()
        if self.waiting > _HIGH_WATER and not self._paused and self._ready is None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._failure = self._failure or exc or ConnectionError("closed by the server")
        self._wake()

    def _wake(self) -> None:
        if self._ready is not None and (self._failure is not None or self._ready()):
            self._ready = None
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    # ---- httptools' callbacks

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.keeps_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self.waiting += len(body)

    def on_message_complete(self) -> None:
        self.complete = True
