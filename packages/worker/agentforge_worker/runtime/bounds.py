"""The bounds of what goes to the host, kept here: the host takes a worker that goes beyond them for a broken one.

What users and frameworks make is refused with an exception where it is made, or cut where it is only told.
"""

import re
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence

from agentforge_worker.wire import ADAPTER_EVENTS

__all__ = [
    "MAX_LINE",
    "check_child",
    "check_kind",
    "check_messages",
    "check_name",
    "check_question",
    "cut",
    "error_object",
]

MAX_LINE = 16384
"""Characters of a line of output, or of a warning."""
MAX_TEXT = 100000
"""Characters of the text of an error or of a question."""
MAX_NAME = 200
MAX_PATH = 1000
MAX_OPTIONS = 1000
MAX_WAIT_S = 10 * 366 * 86400
_ROLES = ("system", "user", "assistant", "tool")
_ORIGINS = ("user", "framework", "adapter", "worker", "model", "tool", "host")
_CODE = re.compile(r"AF[0-9]{3}")
_UNKNOWN = "AF423"


def cut(text: str, most: int = MAX_TEXT) -> str:
    """Return a text, the end of a longer one left out."""
    return text if len(text) <= most else text[: most - 4] + " ..."


def error_object(code: str, message: str, hint: str, origin: str, details: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """Return an error as the wire has it, whatever a framework or a user has put into the exception."""
    return {
        "code": code if _CODE.fullmatch(str(code)) else _UNKNOWN,
        "message": cut(str(message)),
        "hint": cut(str(hint)),
        "origin": origin if origin in _ORIGINS else "worker",
        "details": details or {},
    }


def check_name(what: str, name: Any) -> None:
    """Raise ValueError for what can't be the name of something."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise ValueError("the name of %s has 1 to %d characters, and is not `%.200s`" % (what, MAX_NAME, name))


def check_kind(kind: str) -> None:
    """Raise ValueError for a kind of event that is not an adapter's to emit."""
    if kind not in ADAPTER_EVENTS:
        raise ValueError("adapters emit %s, and not `%.200s`" % (", ".join(ADAPTER_EVENTS), kind))


def check_question(question: Any, options: Optional[Sequence[Any]], timeout_s: Optional[float]) -> None:
    """Raise ValueError for a question that the host would not ask."""
    if not isinstance(question, str) or len(question) > MAX_TEXT:
        raise ValueError("a question is text of at most %d characters" % MAX_TEXT)
    if options is not None and len(options) > MAX_OPTIONS:
        raise ValueError("a question has at most %d options" % MAX_OPTIONS)
    _check_wait(timeout_s)


def check_child(agent: Any, on: Optional[str], model: Optional[str], timeout_s: Optional[float]) -> None:
    """Raise ValueError for a child run that the host would not start."""
    if not isinstance(agent, Mapping) and not (isinstance(agent, str) and 0 < len(agent) <= MAX_PATH):
        raise ValueError("an agent is a path of at most %d characters, or a mapping" % MAX_PATH)
    for what, name in (("a framework", on), ("a model", model)):
        if name is not None:
            check_name(what, name)
    _check_wait(timeout_s)


def check_messages(messages: Iterable[Any]) -> None:
    """Raise TypeError for messages that are none: an adapter's mistake."""
    for message in messages:
        if message.role not in _ROLES:
            raise TypeError("a message has the role `%.100s`, which is none of %s" % (message.role, ", ".join(_ROLES)))
        if not isinstance(message.content, str):
            raise TypeError("the content of a message is `%s`, and no text" % type(message.content).__name__)
        if not all(isinstance(call, Mapping) for call in message.tool_calls):
            raise TypeError("the tool calls of a message are mappings")


def _check_wait(timeout_s: Optional[float]) -> None:
    if timeout_s is not None and not 0 < timeout_s <= MAX_WAIT_S:
        raise ValueError("`timeout_s` is `%s`; it is above 0 and at most %d" % (timeout_s, MAX_WAIT_S))
