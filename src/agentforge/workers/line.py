"""The host's end of the connection to a worker, as an asyncio transport.

Those of the event loops read with plain reads, and the kernel drops the descriptors that come with the bytes, in the
middle of such a read: a worker that sends a socket with `SO_LINGER` set, and unread data in it, stops the host for as
long as it likes. Here they are taken like the bytes, closed beside the loop, and end the connection: after the
preamble no descriptor belongs on it.
"""

import array
import asyncio
import contextlib
import socket
from collections import deque

from agentforge.workers.aside import dispose
from agentforge_worker.wire import Peer

__all__ = ["Line"]

_READ = 256 * 1024
_RIGHTS = socket.CMSG_SPACE(253 * array.array("i").itemsize)
"""Room for as many descriptors as the kernel allows with one write (SCM_MAX_FD)."""
_GATHERED = 64
"""Pieces that are written with one call."""


class Line(asyncio.Transport):
    """Carries a peer's bytes over a connected Unix socket, which belongs to it from here on."""

    def __init__(self, connection: socket.socket, peer: Peer) -> None:
        super().__init__()
        connection.setblocking(False)
        self._connection = connection
        self._peer = peer
        self._loop = asyncio.get_running_loop()
        self._room = bytearray(_READ)
        self._unsent: deque[memoryview] = deque()
        self._unsent_size = 0
        self._high = 1 << 20
        self._flushing: asyncio.Handle | None = None
        self._writing = False
        """Whether the loop tells when the socket can be written to."""
        self._full = False
        """Whether the peer was told not to write for now."""
        self._reading = True
        self._read_all = False
        self._closing = False
        self._lost = False
        peer.connection_made(self)
        self._loop.add_reader(connection, self._read)

    # ---- asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, together with those that follow at once."""
        if self._closing or not data:
            return
        self._unsent.append(memoryview(bytes(data)))
        self._unsent_size += len(data)
        if self._flushing is None and not self._writing:
            self._flushing = self._loop.call_soon(self._flush)
        if self._unsent_size > self._high and not self._full:
            self._full = True
            self._peer.pause_writing()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait."""
        return self._unsent_size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say from how many waiting bytes on the peer is told not to write."""
        self._high = high if high is not None else 1 << 16

    def pause_reading(self) -> None:
        """Read nothing for now."""
        if self._reading and not self._lost:
            self._reading = False
            self._loop.remove_reader(self._connection)

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._connection, self._read)

    def is_closing(self) -> bool:
        """Whether the connection has ended, or ends once what was written has gone out."""
        return self._closing

    def close(self) -> None:
        """End the connection once what was written has gone out."""
        if self._closing:
            return
        self.pause_reading()
        self._closing = True
        if not self._unsent:
            self._end(None)

    def abort(self) -> None:
        """End the connection at once."""
        self.pause_reading()
        self._closing = True
        self._end(None)

    # ---- inside

    def _read(self) -> None:
        try:
            size, ancillary, flags, _ = self._connection.recvmsg_into([self._room], _RIGHTS, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if ancillary or flags & socket.MSG_CTRUNC:
            dispose(*_descriptors(ancillary))
            self._peer.break_off("a descriptor came where none belongs")
        elif size:
            self._peer.data_received(bytes(memoryview(self._room)[:size]))
        else:
            self._read_all = True
            self.close()

    def _flush(self) -> None:
        self._flushing = None
        if self._lost:
            return
        try:
            while self._unsent:
                pieces = [self._unsent[index] for index in range(min(len(self._unsent), _GATHERED))]
                self._sent(self._connection.sendmsg(pieces))
        except (BlockingIOError, InterruptedError):
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._connection, self._flush)
        except OSError as error:
            self._fail(error)
            return
        if not self._unsent:
            self._drained()

    def _sent(self, size: int) -> None:
        self._unsent_size -= size
        while size:
            first = self._unsent.popleft()
            if len(first) > size:
                self._unsent.appendleft(first[size:])
                break
            size -= len(first)
        if self._full and self._unsent_size <= self._high // 4:
            self._full = False
            self._peer.resume_writing()

    def _drained(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._connection)
        if self._closing:
            self._end(None)

    def _fail(self, error: OSError) -> None:
        self.pause_reading()
        self._closing = True
        # A worker that is gone is no failure of the connection: its exit says what happened.
        self._end(None if isinstance(error, ConnectionError) else error)

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        if self._writing:
            self._loop.remove_writer(self._connection)
        self._unsent.clear()
        self._unsent_size = 0
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # the worker sees it now, whatever closing waits for
        self._loop.call_soon(self._peer.connection_lost, error)
        if self._read_all:
            self._connection.close()
        else:
            dispose(self._connection)  # what was never read may hold descriptors too


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
    return list(found)
