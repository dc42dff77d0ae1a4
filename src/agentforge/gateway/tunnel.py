"""Bytes both ways between two connected sockets, until both ends are done, one breaks off, or nothing comes."""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["EndReason", "Tunnel"]

EndReason = Literal["ended", "worker", "peer", "idle", "gate"]
"""Both sides were done; the worker, or the other side, broke off; nothing came for too long; the gate was closed."""

_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Tunnel:
    """Passes bytes on between a worker and a peer. Each way holds one chunk and reads no more until that is written."""

    worker: socket.socket
    peer: socket.socket
    idle_s: float
    sent: int = 0
    """Bytes that the peer got."""
    received: int = 0
    """Bytes that the worker got."""
    _broken: EndReason | None = field(default=None, init=False)
    _told: list[socket.socket] = field(default_factory=list, init=False)
    """Who knows that nothing more comes."""

    async def run(self, first: bytes = b"") -> EndReason:
        """Pass bytes on, those that came `first` before all, until the end; the sockets are to be closed then.

        Who was not told that there is no more will see the connection break off: what was cut must not look complete.
        """
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        ways = [asyncio.create_task(self._out(first)), asyncio.create_task(self._back())]
        try:
            return await self._watch(ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)
            for way in ways:
                if not way.cancelled():
                    way.exception()
            for end in (self.worker, self.peer):
                if end not in self._told:
                    _reset(end)

    async def _watch(self, ways: "list[asyncio.Task[EndReason | None]]") -> EndReason:
        """Wait for both ways, but for one only if its end is the end of both."""
        waiting = set(ways)
        while waiting:
            left = self._last + self.idle_s - self._loop.time()
            if left <= 0:
                return "idle"
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                if (reason := way.result()) is not None:
                    return reason
        return self._broken or "ended"

    async def _out(self, first: bytes) -> EndReason | None:
        if first and not await self._send(self.peer, first):
            return None
        return await self._copy(self.worker, self.peer)

    async def _back(self) -> EndReason | None:
        return await self._copy(self.peer, self.worker)

    async def _copy(self, source: socket.socket, sink: socket.socket) -> EndReason | None:
        """Copy until the source is done, and tell the sink so; returns who broke off, if the source did.

        If the sink did, there may be last words of it to read: the other way goes on until it has them.
        """
        buffer = memoryview(bytearray(_CHUNK))
        while True:
            try:
                count = await self._loop.sock_recv_into(source, buffer)
            except OSError:
                return self._name(source)
            self._last = self._loop.time()
            if not await self._send(sink, buffer[:count]) or not count:
                return None

    async def _send(self, sink: socket.socket, data: memoryview | bytes) -> bool:
        """Send bytes, or that there are no more; whether the sink took them."""
        try:
            if data:
                await self._loop.sock_sendall(sink, data)
            else:
                sink.shutdown(socket.SHUT_WR)
                self._told.append(sink)
        except OSError:
            self._broken = self._name(sink)
            return False
        self._last = self._loop.time()
        if sink is self.peer:
            self.sent += len(data)
        else:
            self.received += len(data)
        return True

    def _name(self, end: socket.socket) -> EndReason:
        return "peer" if end is self.peer else "worker"


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
