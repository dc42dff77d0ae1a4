"""The example of a native LangGraph graph: run as it is, streamed, and gone on with after its worker died."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import PATIENCE_S, Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "native" / "langgraph"
MODEL = "gpt-4.1-mini"
INPUT = "Book me a flight to Rome."
FARE = CalledTool("fare", {"city": "Rome"}, "call_1")
BOOK = CalledTool("book", {"city": "Rome"}, "call_2")
STEPS = (Step(calls=[FARE]), Step(calls=[BOOK]), Step(text="It is booked."), Step(text="Rome it is!"))
TOLD = ["89.0", "booked: Rome, 89.0 euros"]

pytestmark = pytest.mark.framework("langgraph")


def example(project: Project) -> str:
    shutil.copytree(EXAMPLE, project.root / "trip")
    return "trip"


def told(project: Project) -> list[str]:
    """What the tools said, as the model heard it at last."""
    messages = project.model.requests[-1].json["messages"]
    return [message["content"] for message in messages if message["role"] == "tool"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_the_graph_runs_as_it_is(project: Project, stream: bool) -> None:
    project.model.script(MODEL, *STEPS)
    done = await project.command("run", example(project), INPUT, "--json", *(["--stream"] if stream else []))
    assert done.code == 0, done
    *events, result = done.objects
    assert (result["output"], result["model_calls"]) == ("Rome it is!", 4)
    assert [(call["name"], call["result"]) for call in result["tool_calls"]] == [("fare", 89.0), ("book", TOLD[1])]
    assert told(project) == TOLD
    assert [bool(request.json.get("stream")) for request in project.model.requests] == [stream] * 4
    if stream:
        said = "".join(event["data"]["text"] for event in events if event["kind"] == "message.delta")
        assert said == "It is booked.Rome it is!"
        started = [event["data"]["name"] for event in events if event["kind"] == "step.started"]
        assert started == ["model", "fare", "model", "book", "model", "model"]


async def test_after_the_death_of_its_worker_nothing_is_booked_again(project: Project) -> None:
    """All that the model asked for is recorded: nobody needs to be asked."""
    project.model.script(MODEL, *STEPS[:3], Step(text="Rome it is!", delay_s=3))
    run = await project.detached(example(project), INPUT)
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(4)
    (worker,) = await project.workers("agent")
    os.kill(worker["pid"], signal.SIGKILL)
    result = await project.ended(run)
    assert (result["status"], result["output"]) == ("succeeded", "Rome it is!")
    assert result["replayed_effects"] == 5
    assert len(project.model.requests) == 5
    assert told(project) == TOLD
