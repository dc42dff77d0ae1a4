"""Upstreams that refuse, fail, hang up, fall silent or talk nonsense, as the framework sees them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from .gateway_world import KEY, World, answer_of, ask, broken_stream, make_world, raw_upstream


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with make_world() as world:
        yield world


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
    async with asyncio.timeout(1.5), world.post(ask(model="default", stream=stream)) as answer:
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
