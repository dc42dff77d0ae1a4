"""Which headers pass: all that a native client sends and would see, but what belongs to one hop or is a key."""

import re
from collections.abc import Iterable, Mapping

from multidict import CIMultiDict

from agentforge.gateway.types import Secret

__all__ = ["returned_headers", "sent_headers"]

_ONE_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_KEYS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"})
_NOT_SENT = _ONE_HOP | _KEYS | {"host", "content-length", "content-encoding", "expect"}
# The body was decoded on the way in; cookies and the rest are between the upstream's domain and the host alone.
_NOT_RETURNED = _ONE_HOP | {
    "content-length",
    "content-encoding",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
}
_DECODED_HERE = ("gzip", "deflate")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""Control characters, and bytes that are no UTF-8."""


def sent_headers(headers: Mapping[str, str], token: str, key: Secret | None) -> CIMultiDict[str]:
    """Return the headers for the upstream: the client's own, with the real key in place of the run token."""
    dropped = _NOT_SENT
    if connection := headers.get("Connection"):
        dropped = dropped | {name.strip().lower() for name in connection.split(",")}
    sent: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        lowered = name.lower()
        if lowered in dropped or token in value or _UNSENDABLE.search(value):
            continue
        if lowered == "accept-encoding":
            value = _decodable(value)
        sent.add(name, value)
    if key is not None:
        sent["Authorization"] = f"Bearer {key.reveal()}"
    return sent


def returned_headers(headers: Iterable[tuple[str, str]], key: Secret | None) -> dict[str, str]:
    """Return the upstream's headers for the framework, names in lower case; of a repeated one, the last."""
    kept = {lowered: value for name, value in headers if (lowered := name.lower()) not in _NOT_RETURNED}
    if key is not None:
        kept = {name: key.redact(value) for name, value in kept.items()}
    return kept


def _decodable(accepted: str) -> str:
    """Return the part of an `Accept-Encoding` that the gateway can decode: it has to read the answer."""
    codings = [coding.strip() for coding in accepted.split(",")]
    return ", ".join(c for c in codings if c.partition(";")[0].lower() in _DECODED_HERE) or "identity"
