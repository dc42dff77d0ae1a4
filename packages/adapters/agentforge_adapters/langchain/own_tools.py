"""A user's own tools, which run in this process: each call is made once in all attempts of a run. For all releases.

LangChain has a hook around tool calls (`wrap_tool_call`, from 1.0) for who makes an agent, and none for who is given
one. So the functions of its tools are replaced in the tools themselves.
"""

import asyncio
import functools
from abc import ABC, abstractmethod
from typing import Any, Callable, Dict, List, Optional, Set, Tuple, Type

from langchain_core.tools import BaseTool, StructuredTool, Tool

from agentforge_worker.adapter import RunContext, current_run

__all__ = ["Form", "is_plain", "record"]

_MARK = "agentforge_own_tool"
"""Attribute of a function that stands for a tool's."""
_LEFT = {"langchain-left": True}
"""Stands for the result of a call that left the framework: the function is called once more, and leaves again."""


class Form(ABC):
    """How results that JSON can't hold are kept."""

    leaving: Tuple[Type[BaseException], ...] = ()
    """What a tool raises to leave the framework and to be called again: no end of a call."""

    @abstractmethod
    def to_json(self, value: Any) -> Any:
        """Return a result as the journal keeps it."""

    @abstractmethod
    def from_json(self, kept: Any, live: Any) -> Any:
        """Return a result from the journal; `live` is the object itself where the call was made just now."""


def record(tool: BaseTool, form: Form) -> bool:
    """Have a tool's calls recorded; return whether that can be done."""
    if not isinstance(tool, (StructuredTool, Tool)):
        return False
    call = _OwnTool(tool, form)
    if tool.func is not None and not hasattr(tool.func, _MARK):
        tool.func = call.blocking(tool.func)
    if tool.coroutine is not None and not hasattr(tool.coroutine, _MARK):
        tool.coroutine = call.waiting(tool.coroutine)
    return True


def is_plain(value: Any) -> bool:
    """Whether a value is the same when it comes back from JSON."""
    if value is None or type(value) in (str, bool, int):
        return True
    if type(value) is float:
        return value - value == 0  # neither infinite nor NaN
    if type(value) is list:
        return all(map(is_plain, value))
    return type(value) is dict and all(type(key) is str and is_plain(each) for key, each in value.items())


class _OwnTool:
    """Makes the functions that stand for those of a tool."""

    def __init__(self, tool: BaseTool, form: Form) -> None:
        self._form = form
        self._name = tool.name
        self._arguments = _arguments(tool)
        self._pair = getattr(tool, "response_format", "content") == "content_and_artifact"  # from 0.2
        self._idempotent = bool((tool.metadata or {}).get("idempotent"))

    def blocking(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for a plain function."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            run = None if _on_a_loop() else _run()
            if run is None:  # nobody to ask, or nowhere to wait
                return function(*args, **kwargs)
            live: List[Any] = []
            left: List[BaseException] = []

            def made() -> Any:
                try:
                    live.append(function(*args, **kwargs))
                except self._form.leaving as error:
                    left.append(error)
                    return _LEFT
                return self._to_json(live[0])

            told = run.tool_effect_blocking(self._name, self._told(args, kwargs), made, idempotent=self._idempotent)
            if left:
                raise left[0]
            return function(*args, **kwargs) if told == _LEFT else self._from_json(told, live)

        setattr(call, _MARK, True)
        return call

    def waiting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what stands for a coroutine function."""

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            run = _run()
            if run is None:
                return await function(*args, **kwargs)
            live: List[Any] = []
            left: List[BaseException] = []

            async def made() -> Any:
                try:
                    live.append(await function(*args, **kwargs))
                except self._form.leaving as error:
                    left.append(error)
                    return _LEFT
                return self._to_json(live[0])

            told = await run.tool_effect(self._name, self._told(args, kwargs), made, idempotent=self._idempotent)
            if left:
                raise left[0]
            return await function(*args, **kwargs) if told == _LEFT else self._from_json(told, live)

        setattr(call, _MARK, True)
        return call

    def _told(self, args: Any, kwargs: Dict[str, Any]) -> Dict[str, Any]:
        """Return the arguments that the model gave; the others are the framework's."""
        if args:
            return {"input": self._form.to_json(args[0])}
        return {name: self._form.to_json(value) for name, value in kwargs.items() if name in self._arguments}

    def _to_json(self, value: Any) -> Any:
        if self._pair and isinstance(value, tuple):
            return [self._form.to_json(part) for part in value]
        return self._form.to_json(value)

    def _from_json(self, told: Any, live: List[Any]) -> Any:
        if self._pair and isinstance(told, list):
            return tuple(self._form.from_json(part, live[0][at] if live else None) for at, part in enumerate(told))
        return self._form.from_json(told, live[0] if live else None)


def _arguments(tool: BaseTool) -> Set[str]:
    """Return the names of a tool's arguments that the model gives."""
    schema: Any = getattr(tool, "tool_call_schema", None) or tool.args_schema  # the first from 0.2
    if schema is None:
        return set()
    if isinstance(schema, dict):
        return set(schema["properties"])
    return set(getattr(schema, "model_fields", None) or schema.__fields__)


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
