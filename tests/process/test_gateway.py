"""The gateway over real sockets: framework's client → door → gateway → scripted (or hostile) upstream."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agentforge.errors import UsageFault
from agentforge.gateway import (
    Door,
    Gateway,
    Grant,
    ModelCall,
    ModelFailure,
    ModelResponse,
    Refused,
    Secret,
    Timeouts,
    Upstream,
    Usage,
)
from agentforge_conformance.scripted_model import CalledTool, ScriptedModel, Step

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


@pytest.fixture
async def world() -> AsyncIterator[World]:
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


# Plain calls


async def test_a_plain_call_passes_byte_for_byte_in_both_directions(world: World) -> None:
    body = b'{ "model":"fake",\n "messages" : [{"role":"user","content":"caf\\u00e9"}], "temperature":0.10 }'
    async with world.post(body) as answer:
        content = await answer.read()
    assert world.model.requests[0].body == body
    (response,) = world.observer.responses
    assert response.body == content
    assert json.loads(content)["choices"][0]["message"]["content"] == "FINAL: café"
    assert response.usage == Usage(1, 2)
    assert answer.headers["x-request-id"] == response.headers["x-request-id"] == "req_00000001"


async def test_an_alias_is_replaced_by_the_wire_name_and_nothing_else(world: World) -> None:
    body = ask(model="default", temperature=0.5, metadata={"model": "default"})
    async with world.post(body) as answer:
        assert answer.status == 200
    assert world.model.requests[0].json == {**body, "model": "fake"}
    (call,) = world.observer.calls
    assert (call.alias, call.model, call.data["model"]) == ("default", "fake", "default")


async def test_the_clients_headers_reach_the_upstream_but_for_its_token_and_one_hop_headers(world: World) -> None:
    sent = {
        "User-Agent": "OpenAI/Python 2.0",
        "X-Stainless-Lang": "python",
        "x-stainless-retry-count": "2",
        "Accept-Encoding": "gzip, br, zstd",
        "traceparent": "00-abc",
        "api-key": world.token,
        "X-Odd": f"has {world.token} in it",
        "Keep-Alive": "1",
        "Cookie": "a=b",
    }
    async with world.post(ask(), **sent) as answer:
        assert answer.status == 200
    request = world.model.requests[0]
    assert request.header("authorization") == f"Bearer {KEY}"
    assert request.header("user-agent") == "OpenAI/Python 2.0"
    assert request.header("x-stainless-lang") == "python"
    assert request.header("traceparent") == "00-abc"
    assert request.header("accept-encoding") == "gzip"
    assert request.header("host") == world.model.base_url.split("/")[2]
    assert all(request.header(name) is None for name in ("api-key", "X-Odd", "keep-alive", "cookie"))
    assert all(world.token not in value for _, value in request.headers)
    assert world.observer.calls[0].retry == 2


async def test_no_header_is_added_that_the_client_did_not_send(world: World) -> None:
    names = {"Authorization", "Content-Type", "Host", "Accept", "User-Agent", "Accept-Encoding", "Content-Length"}
    async with world.post(ask()):
        pass
    assert {name for name, _ in world.model.requests[0].headers} == names
    reader, writer = await asyncio.open_connection("127.0.0.1", int(world.url.rpartition(":")[2]))
    body = json.dumps(ask()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\napi-key: {world.token}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert {name for name, _ in world.model.requests[1].headers} == {"Authorization", "Host", "Content-Length"}


async def test_the_answer_waits_until_it_is_recorded(world: World) -> None:
    commit = asyncio.Event()

    async def completed(call: ModelCall, response: ModelResponse) -> None:
        await commit.wait()

    world.observer.on_completed = completed
    sending = asyncio.ensure_future(world.post(ask()).__aenter__())
    await world.observer.outcome()
    await world.model.wait_until_idle()
    assert not sending.done()
    commit.set()
    assert (await sending).status == 200


async def test_an_answer_that_cannot_be_recorded_does_not_reach_the_framework(world: World) -> None:
    async def completed(call: ModelCall, response: ModelResponse) -> None:
        raise UsageFault("the lease is lost")

    world.observer.on_completed = completed
    async with world.post(ask("secret answer")) as answer:
        text = await answer.text()
    assert answer.status == 500
    assert "secret answer" not in text
    assert json.loads(text)["error"]["code"] == "AF513"
    assert answer.headers["x-should-retry"] == "false"
    with pytest.raises(aiohttp.ClientPayloadError):
        async with world.post(ask(stream=True)) as answer:
            await answer.read()
    assert world.observer.failures == []


async def test_embeddings_and_models_are_served(world: World) -> None:
    async with world.post({"model": "default", "input": ["a b", "c"]}, "/v1/embeddings") as answer:
        data = await answer.json()
    assert len(data["data"]) == 2
    assert world.observer.responses[0].usage == Usage(3, 0)
    async with world.client.get(world.url + "/v1/models", headers={"Authorization": f"Bearer {world.token}"}) as answer:
        assert [m["id"] for m in (await answer.json())["data"]] == ["default"]


async def test_connections_to_the_upstream_are_reused(world: World) -> None:
    for stream in [False, True] * 10:
        async with world.post(ask(stream=stream)) as answer:
            await answer.read()
    assert len({request.peer for request in world.model.requests}) == 1


async def test_a_compressed_answer_is_read_and_recorded_plain(world: World) -> None:
    body = json.dumps({"choices": [{"index": 0}], "usage": {"prompt_tokens": 1}}).encode()
    packed = gzip.compress(body)
    raw = answer_of(packed, "application/json\r\nContent-Encoding: gzip")
    async with raw_upstream(raw) as url:
        world.use(world.upstream("fake", url))
        async with world.post(ask(), **{"Accept-Encoding": "identity"}) as answer:
            assert await answer.read() == body
    assert world.observer.responses[0].body == body


# Streams


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


async def test_a_stream_passes_byte_for_byte_and_is_recorded_as_the_plain_answer(world: World) -> None:
    body = ask("a few words", stream=True, stream_options={"include_usage": True}, tools=[TOOL])
    headers = {"Authorization": f"Bearer {KEY}"}
    async with world.post(body) as answer:
        through = await answer.read()
        assert answer.content_type == "text/event-stream"
    async with world.client.post(world.model.base_url + "/chat/completions", json=body, headers=headers) as answer:
        direct = await answer.read()
    assert through == direct.replace(b"00000002", b"00000001")
    (response,) = world.observer.responses
    assert response.stream == through
    del body["stream"], body["stream_options"]
    async with world.client.post(world.model.base_url + "/chat/completions", json=body, headers=headers) as answer:
        plain = json.loads((await answer.text()).replace("00000003", "00000001"))
    assert response.data == plain
    assert response.usage is not None
    assert response.data["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"category": "travel"}'


async def test_usage_is_none_where_the_client_did_not_ask_for_it(world: World) -> None:
    async with world.post(ask(stream=True)) as answer:
        await answer.read()
    assert world.observer.responses[0].usage is None
    assert "stream_options" not in world.model.requests[0].json


async def test_text_goes_on_live_and_the_end_waits_for_the_record(world: World) -> None:
    commit = asyncio.Event()

    async def completed(call: ModelCall, response: ModelResponse) -> None:
        await commit.wait()

    world.observer.on_completed = completed
    body = ask("one two", stream=True, stream_options={"include_usage": True})
    async with world.post(body) as answer:
        seen = b""
        while b" two" not in seen:
            seen += await answer.content.readany()
        await world.observer.outcome()
        assert world.observer.responses[0].data["choices"][0]["message"]["content"] == "FINAL: one two"
        assert "".join(world.observer.deltas) == "FINAL: one two"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading := asyncio.ensure_future(answer.content.readany())), 0.1)
        assert b'"stop"' not in seen
        commit.set()
        rest = await reading + await answer.read()
    assert b'"stop"' in rest
    assert b'"prompt_tokens"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_from_the_first_tool_call_on_nothing_goes_on_before_the_record(world: World) -> None:
    commit = asyncio.Event()

    async def completed(call: ModelCall, response: ModelResponse) -> None:
        await commit.wait()

    world.observer.on_completed = completed
    script = world.model.script("both", Step(text="I look", calls=[CalledTool("a", {"x": 1}), CalledTool("b")]))
    world.use(world.upstream(script))
    async with world.post(ask(model="default", stream=True)) as answer:
        await world.observer.outcome()
        seen = b""
        while b" look" not in seen:
            seen += await answer.content.readany()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(reading := asyncio.ensure_future(answer.content.readany())), 0.1)
        assert b"tool_calls" not in seen
        commit.set()
        seen += await reading + await answer.read()
    assert b"tool_calls" in seen
    assert seen == world.observer.responses[0].stream


@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_an_odd_but_legal_stream_passes_byte_for_byte(world: World, end: str) -> None:
    lines = [
        ": keep alive",
        "",
        "event: x",
        'data: {"choices": [{"index": 0,',
        'data:  "delta": {"role": "assistant", "content": "\\ud83d"}}]}',
        "",
        'data:{"choices": [{"index": 0, "delta": {"content": "\\ude42"}, "finish_reason": "stop"}]}',
        "",
        ": bye",
        "",
    ]
    raw = (end.join(lines) + end).encode()
    pieces = [raw[i : i + 7] for i in range(0, len(raw), 7)]
    head = answer_of(raw)[: -len(raw)]
    async with raw_upstream(head, *pieces) as url:
        world.use(world.upstream("fake", url))
        async with world.post(ask(stream=True)) as answer:
            assert sorted((await answer.read()).split(end.encode())) == sorted(raw.split(end.encode()))
    (response,) = world.observer.responses
    assert response.stream == raw
    assert response.data["choices"][0]["message"]["content"] == "🙂"


BROKEN = {
    "ends in the middle": b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n',
    "no JSON": b"data: {]\n\n",
    "no object": b"data: 3\n\n",
    "no chunk": b'data: {"choices": "x"}\n\ndata: [DONE]\n\n',
    "says nothing": b"data: [DONE]\n\n",
    "empty": b"",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_a_stream_that_is_no_complete_answer_breaks_for_the_framework_too(world: World, body: bytes) -> None:
    async with raw_upstream(answer_of(body)) as url:
        world.use(world.upstream("fake", url))
        await broken_stream(world)
    assert (world.observer.failure.code, world.observer.failure.status) == ("AF507", 0)


async def test_an_error_event_reaches_the_framework_and_fails_the_call(world: World) -> None:
    tool = b'data: {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "a"}]}}]}\n\n'
    event = b'data: {"error": {"message": "overloaded"}}\n\n'
    async with raw_upstream(answer_of(tool + event + b"data: [DONE]\n\n")) as url:
        world.use(world.upstream("fake", url))
        assert await broken_stream(world) == event
    assert world.observer.failure.code == "AF504"
    assert "overloaded" in world.observer.failure.message


# Failures


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "AF503"),
        (401, "AF501"),
        (403, "AF501"),
        (404, "AF503"),
        (422, "AF503"),
        (429, "AF502"),
        (500, "AF504"),
        (503, "AF504"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstream_error_arrives_with_its_status_and_body(
    world: World, status: int, code: str, stream: bool
) -> None:
    world.use(world.upstream(f"fail-{status}"))
    async with world.post(ask(model="default", stream=stream)) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (status, f"scripted_{status}")
    failure = world.observer.failure
    assert (failure.code, failure.status, failure.upstream_status) == (code, status, status)
    assert f"scripted failure {status}" in failure.message
    if status == 429:
        assert answer.headers["Retry-After"] == "1"
        assert failure.retry_after_s == 1


async def test_a_wrong_key_is_the_upstreams_own_401(world: World) -> None:
    world.use(world.upstream("fake", key="sk-some-other-key"))
    async with world.post(ask()) as answer:
        assert answer.status == 401
    assert world.observer.failure.code == "AF501"


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1/v1", "unix:///nowhere.sock", "nonsense", "http://"])
async def test_an_upstream_that_cannot_be_reached_is_a_502(world: World, base_url: str) -> None:
    world.use(world.upstream("fake", base_url))
    async with world.post(ask(stream=True)) as answer:
        assert answer.status == 502
        assert (await answer.json())["error"]["code"] == "AF505"
    assert world.observer.failure.code == "AF505"


async def test_an_upstream_that_hangs_up_without_an_answer_is_a_502(world: World) -> None:
    async with raw_upstream() as url:
        world.use(world.upstream("fake", url))
        async with world.post(ask()) as answer:
            assert answer.status == 502
    assert world.observer.failure.code == "AF505"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_silent_upstream_is_a_504(world: World, stream: bool) -> None:
    world.use(world.upstream("silent", idle_s=0.2))
    async with world.post(ask(model="default", stream=stream)) as answer:
        assert answer.status == 504
        assert (await answer.json())["error"]["code"] == "AF506"
    assert "silent for 0.2 s" in world.observer.failure.message
    await world.model.wait_until_idle()
    assert world.model.requests[0].aborted


async def test_a_stream_that_falls_silent_breaks_for_the_framework(world: World) -> None:
    world.use(world.upstream("silent-stream", idle_s=0.2))
    await broken_stream(world)
    assert (world.observer.failure.code, world.observer.failure.status) == ("AF506", 0)


async def test_a_cut_stream_is_cut_for_the_framework_after_what_had_come(world: World) -> None:
    world.use(world.upstream("cut-stream"))
    assert (await broken_stream(world)).count(b"data: ") == 2
    assert world.observer.failure.code == "AF507"


async def test_a_plain_answer_that_breaks_off_is_a_502(world: World) -> None:
    world.use(world.upstream("cut-stream"))
    async with world.post(ask(model="default")) as answer:
        assert answer.status == 502
    assert world.observer.failure.code == "AF507"


ODD_ANSWERS = {
    "no JSON": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<html", 502),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 502),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", 502),
    "error in a 200": (answer_of(b'{"error": {"code": 1}}', "application/json"), 200),
    "too large": (answer_of(b'"' + b"x" * 300_000, "application/json"), 502),
}


@pytest.mark.parametrize(("raw", "status"), ODD_ANSWERS.values(), ids=ODD_ANSWERS)
async def test_what_is_no_answer_is_an_upstream_error(world: World, raw: bytes, status: int) -> None:
    async with raw_upstream(raw) as url:
        world.use(world.upstream("fake", url))
        async with world.post(ask()) as answer:
            assert answer.status == status
    assert world.observer.failure.code == "AF504"


async def test_the_real_key_never_reaches_the_framework_even_if_the_upstream_says_it(world: World) -> None:
    said = f'"you sent {KEY}"'
    chunk = f'{{"choices": [{{"index": 0, "delta": {{"content": {said}}}, "finish_reason": "stop"}}]}}'
    answers = [
        f'{{"choices": [{{"message": {{"content": {said}}}}}]}}',
        f'{{"error": {{"message": {said}}}}}',
    ]
    raws = [
        answer_of(text.encode(), f"application/json\r\nx-echo: {KEY}", status)
        for status, text in [(200, answers[0]), (401, answers[1]), (500, answers[1]), (200, answers[1])]
    ]
    for raw in [*raws, answer_of(f"data: {chunk}\n\ndata: [DONE]\n\n".encode())]:
        async with raw_upstream(raw) as url:
            world.use(world.upstream("fake", url))
            async with world.post(ask(stream=b"event-stream" in raw)) as answer:
                seen = await answer.text() + str(answer.headers)
        assert "you sent [redacted]" in seen
        assert KEY not in seen
    assert KEY not in repr(world.observer.failures) + repr(world.observer.responses) + repr(world.observer.deltas)
    assert len(world.observer.failures) == 3


# Who may ask, and what


async def test_a_token_is_good_on_its_own_workers_door_only(world: World) -> None:
    _, other_door = await world.door("w2")
    headers = {"Authorization": f"Bearer {world.token}"}
    async with world.client.post(other_door + "/v1/chat/completions", json=ask(), headers=headers) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["type"]) == (401, "AF510", "authentication_error")
    for token in ("", "af-run-guess", KEY):
        async with world.post(ask(), Authorization=f"Bearer {token}") as answer:
            assert answer.status == 401
    assert world.model.requests == []
    assert world.observer.calls == []


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"model": 3}', 400), (b"", 400), (b"x" * 100_001, 413)],
)
async def test_what_is_no_request_is_refused_and_reported(world: World, body: bytes, status: int) -> None:
    async with world.post(body) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["code"] == "AF512"
    assert (world.observer.failure.code, world.observer.failure.status) == ("AF512", status)
    assert world.model.requests == []


async def test_a_model_that_was_not_granted_is_unknown(world: World) -> None:
    async with world.post(ask(model="gpt-9")) as answer:
        assert answer.status == 404
        assert "`gpt-9`" in (await answer.json())["error"]["message"]
    assert world.observer.failure.kind == "unknown_model"


@pytest.mark.parametrize("path", ["/", "/v1/responses", "/v1/files", "/v1/chat/completions/../files"])
async def test_other_paths_are_a_404_in_json(world: World, path: str) -> None:
    async with world.post(ask(), path) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["code"] == "AF512"


async def test_the_observer_can_refuse_a_call_before_it_goes_anywhere(world: World) -> None:
    async def requested(call: ModelCall) -> None:
        raise Refused(429, "AF777", "the run has used its tokens")

    world.observer.on_requested = requested
    async with world.post(ask()) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["message"]) == (429, "AF777", "the run has used its tokens")
    assert answer.headers["x-should-retry"] == "false"
    assert world.model.requests == []
    assert (world.observer.failure.kind, world.observer.failure.code) == ("refused", "AF777")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_recorded_answer_is_given_again_without_the_upstream(world: World, stream: bool) -> None:
    body = ask("again", stream=stream, tools=[TOOL])
    async with world.post(body) as answer:
        first = await answer.read()
    recorded = ModelResponse.from_record(world.observer.responses[0].to_record())

    async def requested(call: ModelCall) -> ModelResponse:
        return recorded

    world.observer.on_requested = requested
    async with world.post(body) as answer:
        assert await answer.read() == first
        assert answer.headers["x-request-id"] == "req_00000001"
    assert len(world.model.requests) == len(world.observer.responses) == 1
    assert world.observer.calls[0].request_hash == world.observer.calls[1].request_hash


async def test_a_recorded_plain_answer_can_be_given_as_a_stream(world: World) -> None:
    async def requested(call: ModelCall) -> ModelResponse:
        return ModelResponse(b'{"id":"1","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}')

    world.observer.on_requested = requested
    async with world.post(ask(stream=True)) as answer:
        lines = await stream_lines(answer)
    assert lines.pop() == "[DONE]"
    assert [json.loads(line)["choices"][0]["delta"] for line in lines] == [{"content": "hi"}, {}]


# Ends


@pytest.mark.parametrize("model", ["silent", "silent-stream"])
async def test_a_client_that_leaves_takes_its_upstream_request_with_it(world: World, model: str) -> None:
    world.use(world.upstream(model))
    sending = asyncio.ensure_future(world.post(ask(model="default", stream=True)).__aenter__())
    await world.model.wait_for_requests(1)
    if model == "silent-stream":
        (await sending).close()
    sending.cancel()
    async with asyncio.timeout(1):
        await world.observer.outcome()
        await world.model.wait_until_idle()
    assert world.model.requests[0].aborted
    assert (world.observer.failure.code, world.observer.failure.status) == ("AF511", 0)


async def test_a_client_that_leaves_while_its_answer_is_recorded_does_not_undo_the_record(world: World) -> None:
    commit, recorded = asyncio.Event(), asyncio.Event()

    async def completed(call: ModelCall, response: ModelResponse) -> None:
        await commit.wait()
        recorded.set()

    world.observer.on_completed = completed
    sending = asyncio.ensure_future(world.post(ask()).__aenter__())
    await world.observer.outcome()
    sending.cancel()
    revoking = asyncio.ensure_future(world.gateway.revoke(world.token))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(revoking), 0.1)
    commit.set()
    await revoking
    assert recorded.is_set()
    assert world.observer.failures == []


async def test_revoking_a_token_aborts_its_calls_and_ends_it(world: World) -> None:
    world.use(world.upstream("silent"))
    sendings = [asyncio.ensure_future(world.post(ask(model="default")).__aenter__()) for _ in range(3)]
    await world.model.wait_for_requests(3)
    await world.gateway.revoke(world.token)
    assert [failure.code for failure in world.observer.failures] == ["AF511"] * 3
    for sending in sendings:
        with pytest.raises(aiohttp.ClientError):
            await sending
    await world.model.wait_until_idle()
    async with world.post(ask()) as answer:
        assert answer.status == 401
    await world.gateway.revoke(world.token)


async def test_a_closed_door_aborts_its_workers_calls_and_leaves_others_alone(world: World) -> None:
    door, url = await world.door("w2")
    token = world.grant(world.upstream("silent"), worker="w2")
    headers = {"Authorization": f"Bearer {token}"}
    request = world.client.post(url + "/v1/chat/completions", json=ask(model="default"), headers=headers)
    sending = asyncio.ensure_future(request.__aenter__())
    await world.model.wait_for_requests(1)
    await door.close()
    await door.close()
    with pytest.raises(aiohttp.ClientError):
        await sending
    assert world.observer.failure.code == "AF511"
    async with world.post(ask()) as answer:
        assert answer.status == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await world.client.post(url + "/v1/chat/completions", json=ask(), headers=headers)


# Other upstreams


async def test_an_upstream_on_a_unix_socket_is_reached(world: World, tmp_path: Path) -> None:
    async with ScriptedModel(unix_path=tmp_path / "m.sock") as model:
        for base_url in (model.base_url, f"unix://{tmp_path}/m.sock"):
            world.use(world.upstream("fake", base_url, key=None))
            async with world.post(ask()) as answer:
                assert answer.status == 200
        assert model.requests[0].header("authorization") is None


@dataclass
class Embedded:
    """Counts who holds it."""

    base_url: str
    held: int = 0
    taken: int = 0

    async def acquire(self) -> str:
        if not self.base_url:
            raise UsageFault("xllamacpp is not installed")
        self.held += 1
        self.taken += 1
        return self.base_url

    def release(self) -> None:
        self.held -= 1


async def test_the_embedded_model_is_held_during_a_call_only(world: World) -> None:
    embedded = Embedded(world.model.base_url)
    world.gateway = Gateway(world.observer, embedded=embedded)
    door, world.url = await world.door("w1")
    for model, status in (("fake", 200), ("fail-500", 500), ("fake", 200)):
        world.use(Upstream("local", "embedded", "", model, Secret(KEY)))
        async with world.post(ask(model="local", stream=True)) as answer:
            await answer.read()
            assert answer.status == status
    assert (embedded.held, embedded.taken) == (0, 3)
    embedded.base_url = ""
    world.observer.responses.clear()
    world.observer.failures.clear()
    async with world.post(ask(model="local")) as answer:
        assert answer.status == 502
    assert "xllamacpp is not installed" in world.observer.failure.message
    await door.close()
    await world.gateway.close()
