"""The conversation in AutoGen's form (that of its model clients) and in the neutral one."""

import json
from typing import Any, Dict, List, Sequence

from autogen_core import FunctionCall
from autogen_core.models import (
    AssistantMessage,
    FunctionExecutionResult,
    FunctionExecutionResultMessage,
    LLMMessage,
    SystemMessage,
    UserMessage,
)

from agentforge_worker.adapter import Message

__all__ = ["USER", "from_native", "to_native"]

USER = "user"
"""AutoGen's own name for who gives an agent its task; it goes to the model with each such message."""


def to_native(messages: Sequence[Message], agent: str) -> List[LLMMessage]:
    """Return the context that an agent of that name continues."""
    names = {call["id"]: call["name"] for message in messages for call in message.tool_calls}
    return [_to_native(message, agent, names) for message in messages]


def from_native(messages: Sequence[LLMMessage]) -> List[Message]:
    """Return messages of an agent's context in the neutral form."""
    return [neutral for message in messages for neutral in _from_native(message)]


def _to_native(message: Message, agent: str, names: Dict[str, str]) -> LLMMessage:
    if message.role == "system":
        return SystemMessage(content=message.content)
    if message.role == "tool":
        call_id = message.tool_call_id or ""
        result = FunctionExecutionResult(
            content=message.content, name=names.get(call_id, ""), call_id=call_id, is_error=False
        )
        return FunctionExecutionResultMessage(content=[result])
    if message.role != "assistant":
        return UserMessage(content=message.content, source=USER)
    calls = [
        FunctionCall(id=call["id"], name=call["name"], arguments=json.dumps(call["arguments"], ensure_ascii=False))
        for call in message.tool_calls
    ]
    if not calls:
        return AssistantMessage(content=message.content, source=agent)
    return AssistantMessage(content=calls, thought=message.content or None, source=agent)


def _from_native(message: LLMMessage) -> List[Message]:
    if isinstance(message, FunctionExecutionResultMessage):
        return [Message("tool", result.content, tool_call_id=result.call_id) for result in message.content]
    if isinstance(message, AssistantMessage):
        if isinstance(message.content, str):
            return [Message("assistant", message.content)]
        calls = [{"id": call.id, "name": call.name, "arguments": _arguments(call)} for call in message.content]
        return [Message("assistant", message.thought or "", calls)]
    content = message.content if isinstance(message.content, str) else str(message.content)
    return [Message("system" if isinstance(message, SystemMessage) else "user", content)]


def _arguments(call: FunctionCall) -> Any:
    try:
        return json.loads(call.arguments or "{}")
    except ValueError:  # the model is told of it, and may do better
        return {}
