"""The tools of a user's own agents, which run in this process: each call is made once in all attempts of a run.

Haystack has no hook that can hold a tool call back. The functions of its tools are public fields: those that stand
there are replaced by functions that record.
"""

import asyncio
import functools
import json
from typing import Any, Callable, Dict, Iterator, List

from haystack.tools import Tool

from agentforge_worker.adapter import RunContext, current_run

from .native import components_of

__all__ = ["record_tools"]

_TEXT = "haystack-text"
"""Key of a result that JSON can't hold: what is known of it in a later attempt."""
_MARK = "agentforge"


def record_tools(found: Any) -> None:
    """Have the calls of the tools of an agent recorded, and those of the agents of a pipeline."""
    for part in components_of(found):
        for tool in _tools(getattr(part, "tools", None)):
            _record(tool)


def _tools(tools: Any) -> Iterator[Tool]:
    """Yield tools, and those of toolsets, which may change while they run."""
    for each in getattr(tools, "tools", tools) or ():
        if isinstance(each, Tool):
            yield each
        else:
            yield from _tools(each)


def _record(tool: Tool) -> None:
    if tool.function is not None and not hasattr(tool.function, _MARK):
        tool.function = _blocking(tool, tool.function)
    waiting = getattr(tool, "async_function", None)
    if waiting is not None and not hasattr(waiting, _MARK):
        tool.async_function = _waiting(tool, waiting)  # type: ignore[attr-defined]


def _blocking(tool: Tool, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        run = current_run()
        if _on_a_loop():  # nowhere to wait
            return function(**arguments)
        live: List[Any] = []

        def made() -> Any:
            live.append(function(**arguments))
            return _to_json(live[0])

        return _from_json(run.tool_effect_blocking(tool.name, _told(tool, arguments), made), live)

    setattr(call, _MARK, True)
    return call


def _waiting(tool: Tool, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(**arguments: Any) -> Any:
        run: RunContext = current_run()
        live: List[Any] = []

        async def made() -> Any:
            live.append(await function(**arguments))
            return _to_json(live[0])

        return _from_json(await run.tool_effect(tool.name, _told(tool, arguments), made), live)

    setattr(call, _MARK, True)
    return call


def _told(tool: Tool, arguments: Dict[str, Any]) -> Dict[str, Any]:
    """Return the arguments that the model gave; the others are the agent's state."""
    known = tool.parameters.get("properties", {})
    return {name: _to_json(value) for name, value in arguments.items() if name in known}


def _to_json(value: Any) -> Any:
    plain = _plain(value)
    try:
        same = json.loads(json.dumps(plain)) == plain
    except (TypeError, ValueError):
        same = False
    return plain if same else {_TEXT: str(value)}


def _plain(value: Any) -> Any:
    """Return a result with Haystack's objects as the dictionaries that the model is told of."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


def _from_json(told: Any, live: List[Any]) -> Any:
    if live:
        return live[0]
    return told[_TEXT] if isinstance(told, dict) and set(told) == {_TEXT} else told


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
