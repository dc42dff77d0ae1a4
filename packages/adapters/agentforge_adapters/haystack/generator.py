"""Haystack 2.0: a portable agent becomes a `Pipeline` of one chat generator; there is no tool loop."""

import json
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Union

from haystack import Pipeline, tracing
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk
from haystack.utils import Secret
from openai import OpenAI

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    EffectFailed,
    Message,
    Result,
    RunContext,
    Source,
    Start,
)

from . import native
from .loop_client import loop_client
from .native import Native
from .output import response_format, unwrapped
from .steps import Steps

__all__ = ["Haystack20Adapter"]

_LLM = "llm"
_FROM = {"assistant": ChatMessage.from_assistant, "system": ChatMessage.from_system, "user": ChatMessage.from_user}


@dataclass(frozen=True)
class Portable:
    """What the runs of a portable agent share. A pipeline holds the state of a run: each run under way has its own."""

    spec: AgentSpec
    client: OpenAI
    idle: List[Pipeline] = field(default_factory=list)

    def make(self) -> Pipeline:
        """Return another pipeline."""
        spec = self.spec
        kwargs: Dict[str, Any] = dict(spec.settings)
        if spec.output is not None:
            kwargs["response_format"] = response_format(spec.output)
        model = OpenAIChatGenerator(model=spec.model, api_key=Secret.from_token("the run's"), generation_kwargs=kwargs)
        model.client = self.client
        pipeline = Pipeline()
        pipeline.add_component(_LLM, model)
        return pipeline


Opened = Union[Portable, Native]


class Haystack20Adapter(Adapter[Opened]):
    """Builds and runs pipelines of Haystack 2.0."""

    distribution = "haystack-ai"
    natives = native.NATIVES

    def __init__(self) -> None:
        self._client: Optional[OpenAI] = None
        tracing.enable_tracing(Steps(_from_native))

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make what the agent's pipelines have in common. Refuses an agent with tools."""
        if spec.tools:
            text = "`%s` has tools, and Haystack 2.0 has no agent that calls them" % spec.name
            hint = "Take a release with agents, for example `--on haystack@2.31`, or leave the tools out."
            raise EffectFailed("AF420", text, hint, "framework")
        if self._client is None:
            self._client = loop_client(ctx.gateway.base_url)
        return Portable(spec, self._client)

    async def load(self, source: Source, ctx: BuildContext) -> Native:
        """Import a pipeline, or a function that makes one for each run."""
        return native.load(source)

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent and its model."""
        if isinstance(agent, Native):
            return native.describe(agent)
        return AgentCard(agent.spec.name, agent.spec.description, [], [agent.spec.model])

    def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Run a pipeline; called in a thread."""
        if isinstance(agent, Native):
            return Result(native.value_of(native.object_in_thread(agent, ctx).run(native.input_of(request))))
        pipeline = agent.idle.pop() if agent.idle else agent.make()
        pipeline.get_component(_LLM).streaming_callback = _read if request.stream else None
        end = pipeline.run({_LLM: {"messages": _messages(agent.spec, request, ctx)}})
        agent.idle.append(pipeline)
        text = end[_LLM]["replies"][0].content
        if agent.spec.output is None:
            return Result(text, [Message("assistant", text)])
        output = unwrapped(agent.spec.output, text)
        return Result(output, [Message("assistant", json.dumps(output, ensure_ascii=False))])


def _messages(spec: AgentSpec, request: Start, ctx: RunContext) -> List[ChatMessage]:
    messages = [ChatMessage.from_system(spec.prompt)] if spec.prompt else []
    told = [message for message in request.messages if message.role in _FROM and not message.tool_calls]
    if len(told) < len(request.messages):
        ctx.warn("the tool calls of the conversation so far are left out: Haystack 2.0 has no messages for them")
    messages += [_FROM[message.role](message.content) for message in told]
    return messages if request.continues else [*messages, ChatMessage.from_user(request.text)]


def _from_native(message: ChatMessage) -> List[Message]:
    return [Message(message.role.value, message.content)]


def _read(chunk: StreamingChunk) -> None:
    """Take a token: a generator with a reader for them streams its requests."""
