"""Raw bytes on a real door, as Hypothesis thinks of them: an HTTP answer or an end, and the door goes on."""

import asyncio
import itertools
import json
import logging
import re
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentforge.gateway import DoorLimits

from .gateway_world import World, ask, make_world
from .hostile_world import request

LIMITS = DoorLimits(head_s=5, body_s=5, idle_s=5, look_s=0.5, requests_per_s=1e6, connections_per_s=1e6)


class Doors:
    """One gateway for all examples, with a loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.world: World = self.loop.run_until_complete(self.stack.enter_async_context(make_world()))
        listening = socket.create_server(("127.0.0.1", 0))
        self.address = listening.getsockname()
        self.loop.run_until_complete(self.world.gateway.open_door(listening, "w2", LIMITS))
        self.token = self.world.grant(self.world.upstream("fake"), worker="w2")
        self.failures: list[Any] = []
        self.loop.set_exception_handler(lambda _, context: self.failures.append(context))

    def send(self, *pieces: bytes, patience_s: float = 10.0) -> bytes:
        """Send bytes and return what is answered until the door closes, or nothing comes any more."""
        return self.loop.run_until_complete(self._send(pieces, patience_s))

    async def _send(self, pieces: tuple[bytes, ...], patience_s: float) -> bytes:
        reader, writer = await asyncio.open_connection(*self.address)
        answer = b""
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            while piece := await asyncio.wait_for(reader.read(65536), patience_s):
                answer += piece
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()
        return answer

    def close(self) -> None:
        self.loop.run_until_complete(self.stack.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    made = Doors()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def goes_on(doors: Doors, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing went wrong inside, nothing was logged, and a proper request is answered."""
    yield
    assert doors.failures == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert b"200 OK" in doors.send(request(doors.token, ask(), extra="Connection: close\r\n"))


def is_proper(answer: bytes) -> bool:
    """Whether what came is nothing, or begins as an HTTP answer that blames the client or has what it asked for."""
    return not answer or re.match(rb"HTTP/\d\.\d [124]", answer) is not None


quietly = settings(max_examples=300, deadline=None)
cuts = st.lists(st.integers(0, 2000), max_size=4)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@quietly
@given(data=st.binary(max_size=400), places=cuts)
def test_any_bytes(doors: Doors, data: bytes, places: list[int]) -> None:
    assert is_proper(doors.send(*cut(data, places), patience_s=0.05))


words = st.sampled_from([b"POST", b"GET", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"post", b"X" * 50, b""])
paths = st.sampled_from(
    [
        b"/v1/chat/completions",
        b"/v1/embeddings",
        b"/v1/models",
        b"/",
        b"*",
        b"http://x/v1/models",
        b"/v1/%2e%2e/x",
        b"/\xff",
    ]
)
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b""])
names = st.sampled_from(
    [
        *b"Content-Length Transfer-Encoding Content-Encoding Connection Upgrade Expect Host".split(),
        *b"Authorization api-key x-stainless-retry-count Trailer TE Content-Type Accept-Encoding Cookie X".split(),
        b"",
        b"X Y",
        b"\x00",
    ]
)
contents = st.sampled_from(
    [
        *b"0 5 -1 1e3 0x10 99999999999999999999 chunked gzip deflate br zstd identity close keep-alive upgrade".split(),
        *b"100-continue websocket h2c chunked,chunked gzip,chunked".split(),
        b"",
        b" ",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"a" * 9000,
    ]
) | st.binary(max_size=12).map(lambda value: value.replace(b"\n", b""))
headers = st.lists(st.tuples(names, contents), max_size=6)
ends = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])


@quietly
@given(word=words, path=paths, version=versions, fields=headers, end=ends, body=st.binary(max_size=60), places=cuts)
def test_any_request(
    doors: Doors, word: bytes, path: bytes, version: bytes, fields: Any, end: bytes, body: bytes, places: list[int]
) -> None:
    key = (b"Authorization", b"Bearer " + doors.token.encode())
    lines = [b" ".join((word, path, version)), *(b": ".join(field) for field in (key, *fields)), b"", body]
    assert is_proper(doors.send(*cut(end.join(lines), places), patience_s=0.05))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=10,
)
keys = st.sampled_from(["model", "Model", "messages", "stream", "stream_options", "tools", "input", "n", "temperature"])


@quietly
@given(path=st.sampled_from(["/v1/chat/completions", "/v1/embeddings"]), body=st.dictionaries(keys, values, max_size=5))
def test_any_values_in_a_model_call(doors: Doors, path: str, body: dict[str, Any]) -> None:
    """The model is asked or not, by what the call names; whatever it makes of the rest comes back."""
    answer = doors.send(request(doors.token, {"model": "fake", **body}, path=path, extra="Connection: close\r\n"))
    assert answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5"))


@quietly
@given(body=st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_any_body(doors: Doors, body: bytes) -> None:
    assert is_proper(doors.send(request(doors.token, body, extra="Connection: close\r\n")))


@quietly
@given(token=st.binary(max_size=80).map(lambda value: value.translate(None, b"\r\n")), cased=st.booleans())
def test_any_token(doors: Doors, token: bytes, cased: bool) -> None:
    sent = request("TOKEN", ask(), extra="Connection: close\r\n").replace(b"TOKEN", token)
    assert doors.send(sent.lower() if cased else sent).startswith((b"HTTP/1.1 40", b"HTTP/1.0 40"))
