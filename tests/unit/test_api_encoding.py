"""JSON between host and client: what msgspec refuses and JSON can hold gets through."""

from collections.abc import AsyncIterator

import pytest

from agentforge.api.answers import JsonAnswer
from agentforge.api.encoding import decode, encode
from agentforge.api.problems import problem
from agentforge.api.sse import read_sse, sse
from agentforge.cli.output import print_json
from agentforge.errors.host import RequestInvalid

HALF = {"text": "half of a smile: \ud83d", "more": ["é", 1, None]}


async def lines(data: bytes) -> AsyncIterator[str]:
    """Yield the lines of a stream."""
    for line in data.decode().split("\n"):
        yield line


@pytest.mark.parametrize("value", [HALF, {"text": "whole: 😀"}, "a\nb", [1.5, True], None])
def test_what_is_written_is_read_again(value: object) -> None:
    text = encode(value)
    assert b"\n" not in text
    assert decode(text) == decode(text.decode()) == value


@pytest.mark.parametrize("text", [b"{not json", b"", b"\xff\xfe"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        decode(text)


async def test_half_of_a_surrogate_pair_passes_through_a_stream_of_events() -> None:
    stream = sse(HALF, kind="message.delta", number=1) + sse({"a": 1}, kind="result")
    assert [event async for event in read_sse(lines(stream))] == [("message.delta", HALF), ("result", {"a": 1})]


def test_half_of_a_surrogate_pair_passes_through_an_answer_a_problem_and_a_printed_line(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert decode(bytes(JsonAnswer(HALF).body)) == HALF
    refusal = problem(RequestInvalid(HALF["text"]))
    assert decode(bytes(JsonAnswer(refusal).body)) == refusal
    print_json(HALF)
    assert decode(capfdbinary.readouterr().out) == HALF
