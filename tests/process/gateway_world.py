"""What the gateway's tests share: an engine that records, a client that plays the framework, hostile upstreams."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from agentforge.gateway import (
    Door,
    Gateway,
    Grant,
    ModelCall,
    ModelFailure,
    ModelResponse,
    Secret,
    Timeouts,
    Upstream,
)
from agentforge_conformance.scripted_model import ScriptedModel

KEY = "sk-real-key-0123456789"
TOOL = {
    "type": "function",
    "function": {
        "name": "total_for",
        "parameters": {"type": "object", "properties": {"category": {"enum": ["travel", "food"]}}},
    },
}


async def nothing(*_: Any) -> None:
    return None


@dataclass
class Observer:
    """Records what the gateway tells it; a test puts its own behaviour into the hooks."""

    calls: list[ModelCall] = field(default_factory=list)
    responses: list[ModelResponse] = field(default_factory=list)
    failures: list[ModelFailure] = field(default_factory=list)
    deltas: list[str] = field(default_factory=list)
    on_requested: Callable[[ModelCall], Awaitable[ModelResponse | None]] = nothing
    on_completed: Callable[[ModelCall, ModelResponse], Awaitable[None]] = nothing
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def requested(self, call: ModelCall) -> ModelResponse | None:
        self.calls.append(call)
        return await self.on_requested(call)

    def delta(self, call: ModelCall, text: str) -> None:
        self.deltas.append(text)

    async def completed(self, call: ModelCall, response: ModelResponse) -> None:
        self.responses.append(response)
        await self._note()
        await self.on_completed(call, response)

    async def failed(self, call: ModelCall, failure: ModelFailure) -> None:
        self.failures.append(failure)
        await self._note()

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def outcome(self) -> None:
        """Wait until a call completed or failed."""
        async with self.changed:
            await self.changed.wait_for(lambda: bool(self.responses or self.failures))

    @property
    def failure(self) -> ModelFailure:
        assert len(self.failures) == 1
        assert self.responses == []
        return self.failures[0]


@dataclass
class World:
    """A gateway with one worker's door, and a client that plays the framework."""

    gateway: Gateway
    observer: Observer
    model: ScriptedModel
    client: aiohttp.ClientSession
    url: str = ""
    token: str = ""

    async def door(self, worker: str) -> tuple[Door, str]:
        listening = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        return await self.gateway.open_door(listening, worker), url

    def grant(self, *upstreams: Upstream, worker: str = "w1") -> str:
        return self.gateway.grant(Grant("run-1", 1, worker, {u.alias: u for u in upstreams}))

    def upstream(self, model: str, base_url: str = "", *, key: str | None = KEY, idle_s: float = 30) -> Upstream:
        secret = Secret(key) if key else None
        return Upstream("default", "openai", base_url or self.model.base_url, model, secret, Timeouts(5, idle_s))

    def use(self, upstream: Upstream) -> None:
        self.token = self.grant(upstream)

    def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **headers}
        return self.client.post(self.url + path, data=data, headers=sent)


@asynccontextmanager
async def make_world() -> AsyncIterator[World]:
    observer = Observer()
    gateway = Gateway(observer, max_request_bytes=100_000, max_answer_bytes=200_000)
    async with ScriptedModel(api_key=KEY) as model, aiohttp.ClientSession() as client:
        world = World(gateway, observer, model, client)
        _, world.url = await world.door("w1")
        world.use(world.upstream("fake"))
        yield world
        await client.close()
        await gateway.close()


@asynccontextmanager
async def raw_upstream(*writes: bytes) -> AsyncIterator[str]:
    """An upstream that says just these bytes, whatever it is asked."""

    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())  # type: ignore[arg-type]  it runs in one
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(h[15:]) for h in head.decode().lower().split("\r\n") if h.startswith("content-length:"))
        await reader.readexactly(length)
        for piece in writes:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)  # pieces of their own on the wire; nothing waits for it
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        await asyncio.gather(*serving, return_exceptions=True)


def answer_of(body: bytes, content_type: str = "text/event-stream", status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\n"
    return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def ask(text: str = "hello", model: str = "fake", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def stream_lines(answer: aiohttp.ClientResponse) -> list[Any]:
    raw = (await answer.read()).decode()
    return [line.removeprefix("data: ") for line in raw.split("\n\n") if line]


async def broken_stream(world: World) -> bytes:
    """Ask for a stream that must break; return what came of it."""
    seen = b""
    async with world.post(ask(model="default", stream=True)) as answer:
        assert answer.status == 200
        try:
            async for piece in answer.content.iter_any():
                seen += piece
        except aiohttp.ClientPayloadError:
            return seen
    raise AssertionError("the stream ended as if it were complete")
