"""Tools that live outside the framework, as native AutoGen tools."""

import asyncio
from typing import Any, Mapping, Optional

from autogen_core import CancellationToken
from autogen_core.tools import BaseTool, ToolSchema
from pydantic import BaseModel

from agentforge_worker.adapter import BuildContext, ToolFailed, ToolSpec, current_run

from .failing import failures
from .schemas import parameters_form, without_nulls

__all__ = ["HostTool"]


class Arguments(BaseModel):
    """Stands where AutoGen wants a model of a tool's arguments; the schema says what they are."""


class HostTool(BaseTool[Arguments, Any]):
    """A tool whose body is a call of the host."""

    def __init__(self, spec: ToolSpec, ctx: BuildContext, strict: bool) -> None:
        super().__init__(Arguments, object, spec.name, spec.description)
        self._spec = spec
        self._ctx = ctx
        self._form = ToolSchema(
            name=spec.name,
            description=spec.description,
            parameters=parameters_form(spec.parameters, strict),  # type: ignore[typeddict-item]
            strict=strict,
        )

    @property
    def schema(self) -> ToolSchema:
        """Return what the model is told."""
        return self._form

    async def run_json(
        self, args: Mapping[str, Any], cancellation_token: CancellationToken, call_id: Optional[str] = None
    ) -> Any:
        """Call the tool."""
        arguments = without_nulls(dict(args), self._spec.parameters)
        with current_run().step(self.name, kind="tool"):
            call = asyncio.ensure_future(self._ctx.call_tool(self.name, arguments))
            cancellation_token.link_future(call)
            try:
                return await call
            except ToolFailed as failure:
                failures.get([]).append(failure)
                raise

    async def run(self, args: Arguments, cancellation_token: CancellationToken) -> Any:
        """Not called: `run_json` has the arguments as the model gave them."""
        raise NotImplementedError
