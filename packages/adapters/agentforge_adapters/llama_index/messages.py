"""The conversation in LlamaIndex's form and in the neutral one."""

import json
from typing import Any, Dict, List, Sequence

from llama_index.core.base.llms.types import ChatMessage

from agentforge_worker.adapter import Message

__all__ = ["from_native", "to_native"]


def to_native(messages: Sequence[Message]) -> List[ChatMessage]:
    """Return the history that an agent continues."""
    return [_to_native(message) for message in messages]


def from_native(message: ChatMessage) -> Message:
    """Return a message that a run added."""
    calls = [_from_call(call) for call in message.additional_kwargs.get("tool_calls") or ()]
    content = message.content or ""
    return Message(message.role.value, str(content), calls, message.additional_kwargs.get("tool_call_id"))


def _to_native(message: Message) -> ChatMessage:
    more: Dict[str, Any] = {}
    if message.tool_calls:
        more["tool_calls"] = [_to_call(call) for call in message.tool_calls]
    if message.role == "tool":
        more["tool_call_id"] = message.tool_call_id
    return ChatMessage(role=message.role, content=message.content, additional_kwargs=more)


def _to_call(call: Dict[str, Any]) -> Dict[str, Any]:
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
    return {"id": call["id"], "type": "function", "function": function}


def _from_call(call: Any) -> Dict[str, Any]:
    if isinstance(call, dict):
        function = call["function"]
        return {"id": call["id"], "name": function["name"], "arguments": _arguments(function["arguments"])}
    return {"id": call.id, "name": call.function.name, "arguments": _arguments(call.function.arguments)}


def _arguments(text: str) -> Dict[str, Any]:
    """Return arguments; of those that are no JSON object LlamaIndex makes none."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}
