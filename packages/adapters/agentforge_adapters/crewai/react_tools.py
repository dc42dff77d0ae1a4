"""Tools that live outside the framework, for releases that turn whatever a tool raises into text for the model."""

from typing import Any

from crewai.tools import BaseTool
from pydantic import PrivateAttr

from agentforge_worker.adapter import ToolSpec

from .annotations import form_of
from .stopped import call_tool

__all__ = ["make_tool"]


class HostTool(BaseTool):
    """A tool whose body is a call of the host."""

    _host_name: str = PrivateAttr()

    def _run(self, **arguments: Any) -> Any:
        return call_tool(self._host_name, arguments)


def make_tool(spec: ToolSpec) -> BaseTool:
    """Return the native tool; CrewAI calls it in the run's thread."""
    tool = HostTool(name=spec.name, description=spec.description, args_schema=form_of(spec.parameters, spec.name))
    tool._host_name = spec.name
    return tool
