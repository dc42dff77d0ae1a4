"""Every way a call fails: data for the observer, an answer for the framework, an error for the run."""

import email.utils
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from aiohttp import web

from agentforge.errors.models import (
    ModelAuthRefused,
    ModelCallAborted,
    ModelCallRefused,
    ModelError,
    ModelRateLimited,
    ModelRequestMalformed,
    ModelRequestRejected,
    ModelSilent,
    ModelStreamBroken,
    ModelUnreachable,
    ModelUpstreamFailed,
    UnknownModel,
)
from agentforge.gateway.canonical import decode, encode
from agentforge.gateway.types import FailureKind, Json, ModelFailure, Refused, Upstream

__all__ = ["CallFailed", "error_body", "failure_error", "local_failure", "refusal", "rejected", "where"]

_ERRORS: Final[dict[FailureKind, type[ModelError]]] = {
    "auth_refused": ModelAuthRefused,
    "rate_limited": ModelRateLimited,
    "bad_request": ModelRequestRejected,
    "upstream_error": ModelUpstreamFailed,
    "unreachable": ModelUnreachable,
    "silent": ModelSilent,
    "broken_stream": ModelStreamBroken,
    "unknown_model": UnknownModel,
    "refused": ModelCallRefused,
    "malformed": ModelRequestMalformed,
    "aborted": ModelCallAborted,
    "internal": ModelError,
}
_EXCERPT = 2000
_QUOTED = 300
# The OpenAI client would repeat a 409 or 5xx; an answer of ours that stays the same is not worth repeating.
_DO_NOT_RETRY: Final = {"x-should-retry": "false"}


class CallFailed(Exception):
    """A call that got no complete answer, with the answer that the framework's client gets in its place."""

    def __init__(
        self, failure: ModelFailure, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self._body = body
        self._headers = headers or {}

    def answer(self) -> web.Response:
        """Return the HTTP answer: the upstream's own where there is one, else an OpenAI-shaped error."""
        if self._body is not None:
            return web.Response(body=self._body, status=self.failure.status, headers=self._headers)
        body = error_body(self.failure.status, self.failure.code, self.failure.message)
        headers = {"Content-Type": "application/json", **self._headers}
        return web.Response(body=body, status=self.failure.status, headers=headers)

    def broken(self) -> "CallFailed":
        """Return the same failure for a client that has part of the answer and will see the connection break."""
        return CallFailed(replace(self.failure, status=0))


def failure_error(failure: ModelFailure) -> ModelError:
    """Return the error for a run's result. Its details hold the upstream's status and words."""
    details: dict[str, Json] = dict(failure.details)
    if failure.upstream_status is not None:
        details["upstream_status"] = failure.upstream_status
    if failure.retry_after_s is not None:
        details["retry_after_s"] = failure.retry_after_s
    if failure.kind == "refused":
        details["refused_with"] = failure.code
    return _ERRORS[failure.kind](failure.message, **details)


def local_failure(kind: FailureKind, status: int, message: str, **details: Json) -> CallFailed:
    """Return a failure that no upstream answered for."""
    return CallFailed(ModelFailure(kind, _ERRORS[kind].code, status, message, details=details))


def refusal(refused: Refused) -> CallFailed:
    """Return the observer's refusal as a failure."""
    failure = ModelFailure("refused", refused.code, refused.status, refused.message)
    return CallFailed(failure, headers=_DO_NOT_RETRY)


def rejected(upstream: Upstream, status: int, headers: Mapping[str, str], body: bytes) -> CallFailed:
    """Return the failure for an upstream's error answer. `headers` are those that may go to the client."""
    text = body.decode(errors="replace")
    kind = _kind_of(status)
    message = f"Model {where(upstream)} answered {status}"
    if said := _message_in(body) or text.strip()[:_QUOTED]:
        message += f": {said}"
    # A redirect would send the framework's client past the gateway; any other success is no answer either.
    passed = status >= 400 or status == 200
    failure = ModelFailure(
        kind,
        _ERRORS[kind].code,
        status if passed else 502,
        message,
        upstream_status=status,
        retry_after_s=_retry_after(headers),
        details={"body": text[:_EXCERPT]} if text else {},
    )
    return CallFailed(failure, body, headers) if passed else CallFailed(failure)


def error_body(status: int, code: str, message: str) -> bytes:
    """Return an error as the OpenAI API words it."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "api_error")
    return encode({"error": {"message": message, "type": kind, "param": None, "code": code}})


def where(upstream: Upstream) -> str:
    """Return alias, model and address for a message; credentials and queries in the address are left out."""
    address = upstream.base_url.split("?", 1)[0]
    scheme, found, rest = address.partition("://")
    if found:
        address = scheme + found + rest.rpartition("@")[2]
    at = f" at `{address}`" if address else ""
    return f"`{upstream.alias}` (`{upstream.model}`{at})"


def _kind_of(status: int) -> FailureKind:
    if status in (401, 403):
        return "auth_refused"
    if status == 429:
        return "rate_limited"
    return "bad_request" if 400 <= status < 500 else "upstream_error"


def _message_in(body: bytes) -> str:
    try:
        error = decode(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:_QUOTED]
    except (ValueError, KeyError, TypeError, IndexError):
        return ""


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the upstream asks to wait (RFC 9110 10.2.3: seconds or a date)."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return float(milliseconds) / 1000
        value = headers.get("retry-after", "")
        if not value or value.replace(".", "", 1).isdigit():
            return float(value) if value else None
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
