"""`POST /v1/runs` without the layers of FastAPI, which cost as much as all the rest of a small run.

The route in `run_routes` stays the truth: this answers what is plainly right, by the same model and the same
function, and gives everything else to the app as it came, so that refusals and limits are the route's own.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from agentforge.api.problems import defect, refusal
from agentforge.api.run_routes import MOST_KEY, MOST_WAIT_S, RunRequest, submit_run
from agentforge.engine import Engine
from agentforge.errors import AgentForgeError

__all__ = ["AsgiApp", "DirectSubmit"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_PATH = "/v1/runs"
_LARGEST_BODY = 1 << 20


class DirectSubmit:
    """An ASGI app in front of the API's."""

    def __init__(self, app: AsgiApp, engine: Engine, stopping: Callable[[], bool]) -> None:
        self._app = app
        self._engine = engine
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope.get("path") != _PATH or scope.get("method") != "POST":
            return await self._app(scope, receive, send)
        first = await receive()
        asked = None if first.get("more_body") else _read(scope, first.get("body", b""))
        if asked is None:
            return await self._app(scope, _again(first, receive), send)
        try:
            answer = await submit_run(self._engine, self._stopping, *asked)
        except AgentForgeError as error:
            answer = refusal(error)
        except Exception as error:
            answer = defect(f"POST {_PATH}", error)
        return await answer(scope, receive, send)


def _read(scope: Scope, body: bytes) -> tuple[RunRequest, str | None, float] | None:
    """Return request, key and seconds to wait of a plain request; None for the app to look at."""
    if len(body) > _LARGEST_BODY:
        return None
    try:
        key = None
        json = False
        for name, value in scope["headers"]:
            if name == b"content-type":
                json = value == b"application/json"
            elif name == b"idempotency-key":
                key = value.decode("latin-1")
        wait_s = _wait_s(scope["query_string"])
        if not json or not 0 <= wait_s <= MOST_WAIT_S or len(key or "") > MOST_KEY:
            return None
        return RunRequest.model_validate_json(body), key, wait_s
    except ValueError:
        return None


def _wait_s(query: bytes) -> float:
    if not query:
        return 0.0
    ((name, value),) = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    if name != "wait_s":
        raise ValueError(name)
    return float(value)


def _again(first: MutableMapping[str, Any], receive: Receive) -> Receive:
    """Return a `receive` that gives a message that was taken once more."""
    taken = [first]

    async def receive_again() -> MutableMapping[str, Any]:
        return taken.pop() if taken else await receive()

    return receive_again
