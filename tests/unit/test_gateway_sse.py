import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agentforge.gateway.sse import SseEvent, SseParser

LINE_ENDS = ["\n", "\r\n", "\r"]
TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[str]]:
    """A stream with comments, other fields and events of several lines; and what its events say."""
    parts: list[str] = []
    said: list[str] = []
    end = draw(st.sampled_from(LINE_ENDS))
    for lines in draw(st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=6)):
        if draw(st.booleans()):
            parts.append(f": {draw(TEXTS)}{end}")
        if draw(st.booleans()):
            parts.append(f"event: chunk{end}id: 7{end}")
        parts.extend(f"data: {line}{end}" for line in lines)
        parts.append(end)
        said.append("\n".join(lines))
    return "".join(parts).encode(), said


def read(pieces: list[bytes]) -> list[SseEvent]:
    parser = SseParser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    rest = parser.close()
    return events + ([rest] if rest is not None else [])


def said_by(events: list[SseEvent]) -> list[str]:
    return [event.data.decode() for event in events if event.data is not None]


@given(streams(), st.lists(st.integers(min_value=0, max_value=400), max_size=12))
def test_events_are_the_same_however_the_stream_is_split(stream: tuple[bytes, list[str]], cuts: list[int]) -> None:
    raw, said = stream
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    events = read([raw[a:b] for a, b in pairwise(places)])
    assert said_by(events) == said
    assert b"".join(event.raw for event in events) == raw


@given(streams())
def test_events_are_the_same_when_every_byte_comes_alone(stream: tuple[bytes, list[str]]) -> None:
    raw, said = stream
    events = read([raw[i : i + 1] for i in range(len(raw))])
    assert said_by(events) == said
    assert b"".join(event.raw for event in events) == raw


@given(st.binary(max_size=200), st.integers(min_value=1, max_value=50))
def test_no_byte_is_lost_in_garbage(raw: bytes, size: int) -> None:
    events = read([raw[i : i + size] for i in range(0, len(raw), size)])
    assert b"".join(event.raw for event in events) == raw


def test_several_data_lines_are_one_value_and_an_event_is_given_at_its_blank_line() -> None:
    parser = SseParser()
    assert parser.feed(b'data: {"a":\r\ndata: 1}\r\n') == []
    (event,) = parser.feed(b"\r\n")
    assert event.data is not None
    assert json.loads(event.data) == {"a": 1}


def test_data_without_a_space_and_after_a_byte_order_mark_is_data() -> None:
    assert said_by(read([b"\xef\xbb\xbfdata:x\n\ndata:  y\n\n"])) == ["x", " y"]


def test_the_last_event_counts_though_its_blank_line_is_missing() -> None:
    assert said_by(read([b"data: a\n\ndata: [DONE]"])) == ["a", "[DONE]"]
