"""The conversation in CrewAI's form (that of the OpenAI API) and in the neutral one."""

import json
from contextvars import ContextVar
from typing import Any, Dict, List, Mapping, Sequence

from crewai.hooks import LLMCallHookContext

from agentforge_worker.adapter import Message

__all__ = ["add_history", "from_native", "history", "neutral_calls", "to_native", "with_answer"]

history: "ContextVar[List[Dict[str, Any]]]" = ContextVar("agentforge_crewai_history")
"""The thread so far of the current run; emptied when it has been added."""


def add_history(context: LLMCallHookContext) -> None:
    """Put the thread so far between the instructions and the task. CrewAI calls this before each model call."""
    earlier = history.get([])
    if earlier:
        context.messages[1:1] = earlier
        earlier.clear()


def to_native(messages: Sequence[Message]) -> List[Dict[str, Any]]:
    """Return the messages of a thread."""
    return [_to_native(message) for message in messages]


def from_native(messages: Sequence[Mapping[str, Any]]) -> List[Message]:
    """Return messages in the neutral form."""
    return [
        Message(
            str(message["role"]),
            str(message.get("content") or ""),
            neutral_calls(message.get("tool_calls") or ()),
            message.get("tool_call_id"),
        )
        for message in messages
    ]


def with_answer(messages: List[Message], value: Any) -> List[Message]:
    """Return messages that end with a structured answer. CrewAI's end with what it was made from, or before it."""
    if messages and messages[-1].role == "assistant" and not messages[-1].tool_calls:
        messages = messages[:-1]
    return [*messages, Message("assistant", json.dumps(value, ensure_ascii=False))]


def neutral_calls(calls: Sequence[Any]) -> List[Dict[str, Any]]:
    """Return tool calls in the neutral form; they come as dicts, or as the client's own objects."""
    plain = [call if isinstance(call, dict) else call.model_dump() for call in calls]
    return [
        {
            "id": call["id"],
            "name": call["function"]["name"],
            "arguments": _parsed(call["function"]["arguments"]),
        }
        for call in plain
    ]


def _to_native(message: Message) -> Dict[str, Any]:
    native: Dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        native["content"] = message.content or None
        native["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        native["tool_call_id"] = message.tool_call_id
    return native


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except ValueError:  # the model's own mistake: it is told so by CrewAI
        return arguments
