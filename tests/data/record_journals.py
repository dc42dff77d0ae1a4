"""Records `journals/`: what one agent asked a model and its tools on each framework, as the journal keeps it.

`AGENTFORGE_HOME=FOLDER python tests/data/record_journals.py` needs the environments of that folder.
"""

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "process"))
from project_world import EXAMPLE, Project, open_project  # type: ignore[import-not-found]

from agentforge.store import Effect, ProjectId, RunId, open_store
from agentforge_conformance.scripted_model import CalledTool, Step

FRAMEWORKS = ("langchain", "crewai", "pydantic-ai", "python")
STEPS = [
    Step(text="Good morning to you."),
    Step(
        text="Let me see.",
        calls=[CalledTool("total_for", {"category": "travel"}), CalledTool("total_for", {"category": "hotels"})],
    ),
    Step(calls=[CalledTool("total_for", {"category": "hardware"})]),
    Step(text="Hardware was {tool} euros."),
]
INPUT = "How much were travel, hotels and hardware?"


async def main() -> None:
    """Record the journal of the second turn of a thread."""
    for framework in FRAMEWORKS:
        with tempfile.TemporaryDirectory() as folder:
            async with open_project(Path(folder) / "project") as project:
                journal = await _record(project, framework)
        text = json.dumps(journal, indent=1, ensure_ascii=False) + "\n"
        (Path(__file__).parent / "journals" / f"{framework}.json").write_text(text)


async def _record(project: Project, framework: str) -> dict[str, Any]:
    project.variables["AGENTFORGE_MODEL"] = project.model.script("recorded", *STEPS)
    options = ("--on", framework, "--thread", "talk")
    await project.run(str(EXAMPLE), "Good morning", *options)
    run = await project.run(str(EXAMPLE), INPUT, *options)
    assert run["status"] == "succeeded", run
    await project.stop()
    async with open_store(project.root / ".agentforge" / "state.db") as store:
        effects = await store.list_effects(RunId(run["run_id"]))
        thread = await store.list_messages(ProjectId(str(project.root)), "talk")
    messages = [each.message for each in thread]
    return {
        "input": INPUT,
        "thread": messages[:2],
        "added": messages[3:],
        "effects": [_plain(each) for each in effects],
    }


def _plain(effect: Effect) -> dict[str, Any]:
    names = ("position", "kind", "request_hash", "occurrence", "status")
    payloads = {"request": effect.request.decode(), "response": effect.response.decode()}
    return {**{name: getattr(effect, name) for name in names}, **payloads}


if __name__ == "__main__":
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="af-", dir="/tmp"))
    asyncio.run(main())
