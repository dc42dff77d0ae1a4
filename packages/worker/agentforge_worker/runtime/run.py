"""The RunContext that adapters get: effects through the host, events, cancellation."""

import asyncio
import concurrent.futures
from typing import Any, Awaitable, Dict, Mapping, Optional, Sequence, Set

from agentforge_worker.adapter import AgentSpec, Cancelled, Gateway, RunContext, Start, StepScope, ToolFailed
from agentforge_worker.runtime.chat import ChatClient
from agentforge_worker.wire import Method, Peer, RpcError

__all__ = ["Run"]


class Run(RunContext):
    """One run under way in this worker."""

    def __init__(
        self,
        params: Mapping[str, Any],
        peer: Peer,
        loop: asyncio.AbstractEventLoop,
        gateway: Gateway,
        chat: ChatClient,
        spec: Optional[AgentSpec],
    ) -> None:
        self.run_id = str(params["run_id"])
        self.token = str(params["token"])
        self.workspace = str(params["workspace"])
        self.gateway = gateway
        self.spec = spec
        self.request: Optional[Start] = None
        self._peer = peer
        self._loop = loop
        self._chat = chat
        self._cancelled = False
        self._steps = 0
        self._waiting: Set["concurrent.futures.Future[Any]"] = set()

    def emit(self, kind: str, data: Mapping[str, Any]) -> None:
        """Send an event."""
        self._notify(Method.EVENT_EMIT, {"run_id": self.run_id, "kind": kind, "data": dict(data)})

    def step(self, name: str, **data: Any) -> StepScope:
        """Return the scope of a step."""
        self._steps += 1
        return _Step(self, self._steps, name, data)

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Call a declared tool through the host."""
        self.check()
        params = {"run_id": self.run_id, "name": name, "arguments": dict(arguments)}
        try:
            answer = await self._peer.call(Method.TOOL_CALL, params)
        except RpcError as error:
            info = error.data if isinstance(error.data, dict) else {}
            raise ToolFailed(str(info.get("code", "AF600")), str(info.get("message", error.message))) from None
        return answer["value"]

    async def chat(self, messages: Sequence[Mapping[str, Any]], **request: Any) -> Dict[str, Any]:
        """Make one chat-completions request through the gateway."""
        self.check()
        body: Dict[str, Any] = {"model": self.spec.model if self.spec else "default"}
        if self.spec:
            body.update(self.spec.settings)
        body.update(request)
        body["messages"] = [dict(message) for message in messages]
        if self.request is not None and self.request.stream:
            body.setdefault("stream", True)
        return await self._chat.complete(body, self.token)

    def warn(self, message: str) -> None:
        """Tell the user about something that can't be done here."""
        self._notify(Method.RUN_WARN, {"run_id": self.run_id, "message": message})

    def check(self) -> None:
        """Raise Cancelled if the run was cancelled."""
        if self._cancelled:
            raise Cancelled("the run was cancelled")

    def wait(self, awaitable: "Awaitable[Any]") -> Any:
        """Wait for an awaitable from a thread that is not the loop's. Raises Cancelled as soon as the run is."""
        waiting = asyncio.run_coroutine_threadsafe(_as_coroutine(awaitable), self._loop)
        self._waiting.add(waiting)
        try:
            self.check()
            return waiting.result()
        except concurrent.futures.CancelledError:
            raise Cancelled("the run was cancelled") from None
        finally:
            self._waiting.discard(waiting)
            waiting.cancel()  # no effect on one that is done

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled."""
        return self._cancelled

    def mark_cancelled(self) -> None:
        """Make every later effect raise Cancelled, and those that a thread waits for now."""
        self._cancelled = True
        for waiting in list(self._waiting):
            waiting.cancel()

    def _notify(self, method: str, params: Dict[str, Any]) -> None:
        try:
            on_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            on_loop = False
        if on_loop:
            self._peer.notify(method, params)
        else:
            self._loop.call_soon_threadsafe(self._peer.notify, method, params)


async def _as_coroutine(awaitable: "Awaitable[Any]") -> Any:
    return await awaitable


class _Step(StepScope):
    def __init__(self, run: Run, number: int, name: str, data: Mapping[str, Any]) -> None:
        self._run = run
        self._head = {"step": number, "name": name}
        self._data = data

    def __enter__(self) -> StepScope:
        self._run.emit("step.started", {**self._head, **self._data})
        return self

    def __exit__(self, *exc: Any) -> None:
        self._run.emit("step.finished", {**self._head, "failed": exc[0] is not None})
