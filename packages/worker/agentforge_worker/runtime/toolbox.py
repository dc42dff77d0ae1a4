"""The tools of agent versions, opened and called in a tool worker."""

import asyncio
import contextvars
from typing import Any, Callable, Dict, List, Optional, Tuple

from agentforge_worker.runtime.bounds import cut, error_object
from agentforge_worker.runtime.failures import chain, limit_hit, native_traceback
from agentforge_worker.runtime.symptoms import symptom
from agentforge_worker.runtime.threads import run_in_thread
from agentforge_worker.tools import ToolError, bind, describe, load_function, to_json
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = ["Toolbox"]

Params = Dict[str, Any]


class Toolbox:
    """Functions by (root, file, name), imported once."""

    def __init__(self) -> None:
        self._functions: Dict[Tuple[str, str, str], Callable[..., Any]] = {}

    async def open(self, params: Params) -> Params:
        """Import tools and describe them: {root, tools: [{file, function}]} to {tools: [description]}."""
        described: List[Dict[str, Any]] = []
        for tool in params["tools"]:
            try:
                described.append(describe(self._function(params["root"], tool["file"], tool["function"])))
            except ToolError as error:
                raise _failure("AF601", str(error)) from error
        return {"tools": described}

    async def invoke(self, params: Params) -> Params:
        """Call one tool: {root, file, function, arguments, extras} to {value}."""
        try:
            function = self._function(params["root"], params["file"], params["function"])
            call, is_async = bind(function, params["arguments"], params.get("extras") or {})
        except ToolError as error:
            raise _failure("AF602", str(error)) from error
        try:
            value = await (call() if is_async else run_in_thread(contextvars.copy_context(), call, "tool"))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            hit = symptom(chain(error))
            if hit is not None:
                raise limit_hit(hit, error) from error
            raise _failure("AF603", "%s: %s" % (type(error).__name__, error), error) from error
        try:
            return {"value": to_json(value)}
        except ToolError as error:
            raise _failure("AF604", str(error)) from error

    def _function(self, root: str, file: str, name: str) -> Callable[..., Any]:
        key = (root, file, name)
        if key not in self._functions:
            self._functions[key] = load_function(root, file, name)
        return self._functions[key]


def _failure(code: str, text: str, error: Optional[BaseException] = None) -> RpcError:
    details: Dict[str, Any] = {}
    if error is not None:
        details["traceback"] = native_traceback(error)
    return RpcError(ErrorCode.FAILED, cut(text), error_object(code, text, "", "tool", details))
