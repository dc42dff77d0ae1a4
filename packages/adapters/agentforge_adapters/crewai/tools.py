"""Tools that live outside the framework, as native CrewAI tools."""

from typing import Any, Callable, Dict

from crewai.hooks import HookAborted, ToolCallHookContext
from crewai.tools import BaseTool
from pydantic import PrivateAttr

from agentforge_worker.adapter import BuildContext, ToolFailed, ToolSpec

from .forms import arguments_form

__all__ = ["make_tool", "stop_on_failure"]


class HostTool(BaseTool):
    """A tool whose body is a call of the host."""

    _call: Callable[[Dict[str, Any]], Any] = PrivateAttr()

    def _run(self, **arguments: Any) -> Any:
        try:
            return self._call(arguments)
        except ToolFailed as failure:
            # Raised here it would become text for the model; as a result it reaches the hook below.
            return failure


def make_tool(spec: ToolSpec, ctx: BuildContext) -> BaseTool:
    """Return the native tool; CrewAI calls it in a thread."""
    tool = HostTool(
        name=spec.name, description=spec.description, args_schema=arguments_form(spec.parameters, spec.name)
    )
    tool._call = lambda arguments: ctx.call_tool_blocking(spec.name, _given(arguments, spec.parameters))
    return tool


def stop_on_failure(context: ToolCallHookContext) -> None:
    """End the run when the host says that a tool call failed. CrewAI calls this after each tool call."""
    failure = context.raw_tool_result
    if isinstance(failure, ToolFailed):
        raise HookAborted(failure.text) from failure


def _given(arguments: Dict[str, Any], schema: Dict[str, Any]) -> Dict[str, Any]:
    """Leave out nulls that stand for arguments not given: CrewAI tells the model that all are required."""
    properties, required = schema.get("properties", {}), schema.get("required", ())
    return {
        name: value
        for name, value in arguments.items()
        if value is not None or name in required or _takes_null(properties.get(name, {}))
    }


def _takes_null(schema: Dict[str, Any]) -> bool:
    kinds = schema.get("type", [])
    if "null" in ([kinds] if isinstance(kinds, str) else kinds):
        return True
    return any(_takes_null(part) for key in ("anyOf", "oneOf") for part in schema.get(key, ()))
