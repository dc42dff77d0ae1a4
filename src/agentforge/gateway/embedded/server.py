"""The API of the embedded model's process: OpenAI's chat completions and models, on a Unix socket."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from agentforge.config.providers import EMBEDDED_ANSWERS_FIRST
from agentforge.gateway.embedded.engine import Engine
from agentforge.gateway.embedded.failures import RequestRefused
from agentforge.gateway.embedded.replies import Reply, Usage, read_call
from agentforge.gateway.embedded.translation import Plan, translate

__all__ = ["MODEL", "Api", "make_app"]

Json = Any

MODEL = "local"
_LARGEST_BODY = 16 * 1024 * 1024


def make_app(engine: Engine) -> web.Application:
    """Return the application; any model name in a request means the one model there is."""
    api = Api(engine)
    app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[_answer_refusals])
    app.router.add_get("/v1/models", api.list_models)
    app.router.add_post("/v1/chat/completions", api.chat)
    app.router.add_post("/v1/embeddings", api.embed)
    return app


class Api:
    """The handlers. A client that goes away cancels its handler, which stops the engine's work for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_models(self, request: web.Request) -> web.Response:
        """Answer `GET /v1/models`."""
        entry = {"id": MODEL, "object": "model", "created": 0, "owned_by": "agentforge"}
        return web.json_response({"object": "list", "data": [entry]})

    async def embed(self, request: web.Request) -> web.Response:
        """Answer `POST /v1/embeddings`: not offered yet."""
        message = "the embedded model makes no embeddings; connect an endpoint that does"
        raise RequestRefused(501, message, code="not_implemented")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer `POST /v1/chat/completions`, streamed or whole."""
        body = await _json_body(request)
        plan = translate(body, "answer" if body.get("model") == EMBEDDED_ANSWERS_FIRST else "tool")
        reply = Reply(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), str(body.get("model") or MODEL))
        async with self._engine.generate(plan) as chunks:
            if body.get("stream"):
                options = body.get("stream_options") or {}
                return await _stream(request, _events(plan, reply, chunks, bool(options.get("include_usage"))))
            text, reason, usage = await _collect(chunks)
        message, reason = _message(plan, text, reason)
        return web.json_response(reply.whole(message, reason, usage))


async def _json_body(request: web.Request) -> dict[str, Json]:
    try:
        body = await request.json()
    except ValueError:
        raise RequestRefused(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise RequestRefused(400, "the body is no JSON object")
    return body


async def _collect(chunks: AsyncIterator[dict[str, Json]]) -> tuple[str, str, Usage]:
    text, reason, usage = "", "stop", Usage(0, 0)
    async for chunk in chunks:
        usage = _usage(chunk, usage)
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
    return text, reason, usage


def _usage(chunk: dict[str, Json], usage: Usage) -> Usage:
    counted = chunk.get("usage")
    return Usage(counted["prompt_tokens"], counted["completion_tokens"]) if counted else usage


def _message(plan: Plan, text: str, reason: str) -> tuple[dict[str, Json], str]:
    """Return the message that the engine's text means, and the finish reason that goes with it."""
    if plan.kind == "text":
        return {"content": text.strip()}, reason
    call = read_call(plan, text, _call_id())
    if call is None:
        return {"content": ""}, reason
    return {"tool_calls": [call.body()]}, "tool_calls" if reason == "stop" else reason


def _call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


async def _events(
    plan: Plan, reply: Reply, chunks: AsyncIterator[dict[str, Json]], include_usage: bool
) -> AsyncIterator[dict[str, Json]]:
    """Return the stream's chunks. Text goes through as it comes; a call only once it is complete, since it is short."""
    text, reason, usage = "", "stop", Usage(0, 0)
    if plan.kind == "text":
        yield reply.chunk({"role": "assistant", "content": ""})
        async for chunk in chunks:
            usage = _usage(chunk, usage)
            for choice in chunk["choices"]:
                reason = choice["finish_reason"] or reason
                if content := choice["delta"].get("content"):
                    yield reply.chunk({"content": content})
    else:
        text, reason, usage = await _collect(chunks)
        if call := read_call(plan, text, _call_id()):
            reason = "tool_calls" if reason == "stop" else reason
            for part in reply.call_chunks(call):
                yield part
    yield reply.chunk({}, reason)
    if include_usage:
        yield reply.usage_chunk(usage)


async def _stream(request: web.Request, events: AsyncIterator[dict[str, Json]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    try:
        async for event in events:
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    except RequestRefused as error:  # the status is out: the stream itself has to say it
        await response.write(b"data: " + json.dumps(error.body()).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


@web.middleware
async def _answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestRefused as error:
        return _refused(error)
    except aiohttp.ClientError as error:
        return _refused(RequestRefused(500, f"the embedded model's engine broke off: {type(error).__name__}"))
    except web.HTTPNotFound:
        message = f"the embedded model has no `{request.method} {request.path}`"
        return _refused(RequestRefused(404, message, code="not_found"))
    except web.HTTPRequestEntityTooLarge:
        return _refused(RequestRefused(413, f"the request is larger than {_LARGEST_BODY} bytes"))


def _refused(error: RequestRefused) -> web.Response:
    return web.json_response(error.body(), status=error.status)
