"""CrewAI 0.86 and 0.150, which speak text (ReAct) through LiteLLM: a crew of one agent with one task, in a thread."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Type, Union

import litellm
from crewai import Agent, Crew, Task
from crewai.agents.parser import AgentAction, AgentFinish
from crewai.tools import BaseTool

from agentforge_worker.adapter import Adapter, AgentCard, AgentSpec, BuildContext, Result, RunContext, Source, Start

from . import react_native
from .annotations import Form, form_of
from .loop_http import loop_client
from .react_llm import PlainLLM, ReactLLM
from .react_native import Native
from .react_tools import make_tool
from .sources import as_object, unwrapped
from .stopped import leaving
from .transcript import Transcript, transcript

__all__ = ["PlainReactAdapter", "ReactAdapter"]

_FIELDS = {"temperature", "max_tokens", "max_completion_tokens", "top_p", "stop", "seed"}
_FIELDS |= {"frequency_penalty", "presence_penalty", "logprobs", "top_logprobs"}
"""The settings that CrewAI's client takes by name; all others go into the request's body as they are."""


@dataclass(frozen=True)
class Portable:
    """What the runs of a portable agent share. A crew, its agent and LLM hold the state of a run: each has its own."""

    spec: AgentSpec
    base_url: str
    tools: List[BaseTool]
    output: Optional[Type[Form]]


Opened = Union[Portable, Native]


class ReactAdapter(Adapter[Opened]):
    """Builds and runs crews, one thread for each."""

    distribution = "crewai"
    natives = react_native.NATIVES
    llm_class: Type[ReactLLM] = ReactLLM
    streams = True

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the tools."""
        self._use_loop(ctx)
        output = None if spec.output is None else form_of(as_object(spec.output), "Answer")
        return Portable(spec, ctx.gateway.base_url, [make_tool(tool) for tool in spec.tools], output)

    async def load(self, source: Source, ctx: BuildContext) -> Native:
        """Import a native crew, flow or agent, or a function that makes one, which is called for each run."""
        self._use_loop(ctx)
        found: Native = self.natives.named(source.module, source.attribute)
        return found

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent, its tools and its model."""
        if not isinstance(agent, Portable):
            return react_native.describe(agent)
        spec = agent.spec
        return AgentCard(spec.name, spec.description, [tool.name for tool in agent.tools], [spec.model])

    def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Kick the crew off."""
        if not isinstance(agent, Portable):
            return react_native.run(agent, request, ctx, self.streams)
        said = Transcript(request, ctx)
        transcript.set(said)
        crew = self._make_crew(agent, said, request.stream)
        with ctx.step("task", kind="task"), leaving():
            output = crew.kickoff()
        if output.pydantic is None:
            return Result(output.raw, said.added)
        value = unwrapped(output.pydantic.model_dump(), agent.spec.output)
        return Result(value, said.ending_with(value))

    def _make_crew(self, portable: Portable, said: Transcript, stream: bool) -> Crew:
        spec = portable.spec
        max_iter = spec.framework_settings.get("max_iter", spec.max_steps)
        agent = Agent(
            role=spec.role or spec.name,
            goal=spec.goal or "Give a correct and complete answer.",
            backstory="\n".join(part for part in (spec.backstory, spec.instructions) if part),
            llm=self._make_llm(portable, stream),
            tools=portable.tools,
            cache=False,  # a tool's result is the host's to keep
            max_retry_limit=0,  # a retry would start the task again, and repeat the tool calls made so far
            step_callback=lambda step: _note(said, step),
            **({"max_iter": max_iter} if max_iter else {}),
        )
        said.max_steps = agent.max_iter
        task = Task(
            description=said.task,
            expected_output=spec.framework_settings.get("expected_output", "The answer."),
            agent=agent,
            output_pydantic=portable.output,
        )
        return Crew(agents=[agent], tasks=[task], cache=False)

    def _make_llm(self, portable: Portable, stream: bool) -> ReactLLM:
        settings = portable.spec.settings
        rest = {name: value for name, value in settings.items() if name not in _FIELDS}
        options: Dict[str, Any] = {name: value for name, value in settings.items() if name in _FIELDS}
        if rest:
            options["extra_body"] = rest
        if self.streams:
            options["stream"] = stream
        model = "openai/" + portable.spec.model
        return self.llm_class(model=model, base_url=portable.base_url, api_key="the run's", **options)

    def _use_loop(self, ctx: BuildContext) -> None:
        if litellm.client_session is None:
            litellm.client_session = loop_client(ctx.loop)
            # What conversions use, where CrewAI tells LiteLLM neither.
            litellm.api_base = ctx.gateway.base_url
            litellm.openai_key = "the run's"


class PlainReactAdapter(ReactAdapter):
    """Releases that don't stream."""

    llm_class = PlainLLM
    streams = False


def _note(said: Transcript, step: Any) -> None:
    if isinstance(step, AgentAction):
        said.acted(step.tool, step.tool_input, step.result)
    elif isinstance(step, AgentFinish):
        said.answered(step.output)
