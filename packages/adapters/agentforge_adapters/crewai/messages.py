"""The conversation in CrewAI's form (that of the OpenAI API) and in the neutral one."""

import json
from contextvars import ContextVar
from typing import Any, Dict, List, Mapping, Sequence

from crewai.hooks import LLMCallHookContext

from agentforge_worker.adapter import Message, Start

__all__ = [
    "Conversation",
    "add_conversation",
    "conversation",
    "conversation_of",
    "from_native",
    "neutral_calls",
    "to_native",
    "with_answer",
]

_CONTINUE = "Go on."
"""The task of a conversation to be continued in which no user has said anything: CrewAI needs one."""


class Conversation:
    """A thread around the one message of it that is CrewAI's task: the new one, or the last that a user wrote."""

    def __init__(self, request: Start) -> None:
        messages = list(request.messages)
        at = len(messages)
        if request.continues:
            at = max((n for n, message in enumerate(messages) if message.role == "user"), default=at)
        self.task = messages[at].content if at < len(messages) else _CONTINUE if request.continues else request.text
        self.earlier = to_native(messages[:at])
        self.later = to_native(messages[at + 1 :])
        self.length = 2 + len(self.earlier) + len(self.later)
        """Messages of the first request: the instructions, the task, and these."""


conversation: "ContextVar[Conversation]" = ContextVar("agentforge_crewai_conversation")
"""That of the current run; emptied when it has been added."""


def add_conversation(context: LLMCallHookContext) -> None:
    """Put the conversation around the task. CrewAI calls this before each model call."""
    thread = conversation.get(None)
    if thread is not None and (thread.earlier or thread.later):
        context.messages[1:1] = thread.earlier
        context.messages.extend(thread.later)
        thread.earlier, thread.later = [], []


def conversation_of(request: Start) -> List[Dict[str, Any]]:
    """Return all that was said, for an agent without a task."""
    said = to_native(request.messages)
    return said if request.continues else [*said, {"role": "user", "content": request.text}]


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
