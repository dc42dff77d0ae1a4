"""Cancelling: during a model call, during a tool, before a worker is free, and of code that does not listen."""

import asyncio

import pytest

from agentforge_conformance.scripted_model import Step

from .project_world import Project, gone

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.feature("AF-031")]

FRAMEWORKS = ["python", pytest.param("langchain", marks=pytest.mark.framework("langchain"))]
TOOLS = '''
import asyncio, time

def blocks(why: str) -> str:
    """Never return, and listen to nobody."""
    while True:
        time.sleep(600)

async def waits(why: str) -> str:
    """Never return, but listen."""
    await asyncio.sleep(600)
'''


async def cancelled(project: Project, run_id: str) -> dict:
    """Cancel a run by the command and see how it ended."""
    done = await project.command("runs", "cancel", run_id, "--json")
    assert done.code == 0, done
    assert (done.result["status"], done.result["error"], done.result["output"]) == ("cancelled", None, None)
    events = await project.events(run_id)
    assert events[-1]["kind"] == "run.finished"
    assert events[-1]["data"]["status"] == "cancelled"
    return done.result


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_slow_model_call_is_given_up_and_the_worker_goes_on(
    shared_project: Project, framework: str, stream: bool
) -> None:
    agent = shared_project.agent(f"slow-{framework}", framework=framework)
    model = shared_project.model.script("crawl", Step(text="a b c d e f", silent_after=4))
    options = ["--stream", "--model", f"openai:{model}"] if stream else ["--model", "openai:slow-600"]
    before = len(shared_project.model.requests)
    run_id = await shared_project.detached(agent, "x", *options)
    async with asyncio.timeout(60):
        await shared_project.model.wait_for_requests(before + 1)
    await shared_project.until(run_id, "message.delta" if stream else "model.requested")
    (pid,) = {worker["pid"] for worker in await shared_project.workers() if worker["runs"]}
    await cancelled(shared_project, run_id)
    async with asyncio.timeout(10):
        await shared_project.model.wait_until_idle()
    assert shared_project.model.requests[before].aborted
    again = await shared_project.run(agent, "still there")
    assert again["output"] == "FINAL: still there"
    events = await shared_project.events(again["run_id"])
    assert {event["data"]["pid"] for event in events if event["kind"] == "attempt.started"} == {pid}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("function", ["blocks", "waits"])
async def test_a_tool_that_hangs_is_given_up_with_its_process(
    shared_project: Project, framework: str, function: str
) -> None:
    agent = shared_project.with_tools(f"hang-{framework}-{function}", TOOLS, function)
    run_id = await shared_project.detached(agent, "x", "--on", framework)
    await shared_project.until(run_id, "tool.called")
    (pid,) = {worker["pid"] for worker in await shared_project.workers("tools") if worker["runs"]}
    result = await cancelled(shared_project, run_id)
    assert [call["name"] for call in result["tool_calls"]] == [function]
    await gone(pid)


@pytest.mark.parametrize(
    "code",
    [
        "import time\ndef agent(input, ctx):\n    time.sleep(600)\n",
        "import time\nasync def agent(input, ctx):\n    time.sleep(600)\n",
        "import asyncio\nasync def agent(input, ctx):\n    while True:\n        try:\n"
        "            await asyncio.sleep(600)\n        except asyncio.CancelledError:\n            pass\n",
    ],
    ids=["blocking-function", "blocking-the-loop", "swallowing-the-cancellation"],
)
async def test_code_that_does_not_listen_loses_its_worker(shared_project: Project, code: str) -> None:
    agent = shared_project.native(f"deaf-{abs(hash(code)) % 1000}", code)
    run_id = await shared_project.detached(agent)
    started = await shared_project.until(run_id, "attempt.started")
    await cancelled(shared_project, run_id)
    await gone(started["data"]["pid"])


async def test_code_that_cleans_up_keeps_its_worker(shared_project: Project) -> None:
    code = """
import asyncio, pathlib
async def agent(input, ctx):
    if input == "quick":
        return "done"
    try:
        await asyncio.sleep(600)
    finally:
        pathlib.Path("cleaned").touch()
"""
    agent = shared_project.native("cleans", code)
    await shared_project.run(agent, "quick")
    run_id = await shared_project.detached(agent, "slow")
    started = await shared_project.until(run_id, "attempt.started")
    await cancelled(shared_project, run_id)
    again = await shared_project.run(agent, "quick")
    events = await shared_project.events(again["run_id"])
    assert [e["data"]["pid"] for e in events if e["kind"] == "attempt.started"] == [started["data"]["pid"]]


async def test_cancelling_a_finished_run_changes_nothing(shared_project: Project) -> None:
    result = await shared_project.run(shared_project.agent())
    done = await shared_project.command("runs", "cancel", result["run_id"], "--json")
    assert (done.code, done.result["status"]) == (0, "succeeded")


@pytest.mark.asyncio(loop_scope="function")
async def test_a_run_that_still_waits_for_a_worker_can_be_cancelled(project: Project) -> None:
    project.write("agentforge.toml", "[workers]\nmax_workers = 1\n")
    blocking = project.native("blocking", "import time\ndef agent(input, ctx):\n    time.sleep(600)\n")
    first = await project.detached(blocking)
    await project.until(first, "attempt.started")
    waiting = await project.detached(project.agent("other"))
    await project.until(waiting, "run.started")
    await cancelled(project, waiting)
    assert "attempt.started" not in [event["kind"] for event in await project.events(waiting)]
    assert (await project.command("runs", "cancel", first)).code == 0
