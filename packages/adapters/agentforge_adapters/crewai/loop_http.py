"""HTTP for clients that block: their requests are made on the worker's loop, with the key of the run that asks.

There a request can be cancelled, which closes its connection and lets the thread that waits for it go. The client stays
the framework's own and blocking: what it sends is the same, byte for byte.
"""

import asyncio
from typing import AsyncIterator, Iterator, List

import httpx

from agentforge_worker.adapter import RunContext, current_run

from .transcript import transcript

__all__ = ["loop_client"]

_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100)
"""Those of OpenAI's client."""


def loop_client(loop: asyncio.AbstractEventLoop) -> httpx.Client:
    """Return an HTTP client for threads of runs."""
    return httpx.Client(transport=_LoopTransport(loop), follow_redirects=True)


class _LoopTransport(httpx.BaseTransport):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inner = httpx.AsyncHTTPTransport(limits=_LIMITS)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        run = current_run()
        run.check()  # one that was cancelled makes no more requests
        request.headers["Authorization"] = "Bearer " + run.token
        request.read()  # as bytes it can be sent from the loop
        begun: List[httpx.AsyncByteStream] = []
        try:
            status, headers, stream, extensions = run.wait(self._sent(request, run, begun))
        except BaseException:
            for each in begun:  # its head came as the run was told to end: nobody else knows of it
                asyncio.run_coroutine_threadsafe(each.aclose(), self._loop)
            raise
        return httpx.Response(status, headers=headers, stream=stream, extensions=extensions)

    async def _sent(self, request: httpx.Request, run: RunContext, begun: List[httpx.AsyncByteStream]) -> tuple:
        answer = await self._inner.handle_async_request(request)
        assert isinstance(answer.stream, httpx.AsyncByteStream)
        begun.append(answer.stream)
        stream: httpx.SyncByteStream
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            stream = _LoopStream(answer.stream, run, self._loop)
        else:
            try:
                stream = httpx.ByteStream(b"".join([part async for part in answer.stream]))
            finally:
                await answer.stream.aclose()
        return answer.status_code, answer.headers, stream, answer.extensions


class _LoopStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, run: RunContext, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._run = run
        self._loop = loop

    def __iter__(self) -> Iterator[bytes]:
        parts = self._stream.__aiter__()
        while True:
            try:
                part = self._run.wait(_next(parts))
            except BaseException as error:
                self.close()  # LiteLLM and OpenAI's client leave it to the garbage collector
                if isinstance(error, httpx.HTTPError) and (said := transcript.get(None)) is not None:
                    said.broken = error
                raise
            if not part:
                return
            yield part

    def close(self) -> None:
        # Not waited for: a run that was cancelled waits for nothing.
        asyncio.run_coroutine_threadsafe(self._stream.aclose(), self._loop)


async def _next(parts: AsyncIterator[bytes]) -> bytes:
    async for part in parts:
        if part:
            return part
    return b""
