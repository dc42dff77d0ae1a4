"""CrewAI 0.30 and 0.1, which speak text (ReAct) through LangChain: a crew of one agent with one task, in a thread."""

import asyncio
import inspect
import json
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Type, Union

from crewai import Agent, Crew, Task
from langchain_core.agents import AgentFinish
from langchain_core.tools import BaseTool

from agentforge_worker.adapter import (
    Adapter,
    AgentCard,
    AgentSpec,
    BuildContext,
    Natives,
    Result,
    RunContext,
    Source,
    Start,
)

from .annotations import Form, form_of
from .chain_llm import make_client, make_llm
from .chain_tools import make_text_tool, make_tool
from .sources import as_object, unwrapped
from .stopped import leaving
from .transcript import Transcript, transcript

__all__ = ["ChainAdapter", "TextToolAdapter"]


@dataclass(frozen=True)
class Portable:
    """What the runs of a portable agent share. A crew, its agent and task hold the state of a run: each has its own."""

    spec: AgentSpec
    loop: asyncio.AbstractEventLoop
    client: Any
    tools: List[BaseTool]
    output: Optional[Type[Form]]

    def texts(self) -> Dict[str, str]:
        """Return who the agent is, in CrewAI's words."""
        spec = self.spec
        return {
            "role": spec.role or spec.name,
            "goal": spec.goal or "Give a correct and complete answer.",
            "backstory": "\n".join(part for part in (spec.backstory, spec.instructions) if part),
        }


Opened = Union[Portable, Crew, Callable[[], Crew]]


class ChainAdapter(Adapter[Opened]):
    """Builds and runs crews of 0.30, one thread for each."""

    distribution = "crewai"
    natives = Natives("a crew of CrewAI", lambda found: isinstance(found, Crew))

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the client and the tools."""
        output = None if spec.output is None else form_of(as_object(spec.output), "Answer")
        return Portable(spec, ctx.loop, make_client(ctx.loop), [make_tool(tool) for tool in spec.tools], output)

    async def load(self, source: Source, ctx: BuildContext) -> Opened:
        """Import a native crew, or a function that makes one, which is called for each run."""
        found: Opened = self.natives.named(source.module, source.attribute)
        return found

    def describe(self, agent: Opened) -> AgentCard:
        """Name the agent, its tools and its model."""
        if isinstance(agent, Portable):
            spec = agent.spec
            return AgentCard(spec.name, spec.description, [tool.name for tool in agent.tools], [spec.model])
        if inspect.isroutine(agent):
            return AgentCard(agent.__name__, inspect.getdoc(agent) or "")
        tools = [tool.name for each in agent.agents for tool in each.tools]
        return AgentCard("Crew", "", tools, [], {"agents": [each.role for each in agent.agents]})

    def run(self, agent: Opened, request: Start, ctx: RunContext) -> Result:
        """Kick the crew off."""
        if not isinstance(agent, Portable):
            return self.run_native(self.natives.made_blocking(agent, ctx.wait), request, ctx)
        said = Transcript(request, ctx)
        transcript.set(said)
        with ctx.step("task", kind="task"), leaving():
            return self.kick_off(agent, said)

    def kick_off(self, portable: Portable, said: Transcript) -> Result:
        """Run a crew on the task of a conversation."""
        spec = portable.spec
        steps = {"max_iter": spec.max_steps + 1} if spec.max_steps else {}  # the last round but one asks nobody
        steps.update({name: value for name, value in spec.framework_settings.items() if name == "max_iter"})
        # A conversion changes the client for good: with an output, each run has one.
        client = portable.client if portable.output is None else make_client(portable.loop)
        agent = Agent(
            **portable.texts(),
            llm=make_llm(spec, client),
            tools=portable.tools,
            cache=False,  # a tool's result is the host's to keep
            allow_delegation=False,
            step_callback=lambda step: _note(said, step),
            **steps,
        )
        task = Task(
            description=said.task,
            expected_output=spec.framework_settings.get("expected_output", "The answer."),
            agent=agent,
            output_pydantic=portable.output,
        )
        answer = Crew(agents=[agent], tasks=[task], cache=False).kickoff()
        if portable.output is None:
            return Result(str(answer), said.added)
        value = unwrapped(answer.model_dump(), spec.output)
        return Result(value, said.ending_with(value))

    def run_native(self, crew: Crew, request: Start, ctx: RunContext) -> Result:
        """Run a user's own crew. An input that is no object goes in as `{"input": ...}`."""
        if request.messages:
            ctx.warn("a crew has no place for the conversation so far: it gets the input alone")
        answer = crew.kickoff(inputs=request.input if isinstance(request.input, dict) else {"input": request.input})
        return Result(answer.model_dump(mode="json") if hasattr(answer, "model_dump") else answer)


class TextToolAdapter(ChainAdapter):
    """Builds and runs crews of 0.1: tools take one string, tasks have no output schema and crews no inputs."""

    def build(self, spec: AgentSpec, ctx: BuildContext) -> Portable:
        """Make the client and the tools."""
        return Portable(spec, ctx.loop, make_client(ctx.loop), [make_text_tool(tool) for tool in spec.tools], None)

    def kick_off(self, portable: Portable, said: Transcript) -> Result:
        """Run a crew on the task of a conversation."""
        spec = portable.spec
        max_iter = spec.framework_settings.get("max_iter", spec.max_steps)
        agent = Agent(
            **portable.texts(),
            llm=make_llm(spec, portable.client, said.stream),
            tools=portable.tools,
            memory=False,
            allow_delegation=False,
            **({"max_iter": max_iter} if max_iter else {}),
        )
        task = said.task
        if spec.output is not None:
            task += "\n\nYour final answer must be JSON that fits this schema, and nothing else: "
            task += json.dumps(spec.output, ensure_ascii=False)
        answer = Crew(agents=[agent], tasks=[Task(description=task, agent=agent)]).kickoff()
        said.answered(answer)
        if spec.output is None:
            return Result(answer, said.added)
        value = json.loads(answer)
        return Result(value, said.ending_with(value))

    def run_native(self, crew: Crew, request: Start, ctx: RunContext) -> Result:
        """Run a user's own crew, which takes no input."""
        if request.input or request.messages:
            ctx.warn("a crew of CrewAI 0.1 takes no input: make it in a function that reads `current_run().request`")
        return Result(crew.kickoff())


def _note(said: Transcript, step: Any) -> None:
    if isinstance(step, AgentFinish):
        said.answered(step.return_values["output"])
    else:
        for action, told in step:
            if action.tool != "_Exception":  # CrewAI's name for what it could not read
                said.acted(action.tool, action.tool_input, str(told))
