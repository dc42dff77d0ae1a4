"""Work that may block for as long as a worker likes, done beside the event loop.

Closing a descriptor that a worker has sent, or a socket that it shares, can block: `SO_LINGER` has the kernel wait for
a connection whose other end the worker holds as well. Such calls get a thread of their own, one that the end of the
host does not wait for. The threads of the loop's executor are too few for that.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["aside", "dispose"]

T = TypeVar("T")
_NO_LINGER = struct.pack("ii", 0, 0)


async def aside(function: Callable[[], T]) -> T:
    """Return what a function returns that runs in a thread of its own; raises what it raises.

    The thread goes on if the caller is cancelled.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    work: concurrent.futures.Future[T] = concurrent.futures.Future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    def run() -> None:
        try:
            work.set_result(function())
        except BaseException as error:
            work.set_exception(error)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name="aside", daemon=True).start()
    await ended
    return work.result()


def dispose(*closing: socket.socket | int) -> None:
    """Close sockets and descriptors that a worker may have made slow to close; returns at once."""
    try:
        threading.Thread(target=_close_all, args=(closing,), name="dispose", daemon=True).start()
    except RuntimeError:  # the host can have no further thread: rather late than never
        _close_all(closing)


def _close_all(closing: tuple[socket.socket | int, ...]) -> None:
    """Close sockets and descriptors. The wait is taken off them first: then a thread seldom stays behind."""
    sockets = [each if isinstance(each, socket.socket) else _as_socket(each) for each in closing]
    for each in sockets:
        if isinstance(each, socket.socket):
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    for each in sockets:
        with contextlib.suppress(OSError):
            each.close() if isinstance(each, socket.socket) else os.close(each)


def _as_socket(descriptor: int) -> socket.socket | int:
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        return descriptor
