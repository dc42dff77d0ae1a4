"""The hand-over of listeners: the worker listens on its own loopback and gives the descriptors to the host.

It happens once, on the raw socket, before the first frame: the worker sends an 8-byte preamble with the listening
descriptors attached (SCM_RIGHTS): the *door*, for model calls, the *gate*, for what network the agent may reach, both
in this order, or neither. The host accepts connections on them, so traffic crosses a network namespace without a
forwarder.
"""

import array
import os
import socket
from typing import Dict, List, NamedTuple, Optional, Tuple

__all__ = ["DoorError", "Handover", "open_door", "receive_preamble", "send_preamble"]

_MAGIC = b"AFWIRE1"
_KINDS: Dict[bytes, Tuple[bool, bool]] = {
    b"-": (False, False),
    b"D": (True, False),
    b"G": (False, True),
    b"B": (True, True),
}
"""The preamble's last byte: whether a door comes with it, and whether a gate does."""


class DoorError(Exception):
    """The preamble or a descriptor is not what the protocol says."""


class Handover(NamedTuple):
    """What a worker has handed over."""

    door: Optional[socket.socket]
    gate: Optional[socket.socket]


def open_door(backlog: int = 4096) -> socket.socket:
    """Return a socket that listens on a free port of this process's 127.0.0.1."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(backlog)
    return listener


def send_preamble(
    connection: socket.socket, door: Optional[socket.socket] = None, gate: Optional[socket.socket] = None
) -> None:
    """Send the preamble on a blocking socket; the listeners stay open on this side until their caller closes them."""
    has = (door is not None, gate is not None)
    kind = next(each for each in _KINDS if _KINDS[each] == has)
    rights = array.array("i", [listener.fileno() for listener in (door, gate) if listener is not None])
    if not rights:
        connection.sendall(_MAGIC + kind)
        return
    connection.sendmsg([_MAGIC + kind], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def receive_preamble(connection: socket.socket) -> Handover:
    """Read the preamble from a readable socket; return the listeners, checked.

    Raises DoorError when the bytes are wrong, or a descriptor is not a listening AF_INET stream socket on the loopback
    address. Every descriptor that came is closed then.
    """
    size = len(_MAGIC) + 1
    item = array.array("i").itemsize
    data, ancillary, flags, _ = connection.recvmsg(size, socket.CMSG_SPACE(4 * item), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % item])
    try:
        return _checked(data, list(descriptors), flags)
    except Exception:
        for descriptor in descriptors:
            _close(descriptor)
        raise


def _checked(data: bytes, descriptors: List[int], flags: int) -> Handover:
    if flags & socket.MSG_CTRUNC:
        raise DoorError("more descriptors than the protocol allows")
    kind = data[len(_MAGIC) :]
    if not data.startswith(_MAGIC) or kind not in _KINDS:
        raise DoorError("not a worker: unexpected preamble %r" % (data,))
    has_door, has_gate = _KINDS[kind]
    if len(descriptors) != has_door + has_gate:
        raise DoorError("expected %d descriptors, got %d" % (has_door + has_gate, len(descriptors)))
    if len({os.fstat(each).st_ino for each in descriptors}) != len(descriptors):
        raise DoorError("the same descriptor twice")
    listeners = [socket.socket(fileno=each) for each in descriptors]
    try:
        for listener in listeners:
            _check_listener(listener)
            listener.set_inheritable(False)
    except BaseException:
        for listener in listeners:
            listener.detach()  # who received the descriptors closes them
        raise
    return Handover(listeners[0] if has_door else None, listeners[-1] if has_gate else None)


def _check_listener(listener: socket.socket) -> None:
    if listener.family != socket.AF_INET or listener.type & 0xF != socket.SOCK_STREAM:
        raise DoorError("a descriptor is not an IPv4 stream socket")
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise DoorError("a socket does not listen")
    if listener.getsockname()[0] != "127.0.0.1":
        raise DoorError("a socket listens beyond the loopback")


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:
        pass
