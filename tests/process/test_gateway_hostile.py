"""A door whose worker is hostile: it shares the socket, and speaks HTTP as badly as it can."""

import asyncio
import contextlib
import dataclasses
import json
import select
import socket
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from agentforge.gateway import DoorLimits, ModelCall, ModelResponse

from .gateway_world import World, ask, make_world
from .hostile_world import ask_raw, attacking, lagging, request

TAKES_CONNECTIONS_AWAY = """
os.set_blocking(door.fileno(), True)
stop = time.monotonic() + 30
def steal():
    while time.monotonic() < stop:
        os.set_blocking(door.fileno(), True)
        try:
            door.accept()[0].close()
        except OSError:
            pass
for _ in range(2):
    threading.Thread(target=steal, daemon=True).start()
say("attacking")
while time.monotonic() < stop:
    try:
        socket.create_connection(address, 1).close()
    except OSError:
        pass
"""
SHUTS_DOWN_AND_LISTENS_AGAIN = """
say("attacking")
stop = time.monotonic() + 30
while time.monotonic() < stop:
    os.set_blocking(door.fileno(), True)
    try:
        door.shutdown(socket.SHUT_RDWR)
        door.listen(1)
        socket.create_connection(address, 1)
    except OSError:
        pass
"""
HAS_CLOSING_WAIT = """
door.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
client.connect(address)
client.sendall(REQUEST)
say("attacking")
time.sleep(60)
"""
HAS_EVERY_POLL_RETURN = """
SO_TIMESTAMPING = 37
door.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, (1 << 1) | (1 << 4) | (1 << 8) | (1 << 9))
client = socket.create_connection(address)
client.sendall(REQUEST)
client.recv(10)
say("attacking")
time.sleep(60)
"""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with make_world() as made:
        yield made


@asynccontextmanager
async def victim(world: World, limits: DoorLimits | None = None) -> AsyncIterator[tuple[socket.socket, str]]:
    """A second door whose socket the attacker has too, and a token that is good there."""
    listening = socket.create_server(("127.0.0.1", 0))
    shared = listening.dup()
    door = await world.gateway.open_door(listening, "w2", limits)
    try:
        yield shared, world.grant(world.upstream("fake"), worker="w2")
    finally:
        shared.close()
        async with asyncio.timeout(20):
            await door.close()


async def answers(world: World) -> None:
    """See that the first door goes on."""
    async with asyncio.timeout(5), world.post(ask()) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "program",
    [TAKES_CONNECTIONS_AWAY, SHUTS_DOWN_AND_LISTENS_AGAIN],
    ids=["takes-connections-away", "shuts-down-and-listens-again"],
)
async def test_what_a_worker_does_to_the_doors_socket_holds_nobody_up(world: World, program: str) -> None:
    async with victim(world) as (shared, _), attacking(shared, program) as attacker, lagging() as lag:
        assert await attacker.stdout.readline() == b"attacking\n"
        for _ in range(30):
            await answers(world)
            await asyncio.sleep(0.05)
    assert lag.worst_s < 1.0


async def test_a_connection_that_is_slow_to_close_holds_nobody_up(world: World) -> None:
    """SO_LINGER is inherited by what is accepted: closing waits until the worker has read what it does not read."""

    async def known(call: ModelCall) -> ModelResponse | None:
        return ModelResponse(json.dumps({"choices": [], "padding": "x" * 200_000}).encode())

    async with victim(world) as (shared, token):
        world.observer.on_requested = known
        sent = request(token, ask(), extra="Connection: close\r\n")
        async with attacking(shared, HAS_CLOSING_WAIT.replace("REQUEST", repr(sent))) as attacker, lagging() as lag:
            assert await attacker.stdout.readline() == b"attacking\n"
            async with asyncio.timeout(30):
                while not world.observer.calls:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            await answers(world)
    assert lag.worst_s < 1.0


async def test_a_connection_that_always_has_news_takes_no_time(world: World) -> None:
    """SO_TIMESTAMPING is inherited too: what is sent comes back as an error to be read, and polls return at once."""
    async with victim(world) as (shared, token):
        sent = request(token, ask())
        async with attacking(shared, HAS_EVERY_POLL_RETURN.replace("REQUEST", repr(sent))) as attacker:
            assert await attacker.stdout.readline() == b"attacking\n"
            async with lagging() as lag:
                await asyncio.sleep(2)
    assert lag.cpu_s < 0.3


# ---- requests that never end, answers that nobody reads

QUICK = DoorLimits(head_s=0.5, body_s=0.5, idle_s=0.5, unread_s=0.5, look_s=0.1)


