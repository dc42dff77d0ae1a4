"""A framework's HTTP request as a `ModelCall`."""

from aiohttp import web
from aiohttp.http import HttpProcessingError

from agentforge.gateway.canonical import decode, request_hash, says_once
from agentforge.gateway.failures import CallFailed, local_failure
from agentforge.gateway.tokens import LiveGrant
from agentforge.gateway.types import Json, ModelCall, Upstream

__all__ = ["CALL_PATHS", "read_call"]

CALL_PATHS = frozenset({"/v1/chat/completions", "/v1/embeddings"})
_RETRY_HEADER = "x-stainless-retry-count"
_LONGEST_NUMBER = 4


async def read_call(
    request: web.BaseRequest, live: LiveGrant, call_id: str, started: float
) -> tuple[ModelCall, Upstream | CallFailed]:
    """Return the call and the upstream it goes to, or why it goes nowhere: malformed, or a model not granted."""
    body = b""
    try:
        body = await _read_body(request)
        data = _parse(body)
    except CallFailed as failed:
        return _call(request, live, call_id, started, body, {}, None), failed
    upstream = live.upstream(data["model"])
    call = _call(request, live, call_id, started, body, data, upstream)
    return call, upstream if upstream is not None else _unknown(live, data["model"])


async def _read_body(request: web.BaseRequest) -> bytes:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise local_failure("malformed", 413, f"The request is too large: {error.text}") from None
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise local_failure("malformed", 400, f"The request's body can't be read: {error}") from None


def _parse(body: bytes) -> dict[str, Json]:
    try:
        data = decode(body)
    except ValueError as error:
        raise local_failure("malformed", 400, f"The request is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise local_failure("malformed", 400, "The request is no JSON object")
    if not isinstance(data.get("model"), str) or not data["model"]:
        raise local_failure("malformed", 400, "The request names no model: `model` must be a string")
    if not says_once(body, data, "model"):
        # The endpoint might see another model in it than the one that the run was granted.
        raise local_failure("malformed", 400, "The request names its model more than once")
    return data


def _call(
    request: web.BaseRequest,
    live: LiveGrant,
    call_id: str,
    started: float,
    body: bytes,
    data: dict[str, Json],
    upstream: Upstream | None,
) -> ModelCall:
    grant = live.grant
    retry = request.headers.get(_RETRY_HEADER, "")
    return ModelCall(
        call_id=call_id,
        run_id=grant.run_id,
        attempt=grant.attempt,
        worker=grant.worker,
        alias=upstream.alias if upstream else "",
        model=upstream.model if upstream else str(data.get("model", "")),
        path=request.path,
        body=body,
        data=data,
        stream=data.get("stream") is True,
        retry=int(retry) if retry.isdecimal() and len(retry) <= _LONGEST_NUMBER else 0,
        started=started,
        request_hash=request_hash(request.path, data),
    )


def _unknown(live: LiveGrant, model: str) -> CallFailed:
    known = ", ".join(f"`{alias}`" for alias in live.grant.upstreams) or "none"
    message = f"This run has no model `{model[:200]}`; its models: {known}"
    return local_failure("unknown_model", 404, message)
