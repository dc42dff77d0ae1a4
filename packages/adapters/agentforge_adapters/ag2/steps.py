"""A middleware of one run: model and tool calls are steps, the steps are counted, and own tools are called once."""

import json
from typing import Any, Dict, Sequence

from ag2.annotations import Context
from ag2.events import (
    BaseEvent,
    DataInput,
    ModelResponse,
    TextInput,
    ToolCallEvent,
    ToolErrorEvent,
    ToolResult,
    ToolResultEvent,
)
from ag2.middleware import BaseMiddleware, LLMCall, ToolExecution

from agentforge_worker.adapter import RunContext, StepLimitReached

from .messages import from_native

__all__ = ["Steps"]


class Steps(BaseMiddleware):
    """Tells the host of a run's steps and of the model's messages."""

    def __init__(self, event: BaseEvent, context: Context, run: RunContext, serializer: Any) -> None:
        super().__init__(event, context)
        self._run = run
        self._serializer = serializer
        self._left = run.spec.max_steps if run.spec else None

    async def on_llm_call(self, call_next: LLMCall, events: Sequence[BaseEvent], context: Context) -> ModelResponse:
        """Make a model call a step."""
        if self._left is not None:
            if self._left == 0 and self._run.spec is not None:
                raise StepLimitReached(self._run.spec.max_steps or 0)
            self._left -= 1
        with self._run.step("model", kind="model"):
            response = await call_next(events, context)
        for message in from_native([response], self._serializer):
            self._run.emit("message.added", vars(message))
        return response

    async def on_tool_execution(self, call_next: ToolExecution, event: ToolCallEvent, context: Context) -> Any:
        """Make a tool call a step; that of a tool which lives in this process is also recorded."""
        with self._run.step(event.name, kind="tool"):
            if self._run.spec is not None:
                return await call_next(event, context)
            return await self._call_once(call_next, event, context)

    async def _call_once(self, call_next: ToolExecution, event: ToolCallEvent, context: Context) -> Any:
        live = []

        async def made() -> Any:
            live.append(await call_next(event, context))
            if not isinstance(live[0], ToolResultEvent):
                return None  # for a client to answer
            parts = [self._kept(part) for part in live[0].result.parts]
            return {"parts": parts, "error": isinstance(live[0], ToolErrorEvent), "final": live[0].result.final}

        told = await self._run.tool_effect(event.name, event.serialized_arguments, made)
        if live:
            return live[0]
        parts = [TextInput(part["text"]) if "text" in part else DataInput(part["data"]) for part in told["parts"]]
        result = ToolResult(parts=parts, final=told["final"])
        if told["error"]:
            return ToolErrorEvent(parent_id=event.id, name=event.name, error=Exception("as before"), result=result)
        return ToolResultEvent(parent_id=event.id, name=event.name, result=result)

    def _kept(self, part: Any) -> Dict[str, Any]:
        if isinstance(part, DataInput):
            return {"data": json.loads(self._serializer.encode(part.data))}
        return {"text": part.content if isinstance(part, TextInput) else str(part)}
