"""JSON as the gateway reads and writes it, and the canonical hash that the journal matches requests on.

msgspec does the work; text that it refuses but real peers send (half of a surrogate pair in a streamed emoji, a
number like 1e400) goes through the standard library, which takes and gives what those peers do.
"""

import hashlib
import json
from typing import Any

import msgspec

__all__ = ["Json", "decode", "encode", "request_hash", "with_model"]

Json = Any
"""A value that JSON can hold."""

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode(data: bytes) -> Json:
    """Parse JSON. Raises ValueError for anything else, also for nesting too deep to parse."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        raise ValueError("nested too deeply") from None
    try:
        return json.loads(data.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def encode(value: Json) -> bytes:
    """Write compact JSON in the order of the keys."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def request_hash(path: str, data: Json) -> str:
    """Return the SHA-256 (hex) over the key-sorted JSON of path and body.

    Two bodies that differ only in the order of keys, in white space or in how characters are escaped are the same
    request. Numbers keep their kind: `1` and `1.0` differ, as they do on the wire.
    """
    try:
        text = _encode_sorted([path, data])
    except UnicodeEncodeError:
        text = json.dumps([path, data], sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest()


def with_model(body: bytes, data: dict[str, Json], model: str) -> bytes:
    """Return the body with another `model`; every other value keeps its bytes."""
    try:
        fields: dict[str, Json] = dict(_decode_fields(body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = dict(data)
    fields["model"] = model
    return encode(fields)


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")
