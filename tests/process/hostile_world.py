"""What tests of a hostile worker share: programs that hold the door's socket too, and a watch on the host's loop."""

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

__all__ = ["Lag", "ask_raw", "attacking", "lagging", "request"]

_PRELUDE = """
import os, socket, struct, sys, time, threading
door = socket.socket(fileno=int(sys.argv[1]))
address = door.getsockname()
def say(text):
    print(text, flush=True)
"""


@contextlib.asynccontextmanager
async def attacking(door: socket.socket, program: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program beside the test that has the door's socket as `door`, its address, and `say`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PRELUDE + program,
        str(door.fileno()),
        pass_fds=[door.fileno()],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@dataclass
class Lag:
    """How long the loop was kept from going on."""

    worst_s: float = 0.0
    cpu_s: float = 0.0


@contextlib.asynccontextmanager
async def lagging() -> AsyncIterator[Lag]:
    """Watch the loop meanwhile."""
    lag = Lag()

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lag.worst_s = max(lag.worst_s, time.monotonic() - before - 0.01)

    task = asyncio.create_task(watch())
    cpu_s = time.process_time()
    try:
        yield lag
        await asyncio.sleep(0.02)
    finally:
        lag.cpu_s = time.process_time() - cpu_s
        task.cancel()


def request(token: str, body: object = None, *, path: str = "/v1/chat/completions", extra: str = "") -> bytes:
    """Return a model call as bytes."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Length: {len(sent)}\r\n{extra}\r\n".encode() + sent


async def ask_raw(address: tuple[str, int], data: bytes, *, patience_s: float = 10.0) -> bytes:
    """Send bytes to a door; return all that comes until it closes, or nothing comes for a while."""
    reader, writer = await asyncio.open_connection(*address)
    answer = b""
    try:
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(data)
            await writer.drain()
            while piece := await asyncio.wait_for(reader.read(65536), patience_s):
                answer += piece
    finally:
        writer.close()
    return answer
