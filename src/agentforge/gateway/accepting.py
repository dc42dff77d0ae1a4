"""Connections to a listening socket that a worker handed over, taken in a thread of their own.

A worker keeps hold of the socket that it handed over: both share one file description. It can clear O_NONBLOCK, take
a connection away between the host's look and its `accept()`, or change any option, at any time. Whoever accepts on
such a socket may have to wait for as long as the worker likes; so the event loop never does. What was accepted is the
host's alone. Used by `Door` and `Gate`.
"""

import asyncio
import contextlib
import errno
import logging
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

__all__ = ["Acceptor"]

_log = logging.getLogger(__name__)

_PAUSE_S = 0.05
_STOP_AGAIN_S = 0.02
_STOP_WITHIN_S = 5.0
_SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SO_TIMESTAMPING = 37  # asm-generic/socket.h; Python has no name for it
_IP_RECVERR = 11  # linux/in.h
_RESET = (
    (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0)),  # closing would wait for the worker
    (socket.SOL_SOCKET, _SO_TIMESTAMPING, 0),  # all that is sent would come back as an error: polls return at once
    (socket.IPPROTO_IP, _IP_RECVERR, 0),  # the same
    (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1),  # what has come would not be told of
)
"""Options that a connection inherits from the listening socket, where the worker may set them."""


class Acceptor:
    """Takes connections from a listening socket and hands them to the event loop, until it is stopped.

    At most `most` connections are out at once: each that `take` got counts until `done` is called for it. Further
    ones, and those beyond `per_s` a second, wait in the socket's own queue, at the worker's cost.
    """

    def __init__(
        self,
        listening: socket.socket,
        take: Callable[[socket.socket], None],
        *,
        most: int,
        per_s: float = math.inf,
        name: str = "",
    ) -> None:
        """Prepare; the listening socket belongs to the acceptor from here on.

        `take` is called on the event loop with a socket that doesn't block; one that it raises for is closed.
        """
        self._listening = listening
        self._take = take
        self._free = most
        self._pace = _Pace(per_s)
        self._name = name
        self._room = threading.Condition()
        self._stopping = False
        self._closed = False
        self._is_short = False

    def start(self) -> None:
        """Begin to accept. Call it on the event loop that the connections are for; raises OSError, RuntimeError."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        try:
            self._listening.setblocking(False)  # a hint only: the worker can undo it
            self._woken, self._waker = os.pipe()
        except BaseException:
            self._listening.close()
            raise
        try:
            threading.Thread(target=self._run, name=f"accept {self._name}", daemon=True).start()
        except BaseException:
            self._close()
            os.close(self._waker)
            raise

    def done(self) -> None:
        """Make room for another connection: one that was taken is over. Any thread may call it."""
        with self._room:
            self._free += 1
            self._room.notify()

    async def stop(self) -> None:
        """Accept nothing more and close the socket; `take` is not called any more. Stopping twice is fine."""
        with self._room:
            first, self._stopping = not self._stopping, True
            self._room.notify()
        if first:
            os.close(self._waker)
        deadline = self._loop.time() + _STOP_WITHIN_S
        while not self._ended.done():
            self._shut_down()
            await asyncio.wait([self._ended], timeout=_STOP_AGAIN_S)
            if self._loop.time() > deadline:
                _log.error("%s: the thread that accepts doesn't end", self._name)
                return

    def _run(self) -> None:
        """Accept until stopped, or until the worker has shut its socket down: in the thread."""
        try:
            while self._wait_for_room() and self._wait_for_one():
                try:
                    connection, _ = self._listening.accept()
                except OSError as error:
                    if error.errno in (errno.EINVAL, errno.EBADF):
                        break  # it listens no more
                    self._report(error)
                    self._pause(_PAUSE_S)
                    continue
                self._is_short = False
                if not self._hand_over(connection):
                    break
                self._pause(self._pace.delay())
        finally:
            # In the thread too: with SO_LINGER set, closing may wait.
            self._close()
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._end)

    def _wait_for_room(self) -> bool:
        with self._room:
            self._room.wait_for(lambda: self._free > 0 or self._stopping)
            return not self._stopping

    def _wait_for_one(self) -> bool:
        poll = select.poll()
        poll.register(self._woken, 0)
        poll.register(self._listening, select.POLLIN)
        poll.poll()
        return not self._stopping

    def _pause(self, duration_s: float) -> None:
        if duration_s > 0:
            poll = select.poll()
            poll.register(self._woken, 0)
            poll.poll(math.ceil(duration_s * 1000))

    def _report(self, error: OSError) -> None:
        if error.errno in _SHORT_OF and not self._is_short:
            self._is_short = True
            _log.warning("%s: no connection can be accepted for now: %s", self._name, error)

    def _hand_over(self, connection: socket.socket) -> bool:
        with self._room:
            self._free -= 1
        try:
            connection.setblocking(False)
            for option in _RESET:
                connection.setsockopt(*option)
            self._loop.call_soon_threadsafe(self._give, connection)
        except OSError:
            connection.close()
            self.done()
        except RuntimeError:  # the loop is closed
            connection.close()
            return False
        return True

    def _give(self, connection: socket.socket) -> None:
        if self._stopping:
            connection.close()
            return
        try:
            self._take(connection)
        except Exception:
            _log.exception("%s: a connection was dropped", self._name)
            connection.close()
            self.done()

    def _shut_down(self) -> None:
        """Wake an `accept()` that the worker made wait. It can `listen()` again at once: hence the repeats."""
        with self._room, contextlib.suppress(OSError):
            if not self._closed:  # else the number may be some other file's by now
                self._listening.shutdown(socket.SHUT_RDWR)

    def _close(self) -> None:
        with self._room:
            self._closed = True
        self._listening.close()
        os.close(self._woken)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


class _Pace:
    """How long to wait after each connection, so that there are no more than so many a second on average."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._allowed = max(1.0, per_s)
        self._since = clock()

    def delay(self) -> float:
        """Count a connection and return for how many seconds none may follow; up to a second's worth come at once."""
        if math.isinf(self._per_s):
            return 0.0
        now = self._clock()
        self._allowed = min(max(1.0, self._per_s), self._allowed + (now - self._since) * self._per_s) - 1
        self._since = now
        return max(0.0, (1 - self._allowed) / self._per_s)
