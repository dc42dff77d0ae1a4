"""What commands take from the command line and from stdin, checked before anything is started."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentforge.errors import UsageFault

__all__ = [
    "answer",
    "edited",
    "input_text",
    "json_file",
    "json_value",
    "labels",
    "open_interrupt",
    "run_id",
    "text_only",
]

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


def json_value(given: str, what: str) -> Any:
    """Return what JSON text says. Raises UsageFault, naming `what` it was given for."""
    try:
        return json.loads(given)
    except ValueError as error:
        raise UsageFault(
            f"{what} is not JSON: {error}", hint="Text needs quotes of its own: '\"like this\"'."
        ) from None


def json_file(path: Path) -> Any:
    """Return the value in a JSON file. Raises UsageFault."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageFault(f"`{path}` can't be read: {error}") from None
    return json_value(text, f"`{path}`")


def edited(content: Any, at: str | None) -> tuple[str, Any]:
    """Return which effect a fork changes and to what, from the content of its file and `--at`. Raises UsageFault.

    The content is an effect as the history shows it, or the new value alone.
    """
    if not (isinstance(content, dict) and content.keys() >= {"effect", "kind", "request", "response"}):
        if at is None:
            raise UsageFault("`--edit` with a value alone needs `--at`: the effect whose response it is")
        return at, content
    if at not in (None, str(content["effect"])):
        raise UsageFault(f"the file holds effect {content['effect']}, and `--at` says {at}")
    response = content["response"]
    if content["kind"] not in ("model", "run"):  # these two answer with an object of their own
        if not (isinstance(response, dict) and "value" in response):
            raise UsageFault(f"the response of a {content['kind']} effect has a `value`")
        response = response["value"]
    return str(content["effect"]), response


def open_interrupt(result: Mapping[str, Any], wanted: str | None) -> Mapping[str, Any] | None:
    """Return what a run waits for, of several what was `wanted` by id; None if it waits for nothing.

    Raises UsageFault where that is not one.
    """
    interrupts: list[Mapping[str, Any]] = result.get("interrupts") or []
    found = [each for each in interrupts if wanted in (None, each["id"])]
    names = ", ".join(f"`{each['id']}` ({each['kind']})" for each in interrupts)
    if interrupts and not found:
        raise UsageFault(f"the run waits for no `{wanted}`", hint=f"It waits for {names}.")
    if len(found) > 1:
        raise UsageFault("the run waits for more than one answer", hint=f"Add `--interrupt` with one of {names}.")
    return found[0] if found else None


def answer(interrupt: Mapping[str, Any], decision: str, value: str | None) -> tuple[str, Any]:
    """Return decision and value for an interrupt as the API takes them. Raises UsageFault.

    A question is answered with the decision's own text: JSON if its schema asks for something else than text. What
    is a decision too (`fail`) is meant as one unless `answer` comes before it or it is one of the options.
    """
    if interrupt["kind"] == "question":
        return _to_question(interrupt, decision, value)
    if decision == "result":
        if value is None:
            raise UsageFault("`result` needs the tool's result as JSON", hint="runs answer RUN result 412.5")
        return decision, json_value(value, "the result")
    if value is not None and decision != "reject":
        raise UsageFault(f"`{decision}` takes no value")
    return decision, value


def _to_question(interrupt: Mapping[str, Any], decision: str, value: str | None) -> tuple[str, Any]:
    options = (interrupt.get("data") or {}).get("options") or ()
    if value is not None and decision != "answer":
        raise UsageFault("a question takes one answer", hint="Put it into quotes.")
    if value is None and decision != "answer" and decision in interrupt["answers"] and decision not in options:
        return decision, None
    text = decision if value is None else value
    schema = interrupt.get("schema")
    if schema is None or schema.get("type") == "string" or text in schema.get("enum", ()):
        return "answer", text
    return "answer", json_value(text, "the answer")


def _stdin() -> str:
    if sys.stdin is None:
        raise UsageFault("the input is `-`, and stdin is closed")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageFault(f"stdin is not UTF-8: {error}") from None
