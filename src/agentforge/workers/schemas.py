"""What a worker may say, as schemas: a worker is hostile input, so nothing of it is used that they do not allow.

`check_message` is for what comes of its own accord, `check_answer` and `check_failure` for answers to the host's
requests. They raise ValueError; a worker that made one of them do so has broken the protocol and is replaced. Whether
a worker may speak of a run is not decided here: the engine knows which runs are under way in it.

Unknown fields are ignored, so that a later minor of the protocol can add some.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentforge_worker.wire import ErrorCode, Method, RpcError

__all__ = [
    "Failure",
    "Question",
    "RunAnswer",
    "check_answer",
    "check_depth",
    "check_failure",
    "check_message",
    "read_message",
]

MAX_DEPTH = 128
"""Lists and objects inside each other in one message."""
MAX_CONTAINERS = 500_000
"""Lists and objects in one message: an empty one takes two bytes on the wire and sixty in memory."""
MAX_VALUES = 1_000_000
"""Values in one message: a short text takes four bytes on the wire and seventy in memory."""
_SECONDS = 10 * 366 * 86400

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_RunId = Annotated[str, Meta(min_length=1, max_length=100)]
_Attempt = Annotated[int, Meta(ge=1, le=1_000_000)]
_Line = Annotated[str, Meta(max_length=16_384)]
_Text = Annotated[str, Meta(max_length=100_000)]
_Object = dict[str, Any]
_Seconds = Annotated[float, Meta(gt=0, le=_SECONDS)]
_Code = Annotated[str, Meta(pattern=r"\AAF[0-9]{3}\Z")]


# ---- requests and notifications


class _OfRun(msgspec.Struct):
    run_id: _RunId
    attempt: _Attempt


class _ToolCall(_OfRun):
    name: _Name
    arguments: _Object


class _EffectOpen(_ToolCall):
    idempotent: bool = False


class _Raised(msgspec.Struct):
    code: Annotated[str, Meta(max_length=200)] = ""
    message: _Text = ""
    details: _Object | None = None


class _EffectClose(_OfRun):
    effect: _Name
    value: Any = None
    error: _Raised | None = None


class _ValueTake(_OfRun):
    kind: Literal["now", "random"]


class _CheckpointSave(_OfRun):
    name: _Name


class Question(_OfRun):
    """The parameters of `question.ask`."""

    question: _Text
    options: Annotated[list[Any], Meta(max_length=1000)] | None = None
    schema: _Object | None = None
    timeout_s: _Seconds | None = None
    default: Any = None
    has_default: bool = False


class _RunCall(_OfRun):
    agent: Annotated[str, Meta(min_length=1, max_length=1000)] | _Object
    input: Any = None
    on: _Name | None = None
    model: _Name | None = None
    timeout_s: _Seconds | None = None


class _EventEmit(_OfRun):
    kind: Literal["step.started", "step.finished", "message.added", "handoff.made"]
    data: _Object


class _LogWrite(msgspec.Struct):
    stream: Literal["stdout", "stderr"]
    text: _Line
    run_id: _RunId | None = None
    attempt: _Attempt | None = None


class _RunWarn(_OfRun):
    message: _Line


class _Heartbeat(msgspec.Struct):
    rss_mib: Annotated[float, Meta(ge=0, le=2**40)]


class _RequestCancel(msgspec.Struct):
    id: int | str


_MESSAGES: dict[str, type[msgspec.Struct]] = {
    Method.TOOL_CALL: _ToolCall,
    Method.EFFECT_OPEN: _EffectOpen,
    Method.EFFECT_CLOSE: _EffectClose,
    Method.VALUE_TAKE: _ValueTake,
    Method.CHECKPOINT_SAVE: _CheckpointSave,
    Method.QUESTION_ASK: Question,
    Method.RUN_CALL: _RunCall,
    Method.EVENT_EMIT: _EventEmit,
    Method.LOG_WRITE: _LogWrite,
    Method.RUN_WARN: _RunWarn,
    Method.HEARTBEAT: _Heartbeat,
    Method.REQUEST_CANCEL: _RequestCancel,
}


# ---- answers


class _Capabilities(msgspec.Struct):
    concurrent: bool = False
    native_concurrent: bool = False


class _Probe(msgspec.Struct):
    version: Annotated[str, Meta(max_length=200)] = ""
    details: _Object = {}


class _Hello(msgspec.Struct):
    protocol_version: Annotated[str, Meta(max_length=20)]
    capabilities: _Capabilities
    worker: _Object = {}
    probe: _Probe | None = None


class _Opened(msgspec.Struct):
    card: _Object
    warnings: Annotated[list[_Line], Meta(max_length=100)] = []


class _Message(msgspec.Struct, omit_defaults=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: list[_Object] = []
    tool_call_id: str | None = None


class RunAnswer(msgspec.Struct):
    """A run's result as the worker sent it."""

    output: Any = None
    messages: list[_Message] = []
    metrics: Annotated[dict[str, float], Meta(max_length=100)] = {}
    state: Any = None

    def neutral_messages(self) -> list[dict[str, Any]]:
        """Return the messages as the store keeps them."""
        return [{"content": message.content, **msgspec.to_builtins(message)} for message in self.messages]


