"""`agentforge demo`: the expenses agent on three frameworks, on the embedded model unless another is set."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentforge.cli.examples import example_folder
from agentforge.cli.output import print_json, say
from agentforge.cli.session import JsonOption
from agentforge.cli.showing import TextShown

if TYPE_CHECKING:
    from decimal import Decimal
    from random import Random

__all__ = ["EXAMPLE", "demo"]

EXAMPLE = "Example: agentforge demo --on langchain,crewai,pydantic-ai"
_FRAMEWORKS = "langchain,crewai,pydantic-ai"
_TOLERANCE = 0.005


def demo(
    on: Annotated[str, typer.Option("--on", help="Frameworks, with commas.")] = _FRAMEWORKS,
    seed: Annotated[int | None, typer.Option(help="Draw the same question again.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask one agent a question drawn at random, on three frameworks side by side, and check what its tool said."""
    import asyncio
    import random

    began = float(os.environ.get("AGENTFORGE_DEMO_SINCE") or time.time())
    folder = example_folder("expenses")
    category, expected = _question(folder, random.Random(seed))
    question = f"How much did we spend on {category}?"
    say(f"question: {question}")
    say(f"expected: {expected} (added up from {folder / 'expenses.csv'} by this command)")
    shown = _Shown(began, as_json)
    results = asyncio.run(_run(folder, question, on.split(","), shown))
    wrong = [result for result in results if not _right(result, category, expected)]
    for result in wrong:
        say(f"wrong: {result['framework']} {result['status']}, tool calls: {result['tool_calls']}")
    if shown.first_s is not None:
        since = "the clone" if os.environ.get("AGENTFORGE_DEMO_FRESH") else "the start"
        say(f"first answer: {shown.first_s:.1f} s after {since}; all: {time.time() - began:.1f} s")
    if wrong:
        raise typer.Exit(1)
    say(f"the tool's result is right on {', '.join(str(result['framework']) for result in results)}")


def _question(folder: Path, draw: "Random") -> "tuple[str, Decimal]":
    """Draw a category of the data file and add its amounts up, without the agent or its tool."""
    import csv
    from decimal import Decimal

    with (folder / "expenses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    category = draw.choice(sorted({row["category"] for row in rows}))
    return category, sum((Decimal(row["amount"]) for row in rows if row["category"] == category), Decimal(0))


async def _run(folder: Path, question: str, frameworks: list[str], shown: "_Shown") -> list[dict[str, Any]]:
    from agentforge.api.client import Forge
    from agentforge.cli.run import run_side_by_side

    options = {"model": None, "thread": None, "stream": False, "labels": {"demo": "yes"}}
    async with Forge(_project(), background=True) as forge:
        ended = await run_side_by_side(forge, str(folder), question, [*frameworks], options, shown)
    return [each.result for each in ended]


def _project() -> Path:
    """Return the folder that keeps the demo's runs: the user's, not the current one."""
    from agentforge.environments import data_home

    project = data_home() / "demo"
    project.mkdir(parents=True, exist_ok=True)
    (project / "agentforge.toml").touch()
    return project


def _right(result: dict[str, Any], category: str, expected: "Decimal") -> bool:
    """Whether the run succeeded and its tool, asked for this category, gave the expected sum."""
    calls = [call for call in result["tool_calls"] if call["arguments"].get("category") == category]
    return (
        result["status"] == "succeeded"
        and len(calls) > 0
        and len(calls) == len(result["tool_calls"])
        and all(_equal(call.get("result"), expected) for call in calls)
    )


def _equal(result: Any, expected: "Decimal") -> bool:
    return isinstance(result, int | float) and abs(result - float(expected)) < _TOLERANCE


class _Shown(TextShown):
    """A table at the end (or JSON lines), and the moment of the first answer."""

    def __init__(self, began: float, as_json: bool) -> None:
        super().__init__(table=True)
        self._began = began
        self._json = as_json
        self.first_s: float | None = None

    def result(self, result: dict[str, Any]) -> None:
        if self.first_s is None and result["status"] == "succeeded":
            self.first_s = time.time() - self._began
        if self._json:
            print_json(result)
        super().result(result)

    def end(self, results: list[dict[str, Any]]) -> None:
        if not self._json:
            super().end(results)
