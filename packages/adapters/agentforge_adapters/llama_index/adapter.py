"""LlamaIndex 0.12 and later: a portable agent becomes a `FunctionAgent`; native agents are workflows and engines."""

import json
from dataclasses import dataclass
from typing import List, Union

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import BaseMemory, ChatMemoryBuffer
from llama_index.core.workflow import Context

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
)

from . import native
from .events import Steps
from .messages import from_native, to_native
from .model import HostModel, Models
from .native import Native
from .output import output_class
from .own_tools import record_tools
from .schema import unwrapped
from .tools import check_output, make_tool

__all__ = ["LlamaIndexAdapter"]


class HostAgent(FunctionAgent):
    """Ends when a tool failed: LlamaIndex tells the model of whatever a tool raises."""

    async def handle_tool_call_results(self, ctx: Context, results: List[ToolCallResult], memory: BaseMemory) -> None:
        """Take the results of the tools that the model asked for."""
        for result in results:
            check_output(result.tool_output)
        await super().handle_tool_call_results(ctx, results, memory)


@dataclass(frozen=True)
class Portable:
    """A portable agent in two forms: whether its requests stream is a property of LlamaIndex's agents."""

    spec: AgentSpec
    model: HostModel
    plain: FunctionAgent
    streaming: FunctionAgent


Opened = Union[Portable, Native]


class LlamaIndexAdapter(Adapter[Opened]):
    """Builds and runs agents of LlamaIndex."""

    distribution = "llama-index"
    natives = native.NATIVES

    def __init__(self) -> None:
        self._models = Models()
        self._steps = Steps()

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the native agent."""
        model = self._models.make(spec, ctx)
        plain, streaming = (
            HostAgent(
                name=spec.name,
                description=spec.description or "",
                system_prompt=spec.prompt or None,
                tools=[make_tool(tool, ctx) for tool in spec.tools],
                llm=model,
                output_cls=output_class(spec.output),
                streaming=streams,
            )
            for streams in (False, True)
        )
        return Portable(spec, model, plain, streaming)

    async def load(self, source: Source, ctx: BuildContext) -> Native:
        """Import a workflow, an agent, an engine, or a function that makes one for each run."""
        return native.load(source, ctx)

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent, its tools and its model."""
        if isinstance(agent, Native):
            return native.describe(agent)
        spec = agent.spec
        return AgentCard(spec.name, spec.description, [tool.name for tool in spec.tools], [spec.model])

    async def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Run the agent to its end."""
        with self._steps.of(ctx):
            if isinstance(agent, Portable):
                return await _run_portable(agent, request)
            found = await native.object_of(agent, ctx)
            record_tools(found, ctx.warn)
            return Result(native.value_of(await native.run(found, request)))


async def _run_portable(agent: Portable, request: Start) -> Result:
    form = agent.streaming if request.stream else agent.plain
    memory = ChatMemoryBuffer.from_defaults(llm=agent.model)
    handler = form.run(
        user_msg=None if request.continues else ChatMessage(role="user", content=request.text),
        chat_history=to_native(request.messages),
        memory=memory,
        max_iterations=agent.spec.max_steps,
    )
    end = await native.end_of(handler)
    first = len(request.messages) + (0 if request.continues else 1)
    added = [from_native(message) for message in memory.get_all()[first:]]
    schema = agent.spec.output
    if schema is None:
        return Result(end.response.content or "", added)
    output = unwrapped(schema, end.structured_response)
    return Result(output, [*added[:-1], Message("assistant", json.dumps(output, ensure_ascii=False))])
