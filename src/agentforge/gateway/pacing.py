"""How many connections to upstreams are made and are open at once: thousands of calls must not trip over each other."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

__all__ = [
    "PacedTcpConnector",
    "PacedUnixConnector",
    "RequestPace",
    "Turns",
    "most_connections",
    "most_door_connections",
]

_CONNECTING = 128
"""Connections to one address that are being made at the same time: fewer than any server lets wait to be accepted."""
_SLOW_S = 1.0
_LEFT_FREE = 256
"""Descriptors that connections to upstreams leave to the rest of the process, besides the half for the workers'."""
_FEWEST = 64
_BURST_S = 2.0
_WAIT_S = 5.0
"""Seconds that a request of a worker may be held back; one that would have to wait longer is refused."""


class Turns:
    """Lets a few do something at a time, first come first served; who takes longer than `slow_s` stops counting."""

    def __init__(self, most: int = _CONNECTING, slow_s: float = _SLOW_S) -> None:
        self._free = asyncio.Semaphore(most)
        self._slow_s = slow_s

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for a turn and have it until the end of the block, or until it took too long."""
        await self._free.acquire()
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self._free.release()

        slow = asyncio.get_running_loop().call_later(self._slow_s, end)
        try:
            yield
        finally:
            slow.cancel()
            end()


class _Paced(aiohttp.BaseConnector):
    """Starts the clock of a connection when its turn has come.

    Else, when thousands of calls begin at once, the last ones would be given up because this process was busy with the
    first ones, or because the server's queue of connections to accept was full.
    """

    _turns: dict[tuple[str | None, int | None], Turns]

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Give a connection, an open one if there is one."""
        address = (req.url.raw_host, req.url.port)
        async with self._turns.setdefault(address, Turns()).taken():
            return await super().connect(req, traces, timeout)


class PacedTcpConnector(_Paced, aiohttp.TCPConnector):
    """Connections over TCP, kept for `keepalive_s` after use."""

    def __init__(self, keepalive_s: float) -> None:
        super().__init__(limit=most_connections() or 0, keepalive_timeout=keepalive_s)
        self._turns = {}


class PacedUnixConnector(_Paced, aiohttp.UnixConnector):
    """Connections to a Unix socket, kept for `keepalive_s` after use."""

    def __init__(self, path: str, keepalive_s: float) -> None:
        super().__init__(path, limit=most_connections() or 0, keepalive_timeout=keepalive_s)
        self._turns = {}


def most_door_connections() -> int | None:
    """Return how many connections workers may have to the host, None for any number: half of its descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else limit // 2


class RequestPace:
    """How many requests one worker may send: two seconds' worth at once, then as many as its rate allows.

    A request that comes too early waits for a short while; when too many do, the next ones are refused.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._room = self._most = per_s * _BURST_S
        self._counted_at = clock()

    def take(self) -> tuple[float, bool]:
        """Count a request; return the seconds that it has to wait, and whether it is refused instead."""
        now = self._clock()
        self._room = min(self._most, self._room + (now - self._counted_at) * self._per_s)
        self._counted_at = now
        if self._room >= 1:
            self._room -= 1
            return 0.0, False
        wait_s = (1 - self._room) / self._per_s
        if wait_s > _WAIT_S:
            return wait_s, True
        self._room -= 1
        return wait_s, False


def most_connections() -> int | None:
    """Return how many connections to upstreams there may be, None for any number.

    A call has one from the worker and one to its upstream; calls beyond this wait for another's to be free: a host
    without descriptors could not even record what happens.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if limit == resource.RLIM_INFINITY else max(limit // 2 - _LEFT_FREE, _FEWEST)
