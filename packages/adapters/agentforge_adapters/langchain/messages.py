"""Messages of a conversation: LangChain's own, and the neutral form. For all releases."""

import json
from typing import Any, Dict, List

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agentforge_worker.adapter import Message

__all__ = ["from_langchain", "text_of", "to_langchain"]


def to_langchain(message: Message) -> BaseMessage:
    """Return a message as LangChain has it."""
    if message.role == "assistant":
        calls: Any = [{"id": c["id"], "name": c["name"], "args": c["arguments"]} for c in message.tool_calls]
        return AIMessage(content=message.content, tool_calls=calls)
    if message.role == "tool":
        return ToolMessage(content=message.content, tool_call_id=message.tool_call_id or "")
    return (SystemMessage if message.role == "system" else HumanMessage)(content=message.content)


def from_langchain(message: BaseMessage) -> Message:
    """Return a message in the neutral form."""
    roles = {"ai": "assistant", "AIMessageChunk": "assistant", "human": "user"}
    role = roles.get(message.type, message.type)
    return Message(role, text_of(message), _calls(message), getattr(message, "tool_call_id", None))


def text_of(message: BaseMessage) -> str:
    """Return a message's text: what `text` is in newer releases."""
    if isinstance(message.content, str):
        return message.content
    parts = (part if isinstance(part, str) else part.get("text") or "" for part in message.content)
    return "".join(parts)


def _calls(message: BaseMessage) -> List[Dict[str, Any]]:
    calls = getattr(message, "tool_calls", None)
    if calls is not None:
        return [{"id": call["id"], "name": call["name"], "arguments": call["args"]} for call in calls]
    # Before langchain-core 0.1.42 a message had them only as OpenAI sends them.
    return [
        {"id": c["id"], "name": c["function"]["name"], "arguments": json.loads(c["function"]["arguments"] or "{}")}
        for c in message.additional_kwargs.get("tool_calls", ())
    ]
