"""The AutoGen group chat of the examples: run unchanged, streamed and recorded, and gone on with after a crash."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import PATIENCE_S, Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "native" / "autogen"
CALL = Step(calls=[CalledTool("get_weather", {"city": "Lisbon"}, "call_1")])
PLAN, APPROVAL = Step(text="Walk along the river."), Step(text="APPROVE")

pytestmark = pytest.mark.framework("autogen")


@pytest.fixture
def agent(project: Project) -> str:
    shutil.copytree(EXAMPLE, project.root / "travel")
    return "travel"


async def test_it_runs_unchanged_streamed_and_recorded(project: Project, agent: str) -> None:
    project.model.script("gpt-4o-mini", CALL, PLAN, APPROVAL)
    result = await project.run(agent, "A day in Lisbon, please.")
    assert result["output"] == "APPROVE"
    assert all(request.json["stream"] for request in project.model.requests)
    told = [m["content"] for m in project.model.requests[1].json["messages"] if m["role"] == "tool"]
    assert told == ["The weather in Lisbon is 23 degrees and sunny."]
    events = await project.events(result["run_id"])
    kinds = [event["kind"] for event in events]
    assert kinds.count("model.responded") == 3
    assert kinds.count("tool.returned") == 1
    deltas = "".join(event["data"]["text"] for event in events if event["kind"] == "message.delta")
    assert deltas == "Walk along the river.APPROVE"
    added = [event["data"]["content"] for event in events if event["kind"] == "message.added"]
    assert added == ["Walk along the river.", "APPROVE"]


async def test_after_the_death_of_its_worker_it_goes_on_by_itself(project: Project, agent: str) -> None:
    """Its tool has returned, and tools are recorded."""
    project.model.script("gpt-4o-mini", CALL, Step(silent_after=0), PLAN, APPROVAL)
    run = await project.detached(agent, "A day in Lisbon, please.")
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(2)
    (worker,) = await project.workers("agent")
    os.kill(worker["pid"], signal.SIGKILL)
    result = await project.ended(run)
    assert (result["status"], result["output"]) == ("succeeded", "APPROVE"), result
    asked = [request.body for request in project.model.requests]
    assert len(asked) == 4
    assert asked[1] == asked[2]
    events = await project.events(run)
    assert [event["kind"] for event in events].count("tool.called") == 1
    assert [event["kind"] for event in events].count("attempt.started") == 2
