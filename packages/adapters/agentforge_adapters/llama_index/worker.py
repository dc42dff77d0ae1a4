"""LlamaIndex 0.11 and 0.10: a portable agent becomes a `FunctionCallingAgentWorker`, run step by step."""

import json
from dataclasses import dataclass
from typing import Any, List, Union

from llama_index.core.agent import FunctionCallingAgentWorker
from llama_index.core.agent.types import Task, TaskStep
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer

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
)

from . import native
from .events import Steps
from .messages import from_native, to_native
from .model import HostModel, Models, OldModels
from .native import Native
from .schema import as_object, unwrapped
from .tools import answer_tool, check_output, make_tool

__all__ = ["LlamaIndex010Adapter", "LlamaIndex011Adapter"]

_STEPS = 20
"""The limit of later releases. These count tool calls, end at the fifth, and then have no answer."""
_NO_LIMIT = 1_000_000
_FORM = "Put this answer into the form that is asked for.\n\nQuestion: %s\n\nAnswer: %s"


class HostWorker(FunctionCallingAgentWorker):
    """Goes on from a conversation that has no new question too."""

    def initialize_step(self, task: Task, **more: Any) -> TaskStep:
        """Return the first step; without an input it adds no message."""
        step = super().initialize_step(task, **more)
        if task.extra_state.get("continues"):
            step.input = None
        return step


@dataclass(frozen=True)
class Portable:
    """A portable agent."""

    spec: AgentSpec
    model: HostModel
    worker: HostWorker


Opened = Union[Portable, Native]


class LlamaIndex011Adapter(Adapter[Opened]):
    """Builds and runs agents of LlamaIndex 0.11."""

    distribution = "llama-index"
    natives = native.NATIVES

    def __init__(self) -> None:
        self._models = self.models()
        self._steps = Steps()

    def models(self) -> Models:
        """Return what makes models."""
        return Models()

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the native agent."""
        model = self._models.make(spec, ctx)
        worker = HostWorker.from_tools(
            [make_tool(tool, ctx) for tool in spec.tools],
            llm=model,
            system_prompt=spec.prompt or None,
            max_function_calls=_NO_LIMIT,
        )
        return Portable(spec, model, worker)

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
            if isinstance(agent, Native):
                return Result(native.value_of(await native.run(await native.object_of(agent, ctx), request)))
            added = [from_native(message) for message in await _steps(agent, request)]
            if agent.spec.output is None:
                return Result(added[-1].content, added)
            output = await _formed(agent, request, added[-1].content)
        return Result(output, [*added[:-1], Message("assistant", json.dumps(output, ensure_ascii=False))])


class LlamaIndex010Adapter(LlamaIndex011Adapter):
    """Builds and runs agents of LlamaIndex 0.10."""

    def models(self) -> Models:
        """Return what makes models."""
        return OldModels()


async def _steps(agent: Portable, request: Start) -> List[ChatMessage]:
    """Take steps until there is an answer; return the messages that they added."""
    memory = ChatMemoryBuffer.from_defaults(chat_history=to_native(request.messages), llm=agent.model)
    runner = agent.worker.as_agent(memory=memory)
    text = "" if request.continues else request.text
    task = runner.create_task(text, extra_state={"continues": request.continues})
    limit = agent.spec.max_steps or _STEPS
    for _ in range(limit):
        step = await runner.arun_step(task.task_id)
        for output in step.output.sources:
            check_output(output)
        if step.is_last:
            messages: List[ChatMessage] = task.extra_state["new_memory"].get_all()
            return messages if request.continues else messages[1:]
    raise StepLimitReached(limit)


async def _formed(agent: Portable, request: Start, answer: str) -> Any:
    """Ask the model once more, for the answer in the form of the schema."""
    schema = agent.spec.output or {}
    tool = answer_tool(as_object(schema))
    text = _FORM % (request.text if not request.continues else request.messages[-1].content, answer)
    told = await agent.model.apredict_and_call([tool], user_msg=text, tool_choice=tool.metadata.name)
    return unwrapped(schema, told.sources[0].raw_output)
