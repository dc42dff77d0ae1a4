"""AF9xx: the host, its API and its clients (900 and 901 are in `tree`)."""

from agentforge.errors.tree import AgentForgeError, ErrorInfo

__all__ = [
    "HostAlreadyRuns",
    "HostGone",
    "HostStartFailed",
    "HostVersionDiffers",
    "NoHost",
    "RemoteError",
    "RequestInvalid",
    "SocketUnusable",
    "StateNotWritable",
]


class RequestInvalid(AgentForgeError):
    """An API request does not have the form that the API describes."""

    code = "AF902"
    origin = "user"
    http_status = 422
    exit_code = 2
    default_hint = "`/openapi.json` describes every request."


class HostStartFailed(AgentForgeError):
    """The project's host could not be started."""

    code = "AF903"
    default_hint = "`agentforge host logs` shows what it said; `AGENTFORGE_HOST=inline` runs it inside the command."


class HostGone(AgentForgeError):
    """The host ended, or does not answer, while a client waited for it."""

    code = "AF904"
    default_hint = "`agentforge host status` and `agentforge host logs` show why; run the command again."


class HostAlreadyRuns(AgentForgeError):
    """Another host already serves this project."""

    code = "AF905"
    http_status = 409
    default_hint = "`agentforge host stop` ends it."


class NoHost(AgentForgeError):
    """No host serves this project."""

    code = "AF906"
    origin = "user"
    http_status = 404
    default_hint = "Any command that needs one starts it."


class SocketUnusable(AgentForgeError):
    """The folder of the host's socket belongs to somebody else or can't be written."""

    code = "AF907"
    default_hint = "Set `XDG_RUNTIME_DIR` to a folder of your own with a short path."


class HostVersionDiffers(AgentForgeError):
    """A busy host of another AgentForge version serves this project."""

    code = "AF908"
    http_status = 409
    default_hint = "Wait for its runs or stop it: `agentforge host stop`."


class StateNotWritable(AgentForgeError):
    """The folder of the project's state, `.agentforge`, or a file in it can't be written."""

    code = "AF909"
    default_hint = (
        "Make it writable (`ls -ld` shows whose it is), or work on a copy of the project in a folder of your own."
    )


class RemoteError(AgentForgeError):
    """An error that a host answered with: it keeps the code, hint and origin it had there."""

    def __init__(self, info: ErrorInfo, exit_code: int = 1) -> None:
        super().__init__(info.message, hint=info.hint, **info.details)
        self._info = info
        self.code = info.code  # type: ignore[misc]  # an instance's own code
        self.origin = info.origin  # type: ignore[misc]
        self.exit_code = exit_code  # type: ignore[misc]

    def info(self) -> ErrorInfo:
        """Return the error as it was in the host."""
        return self._info
