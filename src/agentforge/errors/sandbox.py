"""AF44x and AF45x: the fence around workers: no sandbox, a limit that was hit, something that is not allowed."""

from agentforge.errors.tree import AgentForgeError
from agentforge.errors.workers import WorkerDied

__all__ = [
    "REPORTED_LIMITS",
    "CommonsExceeded",
    "CpuExceeded",
    "DiskExceeded",
    "FileSizeExceeded",
    "Flooded",
    "LimitExceeded",
    "MemoryExceeded",
    "NetworkRefused",
    "NetworkUnreachable",
    "OpenFilesExceeded",
    "OutputExceeded",
    "ProcessesExceeded",
    "SandboxTooWeak",
    "SandboxUnavailable",
    "WorkspaceReplaced",
]


class SandboxUnavailable(AgentForgeError):
    """This machine can't start a sandbox of the level that a run needs."""

    code = "AF440"
    default_hint = '`agentforge doctor` says why and what to do; `[sandbox] level = "none"` does without a fence.'


class SandboxTooWeak(AgentForgeError):
    """An agent asks for a weaker fence than the project, or this machine, allows."""

    code = "AF441"
    origin = "user"
    default_hint = "Remove `sandbox` from the agent file, or have whoever keeps the policy lower `minimum`."


class LimitExceeded(WorkerDied):
    """A worker was ended because it used more than its limit; never raised as such."""


class MemoryExceeded(LimitExceeded):
    """The worker's processes used more memory than `limits.memory_mib`."""

    code = "AF442"
    default_hint = "Raise `memory_mib` under `limits` in the agent file, or under `[limits]` in agentforge.toml."


class ProcessesExceeded(LimitExceeded):
    """The worker had more processes and threads than `limits.processes`."""

    code = "AF443"
    default_hint = "Raise `processes` under `limits` in the agent file, or under `[limits]` in agentforge.toml."


class OpenFilesExceeded(LimitExceeded):
    """A process opened more files and sockets than `limits.open_files`."""

    code = "AF444"
    default_hint = "Raise `open_files` under `limits` in the agent file, or under `[limits]` in agentforge.toml."


class FileSizeExceeded(LimitExceeded):
    """A file grew beyond `limits.file_mib`."""

    code = "AF445"
    default_hint = "Raise `file_mib` under `limits` in the agent file, or under `[limits]` in agentforge.toml."


class DiskExceeded(LimitExceeded):
    """A run's workspace grew beyond `limits.disk_mib`, or a scratch folder beyond `limits.scratch_mib`."""

    code = "AF446"
    default_hint = "Raise `disk_mib` or `scratch_mib` under `limits` in the agent file or in agentforge.toml."


class CommonsExceeded(DiskExceeded):
    """What several workers may write besides the workspaces of runs under way has grown: it may be anybody's doing."""


class OutputExceeded(AgentForgeError):
    """A run wrote more into its log, events and result than `limits.output_mib` or `limits.events` allow."""

    code = "AF447"
    origin = "user"
    default_hint = "Raise `output_mib` or `events` under `limits` in the agent file or in agentforge.toml."


class Flooded(LimitExceeded):
    """A worker went on sending more than the host reads from it, `limits.frames_per_s`, for too long."""

    code = "AF448"
    default_hint = "See `agentforge runs events` for what it sends; raise `frames_per_s` under `limits` if it must."


class CpuExceeded(LimitExceeded):
    """A worker kept more processors busy than `limits.cpus`, and could not be slowed down."""

    code = "AF449"
    default_hint = "Raise `cpus` under `limits` in the agent file, or under `[limits]` in agentforge.toml."


class NetworkRefused(AgentForgeError):
    """A worker asked for a connection that its agent's `network` doesn't allow; the worker gets it as an HTTP error.

    Details: `why` (`unlisted`, `address`, `request`) and `status`, the HTTP status that says so.
    """

    code = "AF450"
    origin = "user"
    http_status = 403
    default_hint = "Add it to `network` in the agent file, for example `network: [api.example.com:443]`."


class NetworkUnreachable(AgentForgeError):
    """A host that an agent's `network` allows can't be found or reached from the host; the worker gets an HTTP error.

    Details: `why` (`unresolved`, `unreachable`) and `status`, the HTTP status that says so.
    """

    code = "AF451"
    http_status = 502
    default_hint = "Check the name and the port, and that this machine reaches it (`curl -v https://HOST:PORT`)."


class WorkspaceReplaced(AgentForgeError):
    """Something that is no folder of its own, a link for example, stands where a run's workspace has to be."""

    code = "AF452"
    origin = "user"
    default_hint = "Code of the agent has put it there. Look at it, remove it, and start the run anew."


REPORTED_LIMITS = frozenset(
    kind.code for kind in (MemoryExceeded, ProcessesExceeded, OpenFilesExceeded, FileSizeExceeded, DiskExceeded)
)
"""Codes of the limits that a program itself is told of when it hits them, so that its worker reports them."""
