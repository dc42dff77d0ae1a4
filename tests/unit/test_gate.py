"""A gate with real sockets: what is listed is reached, all else is not, and nothing that a worker does holds it up."""

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from agentforge.errors import AgentForgeError
from agentforge.gateway.gate import Connection, Gate, GateLimits

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Seen:
    """What the gate told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Connection, dict[str, Any]]] = []

    def opened(self, connection: Connection) -> None:
        self.events.append(("opened", connection, {}))

    def refused(self, connection: Connection, error: AgentForgeError) -> None:
        self.events.append(("refused", connection, {"code": error.code, "message": error.message, **error.details}))

    def closed(self, connection: Connection, why: str, sent: int, received: int, duration_ms: float) -> None:
        self.events.append(("closed", connection, {"why": why, "sent": sent, "received": received}))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self.events]

    async def last(self, kind: str) -> tuple[Connection, dict[str, Any]]:
        async with asyncio.timeout(10):
            while not self.events or self.events[-1][0] != kind:
                await asyncio.sleep(0.005)
        return self.events[-1][1:]


class Resolver:
    """The outermost border: what the host's resolver would say, and how often it was asked."""

    def __init__(self, **names: Sequence[str]) -> None:
        self.names = {name.replace("_", "."): list(addresses) for name, addresses in names.items()}
        self.asked: list[str] = []

    def __call__(self, name: str, port: int) -> Sequence[str]:
        self.asked.append(name)
        if name not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.names[name]


