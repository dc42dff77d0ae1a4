"""Tools that live outside the framework, as native Haystack tools."""

from typing import Any

from haystack.tools import Tool

from agentforge_worker.adapter import BuildContext, ToolSpec, current_run

__all__ = ["make_blocking_tool", "make_tool"]


def make_tool(spec: ToolSpec, ctx: BuildContext) -> Tool:
    """Return the native tool; Haystack 3 awaits it."""

    async def call(**arguments: Any) -> Any:
        with current_run().step(spec.name, kind="tool"):
            return await ctx.call_tool(spec.name, arguments)

    return Tool(name=spec.name, description=spec.description, parameters=spec.parameters, async_function=call)


def make_blocking_tool(spec: ToolSpec, ctx: BuildContext) -> Tool:
    """Return the native tool; Haystack 2 calls it in a thread."""

    def call(**arguments: Any) -> Any:
        with current_run().step(spec.name, kind="tool"):
            return ctx.call_tool_blocking(spec.name, arguments)

    return Tool(name=spec.name, description=spec.description, parameters=spec.parameters, function=call)
