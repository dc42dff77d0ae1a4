"""Native agents on CrewAI 0.86 and 0.150: the user's own crews and flows, run as they are, one at a time."""

import inspect
from typing import Any, Callable, Union

from crewai import Crew, Flow
from pydantic import BaseModel

from agentforge_worker.adapter import AgentCard, Natives, Result, RunContext, Start

__all__ = ["NATIVES", "Native", "describe", "run"]

Native = Union[Crew, "Flow[Any]", Callable[[], Union[Crew, "Flow[Any]"]]]
NATIVES = Natives("a crew or a flow of CrewAI", lambda found: isinstance(found, (Crew, Flow)))


def run(native: Native, request: Start, ctx: RunContext, streams: bool) -> Result:
    """Run it to its end. An input that is no object goes in as `{"input": ...}`."""
    made: Any = NATIVES.made_blocking(native, ctx.wait)
    if request.messages:
        ctx.warn("a crew or a flow has no place for the conversation so far: it gets the input alone")
    inputs = request.input if isinstance(request.input, dict) else {"input": request.input}
    if isinstance(made, Crew) and streams and request.stream:
        for agent in made.agents:
            agent.llm.stream = True
    return Result(_value(_kick_off(made, inputs)))


def describe(native: Native) -> AgentCard:
    """Name it, its agents, their tools and models; of a function nothing but its name is known before a run."""
    if inspect.isroutine(native):
        return AgentCard(native.__name__, inspect.getdoc(native) or "")
    agents = native.agents if isinstance(native, Crew) else []
    tools = [tool.name for agent in agents for tool in agent.tools or ()]
    models = sorted({agent.llm.model for agent in agents})
    roles = [agent.role for agent in agents]
    return AgentCard(str(getattr(native, "name", None) or type(native).__name__), "", tools, models, {"agents": roles})


def _kick_off(made: Any, inputs: Any) -> Any:
    return made.kickoff(inputs=inputs)


def _value(output: Any) -> Any:
    """Return what a crew or a flow answered as a JSON value."""
    answer = getattr(output, "pydantic", None) or getattr(output, "json_dict", None) or getattr(output, "raw", output)
    return answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer
