"""The root of the exception tree and the form in which an error travels (API, CLI, run results)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Origin = Literal["user", "framework", "adapter", "worker", "model", "tool", "host"]


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as data: what `error` is in a run's result and in an HTTP problem document.

    `details` holds what only a reader with time wants: a native traceback, the place in a file, a request id.
    """

    code: str
    message: str
    hint: str = ""
    origin: Origin = "host"
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the contract's object; `details` is left out when there are none."""
        data: dict[str, Any] = {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "origin": self.origin,
        }
        if self.details:
            data["details"] = self.details
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ErrorInfo":
        """Read the object that `to_dict` wrote."""
        return cls(
            data["code"],
            data["message"],
            data.get("hint", ""),
            data.get("origin", "host"),
            data.get("details", {}),
        )


class AgentForgeError(Exception):
    """A failure with a code. Subclasses set `code`, `origin`, `http_status` and usually a default `hint`.

    `message` states the facts, values in backticks; `hint` says what to type or change.
    """

    code: ClassVar[str] = "AF900"
    origin: ClassVar[Origin] = "host"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.details = details

    def info(self) -> ErrorInfo:
        """Return this error as data."""
        return ErrorInfo(self.code, self.message, self.hint, self.origin, dict(self.details))


class UsageFault(AgentForgeError):
    """The command line or the request itself is wrong (exit code 2)."""

    code = "AF901"
    origin = "user"
    http_status = 400
    exit_code = 2


class InternalError(AgentForgeError):
    """Something that AgentForge should have handled: our bug (exit code 3)."""

    code = "AF900"
    exit_code = 3
    default_hint = "This is a bug in AgentForge; the report file holds what to paste into an issue."
