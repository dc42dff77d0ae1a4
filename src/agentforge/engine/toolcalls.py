"""Tool calls of all runs: answered from the journal, approved, run, recorded; answers go back after their commit."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from agentforge.engine.divergence import Divergences
from agentforge.engine.execution import Execution
from agentforge.engine.feed import FeedEnded
from agentforge.engine.interrupts import Interrupt
from agentforge.engine.record import CallKey, Outcome, idempotency_key, tool_request
from agentforge.errors import AgentForgeError, ErrorInfo
from agentforge.errors.sandbox import LimitExceeded
from agentforge.errors.tools import (
    ToolAbandoned,
    ToolFailure,
    ToolLimitHit,
    ToolRejected,
    ToolUnknown,
    ToolWorkerDied,
    ToolWorkerShared,
)
from agentforge.gateway import request_hash
from agentforge.tools import Tool, ToolRequest
from agentforge.workers import Worker
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = ["ToolCall", "ToolCalls", "ask_about", "keep_call", "say_called", "tool_call"]

_TRIES = 3
"""How often an idempotent tool is called whose process ends under it."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of one attempt."""

    name: str
    arguments: dict[str, Any]
    request_hash: str
    occurrence: int

    @property
    def key(self) -> CallKey:
        """What it is known by in every attempt."""
        return self.request_hash, self.occurrence

    @property
    def id(self) -> str:
        """Its name in events."""
        return f"{self.request_hash[:12]}-{self.occurrence}"

    def event(self, **data: Any) -> dict[str, Any]:
        """Return the data of an event that tells of it."""
        return {"call_id": self.id, "name": self.name, **data}