class Worker:
    """The worker's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, data: bytes) -> tuple[int, str]:
        """Return the answer's status, and its reason or, where it has one, its body."""
        self.writer.write(data)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status = int(head.split()[1])
        if status == 200:
            return status, head.split("\r\n")[0]
        body = json.loads(await self.reader.read())["error"]
        assert body["code"] in head.split("\r\n")[0]
        self.head = head
        return status, f"{body['message']} {body['hint']}"

    async def connect(self, target: str) -> tuple[int, str]:
        return await self.ask(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Give everything back, then a last word, once the other side is done."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()


@contextlib.asynccontextmanager
async def canary(serve: Serve = echo) -> AsyncIterator[int]:
    """A TCP server on the loopback; yields its port."""
    ended: set[asyncio.Event] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over = asyncio.Event()
        ended.add(over)
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            over.set()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.gather(*(over.wait() for over in ended))


class World:
    """A gate, its worker's end, and what is told of it."""

    def __init__(self, network: Sequence[str], resolver: Resolver, **limits: Any) -> None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        self.seen = Seen()
        self.resolver = resolver
        self.listening = listening
        self.address = listening.getsockname()
        self.gate = Gate(listening, "w1", network, self.seen, limits=GateLimits(**limits), resolve=resolver)

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Worker]:
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            yield Worker(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def world(*network: str, resolver: Resolver | None = None, **limits: Any) -> AsyncIterator[World]:
    made = World(network, resolver or Resolver(), **limits)
    made.gate.start()
    try:
        yield made
    finally:
        await made.gate.close()


@pytest.fixture(autouse=True, scope="module")
def _what_uvloop_keeps_open_is_open() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture(autouse=True)
def _no_thread_and_no_descriptor_stays() -> Iterator[None]:
    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    for _ in range(200):
        after = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
        if after <= before:
            return
        time.sleep(0.01)
    assert after <= before


async def test_a_listed_address_is_reached_and_both_sides_are_told_when_the_other_is_done() -> None:
    async with canary() as port, world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        assert await worker.connect(f"127.0.0.1:{port}") == (200, "HTTP/1.1 200 Connection established")
        worker.writer.write(b"hello")
        assert await worker.reader.readexactly(5) == b"hello"
        worker.writer.write_eof()
        assert await worker.reader.read() == b"bye"
        connection, data = await made.seen.last("closed")
        assert made.seen.kinds == ["opened", "closed"]
        assert connection == Connection("w1-c1", "w1", "127.0.0.1", port, "127.0.0.1")
        assert data == {"why": "ended", "sent": 5, "received": 8}


async def test_bytes_that_come_with_the_request_go_on() -> None:
    async with canary() as port, world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        request = f"CONNECT 127.0.0.1:{port} HTTP/1.0\r\n\r\nfirst".encode()
        assert (await worker.ask(request))[0] == 200
        worker.writer.write(b" second")
        worker.writer.write_eof()
        assert await worker.reader.read() == b"first secondbye"


async def test_a_request_may_come_byte_by_byte() -> None:
    async with canary() as port, world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        for byte in f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode():
            worker.writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
        assert b"200" in await worker.reader.readline()


async def test_a_name_is_resolved_once_by_the_host_and_the_checked_address_is_connected_to() -> None:
    """An answer that changes (DNS rebinding) changes nothing: what is checked is what is connected to."""

    class Rebinding(Resolver):
        def __call__(self, name: str, port: int) -> Sequence[str]:
            self.asked.append(name)
            return ["127.0.0.1"] if len(self.asked) == 1 else ["127.0.0.9"]

    async with canary() as port:
        network = f"canary.test:{port}", f"127.0.0.1:{port}"
        async with world(*network, resolver=Rebinding()) as made:
            async with made.worker() as worker:
                assert (await worker.connect(f"Canary.TEST.:{port}"))[0] == 200
            connection, _ = await made.seen.last("closed")
            assert (connection.host, connection.address) == ("canary.test", "127.0.0.1")
            assert made.resolver.asked == ["canary.test"]
            async with made.worker() as worker:
                status, says = await worker.connect(f"canary.test:{port}")
            assert status == 403
            assert "`127.0.0.9`" in says


async def test_the_checked_addresses_are_tried_in_turn() -> None:
    async with canary() as port:
        resolver = Resolver(canary_test=["127.0.0.7", "10.9.8.7", "127.0.0.1"])  # nothing listens on the first
        network = [f"canary.test:{port}", f"127.0.0.7:{port}", f"127.0.0.1:{port}"]
        async with world(*network, resolver=resolver) as made, made.worker() as worker:
            assert (await worker.connect(f"canary.test:{port}"))[0] == 200
            connection, _ = await made.seen.last("opened")
            assert connection.address == "127.0.0.1"


async def test_a_name_with_many_addresses_is_not_tried_for_ever() -> None:
    async with canary() as port:
        addresses = [f"127.0.1.{number}" for number in range(1, 4)] + ["127.0.0.1"]
        network = [f"canary.test:{port}", *(f"{address}:{port}" for address in addresses)]
        resolver = Resolver(canary_test=addresses)
        async with world(*network, resolver=resolver, addresses=3) as made, made.worker() as worker:
            assert (await worker.connect(f"canary.test:{port}"))[0] == 502


async def test_a_host_that_is_not_listed_is_refused_without_a_lookup() -> None:
    resolver = Resolver(evil_test=["93.184.216.34"])
    async with world("api.test:443", "[::1]:9000", resolver=resolver) as made, made.worker() as worker:
        status, says = await worker.connect("evil.test:443")
        assert status == 403
        assert "`evil.test:443` is not listed under `network`, which allows `api.test:443`, `[::1]:9000`" in says
        assert "network: [evil.test:443]" in says
        assert resolver.asked == []
        connection, data = await made.seen.last("refused")
        assert made.seen.kinds == ["refused"]
        assert (connection.host, connection.port, connection.address) == ("evil.test", 443, "")
        assert (data["code"], data["why"]) == ("AF450", "unlisted")


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1", "a loopback address"),
        ("10.0.0.5", "a private address"),
        ("169.254.169.254", "a cloud's metadata service"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("64:ff9b::7f00:1", "a loopback address (127.0.0.1 as NAT64)"),
        ("2002:7f00:1::", "a loopback address (127.0.0.1 as 6to4)"),
        ("fe80::1", "a link-local address"),
    ],
)
async def test_a_listed_name_does_not_lead_to_an_address_that_is_not_public(address: str, what: str) -> None:
    async with canary() as port:
        resolver = Resolver(api_test=[address])
        async with world(f"api.test:{port}", resolver=resolver) as made, made.worker() as worker:
            status, says = await worker.connect(f"api.test:{port}")
            assert status == 403
            assert f"`api.test:{port}` is {what}, `" in says
            assert "list the address itself in the agent file" in says
            _, data = await made.seen.last("refused")
            assert (data["code"], data["why"]) == ("AF450", "address")


