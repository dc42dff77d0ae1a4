"""LangChain before 1.0: a portable agent becomes an `AgentExecutor`; native agents are executors and other runnables.

What the releases have in common. Their chat models, and how these are made to stream, are in `tool_calling` (0.1 to
0.3) and `openai_tools` (0.0).
"""

import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Union

from langchain.agents import AgentExecutor
from langchain.agents.agent import RunnableMultiActionAgent
from langchain.agents.format_scratchpad.openai_tools import format_to_openai_tool_messages
from langchain.agents.output_parsers.openai_tools import OpenAIToolsAgentOutputParser
from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers.json import JsonOutputParser
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Message,
    Natives,
    Result,
    RunContext,
    Source,
    Start,
    StepLimitReached,
    ToolSpec,
)

from .executor_tools import record_tools
from .messages import from_langchain, text_of, to_langchain
from .steps import Steps

__all__ = ["ExecutorAdapter"]

OUTPUT_TOOL = "answer"
"""The tool by which a model answers an agent that has an output schema."""

Plan = Union[List[AgentAction], AgentFinish]


@dataclass(frozen=True)
class Agent:
    """A runnable, and the portable agent it was made from."""

    runnable: "Runnable[Any, Any]"
    spec: Optional[AgentSpec] = None
    streaming: "Optional[Runnable[Any, Any]]" = None
    """The same executor, but its model requests stream."""


class ExecutorAdapter(Adapter[Agent]):
    """Runs agents of LangChain before 1.0."""

    distribution = "langchain"
    natives = Natives("an executor or another runnable of LangChain", lambda found: isinstance(found, Runnable))

    @abstractmethod
    def models(self, spec: AgentSpec, ctx: BuildContext) -> Tuple[BaseChatModel, BaseChatModel]:
        """Return the chat model for plain runs and the one for streamed ones."""

    def planner(self, runnable: "Runnable[Any, Plan]", streams: bool) -> RunnableMultiActionAgent:
        """Return what the executor asks for its next actions."""
        return RunnableMultiActionAgent(runnable=runnable)

    def to_langchain(self, message: Message) -> BaseMessage:
        """Return a message as this release has it."""
        return to_langchain(message)

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Agent:
        """Make the agent's executors."""
        tools: List[BaseTool] = [_HostTool(tool, ctx) for tool in spec.tools]
        plain, streaming = self.models(spec, ctx)

        def executor(model: BaseChatModel, streams: bool) -> AgentExecutor:
            planner = self.planner(_plan(spec, model), streams)
            made = AgentExecutor(agent=planner, tools=tools, return_intermediate_steps=True)
            made.max_iterations = spec.framework_settings.get("max_iterations") or spec.max_steps or made.max_iterations
            return made

        return Agent(executor(plain, False), spec, executor(streaming, True))

    async def load(self, source: Source, ctx: BuildContext) -> Agent:
        """Import the user's runnable (an executor, a chain, a model)."""
        runnable: Runnable[Any, Any] = await super().load(source, ctx)  # type: ignore[assignment]
        for name in record_tools(runnable):
            ctx.warn("the calls of the tool `%s` are not recorded: only those of functions are" % name)
        return Agent(runnable)

    def describe(self, agent: Agent) -> AgentCard:
        """Name the agent, its tools and its model."""
        spec = agent.spec
        if spec is None:
            return AgentCard(agent.runnable.get_name(), details={"class": type(agent.runnable).__name__})
        return AgentCard(spec.name, spec.description, [tool.name for tool in spec.tools], [spec.model])

    async def run(self, agent: Agent, request: Start, ctx: RunContext) -> Result:
        """Run the executor to its end."""
        config: RunnableConfig = {"callbacks": [Steps(ctx)]}
        messages = [self.to_langchain(message) for message in request.messages]
        if agent.spec is None:
            return _native_result(await agent.runnable.ainvoke(_native_input(agent, request, messages), config))
        if not request.continues:
            messages.append(HumanMessage(content=request.text))
        executor: Any = agent.streaming if request.stream else agent.runnable
        end = await executor.ainvoke({"messages": messages}, config)
        steps = end["intermediate_steps"]
        # It stops with a sentence of its own then, as if that were the answer.
        if len({id(action.message_log[0]) for action, _ in steps}) == executor.max_iterations:
            raise StepLimitReached(executor.max_iterations)
        output = end["output"]
        answer = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
        added = [from_langchain(message) for message in format_to_openai_tool_messages(steps)]
        return Result(output, [*added, Message("assistant", answer)])


class _HostTool(BaseTool):
    """A declared tool. It has no schema of its own: the model is told the declared one."""

    ctx: Any

    def __init__(self, tool: ToolSpec, ctx: BuildContext) -> None:
        super().__init__(name=tool.name, description=tool.description, ctx=ctx)

    def _run(self, *args: Any, **arguments: Any) -> Any:
        raise NotImplementedError("called on the loop only")

    async def _arun(self, /, **arguments: Any) -> Any:  # type: ignore[override]
        return await self.ctx.call_tool(self.name, arguments)


def _plan(spec: AgentSpec, model: BaseChatModel) -> "Runnable[Any, Plan]":
    """Return what LangChain's `create_tool_calling_agent` is made of, its tools given as they go over the wire."""

    async def prompt(given: Any) -> List[BaseMessage]:
        system = [SystemMessage(content=spec.prompt)] if spec.prompt else []
        return [*system, *given["messages"], *format_to_openai_tool_messages(given["intermediate_steps"])]

    tools = [_on_the_wire(tool.name, tool.description, tool.parameters) for tool in spec.tools]
    bound: Dict[str, Any] = {"tools": tools} if tools else {}
    if spec.output is not None:
        output = _on_the_wire(OUTPUT_TOOL, spec.output.get("description", "The answer."), spec.output)
        bound = {"tools": [*tools, output], "tool_choice": "required"}
    planned = RunnableLambda(prompt) | model.bind(**bound) | OpenAIToolsAgentOutputParser()
    return planned if spec.output is None else planned | RunnableLambda(_answered)


def _on_the_wire(name: str, description: str, parameters: Dict[str, Any]) -> Dict[str, Any]:
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


async def _answered(plan: Plan) -> Plan:
    """Let a call of the output tool be the end, as LangChain's guide to structured answers of agents has it."""
    if isinstance(plan, AgentFinish):  # some models answer in text whatever they are told
        return AgentFinish({"output": JsonOutputParser().parse(plan.return_values["output"])}, plan.log)
    for action in plan:
        if action.tool == OUTPUT_TOOL:
            return AgentFinish({"output": action.tool_input}, action.log)
    return plan


def _native_input(agent: Agent, request: Start, messages: List[BaseMessage]) -> Any:
    if isinstance(agent.runnable, AgentExecutor) and isinstance(request.input, str):
        return {"input": request.input, "chat_history": messages}
    return request.input


def _native_result(end: Any) -> Result:
    if isinstance(end, BaseMessage):
        return Result(text_of(end), [from_langchain(end)])
    return Result(end["output"] if isinstance(end, dict) and "output" in end else end)
