"""Tool calls of all runs: checked, run, journalled; the answer goes back after its commit."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agentforge.engine.execution import Execution
from agentforge.engine.feed import FeedEnded
from agentforge.errors import AgentForgeError
from agentforge.errors.tools import ToolAbandoned, ToolUnknown
from agentforge.gateway import request_hash
from agentforge.store import Effect
from agentforge.tools import Tool, ToolRequest
from agentforge.workers import Worker
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = ["ToolCalls"]


class ToolCalls:
    """Serves the workers' `tool.call` requests."""

    def __init__(self, find: Callable[[str], Execution | None], clock: Callable[[], float] = time.time) -> None:
        self._find = find
        self._clock = clock

    async def serve(self, worker: Worker, params: dict[str, Any]) -> dict[str, Any]:
        """Answer one call of a worker: {run_id, name, arguments} to {value}. Raises RpcError."""
        run_id, name, arguments = params.get("run_id"), params.get("name"), params.get("arguments")
        execution = self._find(run_id) if isinstance(run_id, str) else None
        if execution is None or execution.worker_id != worker.id:
            raise RpcError(ErrorCode.INVALID_PARAMS, "no such run in this worker")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise RpcError(ErrorCode.INVALID_PARAMS, "a tool call needs a name and arguments")
        if execution.feed.finished or execution.cancel_requested.is_set() or execution.failure is not None:
            raise RpcError(ErrorCode.CANCELLED, "the run is ending")
        task = asyncio.ensure_future(self._call(execution, name, arguments))
        execution.tool_tasks.add(task)
        task.add_done_callback(execution.tool_tasks.discard)
        return {"value": await task}

    async def _call(self, execution: Execution, name: str, arguments: dict[str, Any]) -> Any:
        hashed = request_hash("tool", {"name": name, "arguments": arguments})
        call_id = f"tool-{len(execution.tally.tool_calls) + 1}"
        record: dict[str, Any] = {"name": name, "arguments": arguments}
        execution.tally.tool_calls.append(record)
        execution.feed.emit("tool.called", {"call_id": call_id, "name": name, "arguments": arguments})
        started = time.monotonic()
        tool = execution.tools.get(name)
        try:
            value = await self._run(execution, tool, name, arguments, hashed)
        except ToolAbandoned as error:
            record["error"] = error.message
            failed = {"call_id": call_id, "name": name, "error": error.info().to_dict()}
            execution.feed.emit("tool.failed", failed)
            raise RpcError(ErrorCode.CANCELLED, error.message) from None
        except AgentForgeError as error:
            return self._failed(execution, tool, call_id, record, error)
        duration_ms = (time.monotonic() - started) * 1000
        record["result"] = value
        position, occurrence = execution.next_effect(hashed)
        effect = Effect(
            run_id=execution.run.run_id,
            position=position,
            attempt=execution.feed.attempt,
            kind="tool",
            request_hash=hashed,
            occurrence=occurrence,
            request=msgspec.json.encode({"name": name, "arguments": arguments}),
            response=msgspec.json.encode({"value": value}),
            status=200,
            started_at=self._clock() - duration_ms / 1000,
            duration_ms=duration_ms,
        )
        data = {
            "call_id": call_id,
            "name": name,
            "effect": position,
            "result": value,
            "duration_ms": round(duration_ms, 3),
        }
        try:
            await execution.feed.commit_effect(effect, "tool.returned", data)
        except FeedEnded:
            raise RpcError(ErrorCode.CANCELLED, "the run has ended") from None
        return value

    async def _run(
        self, execution: Execution, tool: Tool | None, name: str, arguments: dict[str, Any], hashed: str
    ) -> Any:
        if tool is None or execution.toolbox is None:
            known = ", ".join(f"`{each}`" for each in execution.tools) or "none"
            raise ToolUnknown(f"the agent has no tool `{name}`; it has {known}")
        occurrence = execution.occurrences.get(hashed, 0)
        key = f"{execution.run.run_id}:{hashed[:16]}:{occurrence}"
        request = ToolRequest(tool, arguments, execution.run.run_id, key)
        call = asyncio.ensure_future(execution.toolbox.call(request))
        doomed = asyncio.ensure_future(execution.doomed.wait())
        try:
            await asyncio.wait([call, doomed], return_when=asyncio.FIRST_COMPLETED)
            if not call.done():
                raise ToolAbandoned(f"the run ended before the tool `{name}` returned")
            return call.result()
        finally:
            doomed.cancel()
            call.cancel()

    def _failed(
        self, execution: Execution, tool: Tool | None, call_id: str, record: dict[str, Any], error: AgentForgeError
    ) -> Any:
        info = error.info()
        record["error"] = info.message
        data = {"call_id": call_id, "name": record["name"], "error": info.to_dict()}
        execution.feed.emit("tool.failed", data)
        if tool is not None and tool.on_error == "tell":
            return f"Error: {info.message}"
        execution.fail(info)
        raise RpcError(ErrorCode.FAILED, info.message, info.to_dict())
