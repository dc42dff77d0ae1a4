"""The list of the attacks that tests/security makes, out of the attacks themselves."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from generators.markdown import table

__all__ = ["attacks", "attacks_counted"]

_FOLDER = Path(__file__).parents[2] / "tests" / "security" / "attacks"
_KINDS = {
    "sandbox": (
        "Stopped by the sandbox",
        "Each is shown to succeed at the level `none`, with what the last column says.",
        {"anyone": "any host", "root": "a host of root", "user": "a host of an ordinary user"},
    ),
    "limit": (
        "Stopped by a limit",
        "Each goes beyond a small limit, and is shown to get there where the limit is a large one.",
        {},
    ),
    "host": (
        "Stopped by the host's own rules",
        "Each is shown to fail at `standard`, and at `none` too where what stops it is not bound to a sandbox.",
        {},
    ),
}


def attacks() -> str:
    """Every attack with what stops it."""
    return "\n\n".join(_section(kind) for kind in _KINDS)


def attacks_counted() -> str:
    """How many there are."""
    counts = {kind: sum(each.kind == kind for each in _attacks().values()) for kind in _KINDS}
    return (
        f"{sum(counts.values())} attacks: {counts['sandbox']} that the sandbox stops, {counts['limit']} that a limit"
        f" stops, {counts['host']} that the host stops by itself."
    )


def _section(kind: str) -> str:
    title, said, who = _KINDS[kind]
    rows = list(_rows(kind, who))
    head = ("attack", "what is tried", "what stops it", *(("without it, works for",) if who else ()))
    return f"## {title}\n\n{said}\n\n{table(head, rows)}"


def _rows(kind: str, who: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for name, each in sorted(_attacks().items()):
        if each.kind == kind:
            some = " (not on every kernel)" if each.optional else ""
            yield (f"`{name}`", each.what, each.stops, *((who[each.who] + some,) if who else ()))


def _attacks() -> dict[str, Any]:
    if "attacks" not in sys.modules:
        places = [str(_FOLDER)]
        spec = importlib.util.spec_from_file_location(
            "attacks", _FOLDER / "__init__.py", submodule_search_locations=places
        )
        assert spec is not None
        assert spec.loader is not None
        sys.modules["attacks"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return dict(sys.modules["attacks"].ATTACKS)
