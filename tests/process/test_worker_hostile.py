"""A worker process that attacks its host over the wire: descriptors, floods, what it leaves behind."""

import asyncio
import functools
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentforge.errors.sandbox import Flooded
from agentforge.errors.workers import HandshakeFailed, WorkerDied, WorkerStartFailed
from agentforge.sandbox import Fence, Limits
from agentforge.workers import Handlers, Worker, WorkerSpec, WorkerTimeouts, process, worker_zip
from agentforge.workers.pace import Pace
from agentforge_worker.wire import Method

from .hostile_world import lagging
from .worker_world import Host

ADAPTER = '''
import array, asyncio, os, socket, struct, sys, time
from agentforge_worker.adapter import Adapter, AgentCard, Probe, Result
from agentforge_worker.wire import encode_frames


def slow_to_close():
    """A connection with data that nobody reads: closing it waits for a minute."""
    listener = socket.create_server(("127.0.0.1", 0))
    mine = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    mine.setblocking(False)
    for _ in range(50):
        try:
            while mine.send(b"x" * 65536):
                pass
        except BlockingIOError:
            time.sleep(0.01)
    return mine, theirs


def send_descriptors(connection, *sockets):
    rights = array.array("i", [each.fileno() for each in sockets])
    frame = encode_frames(b'{"jsonrpc":"2.0","method":"unknown"}')
    connection.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


class Hostile(Adapter):
    def probe(self):
        return Probe("1")

    def build(self, spec, ctx):
        return spec

    def describe(self, agent):
        return AgentCard("hostile")

    async def run(self, agent, request, ctx):
        what = request.input
        transport = ctx._peer._transport
        if what == "descriptor":
            mine, theirs = slow_to_close()
            connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            send_descriptors(connection, mine)
            mine.close()
            await asyncio.sleep(60)
        elif what == "descriptor, then gone":
            mine, theirs = slow_to_close()
            connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
            connection.send(struct.pack(">IB", 0, 255))  # no frame: the host leaves, and closes what it has not read
            for _ in range(5):
                send_descriptors(connection, mine)
            mine.close()
            await asyncio.sleep(60)
        elif what == "flood":
            frame = encode_frames(b'{"jsonrpc":"2.0","method":"unknown","params":{}}')
            while True:
                transport.write(frame * 1000)
                while transport.get_write_buffer_size() > 1000000:
                    await asyncio.sleep(0.001)
        elif what == "burst":
            frame = encode_frames(b'{"jsonrpc":"2.0","method":"unknown","params":{}}')
            transport.write(frame * 3000)
            ctx.emit("step.started", {"step": 1, "name": "last"})
        elif what == "many requests":
            for number in range(20000):
                transport.write(encode_frames(b'{"jsonrpc":"2.0","id":%d,"method":"question.ask","params":'
                    b'{"run_id":"r1","attempt":1,"question":"?"}}' % number))
            await asyncio.sleep(60)
        elif what == "large requests":
            for number in range(10):
                transport.write(encode_frames(b'{"jsonrpc":"2.0","id":%d,"method":"question.ask","params":'
                    b'{"run_id":"r1","attempt":1,"question":"?","default":"%s"}}' % (number, b"x" * 20000000)))
                while transport.get_write_buffer_size() > 1000000:
                    await asyncio.sleep(0.001)
            await asyncio.sleep(60)
        return Result(what)
'''


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter.py").write_text(ADAPTER)
    return Host(tmp_path)


@asynccontextmanager
async def worker(host: Host, limits: Limits | None = None, **timeouts: float) -> AsyncIterator[Worker]:
    spec = replace(host.spec(Path(sys.executable), "Hostile"), fence=Fence(limits=limits or Limits()))
    started = await Worker.start(
        "w1",
        spec,
        pyz=worker_zip(host.folder / "zip"),
        folder=host.folder / "worker",
        handlers=Handlers(None, host._event, host._log, host._event, host._requests()),
        timeouts=WorkerTimeouts(**timeouts),
    )
    try:
        yield started
    finally:
        async with asyncio.timeout(20):
            await started.stop()


@pytest.mark.parametrize("what", ["descriptor", "descriptor, then gone"])
async def test_a_descriptor_that_is_slow_to_close_holds_nobody_up(host: Host, what: str) -> None:
    """The kernel closes a descriptor that comes with bytes, and closing may wait for as long as the worker says."""
    before = descriptors()
    async with worker(host) as started, lagging() as lag:
        with pytest.raises(WorkerDied, match="protocol error"):
            await host.run(started, what)
    assert lag.worst_s < 1.0
    async with asyncio.timeout(10):
        while descriptors() > before:
            await asyncio.sleep(0.05)


