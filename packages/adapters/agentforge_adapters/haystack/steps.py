"""Haystack's tracing as the run's steps and messages."""

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from haystack.tracing import Span, Tracer

from agentforge_worker.adapter import Message, RunContext, current_run

__all__ = ["Steps"]

_COMPONENT = "haystack.component.run"


class Steps(Tracer):
    """Makes steps of what Haystack says it does. It is called in the context of the run that does it."""

    def __init__(self, from_native: Callable[[Any], List[Message]]) -> None:
        self._from_native = from_native

    @contextlib.contextmanager
    def trace(
        self, operation_name: str, tags: Optional[Dict[str, Any]] = None, parent_span: Optional[Span] = None
    ) -> Iterator[Span]:
        """Start and finish a step."""
        run = _run()
        step = _step(operation_name, tags or {}, native=run is not None and run.spec is None)
        if run is None or step is None:
            yield Silent()
            return
        name, kind = step
        with run.step(name, kind=kind):
            yield Replies(run, self._from_native) if kind == "model" else Silent()

    def current_span(self) -> Optional[Span]:
        """Return none: steps have no inside."""
        return None


class Silent(Span):
    """A span that tells nothing."""

    def set_tag(self, key: str, value: Any) -> None:
        """Leave a tag."""

    def set_content_tag(self, key: str, value: Any) -> None:
        """Leave a tag with content."""


class Replies(Silent):
    """A model's span: what it answered is added to the run."""

    def __init__(self, run: RunContext, from_native: Callable[[Any], List[Message]]) -> None:
        self._run = run
        self._from_native = from_native

    def set_content_tag(self, key: str, value: Any) -> None:
        """Take the model's answers out of its output."""
        if not key.endswith(".output") or not isinstance(value, dict):
            return
        for reply in value.get("replies", ()):
            if not isinstance(reply, str):  # of a generator that does not chat
                for message in self._from_native(reply):
                    self._run.emit("message.added", vars(message))


def _step(operation: str, tags: Dict[str, Any], native: bool) -> Optional[Tuple[str, str]]:
    if operation == "haystack.agent.step.llm":
        return "model", "model"
    if operation == _COMPONENT and str(tags.get("haystack.component.type", "")).endswith("Generator"):
        return "model", "model"
    if not native:
        return None
    if operation == "haystack.agent.step.tool":
        return str(tags.get("haystack.tool.name")), "tool"
    if operation == _COMPONENT:
        return str(tags.get("haystack.component.name")), "task"
    return None


def _run() -> Optional[RunContext]:
    try:
        return current_run()
    except LookupError:
        return None
