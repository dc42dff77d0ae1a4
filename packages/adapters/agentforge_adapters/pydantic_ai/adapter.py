"""pydantic-ai 2.x: a portable agent becomes one `Agent` with one client; many runs share both."""

from typing import Any, AsyncIterable, Awaitable, Callable, Dict, Optional

from openai import AsyncOpenAI
from pydantic_ai import Agent, Tool, UsageLimits
from pydantic_ai.agent import AbstractAgent
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings, OpenAIResponsesModel
from pydantic_ai.profiles.openai import SAMPLING_PARAMS
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.toolsets import FunctionToolset
from pydantic_core import to_jsonable_python

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Natives,
    Result,
    RunContext,
    Start,
    ToolSpec,
)

from .messages import from_native, to_native
from .output import output_type, unwrapped
from .own_tools import call_once

__all__ = ["PydanticAIAdapter"]

_NAMES = {
    "temperature": "temperature",
    "max_tokens": "max_tokens",
    "top_p": "top_p",
    "stop": "stop_sequences",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
    "logprobs": "openai_logprobs",
    "top_logprobs": "openai_top_logprobs",
    "reasoning_effort": "openai_reasoning_effort",
}
"""pydantic-ai's names of settings. Others have none and reach the wire as they are."""


class PydanticAIAdapter(Adapter["Agent[Any, Any]"]):
    """Builds and runs pydantic-ai agents."""

    distribution = "pydantic-ai-slim"
    natives = Natives("an agent of pydantic-ai", lambda found: isinstance(found, AbstractAgent))

    def __init__(self) -> None:
        self._client: Optional[AsyncOpenAI] = None

    def build(self, spec: AgentSpec, ctx: BuildContext) -> "Agent[Any, Any]":
        """Make the native agent."""
        model = OpenAIChatModel(spec.model, provider=OpenAIProvider(openai_client=self._shared_client(ctx)))
        settings = _settings(spec)
        _warn_of_dropped(model, settings, ctx)
        return Agent(
            model,
            name=spec.name,
            description=spec.description or None,
            instructions=spec.prompt or None,
            tools=[_tool(tool, ctx) for tool in spec.tools],
            output_type=output_type(spec.output),
            model_settings=settings,
            retries=spec.framework_settings.get("retries"),
        )

    def describe(self, agent: "Agent[Any, Any]") -> AgentCard:
        """Name the agent, its tools and its model."""
        tools = [name for toolset in agent.toolsets if isinstance(toolset, FunctionToolset) for name in toolset.tools]
        model = agent.model if isinstance(agent.model, str) else getattr(agent.model, "model_name", None)
        description = agent.description if isinstance(agent.description, str) else ""
        return AgentCard(agent.name or "agent", description, tools, [model] if model else [])

    async def run(self, agent: "Agent[Any, Any]", request: Start, ctx: RunContext) -> Result:
        """Run the agent; its model requests stream where the framework has a reader for their events."""
        spec = ctx.spec
        if spec is None:
            _use_run_token(agent, ctx)
        done = await agent.run(
            None if request.continues else request.text,
            message_history=to_native(request.messages),
            usage_limits=UsageLimits(request_limit=spec.max_steps) if spec and spec.max_steps else None,
            capabilities=[Steps(ctx)],
            event_stream_handler=_read if request.stream else None,
        )
        schema = spec.output if spec else None
        output = unwrapped(schema, done.output) if spec else to_jsonable_python(done.output)
        return Result(output, from_native(done.new_messages(), schema))

    def _shared_client(self, ctx: BuildContext) -> AsyncOpenAI:
        """Return this process's client: it asks for the key at each request, and gets that of the request's run."""
        if self._client is None:

            async def token() -> str:
                return ctx.gateway.token

            self._client = AsyncOpenAI(base_url=ctx.gateway.base_url, api_key=token)
        return self._client


class Steps(AbstractCapability[Any]):
    """Tells the host of one run's model steps, tool steps and answers."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._schema = run.spec.output if run.spec else None

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> ModelResponse:
        """Make a model request a step."""
        with self._run.step("model", kind="model"):
            response: ModelResponse = await handler(request_context)
        for message in from_native([response], self._schema):
            self._run.emit("message.added", vars(message))
        return response

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        """Make a tool call a step; that of a tool which lives in this process is also recorded."""
        with self._run.step(call.tool_name, kind="tool"):
            if self._run.spec is not None:
                return await handler(args)
            return await call_once(self._run, call, tool_def, args, handler)


async def _read(ctx: Any, events: AsyncIterable[Any]) -> None:
    async for _ in events:
        pass


def _tool(spec: ToolSpec, ctx: BuildContext) -> "Tool[Any]":
    # pydantic-ai closes the schema of every function it reads, and marks it `strict` because of that.
    schema = {"additionalProperties": False, **spec.parameters}
    return Tool.from_schema(_body(spec.name, ctx), spec.name, spec.description, schema)


def _body(name: str, ctx: BuildContext) -> Callable[..., Awaitable[Any]]:
    async def call(**arguments: Any) -> Any:
        return await ctx.call_tool(name, arguments)

    return call


def _settings(spec: AgentSpec) -> OpenAIChatModelSettings:
    settings: Dict[str, Any] = {_NAMES[name]: value for name, value in spec.settings.items() if name in _NAMES}
    rest = {name: value for name, value in spec.settings.items() if name not in _NAMES}
    if rest:
        settings["extra_body"] = rest
    return OpenAIChatModelSettings(**settings)  # type: ignore[typeddict-item]


def _warn_of_dropped(model: OpenAIChatModel, settings: OpenAIChatModelSettings, ctx: BuildContext) -> None:
    effort = settings.get("openai_reasoning_effort")
    reasons = effort != "none" if effort else model.profile.get("thinking_enabled_by_default", False)
    if not reasons or not model.profile.get("openai_supports_reasoning", False):
        return
    wire_names = {native: name for name, native in _NAMES.items()}
    for native in SAMPLING_PARAMS:
        if native in settings:
            text = "`%s` is not sent: pydantic-ai leaves sampling settings out for the reasoning model `%s`"
            ctx.warn(text % (wire_names[native], model.model_name))


def _use_run_token(agent: "Agent[Any, Any]", ctx: RunContext) -> None:
    # A user's own client took its key when it was made; native runs go one at a time, so it can be set for this one.
    if isinstance(agent.model, (OpenAIChatModel, OpenAIResponsesModel)):
        agent.model.client.api_key = ctx.token