async def until_closed(address: tuple[str, int], sent: bytes, trickled: bytes = b"") -> bytes:
    """Send something, then the rest byte by byte for as long as the door takes it; return what came."""
    reader, writer = await asyncio.open_connection(*address)
    answer = asyncio.create_task(reader.read())
    try:
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionError):
                writer.write(sent)
                for byte in trickled:
                    if answer.done():
                        break
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.02)
            with contextlib.suppress(ConnectionError):
                return await answer
    finally:
        answer.cancel()
        writer.close()
    return b""


@pytest.mark.parametrize(
    ("sent", "trickled"),
    [
        (b"", b""),
        (b"POST /v1/chat/comp", b""),
        (b"POST /v1/chat/completions HTTP/1.1\r\n", b"X-A: " + b"y" * 5000),
        (b"", b"POST /v1/chat/completions HTTP/1.1\r\n" + b"X-A: y\r\n" * 500),
    ],
    ids=["says-nothing", "stops-in-its-head", "head-byte-by-byte", "all-byte-by-byte"],
)
async def test_a_request_whose_head_never_ends_is_given_up(world: World, sent: bytes, trickled: bytes) -> None:
    async with victim(world, limits=QUICK) as (shared, _):
        assert b"200" not in await until_closed(shared.getsockname(), sent, trickled)
    await answers(world)


async def test_a_body_that_never_comes_is_given_up(world: World) -> None:
    async with victim(world, limits=QUICK) as (shared, token):
        begun = time.monotonic()
        whole = request(token, ask())
        await until_closed(shared.getsockname(), whole[:-5])
        assert 0.4 < time.monotonic() - begun < 10
    await answers(world)


async def test_a_body_that_comes_slowly_but_steadily_is_served(world: World) -> None:
    async with victim(world, limits=QUICK) as (shared, token):
        whole = request(token, ask("slow"))
        assert b"200 OK" in await until_closed(shared.getsockname(), whole[:-40], whole[-40:])


async def test_an_answer_that_takes_long_is_waited_for(world: World) -> None:
    async def known(call: ModelCall) -> ModelResponse | None:
        await asyncio.sleep(1.5)
        return ModelResponse(b'{"choices": []}')

    world.observer.on_requested = known
    async with victim(world, limits=QUICK) as (shared, token):
        assert b"200 OK" in await until_closed(shared.getsockname(), request(token, ask()))


@asynccontextmanager
async def unread(world: World, limits: DoorLimits, connections: int, size: int) -> AsyncIterator[list[Any]]:
    """Connections whose answers come and are not read."""

    async def known(call: ModelCall) -> ModelResponse | None:
        return ModelResponse(json.dumps({"choices": [], "padding": "x" * size}).encode())

    async with victim(world, limits=limits) as (shared, token):
        world.observer.on_requested = known
        clients = []
        for _ in range(connections):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(shared.getsockname())
            client.sendall(request(token, ask()))
            clients.append(client)
        try:
            yield clients
        finally:
            for client in clients:
                client.close()


async def test_an_answer_that_nobody_reads_is_given_up(world: World) -> None:
    async with unread(world, QUICK, 1, 20_000_000) as (client,):
        await until_reset(client)
    await answers(world)


async def test_answers_that_nobody_reads_take_a_bounded_amount_of_memory(world: World) -> None:
    limits = dataclasses.replace(QUICK, unread_s=60, unread_bytes=50_000_000)
    async with unread(world, limits, 10, 20_000_000) as clients:
        async with asyncio.timeout(20):
            while sum(map(is_reset, clients)) < 8:
                await asyncio.sleep(0.05)
        assert not all(map(is_reset, clients))
    await answers(world)


