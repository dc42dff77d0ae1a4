"""Calls through the gateway over real sockets: what passes, who may ask, and how a call ends."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from agentforge.errors import UsageFault
from agentforge.gateway import Gateway, ModelCall, ModelResponse, Refused, Secret, Upstream, Usage
from agentforge_conformance.scripted_model import ScriptedModel

from .gateway_world import KEY, TOOL, World, answer_of, ask, make_world, raw_upstream, stream_lines


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with make_world() as world:
        yield world


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
