"""Tools that live outside the framework, as native AG2 tools."""

from functools import partial
from typing import Any, Dict, Iterable, List

from ag2.annotations import Context
from ag2.events import ToolCallEvent, ToolResultEvent
from ag2.exceptions import HumanInputError
from ag2.middleware import BaseMiddleware, ToolExecution
from ag2.tools.final import FunctionDefinition, FunctionToolSchema
from ag2.tools.tool import Tool

from agentforge_worker.adapter import BuildContext, ToolFailed, ToolSpec

__all__ = ["HostTool"]


class ToolCallFailed(HumanInputError):
    """Ends the turn: of all that a tool may raise AG2 makes text for the model, but of errors of this class."""


class HostTool(Tool):
    """A tool whose body is a call of the host."""

    def __init__(self, spec: ToolSpec, ctx: BuildContext) -> None:
        self.name = spec.name
        self._ctx = ctx
        self._schema = FunctionToolSchema(
            function=FunctionDefinition(spec.name, spec.description, _parameters(spec.parameters))
        )

    def __deepcopy__(self, memo: Dict[int, Any]) -> "HostTool":
        """Return the same tool: AG2 copies those that it is given."""
        return self

    async def schemas(self, context: Context) -> List[FunctionToolSchema]:
        """Return what the model is told."""
        return [self._schema]

    def register(self, stack: Any, context: Context, *, middleware: Iterable[BaseMiddleware] = ()) -> None:
        """Have the calls of a turn made."""
        execution: ToolExecution = self._call
        for each in middleware:
            execution = partial(each.on_tool_execution, execution)

        async def execute(event: ToolCallEvent, context: Context) -> None:
            await context.send(await execution(event, context))

        stack.enter_context(context.stream.where(ToolCallEvent.name == self.name).sub_scope(execute))

    async def _call(self, event: ToolCallEvent, context: Context) -> ToolResultEvent:
        try:
            value = await self._ctx.call_tool(self.name, event.serialized_arguments)
        except ToolFailed as failure:
            raise ToolCallFailed(failure.text) from failure
        return ToolResultEvent.from_call(event, result=value)


def _parameters(schema: Dict[str, Any]) -> Dict[str, Any]:
    """Return a tool's parameters as AG2 words those of a function: with titles, as pydantic has it."""
    form = dict(schema)
    form["properties"] = {
        name: {"title": name.replace("_", " ").title(), **each} for name, each in schema.get("properties", {}).items()
    }
    return form
