"""The tools of a user's own graph: found through its nodes, their results kept in LangGraph's own serial form."""

import base64
from typing import Any, Iterator, List, Set

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.errors import GraphInterrupt
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

from .own_tools import Form, is_plain, record

__all__ = ["record_tools"]

_NATIVE = "langgraph"
"""Key of a result that JSON can't hold, in LangGraph's own serial form."""
_TEXT = "langgraph-text"
"""Key of one that has no such form either: what the model is told of it."""
_SERIAL = JsonPlusSerializer()


def record_tools(runnable: "Runnable[Any, Any]") -> List[str]:
    """Have the calls of a graph's tools recorded; return the names of tools with which that can't be done."""
    return [tool.name for tool in _tools(runnable, set()) if not record(tool, Serial())]


def _tools(runnable: Any, seen: Set[int]) -> Iterator[BaseTool]:
    if id(runnable) in seen:
        return
    seen.add(id(runnable))
    if isinstance(runnable, ToolNode):
        yield from runnable.tools_by_name.values()
    elif isinstance(runnable, CompiledStateGraph):
        for node in runnable.nodes.values():
            yield from _tools(node.bound, seen)


class Serial(Form):
    """Keeps a result in LangGraph's serial form."""

    leaving = (GraphInterrupt,)

    def to_json(self, value: Any) -> Any:
        """Return a result as the journal keeps it."""
        if is_plain(value):
            return value
        try:
            kind, data = _SERIAL.dumps_typed(value)
        except (TypeError, ValueError):
            return {_TEXT: str(value)}
        return {_NATIVE: [kind, base64.b64encode(data).decode("ascii")]}

    def from_json(self, kept: Any, live: Any) -> Any:
        """Return a result from the journal; `live` is the object itself where the call was made just now."""
        if isinstance(kept, dict) and len(kept) == 1:
            if _NATIVE in kept:
                kind, data = kept[_NATIVE]
                return _SERIAL.loads_typed((kind, base64.b64decode(data)))
            if _TEXT in kept:
                return kept[_TEXT] if live is None else live
        return kept
