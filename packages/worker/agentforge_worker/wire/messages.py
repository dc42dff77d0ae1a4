"""The names that go over the wire. Their parameters are documented in `docs/reference/protocol.md`."""

__all__ = ["ADAPTER_EVENTS", "LOG_STREAMS", "PROTOCOL_VERSION", "ErrorCode", "Method", "compatible"]

PROTOCOL_VERSION = "1.2"
"""major.minor: peers of one major understand each other; a minor only adds."""

ADAPTER_EVENTS = ("step.started", "step.finished", "message.added", "handoff.made")
"""Kinds of events that a worker may emit; all others are the host's alone."""
LOG_STREAMS = ("stdout", "stderr")


class Method:
    """Method names. Requests unless said otherwise."""

    # host to worker
    INITIALIZE = "initialize"
    AGENT_OPEN = "agent.open"
    RUN_START = "run.start"
    RUN_CANCEL = "run.cancel"  # notification
    TOOLS_OPEN = "tools.open"
    TOOL_INVOKE = "tool.invoke"
    PING = "ping"
    SHUTDOWN = "shutdown"
    # worker to host
    TOOL_CALL = "tool.call"
    EFFECT_OPEN = "effect.open"
    EFFECT_CLOSE = "effect.close"
    VALUE_TAKE = "value.take"
    CHECKPOINT_SAVE = "checkpoint.save"
    QUESTION_ASK = "question.ask"
    RUN_CALL = "run.call"
    EVENT_EMIT = "event.emit"  # notification
    LOG_WRITE = "log.write"  # notification
    RUN_WARN = "run.warn"  # notification
    HEARTBEAT = "heartbeat"  # notification
    # both ways
    REQUEST_CANCEL = "request.cancel"  # notification
    # reserved for warm forks: a child announces itself on a connection of its own
    FORK = "worker.fork"
    ANNOUNCE = "worker.announce"


class ErrorCode:
    """JSON-RPC error codes in use; -32000 and up are ours."""

    PARSE = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL = -32603
    FAILED = -32000
    """The work failed; `data` is the error object {code, message, hint, origin, details}."""
    CANCELLED = -32001


def compatible(theirs: str, ours: str = PROTOCOL_VERSION) -> bool:
    """Whether a peer that speaks version `theirs` can be talked to (same major)."""
    return theirs.split(".", 1)[0] == ours.split(".", 1)[0]
