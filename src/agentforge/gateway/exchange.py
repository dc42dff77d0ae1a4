"""One model call from its request to its end: what is forwarded, held, recorded and reported, in which order."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

import aiohttp
from aiohttp import web

from agentforge.errors import AgentForgeError
from agentforge.errors.models import ModelAnswerUnrecorded
from agentforge.gateway.assembly import events_of
from agentforge.gateway.canonical import decode, with_model
from agentforge.gateway.failures import CallFailed, error_body, local_failure, refusal, rejected, where
from agentforge.gateway.headers import returned_headers, sent_headers
from agentforge.gateway.streams import StreamReader
from agentforge.gateway.tokens import LiveGrant
from agentforge.gateway.types import CallObserver, Json, ModelCall, ModelResponse, Refused, Upstream
from agentforge.gateway.upstreams import UpstreamPool, translated
from agentforge.gateway.usage import usage_in

__all__ = ["Exchange", "report_failure"]

log = logging.getLogger(__name__)

_STREAM_TYPE = "text/event-stream"
_JSON_TYPE = "application/json"
_HELD_COMMENT_S = 10.0
"""While events are held back, a comment tells the framework's client this often that the model is still talking."""
_DRAIN_S = 0.2


class Unrecorded(Exception):
    """The observer's `completed` raised: the answer must not go to the framework."""


