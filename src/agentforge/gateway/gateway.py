"""The gateway: doors that workers handed over, run tokens, and the way from a door to a model.

The engine makes one per host, opens a door per worker, and grants a token per attempt.
"""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from functools import partial

from aiohttp import web

from agentforge.errors.models import ModelRequestMalformed, RunTokenRejected
from agentforge.gateway.calls import CALL_PATHS, read_call
from agentforge.gateway.canonical import encode
from agentforge.gateway.door import Door, DoorLimits
from agentforge.gateway.exchange import Exchange, report_failure
from agentforge.gateway.failures import CallFailed, error_body
from agentforge.gateway.pacing import most_door_connections
from agentforge.gateway.seats import Seats
from agentforge.gateway.tokens import TOKEN_PREFIX, LiveGrant, TokenTable, token_in
from agentforge.gateway.types import CallObserver, EmbeddedModel, Grant
from agentforge.gateway.upstreams import UpstreamPool

__all__ = ["Gateway"]

_MODELS_PATH = "/v1/models"


class Gateway:
    """All model traffic of a host. Use it on one event loop; `close` it at the end."""

    def __init__(
        self,
        observer: CallObserver,
        *,
        embedded: EmbeddedModel | None = None,
        max_request_bytes: int = 64 * 2**20,
        max_answer_bytes: int = 64 * 2**20,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = secrets.token_hex,
        new_token: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        self._observer = observer
        self._pool = UpstreamPool(embedded)
        self._tokens = TokenTable()
        self._doors: set[Door] = set()
        self._seats = Seats(most_door_connections())
        self._max_request_bytes = max_request_bytes
        self._max_answer_bytes = max_answer_bytes
        self._clock = clock
        self._new_id = new_id
        self._new_token = new_token

    async def open_door(self, listening: socket.socket, worker: str, limits: DoorLimits | None = None) -> Door:
        """Serve a worker on the listening socket it handed over; the socket belongs to the door from here on."""
        handler, limits = partial(self._handle, worker), limits or DoorLimits()
        door = Door(worker, listening, handler, self._max_request_bytes, limits, self._seats, self._door_closing)
        self._doors.add(door)
        return door

    def new_token(self) -> str:
        """Return a token that allows nothing yet: for a process that must know its key before it has a run."""
        return TOKEN_PREFIX + self._new_token()

    def grant(self, grant: Grant, token: str | None = None) -> str:
        """Return a token for a grant, a new one if none is given.

        It works at once, on the door of the grant's worker only.
        """
        token = token or self.new_token()
        self._tokens.add(token, grant)
        return token

    async def revoke(self, token: str) -> None:
        """Make a token invalid at once, abort its calls, and return when each of them has been reported.

        A token that isn't valid is no error. Called from an observer's method it doesn't wait for that call.
        """
        if (live := self._tokens.remove(token)) is not None:
            await live.drain()

    async def close(self) -> None:
        """Close all doors, revoke all tokens, close the connections to the upstreams."""
        await asyncio.gather(*(door.close() for door in list(self._doors)))
        await asyncio.gather(*(self.revoke(live.token) for live in self._tokens.live()))
        await self._pool.close()

    async def _door_closing(self, door: Door) -> None:
        self._doors.discard(door)
        await asyncio.gather(*(live.drain() for live in self._tokens.live(door.worker)))

    async def _handle(self, worker: str, request: web.BaseRequest) -> web.StreamResponse:
        live = self._tokens.find(token_in(request.headers), worker)
        if live is None:
            return _error(401, RunTokenRejected.code, "This is no valid run token for this worker")
        task = asyncio.current_task()
        assert task is not None
        live.calls.add(task)
        try:
            return await self._route(request, live)
        finally:
            live.calls.discard(task)

    async def _route(self, request: web.BaseRequest, live: LiveGrant) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]  # as it was sent: what it would be decoded to goes nowhere
        if request.method == "POST" and path in CALL_PATHS:
            return await self._call(request, live)
        if request.method == "GET" and path == _MODELS_PATH:
            return _models(live)
        message = f"The gateway has no `{request.method[:20]} {path[:200]}`"
        return _error(404, ModelRequestMalformed.code, message)

    async def _call(self, request: web.BaseRequest, live: LiveGrant) -> web.StreamResponse:
        call, upstream = await read_call(request, live, self._new_id(), self._clock())
        if isinstance(upstream, CallFailed):
            await report_failure(live, self._observer, call, upstream)
            return upstream.answer()
        exchange = Exchange(
            request, call, upstream, live, self._observer, self._pool, self._clock, self._max_answer_bytes
        )
        return await exchange.run()


def _models(live: LiveGrant) -> web.Response:
    models = [
        {"id": alias, "object": "model", "created": 0, "owned_by": "agentforge"} for alias in live.grant.upstreams
    ]
    return web.Response(body=encode({"object": "list", "data": models}), content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    return web.Response(body=error_body(status, code, message), status=status, content_type="application/json")
