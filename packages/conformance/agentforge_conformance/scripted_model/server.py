"""The scripted model's HTTP server: in this process (`async with ScriptedModel()`) or in one of its own."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from aiohttp import web

from agentforge_conformance.scripted_model import formats
from agentforge_conformance.scripted_model.deciding import Conversation, Decision, decide
from agentforge_conformance.scripted_model.recording import RecordedRequest, Recording
from agentforge_conformance.scripted_model.steps import Json, Script, Step, builtin_step

__all__ = ["ScriptedModel"]

_SCRIPT_PREFIX = "script:"
_LARGEST_BODY = 256 * 2**20
_FIRST_NAMES = ["fake", "echo", "json"]


@dataclass(eq=False)
class _Barrier:
    """Holds answers until enough requests are there; of a barrier the next ones form a new group, a gate stays open."""

    arrived: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class _Turn:
    """One request with the step that answers it."""

    request: web.Request
    body: dict[str, Json]
    step: Step
    number: int


class _Cut(Exception):
    """The connection was broken as the script says."""


class ScriptedModel:
    """An OpenAI-compatible endpoint that answers by script and records every request.

    Models without a script behave as their name says (`builtin_step`). A script is used as model `script:<name>`, or
    by a model of just its name. Over HTTP: `POST /__scripts` with `{"name", "steps", "per", "after"}`,
    `GET /__requests`, `POST /__reset` (forgets requests and scripts).
    """

    def __init__(
        self,
        scripts: Mapping[str, Script] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_path: str | Path | None = None,
        latency_s: float = 0.0,
        api_key: str | None = None,
        record: bool = True,
    ) -> None:
        """`api_key`: answer 401 to requests without it. `record`: turn it off for long measurements."""
        self._scripts = dict(scripts or {})
        self._host = host
        self._port = port
        self._unix_path = unix_path
        self._latency_s = latency_s
        self._api_key = api_key
        self._runner: web.AppRunner | None = None
        self._recording = Recording()
        self._recording.keeping = record
        self._answered = 0
        self._used: dict[str, int] = {}
        self._barriers: dict[int, _Barrier] = {}
        self._gates: dict[int, _Barrier] = {}

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL, with `/v1`."""
        if self._unix_path is not None:
            return f"unix://{self._unix_path}/v1"
        if self._runner is None:
            raise RuntimeError("the scripted model is not started")
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """Every request to `/v1`, oldest first."""
        return self._recording.requests

    @property
    def open_requests(self) -> int:
        """How many requests have no complete answer yet."""
        return self._recording.open_requests

    async def __aenter__(self) -> "ScriptedModel":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start serving; `base_url` is valid from here on."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_post("/v1/chat/completions", self._route(self._chat))
        app.router.add_post("/v1/responses", self._route(self._response))
        app.router.add_post("/v1/embeddings", self._route(self._embeddings))
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/__requests", self._list_requests)
        app.router.add_post("/__scripts", self._install)
        app.router.add_post("/__reset", self._reset)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site: web.BaseSite
        if self._unix_path is not None:
            site = web.UnixSite(self._runner, str(self._unix_path), backlog=4096)
        else:
            site = web.TCPSite(self._runner, self._host, self._port, backlog=4096)
        await site.start()

    async def close(self) -> None:
        """Stop serving; open requests see their connection end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def script(
        self,
        name: str,
        *steps: Step,
        per: Literal["request", "conversation"] = "request",
        after: Literal["last", "cycle", "default"] = "last",
    ) -> str:
        """Install a script (see `Script`); return the model name that uses it."""
        self._scripts[name] = Script(steps, per, after)
        self._used.pop(name, None)
        return _SCRIPT_PREFIX + name

    def reset(self) -> None:
        """Forget requests and scripts, and close the gates."""
        self.requests.clear()
        self._scripts.clear()
        self._used.clear()
        self._gates = {size: gate for size, gate in self._gates.items() if not gate.opened.is_set()}

    async def wait_for_requests(self, count: int) -> list[RecordedRequest]:
        """Wait until so many requests have come in; return them."""
        await self._recording.until(lambda: len(self.requests) >= count)
        return self.requests[:count]

    async def wait_until_idle(self) -> None:
        """Wait until no request is open: each one answered, or given up by its client."""
        await self._recording.until(lambda: self.open_requests == 0)

    def _route(self, answer: Callable[[_Turn], Awaitable[web.StreamResponse]]) -> "_Route":
        async def serve(request: web.Request) -> web.StreamResponse:
            record = self._recording.begin(request, body := await request.read())
            status: int | None = None
            aborted = False
            try:
                response = await self._answer(request, body, answer)
                status = response.status
                return response
            except asyncio.CancelledError:
                aborted = True
                raise
            except _Cut:
                return web.Response()  # the connection is gone: nobody sees it
            except ConnectionError:
                aborted = True
                return web.Response()
            finally:
                self._recording.end(record, status, aborted=aborted)

        return serve

    async def _answer(
        self, request: web.Request, raw: bytes, answer: Callable[[_Turn], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._api_key is not None and request.headers.get("Authorization") != f"Bearer {self._api_key}":
            return _error(401, "Incorrect API key provided")
        try:
            body = json.loads(raw)
            step = self._step(str(body.get("model", "")), _conversation(request.path, body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _error(400, f"not a request of this API: {error!r}")
        await self._hold(step)
        if step.silent_after == 0:
            await asyncio.Event().wait()
        if step.status != 200:
            return _error(step.status, step.message or f"scripted failure {step.status}", step.headers)
        self._answered += 1
        return await answer(_Turn(request, body, step, self._answered))

    def _step(self, model: str, conversation: Conversation) -> Step:
        name = model.rpartition("/")[2].removeprefix(_SCRIPT_PREFIX)
        script = self._scripts.get(name)
        if script is None:
            if model.startswith(_SCRIPT_PREFIX):
                raise ValueError(f"there is no script {name!r}")
            return builtin_step(model)
        if conversation.in_text:
            script = script.one_call_each()
        if script.per == "conversation":
            return script.step(conversation.answers)
        position = self._used.get(name, 0)
        self._used[name] = position + 1
        return script.step(position)

    async def _hold(self, step: Step) -> None:
        if step.barrier:
            barrier = self._barriers.setdefault(step.barrier, _Barrier())
            await _pass(barrier, step.barrier, lambda: self._barriers.pop(step.barrier))
        if step.gate:
            await _pass(self._gates.setdefault(step.gate, _Barrier()), step.gate)
        if delay_s := step.delay_s + self._latency_s:
            await asyncio.sleep(delay_s)

    async def _chat(self, turn: _Turn) -> web.StreamResponse:
        answer = decide(turn.step, formats.chat_conversation(turn.body))
        if turn.body.get("stream"):
            return await _stream(turn, answer)
        return await _plain(turn, formats.chat_completion(turn.body, answer, turn.number))

    async def _response(self, turn: _Turn) -> web.StreamResponse:
        if turn.body.get("stream"):
            return _error(400, "the scripted model does not stream responses")
        answer = decide(turn.step, formats.response_conversation(turn.body))
        return await _plain(turn, formats.response(turn.body, answer, turn.number))

    async def _embeddings(self, turn: _Turn) -> web.StreamResponse:
        return await _plain(turn, formats.embeddings(turn.body))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        names = _FIRST_NAMES + [_SCRIPT_PREFIX + name for name in self._scripts]
        return web.json_response(formats.models(names))

    async def _list_requests(self, request: web.Request) -> web.StreamResponse:
        return web.json_response([record.to_dict() for record in self.requests])

    async def _install(self, request: web.Request) -> web.StreamResponse:
        try:
            data = await request.json()
            name = str(data["name"])
            self._scripts[name] = Script.parse(data)
        except (ValueError, KeyError, TypeError) as error:
            return _error(400, f"not a script: {error!r}")
        self._used.pop(name, None)
        return web.json_response({"model": _SCRIPT_PREFIX + name})

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        self.reset()
        return web.json_response({})


async def _pass(barrier: _Barrier, size: int, opened: Callable[[], object] = lambda: None) -> None:
    barrier.arrived += 1
    if barrier.arrived >= size and not barrier.opened.is_set():
        barrier.opened.set()
        opened()
    try:
        await barrier.opened.wait()
    except asyncio.CancelledError:
        barrier.arrived -= 1
        raise


_Route = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def _plain(turn: _Turn, answer: dict[str, Json]) -> web.StreamResponse:
    body = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
    headers = {"Content-Type": "application/json", "x-request-id": f"req_{turn.number:08}", **turn.step.headers}
    if turn.step.cut_after is None and turn.step.silent_after is None:
        return web.Response(body=body, headers=headers)
    out = web.StreamResponse(headers={**headers, "Content-Length": str(len(body))})
    await out.prepare(turn.request)
    await out.write(body[: len(body) // 2])
    if turn.step.cut_after is not None:
        _cut(turn.request)
    await asyncio.Event().wait()
    return out


async def _stream(turn: _Turn, answer: Decision) -> web.StreamResponse:
    headers = {"Content-Type": "text/event-stream", "x-request-id": f"req_{turn.number:08}", **turn.step.headers}
    out = web.StreamResponse(headers=headers)
    await out.prepare(turn.request)
    for position, chunk in enumerate(formats.chat_chunks(turn.body, answer, turn.number)):
        await _before_chunk(turn, position)
        await out.write(formats.sse(chunk))
    await out.write(b"data: [DONE]\n\n")
    await out.write_eof()
    return out


async def _before_chunk(turn: _Turn, position: int) -> None:
    if position == turn.step.cut_after:
        _cut(turn.request)
    if position == turn.step.silent_after:
        await asyncio.Event().wait()
    if position and turn.step.chunk_delay_s:
        await asyncio.sleep(turn.step.chunk_delay_s)


def _cut(request: web.Request) -> None:
    """Close the connection in the middle of the answer; what was written still arrives."""
    if request.transport is not None:
        request.transport.close()
    raise _Cut


def _conversation(path: str, body: dict[str, Json]) -> Conversation:
    if path.endswith("/chat/completions"):
        return formats.chat_conversation(body)
    if path.endswith("/responses"):
        return formats.response_conversation(body)
    body["input"]  # what an embedding can't do without
    return Conversation(())


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(formats.error(status, message), status=status, headers=headers)
