"""Streams through the gateway: what goes on live, what waits for the record, what breaks."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from agentforge.gateway import ModelCall, ModelResponse
from agentforge_conformance.scripted_model import CalledTool, Step

from .gateway_world import KEY, TOOL, World, answer_of, ask, broken_stream, make_world, raw_upstream


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with make_world() as world:
        yield world


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
