"""CrewAI's event bus as the run's steps."""

import contextlib
from typing import Any, Dict, Iterator

from crewai.events import (
    LLMCallCompletedEvent,
    LLMCallFailedEvent,
    LLMCallStartedEvent,
    TaskCompletedEvent,
    TaskFailedEvent,
    TaskStartedEvent,
    ToolUsageErrorEvent,
    ToolUsageFinishedEvent,
    ToolUsageStartedEvent,
    crewai_event_bus,
)

from agentforge_worker.adapter import Message, RunContext, StepScope, current_run

from .messages import neutral_calls

__all__ = ["Steps"]


class Steps:
    """Emits the steps and messages of the runs under way.

    The bus is one per process. It calls its async handlers in the context of the code that emitted the event, so
    `current_run` names the run, and one after another, so steps begin before they end.
    """

    def __init__(self) -> None:
        self._open: Dict[RunContext, Dict[str, StepScope]] = {}
        for started in (LLMCallStartedEvent, ToolUsageStartedEvent, TaskStartedEvent):
            crewai_event_bus.on(started)(self._start)
        for finished in (LLMCallCompletedEvent, ToolUsageFinishedEvent, TaskCompletedEvent):
            crewai_event_bus.on(finished)(self._finish)
        for failed in (LLMCallFailedEvent, ToolUsageErrorEvent, TaskFailedEvent):
            crewai_event_bus.on(failed)(self._fail)

    @contextlib.contextmanager
    def of(self, ctx: RunContext) -> Iterator[None]:
        """Report a run's steps while the block lasts; those still open at its end did not succeed."""
        steps = self._open[ctx] = {}
        try:
            yield
        finally:
            del self._open[ctx]
            for scope in reversed(list(steps.values())):
                scope.__exit__(Exception, None, None)

    async def _start(self, source: Any, event: Any) -> None:
        run = current_run()
        steps = self._open.get(run)
        if steps is not None:
            name, kind = _name(event)
            scope = steps[event.event_id] = run.step(name, kind=kind)
            scope.__enter__()

    async def _finish(self, source: Any, event: Any) -> None:
        run = current_run()
        if self._end(run, event) and isinstance(event, LLMCallCompletedEvent):
            run.emit("message.added", vars(_answer(event.response)))

    async def _fail(self, source: Any, event: Any) -> None:
        self._end(current_run(), event, Exception)

    def _end(self, run: RunContext, event: Any, failure: Any = None) -> bool:
        scope = self._open.get(run, {}).pop(event.started_event_id, None)
        if scope is None:
            return False
        scope.__exit__(failure, None, None)
        return True


def _name(event: Any) -> "tuple[str, str]":
    if isinstance(event, ToolUsageStartedEvent):
        return event.tool_name, "tool"
    return ("model", "model") if isinstance(event, LLMCallStartedEvent) else ("task", "task")


def _answer(response: Any) -> Message:
    if isinstance(response, list):
        return Message("assistant", "", neutral_calls(response))
    return Message("assistant", str(response))