class ToolCalls:
    """Serves the workers' `tool.call` requests."""

    def __init__(
        self,
        find: Callable[[Worker, dict[str, Any]], Execution],
        divergences: Divergences,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`find` returns the run that a request is for, or raises RpcError."""
        self._find = find
        self._divergences = divergences
        self._clock = clock

    async def serve(self, worker: Worker, params: dict[str, Any]) -> dict[str, Any]:
        """Answer one call of a worker: {run_id, attempt, name, arguments} to {value}. Raises RpcError."""
        execution = self._find(worker, params)
        call = tool_call(execution, params)
        entry: dict[str, Any] = {"name": call.name, "arguments": call.arguments}
        execution.attempt.tool_calls.append(entry)
        try:
            outcome = await self._outcome(execution, call)
        except ToolAbandoned as error:
            entry["error"] = error.message
            raise RpcError(ErrorCode.CANCELLED, error.message) from None
        except AgentForgeError as error:
            info = error.info()
            entry["error"] = info.message
            execution.fail(info)
            raise RpcError(ErrorCode.FAILED, info.message, info.to_dict()) from None
        outcome.note(entry)
        return {"value": outcome.answer()}

    async def _outcome(self, execution: Execution, call: ToolCall) -> Outcome:
        tool = execution.tools.get(call.name)
        rejected = None
        if tool is not None and tool.approval == "always":
            rejected = await self._approval(execution, call)
        recorded = await execution.attempt.recorded("tool", *call.key)
        if recorded is not None:
            return msgspec.json.decode(recorded.response, type=Outcome)
        if rejected is not None:
            outcome = Outcome(error=rejected.info().to_dict())
            await keep_call(execution, call, outcome, True, 0.0, self._clock())
            return outcome
        running = execution.calls.get(call.key)
        if running is None:
            asked = {"name": call.name, "arguments": call.arguments}
            await self._divergences.check(execution, "tool", call.name, call.request_hash, asked)
            running = execution.calls[call.key] = asyncio.ensure_future(self._run(execution, call, tool))
            running.add_done_callback(_seen)
        done: Outcome = await asyncio.shield(running)
        return done

    async def _approval(self, execution: Execution, call: ToolCall) -> ToolRejected | None:
        """Return None once a human has approved the call, why not if it was rejected; before that the run waits."""
        asked = {"name": call.name, "arguments": call.arguments}
        hashed = request_hash("approval", asked)
        answer = await execution.attempt.recorded("answer", hashed, call.occurrence)
        if answer is None:
            await self._divergences.check(execution, "answer", call.name, hashed, asked)
            message = f"the call of the tool `{call.name}` needs an approval"
            await execution.interrupt(Interrupt("approval", message, hashed, call.occurrence, asked), self._clock())
            return None
        decision = msgspec.json.decode(answer.response)
        if decision["decision"] == "approve":
            return None
        reason = f": {decision['value']}" if decision.get("value") else ""
        return ToolRejected(f"the call of the tool `{call.name}` was rejected{reason}")

    async def _run(self, execution: Execution, call: ToolCall, tool: Tool | None) -> Outcome:
        """Run a tool and commit what it returned. Outlives the attempt that asked for it."""
        try:
            if tool is None or execution.toolbox is None:
                await say_called(execution, call, True)
                known = ", ".join(f"`{each}`" for each in execution.tools) or "none"
                raise ToolUnknown(f"the agent has no tool `{call.name}`; it has {known}")
            return await self._call(execution, call, tool)
        except (ToolAbandoned, LimitExceeded) as error:
            execution.feed.emit("tool.failed", _failure(call, error.info()))
            raise
        except ToolFailure as error:
            info = error.info()
            if tool is not None and tool.on_error == "tell":
                outcome = Outcome(error=info.to_dict())
                await keep_call(execution, call, outcome, tool.idempotent, 0.0, self._clock())
                return outcome
            execution.feed.emit("tool.failed", _failure(call, info))
            raise

    async def _call(self, execution: Execution, call: ToolCall, tool: Tool) -> Outcome:
        if call.key in execution.attempt.record.begun and not tool.idempotent:
            execution.calls.pop(call.key, None)
            await ask_about(execution, call, "run was interrupted", self._clock())
        await say_called(execution, call, tool.idempotent)
        started = time.monotonic()
        alone = False
        for left in reversed(range(_TRIES)):
            try:
                value = await self._in_tool_worker(execution, call, tool, alone=alone)
                break
            except ToolLimitHit as hit:
                if not (left and hit.shared and tool.idempotent):
                    raise
                alone = True
            except ToolWorkerDied as death:
                if tool.code:
                    raise  # by the code's own doing, and nothing of it is left
                alone = alone or isinstance(death, ToolWorkerShared)
                if not tool.idempotent:
                    execution.calls.pop(call.key, None)
                    await ask_about(execution, call, "process ended", self._clock())
                if not left:
                    raise
        duration_ms = (time.monotonic() - started) * 1000
        outcome = Outcome(value)
        await keep_call(execution, call, outcome, tool.idempotent, duration_ms, self._clock())
        return outcome

    async def _in_tool_worker(self, execution: Execution, call: ToolCall, tool: Tool, *, alone: bool) -> Any:
        assert execution.toolbox is not None
        key = idempotency_key(execution.record, execution.run.run_id, *call.key)
        request = ToolRequest(tool, call.arguments, execution.run.run_id, key)
        running = asyncio.ensure_future(execution.toolbox.call(request, alone=alone))
        doomed = asyncio.ensure_future(execution.doomed.wait())
        try:
            await asyncio.wait([running, doomed], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise ToolAbandoned(f"the run ended before the tool `{call.name}` returned")
            return running.result()
        finally:
            doomed.cancel()
            running.cancel()


def tool_call(execution: Execution, params: dict[str, Any]) -> ToolCall:
    """Return the call that a worker asks for."""
    name, arguments = params["name"], params["arguments"]
    hashed = request_hash("tool", {"name": name, "arguments": arguments})
    return ToolCall(name, arguments, hashed, execution.attempt.occurrence("tool", hashed))


async def ask_about(execution: Execution, call: ToolCall, what: str, now: float) -> None:
    """Have the run wait: whether a tool has done its work can't be known, and it must not do it twice."""
    message = f"the tool `{call.name}` was under way when its {what}; it is not declared `idempotent`"
    data = {"name": call.name, "arguments": call.arguments, "call_id": call.id}
    await execution.interrupt(Interrupt("tool", message, *call.key, data), now)


async def say_called(execution: Execution, call: ToolCall, idempotent: bool) -> None:
    """Tell that a tool begins; durable before it does, where a second time would matter."""
    data = call.event(
        arguments=call.arguments,
        request_hash=call.request_hash,
        occurrence=call.occurrence,
        idempotency_key=idempotency_key(execution.record, execution.run.run_id, *call.key),
    )
    execution.feed.emit("tool.called", data)
    if not idempotent:
        await execution.feed.flush()


async def keep_call(
    execution: Execution, call: ToolCall, outcome: Outcome, idempotent: bool, duration_ms: float, now: float
) -> None:
    """Commit how a call ended. Raises RpcError when the run has ended meanwhile."""
    effect = execution.new_effect(
        "tool",
        call.request_hash,
        tool_request(call.name, call.arguments, idempotent),
        msgspec.json.encode(outcome),
        occurrence=call.occurrence,
        status=200 if outcome.error is None else 500,
        ended_at=now,
        duration_ms=duration_ms,
    )
    data = call.event(effect=effect.position, duration_ms=round(duration_ms, 3))
    try:
        if outcome.error is None:
            await execution.feed.commit_effect(effect, "tool.returned", {**data, "result": outcome.value})
        else:
            told = {**data, "arguments": call.arguments, "error": outcome.error}
            await execution.feed.commit_effect(effect, "tool.failed", told)
    except FeedEnded:
        raise RpcError(ErrorCode.CANCELLED, "the run has ended") from None


def _failure(call: ToolCall, info: ErrorInfo) -> dict[str, Any]:
    return call.event(error=info.to_dict(), request_hash=call.request_hash, occurrence=call.occurrence)


def _seen(task: "asyncio.Future[Any]") -> None:
    """Take note of a call's failure that no attempt asks for any more."""
    if not task.cancelled():
        task.exception()
