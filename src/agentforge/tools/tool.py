"""A tool as the host knows it, and one call of it."""

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Tool", "ToolRequest"]


@dataclass(frozen=True, slots=True)
class Tool:
    """A python function of an agent version, or with `code` one that runs what the model writes."""

    file: str = ""
    """Path below the agent version's folder."""
    function: str = ""
    code: Literal["", "python"] = ""
    idempotent: bool = False
    approval: Literal["never", "always"] = "never"
    timeout_s: float = 60.0
    on_error: Literal["fail", "tell"] = "fail"
    """Whether a failing call fails the run or is told to the model."""
    name: str = ""
    """As the model calls it."""
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """JSON Schema of the arguments."""


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One call under way."""

    tool: Tool
    arguments: dict[str, Any]
    run_id: str
    idempotency_key: str
    """The same whenever this call of this run is made again."""
