"""AF7xx: runs and the engine."""

from typing import Self

from agentforge.errors.tree import AgentForgeError

__all__ = [
    "AnswerUnfit",
    "AnsweredFail",
    "AutoUnavailable",
    "CheckpointUnknown",
    "ChildRefused",
    "CrashLoop",
    "ExportInvalid",
    "ExportTooNew",
    "HostStopped",
    "InterruptExpired",
    "LimitReached",
    "NativeElsewhere",
    "NothingToResume",
    "OutputMismatch",
    "QueueFull",
    "ReplayDiverged",
    "RunTimedOut",
    "RunUnderWay",
    "RunUnknown",
    "ThreadInvalid",
    "ThreadUnknown",
    "VersionUnusable",
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
    """The host stops; the run goes on with the next one."""

    code = "AF706"
    http_status = 503
    default_hint = "`agentforge runs resume --all` starts a host that goes on with what was left."


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


class CrashLoop(AgentForgeError):
    """The run's worker ended again and again without one more effect."""

    code = "AF710"
    origin = "worker"
    default_hint = "The host's log has the workers' last words; `agentforge runs resume RUN` tries once more."


class ReplayDiverged(AgentForgeError):
    """The run asked for something else than the first time, and it was told to stop then."""

    code = "AF711"
    origin = "framework"
    default_hint = "`agentforge runs events RUN` shows the difference; keep time, chance and files out of the agent."


class AnswerUnfit(AgentForgeError):
    """The answer is none that the run waits for."""

    code = "AF712"
    origin = "user"
    http_status = 409
    default_hint = "`agentforge runs show RUN` says what the run waits for."


class NothingToResume(AgentForgeError):
    """The run has ended well, is under way, or waits for an answer."""

    code = "AF713"
    origin = "user"
    http_status = 409
    default_hint = "`agentforge runs show RUN` says how the run stands."


class CheckpointUnknown(AgentForgeError):
    """The run has no effect with this number."""

    code = "AF714"
    origin = "user"
    http_status = 404
    default_hint = "`agentforge runs checkpoints RUN` lists them."


class InterruptExpired(AgentForgeError):
    """Nobody answered in time."""

    code = "AF715"
    origin = "user"
    default_hint = "Give the question a default or more time; `agentforge runs resume RUN` asks once more."


class AnsweredFail(AgentForgeError):
    """A human decided that the run fails."""

    code = "AF716"
    origin = "user"
    default_hint = "`agentforge runs resume RUN` asks once more."


class RunUnderWay(AgentForgeError):
    """The run goes on just now."""

    code = "AF717"
    origin = "user"
    http_status = 409
    default_hint = "Wait for its end, or `agentforge runs cancel RUN`."


class VersionUnusable(AgentForgeError):
    """What the run was started with is gone from this machine."""

    code = "AF718"
    origin = "user"
    http_status = 409
    default_hint = "Install the release of AgentForge that started the run, or start it again as a new run."


class ExportInvalid(AgentForgeError):
    """The file is no export of a run, or is damaged."""

    code = "AF719"
    origin = "user"
    http_status = 400
    default_hint = "Export the run again: `agentforge runs export RUN FILE`."


class ExportTooNew(AgentForgeError):
    """The file was written by a later release."""

    code = "AF720"
    origin = "user"
    http_status = 400
    default_hint = "Update AgentForge: `pip install --upgrade inferloop-agentforge`."


class ThreadUnknown(AgentForgeError):
    """There is no thread of this name in the project."""

    code = "AF721"
    origin = "user"
    http_status = 404
    default_hint = "`agentforge threads list` shows the threads."


class QueueFull(AgentForgeError):
    """The host has as many runs as it may."""

    code = "AF722"
    origin = "host"
    http_status = 429
    default_hint = "Send it again later, or raise `[queue] max_queued`."


class ChildRefused(AgentForgeError):
    """A run asked for a child that it may not have: of a foreign file, with a wider fence, or one too many."""

    code = "AF723"
    origin = "user"
    http_status = 403
    default_hint = "Put the child's agent file beside its parent's, and what it may do into that file."


class NativeElsewhere(AgentForgeError):
    """A native agent, which is an object of one framework, was to run on another one."""

    code = "AF724"
    origin = "user"
    http_status = 422
