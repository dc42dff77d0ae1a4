"""What the Python client gives back: events and results as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentforge.errors.host import RemoteError
from agentforge.errors.tree import ErrorInfo

__all__ = ["RunEvent", "RunResult"]


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event of a run; order is `seq`."""

    seq: int
    kind: str
    at: str
    data: Mapping[str, Any]
    attempt: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunEvent":
        """Read the API's object."""
        return cls(data["seq"], data["kind"], data["at"], data["data"], data.get("attempt", 0))


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run stands or ended. `raw` is the whole object of the API."""

    run_id: str
    agent: str
    framework: str
    release: str
    status: str
    output: Any
    tool_calls: list[dict[str, Any]]
    model_calls: int
    usage: Mapping[str, Any]
    cost_usd: float | None
    duration_ms: int | None
    error: ErrorInfo | None
    interrupts: list[dict[str, Any]]
    """What the run waits for: `id`, `kind`, `message`, `data`, `answers`, `schema`, `raised_at`, `expires_at`."""
    attempts: int
    """How many workers have tried it."""
    replayed_effects: int
    """Effects that were answered from the journal in place of being done again."""
    sandbox: str
    """The level of the sandbox that was in force."""
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the run succeeded."""
        return self.status == "succeeded"

    def check(self) -> "RunResult":
        """Return this result if the run succeeded, else raise its error."""
        if self.error is not None:
            raise RemoteError(self.error)
        if not self.ok:
            waits = "; ".join(str(each["message"]) for each in self.interrupts)
            raise RemoteError(ErrorInfo("AF709", f"run `{self.run_id}` is {self.status}" + (waits and f": {waits}")))
        return self

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RunResult":
        """Read the API's object."""
        error = data.get("error")
        return cls(
            run_id=data["run_id"],
            agent=data["agent"],
            framework=data["framework"],
            release=data["release"],
            status=data["status"],
            output=data["output"],
            tool_calls=data["tool_calls"],
            model_calls=data["model_calls"],
            usage=data["usage"],
            cost_usd=data["cost_usd"],
            duration_ms=data["duration_ms"],
            error=ErrorInfo.from_dict(error) if error else None,
            interrupts=list(data.get("interrupts", ())),
            attempts=data.get("attempts", 0),
            replayed_effects=data.get("replayed_effects", 0),
            sandbox=data.get("sandbox", ""),
            raw=data,
        )
