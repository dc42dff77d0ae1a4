"""The hand-over of the model door on real socket pairs: what is no door is refused, and no descriptor stays open."""

import array
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentforge_worker.wire import DoorError, open_door, receive_preamble, send_preamble

WITH_DOOR, WITHOUT_DOOR = b"AFWIRE1D", b"AFWIRE1-"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The host's end and the worker's."""
    host, worker = socket.socketpair()
    with host, worker:
        yield host, worker


@contextlib.contextmanager
def no_descriptor_stays() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


def send(connection: socket.socket, data: bytes, *files: int) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
    connection.sendmsg([data], rights)


def listening(address: str = "127.0.0.1", family: int = socket.AF_INET) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen()
    return listener


def not_listening() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind(("127.0.0.1", 0))
    return bound


def connected() -> socket.socket:
    with listening() as listener:
        return socket.create_connection(listener.getsockname())


def unix() -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + os.urandom(8).hex())  # abstract: nothing to clean up
    listener.listen()
    return listener


def udp() -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    return bound


def test_a_door_arrives_listening_and_answers_at_the_workers_address(ends: tuple[socket.socket, socket.socket]) -> None:
    host, worker = ends
    with open_door() as theirs:
        send_preamble(worker, theirs)
        address = theirs.getsockname()
    door, gate = receive_preamble(host)
    assert door is not None
    assert gate is None
    with door:
        assert door.getsockname() == address
        assert not door.get_inheritable()
        with socket.create_connection(address) as client:
            accepted, _ = door.accept()
            with accepted:
                client.sendall(b"hello")
                assert accepted.recv(5) == b"hello"


def test_a_worker_without_a_door_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    host, worker = ends
    with no_descriptor_stays():
        send_preamble(worker, None)
        assert receive_preamble(host) == (None, None)


def test_a_gate_comes_with_a_door_or_alone(ends: tuple[socket.socket, socket.socket]) -> None:
    host, worker = ends
    with no_descriptor_stays(), open_door() as one, open_door() as other:
        send_preamble(worker, one, other)
        door, gate = receive_preamble(host)
        assert door is not None
        assert gate is not None
        with door, gate:
            assert (door.getsockname(), gate.getsockname()) == (one.getsockname(), other.getsockname())
        send_preamble(worker, None, other)
        door, gate = receive_preamble(host)
        assert door is None
        assert gate is not None
        with gate:
            assert gate.getsockname() == other.getsockname()


def test_one_socket_is_not_door_and_gate(ends: tuple[socket.socket, socket.socket]) -> None:
    host, worker = ends
    with no_descriptor_stays(), open_door() as theirs, udp() as no_gate:
        for second, reason in ((theirs, "twice"), (no_gate, "not an IPv4 stream socket")):
            send(worker, b"AFWIRE1B", theirs.fileno(), second.fileno())
            with pytest.raises(DoorError, match=reason):
                receive_preamble(host)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (not_listening, "does not listen"),
        (connected, "does not listen"),
        (unix, "not an IPv4 stream socket"),
        (udp, "not an IPv4 stream socket"),
        (lambda: listening("0.0.0.0"), "beyond the loopback"),
        (lambda: listening("::1", socket.AF_INET6), "not an IPv4 stream socket"),
    ],
    ids=["not-listening", "connected", "unix", "udp", "any-address", "ipv6"],
)
def test_a_descriptor_that_is_no_door_is_refused_and_closed(
    ends: tuple[socket.socket, socket.socket], make: Callable[[], socket.socket], reason: str
) -> None:
    host, worker = ends
    with no_descriptor_stays(), make() as theirs:
        send(worker, WITH_DOOR, theirs.fileno())
        with pytest.raises(DoorError, match=reason):
            receive_preamble(host)


def test_a_descriptor_that_is_no_socket_is_refused_and_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    host, worker = ends
    with no_descriptor_stays(), Path(os.devnull).open() as file:
        send(worker, WITH_DOOR, file.fileno())
        with pytest.raises(OSError):
            receive_preamble(host)


def test_no_descriptor_where_one_was_announced_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    host, worker = ends
    with no_descriptor_stays():
        send(worker, WITH_DOOR)
        with pytest.raises(DoorError, match="expected 1 descriptors, got 0"):
            receive_preamble(host)


@pytest.mark.parametrize("count", [2, 4, 5, 50])
def test_more_than_one_descriptor_is_refused_and_all_are_closed(
    ends: tuple[socket.socket, socket.socket], count: int
) -> None:
    host, worker = ends
    with no_descriptor_stays(), open_door() as theirs:
        send(worker, WITH_DOOR, *[theirs.fileno()] * count)
        with pytest.raises(DoorError, match="descriptor"):
            receive_preamble(host)


def test_a_descriptor_where_none_was_announced_is_refused_and_closed(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    host, worker = ends
    with no_descriptor_stays(), open_door() as theirs:
        send(worker, WITHOUT_DOOR, theirs.fileno())
        with pytest.raises(DoorError, match="expected 0 descriptors, got 1"):
            receive_preamble(host)


@pytest.mark.parametrize(
    "preamble", [b"AFWIRE2D", b"AFWIRE1X", b"AF", b"GET / HT", b"\x00" * 8, b"Traceback"], ids=repr
)
def test_a_wrong_preamble_is_refused_and_its_descriptor_closed(
    ends: tuple[socket.socket, socket.socket], preamble: bytes
) -> None:
    host, worker = ends
    with no_descriptor_stays(), open_door() as theirs:
        send(worker, preamble, theirs.fileno())
        with pytest.raises(DoorError, match="not a worker"):
            receive_preamble(host)


def test_an_ended_connection_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    host, worker = ends
    worker.close()
    with no_descriptor_stays(), pytest.raises(DoorError, match="not a worker"):
        receive_preamble(host)


def test_a_descriptor_sent_after_the_preamble_is_never_taken(ends: tuple[socket.socket, socket.socket]) -> None:
    """The connection is read with plain reads from then on, and those drop descriptors."""
    host, worker = ends
    with no_descriptor_stays(), open_door() as theirs:
        send_preamble(worker, None)
        assert receive_preamble(host) == (None, None)
        send(worker, b"later", theirs.fileno())
        assert host.recv(100) == b"later"


def test_a_new_door_is_reachable_on_the_loopback_alone() -> None:
    with open_door() as door:
        assert door.getsockname()[0] == "127.0.0.1"
        assert door.getsockname()[1] > 0
