"""AF6xx: tools. AF601 to AF604 are found in the tool worker and keep their code on the way here."""

from typing import ClassVar

from agentforge.errors.tree import AgentForgeError, Origin

__all__ = [
    "ToolAbandoned",
    "ToolArgumentsWrong",
    "ToolFailure",
    "ToolLoadFailed",
    "ToolRaised",
    "ToolRejected",
    "ToolResultWrong",
    "ToolTimedOut",
    "ToolUnknown",
    "ToolWorkerDied",
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
