"""The tools of a user's own crew, which run in this process: each call is made once in all attempts of a run.

CrewAI tells before and after each tool call of an agent, in the thread that makes it. A call that was made in an
earlier attempt is held back by the first hook; the second one puts in what the model was told then.
"""

import asyncio
from contextvars import ContextVar
from typing import Optional, Tuple, Union

from crewai.hooks import HookAborted, ToolCallHookContext

from agentforge_worker.adapter import EffectFailed, RunContext, ToolCall, current_run

__all__ = ["begin_call", "end_call"]

_DELEGATING = {"delegate_work_to_coworker", "ask_question_to_coworker"}
"""CrewAI's own tools that have another agent work: what that one does is recorded by itself."""

_Begun = Optional[Union[ToolCall, EffectFailed]]
_begun: "ContextVar[Tuple[_Begun, ...]]" = ContextVar("agentforge_crewai_calls", default=())
"""The calls under way, the innermost last."""


def begin_call(context: ToolCallHookContext) -> Optional[bool]:
    """Announce a call; False where it must not be made (again)."""
    run = _native_run()
    if run is None:
        return None
    begun: _Begun = None
    if context.tool_name not in _DELEGATING:
        try:
            begun = run.wait(run.begin_tool(context.tool_name, context.tool_input))
        except EffectFailed as failure:  # raised here it would be swallowed
            begun = failure
    _begun.set((*_begun.get(), begun))
    return None if begun is None or (isinstance(begun, ToolCall) and not begun.recorded) else False


def end_call(context: ToolCallHookContext) -> Optional[str]:
    """Record what the model is told; return it where an earlier attempt has it."""
    run = _native_run()
    if run is None or not _begun.get():
        return None
    *outer, begun = _begun.get()
    _begun.set(tuple(outer))
    if begun is None:
        return None
    try:
        if isinstance(begun, EffectFailed):
            raise begun
        if begun.recorded:
            return str(begun.result())
        run.wait(begun.returned(context.tool_result))
    except EffectFailed as failure:
        raise HookAborted(failure.text) from failure
    return None


def _native_run() -> Optional[RunContext]:
    """Return the run, if its tools are its own and there is a thread to wait in."""
    try:
        run = current_run()
    except LookupError:
        return None
    return None if run.spec is not None or _on_a_loop() else run


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
