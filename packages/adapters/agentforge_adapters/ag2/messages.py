"""The conversation as events of AG2 and in the neutral form."""

import json
from typing import Any, Dict, List, Sequence, Tuple

from ag2.events import (
    BaseEvent,
    DataInput,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextInput,
    ToolCallEvent,
    ToolCallsEvent,
    ToolResult,
    ToolResultEvent,
    ToolResultsEvent,
)

from agentforge_worker.adapter import Message

__all__ = ["from_native", "to_native"]


def to_native(messages: Sequence[Message]) -> Tuple[List[str], List[BaseEvent]]:
    """Return what belongs to the prompt, and the history that an agent continues."""
    prompts = [message.content for message in messages if message.role == "system"]
    events: List[BaseEvent] = []
    names = {call["id"]: call["name"] for message in messages for call in message.tool_calls}
    for message in messages:
        if message.role == "user":
            events.append(ModelRequest([TextInput(message.content)]))
        elif message.role == "assistant":
            events.append(_response(message))
        elif message.role == "tool":
            result = _result(message, names)
            if events and isinstance(events[-1], ToolResultsEvent):
                events[-1].results.append(result)
            else:
                events.append(ToolResultsEvent([result]))
    return prompts, events


def from_native(events: Sequence[BaseEvent], serializer: Any) -> List[Message]:
    """Return what a run added, in the neutral form; the serializer is the agent's."""
    return [message for event in events for message in _neutral(event, serializer)]


def _response(message: Message) -> ModelResponse:
    calls = [
        ToolCallEvent(id=call["id"], name=call["name"], arguments=json.dumps(call["arguments"], ensure_ascii=False))
        for call in message.tool_calls
    ]
    said = ModelMessage(message.content) if message.content or not calls else None
    return ModelResponse(said, tool_calls=ToolCallsEvent(calls))


def _result(message: Message, names: Dict[str, str]) -> ToolResultEvent:
    call_id = message.tool_call_id or ""
    return ToolResultEvent(parent_id=call_id, name=names.get(call_id), result=ToolResult(message.content))


def _neutral(event: BaseEvent, serializer: Any) -> List[Message]:
    if isinstance(event, ToolResultsEvent):
        return [Message("tool", _told(each, serializer), tool_call_id=each.parent_id) for each in event.results]
    if isinstance(event, ModelResponse):
        calls = [{"id": call.id, "name": call.name, "arguments": _arguments(call)} for call in event.tool_calls.calls]
        return [Message("assistant", event.content or "", calls)]
    return []


def _told(event: ToolResultEvent, serializer: Any) -> str:
    """Return what a tool returned as the model is told of it."""
    parts = event.result.parts
    texts = [serializer.encode(part.data).decode() for part in parts if isinstance(part, DataInput)]
    return "".join(texts + [part.content for part in parts if isinstance(part, TextInput)])


def _arguments(call: ToolCallEvent) -> Any:
    try:
        return json.loads(call.arguments or "{}")
    except ValueError:  # the model is told of it, and may do better
        return {}
