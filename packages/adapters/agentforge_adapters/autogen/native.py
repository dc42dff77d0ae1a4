"""Native teams and agents: the user's own objects, run unchanged."""

import inspect
from typing import Any, List

from autogen_agentchat.base import ChatAgent, TaskResult, TaskRunner, Team
from autogen_agentchat.messages import BaseChatMessage, HandoffMessage, TextMessage
from autogen_core import CancellationToken
from pydantic import BaseModel

from agentforge_worker.adapter import AgentCard, Message, Natives, Result, RunContext, Source, Start

from .messages import USER
from .own_tools import record_tools

__all__ = ["NATIVES", "Native", "describe", "load", "run"]

Native = Any
"""A team or an agent, or a function that makes one."""


NATIVES = Natives("a team or an agent of AutoGen", lambda found: isinstance(found, (ChatAgent, Team)))


def load(source: Source) -> Native:
    """Import what the entry point names, and have its tools recorded."""
    record_tools()
    return NATIVES.named(source.module, source.attribute)


def describe(native: Native) -> AgentCard:
    """Name a team or an agent; of a function nothing but its name is known before a run."""
    if inspect.isroutine(native):
        return AgentCard(native.__name__, inspect.getdoc(native) or "")
    return AgentCard(str(getattr(native, "name", type(native).__name__)), str(getattr(native, "description", "")))


async def run(native: Native, request: Start, ctx: RunContext, token: CancellationToken) -> Result:
    """Give a team or an agent its task, and tell of its messages as they come."""
    runner = await _made(native)
    task: List[Any] = [TextMessage(content=m.content, source=_source(m)) for m in request.messages if _is_said(m)]
    if not request.continues:
        task.append(TextMessage(content=request.text, source=USER))
    done: Any = None
    asked = len(task)
    async for event in runner.run_stream(task=task or None, cancellation_token=token):
        done = event
        if isinstance(event, BaseChatMessage) and asked <= 0:
            ctx.emit("message.added", vars(_neutral(event)))
        if isinstance(event, HandoffMessage):
            ctx.emit("handoff.made", {"from": event.source, "to": event.target})
        asked -= 1
    return _result(done, len(task))


async def _made(native: Native) -> TaskRunner:
    made = await NATIVES.made(native)
    if made is not native:
        return made  # type: ignore[no-any-return]
    # One that was loaded remembers its last run.
    if isinstance(native, Team):
        await native.reset()
    elif isinstance(native, ChatAgent):
        await native.on_reset(CancellationToken())
    return native  # type: ignore[no-any-return]


def _result(done: TaskResult, asked: int) -> Result:
    messages = done.messages[asked:]
    added = [_neutral(message) for message in messages if isinstance(message, BaseChatMessage)]
    content = getattr(messages[-1], "content", None) if messages else ""
    if isinstance(content, BaseModel):
        return Result(content.model_dump(mode="json"), added)
    return Result(content if isinstance(content, str) else str(content), added)


def _neutral(message: BaseChatMessage) -> Message:
    content = message.content  # type: ignore[attr-defined]
    text = content.model_dump_json() if isinstance(content, BaseModel) else str(content)
    return Message("user" if message.source == USER else "assistant", text)


def _is_said(message: Message) -> bool:
    return message.role in ("user", "assistant") and bool(message.content)


def _source(message: Message) -> str:
    return USER if message.role == "user" else "assistant"
