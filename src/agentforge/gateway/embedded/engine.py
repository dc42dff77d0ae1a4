"""llama.cpp's server inside this process, and the way to it.

The engine always opens a listener of its own. It gets a Unix socket in the owner-only folder and a random key, so that
no other user and no web page can reach it. Requests go to it over HTTP: leaving an answer stops its computation.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from agentforge.gateway.embedded.conversation import Message
from agentforge.gateway.embedded.failures import RequestRefused, too_long
from agentforge.gateway.embedded.settings import EmbeddedSettings
from agentforge.gateway.embedded.translation import Plan

__all__ = ["Engine", "load"]

Json = Any

_URL = "http://engine/v1/chat/completions"
_QUIET = 1
"""llama.cpp's verbosity: errors only."""
_SHORTEST_ANSWER = 64
"""Room that a prompt has to leave in the context."""


def load(weights: Path, socket: Path, settings: EmbeddedSettings) -> "Engine":
    """Load the model and open its listener; blocks for about half a second."""
    import xllamacpp

    socket.unlink(missing_ok=True)
    key = secrets.token_urlsafe(32)
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = settings.context * settings.slots
    params.n_parallel = settings.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    params.n_threads_http = settings.slots + 4
    params.hostnames = [str(socket)]
    params.api_keys = [key]
    params.verbosity = _QUIET
    params.cache_ram_mib = 0  # a second cache of prompts, up to 8 GiB; the slots keep theirs
    params.warmup = params.fit_params = params.ui = params.endpoint_slots = False
    server = xllamacpp.Server(params)
    if server.listening_address != f"unix://{socket}":
        raise RuntimeError(f"the engine listens on {server.listening_address}, not on its socket")
    return Engine(server, socket, key, settings)


class Engine:
    """The loaded model. One per process; used on one event loop."""

    def __init__(self, server: object, socket: Path, key: str, settings: EmbeddedSettings) -> None:
        self._server = server  # the engine lives as long as this object
        self._socket = socket
        self._headers = {"Authorization": f"Bearer {key}"}
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.slots)  # wakes its waiters in the order they came
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Engine":
        # The engine closes connections after an answer without saying so: none is used twice.
        connector = aiohttp.UnixConnector(str(self._socket), limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def generate(self, plan: Plan) -> AsyncIterator[AsyncIterator[dict[str, Json]]]:
        """Yield the engine's chunks for a plan, once a slot is free and the engine took it. Raises RequestRefused."""
        async with self._slots:
            messages, tokens = await self._fitted(plan.messages)
            body = self._body(plan, messages, self._settings.context - tokens)
            async with self._http.post(_URL, json=body) as response:
                if response.status != 200:
                    raise _refusal(response.status, await response.text())
                yield _chunks(response)

    async def _fitted(self, messages: list[Message]) -> tuple[list[Message], int]:
        """Leave out the oldest turns until the prompt fits; the system message and the last message always stay."""
        room = self._settings.context - min(_SHORTEST_ANSWER, self._settings.context // 4)
        kept = list(messages)
        first = 1 if kept and kept[0]["role"] == "system" else 0
        while (tokens := await self._count(kept)) > room:
            if len(kept) <= first + 1:
                raise too_long(tokens, room)
            surplus = max(1, int((len(kept) - first - 1) * (tokens - room) / tokens))
            del kept[first : first + surplus]
        return kept, tokens

    async def _count(self, messages: list[Message]) -> int:
        async with self._http.post(f"{_URL}/input_tokens", json={"messages": messages}) as response:
            if response.status != 200:
                raise _refusal(response.status, await response.text())
            counted: int = (await response.json())["input_tokens"]
            return counted

    def _body(self, plan: Plan, messages: list[Message], room: int) -> dict[str, Json]:
        body = {
            **plan.sampling,
            "messages": messages,
            "max_tokens": min(plan.max_tokens or self._settings.answer_tokens, room),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if plan.grammar:
            body["grammar"] = plan.grammar
        elif plan.schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": plan.schema}}
        return body

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the engine is used outside its `async with`")
        return self._session


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Json]]:
    async for line in response.content:
        data = line.removeprefix(b"data: ").strip()
        if data == line.strip() or data == b"[DONE]":
            continue
        chunk = json.loads(data)
        if "error" in chunk:
            raise _refusal(500, data.decode())
        yield chunk


def _refusal(status: int, text: str) -> RequestRefused:
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = text[:200] or "the engine gave no reason"
    # The engine's 401 and 404 would be our own mistakes, not the client's.
    return RequestRefused(400 if status == 400 else 500, f"the embedded model's engine refused the request: {message}")
