"""What a native agent's own tool raised, as JSON for the journal, and made again from it in a later attempt."""

import importlib
import json
from typing import Any, Dict, Mapping, Optional

from agentforge_worker.adapter import EffectFailed, ToolFailed
from agentforge_worker.runtime.bounds import MAX_NAME, cut

__all__ = ["described", "is_made_again", "made_again"]

_RAISED = "AF603"
_MADE_AGAIN = "_agentforge_made_again"


def described(error: BaseException) -> Dict[str, Any]:
    """Return the error object of the wire: {code, message, details: {exception, arguments}}."""
    details: Dict[str, Any] = {"exception": "%s.%s" % (type(error).__module__, type(error).__qualname__)}
    try:
        details["arguments"] = json.loads(json.dumps(error.args, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        pass  # it can't be made again; its text is kept
    failed = isinstance(error, EffectFailed)
    return {
        "code": cut(str(error.code), MAX_NAME) if failed else _RAISED,  # type: ignore[attr-defined]
        "message": cut(str(error.text)) if failed else _message(error),  # type: ignore[attr-defined]
        "details": details,
    }


def made_again(error: Mapping[str, Any]) -> Exception:
    """Return an exception like the one that was described, of its own class if that takes the same arguments.

    Frameworks tell exceptions apart by class, and tell the model of some by their text.
    """
    details = error.get("details") or {}
    kind = _class(str(details.get("exception", "")))
    if kind is not None and isinstance(details.get("arguments"), list):
        try:
            again = kind(*details["arguments"])
        except Exception:
            again = None
        if again is not None and described(again)["message"] == error.get("message"):
            try:
                setattr(again, _MADE_AGAIN, True)
            except AttributeError:
                pass  # a class with slots
            return again
    return ToolFailed(str(error.get("code") or _RAISED), str(error.get("message", "")))


def is_made_again(error: BaseException) -> bool:
    """Return whether an exception was raised by a tool in an earlier attempt."""
    return bool(getattr(error, _MADE_AGAIN, False))


def _message(error: BaseException) -> str:
    text = str(error)
    return cut("%s: %s" % (type(error).__name__, text)) if text else type(error).__name__


def _class(name: str) -> Optional["type[Exception]"]:
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:at]))
            for part in parts[at:]:
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError):
            continue
        return found if isinstance(found, type) and issubclass(found, Exception) else None
    return None
