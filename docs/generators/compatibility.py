"""The compatibility matrix, out of what `agentforge compat --json` said of every tested release."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentforge.frameworks import Catalogue
from agentforge_conformance.capabilities import CAPABILITIES
from generators.markdown import table

__all__ = ["DATA", "capabilities", "compatibility", "reports"]

DATA = Path(__file__).parents[1] / "reference" / "compatibility.jsonl"
"""Written by `make matrix`."""

_NOT_TRIED = "unavailable"


def reports() -> list[dict[str, Any]]:
    """Return the reports in the order of their file."""
    return [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]


def capabilities() -> str:
    """What the suite proves."""
    return table(("capability", "what is proved"), [(f"`{name}`", text) for name, text in CAPABILITIES.items()])


def compatibility() -> str:
    """A table for each framework, a column for each release."""
    found = reports()
    tried = [report for report in found if report["error"] is None]
    names = dict.fromkeys(report["framework"] for report in tried)
    parts = [_framework(name, [each for each in tried if each["framework"] == name]) for name in names]
    rest = [report for report in found if report["error"] is not None]
    if rest:
        parts += ["## Not tried", table(("release", "why"), [(f"`{e['reference']}`", _why(e)) for e in rest])]
    return "\n\n".join(parts)


def _framework(name: str, found: list[dict[str, Any]]) -> str:
    heads = ("", *(report["release"] for report in found))
    rows = [("Python", *(".".join(report["python"].split(".")[:2]) for report in found))]
    for capability in dict.fromkeys(each for report in found for each in report["capabilities"]):
        rows.append((f"`{capability}`", *(_result(report, capability) for report in found)))
    rows.append(("tests passed", *(f"{each['passed']} of {each['passed'] + each['failed']}" for each in found)))
    rows.append(("tried", *(each["at"][:10] for each in found)))
    notes = "\n".join(f"- {note}" for note in _notes(found))
    return f"## {_title(name)}\n\n{table(heads, rows)}" + (f"\n\n{notes}" if notes else "")


def _title(name: str) -> str:
    catalogue = Catalogue.discover()
    return catalogue.get(name).title if name in catalogue.names() else name


def _result(report: dict[str, Any], capability: str) -> str:
    result = report["capabilities"].get(capability, {}).get("result", "")
    return f"**{result}**" if result == "fail" else result


def _notes(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield why a result is not `pass`, once for all the releases of which it is said."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for report in found:
        for name, each in report["capabilities"].items():
            if each["result"] != "pass" and each["note"]:
                said.setdefault((name, each["result"], each["note"]), []).append(report["release"])
    for (name, result, note), releases in said.items():
        yield f"`{name}` {result} in {', '.join(releases)}: {note}"


def _why(report: dict[str, Any]) -> str:
    error = report["error"]
    text = "no Python for it on the machine" if report["status"] == _NOT_TRIED else error["message"].splitlines()[0]
    return f"{text} ([{error['code']}](../errors/{error['code']}.md))"
