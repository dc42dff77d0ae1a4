"""What a worker answers with, checked: a worker is not trusted to keep to the protocol."""

from typing import Annotated, Any, Literal

import msgspec

from agentforge.errors import ErrorInfo
from agentforge.errors.runs import WorkerBroke

__all__ = ["Answer", "read_answer", "read_failure"]

_Text = Annotated[str, msgspec.Meta(max_length=100_000)]


class _Message(msgspec.Struct, omit_defaults=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: list[dict[str, Any]] = []
    tool_call_id: str | None = None


class Answer(msgspec.Struct):
    """A run's result as the worker sent it."""

    output: Any = None
    messages: list[_Message] = []
    metrics: dict[str, float] = {}
    state: Any = None

    def neutral_messages(self) -> list[dict[str, Any]]:
        """Return the messages as the store keeps them."""
        return [msgspec.to_builtins(message) for message in self.messages]


class _Failure(msgspec.Struct):
    code: Annotated[str, msgspec.Meta(pattern=r"^AF\d{3}$")]
    message: _Text
    hint: _Text = ""
    origin: Literal["user", "framework", "adapter", "worker", "model", "tool"] = "worker"
    details: dict[str, Any] = {}


def read_answer(data: Any) -> Answer:
    """Return a worker's result. Raises WorkerBroke."""
    try:
        return msgspec.convert(data, Answer)
    except msgspec.ValidationError as error:
        raise WorkerBroke(f"the worker's result is malformed: {error}") from None


def read_failure(data: Any) -> ErrorInfo | None:
    """Return a worker's error object, None if it is none."""
    try:
        failure = msgspec.convert(data, _Failure)
    except msgspec.ValidationError:
        return None
    return ErrorInfo(failure.code, failure.message, failure.hint, failure.origin, failure.details)
