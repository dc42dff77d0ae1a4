"""Journals that move: rolled back, exported, imported where the state was deleted, and gone on with."""

import asyncio
import shutil
from pathlib import Path

import pytest

from agentforge_conformance.scripted_model import Step

from .durable_world import FRAMEWORKS, World, finished_well
from .project_world import PATIENCE_S, Project

CATCHING = """
import asyncio, os, signal


async def agent(input, ctx):
    if "die" in input:
        os.kill(os.getpid(), signal.SIGKILL)
    while os.path.exists(input["gate"]):
        await asyncio.sleep(0.01)
    return "alive"
"""
NOTING = """
import asyncio, os


async def agent(input, ctx):
    while not os.path.isdir({marks!r}):  # a replay sees no files
        await asyncio.sleep(0.01)
    with open({marks!r} + "/noted", "a") as file:
        file.write("x")
    return "alive"
"""
DEADLY = """
import os, signal


async def agent(input, ctx):
    await ctx.checkpoint("begun")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
async def world(project: Project) -> World:
    return World(project)


async def test_a_run_goes_on_from_a_file_after_its_database_was_deleted(world: World) -> None:
    run = await world.start()
    finished_well(await world.project.ended(run), replayed=0)
    async with world.project.connection() as connection:
        rolled = await connection.post(f"/v1/runs/{run}/rollback", {"at": 3})
    assert rolled["status"] == "waiting"
    exported = await world.project.command("runs", "export", run, "run.zip")
    assert exported.code == 0, exported
    await world.project.stop()
    shutil.rmtree(world.project.root / ".agentforge")
    shutil.rmtree(world.project.root / "agent")
    imported = await world.project.command("runs", "import", "run.zip", "--json")
    assert (imported.code, imported.result["run_id"]) == (0, run), imported
    await world.post(f"/v1/runs/{run}/resume")
    finished_well(await world.project.ended(run), replayed=4)
    # Model, tool, model, tool were kept; the last tool and the last answers were asked for again.
    assert world.calls() == [("careful", 0), ("easy", 1), ("careful", 2), ("careful", 2)]
    assert len(set(world.keys())) == 4
    assert len(world.requests()) == 6


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_fork_with_an_edited_result_ends_differently_and_the_original_stays(
    world: World, framework: str
) -> None:
    run = await world.start(framework)
    before = await world.project.ended(run)
    finished_well(before, replayed=0)
    async with world.project.connection() as connection:
        body = {"at": 5, "edit": 1000, "variables": world.project.variables}
        fork = (await connection.post(f"/v1/runs/{run}/fork", body))["run_id"]
    result = await world.project.ended(fork)
    assert (result["status"], result["output"], result["replayed_effects"]) == ("succeeded", "done: 1000", 6), result
    assert result["forked_from"] == {"run_id": run, "effect": 5}
    assert [call["result"] for call in result["tool_calls"]] == [1, 11, 1000]
    assert len(world.calls()) == 3
    assert await world.project.ended(run) == before
    assert (result["model_calls"], len(world.requests())) == (1, 5)


async def test_a_run_that_ends_its_worker_each_time_is_given_up(world: World) -> None:
    agent = world.project.native("deadly", DEADLY)
    async with world.project_host() as connection:
        run = (await connection.post("/v1/runs", {"agent": agent, "variables": world.project.variables}))["run_id"]
    result = await world.project.ended(run)
    assert (result["status"], result["error"]["code"], result["attempts"]) == ("failed", "AF710", 5), result
    events = [event["kind"] for event in await world.project.events(run)]
    assert events.count("attempt.lost") == 4
    assert events.count("checkpoint.saved") == 1


async def test_a_run_that_ends_its_worker_each_time_takes_no_other_run_along(world: World) -> None:
    agent = world.project.native("catching", CATCHING)
    gate = world.close_gate("neighbour")
    async with world.project_host() as connection:
        given = {"agent": agent, "variables": world.project.variables}
        neighbour = (await connection.post("/v1/runs", {**given, "input": {"gate": str(gate)}}))["run_id"]
        first = await world.project.until(neighbour, "attempt.started")
        deadly = (await connection.post("/v1/runs", {**given, "input": {"die": True}}))["run_id"]
    assert (await world.project.ended(deadly))["error"]["code"] == "AF710"
    gate.unlink()
    result = await world.project.ended(neighbour)
    assert (result["status"], result["output"]) == ("succeeded", "alive"), result
    started = [
        event["data"]["pid"] for event in await world.project.events(deadly) if event["kind"] == "attempt.started"
    ]
    assert started[0] == first["data"]["pid"], "they began in one worker"
    assert result["attempts"] <= 3


async def test_a_project_keeps_its_runs_when_its_folder_is_moved(world: World) -> None:
    project = world.project
    run = await world.start("python", "--thread", "work")
    finished_well(await project.ended(run), replayed=0)
    await project.stop()
    project.root = Path(shutil.move(project.root, project.root.with_name("moved")))
    assert [each["run_id"] for each in (await project.command("runs", "list", "--json")).objects] == [run]
    assert [each["thread"] for each in (await project.command("threads", "list", "--json")).objects] == ["work"]
    async with project.connection() as connection:
        await connection.post(f"/v1/runs/{run}/rollback", {"at": 3})
    await world.post(f"/v1/runs/{run}/resume")
    finished_well(await project.ended(run), replayed=4)


async def test_a_replay_that_a_killed_host_was_at_is_not_gone_on_with(world: World) -> None:
    project = world.project
    agent = project.native("noting", NOTING.format(marks=str(project.marks)))
    run = await project.run(agent)
    replay = await project.start("runs", "replay", run["run_id"])
    async with project.connection() as connection, asyncio.timeout(PATIENCE_S):
        while len((await connection.get("/v1/runs"))["runs"]) < 2:
            await asyncio.sleep(0.02)
    await world.kill_host()
    assert (await replay.done()).code != 0
    later = await project.run(agent)  # what was left goes on before
    listed = (await project.command("runs", "list", "--json")).objects
    assert [each["run_id"] for each in listed] == [later["run_id"], run["run_id"]]
    assert (project.marks / "noted").read_text() == "xx"


@pytest.mark.framework("langchain")
@pytest.mark.framework("pydantic-ai")
async def test_a_thread_goes_over_three_frameworks(world: World) -> None:
    agent = world.project.agent("talker")
    said = ["one", "two", "three"]
    for text, framework in zip(said, ("langchain", "pydantic-ai", "python"), strict=True):
        result = await world.project.run(agent, text, "--on", framework, "--thread", "talk")
        assert result["output"] == f"FINAL: {text}"
    last = world.project.model.requests[-1].json["messages"]
    assert [(each["role"], each["content"]) for each in last if each["role"] != "system"] == [
        ("user", "one"), ("assistant", "FINAL: one"),
        ("user", "two"), ("assistant", "FINAL: two"),
        ("user", "three"),
    ]  # fmt: skip


async def test_a_recovered_run_keeps_the_thread_as_it_was_when_it_began(world: World) -> None:
    agent = world.project.agent("talker")
    await world.project.run(agent, "one", "--thread", "talk")
    held = world.project.model.script("held", Step(text="late", delay_s=600), Step(text="so: two"))
    run = await world.project.detached(agent, "two", "--thread", "talk", "--model", f"openai:{held}")
    await world.project.model.wait_for_requests(2)
    await world.kill_host()
    await world.project.command("runs", "list", "--json")
    assert (await world.project.ended(run))["output"] == "so: two"
    requests = world.project.model.requests
    assert requests[1].json == requests[2].json
    shown = await world.project.command("threads", "show", "talk", "--json")
    assert [each["message"]["content"] if "message" in each else each["content"] for each in messages(shown)] == [
        "one", "FINAL: one", "two", "so: two",
    ]  # fmt: skip


def messages(done: object) -> list[dict[str, object]]:
    """Return a thread's messages as the command printed them."""
    objects = list(done.objects)  # type: ignore[attr-defined]
    return objects[0]["messages"] if len(objects) == 1 and "messages" in objects[0] else objects
