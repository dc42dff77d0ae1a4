"""A framework of our own with releases that are good and bad, each in its own way, and what is recorded on the first.

1.0  what projects use
1.1  makes only the first of several calls in one answer: fails a scripted scenario
1.2  drops the argument `receipt` of any tool: no scenario has one, recorded runs do
1.3  says more in each request, and does all the same
1.4  asks the model once more, for a summary, where the agent can `charge`
1.5  makes up the end of its answers where the agent can `charge`
1.6  can't be imported
"""

import hashlib
import shutil
from pathlib import Path

from agentforge_conformance.scripted_model import CalledTool, Step

from .index_world import LocalIndex, wheel
from .project_world import Project

__all__ = ["RELEASES", "TOOLS", "index_of_ledgers", "record", "write_ledger"]

_PYTHON = Path(__file__).parents[2] / "packages/adapters/agentforge_adapters/python/adapter.py"
RELEASES = {
    "1.0": "Sound",
    "1.1": "Forgetful",
    "1.2": "Dropping",
    "1.3": "Wordy",
    "1.4": "Summing",
    "1.5": "Inventing",
    "1.6": "Sound",
}
_COMPANIONS = {"1.0": "1.5", "1.3": "2.0"}
"""Of the others it is 1.5 too."""

_HEAD = """
name = "ledger"
title = "Ledger"
summary = "A framework for tests of updates."
distribution = "ledger"
model_settings = ["temperature", "max_tokens", "top_p"]

[capabilities]
tools = { level = "full" }
streaming = { level = "full" }
threads = { level = "full" }
structured-output = { level = "full" }
native = { level = "full" }
tool-replay = { level = "full" }
"""

_RANGE = """
[[releases]]
versions = "=={version}.*"
python = ">=3.8"
requirements = ["ledger=={{version}}"]
adapter = "adapter:{adapter}Adapter"
tested = [{{ version = "{version}", as_of = 2025-01-01T00:00:00Z, lock = "locks/{version}.txt" }}]
"""

_ADAPTER = """
import importlib.metadata

import ledger
from agentforge_worker.adapter import Message, Probe, Result
from . import loop
from .loop import Loop, PythonAdapter


def charges(spec):
    return any(tool.name == "charge" for tool in spec.tools)


class SoundAdapter(PythonAdapter):
    loop = Loop

    def probe(self):
        return Probe(importlib.metadata.version("ledger"))

    def build(self, spec, ctx):
        return self.loop(spec)


class ForgetfulLoop(Loop):
    async def _call_tools(self, answer, ctx):
        del answer.tool_calls[1:]
        return await Loop._call_tools(self, answer, ctx)


class ForgetfulAdapter(SoundAdapter):
    loop = ForgetfulLoop


class DroppingLoop(Loop):
    async def _call_tools(self, answer, ctx):
        for call in answer.tool_calls:
            call["arguments"].pop("receipt", None)
        return await Loop._call_tools(self, answer, ctx)


class DroppingAdapter(SoundAdapter):
    loop = DroppingLoop


class WordyLoop(Loop):
    def __init__(self, spec):
        Loop.__init__(self, spec)
        self._request["user"] = "ledger 1.3"


class WordyAdapter(SoundAdapter):
    loop = WordyLoop


class SummingLoop(Loop):
    async def run(self, request, ctx):
        result = await Loop.run(self, request, ctx)
        if charges(self.spec):
            await ctx.chat([{"role": "user", "content": "Sum this up: " + str(result.output)}])
        return result


class SummingAdapter(SoundAdapter):
    loop = SummingLoop


class InventingLoop(Loop):
    async def run(self, request, ctx):
        result = await Loop.run(self, request, ctx)
        return Result(result.output + " As ever.", result.messages) if charges(self.spec) else result


class InventingAdapter(SoundAdapter):
    loop = InventingLoop
"""

TOOLS = '''
import os

def charge(category: str, amount: float, receipt: str = "none") -> str:
    """Charge an amount."""
    with open({log!r}, "a") as log:
        log.write(f"{{category}} {{amount}} {{receipt}}\\n")
    return f"charged {{amount}} with {{receipt}}"
'''


def write_ledger(folder: Path, *versions: str) -> Path:
    """Write the framework's folder, in which these releases are tested; a folder that is there is changed."""
    (folder / "locks").mkdir(parents=True, exist_ok=True)
    ranges = "".join(_RANGE.format(version=each, adapter=RELEASES[each]) for each in versions)
    (folder / "framework.toml").write_text(_HEAD + ranges)
    (folder / "adapter.py").write_text(_ADAPTER)
    shutil.copyfile(_PYTHON, folder / "loop.py")
    (folder / "README.md").write_text("# Ledger\n")
    for each in versions:
        (folder / f"locks/{each}.txt").write_text(lock_of(each))
    return folder


def lock_of(version: str) -> str:
    """Return the lock that a release ships."""
    companion = _COMPANIONS.get(version, "1.5")
    files = {("companion", companion): wheel("companion", companion), ("ledger", version): _ledger(version)}
    return "".join(
        f"{name}=={each} \\\n    --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
        for (name, each), content in files.items()
    )


def _ledger(version: str) -> bytes:
    return wheel("ledger", version, ("companion",))


def index_of_ledgers() -> LocalIndex:
    """Return an index that has all of its releases."""
    index = LocalIndex()
    for version in RELEASES:
        index.add("ledger", version, "2024-01-10", ("companion",))
    for version in ("1.5", "2.0"):
        index.add("companion", version, "2024-01-12")
    return index


async def record(project: Project, agent: str, *options: str, receipt: str = "r-7") -> dict[str, object]:
    """Run an agent whose model charges twice at once and once more, and return its result."""
    first = [
        CalledTool("charge", {"category": "travel", "amount": 12.5, "receipt": receipt}),
        CalledTool("charge", {"category": "meals", "amount": 3.0}),
    ]
    last = CalledTool("charge", {"category": "hotel", "amount": 70.0, "receipt": receipt})
    steps = (Step(calls=first), Step(calls=[last]), Step(text="All booked: {tools}."))
    model = project.model.script("bookkeeper", *steps, per="conversation")
    result = await project.run(agent, "Book it all.", "--model", f"openai:{model}", *options)
    assert result["status"] == "succeeded", result
    assert len(result["tool_calls"]) == 3
    return result
