"""How a failed tool ends a run in releases that catch every `Exception`, tell the model of it and try again."""

import contextlib
from typing import Any, Iterator, Mapping

from agentforge_worker.adapter import ToolFailed

from .transcript import transcript

__all__ = ["call_tool", "leaving"]


class Stopped(BaseException):
    """A tool has failed: the run is to leave the framework. Like a cancellation it is no `Exception`."""

    def __init__(self, failure: ToolFailed) -> None:
        super().__init__(failure.text)
        self.failure = failure


def call_tool(name: str, arguments: Mapping[str, Any]) -> Any:
    """Call a tool of the agent's; a failure leaves the framework."""
    try:
        return transcript.get().call_tool(name, arguments)
    except ToolFailed as failure:
        raise Stopped(failure) from failure


@contextlib.contextmanager
def leaving() -> Iterator[None]:
    """Let the failure of a tool out of the block as what it is."""
    try:
        yield
    except Stopped as stopped:
        raise stopped.failure from None
