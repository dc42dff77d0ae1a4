"""The host's end of a worker's connection as a transport: bytes both ways, pauses, descriptors, the end."""

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from agentforge.workers.aside import aside, dispose
from agentforge.workers.line import Line
from agentforge_worker.wire import Peer, PeerGone, encode_frames

pytestmark = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


def on(loop: str, main: Any) -> None:
    (uvloop.run if loop == "uvloop" else asyncio.run)(main)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Peer, Line, Peer, socket.socket]]:
    """A host's peer on a line, a worker's peer on asyncio's own transport, and the worker's socket."""
    ours, theirs = socket.socketpair()
    twin = theirs.dup()

    async def echo(params: dict[str, Any]) -> Any:
        return params

    async def hang(params: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    host, worker = Peer({"echo": echo}, {}), Peer({"echo": echo, "hang": hang}, {})
    line = Line(ours, host)
    await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=theirs)
    try:
        yield host, line, worker, twin
    finally:
        host.abort("over")
        worker.abort("over")
        twin.close()
        await asyncio.wait([host.closed, worker.closed])


def test_messages_of_any_size_go_both_ways(loop: str) -> None:
    async def main() -> None:
        async with pair() as (host, _, worker, _):
            for size in (0, 1, 70_000, 5_000_000):
                assert await host.call("echo", {"x": "x" * size}) == {"x": "x" * size}
                assert await worker.call("echo", {"x": "y" * size}) == {"x": "y" * size}

    on(loop, main())


def test_many_calls_at_once_are_all_answered(loop: str) -> None:
    async def main() -> None:
        async with pair() as (host, _, worker, _):
            calls = [each.call("echo", {"n": n}) for n in range(500) for each in (host, worker)]
            assert [answer["n"] for answer in await asyncio.gather(*calls)] == [n for n in range(500) for _ in (1, 2)]

    on(loop, main())


def test_a_side_that_does_not_read_makes_the_other_wait(loop: str) -> None:
    async def main() -> None:
        async with pair() as (host, line, worker, _):
            assert worker._transport is not None
            worker._transport.pause_reading()
            calls = [asyncio.create_task(host.call("echo", {"x": "x" * 1_000_000})) for _ in range(5)]
            await asyncio.sleep(0.05)
            assert line.get_write_buffer_size() > 3_000_000
            assert not host._writable.is_set()
            worker._transport.resume_reading()
            await asyncio.gather(*calls)
            assert host._writable.is_set()
            assert line.get_write_buffer_size() == 0

    on(loop, main())


def test_closing_sends_what_was_written_before(loop: str) -> None:
    async def main() -> None:
        async with pair() as (host, line, worker, _):
            got: list[Any] = []
            worker._listeners["last"] = got.append
            for number in range(20):
                host.notify("last", {"n": number, "x": "x" * 100_000})
            host.close()
            assert line.is_closing()
            await worker.closed
            assert [each["n"] for each in got] == list(range(20))

    on(loop, main())


@pytest.mark.parametrize("end", ["close", "abort"])
def test_the_end_of_one_side_is_the_end_of_the_other(loop: str, end: str) -> None:
    async def main() -> None:
        async with pair() as (host, _, worker, twin):
            twin.close()
            call = asyncio.create_task(host.call("hang", {}))
            await asyncio.sleep(0.01)
            getattr(worker, end)(*(["gone"] if end == "abort" else []))
            await asyncio.wait_for(host.closed, 5)
            with pytest.raises(PeerGone):
                await call
        async with pair() as (host, _, worker, twin):
            twin.close()
            getattr(host, end)(*(["gone"] if end == "abort" else []))
            await asyncio.wait_for(worker.closed, 5)

    on(loop, main())


def test_a_descriptor_ends_the_connection_and_is_closed(loop: str) -> None:
    async def main() -> None:
        before = None
        async with pair() as (host, _, _, twin):
            await host.call("echo", {})
            before = descriptors()
            reader, writer = os.pipe()
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reader] * 200))]
            twin.sendmsg([encode_frames(b"{}")], rights)
            os.close(reader)
            os.close(writer)
            assert "descriptor" in await asyncio.wait_for(host.closed, 5)
            with pytest.raises(PeerGone):
                await host.call("echo", {})
        async with asyncio.timeout(5):
            while descriptors() >= before:
                await asyncio.sleep(0.01)

    on(loop, main())


def test_reading_goes_on_where_it_was_paused(loop: str) -> None:
    async def main() -> None:
        async with pair() as (host, line, worker, _):
            line.pause_reading()
            line.pause_reading()
            call = asyncio.create_task(worker.call("echo", {"n": 1}))
            await asyncio.sleep(0.05)
            assert not call.done()
            line.resume_reading()
            line.resume_reading()
            assert await asyncio.wait_for(call, 5) == {"n": 1}
            host.abort("over")
            line.resume_reading()
            line.pause_reading()
            line.close()

    on(loop, main())


def test_work_beside_the_loop_returns_or_raises(loop: str) -> None:
    async def main() -> None:
        assert await aside(lambda: 5) == 5
        with pytest.raises(LookupError, match="nothing"):
            await aside(lambda: {}["nothing"])

    on(loop, main())


def test_what_is_disposed_of_is_closed(loop: str) -> None:
    async def main() -> None:
        before = descriptors()
        one, other = socket.socketpair()
        reader, writer = os.pipe()
        dispose(one, other.detach(), reader, writer, 999_999)
        async with asyncio.timeout(5):
            while descriptors() > before:
                await asyncio.sleep(0.01)

    on(loop, main())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
