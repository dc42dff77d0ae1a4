"""All tools of one run."""

from collections.abc import Sequence
from typing import Any

from agentforge.tools.code import CodeTools
from agentforge.tools.python import PythonTools
from agentforge.tools.tool import Tool, ToolRequest

__all__ = ["Toolbox"]


class Toolbox:
    """Gives each call to what makes it: a worker for functions, a process of its own for code."""

    def __init__(self, functions: PythonTools, code: CodeTools) -> None:
        self._functions = functions
        self._code = code

    async def describe(self, tools: Sequence[Tool]) -> list[Tool]:
        """Return the tools, in order, with name, description and parameters filled in. Raises ToolLoadFailed."""
        functions = [tool for tool in tools if not tool.code]
        described = iter(await self._functions.describe(functions) if functions else ())
        return [self._code.describe(tool) if tool.code else next(described) for tool in tools]

    async def call(self, request: ToolRequest, *, alone: bool = False) -> Any:
        """Return the tool's result, a JSON value; `alone`: from a worker that serves no other run, as code does anyway.

        Raises a ToolFailure, or the LimitExceeded that the tool's process was ended for.
        """
        if request.tool.code:
            return await self._code.call(request)
        return await self._functions.call(request, alone=alone)
