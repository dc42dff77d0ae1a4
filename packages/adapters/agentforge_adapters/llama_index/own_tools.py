"""The tools of a user's own agents, which run in this process: each call is made once in all attempts of a run.

LlamaIndex has no hook around tool calls. Its agents keep their tools in a public field, so tools that record take the
place of the user's there.
"""

from typing import Any, Callable, Dict, Iterator, List

from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.tools import AsyncBaseTool, BaseTool, ToolMetadata, ToolOutput, adapt_to_async_tool

from agentforge_worker.adapter import current_run

__all__ = ["record_tools"]

_PLAIN = (str, int, float, bool, type(None), list, dict)


def record_tools(found: Any, warn: Callable[[str], None]) -> None:
    """Have the calls of an agent's tools recorded, and those of the agents of a workflow."""
    for agent in _agents(found):
        if agent.tools:
            agent.tools = [_recorded(tool, warn) for tool in agent.tools]


def _agents(found: Any) -> Iterator[BaseWorkflowAgent]:
    several = getattr(found, "agents", None)
    for each in [found, *(several.values() if isinstance(several, dict) else ())]:
        if isinstance(each, BaseWorkflowAgent):
            yield each


def _recorded(tool: Any, warn: Callable[[str], None]) -> BaseTool:
    if isinstance(tool, OwnTool):
        return tool
    if getattr(tool, "requires_context", False):
        warn("the calls of the tool `%s` are not recorded: it takes the workflow's context" % tool.metadata.name)
        return tool  # type: ignore[no-any-return]
    return OwnTool(tool)


class OwnTool(AsyncBaseTool):
    """Stands for a tool of the user's."""

    def __init__(self, tool: BaseTool) -> None:
        self._tool = adapt_to_async_tool(tool)

    @property
    def metadata(self) -> ToolMetadata:
        """Return what the model is told of it."""
        return self._tool.metadata

    def call(self, *args: Any, **arguments: Any) -> ToolOutput:
        """Call it in a thread."""
        return self._tool.call(*args, **arguments)

    async def acall(self, *args: Any, **arguments: Any) -> ToolOutput:
        """Call it, or return what it returned in an earlier attempt."""
        live: List[ToolOutput] = []

        async def made() -> Dict[str, Any]:
            live.append(await self._tool.acall(*args, **arguments))
            return _to_json(live[0])

        told = arguments if not args else {"input": args[0]}
        with current_run().step(self.metadata.get_name(), kind="tool"):
            value = await current_run().tool_effect(self.metadata.get_name(), told, made)
        return live[0] if live else ToolOutput(tool_name=self.metadata.get_name(), raw_input=told, **value)


def _to_json(output: ToolOutput) -> Dict[str, Any]:
    raw = output.raw_output if type(output.raw_output) in _PLAIN else str(output.raw_output)
    return {"content": output.content, "raw_output": raw, "is_error": output.is_error}
