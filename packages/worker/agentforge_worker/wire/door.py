"""The hand-over of the model door: the worker listens on its own loopback and gives that descriptor to the host.

It happens once, on the raw socket, before the first frame: the worker sends an 8-byte preamble, with the listening
descriptor attached (SCM_RIGHTS) or, for workers without model traffic, with none. The host accepts connections on
the descriptor, so model traffic crosses a network namespace without a forwarder.
"""

import array
import os
import socket
from typing import Optional

__all__ = ["DoorError", "open_door", "receive_preamble", "send_preamble"]

_MAGIC = b"AFWIRE1"
_WITH_DOOR = b"D"
_WITHOUT_DOOR = b"-"


class DoorError(Exception):
    """The preamble or the descriptor is not what the protocol says."""


def open_door(backlog: int = 4096) -> socket.socket:
    """Return a socket that listens on a free port of this process's 127.0.0.1."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(backlog)
    return listener


def send_preamble(connection: socket.socket, door: Optional[socket.socket]) -> None:
    """Send the preamble on a blocking socket; `door` stays open on this side until its caller closes it."""
    if door is None:
        connection.sendall(_MAGIC + _WITHOUT_DOOR)
        return
    rights = array.array("i", [door.fileno()])
    connection.sendmsg([_MAGIC + _WITH_DOOR], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receive_preamble(connection: socket.socket) -> Optional[socket.socket]:
    """Read the preamble from a readable socket; return the door, checked, or None where there is none.

    Raises DoorError when the bytes are wrong, or the descriptor is not one listening AF_INET stream socket on the
    loopback address. Every descriptor that came is closed then.
    """
    size = len(_MAGIC) + 1
    item = array.array("i").itemsize
    data, ancillary, flags, _ = connection.recvmsg(size, socket.CMSG_SPACE(4 * item), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % item])
    try:
        return _checked_door(data, descriptors, flags)
    except Exception:
        for descriptor in descriptors:
            _close(descriptor)
        raise


def _checked_door(data: bytes, descriptors: "array.array[int]", flags: int) -> Optional[socket.socket]:
    if flags & socket.MSG_CTRUNC:
        raise DoorError("more descriptors than the protocol allows")
    if data == _MAGIC + _WITHOUT_DOOR and not descriptors:
        return None
    if data != _MAGIC + _WITH_DOOR:
        raise DoorError("not a worker: unexpected preamble %r" % (data,))
    if len(descriptors) != 1:
        raise DoorError("expected one descriptor, got %d" % len(descriptors))
    door = socket.socket(fileno=descriptors[0])
    try:
        _check_listener(door)
    except BaseException:
        door.detach()
        raise
    door.set_inheritable(False)
    return door


def _check_listener(door: socket.socket) -> None:
    if door.family != socket.AF_INET or door.type & 0xF != socket.SOCK_STREAM:
        raise DoorError("the door is not an IPv4 stream socket")
    if not door.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise DoorError("the door does not listen")
    if door.getsockname()[0] != "127.0.0.1":
        raise DoorError("the door listens beyond the loopback")


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass
