"""The conversation in the form of AutoGen 0.2 (that of the OpenAI API, with names) and in the neutral one."""

import json
from typing import Any, Dict, List, Sequence, Tuple, Union

from agentforge_worker.adapter import Message, Start

__all__ = ["USER", "first_message", "from_native", "to_native"]

Json = Any

USER = "user"
"""The name of who asks; it goes to the model with each of their messages."""


def first_message(request: Start) -> Tuple[Union[str, Dict[str, Json]], List[Message]]:
    """Return what the chat begins with, and what was said before: a run that is taken over goes on from its end."""
    earlier = list(request.messages)
    if not request.continues:
        return request.text, earlier
    last = earlier.pop()
    if last.role == "user":
        return last.content, earlier
    if last.role != "tool":
        return {"content": last.content, "override_role": last.role}, earlier
    answer = {"role": "tool", "tool_call_id": last.tool_call_id, "content": last.content}
    return {"role": "tool", "tool_responses": [answer], "content": last.content}, earlier


def to_native(messages: Sequence[Message], agent: str) -> List[Dict[str, Json]]:
    """Return the past messages of an agent of that name."""
    return [_to_native(message, agent) for message in messages]


def from_native(messages: Sequence[Dict[str, Json]]) -> List[Message]:
    """Return an agent's messages in the neutral form."""
    return [neutral for message in messages for neutral in _from_native(message)]


def _to_native(message: Message, agent: str) -> Dict[str, Json]:
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content}
    if message.tool_calls:
        return {"role": "assistant", "content": message.content or None, "tool_calls": _calls(message)}
    native = {"role": message.role, "content": message.content}
    names = {"assistant": agent, "user": USER}
    return {**native, "name": names[message.role]} if message.role in names else native


def _calls(message: Message) -> List[Dict[str, Json]]:
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)},
        }
        for call in message.tool_calls
    ]


def _from_native(message: Dict[str, Json]) -> List[Message]:
    answers = message.get("tool_responses") or ()
    if answers:
        return [Message("tool", str(each["content"]), tool_call_id=each.get("tool_call_id")) for each in answers]
    calls = [
        {"id": call["id"], "name": call["function"]["name"], "arguments": _arguments(call["function"]["arguments"])}
        for call in message.get("tool_calls") or ()
    ]
    return [Message(message.get("role") or "assistant", str(message.get("content") or ""), calls)]


def _arguments(text: str) -> Json:
    try:
        return json.loads(text or "{}")
    except ValueError:  # the model is told of it, and may do better
        return {}
