"""The example of a native LlamaIndex workflow: run as it is, streamed, and gone on with after its worker died."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from agentforge_conformance.scripted_model import Step, builtin_step

from .project_world import PATIENCE_S, Project

EXAMPLE = Path(__file__).parents[2] / "examples" / "native" / "llama_index"
MODEL = "gpt-4.1-mini"
INPUT = '{"topic": "pirates"}'
ANSWER = {"joke": "Arr and arr.", "critique": "Not bad."}

pytestmark = pytest.mark.framework("llama-index")


def example(project: Project, *, idempotent: bool = False) -> str:
    folder = project.root / "jokes"
    shutil.copytree(EXAMPLE, folder)
    if idempotent:
        file = folder / "agent.yaml"
        text = file.read_text()
        file.write_text(text.replace("  entrypoint:", "  tools_idempotent: true\n  entrypoint:"))
    return "jokes"


async def killed_in_the_second_step(project: Project, agent: str) -> dict[str, Any]:
    joke, critique = (Step(text=text) for text in ANSWER.values())
    project.model.script(MODEL, joke, builtin_step("silent"), critique)
    run = await project.detached(agent, INPUT)
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(2)
    (worker,) = await project.workers("agent")
    os.kill(worker["pid"], signal.SIGKILL)
    return await project.ended(run)


async def test_the_workflow_runs_as_it_is_and_streams(project: Project) -> None:
    project.model.script(MODEL, Step(text=ANSWER["joke"]), Step(text=ANSWER["critique"]))
    done = await project.command("run", example(project), INPUT, "--stream", "--json")
    assert done.code == 0, done
    *events, result = done.objects
    assert (result["output"], result["model_calls"]) == (ANSWER, 2)
    deltas = [event["data"]["text"] for event in events if event["kind"] == "message.delta"]
    assert "".join(deltas).startswith(ANSWER["joke"])
    assert [event["data"]["name"] for event in events if event["kind"] == "step.started"] == ["model", "model"]
    asked = [request.json["messages"][-1]["content"] for request in project.model.requests]
    assert asked[0] == "Write your best joke about pirates."
    assert asked[1].endswith(ANSWER["joke"])
    assert [bool(request.json.get("stream")) for request in project.model.requests] == [True, False]


async def test_after_the_death_of_its_worker_it_asks_whether_its_steps_may_run_again(project: Project) -> None:
    waiting = await killed_in_the_second_step(project, example(project))
    assert waiting["status"] == "waiting", waiting
    assert [interrupt["kind"] for interrupt in waiting["interrupts"]] == ["recovery"]
    async with project.connection() as connection:
        answer = {"decision": "retry", "variables": project.variables}
        await connection.post(f"/v1/runs/{waiting['run_id']}/answer", answer)
    result = await project.ended(waiting["run_id"])
    assert (result["status"], result["output"]) == ("succeeded", ANSWER)
    assert result["replayed_effects"] == 1
    assert len(project.model.requests) == 3


async def test_one_that_may_be_repeated_goes_on_by_itself(project: Project) -> None:
    result = await killed_in_the_second_step(project, example(project, idempotent=True))
    assert (result["status"], result["output"]) == ("succeeded", ANSWER)
    assert len(project.model.requests) == 3
