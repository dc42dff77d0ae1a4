"""The native example of CrewAI: a user's own crew, run unchanged, streamed, journalled and recovered."""

import asyncio
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import PATIENCE_S, Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "native" / "crewai"
TOPIC = "tides"
FACTS = "The moon pulls."

pytestmark = pytest.mark.framework("crewai")


def prepared(project: Project, *, last_delay_s: float = 0.0) -> list[str]:
    """Copy the example into a project and have its model answer; return the arguments that run it."""
    shutil.copytree(EXAMPLE, project.root / "crew")
    project.model.script(
        "gpt-4.1-mini",
        Step(calls=[CalledTool("look_up_notes", {"topic": "tides"})]),
        Step(text=FACTS),
        Step(calls=[CalledTool("count_words", {"text": "The moon makes tides."})]),
        Step(text="The moon makes tides.", delay_s=last_delay_s),
        Step(text="The moon makes tides."),
    )
    return ["crew", TOPIC]


async def test_the_crew_runs_unchanged_streamed_and_journalled(project: Project) -> None:
    done = await project.command("run", *prepared(project), "--json", "--stream")
    *events, result = done.objects
    assert (result["status"], result["output"]) == ("succeeded", "The moon makes tides."), result["error"]
    kinds = Counter(event["kind"] for event in events)
    assert (kinds["model.responded"], kinds["tool.returned"]) == (4, 2)
    assert kinds["message.delta"] > 0
    assert all(request.json["stream"] for request in project.model.requests)
    researched, _, written, counted = (request.body.decode() for request in project.model.requests)
    assert "Look up what our notes say about tides." in researched
    assert FACTS in written
    assert '"content":"4"' in counted.replace(" ", "")


async def test_after_the_end_of_its_worker_the_crew_goes_on_and_calls_no_tool_again(project: Project) -> None:
    """Its tools are recorded (`tool-replay` is full): nothing waits for a human."""
    run = await project.detached(*prepared(project, last_delay_s=5))
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(4)
    (worker,) = await project.workers("agent")
    os.kill(worker["pid"], signal.SIGKILL)
    result = await project.ended(run)
    assert (result["status"], result["output"]) == ("succeeded", "The moon makes tides."), result["error"]
    assert [call["name"] for call in result["tool_calls"]] == ["look_up_notes", "count_words"]
    assert len(project.model.requests) == 5  # the one that was under way is made again
    assert result["replayed_effects"] == 5
