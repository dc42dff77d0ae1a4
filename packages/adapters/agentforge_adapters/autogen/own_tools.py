"""The tools of a user's own agents, which run in this process: each call is made once in all attempts of a run.

AutoGen has no hook around tool calls. But all of its agents and workbenches call a tool by `BaseTool.run_json`, which
is public: it is replaced for the process, once a native agent is loaded.
"""

import functools
from typing import Any, Awaitable, Callable, List, Mapping, Optional

from autogen_core.tools import BaseTool

from agentforge_worker.adapter import RunContext, current_run

__all__ = ["record_tools"]

_RECORDED = "agentforge_recorded"


def record_tools() -> None:
    """Have the calls of all tools recorded."""
    if not hasattr(BaseTool.run_json, _RECORDED):
        BaseTool.run_json = _recorded(BaseTool.run_json)  # type: ignore[method-assign]


def _recorded(run_json: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(run_json)
    async def call(tool: "BaseTool[Any, Any]", args: Mapping[str, Any], *rest: Any, **options: Any) -> Any:
        run = _native_run()
        if run is None:
            return await run_json(tool, args, *rest, **options)
        live: List[Any] = []

        async def made() -> str:
            live.append(await run_json(tool, args, *rest, **options))
            return tool.return_value_as_string(live[0])

        with run.step(tool.name, kind="tool"):
            told = await run.tool_effect(tool.name, args, made)
        return live[0] if live else told  # as text, which is what the model is told of either

    setattr(call, _RECORDED, True)
    return call


def _native_run() -> Optional[RunContext]:
    try:
        run = current_run()
    except LookupError:
        return None
    return None if run.spec is not None else run
