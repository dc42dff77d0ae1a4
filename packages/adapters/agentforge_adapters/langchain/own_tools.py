"""The tools of a user's own graph, which run in this process: each call is made once in all attempts of a run.

LangChain has a hook around tool calls (`wrap_tool_call`) for who makes an agent, and none for who is given one. So the
functions of its tools are replaced in the tools themselves, which are found through the nodes of the graph.
"""

import asyncio
import base64
import functools
from typing import Any, Callable, Dict, Iterator, List, Optional, Set

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, StructuredTool, Tool
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

from agentforge_worker.adapter import RunContext, current_run

__all__ = ["record_tools"]

_NATIVE = "langgraph"
"""Key of a result that JSON can't hold, in LangGraph's own serial form."""
_TEXT = "langgraph-text"
"""Key of one that has no such form either: what the model is told of it."""
_SERIAL = JsonPlusSerializer()


def record_tools(runnable: "Runnable[Any, Any]") -> List[str]:
    """Have the calls of a graph's tools recorded; return the names of tools with which that can't be done."""
    return [tool.name for tool in _tools(runnable, set()) if not _record(tool)]


def _tools(runnable: Any, seen: Set[int]) -> Iterator[BaseTool]:
    if id(runnable) in seen:
        return
    seen.add(id(runnable))
    if isinstance(runnable, ToolNode):
        yield from runnable.tools_by_name.values()
    elif isinstance(runnable, CompiledStateGraph):
        for node in runnable.nodes.values():
            yield from _tools(node.bound, seen)


def _record(tool: BaseTool) -> bool:
    if not isinstance(tool, (StructuredTool, Tool)):
        return False
    call = _OwnTool(tool)
    if tool.func is not None and not hasattr(tool.func, _NATIVE):
        tool.func = call.blocking(tool.func)
    if tool.coroutine is not None and not hasattr(tool.coroutine, _NATIVE):
        tool.coroutine = call.waiting(tool.coroutine)
    return True


class _OwnTool:
    """Makes the functions that stand for those of a tool."""

    def __init__(self, tool: BaseTool) -> None:
        self._name = tool.name
        schema = tool.tool_call_schema
        self._arguments = set(schema["properties"] if isinstance(schema, dict) else schema.model_fields)
        self._pair = tool.response_format == "content_and_artifact"
        self._idempotent = bool((tool.metadata or {}).get("idempotent"))

    def blocking(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for a plain function."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            run = None if _on_a_loop() else _run()
            if run is None:  # nobody to ask, or nowhere to wait
                return function(*args, **kwargs)
            live: List[Any] = []

            def made() -> Any:
                live.append(function(*args, **kwargs))
                return self._to_json(live[0])

            told = run.tool_effect_blocking(self._name, self._told(args, kwargs), made, idempotent=self._idempotent)
            return self._from_json(told, live)

        setattr(call, _NATIVE, True)
        return call

    def waiting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for a coroutine function."""

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            run = _run()
            if run is None:
                return await function(*args, **kwargs)
            live: List[Any] = []

            async def made() -> Any:
                live.append(await function(*args, **kwargs))
                return self._to_json(live[0])

            told = await run.tool_effect(self._name, self._told(args, kwargs), made, idempotent=self._idempotent)
            return self._from_json(told, live)

        setattr(call, _NATIVE, True)
        return call

    def _told(self, args: Any, kwargs: Dict[str, Any]) -> Dict[str, Any]:
        """Return the arguments that the model gave; the others are LangGraph's."""
        if args:
            return {"input": _to_json(args[0])}
        return {name: _to_json(value) for name, value in kwargs.items() if name in self._arguments}

    def _to_json(self, value: Any) -> Any:
        if self._pair and isinstance(value, tuple):
            return [_to_json(part) for part in value]
        return _to_json(value)

    def _from_json(self, told: Any, live: List[Any]) -> Any:
        if self._pair and isinstance(told, list):
            return tuple(_from_json(part, live[0][at] if live else None) for at, part in enumerate(told))
        return _from_json(told, live[0] if live else None)


def _to_json(value: Any) -> Any:
    if _is_plain(value):
        return value
    try:
        kind, data = _SERIAL.dumps_typed(value)
    except (TypeError, ValueError):
        return {_TEXT: str(value)}
    return {_NATIVE: [kind, base64.b64encode(data).decode("ascii")]}


def _from_json(told: Any, live: Any) -> Any:
    if isinstance(told, dict) and len(told) == 1:
        if _NATIVE in told:
            kind, data = told[_NATIVE]
            return _SERIAL.loads_typed((kind, base64.b64decode(data)))
        if _TEXT in told:
            return told[_TEXT] if live is None else live
    return told


def _is_plain(value: Any) -> bool:
    """Whether a value is the same when it comes back from JSON."""
    if value is None or type(value) in (str, bool, int):
        return True
    if type(value) is float:
        return value - value == 0  # neither infinite nor NaN
    if type(value) is list:
        return all(map(_is_plain, value))
    return type(value) is dict and all(type(key) is str and _is_plain(each) for key, each in value.items())


def _run() -> Optional[RunContext]:
    try:
        return current_run()
    except LookupError:
        return None


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
