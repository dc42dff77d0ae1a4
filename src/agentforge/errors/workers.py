"""AF4xx: worker processes and the wire. AF42x are translated by the worker itself (`runtime/failures.py`)."""

from agentforge.errors.tree import AgentForgeError

__all__ = ["HandshakeFailed", "RemainsAlive", "WorkerDied", "WorkerSilent", "WorkerStartFailed"]


class WorkerStartFailed(AgentForgeError):
    """The worker process could not be started, or ended before it had said anything."""

    code = "AF401"
    origin = "worker"
    default_hint = "Rebuild the environment: `agentforge env remove` it and run again."


class HandshakeFailed(AgentForgeError):
    """The process that was started does not speak the protocol, or its adapter could not be loaded."""

    code = "AF402"
    origin = "worker"
    default_hint = "See the adapter's traceback in the details."


class WorkerDied(AgentForgeError):
    """The worker ended while runs were under way in it."""

    code = "AF403"
    origin = "worker"
    default_hint = "Run it again; `agentforge host logs` shows what the worker wrote last."


class WorkerSilent(AgentForgeError):
    """The worker sent no heartbeat for too long and was killed."""

    code = "AF404"
    origin = "worker"
    default_hint = "Something blocks the worker's loop; a blocking agent belongs into a plain function."


class RemainsAlive(AgentForgeError):
    """Workers that an earlier host of the project has left do not end, so its runs can't be gone on with."""

    code = "AF405"
    default_hint = "End the processes that the message names, then run the command again."
