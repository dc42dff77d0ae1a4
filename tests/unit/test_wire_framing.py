"""Frames: whatever the split, the same messages; whatever the bytes, a refusal or a bounded buffer."""

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge_worker.wire.framing import HEADER_SIZE, MAX_FRAME, MAX_MESSAGE, FrameDecoder, FrameError, encode_frames

payloads = st.lists(st.binary(max_size=200), max_size=8)


def header(size: int, flags: int = 0) -> bytes:
    return struct.pack(">IB", size, flags)


def split(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


def received(decoder: FrameDecoder, pieces: list[bytes]) -> list[bytes]:
    return [message for piece in pieces for message in decoder.feed(piece)]


@given(payloads, st.lists(st.integers(min_value=0), max_size=30), st.integers(min_value=1, max_value=64))
def test_messages_survive_any_split_and_any_frame_size(messages: list[bytes], cuts: list[int], max_frame: int) -> None:
    stream = b"".join(encode_frames(message, max_frame) for message in messages)
    decoder = FrameDecoder(max_frame)
    assert received(decoder, split(stream, cuts)) == messages
    assert decoder.pending == 0


@given(payloads)
def test_messages_merged_into_one_read_come_out_apart(messages: list[bytes]) -> None:
    assert FrameDecoder().feed(b"".join(map(encode_frames, messages))) == messages


@given(st.binary(min_size=1, max_size=100))
def test_a_message_that_comes_byte_by_byte_comes_out_whole_at_its_last_byte(message: bytes) -> None:
    decoder = FrameDecoder()
    stream = encode_frames(message)
    assert received(decoder, [bytes([byte]) for byte in stream[:-1]]) == []
    assert decoder.feed(stream[-1:]) == [message]


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=10))
def test_garbage_is_refused_or_waited_for_but_never_held_beyond_the_limits(garbage: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder(max_frame=50, max_message=100)
    try:
        for piece in split(garbage, cuts):
            for message in decoder.feed(piece):
                assert len(message) <= 100
            assert decoder.pending <= 100 + HEADER_SIZE + 50
    except FrameError:
        pass


@given(st.integers(min_value=2, max_value=255))
def test_unknown_flags_are_refused(flags: int) -> None:
    with pytest.raises(FrameError, match="unknown frame flags"):
        FrameDecoder().feed(header(1, flags) + b"x")


@given(st.integers(min_value=1, max_value=2**32 - 1 - MAX_FRAME))
def test_an_oversized_frame_is_refused_at_its_header_before_its_body_comes(excess: int) -> None:
    with pytest.raises(FrameError, match="over the limit"):
        FrameDecoder().feed(header(MAX_FRAME + excess))


def test_a_frame_of_exactly_the_limit_passes() -> None:
    body = b"x" * MAX_FRAME
    assert FrameDecoder().feed(encode_frames(body)) == [body]


def test_a_message_over_the_limit_is_refused_while_its_frames_come() -> None:
    decoder = FrameDecoder(max_frame=10, max_message=25)
    chunk = header(10, 1) + b"x" * 10
    assert decoder.feed(chunk * 2) == []
    with pytest.raises(FrameError, match="over the limit of 25"):
        decoder.feed(chunk)


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(FrameError, match=str(MAX_MESSAGE)):
        encode_frames(b"x" * (MAX_MESSAGE + 1))


def test_a_large_message_is_chunked_and_the_last_chunk_says_so() -> None:
    stream = encode_frames(b"x" * 25, max_frame=10)
    assert stream == header(10, 1) + b"x" * 10 + header(10, 1) + b"x" * 10 + header(5) + b"x" * 5


def test_an_empty_frame_that_promises_more_is_refused() -> None:
    """It would let a peer send for ever without coming nearer to a limit."""
    with pytest.raises(FrameError, match="empty frame"):
        FrameDecoder().feed(header(0, 1))


def test_an_empty_message_is_a_message() -> None:
    assert FrameDecoder().feed(encode_frames(b"")) == [b""]


def test_an_empty_last_frame_ends_a_chunked_message() -> None:
    assert FrameDecoder().feed(header(2, 1) + b"ab" + header(0)) == [b"ab"]


def test_many_tiny_frames_cost_what_their_message_costs() -> None:
    decoder = FrameDecoder()
    decoder.feed((header(2, 1) + b"ab") * 50_000)
    assert decoder.pending == 100_000
    assert held(decoder) < 400_000


def held(decoder: FrameDecoder) -> int:
    """Bytes that the decoder's attributes take, the items of a list included."""
    values = list(vars(decoder).values())
    items = [item for value in values if isinstance(value, list) for item in value]
    return sum(map(sys.getsizeof, values + items))
