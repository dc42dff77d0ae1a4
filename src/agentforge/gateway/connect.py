"""The one request that a gate understands: `CONNECT host:port`, read strictly and byte by byte, never guessed at.

RFC 9110 9.3.6 and RFC 9112 3.2.3. HTTP/1.0 is taken too: Python's own client spoke it up to 3.11.
"""

import re

from agentforge.errors.sandbox import NetworkRefused
from agentforge.gateway.destinations import Destination, parse_destination

__all__ = ["ESTABLISHED", "end_of_head", "read_request"]

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([^ \x00-\x20\x7f]+) HTTP/(\d)\.(\d)")
_FIELD = re.compile(_TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*")
_BEGINNING = re.compile(rb"[A-Za-z]")
_TLS = 0x16
_SOCKS = (4, 5)
_CONNECT_ONLY = "This way out takes `CONNECT host:port` only"


def end_of_head(received: bytes | bytearray) -> int:
    """Return where a request's head ends, 0 if it goes on. Raises NetworkRefused for what can't become a request."""
    if received and not _BEGINNING.match(received):
        raise _malformed(_not_http(received[0]))
    end = received.find(b"\r\n\r\n")
    bare = received.find(b"\n\n")
    if bare >= 0 and (end < 0 or bare < end):
        raise _malformed("its lines don't end with CR and LF")
    return end + 4 if end >= 0 else 0


def read_request(head: bytes) -> Destination:
    """Return where a request's head, with its last empty line, asks to be connected to. Raises NetworkRefused."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = _REQUEST.fullmatch(lines[0])
    if found is None:
        raise _malformed("its first line is none of HTTP/1.1")
    method, target, major, _ = found.groups()
    if major != b"1":
        raise NetworkRefused(f"{_CONNECT_ONLY}, in HTTP/1.1", why="request", status=505)
    for line in lines[1:]:
        if not _FIELD.fullmatch(line):
            raise _malformed("one of its header lines is none of HTTP/1.1")
    if method != b"CONNECT":
        raise _not_connect(method, target)
    try:
        return parse_destination(target.decode("utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        told = "its target is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise _malformed(f"of its target, {told}") from None


def _not_connect(method: bytes, target: bytes) -> NetworkRefused:
    if target.lower().startswith(b"http://"):
        message = f"{_CONNECT_ONLY}: plain HTTP is not passed on"
        hint = "Use an https:// address, or have the client tunnel plain HTTP too (`curl --proxytunnel`)."
    else:
        message = f"{_CONNECT_ONLY}, no `{method.decode('ascii')[:20]}`"
        hint = "This is no web server: use it as an HTTP proxy, by the variable `HTTPS_PROXY`."
    return NetworkRefused(message, hint=hint, why="request", status=405)


def _not_http(first: int) -> str:
    if first == _TLS:
        return "it is TLS; the way to the proxy itself is plain HTTP, `http://` in `HTTPS_PROXY`"
    if first in _SOCKS:
        return "it is SOCKS; this is an HTTP proxy"
    return "it is not HTTP"


def _malformed(why: str) -> NetworkRefused:
    return NetworkRefused(f"The request can't be read: {why}", hint="", why="request", status=400)
