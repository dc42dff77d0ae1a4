"""Accepting on a socket that a worker holds too: whatever the worker does to it, the event loop goes on."""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agentforge.gateway.accepting import Acceptor


class Taken:
    """What an acceptor handed over."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self.fails = False

    def __call__(self, connection: socket.socket) -> None:
        if self.fails:
            raise LookupError("no use for it")
        self.connections.append(connection)

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.connections) < count:
                await asyncio.sleep(0.005)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


def listener(made: Callable[[], socket.socket] = socket.socket) -> socket.socket:
    listening = made()
    listening.bind(("127.0.0.1", 0))
    listening.listen(16)
    return listening


@contextlib.asynccontextmanager
async def accepting(
    listening: socket.socket, most: int = 8, **settings: float
) -> AsyncIterator[tuple[Acceptor, Taken]]:
    taken = Taken()
    acceptor = Acceptor(listening, taken, most=most, name="the gate of w1", **settings)
    acceptor.start()
    try:
        yield acceptor, taken
    finally:
        await acceptor.stop()
        taken.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_connection_reaches_the_event_loop_and_carries_bytes() -> None:
    listening = listener()
    with socket.create_connection(listening.getsockname()) as client:
        async with accepting(listening) as (_, taken):
            await taken.reach(1)
            client.sendall(b"hello")
            assert await asyncio.get_running_loop().sock_recv(taken.connections[0], 10) == b"hello"
            assert taken.connections[0].gettimeout() == 0


async def test_no_more_connections_are_out_than_allowed() -> None:
    listening = listener()
    address = listening.getsockname()
    with contextlib.ExitStack() as clients:
        async with accepting(listening, most=2) as (acceptor, taken):
            for _ in range(3):
                clients.enter_context(socket.create_connection(address))
            await taken.reach(2)
            await asyncio.sleep(0.1)
            assert len(taken.connections) == 2
            acceptor.done()
            await taken.reach(3)


async def test_connections_beyond_the_rate_wait() -> None:
    listening = listener()
    address = listening.getsockname()
    with contextlib.ExitStack() as clients:
        for _ in range(6):
            clients.enter_context(socket.create_connection(address))
        begun = time.monotonic()
        async with accepting(listening, per_s=4.0) as (_, taken):
            await taken.reach(4)
            assert time.monotonic() - begun < 0.4
            await taken.reach(6)
            assert time.monotonic() - begun > 0.4


async def test_a_worker_that_takes_the_connection_away_blocks_only_the_thread() -> None:
    robbed = threading.Event()

    class Robbed(socket.socket):
        """A worker has it too: just before the host accepts it makes the socket block and accepts itself."""

        def accept(self) -> tuple[socket.socket, object]:
            if not robbed.is_set():
                with socket.fromfd(self.fileno(), self.family, self.type) as other:
                    os.set_blocking(other.fileno(), True)
                    other.accept()[0].close()
                robbed.set()
            return super().accept()

    listening = listener(Robbed)
    address = listening.getsockname()
    async with accepting(listening) as (acceptor, taken):
        with socket.create_connection(address):
            async with asyncio.timeout(10):
                while not robbed.is_set():
                    await asyncio.sleep(0.005)  # the loop turns
        with socket.create_connection(address):
            await taken.reach(1)  # the next one is the host's
        robbed.clear()
        with socket.create_connection(address):
            async with asyncio.timeout(10):
                while not robbed.is_set():
                    await asyncio.sleep(0.005)
        begun = time.monotonic()
        await acceptor.stop()  # while the thread is in accept()
        assert time.monotonic() - begun < 2


async def test_a_worker_that_has_it_listen_again_and_again_does_not_keep_the_acceptor() -> None:
    listening = listener()
    worker = listening.dup()
    over = threading.Event()

    def insist() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                os.set_blocking(worker.fileno(), True)
                worker.listen(16)

    thread = threading.Thread(target=insist)
    thread.start()
    try:
        async with accepting(listening) as (acceptor, _):
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            await acceptor.stop()
            assert time.monotonic() - begun < 2
    finally:
        over.set()
        thread.join()
        worker.close()


async def test_closing_a_connection_waits_for_nobody_whatever_the_worker_set() -> None:
    listening = listener()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
    with socket.create_connection(listening.getsockname()):
        async with accepting(listening) as (_, taken):
            await taken.reach(1)
            with contextlib.suppress(BlockingIOError):
                while True:
                    taken.connections[0].send(b"x" * 65536)
            begun = time.monotonic()
            taken.connections[0].close()
            assert time.monotonic() - begun < 2


async def test_a_worker_that_shuts_its_socket_down_ends_the_acceptor() -> None:
    listening = listener()
    with listening.dup() as worker:
        before = threading.active_count()
        async with accepting(listening):
            worker.shutdown(socket.SHUT_RDWR)
            async with asyncio.timeout(5):
                while threading.active_count() > before:
                    await asyncio.sleep(0.005)
            assert listening.fileno() == -1


async def test_a_host_short_of_descriptors_accepts_when_it_has_some_again(caplog: pytest.LogCaptureFixture) -> None:
    listening = listener()
    address = listening.getsockname()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as clients:
        async with accepting(listening, most=1) as (acceptor, taken):
            for _ in range(2):
                clients.enter_context(socket.create_connection(address))
            await taken.reach(1)
            with caplog.at_level(logging.WARNING):
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                try:
                    acceptor.done()
                    async with asyncio.timeout(5):
                        while not caplog.records:
                            await asyncio.sleep(0.005)
                    await asyncio.sleep(0.2)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await taken.reach(2)
    assert len(caplog.records) == 1
    assert "the gate of w1: no connection can be accepted for now" in caplog.text


async def test_a_connection_that_nobody_wants_is_closed_and_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    listening = listener()
    address = listening.getsockname()
    async with accepting(listening, most=1) as (_, taken):
        taken.fails = True
        with socket.create_connection(address) as client:
            assert await asyncio.to_thread(client.recv, 1) == b""
        taken.fails = False
        with socket.create_connection(address):
            await taken.reach(1)
    assert "a connection was dropped" in caplog.text


async def test_starting_and_stopping_leaves_no_thread_and_no_descriptor() -> None:
    async def once(connections: int) -> None:
        listening = listener()
        address = listening.getsockname()
        with contextlib.ExitStack() as clients:
            async with accepting(listening, most=2) as (acceptor, _):
                for _ in range(connections):
                    clients.enter_context(socket.create_connection(address))
                await asyncio.gather(acceptor.stop(), acceptor.stop())

    async def left() -> tuple[int, int]:
        deadline = time.monotonic() + 10
        while threading.active_count() > threads and time.monotonic() < deadline:  # a thread ends after it has said so
            await asyncio.sleep(0.005)
        return threading.active_count(), descriptors()

    threads = threading.active_count()
    await once(1)
    before = await left()
    for number in range(30):
        await once(number % 4)
    assert await left() == before == (threads, before[1])


async def test_after_the_stop_nothing_is_handed_over() -> None:
    listening = listener()
    address = listening.getsockname()
    async with accepting(listening) as (acceptor, taken):
        await acceptor.stop()
        with pytest.raises(OSError):
            socket.create_connection(address)
        assert taken.connections == []
