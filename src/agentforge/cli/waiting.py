"""What a run waits for, and what one types to have it go on."""

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
        say_hint(what_to_type(run_id, each, several=len(interrupts) > 1))
    if not interrupts:
        say(f"run {run_id} is waiting")
        say_hint(f"agentforge runs show {run_id}")


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
