"""LangChain 1.x: a portable agent becomes `create_agent` over one `ChatOpenAI`; native agents are runnables."""

import json
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, List, Optional
from uuid import UUID

from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langgraph.graph.state import CompiledStateGraph

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
    StepScope,
    ToolSpec,
)

from .own_tools import record_tools

__all__ = ["LangChainAdapter"]

OUTPUT_TOOL = "answer"
"""Title of an output schema that has none: LangChain would make up a random one, and requests must repeat."""


@dataclass(frozen=True)
class Agent:
    """A runnable, and the portable agent it was made from."""

    runnable: "Runnable[Any, Any]"
    spec: Optional[AgentSpec] = None


class LangChainAdapter(Adapter[Agent]):
    """Runs agents of LangChain 1.x."""

    distribution = "langchain"

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Agent:
        """Make the agent graph."""
        graph = create_agent(
            _model(spec, ctx),
            [_tool(tool, ctx) for tool in spec.tools],
            system_prompt=spec.prompt or None,
            response_format={"title": OUTPUT_TOOL, **spec.output} if spec.output else None,
        )
        return Agent(graph, spec)

    def load(self, source: Source, ctx: BuildContext) -> Agent:
        """Import the user's runnable (a graph, a chain, an agent)."""
        runnable: Runnable[Any, Any] = super().load(source, ctx)  # type: ignore[assignment]
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
        given: List[AnyMessage] = [_to_langchain(message) for message in request.messages]
        if not request.continues:
            given.append(HumanMessage(request.text))
        start: Any = {"messages": given}
        if agent.spec is None and not (_is_graph(agent) and isinstance(request.input, str)):
            start = request.input
        config = _config(agent.spec, ctx)
        if request.stream and _is_graph(agent):
            end = await _last_value(agent.runnable.astream(start, config, stream_mode=["values", "messages"]))
        else:
            end = await agent.runnable.ainvoke(start, config)
        return _result(end, len(given), agent.spec)


class Steps(AsyncCallbackHandler):
    """Tells the host of model steps, tool steps and the model's messages of one run."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._open: Dict[UUID, StepScope] = {}

    async def on_chat_model_start(self, serialized: Any, messages: Any, *, run_id: UUID, **rest: Any) -> None:
        """Start a model step."""
        self._start(run_id, "model", "model")

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **rest: Any) -> None:
        """Finish a model step."""
        self._finish(run_id)
        message = getattr(response.generations[0][0], "message", None)
        if message is not None:
            self._ctx.emit("message.added", vars(_from_langchain(message)))

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **rest: Any) -> None:
        """Finish a model step that failed."""
        self._finish(run_id, error)

    async def on_tool_start(self, serialized: Any, input_str: str, *, run_id: UUID, **rest: Any) -> None:
        """Start a tool step."""
        self._start(run_id, str((serialized or {}).get("name", "tool")), "tool")

    async def on_tool_end(self, output: Any, *, run_id: UUID, **rest: Any) -> None:
        """Finish a tool step."""
        self._finish(run_id)

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **rest: Any) -> None:
        """Finish a tool step that failed."""
        self._finish(run_id, error)

    def _start(self, run_id: UUID, name: str, kind: str) -> None:
        self._open[run_id] = self._ctx.step(name, kind=kind)
        self._open[run_id].__enter__()

    def _finish(self, run_id: UUID, error: Optional[BaseException] = None) -> None:
        step = self._open.pop(run_id, None)
        if step is not None:
            step.__exit__(type(error) if error else None, error, None)


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


def _config(spec: Optional[AgentSpec], ctx: RunContext) -> RunnableConfig:
    config: RunnableConfig = {"callbacks": [Steps(ctx)]}
    if spec is not None:
        # A step is one round: the model and the tools it asks for, two nodes of the graph.
        limit = spec.framework_settings.get("recursion_limit") or 2 * (spec.max_steps or 0)
        if limit:
            config["recursion_limit"] = limit
    return config


async def _last_value(states: AsyncIterator[Any]) -> Any:
    last = None
    async for mode, value in states:
        if mode == "values":
            last = value
    return last


def _result(end: Any, given: int, spec: Optional[AgentSpec]) -> Result:
    if isinstance(end, BaseMessage):
        return Result(str(end.text), [_from_langchain(end)])
    messages = end.get("messages") if isinstance(end, dict) else None
    if not messages:
        return Result(end)
    added = [_from_langchain(message) for message in messages[given:]]
    if spec is None or spec.output is None:
        return Result(str(messages[-1].text), added)
    output = end["structured_response"]
    added = _without_output_tool(added, spec)
    if not added or added[-1].role != "assistant":
        added.append(Message("assistant", json.dumps(output, ensure_ascii=False)))
    return Result(output, added)


def _without_output_tool(messages: List[Message], spec: AgentSpec) -> List[Message]:
    """Leave out how LangChain asked for the structured answer: no other framework could go on from that."""
    tools = {tool.name for tool in spec.tools}
    asked = {call["id"] for m in messages for call in m.tool_calls if call["name"] not in tools}
    return [
        m for m in messages if m.tool_call_id not in asked and not any(call["id"] in asked for call in m.tool_calls)
    ]


def _to_langchain(message: Message) -> AnyMessage:
    if message.role == "assistant":
        calls = [{"id": c["id"], "name": c["name"], "args": c["arguments"]} for c in message.tool_calls]
        return AIMessage(message.content, tool_calls=calls)
    if message.role == "tool":
        return ToolMessage(message.content, tool_call_id=message.tool_call_id or "")
    return SystemMessage(message.content) if message.role == "system" else HumanMessage(message.content)


def _from_langchain(message: BaseMessage) -> Message:
    roles = {"ai": "assistant", "human": "user"}
    calls = [
        {"id": call["id"], "name": call["name"], "arguments": call["args"]}
        for call in getattr(message, "tool_calls", [])
    ]
    role = roles.get(message.type, message.type)
    return Message(role, str(message.text), calls, getattr(message, "tool_call_id", None))
