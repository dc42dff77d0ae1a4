"""Native agents: the user's own crews, flows and agents, run as they are."""

import inspect
from typing import Any, Awaitable, Callable, List, Union

from crewai import Agent, Crew, Flow
from crewai.llms.base_llm import BaseLLM
from crewai.types.streaming import StreamingOutputBase
from pydantic import BaseModel

from agentforge_worker.adapter import AgentCard, Natives, Start

from .messages import conversation_of

__all__ = ["NATIVES", "Native", "describe", "kick_off", "llms_of", "value_of"]

Native = Union[Crew, "Flow[Any]", Agent]


NATIVES = Natives("a crew, a flow or an agent of CrewAI", lambda found: isinstance(found, (Crew, Flow, Agent)))


async def kick_off(native: Native, request: Start) -> Any:
    """Run it to its end. An input that is no object goes in as `{"input": ...}`, to an agent as text or messages."""
    if isinstance(native, Agent):
        return await native.kickoff_async(conversation_of(request) if request.messages else request.text)
    inputs = request.input if isinstance(request.input, dict) else {"input": request.input}
    started: Awaitable[Any] = (native.akickoff if isinstance(native, Crew) else native.kickoff_async)(inputs=inputs)
    output = await started
    if isinstance(output, StreamingOutputBase):
        async for _ in output:
            pass
        return output.result
    return output


def value_of(output: Any) -> Any:
    """Return what a crew, flow or agent answered as a JSON value."""
    answer = getattr(output, "pydantic", None) or getattr(output, "json_dict", None) or getattr(output, "raw", output)
    return answer.model_dump(mode="json") if isinstance(answer, BaseModel) else answer


def llms_of(native: Native) -> List[BaseLLM]:
    """Return the models that are known before the run; those that a flow makes on its way are not."""
    agents = native.agents if isinstance(native, Crew) else [native]
    found = [getattr(agent, "llm", None) for agent in agents] + [getattr(native, "manager_llm", None)]
    return [llm for llm in found if isinstance(llm, BaseLLM)]


def describe(native: Union[Native, Callable[[], Native]]) -> AgentCard:
    """Name it, its agents, their tools and models; of a function nothing but its name is known before a run."""
    if inspect.isroutine(native):
        return AgentCard(native.__name__, inspect.getdoc(native) or "")
    agents = native.agents if isinstance(native, Crew) else [native] if isinstance(native, Agent) else []
    tools = [tool.name for agent in agents for tool in agent.tools or ()]
    models = sorted({llm.model for llm in llms_of(native)})
    roles = [agent.role for agent in agents]
    return AgentCard(str(getattr(native, "name", None) or type(native).__name__), "", tools, models, {"agents": roles})
