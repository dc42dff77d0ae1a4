"""Length-prefixed frames over a byte stream.

A frame is a 5-byte header and a body: unsigned 32-bit big-endian length of the body, then one byte of flags
(bit 0: more frames of this message follow; the other bits are zero). A message is the concatenation of its frames'
bodies; frames of two messages are never interleaved. Both sizes have limits, so that a broken or hostile peer costs
a bounded amount of memory before it is refused.
"""

import struct
from typing import List

__all__ = ["HEADER_SIZE", "MAX_FRAME", "MAX_MESSAGE", "FrameDecoder", "FrameError", "encode_frames"]

HEADER_SIZE = 5
MAX_FRAME = 1 << 20
"""Bytes of one frame's body."""
MAX_MESSAGE = 64 << 20
"""Bytes of one message, all frames together."""
_MORE = 1
_header = struct.Struct(">IB")


class FrameError(Exception):
    """The peer's bytes are not frames of this protocol, or exceed its limits."""


def encode_frames(payload: bytes, max_frame: int = MAX_FRAME, max_message: int = MAX_MESSAGE) -> bytes:
    """Return the frames that carry one message. Raises FrameError when the message is over the limit."""
    size = len(payload)
    if size <= max_frame:
        return _header.pack(size, 0) + payload
    if size > max_message:
        raise FrameError("message of %d bytes is over the limit of %d" % (size, max_message))
    parts: List[bytes] = []
    for start in range(0, size, max_frame):
        part = payload[start : start + max_frame]
        parts.append(_header.pack(len(part), _MORE if start + max_frame < size else 0))
        parts.append(part)
    return b"".join(parts)


class FrameDecoder:
    """Turns received bytes, however they were split, into whole messages."""

    def __init__(self, max_frame: int = MAX_FRAME, max_message: int = MAX_MESSAGE) -> None:
        self._max_frame = max_frame
        self._max_message = max_message
        self._buffer = bytearray()
        # One buffer, not a list of parts: many tiny frames must not cost more than the message they make.
        self._message = bytearray()

    def feed(self, data: bytes) -> List[bytes]:
        """Return the messages that `data` completes, in order.

        Raises FrameError on garbage; the decoder is useless afterwards and the connection must be closed.
        """
        self._buffer += data
        messages: List[bytes] = []
        position = 0
        available = len(self._buffer)
        while available - position >= HEADER_SIZE:
            size, flags = _header.unpack_from(self._buffer, position)
            self._check(size, flags)
            end = position + HEADER_SIZE + size
            if end > available:
                break
            body = bytes(self._buffer[position + HEADER_SIZE : end])
            position = end
            if flags & _MORE:
                self._message += body
            elif self._message:
                messages.append(bytes(self._message + body))
                self._message = bytearray()
            else:
                messages.append(body)
        if position:
            del self._buffer[:position]
        return messages

    def _check(self, size: int, flags: int) -> None:
        if flags & ~_MORE:
            raise FrameError("unknown frame flags 0x%02x" % flags)
        if size > self._max_frame:
            raise FrameError("frame of %d bytes is over the limit of %d" % (size, self._max_frame))
        if len(self._message) + size > self._max_message:
            raise FrameError("message is over the limit of %d bytes" % self._max_message)
        if flags & _MORE and size == 0:
            raise FrameError("empty frame with more to follow")

    @property
    def pending(self) -> int:
        """Bytes held that do not yet make a message."""
        return len(self._buffer) + len(self._message)
