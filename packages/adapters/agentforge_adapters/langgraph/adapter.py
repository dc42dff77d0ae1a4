"""LangGraph 1.x: a portable agent becomes `create_react_agent` over one `ChatOpenAI`; native agents are graphs."""

from typing import Any, List

from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent

from agentforge_worker.adapter import AgentSpec, Message, StepLimitReached

from .graphs import GraphAdapter
from .steps import Steps

__all__ = ["LangGraphAdapter"]


class LangGraphAdapter(GraphAdapter):
    """Runs agents of LangGraph 1.x."""

    distribution = "langgraph"

    def graph(self, spec: AgentSpec, model: ChatOpenAI, tools: List[StructuredTool], output: Any) -> Any:
        """Return the agent graph."""
        return create_react_agent(model, tools, prompt=spec.prompt or None, response_format=output)

    def check(self, spec: AgentSpec, messages: List[Message], steps: Steps) -> None:
        """Fail a run that has used up its steps: the graph puts a sentence of its own in the place of the calls."""
        if steps.said and steps.said[-1].tool_calls and not messages[-1].tool_calls:
            raise StepLimitReached(spec.max_steps or len(steps.said))