class _ToolDescription(msgspec.Struct):
    name: _Name
    description: _Text
    parameters: _Object


class _ToolsOpened(msgspec.Struct):
    tools: list[_ToolDescription]


class _ToolValue(msgspec.Struct):
    value: Any


class _Nothing(msgspec.Struct):
    pass


_ANSWERS: dict[str, type[msgspec.Struct]] = {
    Method.INITIALIZE: _Hello,
    Method.AGENT_OPEN: _Opened,
    Method.RUN_START: RunAnswer,
    Method.TOOLS_OPEN: _ToolsOpened,
    Method.TOOL_INVOKE: _ToolValue,
}


class Failure(msgspec.Struct):
    """The error object of an answer `FAILED`."""

    code: _Code
    message: _Text
    hint: _Text = ""
    origin: Literal["user", "framework", "adapter", "worker", "model", "tool", "host"] = "worker"
    details: _Object = {}


def read_message(payload: bytes) -> Any:
    """Return the JSON value of a message. Raises ValueError for what is none, or takes too much to hold."""
    containers = payload.count(b"[") + payload.count(b"{")  # those in texts count too: texts seldom have so many
    if containers > MAX_CONTAINERS:
        raise ValueError(f"over {MAX_CONTAINERS} lists and objects")
    if payload.count(b",") > MAX_VALUES and _is_long(payload):
        raise ValueError(f"over {MAX_VALUES} values")
    try:
        message = msgspec.json.decode(payload)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise _too_deep() from None
    if containers > MAX_DEPTH:
        check_depth(message)
    return message


def _is_long(payload: bytes) -> bool:
    """Whether a message has more than `MAX_VALUES` values, commas in its texts not counted."""
    plain = payload.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 2 * MAX_VALUES:
        return True
    return sum(piece.count(b",") for piece in plain.split(b'"')[::2]) > MAX_VALUES


def check_message(method: str, params: dict[str, Any]) -> None:
    """Raise ValueError if a worker's request or notification has parameters that its method does not allow.

    A method that is not known has none that are wrong: what nobody serves is not looked at.
    """
    schema = _MESSAGES.get(method)
    if schema is not None:
        msgspec.convert(params, schema)


def check_answer(method: str, answer: Any) -> None:
    """Raise ValueError if an answer to a request of the host is not what the method promises."""
    msgspec.convert(answer, _ANSWERS.get(method, _Nothing))


def check_failure(error: RpcError) -> None:
    """Raise ValueError if an error answer has no error object where it must have one."""
    if error.code == ErrorCode.FAILED:
        msgspec.convert(error.data, Failure)


def check_depth(value: Any) -> None:
    """Raise ValueError if a JSON value is nested more deeply than what goes on from here may be."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep()
        level = [inner for each in level for inner in _inside(each) if isinstance(inner, dict | list)]


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        return iter(value.values())
    return iter(value) if isinstance(value, list) else iter(())


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects more than {MAX_DEPTH} deep")
