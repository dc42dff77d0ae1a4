"""Haystack 3: a portable agent becomes an `Agent` over one client; many runs share both."""

import json
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, List, Union

from haystack import tracing
from haystack.components.agents import Agent
from haystack.dataclasses import ChatMessage, ChatRole, StreamingChunk
from haystack.tools import Tool

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Message,
    Result,
    RunContext,
    Source,
    Start,
    StepLimitReached,
    ToolSpec,
)

from . import native
from .messages import from_native, to_native
from .model import Models
from .native import Native
from .output import unwrapped
from .own_tools import record_tools
from .steps import Steps
from .tools import make_tool

__all__ = ["HaystackAdapter"]

_STEPS = 100
"""Haystack's own limit."""


@dataclass(frozen=True)
class Portable:
    """A portable agent."""

    spec: AgentSpec
    native: Agent


Opened = Union[Portable, Native]


class HaystackAdapter(Adapter[Opened]):
    """Builds and runs agents of Haystack."""

    distribution = "haystack-ai"
    natives = native.NATIVES

    options: ClassVar[Dict[str, Any]] = {}
    """What else Haystack is told of a run."""

    def __init__(self) -> None:
        self._models = Models()
        tracing.enable_tracing(Steps(from_native))

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the native agent."""
        native = Agent(
            chat_generator=self._models.make(spec, ctx),
            tools=[self.tool(tool, ctx) for tool in spec.tools],
            raise_on_tool_invocation_failure=True,
            max_agent_steps=spec.max_steps or _STEPS,
        )
        return Portable(spec, native)

    def tool(self, spec: ToolSpec, ctx: BuildContext) -> Tool:
        """Return a native tool."""
        return make_tool(spec, ctx)

    async def load(self, source: Source, ctx: BuildContext) -> Native:
        """Import an agent, a pipeline, a component, or a function that makes one for each run."""
        return native.load(source)

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent, its tools and its model."""
        if isinstance(agent, Native):
            return native.describe(agent)
        spec = agent.spec
        return AgentCard(spec.name, spec.description, [tool.name for tool in spec.tools], [spec.model])

    async def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Run the agent to its end."""
        if isinstance(agent, Native):
            return await self._run_native(await native.object_of(agent, ctx), request)
        given = [ChatMessage.from_system(agent.spec.prompt)] if agent.spec.prompt else []
        given += to_native(request.messages)
        if not request.continues:
            given.append(ChatMessage.from_user(request.text))
        reader = _read if request.stream else None
        end = await agent.native.run_async(messages=given, streaming_callback=reader, **self.options)
        return _result(agent.spec, end["messages"][len(given) :])

    async def _run_native(self, found: Any, request: Start) -> Result:
        record_tools(found)
        if not isinstance(found, Agent):
            return Result(native.value_of(await native.run_pipeline(found, native.input_of(request))))
        given = [*to_native(request.messages), ChatMessage.from_user(request.text)]
        reader = found.streaming_callback or (_read if request.stream else None)
        end = await found.run_async(messages=given, streaming_callback=reader)
        return Result(native.value_of(end["messages"][-1]))


async def _read(chunk: StreamingChunk) -> None:
    """Take a token: a run with a reader for them streams its model requests."""


def _result(spec: AgentSpec, added: List[ChatMessage]) -> Result:
    last = added[-1]
    if not last.is_from(ChatRole.ASSISTANT) or last.tool_calls:
        raise StepLimitReached(spec.max_steps or _STEPS)
    messages = [neutral for message in added for neutral in from_native(message)]
    text = last.text or ""
    if spec.output is None:
        return Result(text, messages)
    output = unwrapped(spec.output, text)
    return Result(output, [*messages[:-1], Message("assistant", json.dumps(output, ensure_ascii=False))])
