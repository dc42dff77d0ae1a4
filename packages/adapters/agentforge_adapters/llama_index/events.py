"""LlamaIndex's instrumentation as the run's model steps and messages."""

import contextlib
from typing import Any, Dict, Iterator, List

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)

from agentforge_worker.adapter import Message, RunContext, StepScope, current_run

from .messages import from_native

__all__ = ["Steps"]

_OUTER = "structured_llm"
"""LlamaIndex's model that asks another one for an answer in a form: the other one's requests are the steps."""


class Steps:
    """Emits the model steps and answers of the runs under way.

    The dispatcher is one per process. It calls its handlers in the context of the code that emits the event, so
    `current_run` names the run.
    """

    def __init__(self) -> None:
        self._open: Dict[RunContext, Dict[Any, List[StepScope]]] = {}
        get_dispatcher().add_event_handler(Handler(steps=self))

    @contextlib.contextmanager
    def of(self, run: RunContext) -> Iterator[None]:
        """Report a run's steps while the block lasts; those still open at its end did not succeed."""
        steps = self._open[run] = {}
        try:
            yield
        finally:
            del self._open[run]
            for scope in [scope for scopes in steps.values() for scope in scopes]:
                scope.__exit__(Exception, None, None)

    def start(self, event: Any) -> None:
        """Start a model step."""
        if event.model_dict.get("class_name") == _OUTER:
            return
        steps = self._open.get(current_run())
        if steps is not None:
            scope = current_run().step("model", kind="model")
            scope.__enter__()
            steps.setdefault(event.span_id, []).append(scope)

    def finish(self, event: Any) -> None:
        """Finish the model step that is under way in the same span."""
        scopes = self._open.get(current_run(), {}).get(event.span_id)
        if not scopes:
            return
        scopes.pop(0).__exit__(None, None, None)
        if event.response is not None:
            message = getattr(event.response, "message", None)
            added = from_native(message) if message else Message("assistant", event.response.text)
            current_run().emit("message.added", vars(added))


class Handler(BaseEventHandler):
    """What the dispatcher calls."""

    steps: Any

    @classmethod
    def class_name(cls) -> str:
        """Return the name that LlamaIndex wants of it."""
        return "AgentForgeSteps"

    def handle(self, event: Any, **more: Any) -> None:
        """Take an event."""
        if isinstance(event, (LLMChatStartEvent, LLMCompletionStartEvent)):
            self.steps.start(event)
        elif isinstance(event, (LLMChatEndEvent, LLMCompletionEndEvent)):
            self.steps.finish(event)
