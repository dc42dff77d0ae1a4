"""Tool calls that failed: AutoGen makes text for the model of what a tool raises, and the run is to end."""

from contextvars import ContextVar
from typing import List

from agentforge_worker.adapter import ToolFailed

__all__ = ["failures", "raise_failure"]

failures: "ContextVar[List[ToolFailed]]" = ContextVar("agentforge_autogen_failures")
"""The failures of the run; what its tasks share."""


def raise_failure() -> None:
    """End the run if one of its tools has failed."""
    for failure in failures.get([]):
        raise failure
