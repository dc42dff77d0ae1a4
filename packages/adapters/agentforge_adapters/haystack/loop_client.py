"""The client of Haystack 2.0, which blocks: its requests are made on the worker's loop, with the key of their run.

There a request can be cancelled, which closes its connection and lets the thread go.
"""

from typing import Iterator, Optional

import httpx
from openai import OpenAI

from agentforge_worker.adapter import RunContext, current_run

__all__ = ["loop_client"]

_CONNECTIONS = 1000


def loop_client(base_url: str) -> OpenAI:
    """Return a client for any thread of a run."""
    return OpenAI(base_url=base_url, api_key="the run's", http_client=httpx.Client(transport=LoopTransport()))


class LoopTransport(httpx.BaseTransport):
    """Has the loop make a thread's requests."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=_CONNECTIONS))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and wait for the head of its answer."""
        run = current_run()
        request.headers["Authorization"] = "Bearer " + run.token
        answer = run.wait(self._inner.handle_async_request(request))
        return httpx.Response(answer.status_code, headers=answer.headers, stream=LoopStream(answer, run))


class LoopStream(httpx.SyncByteStream):
    """The body of an answer, read on the loop."""

    def __init__(self, answer: httpx.Response, run: RunContext) -> None:
        self._answer = answer
        self._run = run

    def __iter__(self) -> Iterator[bytes]:
        parts = self._answer.stream.__aiter__()  # type: ignore[union-attr]

        async def following() -> Optional[bytes]:
            async for part in parts:
                return bytes(part)
            return None

        while True:
            part = self._run.wait(following())
            if part is None:
                return
            yield part

    def close(self) -> None:
        """Give the connection back."""
        if not self._run.cancelled:
            self._run.wait(self._answer.aclose())
