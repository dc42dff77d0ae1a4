"""Read the messages of a request: what is asked, and what tools have answered so far. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentforge.gateway.embedded.failures import RequestRefused

__all__ = ["Message", "ToolResult", "Turn", "current_turn", "plain_messages"]

Json = Any

Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`: all that the model's template knows."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered to a call of this turn."""

    name: str
    arguments: str
    """JSON text."""
    content: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn that a request continues."""

    instructions: str
    """All system messages, joined."""
    question: str
    results: tuple[ToolResult, ...]
    """In the order in which the tools answered."""


def current_turn(messages: Sequence[Json]) -> Turn:
    """Return the turn that is open at the end of `messages`. Raises RequestRefused.

    It begins with the last user message that does not directly follow a tool's result: some frameworks add a user
    message after a result ("analyze it, then give the final answer"), which belongs to the turn and asks nothing new.
    """
    entries = [_checked(message) for message in messages]
    instructions = "\n\n".join(_text(entry) for entry in entries if _role(entry) == "system").strip()
    talk = [entry for entry in entries if _role(entry) != "system"]
    start = max((at for at in range(len(talk)) if _opens_turn(talk, at)), default=None)
    if start is None:
        return Turn(instructions, "", _results(talk))
    return Turn(instructions, _text(talk[start]).strip(), _results(talk[start + 1 :]))


def plain_messages(messages: Sequence[Json]) -> list[Message]:
    """Return the conversation in the roles of the model's template: one system message first, tool traffic as text."""
    entries = [_checked(message) for message in messages]
    instructions = "\n\n".join(_text(entry) for entry in entries if _role(entry) == "system").strip()
    plain = [{"role": "system", "content": instructions}] if instructions else []
    for entry in entries:
        role, text = _role(entry), _text(entry)
        if role == "tool":
            plain.append({"role": "user", "content": f"Result of the tool: {text}"})
        elif role != "system" and text:
            plain.append({"role": role, "content": text})
    return plain


def _checked(message: Json) -> dict[str, Json]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise RequestRefused(400, "each of `messages` needs a `role` and a `content`", param="messages")
    if message["role"] not in ("system", "developer", "user", "assistant", "tool", "function"):
        raise RequestRefused(400, f"role `{message['role']}` is not known", param="messages")
    return message


def _role(message: dict[str, Json]) -> str:
    role: str = message["role"]
    return {"developer": "system", "function": "tool"}.get(role, role)


def _text(message: dict[str, Json]) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "\n".join(part["text"] for part in content)
    raise RequestRefused(400, "the embedded model reads text only", param="messages")


def _opens_turn(talk: Sequence[dict[str, Json]], at: int) -> bool:
    return _role(talk[at]) == "user" and (at == 0 or _role(talk[at - 1]) != "tool")


def _results(talk: Sequence[dict[str, Json]]) -> tuple[ToolResult, ...]:
    calls: dict[str, tuple[str, str]] = {}
    results = []
    for message in talk:
        for call in message.get("tool_calls") or ():
            function = call.get("function") or {}
            calls[str(call.get("id"))] = (str(function.get("name", "")), str(function.get("arguments", "{}")))
        if _role(message) == "tool":
            name, arguments = calls.get(str(message.get("tool_call_id")), (str(message.get("name") or "tool"), "{}"))
            results.append(ToolResult(name, arguments, _text(message)))
    return tuple(results)
