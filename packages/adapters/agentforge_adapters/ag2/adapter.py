"""AG2 1.x: a portable agent becomes one `Agent`; each run has a stream of its own."""

import json
from dataclasses import fields
from typing import Any, Dict, Optional

from ag2 import Agent, MemoryStream
from ag2.config import OpenAIConfig
from ag2.events import HumanInputRequest
from ag2.response import ResponseSchema
from openai import DefaultAsyncHttpxClient

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Natives,
    Result,
    RunContext,
    Start,
    current_run,
)

from .messages import from_native, to_native
from .steps import Steps
from .tools import HostTool

__all__ = ["AG2Adapter"]

_WRAPPED = "response"
"""The only property of the object that carries an output which is none itself."""

Json = Any
Native = Agent[Any]


class RunConfig(OpenAIConfig):
    """A model's configuration that makes its client once: AG2 makes one for each turn."""

    __slots__ = ("_client", "_streamed")

    def create(self) -> Any:
        """Return the client."""
        if not hasattr(self, "_client"):
            self._client = OpenAIConfig.create(self)
        return self._client

    def streamed(self) -> "RunConfig":
        """Return the same configuration for runs that are watched."""
        if not hasattr(self, "_streamed"):
            self._streamed: RunConfig = self.copy(streaming=True)
        return self._streamed


class AG2Adapter(Adapter[Native]):
    """Builds and runs AG2 agents."""

    distribution = "ag2"
    natives = Natives("an agent of AG2", lambda found: isinstance(found, Agent))

    def __init__(self) -> None:
        self._http: Any = None

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Native:
        """Make the agent."""
        if self._http is None:
            self._http = DefaultAsyncHttpxClient(event_hooks={"request": [_set_key]})
        config = RunConfig(
            spec.model,
            api_key="the run's",
            base_url=ctx.gateway.base_url,
            http_client=self._http,
            **_settings(spec),
        )
        return Agent(
            spec.name,
            spec.prompt,
            config=config,
            tools=[HostTool(tool, ctx) for tool in spec.tools],
            response_schema=ResponseSchema.from_schema(_as_object(spec.output), name=_title(spec.output))
            if spec.output
            else None,
        )

    def describe(self, agent: Native) -> AgentCard:
        """Name the agent, its tools and its model."""
        model = getattr(agent.config, "model", None)
        return AgentCard(agent.name, "", [tool.name for tool in agent.tools], [model] if model else [])

    async def run(self, agent: Native, request: Start, ctx: RunContext) -> Result:
        """Run one turn of the agent, to its answer."""
        prompts, thread = to_native(request.messages)
        stream = MemoryStream()
        options: Dict[str, Any] = {
            "stream": stream,
            "config": _streamed(agent.config) if request.stream else None,
            "middleware": [lambda event, context: Steps(event, context, ctx, agent.serializer)],
        }
        if prompts:
            options["prompt"] = [*agent.system_prompt, *prompts]
        if ctx.spec is None and not agent.has_hitl_hook:
            options["hitl_hook"] = _ask
        if request.continues:
            reply = await agent.resume(*thread, **options)
        else:
            await stream.history.replace(thread)
            reply = await agent.ask(request.text, **options)
        given = len(thread) + (0 if request.continues else 1)
        added = from_native(list(await stream.history.get_events())[given:], agent.serializer)
        if ctx.spec is not None:
            return Result(_output(reply.body or "", ctx.spec), added)
        value = await reply.content()
        return Result(value.model_dump(mode="json") if hasattr(value, "model_dump") else value, added)


async def _set_key(request: Any) -> None:
    request.headers["Authorization"] = "Bearer " + current_run().token


def _streamed(config: Any) -> Optional[OpenAIConfig]:
    """Return an agent's configuration for a run that is watched; None: as it is."""
    if isinstance(config, RunConfig):
        return config.streamed()
    return config.copy(streaming=True) if isinstance(config, OpenAIConfig) else None


async def _ask(event: HumanInputRequest) -> str:
    return str(await current_run().ask(event.content))


def _settings(spec: AgentSpec) -> Dict[str, Json]:
    known = {field.name for field in fields(OpenAIConfig)}
    settings = {name: value for name, value in spec.settings.items() if name in known}
    rest = {name: value for name, value in spec.settings.items() if name not in known}
    return {**settings, **({"extra_body": rest} if rest else {})}


def _as_object(schema: Dict[str, Json]) -> Dict[str, Json]:
    if schema.get("type") == "object":
        return schema
    inner = dict(schema)
    outer: Dict[str, Json] = {"type": "object", "properties": {_WRAPPED: inner}, "required": [_WRAPPED]}
    if "$defs" in inner:  # references to them start at the root
        outer["$defs"] = inner.pop("$defs")
    return outer


def _title(schema: Dict[str, Json]) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in schema.get("title", "answer"))


def _output(text: str, spec: AgentSpec) -> Json:
    if spec.output is None:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text  # the host says what is wrong with it
    if spec.output.get("type") == "object" or not isinstance(value, dict):
        return value
    return value.get(_WRAPPED, value)
