"""The process that runs the code: as a cell of a notebook would, the last expression's value is its result."""

import ast
import json
import linecache
import os
import sys
import traceback
import types
from typing import Any, Dict, List, Optional

__all__ = ["MOST_MESSAGE", "MOST_RESULT", "MOST_TRACEBACK", "run_cell"]

MOST_RESULT = 10000
MOST_MESSAGE = 2000
MOST_TRACEBACK = 5000
_MOST_NAME = 100
_FRAMES = 8
"""How many of a traceback's frames are told, the innermost ones."""
_FILE = "<code>"

Outcome = Dict[str, Any]


def run_cell(code: str, answer: int) -> None:
    """Run the code in this process and write its outcome, {result, error} as JSON, to the descriptor `answer`."""
    own = os.getpid()
    outcome = _outcome(code)
    if os.getpid() == own:  # else the code has forked, and this is not the one that is waited for
        _flush()
        _write(answer, json.dumps(outcome).encode("utf-8"))
        os.close(answer)


def cut(text: str, most: int) -> str:
    """Return a text with its middle left out if it is too long; no half characters."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) <= most:
        return text
    half = most // 2
    return "%s\n[... %d characters left out ...]\n%s" % (text[:half], len(text) - 2 * half, text[-half:])


def _outcome(code: str) -> Outcome:
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    linecache.cache[_FILE] = (len(code), None, code.splitlines(True), _FILE)
    try:
        return {"result": _result(code, vars(main)), "error": None}
    except SystemExit as error:
        if error.code in (None, 0):
            return {"result": None, "error": None}
        return {"result": None, "error": _told(error)}
    except BaseException as error:
        return {"result": None, "error": _told(error)}


def _result(code: str, names: Dict[str, Any]) -> Optional[str]:
    tree = ast.parse(code, _FILE)
    last: Optional[ast.Expression] = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        statement = tree.body.pop()
        assert isinstance(statement, ast.Expr)
        last = ast.Expression(statement.value)
    exec(compile(tree, _FILE, "exec"), names)  # noqa: S102  this is what the sandbox is for
    value = eval(compile(last, _FILE, "eval"), names) if last is not None else None  # noqa: S307
    return None if value is None else cut(repr(value), MOST_RESULT)


def _told(error: BaseException) -> Dict[str, str]:
    try:
        message = str(error)
    except BaseException as worse:  # an exception of the code's own may do anything
        message = "its text can't be had: %s" % type(worse).__name__
    return {
        "type": cut(str(type(error).__name__), _MOST_NAME),
        "message": cut(message, MOST_MESSAGE),
        "traceback": cut(_traceback(error), MOST_TRACEBACK),
    }


def _traceback(error: BaseException) -> str:
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != _FILE:
        frames = frames.tb_next
    try:
        lines: List[str] = traceback.format_exception(type(error), error, frames, limit=-_FRAMES)
    except BaseException as worse:
        return "no traceback: %s" % type(worse).__name__
    return "".join(lines)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: S112  the code may have put anything there
            continue


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
