"""AF6xx: tools. AF601 to AF604 are found in the tool worker and keep their code on the way here.

AF611 to AF614 are found before a run starts: what its tools are permitted to do can't be granted.
"""

from typing import Any, ClassVar

from agentforge.errors.config import MissingVariableError
from agentforge.errors.tree import AgentForgeError, ErrorInfo, Origin

__all__ = [
    "CodeDenied",
    "CodeUnfenced",
    "PathRefused",
    "SecretMissing",
    "ToolAbandoned",
    "ToolArgumentsWrong",
    "ToolFailure",
    "ToolLimitHit",
    "ToolLoadFailed",
    "ToolRaised",
    "ToolRejected",
    "ToolResultWrong",
    "ToolTimedOut",
    "ToolUnknown",
    "ToolWorkerDied",
    "ToolWorkerShared",
]


class ToolFailure(AgentForgeError):
    """A tool call that did not succeed; the base of this layer's errors."""

    code = "AF600"
    origin: ClassVar[Origin] = "tool"


class ToolLoadFailed(ToolFailure):
    """The tool's file can't be imported, or its function can't be described."""

    code = "AF601"
    origin = "user"
    default_hint = "Mend the tool's file; packages that it imports belong into `[tools] requirements`."


class ToolArgumentsWrong(ToolFailure):
    """The model called the tool with arguments that its types do not admit."""

    code = "AF602"
    origin = "model"
    default_hint = "Describe the parameters more closely (types, Literal, docstring), or set `on_error: tell`."


class ToolRaised(ToolFailure):
    """The tool's function raised an exception."""

    code = "AF603"
    default_hint = "`agentforge runs show` prints its traceback; `on_error: tell` hands the error to the model instead."


class ToolResultWrong(ToolFailure):
    """The tool returned something that JSON cannot hold."""

    code = "AF604"
    default_hint = "Return text, numbers, lists, dicts, dataclasses or pydantic models."


class ToolTimedOut(ToolFailure):
    """The tool did not return in time."""

    code = "AF605"
    default_hint = "Raise `timeout_s` of the tool, or let it give up by itself."


class ToolUnknown(ToolFailure):
    """The framework called a tool that the agent does not have."""

    code = "AF606"
    origin = "model"
    default_hint = "The model made the name up; name the tools in the instructions."


class ToolWorkerDied(ToolFailure):
    """The process that the tool ran in ended before the tool returned."""

    code = "AF607"
    default_hint = "Run it again; a tool that kills its process (memory, native crash) does so in every framework."


class ToolAbandoned(ToolFailure):
    """The run ended while the tool was still running; its result is not recorded."""

    code = "AF609"
    origin = "framework"
    default_hint = "The framework answered without waiting for the tool, or the run was cancelled or hit a limit."


class ToolRejected(ToolFailure):
    """A human rejected the call."""

    code = "AF610"
    origin = "user"
    default_hint = "The model is told; say in the instructions what it should do then."


class CodeDenied(AgentForgeError):
    """The agent has a tool that runs the model's code, and its permissions don't allow that."""

    code = "AF611"
    origin = "user"
    http_status = 422
    default_hint = (
        "Write `permissions: {code: ask}` into the agent file to allow each call yourself, `code: allow` for all."
    )


class CodeUnfenced(AgentForgeError):
    """The agent has a tool that runs the model's code, and its run would have no sandbox."""

    code = "AF612"
    origin = "user"
    http_status = 422
    default_hint = (
        'Remove `sandbox: none` from the agent file or `level = "none"` from `[sandbox]` in agentforge.toml; '
        "`agentforge doctor` says whether this machine offers a sandbox."
    )


class PathRefused(AgentForgeError):
    """`permissions.read` or `permissions.write` names what is not there, or what tools never get."""

    code = "AF613"
    origin = "user"
    http_status = 422


class SecretMissing(MissingVariableError):
    """`permissions.secrets` names environment variables that whoever started or resumed the run has not set.

    `details["variables"]` has all their names.
    """

    code = "AF614"


class ToolLimitHit(ToolFailure):
    """The tool ran into a limit of its sandbox and was told so; the code is that limit's, one of AF44x."""

    def __init__(self, limit: str, message: str, hint: str, *, shared: bool, **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.limit = limit
        self.shared = shared
        """Whether tools of another run may have used up what it was refused."""

    def info(self) -> ErrorInfo:
        """Return this error as data."""
        return ErrorInfo(self.limit, self.message, self.hint, "user", dict(self.details))


class ToolWorkerShared(ToolWorkerDied):
    """The process that the tool ran in was ended for a limit that the tool of another run may have hit."""