async def test_a_worker_that_sends_too_much_is_read_more_slowly(host: Host) -> None:
    limits = Limits(frames_per_s=1000)
    async with worker(host, limits) as started:
        begun = time.monotonic()
        assert (await host.run(started, "burst"))["output"] == "burst"
        assert 0.9 < time.monotonic() - begun < 10  # 3000 messages, 2000 of them at once
        assert [event["data"]["name"] for event in host.events if "data" in event] == ["last"]  # nothing is lost


async def test_a_worker_that_never_stops_sending_is_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "Pace", functools.partial(Pace, patience_s=2))
    async with worker(host, Limits(frames_per_s=1000)) as started, lagging() as lag:
        with pytest.raises(Flooded, match="1000 messages a second"):
            await host.run(started, "flood")
    assert lag.worst_s < 1.0
    assert lag.cpu_s < 2.0


async def test_a_flood_takes_nothing_from_the_hosts_other_work(host: Host) -> None:
    async with worker(host) as started, lagging() as lag:
        flooding = asyncio.create_task(host.run(started, "flood"))
        await asyncio.sleep(4)
        assert started.alive
        await started.kill("enough")
        with pytest.raises(WorkerDied):
            await flooding
    assert lag.worst_s < 1.0


@pytest.mark.parametrize(
    ("what", "words"), [("many requests", "requests under way"), ("large requests", "bytes under way")]
)
async def test_a_worker_that_asks_for_too_much_at_once_is_ended(host: Host, what: str, words: str) -> None:
    async def never(_: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    host.answers[Method.QUESTION_ASK] = never
    async with worker(host) as started:
        with pytest.raises(WorkerDied, match=words):
            await host.run(started, what)


async def test_a_worker_that_is_held_back_is_not_taken_for_a_silent_one(host: Host) -> None:
    async with worker(host, Limits(frames_per_s=500), heartbeat_s=0.1, silence_s=1.0) as started:
        assert (await host.run(started, "burst"))["output"] == "burst"  # takes four seconds


FAKE = """#!{python} -u
import array, os, socket, struct, sys, time
connection = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
{attack}
time.sleep(60)
"""
SLOW_PREAMBLE = """
listener = socket.create_server(("127.0.0.1", 0))
mine = socket.create_connection(listener.getsockname())
theirs, _ = listener.accept()
mine.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
mine.setblocking(False)
for _ in range(50):
    try:
        while mine.send(b"x" * 65536):
            pass
    except BlockingIOError:
        time.sleep(0.01)
rights = array.array("i", [mine.fileno()] * COUNT)
connection.sendmsg([b"AFWIRE1D"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
mine.close()
"""
LARGE_LOG = """
for _ in range(300):
    os.write(1, b"\\x1b[2J" * 200000)
os.write(1, b"the last words")
os._exit(1)
"""


def program(host: Host, attack: str) -> WorkerSpec:
    """A worker that is none."""
    path = host.folder / "fake"
    path.write_text(FAKE.format(python=sys.executable, attack=attack))
    path.chmod(0o755)
    return host.spec(path, "Hostile")


async def start(host: Host, spec: WorkerSpec) -> Worker:
    return await Worker.start(
        "w1",
        spec,
        pyz=worker_zip(host.folder / "zip"),
        folder=host.folder / "worker",
        handlers=Handlers(),
        timeouts=WorkerTimeouts(start_s=3),
    )


@pytest.mark.parametrize("count", [1, 2, 50], ids=["one", "two", "more-than-fit"])
async def test_a_preamble_with_a_descriptor_that_is_slow_to_close_holds_nobody_up(host: Host, count: int) -> None:
    """More than fit are dropped by the kernel in the middle of receiving."""
    async with lagging() as lag:
        with pytest.raises((HandshakeFailed, WorkerStartFailed)):
            await asyncio.wait_for(start(host, program(host, SLOW_PREAMBLE.replace("COUNT", str(count)))), 20)
    assert lag.worst_s < 1.0


async def test_of_a_long_log_little_is_kept(host: Host) -> None:
    async with lagging() as lag:
        with pytest.raises(WorkerStartFailed, match="it said") as raised:
            await start(host, program(host, LARGE_LOG))
    assert len(raised.value.message) < 10_000
    assert lag.worst_s < 1.0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
