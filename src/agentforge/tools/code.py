"""Tools that run code which the model wrote: what the model is told of them, and of how its code ended."""

from dataclasses import replace
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta

from agentforge.errors.sandbox import LimitExceeded
from agentforge.errors.tools import ToolArgumentsWrong, ToolLimitHit, ToolTimedOut, ToolWorkerDied
from agentforge.tools.tool import Tool, ToolRequest

__all__ = ["MOST_REPORT", "CodeRunner", "CodeTools"]

MOST_REPORT = 1 << 20
"""Bytes that are read of what the process of the code reports."""
_MOST_CODE = 200_000
_MOST_SHOWN = 1000
_DESCRIPTION = (
    "Runs Python code and returns what it printed (`stdout`, `stderr`), the value of its last expression (`result`), "
    "the `error` if it failed, and the names of the `files` that it made or changed. Each call is a new process: "
    "variables are gone after it, files in the working directory are still there. There is no network."
)
_PARAMETERS = {
    "type": "object",
    "properties": {"code": {"type": "string", "description": "The Python code to run."}},
    "required": ["code"],
}
_Output = Annotated[str, Meta(max_length=25_000)]


class CodeRunner(Protocol):
    """What runs code for one run; given by the engine."""

    async def run(self, code: str, run_id: str, timeout_s: float) -> tuple[bytes, str]:
        """Run code in a sandbox of its own, in the run's workspace.

        Returns what its process reported, at most one byte more than `MOST_REPORT`, and in words how that ended.
        Raises TimeoutError long after `timeout_s`: the process itself stops the code in time and reports that; the
        LimitExceeded that it was ended for.
        """
        ...


class _Error(msgspec.Struct, forbid_unknown_fields=True):
    type: Annotated[str, Meta(max_length=200)]
    message: Annotated[str, Meta(max_length=5000)]
    traceback: Annotated[str, Meta(max_length=10_000)]


class _Report(msgspec.Struct, forbid_unknown_fields=True):
    """What a process says that runs code: whatever the code makes it say. `docs/reference/protocol.md` has it."""

    ended: Literal["done", "timed_out", "refused"]
    stdout: _Output
    stderr: _Output
    result: Annotated[str, Meta(max_length=15_000)] | None
    error: _Error | None
    files: Annotated[list[Annotated[str, Meta(max_length=500)]], Meta(max_length=100)]

    def value(self) -> dict[str, Any]:
        """Return what the model gets."""
        told: dict[str, Any] = msgspec.to_builtins(self)
        del told["ended"]
        return told


class CodeTools:
    """The code tools of one run."""

    def __init__(self, runner: CodeRunner) -> None:
        self._runner = runner

    @staticmethod
    def describe(tool: Tool) -> Tool:
        """Return the tool with description and parameters filled in."""
        return replace(tool, description=_DESCRIPTION, parameters=_PARAMETERS)

    async def call(self, request: ToolRequest) -> Any:
        """Return how the code ended: {stdout, stderr, result, error, files}, also where it raised an exception.

        Raises ToolArgumentsWrong, ToolTimedOut, ToolLimitHit, and ToolWorkerDied where the code has ended the process
        that was to report of it.
        """
        tool = request.tool
        code = _code(request)
        try:
            data, end = await self._runner.run(code, request.run_id, tool.timeout_s)
        except TimeoutError:
            raise _timed_out(tool) from None
        except LimitExceeded as error:
            text = f"the code given to `{tool.name}` was ended: {error.message}"
            raise ToolLimitHit(error.code, text, error.hint, shared=False) from error
        report = _read(data)
        if report is None or report.ended == "refused":
            raise ToolWorkerDied(f"the process of the tool `{tool.name}` did not say how its code ended: {end}")
        if report.ended == "timed_out":
            raise _timed_out(tool, report)
        return report.value()


def _code(request: ToolRequest) -> str:
    arguments = dict(request.arguments)
    code = arguments.pop("code", None)
    name = request.tool.name
    if arguments:
        unknown = ", ".join(f"`{each[:40]}`" for each in list(arguments)[:5])
        raise ToolArgumentsWrong(f"`{name}` has no parameter {unknown} (it has: `code`)")
    if not isinstance(code, str):
        raise ToolArgumentsWrong(f"`code` of `{name}` is {'missing' if code is None else 'no text'}: expected text")
    if len(code) > _MOST_CODE:
        raise ToolArgumentsWrong(f"`code` of `{name}` has {len(code)} characters; at most {_MOST_CODE} are run")
    return code


def _read(data: bytes) -> _Report | None:
    if len(data) > MOST_REPORT:
        return None
    try:
        return msgspec.json.decode(data, type=_Report)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _timed_out(tool: Tool, report: _Report | None = None) -> ToolTimedOut:
    text = f"the code given to `{tool.name}` did not end within {tool.timeout_s:g} s and was stopped"
    if report is None:
        return ToolTimedOut(text)
    shown = report.stdout[-_MOST_SHOWN:]
    return ToolTimedOut(f"{text}; it had printed: {shown}" if shown else text, **report.value())