@pytest.mark.parametrize("listed", ["127.0.0.1:1", "127.0.0.2:{port}", "localhost:{port}"])
async def test_an_address_needs_its_own_entry_with_its_own_port(listed: str) -> None:
    async with canary() as port:
        resolver = Resolver(api_test=["127.0.0.1"])
        network = f"api.test:{port}", listed.format(port=port)
        async with world(*network, resolver=resolver) as made, made.worker() as worker:
            assert (await worker.connect(f"api.test:{port}"))[0] == 403


async def test_the_metadata_service_is_not_reached_by_its_name_even_if_that_is_listed() -> None:
    resolver = Resolver(metadata_google_internal=["93.184.216.34"])
    async with world("metadata.google.internal:80", resolver=resolver) as made, made.worker() as worker:
        status, says = await worker.connect("metadata.google.internal:80")
        assert status == 403
        assert "a cloud's metadata service" in says
        assert resolver.asked == []


async def test_a_name_that_does_not_resolve_is_said_to() -> None:
    async with world("api.test:443") as made, made.worker() as worker:
        status, says = await worker.connect("api.test:443")
        assert status == 502
        assert "`api.test` can't be resolved by the host: Name or service not known" in says
        _, data = await made.seen.last("refused")
        assert (data["code"], data["why"]) == ("AF451", "unresolved")


async def test_a_port_that_nobody_listens_on_is_said_to() -> None:
    async with canary() as port:
        pass
    async with world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        status, says = await worker.connect(f"127.0.0.1:{port}")
        assert status == 502
        assert ": connection refused" in says
        _, data = await made.seen.last("refused")
        assert (data["code"], data["why"]) == ("AF451", "unreachable")


async def test_an_address_that_does_not_answer_is_given_up() -> None:
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    port = full.getsockname()[1]
    with full, contextlib.ExitStack() as stack:
        for _ in range(4):  # its queue is full now: nobody else gets an answer
            pending = stack.enter_context(socket.socket())
            pending.setblocking(False)
            pending.connect_ex(("127.0.0.1", port))
        async with world(f"127.0.0.1:{port}", connect_s=0.2) as made, made.worker() as worker:
            status, says = await worker.connect(f"127.0.0.1:{port}")
            assert status == 502
            assert "no answer in 0.2 s" in says


async def test_a_resolver_that_hangs_holds_up_only_who_asks_for_that_name() -> None:
    release = threading.Event()

    class Hanging(Resolver):
        def __call__(self, name: str, port: int) -> Sequence[str]:
            if name == "slow.test":
                self.asked.append(name)
                release.wait(20)
                return []
            return super().__call__(name, port)

    async with canary() as port:
        resolver = Hanging(fast_test=["127.0.0.1"])
        network = f"slow.test:{port}", f"fast.test:{port}", f"127.0.0.1:{port}"
        try:
            async with world(*network, resolver=resolver, resolve_s=0.3) as made, contextlib.AsyncExitStack() as stack:
                slow = [await stack.enter_async_context(made.worker()) for _ in range(40)]
                asked = [asyncio.create_task(each.connect(f"slow.test:{port}")) for each in slow]
                async with made.worker() as worker:
                    assert (await worker.connect(f"fast.test:{port}"))[0] == 200
                assert {status for status, _ in await asyncio.gather(*asked)} == {504}
                assert resolver.asked.count("slow.test") == 1
        finally:
            release.set()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"CONNECT api.test HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400),
        (b"CONNECT api.test:443 HTTP/1.1\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", 431),
        (b"CONNECT api.test:443 HTTP/1.1\r\n" + b"A: b\r\n" * 2800, 431),
    ],
)
async def test_what_is_no_connect_gets_an_http_error(request_: bytes, status: int) -> None:
    async with world("api.test:443") as made, made.worker() as worker:
        got, _ = await worker.ask(request_)
        assert got == status
        assert ("Allow: CONNECT" in worker.head) == (status == 405)
        connection, data = await made.seen.last("refused")
        assert (connection.host, data["why"]) == ("", "request")


