"""JSON between host and client.

msgspec does the work. What it refuses but JSON can hold (a lone surrogate in a model's text) goes through the standard
library: one character must not end a stream of events.
"""

import json
from typing import Any

import msgspec

__all__ = ["decode", "encode"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encode(value: Any) -> bytes:
    """Return the value as compact JSON on one line."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode(text: bytes | str) -> Any:
    """Return the value of JSON text. Raises ValueError for anything else."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(text)