class Exchange:
    """Serves one call. `run` returns what aiohttp sends; every way out has reported the call exactly once."""

    def __init__(
        self,
        request: web.BaseRequest,
        call: ModelCall,
        upstream: Upstream,
        live: LiveGrant,
        observer: CallObserver,
        pool: UpstreamPool,
        clock: Callable[[], float],
        max_answer_bytes: int,
    ) -> None:
        self._request = request
        self._call = call
        self._upstream = upstream
        self._live = live
        self._observer = observer
        self._pool = pool
        self._clock = clock
        self._max_answer_bytes = max_answer_bytes
        self._settled = False
        self._out: web.StreamResponse | None = None

    async def run(self) -> web.StreamResponse:
        """Serve the call."""
        try:
            known = await self._observer.requested(self._call)
            if known is not None:
                self._settled = True
                return await self._answer_known(known)
            return await self._ask()
        except Refused as refused:
            return await self._fail(refusal(refused))
        except CallFailed as failed:
            return await self._fail(failed)
        except asyncio.CancelledError:
            await self._abort("The framework's client left, or its run ended, before the answer was complete")
            raise
        except aiohttp.ClientConnectionError:  # writing to a client that has just left
            await self._abort("The framework's client left before the answer was complete")
            return self._broken_off()
        except Unrecorded as unrecorded:
            return self._unrecorded(unrecorded.__cause__)
        except Exception:
            log.exception("model call %s failed inside the gateway", self._call.call_id)
            return await self._fail(local_failure("internal", 500, "The gateway failed; the host's log says how"))

    async def _ask(self) -> web.StreamResponse:
        call, upstream = self._call, self._upstream
        body = call.body
        if call.data["model"] != upstream.model:
            body = with_model(body, call.data, upstream.model)
        headers = sent_headers(self._request.headers, self._live.token, upstream.api_key)
        resource = _resource(self._request)
        async with self._pool.post(upstream, resource, body, headers) as answer:
            kept = returned_headers(answer.headers.items(), upstream.api_key)
            if answer.status == 200 and self._is_stream(answer):
                return await self._forward_stream(answer, kept)
            content = await self._read(answer)
        if answer.status != 200:
            raise rejected(upstream, answer.status, kept, content)
        return await self._forward_plain(content, kept)

    def _is_stream(self, answer: aiohttp.ClientResponse) -> bool:
        if answer.content_type == _STREAM_TYPE:
            return True
        # Some servers forget the type; an error or a plain answer says that it is JSON.
        return self._call.stream and answer.content_type != _JSON_TYPE

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        pieces: list[bytes] = []
        size = 0
        with translated(self._upstream, answering=True):
            async for piece in answer.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > self._max_answer_bytes:
                    raise self._too_large()
        content = b"".join(pieces)
        key = self._upstream.api_key
        return content if key is None else key.redact_json(content)

    async def _forward_plain(self, content: bytes, headers: dict[str, str]) -> web.StreamResponse:
        data = self._parsed(content)
        if data is None:
            message = f"Model {where(self._upstream)} answered something that is no JSON object"
            raise local_failure("upstream_error", 502, message, body=content[:2000].decode(errors="replace"))
        if data.get("error") and not (data.get("choices") or data.get("data")):
            raise rejected(self._upstream, 200, headers, content)
        await self._commit(ModelResponse(content, None, headers, usage_in(data), self._elapsed_ms()))
        return web.Response(body=content, headers=headers)

    async def _forward_stream(self, answer: aiohttp.ClientResponse, headers: dict[str, str]) -> web.StreamResponse:
        out = self._out = web.StreamResponse(headers=headers)
        await out.prepare(self._request)
        reader = StreamReader(self._upstream, self._max_answer_bytes)
        written = self._clock()
        while not reader.ended:
            with translated(self._upstream, answering=True):
                piece = await answer.content.readany()
            live = reader.feed(piece) if piece else reader.close()
            if text := reader.take_text():
                self._observer.delta(self._call, text)
            if not live and reader.waiting and self._clock() - written > _HELD_COMMENT_S:
                live = b": waiting\n\n"
            if live:
                await out.write(live)
                written = self._clock()
            if reader.failure is not None:
                raise reader.failure
        await self._commit(reader.response(headers, self._elapsed_ms()))
        await out.write(reader.take_held())
        await _drain(answer)
        await out.write_eof()
        return out

    async def _answer_known(self, known: ModelResponse) -> web.StreamResponse:
        """Answer with what the observer had: a stream if the request streams."""
        headers = dict(known.headers)
        if not self._call.stream or "chat" not in self._call.path:
            headers["content-type"] = _JSON_TYPE
            return web.Response(body=known.body, headers=headers)
        headers["content-type"] = f"{_STREAM_TYPE}; charset=utf-8"
        out = self._out = web.StreamResponse(headers=headers)
        await out.prepare(self._request)
        await out.write(known.stream if known.stream is not None else self._restreamed(known))
        await out.write_eof()
        return out

    def _restreamed(self, known: ModelResponse) -> bytes:
        options = self._call.data.get("stream_options")
        include_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        return b"".join(events_of(known.data, include_usage=include_usage))

    async def _commit(self, response: ModelResponse) -> None:
        """Hand the answer to the observer. From here on it is the call's outcome, even if the client leaves."""
        self._settled = True
        try:
            await _kept(self._live, self._observer.completed(self._call, response))
        except Exception as error:
            raise Unrecorded from error

    async def _fail(self, failed: CallFailed) -> web.StreamResponse:
        """Report, then answer with the error; a stream that has begun is cut so that its client sees it broken."""
        if not self._settled:
            self._settled = True
            seen = failed if self._out is None else failed.broken()
            await report_failure(self._live, self._observer, self._call, seen)
        return failed.answer() if self._out is None else self._broken_off()

    async def _abort(self, message: str) -> None:
        if not self._settled:
            self._settled = True
            failed = local_failure("aborted", 0, message)
            await report_failure(self._live, self._observer, self._call, failed)

    def _unrecorded(self, cause: BaseException | None) -> web.StreamResponse:
        log.error("the answer to model call %s could not be recorded", self._call.call_id, exc_info=cause)
        if self._out is not None:
            return self._broken_off()
        said = cause.message if isinstance(cause, AgentForgeError) else type(cause).__name__
        message = f"The model answered but the answer could not be recorded: {said}"
        body = error_body(500, ModelAnswerUnrecorded.code, message)
        return web.Response(body=body, status=500, content_type=_JSON_TYPE, headers={"x-should-retry": "false"})

    def _broken_off(self) -> web.StreamResponse:
        """End the connection without the mark that ends a chunked body; what was written before still arrives."""
        if self._request.transport is not None:
            self._request.transport.close()
        return self._out if self._out is not None else web.Response(status=500)

    def _parsed(self, content: bytes) -> dict[str, Json] | None:
        try:
            data = decode(content)
        except ValueError:
            return None
        return data if isinstance(data, dict) else None

    def _elapsed_ms(self) -> float:
        return (self._clock() - self._call.started) * 1000

    def _too_large(self) -> CallFailed:
        limit_mib = self._max_answer_bytes / 2**20
        return local_failure("upstream_error", 502, f"Model {where(self._upstream)} sent over {limit_mib:g} MiB")


def _resource(request: web.BaseRequest) -> str:
    """Return what follows the base URL: one of the paths that are served, and the query as it was sent."""
    return request.raw_path.removeprefix("/v1").partition("#")[0]


async def report_failure(live: LiveGrant, observer: CallObserver, call: ModelCall, failed: CallFailed) -> None:
    """Tell the observer. Its own failing is logged: the framework gets the model's error all the same."""
    try:
        await _kept(live, observer.failed(call, failed.failure))
    except Exception:
        log.exception("the failure of model call %s could not be reported", call.call_id)


async def _kept(live: LiveGrant, report: Coroutine[Json, Json, None]) -> None:
    """Await a report that goes on if this call is cancelled meanwhile."""
    task = asyncio.ensure_future(report)
    live.reports.add(task)
    task.add_done_callback(live.reports.discard)
    await asyncio.shield(task)


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read what may follow the last event, so that the connection can be used again; not worth waiting for."""
    if answer.content.at_eof():
        return
    try:
        async with asyncio.timeout(_DRAIN_S):
            while await answer.content.readany():
                pass
    except (TimeoutError, aiohttp.ClientError):
        return
