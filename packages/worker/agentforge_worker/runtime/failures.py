"""The one border at which foreign exceptions become error objects with an origin and the native traceback."""

import asyncio
import os
import traceback
from typing import Any, Dict, Iterator, Optional, Tuple

from agentforge_worker.adapter import EffectFailed, StepLimitReached
from agentforge_worker.entrypoint import imported
from agentforge_worker.runtime.bounds import error_object
from agentforge_worker.runtime.chat import ModelFailed
from agentforge_worker.runtime.raised import is_made_again
from agentforge_worker.runtime.symptoms import Symptom, symptom
from agentforge_worker.wire import ErrorCode, RpcError

__all__ = ["NotJsonError", "chain", "limit_hit", "native_traceback", "translate"]

MAX_TRACEBACK = 32768
"""Characters of a native traceback that travel; the middle of longer ones is left out."""
_CODES = {"framework": "AF420", "adapter": "AF421", "user": "AF422", "worker": "AF423", "model": "AF424"}
_STEP_LIMIT = "AF425"
_HINTS = {
    "model": "`agentforge runs events` shows the model calls and what the endpoint said.",
    "framework": "The framework raised this by itself; `agentforge runs show` prints its traceback.",
    "adapter": "This is a defect of the adapter; `agentforge runs show` prints the traceback to report.",
    "user": "Your own code raised this; `agentforge runs show` prints its traceback.",
    "worker": "This is a defect of AgentForge; `agentforge runs show` prints the traceback to report.",
}
_STANDARD_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class NotJsonError(Exception):
    """A native agent's result can't be sent."""


def translate(error: BaseException, adapter_folder: str = "", source_root: str = "") -> RpcError:
    """Return the wire's error for an exception that came out of an adapter.

    A failed effect keeps its own code wherever a framework wrapped it; cancellation stays cancellation; a limit of the
    sandbox that was hit has a code of its own; everything else gets the code of the place that raised it (the
    caller's, where the standard library did).
    """
    for cause in chain(error):
        if isinstance(cause, EffectFailed):
            info = error_object(cause.code, cause.text, cause.hint, cause.origin, None)
            return RpcError(ErrorCode.FAILED, info["message"], info)
    if isinstance(error, asyncio.CancelledError):
        return RpcError(ErrorCode.CANCELLED, "cancelled")
    if isinstance(error, StepLimitReached):
        info = error_object(_STEP_LIMIT, str(error), "Raise `limits.steps`.", "user", None)
        return RpcError(ErrorCode.FAILED, info["message"], info)
    hit = symptom(chain(error))
    if hit is not None:
        return limit_hit(hit, error)
    origin = _origin(error, adapter_folder, source_root)
    text = "`%s` raised `%s`: %s" % (origin, type(error).__name__, _text(error))
    return RpcError(ErrorCode.FAILED, text, error_object(_CODES[origin], text, _HINTS[origin], origin, _details(error)))


def limit_hit(hit: Symptom, error: BaseException) -> RpcError:
    """Return the wire's error for a limit of the sandbox that code ran into."""
    text = "the sandbox's limit on %s was hit: `%s`: %s" % (hit.what, type(error).__name__, _text(error))
    return RpcError(ErrorCode.FAILED, text, error_object(hit.code, text, hit.hint, "user", _details(error)))


def _details(error: BaseException) -> Dict[str, Any]:
    return {
        "exception": "%s.%s" % (type(error).__module__, type(error).__qualname__),
        "traceback": native_traceback(error),
    }


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it was raised from or while handling."""
    seen = set()
    current: Optional[BaseException] = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        for inner in getattr(current, "exceptions", ()):  # an ExceptionGroup
            for cause in chain(inner):
                yield cause
        current = current.__cause__ or current.__context__


def _origin(error: BaseException, adapter_folder: str, source_root: str) -> str:
    if isinstance(error, ModelFailed):
        return "model"
    if isinstance(error, NotJsonError) or is_made_again(error):
        return "user"
    places: Tuple[Tuple[str, str], ...] = (
        ("adapter", adapter_folder),
        ("user", source_root),
        ("worker", _OWN),
    )
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _in_standard_library(frame.filename):
            continue  # it raises for those who call it
        for origin, folder in places:
            if folder and os.path.abspath(frame.filename).startswith(os.path.join(os.path.abspath(folder), "")):
                # The import itself: the agent file names an entrypoint that is not there.
                return "user" if origin == "worker" and frame.name == imported.__name__ else origin
        return "framework"
    return "framework"


def _in_standard_library(filename: str) -> bool:
    return filename.startswith("<frozen") or (
        os.path.abspath(filename).startswith(_STANDARD_LIBRARY) and "site-packages" not in filename
    )


def _text(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return text if len(text) <= 2000 else text[:1500] + " ... " + text[-400:]


def native_traceback(error: BaseException) -> str:
    """Return the traceback as Python prints it, its middle left out when it is very long."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    half = MAX_TRACEBACK // 2
    return text if len(text) <= MAX_TRACEBACK else text[:half] + "\n  ...\n" + text[-half:]
