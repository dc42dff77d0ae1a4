"""Tools that live outside the framework, as native LlamaIndex tools."""

from dataclasses import dataclass, field
from typing import Any, Dict

from llama_index.core.tools import FunctionTool, ToolMetadata, ToolOutput

from agentforge_worker.adapter import BuildContext, ToolFailed, ToolSpec, current_run

from .schema import Schema, titled

__all__ = ["answer_tool", "check_output", "make_tool"]

_KEPT = ("type", "properties", "required", "definitions", "$defs")
"""What LlamaIndex sends of a schema."""
_ANSWER = "answer"


@dataclass
class DeclaredMetadata(ToolMetadata):
    """What a model is told of a tool, its arguments as they are declared."""

    parameters: Dict[str, Any] = field(default_factory=dict)

    def get_parameters_dict(self) -> Dict[str, Any]:
        """Return the schema of the arguments. LlamaIndex changes what it gets."""
        return {name: value for name, value in self.parameters.items() if name in _KEPT}


def make_tool(spec: ToolSpec, ctx: BuildContext) -> FunctionTool:
    """Return the native tool."""

    async def call(**arguments: Any) -> Any:
        try:
            with current_run().step(spec.name, kind="tool"):
                return await ctx.call_tool(spec.name, arguments)
        except ToolFailed as failure:
            return failure  # raised here it would become text for the model; the agent raises it

    def call_blocking(**arguments: Any) -> Any:
        return ctx.call_tool_blocking(spec.name, arguments)

    metadata = DeclaredMetadata(spec.description, spec.name, None, parameters=titled(spec.parameters))
    return FunctionTool(call_blocking, metadata, async_fn=call)


def answer_tool(schema: Schema) -> FunctionTool:
    """Return the tool with whose arguments a model gives its answer."""

    def take(**arguments: Any) -> Any:
        return arguments

    description = schema.get("description", "Give the answer.")
    return FunctionTool(take, DeclaredMetadata(description, _ANSWER, None, parameters=titled(schema)))


def check_output(output: ToolOutput) -> None:
    """Raise ToolFailed where a tool gave that as its result."""
    if isinstance(output.raw_output, ToolFailed):
        raise output.raw_output
