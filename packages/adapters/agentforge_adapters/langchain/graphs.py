"""Agents that are LangGraph graphs: portable ones made by a function of the framework, native ones of any make.

For LangChain from 1.0 and for LangGraph; what makes the graph of a portable agent is the subclass's.
"""

import json
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, AsyncIterator, List, Optional

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

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
    ToolSpec,
)

from .graph_tools import record_tools
from .messages import from_langchain, text_of, to_langchain
from .steps import Steps

__all__ = ["GraphAdapter"]

OUTPUT_NAME = "answer"
"""Title of an output schema that has none: LangChain would make up a random one, and requests must repeat."""

_INTERRUPT = "__interrupt__"
"""Key of a graph's result where it wants an answer first."""


@dataclass(frozen=True)
class Agent:
    """A runnable, and the portable agent it was made from."""

    runnable: "Runnable[Any, Any]"
    spec: Optional[AgentSpec] = None


class GraphAdapter(Adapter[Agent]):
    """Runs graphs and other runnables."""

    natives = Natives("a graph or another runnable of LangChain", lambda found: isinstance(found, Runnable))

    @abstractmethod
    def graph(self, spec: AgentSpec, model: ChatOpenAI, tools: List[StructuredTool], output: Any) -> Any:
        """Return the graph of a portable agent; `output` is its output schema with a title, None without one."""

    def check(self, spec: AgentSpec, messages: List[Message], steps: Steps) -> None:
        """Raise an exception if what a portable agent ended with is no answer."""

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Agent:
        """Make the agent graph."""
        output = {"title": OUTPUT_NAME, **spec.output} if spec.output else None
        return Agent(self.graph(spec, _model(spec, ctx), [_tool(tool, ctx) for tool in spec.tools], output), spec)

    async def load(self, source: Source, ctx: BuildContext) -> Agent:
        """Import the user's runnable (a graph, a chain, an agent)."""
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
        """Run the graph to its end."""
        given: List[BaseMessage] = [to_langchain(message) for message in request.messages]
        if not request.continues:
            given.append(HumanMessage(request.text))
        start: Any = {"messages": given}
        if agent.spec is None and not (_is_graph(agent) and isinstance(request.input, str)):
            start = request.input
        steps = Steps(ctx)
        config = _config(agent.spec, steps, ctx)
        end = await _end(agent, start, config, request.stream)
        while isinstance(end, dict) and end.get(_INTERRUPT):
            answers = {each.id: await ctx.ask(_question(each.value)) for each in end[_INTERRUPT]}
            end = await _end(agent, Command(resume=answers), config, request.stream)
        result = _result(end, len(given), agent.spec)
        if agent.spec is not None:
            self.check(agent.spec, result.messages, steps)
        return result


def _model(spec: AgentSpec, ctx: BuildContext) -> ChatOpenAI:
    async def token() -> str:
        return ctx.gateway.token  # asked for by the client before each request: the token of the run that sends it

    known = {name: value for name, value in spec.settings.items() if name in ChatOpenAI.model_fields}
    other = {name: value for name, value in spec.settings.items() if name not in known}
    return ChatOpenAI(model=spec.model, base_url=ctx.gateway.base_url, api_key=token, model_kwargs=other, **known)


def _tool(tool: ToolSpec, ctx: BuildContext) -> StructuredTool:
    async def call(**arguments: Any) -> Any:
        return await ctx.call_tool(tool.name, arguments)

    return StructuredTool(name=tool.name, description=tool.description, args_schema=tool.parameters, coroutine=call)


def _is_graph(agent: Agent) -> bool:
    return isinstance(agent.runnable, CompiledStateGraph)


async def _end(agent: Agent, start: Any, config: RunnableConfig, stream: bool) -> Any:
    if stream and _is_graph(agent):
        return await _last_value(agent.runnable.astream(start, config, stream_mode=["values", "messages"]))
    return await agent.runnable.ainvoke(start, config)


def _question(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _config(spec: Optional[AgentSpec], steps: Steps, ctx: RunContext) -> RunnableConfig:
    config: RunnableConfig = {"callbacks": [steps]}
    if spec is None:
        # For a checkpointer of the graph's own. Each attempt begins anew: the journal knows what happened before.
        config["configurable"] = {"thread_id": "%s-%d" % (ctx.run_id, ctx.attempt)}
    else:
        # A step is one round: the model and the tools it asks for, two nodes of the graph.
        limit = spec.framework_settings.get("recursion_limit") or 2 * (spec.max_steps or 0)
        if limit:
            config["recursion_limit"] = limit
    return config


async def _last_value(states: AsyncIterator[Any]) -> Any:
    last: Any = None
    async for mode, value in states:
        if mode == "values":
            # An interrupt comes as a value of its own, after that of the step that raised it.
            last = {**last, **value} if isinstance(last, dict) and _INTERRUPT in value else value
    return last


def _result(end: Any, given: int, spec: Optional[AgentSpec]) -> Result:
    if isinstance(end, BaseMessage):
        return Result(text_of(end), [from_langchain(end)])
    messages = end.get("messages") if isinstance(end, dict) else None
    if not messages:
        return Result(end)
    added = [from_langchain(message) for message in messages[given:]]
    if spec is None or spec.output is None:
        return Result(text_of(messages[-1]), added)
    output = end["structured_response"]
    added = _without_output_tool(added, spec)
    if not added or not _says(added[-1], output):
        added.append(Message("assistant", json.dumps(output, ensure_ascii=False)))
    return Result(output, added)


def _says(message: Message, output: Any) -> bool:
    if message.role != "assistant":
        return False
    try:
        return bool(json.loads(message.content) == output)
    except ValueError:
        return False


def _without_output_tool(messages: List[Message], spec: AgentSpec) -> List[Message]:
    """Leave out how LangChain asked for the structured answer: no other framework could go on from that."""
    tools = {tool.name for tool in spec.tools}
    asked = {call["id"] for m in messages for call in m.tool_calls if call["name"] not in tools}
    return [
        m for m in messages if m.tool_call_id not in asked and not any(call["id"] in asked for call in m.tool_calls)
    ]
