"""Python tools: functions of an agent version, called in a tool worker of the project's tool environment."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from agentforge.errors import AgentForgeError
from agentforge.errors.sandbox import REPORTED_LIMITS, LimitExceeded
from agentforge.errors.tools import (
    ToolArgumentsWrong,
    ToolFailure,
    ToolLimitHit,
    ToolLoadFailed,
    ToolRaised,
    ToolResultWrong,
    ToolTimedOut,
    ToolWorkerDied,
    ToolWorkerShared,
)
from agentforge.tools.tool import Tool, ToolRequest
from agentforge_worker.wire import Method, RpcError

__all__ = ["PythonTools", "ToolWorker", "ToolWorkers"]

_FOUND_IN_WORKER: dict[str, type[ToolFailure]] = {
    kind.code: kind for kind in (ToolLoadFailed, ToolArgumentsWrong, ToolRaised, ToolResultWrong)
}


class ToolWorker(Protocol):
    """A live tool worker."""

    @property
    def shared(self) -> bool:
        """Whether it has served more than one run so far."""
        ...

    async def call(self, method: str, params: dict[str, Any], timeout_s: float | None = None) -> Any:
        """Send a request; raises RpcError, TimeoutError, or an AgentForgeError when the worker ends."""
        ...


class ToolWorkers(Protocol):
    """Where tool workers come from; given by the engine."""

    def lease(self, run_id: str = "", *, alone: bool = False) -> contextlib.AbstractAsyncContextManager[ToolWorker]:
        """Give a worker of the tool environment for one call of a run; `alone`: one that serves no other run."""
        ...

    def retire(self, worker: ToolWorker) -> None:
        """Have a worker serve nothing more: something hangs in it."""
        ...


class PythonTools:
    """The python tools of one agent version. `root` is the folder of its files."""

    def __init__(self, workers: ToolWorkers, root: Path) -> None:
        self._workers = workers
        self._root = root

    async def describe(self, tools: Sequence[Tool]) -> list[Tool]:
        """Return the tools with name, description and parameters filled in. Raises ToolLoadFailed."""
        wanted = [{"file": tool.file, "function": tool.function} for tool in tools]
        async with self._workers.lease() as worker:
            try:
                answer = await worker.call(Method.TOOLS_OPEN, {"root": str(self._root), "tools": wanted})
            except RpcError as error:
                raise _failure(error, "") from error
        if len(answer["tools"]) != len(tools):
            raise ToolLoadFailed(f"the tool worker described {len(answer['tools'])} of {len(tools)} tools")
        return [
            replace(tool, name=found["name"], description=found["description"], parameters=found["parameters"])
            for tool, found in zip(tools, answer["tools"], strict=True)
        ]

    async def call(self, request: ToolRequest, *, alone: bool = False) -> Any:
        """Return the tool's result, a JSON value; `alone`: from a worker that serves no other run.

        Raises a ToolFailure, or the LimitExceeded that the tool's process was ended for.
        """
        tool = request.tool
        params = {
            "root": str(self._root),
            "file": tool.file,
            "function": tool.function,
            "arguments": request.arguments,
            "extras": {"idempotency_key": request.idempotency_key, "run_id": request.run_id},
        }
        async with self._workers.lease(request.run_id, alone=alone) as worker:
            try:
                answer = await worker.call(Method.TOOL_INVOKE, params, tool.timeout_s)
            except RpcError as error:
                failure = _failure(error, tool.name, shared=worker.shared)
                if isinstance(failure, ToolLimitHit):
                    self._workers.retire(worker)  # threads, open files, a full scratch folder are left behind in it
                raise failure from error
            except asyncio.CancelledError:
                self._workers.retire(worker)  # what was cancelled may not listen: its process ends it
                raise
            except TimeoutError:
                self._workers.retire(worker)
                raise ToolTimedOut(f"the tool `{tool.name}` did not return within {tool.timeout_s:g} s") from None
            except ToolFailure:
                raise
            except LimitExceeded as error:
                if not worker.shared:
                    raise
                raise ToolWorkerShared(f"the process of the tool `{tool.name}` ended: {error.message}") from error
            except AgentForgeError as error:
                raise ToolWorkerDied(f"the process of the tool `{tool.name}` ended: {error.message}") from error
        return answer["value"]


def _failure(error: RpcError, name: str, *, shared: bool = False) -> ToolFailure:
    info = error.data if isinstance(error.data, dict) else {}
    code, message, details = str(info.get("code")), str(info.get("message") or error.message), info.get("details") or {}
    if code in REPORTED_LIMITS:
        text = f"the tool `{name}` failed: {message}"
        return ToolLimitHit(code, text, str(info.get("hint") or ""), shared=shared, **details)
    kind = _FOUND_IN_WORKER.get(code, ToolRaised)
    prefix = f"the tool `{name}` failed: " if name and kind is ToolRaised else ""
    failure = kind(prefix + message)
    failure.details = details
    return failure