def is_reset(client: socket.socket) -> bool:
    """Whether the other side has ended the connection; nothing is read."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLRDHUP) for _, event in poll.poll(0))


async def until_reset(client: socket.socket) -> None:
    async with asyncio.timeout(20):
        while not is_reset(client):
            await asyncio.sleep(0.05)


# ---- too much at once


async def test_connections_beyond_the_limit_wait_for_others_to_end(world: World) -> None:
    async with victim(world, limits=DoorLimits(connections=3)) as (shared, token):
        idle = [socket.create_connection(shared.getsockname()) for _ in range(3)]
        await asyncio.sleep(0.2)
        asking = asyncio.create_task(
            ask_raw(shared.getsockname(), request(token, ask(), extra="Connection: close\r\n"))
        )
        await asyncio.sleep(0.5)
        assert not asking.done()
        assert world.observer.calls == []
        idle[0].close()
        assert b"200 OK" in await asking
        for each in idle[1:]:
            each.close()


async def test_many_connections_at_once_are_all_served(world: World) -> None:
    async with victim(world) as (shared, token):
        sent = request(token, ask(), extra="Connection: close\r\n")
        got = await asyncio.gather(*(ask_raw(shared.getsockname(), sent) for _ in range(300)))
        assert all(b"200 OK" in each for each in got)


async def test_requests_beyond_the_rate_wait_and_then_are_refused_with_the_time_to_wait(world: World) -> None:
    async def known(call: ModelCall) -> ModelResponse | None:
        return ModelResponse(b'{"choices": []}')

    world.observer.on_requested = known
    async with victim(world, limits=DoorLimits(requests_per_s=20, connections_per_s=1000)) as (shared, token):
        url = f"http://127.0.0.1:{shared.getsockname()[1]}/v1/chat/completions"
        headers = {"Authorization": f"Bearer {token}"}

        async def post() -> tuple[int, str | None, Any]:
            async with client.post(url, json=ask(), headers=headers) as answer:
                return answer.status, answer.headers.get("Retry-After"), await answer.json()

        begun = time.monotonic()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            got = await asyncio.gather(*(post() for _ in range(200)))
        statuses = [status for status, _, _ in got]
        assert 130 <= statuses.count(200) <= 170  # two seconds' worth at once, five waited for
        assert time.monotonic() - begun > 3
        refused = [(after, body) for status, after, body in got if status == 429]
        assert len(refused) == 200 - statuses.count(200)
        assert all(1 <= int(after or 0) <= 10 and body["error"]["code"] == "AF509" for after, body in refused)


async def test_pipelined_requests_wait_in_the_workers_own_memory(world: World) -> None:
    """While one is answered a few more are taken; the rest is not read."""
    answering = asyncio.Event()

    async def known(call: ModelCall) -> ModelResponse | None:
        await answering.wait()
        return ModelResponse(b'{"choices": []}')

    world.observer.on_requested = known
    async with victim(world) as (shared, token):
        reader, writer = await asyncio.open_connection(*shared.getsockname())
        one = request(token, ask("x" * 50_000))
        for _ in range(400):
            writer.write(one)
        await asyncio.sleep(1)
        transport = writer.transport
        assert transport.get_write_buffer_size() > 5_000_000  # of 20 MB
        assert len(world.observer.calls) == 1
        answering.set()
        async with asyncio.timeout(30):
            while len(world.observer.calls) < 400:
                await reader.read(65536)
        writer.close()


async def test_what_follows_an_upgrade_is_not_kept(world: World) -> None:
    answering = asyncio.Event()

    async def known(call: ModelCall) -> ModelResponse | None:
        await answering.wait()
        return ModelResponse(b'{"choices": []}')

    world.observer.on_requested = known
    async with victim(world) as (shared, token):
        _, writer = await asyncio.open_connection(*shared.getsockname())
        writer.write(request(token, ask(), extra="Connection: upgrade\r\nUpgrade: websocket\r\n"))
        for _ in range(200):
            writer.write(b"z" * 100_000)
        await asyncio.sleep(1)
        assert writer.transport.get_write_buffer_size() > 5_000_000  # of 20 MB
        answering.set()
        writer.close()
    await answers(world)


# ---- what is no request


POST = b"POST /v1/chat/completions HTTP/1.1\r\n"
MALFORMED: dict[str, bytes] = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "no-method": b" / HTTP/1.1\r\n\r\n",
    "another-protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a-long-line": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a-long-header": POST + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    "many-headers": POST + b"X: a\r\n" * 20_000 + b"\r\n",
    "a-nul": POST + b"X: a\x00b\r\n\r\n",
    "two-lengths": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a-negative-length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a-huge-length": POST + b"Content-Length: 999999999999999999999999\r\n\r\nhello",
    "length-and-chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n",
    "chunked-twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked-not-last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "a-bad-chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
    "a-huge-chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello",
    "a-folded-header": POST + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "bare-newlines": b"POST /v1/chat/completions HTTP/1.1\nContent-Length: 0\n\n",
    "a-tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03\x01",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_request_is_refused_without_a_word_in_the_log(
    world: World, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with victim(world) as (shared, token):
        for data in (
            sent,
            sent.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\nAuthorization: Bearer " + token.encode() + b"\r\n", 1),
        ):
            got = await ask_raw(shared.getsockname(), data, patience_s=2)
            assert not got or got.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), got
    assert world.observer.calls == []
    assert caplog.records == []
    await answers(world)


async def test_chunks_of_any_size_make_a_body(world: World) -> None:
    body = json.dumps(ask()).encode()
    chunks = b"".join(b"1;ext=%s\r\n%c\r\n" % (b"e" * 50, byte) for byte in body) + b"0\r\nTrailer: x\r\n\r\n"
    async with victim(world) as (shared, token):
        head = request(token, b"", extra="Transfer-Encoding: chunked\r\nConnection: close\r\n")
        sent = head.replace(b"Content-Length: 0\r\n", b"") + chunks
        assert b"200 OK" in await ask_raw(shared.getsockname(), sent)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model": "fake", "messages": ' + b"[" * 500 + b"]" * 500 + b"}", "nested too deeply"),
        (b'{"model": "fake", "model": "fake"}', "more than once"),
        (b'{"model": "fake", "mode\\u006c": "other"}', "more than once"),
        (b'{"model": "fake", "MODEL": "other"}', "more than once"),
        (b'{"model": "\xff"}', "not JSON"),
        (b"\x00" * 1000, "not JSON"),
        (b'{"model": 5}', "names no model"),
        (b"9" * 5000, "not JSON"),
        (b'{"model": "' + b"m" * 50_000 + b'"}', "has no model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_body_that_is_no_model_call_is_refused(
    world: World, body: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.post(body) as answer:
        assert 400 <= answer.status < 500
        said = (await answer.json())["error"]["message"]
    assert words in said
    assert len(said) < 1000
    assert world.model.requests == []
    assert caplog.records == []


async def test_a_body_that_unpacks_to_too_much_is_refused_before_it_does(world: World) -> None:
    bomb = zlib.compress(b" " * 200_000_000)
    assert len(bomb) < 250_000
    async with lagging() as lag, world.post(bomb[:99_000], **{"Content-Encoding": "deflate"}) as answer:
        assert answer.status in (400, 413)
    assert lag.cpu_s < 2
    await answers(world)


@pytest.mark.parametrize(
    "path",
    [
        "http://elsewhere.example/v1/chat/completions",
        "m://elsewhere.example/v1/chat/completions",
        "/%761/chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/../v1/chat/completions",
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/files",
        "*",
    ],
)
async def test_a_path_that_is_not_served_as_it_stands_goes_nowhere(world: World, path: str) -> None:
    got = await ask_raw(address_of(world), request(world.token, ask(), path=path, extra="Connection: close\r\n"))
    assert got.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert world.model.requests == []


async def test_the_query_goes_on_as_it_was_sent(world: World) -> None:
    sent = request(world.token, ask(), path="/v1/chat/completions?a=%2F&b=c+d", extra="Connection: close\r\n")
    assert b"200 OK" in await ask_raw(address_of(world), sent)
    assert world.model.requests[0].path == "/v1/chat/completions?a=%2F&b=c+d"


@pytest.mark.parametrize(
    "header", [b"X-Odd: \xff\xfe\x80", b"X-Odd: \xed\xa0\x80", b"x-stainless-retry-count: " + b"9" * 5000, b"Expect: x"]
)
async def test_headers_that_can_not_go_on_stop_nothing(
    world: World, header: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    sent = request(world.token, ask(), extra="Connection: close\r\nX-Here: x\r\n").replace(b"X-Here: x", header)
    got = await ask_raw(address_of(world), sent)
    assert got.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4"))
    assert caplog.records == []


# ---- run tokens


async def test_a_token_is_good_for_its_worker_its_attempt_and_its_model_alone(world: World) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/chat/completions"
    await world.gateway.open_door(listening, "w2")
    theirs = world.grant(world.upstream("fake"), worker="w2")

    async def status(token: str, at: str = world.url + "/v1/chat/completions", model: str = "fake") -> int:
        async with world.client.post(at, json=ask(model=model), headers={"Authorization": f"Bearer {token}"}) as answer:
            return int(answer.status)

    assert await status(world.token) == 200
    assert await status(theirs, url) == 200
    assert await status(theirs) == 401  # of another worker's run
    assert await status(world.token, url) == 401
    assert await status(world.token[:-1] + "x") == 401  # forged
    assert await status("af-run-" + "A" * 43) == 401
    assert await status(world.token + "\u00e9") == 401
    assert await status(world.token, model="gpt-expensive") == 404  # of another alias
    await world.gateway.revoke(world.token)
    assert await status(world.token) == 401  # replayed


def address_of(world: World) -> tuple[str, int]:
    return "127.0.0.1", int(world.url.rpartition(":")[2])
