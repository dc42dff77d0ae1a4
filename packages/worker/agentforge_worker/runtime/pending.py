"""A conversation that is taken over may end with tool calls that nobody has answered: they are made first."""

import asyncio
import json
from typing import Any, List, Mapping, Sequence

from agentforge_worker.adapter import Message, RunContext

__all__ = ["answers_of", "as_text", "unanswered"]


def unanswered(messages: Sequence[Message]) -> List[Mapping[str, Any]]:
    """Return the calls of the last assistant message that no tool message after it answers."""
    answered = set()
    for message in reversed(messages):
        if message.role == "tool":
            answered.add(message.tool_call_id)
        else:
            return [call for call in message.tool_calls if call["id"] not in answered]
    return []


async def answers_of(calls: Sequence[Mapping[str, Any]], ctx: RunContext) -> List[Message]:
    """Call the tools, all at once, and return their results as messages."""
    tasks = [asyncio.ensure_future(_answer(call, ctx)) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _answer(call: Mapping[str, Any], ctx: RunContext) -> Message:
    with ctx.step(call["name"], kind="tool"):
        value = await ctx.call_tool(call["name"], call["arguments"])
    return Message("tool", as_text(value), tool_call_id=call["id"])


def as_text(value: Any) -> str:
    """Return a value as a message's content: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
