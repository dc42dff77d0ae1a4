"""The listening socket that a worker shares with the host: what a package does that runs before the worker itself.

`agents/early.py` is that package; it is in the environment and keeps a copy of the listener, or hands over another
descriptor than the protocol wants.
"""

import os
import signal
import socket
import time
from typing import Any, Optional

from . import guest
from .registry import World, attack

__all__ = ["kept"]

_CHECKED = "the host takes one descriptor, and only a socket that listens on the loopback"
_APART = "the host accepts outside of its event loop, and gives a door up that fails"


def kept() -> socket.socket:
    """Return the copy of the listener."""
    import af_early  # type: ignore[import-not-found]

    listener: socket.socket = af_early.kept[0]
    return listener


def _door(mode: str) -> Any:
    return attack("host", _CHECKED, alone=True, early=mode)


@_door("datagram")
def door_that_is_a_datagram_socket(world: World) -> Optional[str]:
    """Hand the host a UDP socket in place of the door"""
    return "it was taken"


@_door("unix")
def door_that_is_a_unix_socket(world: World) -> Optional[str]:
    """Hand the host a listening Unix socket in place of the door"""
    return "it was taken"


@_door("unheard")
def door_that_does_not_listen(world: World) -> Optional[str]:
    """Hand the host a TCP socket that does not listen"""
    return "it was taken"


@_door("file")
def door_that_is_a_file(world: World) -> Optional[str]:
    """Hand the host a file in place of the door"""
    return "it was taken"


@_door("wide")
def door_on_every_address(world: World) -> Optional[str]:
    """Hand the host a socket that listens on all addresses"""
    return "it was taken"


@_door("many")
def doors_in_plenty(world: World) -> Optional[str]:
    """Hand the host a hundred descriptors at once"""
    return "they were taken"


@_door("none")
def door_that_is_missing(world: World) -> Optional[str]:
    """Say that a door comes, and hand none over"""
    return "the host went on"


@_door("silent")
def handshake_that_never_ends(world: World) -> Optional[str]:
    """Say the first half of the handshake, and nothing more"""
    return "the host went on"


@attack("host", _APART, alone=True, judge="neighbours-model", timeout_s=15.0)
def steal_accepts(world: World) -> Optional[str]:
    """Accept connections on the shared listener before the host does"""
    listener, end = kept(), time.monotonic() + 2
    thieves = []
    for _ in range(3):
        child = os.fork()
        if not child:
            while True:
                try:
                    listener.accept()
                except OSError:
                    time.sleep(0.001)
        thieves.append(child)
    while time.monotonic() < end:
        try:
            socket.create_connection(guest.door(), timeout=0.2).close()
        except OSError:
            pass
    for child in thieves:
        os.kill(child, signal.SIGKILL)
    return None


@attack("host", _APART, alone=True, judge="neighbours-model", timeout_s=15.0)
def blocking_listener(world: World) -> Optional[str]:
    """Make the shared listener block, and take the connection away that woke the host: its `accept` waits for ever"""
    listener, end = kept(), time.monotonic() + 2.5
    os.set_blocking(listener.fileno(), True)
    child = os.fork()
    if not child:
        while True:
            try:
                listener.accept()
            except OSError:
                pass
    while time.monotonic() < end:
        os.set_blocking(listener.fileno(), True)
        try:
            socket.create_connection(guest.door(), timeout=0.2).close()
        except OSError:
            pass
    os.kill(child, signal.SIGKILL)
    time.sleep(1.0)
    return None


@attack("host", _APART, alone=True, judge="hosts-processor", timeout_s=15.0)
def shut_listener(world: World) -> Optional[str]:
    """Shut the shared listener: every `accept` of the host fails at once, as often as it tries"""
    kept().shutdown(socket.SHUT_RDWR)
    time.sleep(2.0)
    return None


@attack("host", _APART, alone=True, judge="hosts-processor", timeout_s=15.0)
def reset_connections(world: World) -> Optional[str]:
    """Open connections and reset them before the host gets to them"""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.connect(guest.door())
        time.sleep(0.01)
    return None
