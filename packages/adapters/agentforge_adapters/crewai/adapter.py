"""CrewAI 1.x: a portable agent becomes a crew of one agent with one task; many runs share one client."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Type, Union

from crewai import Agent, Crew, Task
from crewai.hooks import (
    register_after_tool_call_hook,
    register_before_llm_call_hook,
    register_before_tool_call_hook,
)
from crewai.llms.base_llm import call_stream_override
from crewai.tools import BaseTool

from agentforge_worker.adapter import Adapter, AgentCard, AgentSpec, BuildContext, Result, RunContext, Source, Start

from . import native
from .events import Steps
from .forms import Form, output_form
from .llm import LoopLLM, RunKey
from .messages import Conversation, add_conversation, conversation, from_native, with_answer
from .native import Native
from .own_tools import begin_call, end_call
from .sources import as_object, unwrapped
from .tools import make_tool, stop_on_failure

__all__ = ["CrewAIAdapter"]

_THREADS = 64
"""CrewAI waits for the model in a thread of the loop's pool: as many runs can be at a model call at once."""
_FIELDS = {"temperature", "max_tokens", "top_p", "seed", "frequency_penalty", "presence_penalty"}
_FIELDS |= {"max_completion_tokens", "logprobs", "top_logprobs"}
"""The settings that CrewAI's client takes by name; all others go into the request's body as they are."""


@dataclass(frozen=True)
class Portable:
    """What the runs of a portable agent share. A crew holds the state of a run: each run under way has its own."""

    spec: AgentSpec
    llm: LoopLLM
    tools: List[BaseTool]
    output: Optional[Type[Form]]
    idle: List[Crew] = field(default_factory=list)

    async def kick_off(self, text: str) -> Any:
        """Run a crew on a task. Making one costs half a run: one that has succeeded is used again."""
        crew = self.idle.pop() if self.idle else self._make_crew()
        crew.tasks[0].description = text
        output = await crew.akickoff()
        self.idle.append(crew)  # not after a failure or a cancellation: a thread of the run may still hold it
        return output

    def _make_crew(self) -> Crew:
        spec = self.spec
        max_iter = spec.framework_settings.get("max_iter", spec.max_steps)
        agent = Agent(
            role=spec.role or spec.name,
            goal=spec.goal or "Give a correct and complete answer.",
            backstory="\n".join(part for part in (spec.backstory, spec.instructions) if part),
            llm=self.llm,
            tools=self.tools,
            max_retry_limit=0,  # a retry would start the task again, and repeat the tool calls made so far
            **({"max_iter": max_iter} if max_iter else {}),
        )
        task = Task(
            description="",
            expected_output=spec.framework_settings.get("expected_output", "The answer."),
            agent=agent,
            output_pydantic=self.output,
        )
        return Crew(agents=[agent], tasks=[task])


Opened = Union[Portable, Native, Callable[[], Native]]


class CrewAIAdapter(Adapter[Opened]):
    """Builds and runs crews."""

    distribution = "crewai"
    natives = native.NATIVES

    def __init__(self) -> None:
        self._key = RunKey()
        self._threads: Optional[ThreadPoolExecutor] = None
        self._steps = Steps()
        register_before_tool_call_hook(begin_call)
        register_after_tool_call_hook(end_call)
        register_after_tool_call_hook(stop_on_failure)
        register_before_llm_call_hook(add_conversation)

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the client and the tools."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, "crewai")
            ctx.loop.set_default_executor(self._threads)
        rest = {name: value for name, value in spec.settings.items() if name not in _FIELDS}
        llm = LoopLLM(
            model=spec.model,
            custom_openai=True,  # never the Responses API
            base_url=ctx.gateway.base_url,
            api_key="the run's",
            interceptor=self._key,
            additional_params={"extra_body": rest} if rest else {},
            **{name: value for name, value in spec.settings.items() if name in _FIELDS},
        )
        output = None if spec.output is None else output_form(as_object(spec.output))
        return Portable(spec, llm, [make_tool(tool, ctx) for tool in spec.tools], output)

    async def load(self, source: Source, ctx: BuildContext) -> Opened:
        """Import a native crew, flow or agent. A function that makes one is called for each run, not here."""
        found: Opened = self.natives.named(source.module, source.attribute)
        return found

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent, its tools and its model."""
        if not isinstance(agent, Portable):
            return native.describe(agent)
        spec = agent.spec
        return AgentCard(spec.name, spec.description, [tool.name for tool in agent.tools], [agent.llm.model])

    async def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Kick the crew off."""
        with self._steps.of(ctx):
            if isinstance(agent, Portable):
                return await _run_portable(agent, request)
            return await self._run_native(await self.natives.made(agent), request, ctx)

    async def _run_native(self, agent: Native, request: Start, ctx: RunContext) -> Result:
        if request.messages and not isinstance(agent, Agent):
            ctx.warn("a crew or a flow has no place for the conversation so far: it gets the input alone")
        with contextlib.ExitStack() as streams:
            for llm in native.llms_of(agent):
                # Takes effect on clients not made yet: those of objects that were loaded before the first run.
                llm.interceptor = self._key
                if request.stream:
                    streams.enter_context(call_stream_override(llm, True))
            return Result(native.value_of(await native.kick_off(agent, request)))


async def _run_portable(agent: Portable, request: Start) -> Result:
    thread = Conversation(request)
    conversation.set(thread)
    with call_stream_override(agent.llm, request.stream):
        output = await agent.kick_off(thread.task)
    added = from_native(output.tasks_output[0].messages[thread.length :])
    if output.pydantic is None:
        return Result(output.raw, added)
    value = unwrapped(output.pydantic.model_dump(), agent.spec.output)
    return Result(value, with_answer(added, value))
