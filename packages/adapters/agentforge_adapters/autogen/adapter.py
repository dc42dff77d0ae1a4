"""AutoGen AgentChat (0.4 and later): a portable agent becomes an `AssistantAgent` for each run, over one client."""

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Union

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import TextMessage, ToolCallSummaryMessage
from autogen_core import CancellationToken
from autogen_core.model_context import UnboundedChatCompletionContext
from openai import AsyncOpenAI

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Result,
    RunContext,
    Source,
    Start,
    StepLimitReached,
)

from . import native
from .client import RunClient
from .failing import failures, raise_failure
from .messages import USER, from_native, to_native
from .requests import create_args, openai_client
from .schemas import WRAPPED, output_form
from .tools import HostTool

__all__ = ["AutoGenAdapter", "Portable", "rounds"]

_ROUNDS = 50
"""Rounds of model and tools where nothing is said of them. AutoGen's own default is one, which is no loop."""


@dataclass(frozen=True)
class Portable:
    """What the runs of a portable agent share. An `AssistantAgent` holds a conversation: each run has its own."""

    spec: AgentSpec
    client: RunClient
    tools: List[HostTool]
    options: Dict[str, Any]
    """What its agents are made with besides."""

    @property
    def name(self) -> str:
        """AutoGen wants an identifier."""
        return re.sub(r"\W|^(?=\d)", "_", self.spec.name)


Opened = Union[Portable, native.Native]


class AutoGenAdapter(Adapter[Opened]):
    """Runs agents of AutoGen 0.7, whose agents go on until they have an answer."""

    distribution = "autogen-agentchat"
    natives = native.NATIVES

    def __init__(self) -> None:
        self._client: Optional[AsyncOpenAI] = None
        self._tokens: Dict[RunContext, CancellationToken] = {}

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the client and the tools."""
        if self._client is None:
            self._client = openai_client(ctx.gateway.base_url)
        client = RunClient(self._client, {**create_args(spec), **self._arguments(spec)})
        tools = [HostTool(tool, ctx, strict=spec.output is not None) for tool in spec.tools]
        return Portable(spec, client, tools, self._options(spec))

    async def load(self, source: Source, ctx: BuildContext) -> native.Native:
        """Import a native team or agent. A function that makes one is called for each run, not here."""
        return native.load(source)

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent, its tools and its model."""
        if not isinstance(agent, Portable):
            return native.describe(agent)
        spec = agent.spec
        return AgentCard(spec.name, spec.description, [tool.name for tool in agent.tools], [spec.model])

    async def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Run the agent to its end."""
        token = self._tokens[ctx] = CancellationToken()
        try:
            if isinstance(agent, Portable):
                return await self._run_portable(agent, request, ctx, token)
            return await native.run(agent, request, ctx, token)
        finally:
            del self._tokens[ctx]
            token.cancel()  # what the framework has left behind

    def cancel(self, agent: Opened, ctx: RunContext) -> None:
        """Tell the framework too: it waits for its own tasks."""
        if ctx in self._tokens:
            self._tokens[ctx].cancel()

    async def _run_portable(self, agent: Portable, request: Start, ctx: RunContext, token: CancellationToken) -> Result:
        failures.set([])
        thread = to_native(request.messages, agent.name)
        context = UnboundedChatCompletionContext(initial_messages=list(thread))
        assistant = AssistantAgent(
            agent.name,
            agent.client,
            tools=[*agent.tools],
            model_context=context,
            description=agent.spec.description or agent.name,
            system_message=agent.spec.prompt or None,
            model_client_stream=request.stream,
            **agent.options,
        )
        task = None if request.continues else TextMessage(content=request.text, source=USER)
        done = await self._until_answered(agent, assistant, task, token)
        raise_failure()
        if isinstance(done.messages[-1], ToolCallSummaryMessage):
            raise StepLimitReached(rounds(agent.spec))
        given = len(thread) + (0 if request.continues else 1)
        added = from_native((await context.get_messages())[given:])
        return Result(_output(added[-1].content, agent.spec), added)

    # ---- what differs between releases

    def _arguments(self, spec: AgentSpec) -> Dict[str, Any]:
        """Return what more each model request is made with."""
        return {}

    def _options(self, spec: AgentSpec) -> Dict[str, Any]:
        """Return what more an agent is made with."""
        form = output_form(spec.output) if spec.output else None
        return {"output_content_type": form, "reflect_on_tool_use": False, "max_tool_iterations": rounds(spec)}

    async def _until_answered(
        self, agent: Portable, assistant: AssistantAgent, task: Any, token: CancellationToken
    ) -> TaskResult:
        return await assistant.run(task=task, cancellation_token=token)


def rounds(spec: AgentSpec) -> int:
    """Return how many rounds of the model and the tools that it asks for there may be."""
    return int(spec.framework_settings.get("max_tool_iterations") or spec.max_steps or _ROUNDS)


def _output(text: str, spec: AgentSpec) -> Any:
    if spec.output is None:
        return text
    value = json.loads(text)
    return value if spec.output.get("type") == "object" else value[WRAPPED]
