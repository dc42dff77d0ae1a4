"""JSON as the gateway reads and writes it, and the canonical hash that the journal matches requests on.

msgspec does the work; text that it refuses but real peers send (half of a surrogate pair in a streamed emoji, a
number like 1e400) goes through the standard library, which takes and gives what those peers do.
"""

import hashlib
import json
from typing import Any

import msgspec

__all__ = ["Json", "decode", "encode", "request_hash", "says_once", "with_model"]

Json = Any
"""A value that JSON can hold."""

_DEPTH = 128
"""Lists and objects inside each other: what goes on from here walks through them."""
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode
_ESCAPED_LETTERS = (b"\\u004", b"\\u005", b"\\u006", b"\\u007")
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def decode(data: bytes) -> Json:
    """Parse JSON. Raises ValueError for anything else, also for nesting that is too deep."""
    try:
        value = _parse(data)
        if data.count(b"[") + data.count(b"{") > _DEPTH:
            _check_depth(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def says_once(body: bytes, data: dict[str, Json], name: str) -> bool:
    """Whether an object has a name once, however another parser reads it: of two, some take the first.

    Names in other cases count too, some parsers see no difference. `data` is `body` parsed.
    """
    if sum(key.lower() == name for key in data) != 1:
        return False
    quoted = b'"%s"' % name.encode()
    count = body.count(quoted)
    if any(escape in body for escape in _ESCAPED_LETTERS):
        return _names(body).count(name) == 1
    if count == 1:
        return True
    try:
        fields = _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _names(body).count(name) == 1
    # Of a name that is there twice one value is missing here.
    return count == 1 + sum(bytes(value).count(quoted) for value in fields.values())


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


def _parse(data: bytes) -> Json:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return json.loads(data.decode(), parse_constant=_no_constant)


def _names(body: bytes) -> list[str]:
    """Return the names of an object, repeated ones too."""
    names: list[str] = json.loads(body, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
    return names


def _check_depth(value: Json) -> None:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if type(each) is dict else each)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise ValueError("nested too deeply")


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")
