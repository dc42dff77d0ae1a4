"""What commands take from the command line and from stdin, checked before anything is started."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from agentforge.errors import UsageFault

__all__ = ["input_text", "labels", "run_id", "text_only"]

_RUN_ID = re.compile(r"[A-Za-z0-9_-]+")


def text_only(arguments: Sequence[str]) -> None:
    """Raise UsageFault if an argument is no UTF-8: it could be neither sent nor stored."""
    for number, each in enumerate(arguments, 1):
        try:
            each.encode()
        except UnicodeEncodeError:
            shown = each.encode(errors="surrogateescape").decode(errors="backslashreplace")
            raise UsageFault(f"argument {number} is not UTF-8: `{shown}`") from None


def run_id(given: str) -> str:
    """Return a run's id. Raises UsageFault if it can be none."""
    if not _RUN_ID.fullmatch(given):
        raise UsageFault(f"`{given}` is no id of a run", hint="`agentforge runs list` shows them.")
    return given


def labels(given: Sequence[str] | None) -> dict[str, str]:
    """Return what `--label key=value` gave. Raises UsageFault."""
    found = {}
    for each in given or []:
        key, separator, value = each.partition("=")
        if not separator or not key:
            raise UsageFault(f"`--label {each}` is not `key=value`")
        found[key] = value
    return found


def input_text(given: str) -> str:
    """Return a run's input: the text itself, stdin for `-`, a file's text for `@file`. Raises UsageFault."""
    if given == "-":
        return _stdin()
    if given.startswith("@"):
        try:
            return Path(given[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageFault(f"the input file `{given[1:]}` can't be read: {error}") from None
    return given


def _stdin() -> str:
    if sys.stdin is None:
        raise UsageFault("the input is `-`, and stdin is closed")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageFault(f"stdin is not UTF-8: {error}") from None
