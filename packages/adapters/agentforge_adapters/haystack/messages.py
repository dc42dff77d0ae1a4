"""The conversation in Haystack's form and in the neutral one."""

import json
from typing import Any, Dict, List, Sequence

from haystack.dataclasses import ChatMessage, ToolCall

from agentforge_worker.adapter import Message

__all__ = ["from_native", "to_native"]


def to_native(messages: Sequence[Message]) -> List[ChatMessage]:
    """Return the history that an agent continues."""
    calls = {call["id"]: _call(call) for message in messages for call in message.tool_calls}
    return [_to_native(message, calls) for message in messages]


def from_native(message: ChatMessage) -> List[Message]:
    """Return what a run added; a message of Haystack's may hold the results of several tools."""
    results = message.tool_call_results
    if results:
        return [Message("tool", _text(each.result), tool_call_id=each.origin.id) for each in results]
    calls = [{"id": call.id, "name": call.tool_name, "arguments": call.arguments} for call in message.tool_calls]
    return [Message(message.role.value, message.text or "", calls)]


def _to_native(message: Message, calls: Dict[str, ToolCall]) -> ChatMessage:
    if message.role == "assistant":
        return ChatMessage.from_assistant(message.content or None, tool_calls=[_call(c) for c in message.tool_calls])
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        return ChatMessage.from_tool(message.content, calls.get(call_id) or ToolCall("", {}, call_id))
    if message.role == "system":
        return ChatMessage.from_system(message.content)
    return ChatMessage.from_user(message.content)


def _call(call: Dict[str, Any]) -> ToolCall:
    return ToolCall(call["name"], call["arguments"], call["id"])


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    return "".join(getattr(part, "text", "") for part in result) or json.dumps(result, default=str)
