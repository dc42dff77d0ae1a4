"""LangChain 1.x: a portable agent becomes `create_agent` over one `ChatOpenAI`; native agents are runnables."""

from typing import Any, List

from langchain.agents import create_agent
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI

from agentforge_worker.adapter import AgentSpec

from .graphs import GraphAdapter

__all__ = ["LangChainAdapter"]


class LangChainAdapter(GraphAdapter):
    """Runs agents of LangChain 1.x."""

    distribution = "langchain"

    def graph(self, spec: AgentSpec, model: ChatOpenAI, tools: List[StructuredTool], output: Any) -> Any:
        """Return the agent graph."""
        return create_agent(model, tools, system_prompt=spec.prompt or None, response_format=output)
