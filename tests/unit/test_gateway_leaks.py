"""An endpoint's key that comes in pieces: nobody gets to hear it, and answers that only look like it come whole."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.gateway.streams import StreamReader
from agentforge.gateway.types import SHORTEST_REDACTED, Secret, Upstream

KEY = "sk-sk-skeleton-1234"
UPSTREAM = Upstream("fast", "openai", "http://127.0.0.1:1/v1", "tiny", Secret(KEY))


def event(index: int = 0, **delta: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": index, "delta": delta}]}).encode() + b"\n\n"


def last(index: int = 0) -> bytes:
    choice = {"index": index, "delta": {}, "finish_reason": "stop"}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def told(*pieces: bytes) -> tuple[StreamReader, bytes, str]:
    """Feed events one by one; return the reader, what went on and what text was seen."""
    reader = StreamReader(UPSTREAM, 2**20)
    live, text = b"", ""
    for piece in pieces:
        if reader.failure is None and not reader.ended:
            live += reader.feed(piece)
            text += reader.take_text()
    return reader, live, text


def arguments(text: str) -> bytes:
    return event(tool_calls=[{"index": 0, "function": {"arguments": text}}])


@given(
    cuts=st.lists(st.integers(0, len(KEY)), max_size=5), before=st.sampled_from(["", "s", "sk", "sk-sk-", "x sk-sk"])
)
def test_a_key_in_pieces_ends_the_answer_before_any_of_it_is_seen(cuts: list[int], before: str) -> None:
    ends = [0, *sorted(cuts), len(KEY)]
    pieces = [KEY[start:end] for start, end in itertools.pairwise(ends)]
    reader, live, text = told(event(content=before), *(event(content=each) for each in pieces), last())
    if any(each == KEY for each in pieces):
        assert b"[redacted]" in live
        assert KEY.encode() not in live
        return
    assert reader.failure is not None
    assert "told its own API key" in str(reader.failure)
    seen = "".join(json.loads(line[6:])["choices"][0]["delta"]["content"] for line in live.decode().split("\n") if line)
    assert KEY[:SHORTEST_REDACTED] not in seen[len(before) :]
    assert KEY not in text


@pytest.mark.parametrize(
    "pieces",
    [
        [event(content="a", reasoning_content="sk-sk-ske"), event(content="b", reasoning_content="leton-1234")],
        [event(1, content="sk-sk-ske"), event(0, content="x"), event(1, content="leton-1234")],
        [arguments("sk-sk-ske"), arguments("leton-1234"), last()],
    ],
)
def test_every_text_of_an_answer_is_followed(pieces: list[bytes]) -> None:
    reader, live, _ = told(*pieces)
    assert reader.failure is not None
    assert b"leton" not in live


@given(pieces=st.lists(st.text("sk-eleton1234 x", max_size=7), max_size=12))
def test_what_only_looks_like_it_comes_whole_and_in_order(pieces: list[str]) -> None:
    events = [event(content=each) for each in pieces]
    reader, live, text = told(*events, last(), b"data: [DONE]\n\n")
    assert reader.failure is None
    assert live + reader.take_held() == b"".join(events) + last() + b"data: [DONE]\n\n"
    assert text + reader.take_text() == "".join(pieces)


@pytest.mark.parametrize(
    "pieces",
    [
        [event(role="sk-assistants"), event(content="Ask "), event(content="me.")],
        [event(reasoning_content="words"), event(content="Ask "), event(content="me.")],
        [event(content="Ask "), event(content="me."), event(1, content="sk")],
    ],
)
def test_text_that_ends_as_other_words_do_does_not_wait(pieces: list[bytes]) -> None:
    reader, live, text = told(*pieces)
    assert live == b"".join(pieces)
    assert text == "Ask me."
    assert not reader.waiting


def test_what_may_become_the_key_waits_for_what_follows() -> None:
    reader, live, text = told(event(content="sk-sk-ske"))
    assert (live, text, reader.waiting) == (b"", "", True)
    live += reader.feed(event(content="tch"))
    assert live == event(content="sk-sk-ske") + event(content="tch")
    assert (reader.take_text(), reader.waiting) == ("sk-sk-sketch", False)


def test_a_stream_of_endless_texts_is_broken_off() -> None:
    many = [{"index": index, "delta": {"content": "s"}} for index in range(10_001)]
    reader, _, _ = told(b"data: " + json.dumps({"choices": many}).encode() + b"\n\n")
    assert reader.failure is not None


def escaped(key: str) -> list[str]:
    return [key.replace("/", "\\/"), "".join(f"\\u{ord(each):04x}" for each in key), key.replace("+", "\\u002B")]


@pytest.mark.parametrize("form", range(3))
def test_a_key_in_escapes_is_taken_out(form: int) -> None:
    key = "sk-abc/def+ghi0123"
    body = b'{"error": {"message": "wrong key: %s"}, "x": 1}' % escaped(key)[form].encode()
    assert json.loads(Secret(key).redact_json(body)) == {"error": {"message": "wrong key: [redacted]"}, "x": 1}
    upstream = Upstream("fast", "openai", "http://127.0.0.1:1/v1", "tiny", Secret(key))
    reader = StreamReader(upstream, 2**20)
    chunk = b'{"system_fingerprint": "%s", "choices": []}' % escaped(key)[form].encode()
    live = reader.feed(b"data: " + chunk + b"\n\n")
    assert json.loads(live[6:]) == {"system_fingerprint": "[redacted]", "choices": []}


def test_escapes_without_a_key_stay_as_they_are() -> None:
    body = b'{"text": "caf\\u00e9 \\/ {  }"}'
    assert Secret(KEY).redact_json(body) is body
