"""A door: the HTTP server on the listening socket that a worker handed over."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

__all__ = ["Door", "Handler"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_BACKLOG = 4096
_LAST_WORDS_S = 1.0


class Door:
    """Serves one worker until it is closed. Made by `Gateway.open_door`."""

    def __init__(self, worker: str, runner: web.ServerRunner, closing: Callable[["Door"], Awaitable[None]]) -> None:
        self.worker = worker
        self._runner = runner
        self._closing = closing
        self._closed = False

    async def close(self) -> None:
        """Stop accepting, abort the worker's calls and close the socket. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        for site in self._runner.sites:
            await site.stop()
        await self._closing(self)
        await self._runner.cleanup()


async def serve(listening: socket.socket, handler: Handler, max_request_bytes: int) -> web.ServerRunner:
    """Start serving on a listening socket; it belongs to the server from here on."""
    loop = asyncio.get_running_loop()

    def request_of(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=max_request_bytes)

    server = web.Server(
        handler,
        request_factory=request_of,
        handler_cancellation=True,
        access_log=None,
        logger=logging.getLogger(__name__),
        lingering_time=_LAST_WORDS_S,
    )
    runner = web.ServerRunner(server, shutdown_timeout=_LAST_WORDS_S)
    await runner.setup()
    listening.setblocking(False)
    await web.SockSite(runner, listening, backlog=_BACKLOG).start()
    return runner
