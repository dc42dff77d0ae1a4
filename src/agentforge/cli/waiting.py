"""What a run waits for, and what one types to have it go on."""

import json
from collections.abc import Sequence
from typing import Any

from agentforge.cli.output import say, say_hint

__all__ = ["say_waiting", "what_to_type"]

_SHOWN = {"result": "result JSON", "reject": "reject [REASON]"}
"""Decisions that take a value."""


def say_waiting(result: dict[str, Any]) -> None:
    """Say on stderr what each open interrupt of a run is about and how it is answered."""
    run_id, interrupts = result["run_id"], result.get("interrupts") or []
    for each in interrupts:
        say(f"run {run_id} waits: {each['message']}")
        if each["kind"] == "approval":
            _say_arguments((each.get("data") or {}).get("arguments") or {})
        say_hint(what_to_type(run_id, each, several=len(interrupts) > 1))
    if not interrupts:
        say(f"run {run_id} is waiting")
        say_hint(f"agentforge runs show {run_id}")


def _say_arguments(arguments: dict[str, Any]) -> None:
    """Show what is to be approved: all of it, and nothing that a terminal would act on or hide."""
    for name, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines = [_visible(line) for line in text.split("\n")]
        if len(lines) == 1:
            say(f"  {_visible(name)}: {lines[0]}")
        else:
            say(f"  {_visible(name)}:")
            for line in lines:
                say(f"    {line}")


def _visible(text: str) -> str:
    return "".join(each if each.isprintable() or each == "\t" else ascii(each)[1:-1] for each in text)


def what_to_type(run_id: str, interrupt: dict[str, Any], *, several: bool = False) -> str:
    """Return the command that answers an interrupt, its alternatives with ` | ` between them."""
    if interrupt["kind"] == "rollback":
        return f"agentforge runs resume {run_id}"
    option = f" --interrupt {interrupt['id']}" if several else ""
    return f"agentforge runs answer {run_id}{option} {_decisions(interrupt)}"


def _decisions(interrupt: dict[str, Any]) -> str:
    decisions = [_SHOWN.get(each, each) for each in interrupt["answers"] if each != "answer"]
    return " | ".join([*_to_question(interrupt), *decisions])


def _to_question(interrupt: dict[str, Any]) -> list[str]:
    if interrupt["kind"] != "question":
        return []
    options: Sequence[Any] = (interrupt.get("data") or {}).get("options") or ()
    if options:
        import shlex

        return [shlex.quote(str(each)) for each in options]
    schema = interrupt.get("schema")
    return ["TEXT" if schema is None or schema.get("type") == "string" else "JSON"]
