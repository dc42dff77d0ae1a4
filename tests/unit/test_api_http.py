"""The client's HTTP: connections are kept, dead ones replaced, broken answers told from servers that are not there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentforge.api.http import AnswerBroken, ConnectFailed, HeaderUnfit, HttpClient

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@asynccontextmanager
async def served(path: Path, serve: Serve) -> AsyncIterator[HttpClient]:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, path)
    client = HttpClient(socket=path)
    try:
        yield client
    finally:
        await client.close()
        server.close()


async def ask(client: HttpClient, content: bytes = b"") -> bytes:
    async with client.request("POST", "/x", [("A", "b")], content) as answer:
        return await answer.whole()


async def test_one_connection_serves_request_after_request(tmp_path: Path) -> None:
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(b"connected")
        for _ in range(3):
            heads.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2))
            writer.write(HELLO)

    async with served(tmp_path / "s", serve) as client:
        for _ in range(3):
            assert await ask(client, b"{}") == b"hello"
    request = b"POST /x HTTP/1.1\r\nHost: host\r\nContent-Length: 2\r\nA: b\r\n\r\n{}"
    assert heads == [b"connected", request, request, request]


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)

    async with served(tmp_path / "s", serve) as client:
        for _ in range(3):
            assert await ask(client) == b"hello"
            await asyncio.sleep(0.01)


async def test_requests_at_once_have_a_connection_each(tmp_path: Path) -> None:
    arrived = 0
    everybody = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        await reader.readuntil(b"\r\n\r\n")
        arrived += 1
        if arrived == 200:
            everybody.set()
        await everybody.wait()
        writer.write(HELLO)

    async with served(tmp_path / "s", serve) as client, asyncio.timeout(30):
        assert await asyncio.gather(*(ask(client) for _ in range(200))) == [b"hello"] * 200


@pytest.mark.parametrize("sent", [b"", HELLO[:-1], b"HTTP/1.1 200 OK\r\n", b"no http\r\n\r\n"])
async def test_an_answer_that_breaks_off_is_no_answer(tmp_path: Path, sent: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)

    async with served(tmp_path / "s", serve) as client:
        with pytest.raises(AnswerBroken):
            await ask(client)


async def test_a_stream_comes_piece_by_piece_and_whole(tmp_path: Path) -> None:
    goes_on = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await goes_on.wait()
        writer.write(b"3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")

    async with served(tmp_path / "s", serve) as client:
        pieces = []
        async with client.request("GET", "/", []) as answer:
            async for piece in answer.pieces():
                pieces.append(piece)
                goes_on.set()
    assert (pieces[0], b"".join(pieces)) == (b"one", b"onetwothree")


async def test_a_reader_that_is_slow_holds_the_server_back(tmp_path: Path) -> None:
    size, sent = 1 << 26, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    async with served(tmp_path / "s", serve) as client, client.request("GET", "/", []) as answer:
        before = -1
        while sent > before:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < size / 2
        assert sum([len(piece) async for piece in answer.pieces()]) == size


async def test_who_leaves_before_the_end_breaks_the_connection(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO[:-1])
        assert await reader.read() == b""
        left.set()

    async with served(tmp_path / "s", serve) as client, asyncio.timeout(10):
        async with client.request("GET", "/", []) as answer:
            assert answer.status == 200
        await left.wait()


async def test_where_nobody_listens_nothing_was_taken(tmp_path: Path) -> None:
    with pytest.raises(ConnectFailed):
        await ask(HttpClient(socket=tmp_path / "nobody"))
    with pytest.raises(ConnectFailed):
        await ask(HttpClient(url="http://127.0.0.1:9"))


@pytest.mark.parametrize("value", ["a\r\nB: c", "a\nb", "ж"])
async def test_a_header_holds_no_line_break(tmp_path: Path, value: str) -> None:
    with pytest.raises(HeaderUnfit):
        async with HttpClient(socket=tmp_path / "nobody").request("GET", "/", [("A", value)]):
            pass