async def test_a_head_that_does_not_come_ends_the_connection() -> None:
    async with world("api.test:443", head_s=0.2) as made:
        async with made.worker() as worker, made.worker() as silent:
            for byte in b"CONNECT api.test":
                worker.writer.write(bytes([byte]))
                await asyncio.sleep(0.02)
            assert b" 408 " in await worker.reader.readline()
            assert await silent.reader.read() == b""
        assert made.seen.kinds == ["refused"]  # who asked for nothing is nothing to tell of


async def test_a_worker_that_reads_nothing_is_sent_no_more_than_buffers_hold() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while sent < 200 * 2**20:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        writer.close()

    async with canary(flood) as port, world(f"127.0.0.1:{port}") as made:
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            await asyncio.to_thread(worker.connect, made.address)
            worker.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.3)
            assert 0 < sent < 32 * 2**20
        _, data = await made.seen.last("closed")
        assert data["why"] in ("worker", "peer")


async def test_a_destination_that_reads_nothing_stops_the_worker() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await over.wait()
        writer.close()

    async def flood(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    over = asyncio.Event()

    async with canary(deaf) as port, world(f"127.0.0.1:{port}", idle_s=0.5) as made, made.worker() as worker:
        assert (await worker.connect(f"127.0.0.1:{port}"))[0] == 200
        with pytest.raises(OSError):
            await flood(worker.writer)
        _, data = await made.seen.last("closed")
        assert data["why"] == "idle"
        assert data["sent"] < 32 * 2**20
        over.set()
        await asyncio.sleep(0.05)


async def test_half_a_connection_goes_on_while_the_other_half_is_done() -> None:
    async def first_done(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that was all")
        writer.write_eof()
        received = await reader.read()
        got.set_result(received)
        writer.close()

    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with canary(first_done) as port, world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        await worker.connect(f"127.0.0.1:{port}")
        assert await worker.reader.read() == b"that was all"
        await asyncio.sleep(0.05)
        worker.writer.write(b"still here")
        worker.writer.write_eof()
        assert await got == b"still here"
        _, data = await made.seen.last("closed")
        assert data["why"] == "ended"


async def test_a_connection_that_breaks_off_breaks_off_on_the_other_side() -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of it")
        await reader.read(1)
        no_goodbye = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_goodbye)
        writer.close()

    async with canary(breaks) as port, world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        await worker.connect(f"127.0.0.1:{port}")
        assert await worker.reader.readexactly(10) == b"half of it"
        worker.writer.write(b"?")
        with pytest.raises(ConnectionResetError):
            await worker.reader.read()
        _, data = await made.seen.last("closed")
        assert data["why"] == "peer"


async def test_last_words_of_a_destination_that_takes_no_more_arrive() -> None:
    async def curt(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"413 too large")
        await writer.drain()
        writer.close()  # with bytes unread: it breaks off

    def talk(address: tuple[str, int], port: int) -> bytes:
        with socket.create_connection(address) as worker:
            worker.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
            assert b" 200 " in worker.recv(1000)
            with contextlib.suppress(OSError):
                for _ in range(50):
                    worker.sendall(b"x" * 1000)
                    time.sleep(0.001)
            return worker.recv(100)

    async with canary(curt) as port, world(f"127.0.0.1:{port}") as made:
        assert await asyncio.to_thread(talk, made.address, port) == b"413 too large"


async def test_a_connection_without_a_byte_is_ended_and_one_with_some_is_not() -> None:
    async with (
        canary() as port,
        world(f"127.0.0.1:{port}", idle_s=0.4) as made,
        made.worker() as busy,
        made.worker() as idle,
    ):
        await busy.connect(f"127.0.0.1:{port}")
        await idle.connect(f"127.0.0.1:{port}")
        for _ in range(8):
            busy.writer.write(b"x")
            assert await busy.reader.readexactly(1) == b"x"
            await asyncio.sleep(0.1)
        with pytest.raises(ConnectionResetError):
            await idle.reader.read()
        assert [data["why"] for kind, _, data in made.seen.events if kind == "closed"] == ["idle"]


async def test_connections_beyond_the_limit_wait_until_one_is_over() -> None:
    async with canary() as port, world(f"127.0.0.1:{port}", connections=1) as made, made.worker() as first:
        await first.connect(f"127.0.0.1:{port}")
        async with made.worker() as second:
            asked = asyncio.create_task(second.connect(f"127.0.0.1:{port}"))
            await asyncio.sleep(0.2)
            assert not asked.done()
            first.writer.close()
            assert (await asked)[0] == 200


async def test_closing_the_gate_ends_every_connection_whatever_it_waits_for() -> None:
    release = threading.Event()

    class Hanging(Resolver):
        def __call__(self, name: str, port: int) -> Sequence[str]:
            release.wait(20)
            return []

    async with canary() as port:
        async with world(f"127.0.0.1:{port}", "slow.test:443", resolver=Hanging()) as made, made.worker() as open_:
            await open_.connect(f"127.0.0.1:{port}")
            async with made.worker() as silent, made.worker() as resolving:
                resolving.writer.write(b"CONNECT slow.test:443 HTTP/1.1\r\n\r\n")
                await asyncio.sleep(0.1)
                began = time.monotonic()
                await asyncio.gather(made.gate.close(), made.gate.close())
                assert time.monotonic() - began < 2
                with pytest.raises(ConnectionResetError):
                    await open_.reader.read()
                for each in (silent, resolving):
                    with contextlib.suppress(ConnectionResetError):
                        assert await each.reader.read() == b""
                _, data = await made.seen.last("closed")
                assert data["why"] == "gate"
                with pytest.raises(OSError):
                    await asyncio.open_connection(*made.address)
        release.set()


async def test_a_worker_that_shuts_its_listener_down_keeps_what_it_has() -> None:
    async with canary() as port, world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        await worker.connect(f"127.0.0.1:{port}")
        made.listening.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(0.1)
        worker.writer.write(b"hello")
        assert await worker.reader.readexactly(5) == b"hello"


async def test_an_observer_that_fails_does_not_end_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Seen):
        def opened(self, connection: Connection) -> None:
            raise LookupError("no such run")

    async with canary() as port, world(f"127.0.0.1:{port}") as made, made.worker() as worker:
        made.gate._observer = Failing()
        assert (await worker.connect(f"127.0.0.1:{port}"))[0] == 200
        assert "a connection of worker w1 could not be reported" in caplog.text


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_listed_address_is_reached_and_both_sides_are_told_when_the_other_is_done,
        test_the_checked_addresses_are_tried_in_turn,
        test_a_port_that_nobody_listens_on_is_said_to,
        test_an_address_that_does_not_answer_is_given_up,
        test_a_worker_that_reads_nothing_is_sent_no_more_than_buffers_hold,
        test_a_destination_that_reads_nothing_stops_the_worker,
        test_half_a_connection_goes_on_while_the_other_half_is_done,
        test_a_connection_that_breaks_off_breaks_off_on_the_other_side,
        test_last_words_of_a_destination_that_takes_no_more_arrive,
        test_closing_the_gate_ends_every_connection_whatever_it_waits_for,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_it_is_the_same_on_the_event_loop_of_hosts(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())
