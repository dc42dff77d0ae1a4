"""AF7xx: runs and the engine."""

from typing import Self

from agentforge.errors.tree import AgentForgeError

__all__ = [
    "AutoUnavailable",
    "HostStopped",
    "LimitReached",
    "OutputMismatch",
    "RunTimedOut",
    "RunUnknown",
    "ThreadInvalid",
    "WorkerBroke",
]


class RunUnknown(AgentForgeError):
    """There is no run with this id in the project."""

    code = "AF701"
    origin = "user"
    http_status = 404
    default_hint = "`agentforge runs list` shows the runs."


class OutputMismatch(AgentForgeError):
    """The agent's answer does not match its output schema."""

    code = "AF702"
    origin = "model"
    default_hint = "Say in the instructions what is wanted, or relax `output`; a stronger model follows schemas better."


class RunTimedOut(AgentForgeError):
    """The run reached `limits.time_s`."""

    code = "AF703"
    origin = "user"
    default_hint = "Raise `limits.time_s` of the agent."


class LimitReached(AgentForgeError):
    """The run reached `limits.steps` or `limits.tokens`."""

    code = "AF704"
    origin = "user"
    default_hint = "Raise the limit in the agent's `limits`, or find out why it takes so many steps."

    @classmethod
    def of_steps(cls, limit: int) -> Self:
        """Return the error of a run that wants one more step than it may take."""
        return cls(f"the run reached its limit of {limit} steps")


class AutoUnavailable(AgentForgeError):
    """`framework: auto` needs measurements that this release does not make yet."""

    code = "AF705"
    origin = "user"
    http_status = 400
    default_hint = "Name a framework: `--on langchain`, or `framework: langchain` in the agent file."


class HostStopped(AgentForgeError):
    """The host stopped while the run was under way."""

    code = "AF706"
    default_hint = "Run it again."


class ThreadInvalid(AgentForgeError):
    """The thread's name can't be used."""

    code = "AF707"
    origin = "user"
    http_status = 400
    default_hint = "Use 1 to 200 printable characters."


class WorkerBroke(AgentForgeError):
    """The worker answered with something that the protocol does not allow."""

    code = "AF708"
    origin = "worker"
    default_hint = "This is a defect; the details hold what came."
