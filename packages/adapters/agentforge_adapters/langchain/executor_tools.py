"""The tools of a user's own executor, which run in this process: each call is made once in all attempts of a run."""

import json
from typing import Any, List

from langchain.agents import AgentExecutor

from .own_tools import Form, is_plain, record

__all__ = ["record_tools"]

_TEXT = "langchain-text"
"""Key of a result that JSON can't hold: what the model is told of it."""


def record_tools(runnable: Any) -> List[str]:
    """Have the calls of an executor's tools recorded; return the names of tools with which that can't be done."""
    tools = runnable.tools if isinstance(runnable, AgentExecutor) else []
    return [tool.name for tool in tools if not record(tool, Told())]


class Told(Form):
    """Keeps what the executor makes of a result for the model."""

    def to_json(self, value: Any) -> Any:
        """Return a result as the journal keeps it."""
        if is_plain(value):
            return value
        try:
            return {_TEXT: json.dumps(value, ensure_ascii=False)}
        except (TypeError, ValueError):
            return {_TEXT: str(value)}

    def from_json(self, kept: Any, live: Any) -> Any:
        """Return a result from the journal; `live` is the object itself where the call was made just now."""
        if isinstance(kept, dict) and list(kept) == [_TEXT]:
            return kept[_TEXT] if live is None else live
        return kept
