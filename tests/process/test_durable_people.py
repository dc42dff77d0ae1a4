"""Runs that wait for people: questions, approvals, time-outs, and what diverges after a crash."""

import asyncio

import pytest

from agentforge import AgentForgeError
from agentforge_conformance.scripted_model import CalledTool, Step

from .durable_world import FRAMEWORKS, World
from .project_world import Project

ASKS = """
async def agent(input, ctx):
    first = await ctx.random()
    await ctx.checkpoint("before the question")
    name = await ctx.ask("What is your name?", **input)
    again = await ctx.now()
    return {"name": name, "first": first, "at": again}
"""
PARENT = """
async def agent(input, ctx):
    child = await ctx.run_agent("child.yaml", "for the child")
    await ctx.ask("Go on?")
    return {"child": child["output"], "run_id": child["run_id"]}
"""
CHILD = "name: child\ninstructions: Answer.\nframework: python\n"
MOODY = """
import pathlib


async def agent(input, ctx):
    mood = pathlib.Path(input["mood"]).read_text()
    await ctx.chat([{"role": "user", "content": "first"}])
    await ctx.tool_effect("pay", {"amount": 1}, lambda: "paid")
    await ctx.chat([{"role": "user", "content": mood}])
    await ctx.ask("Go on?")
    return "done"
"""


@pytest.fixture
async def world(project: Project) -> World:
    return World(project)


async def waiting(world: World, run: str, kind: str) -> dict[str, object]:
    """Return the one interrupt that a run waits for."""
    found = await world.project.ended(run)
    assert found["status"] == "waiting", found
    (interrupt,) = found["interrupts"]
    assert interrupt["kind"] == kind
    return dict(interrupt)


async def test_a_question_is_answered_days_and_hosts_later(world: World) -> None:
    agent = world.project.native("asks", ASKS)
    async with world.project_host() as connection:
        run = (await connection.post("/v1/runs", {"agent": agent, "input": {"options": ["Ada", "Bob"]}}))["run_id"]
    interrupt = await waiting(world, run, "question")
    assert interrupt["message"] == "What is your name?"
    first = [event for event in await world.project.events(run) if event["kind"] == "checkpoint.saved"]
    assert [event["data"]["name"] for event in first] == ["before the question"]
    await world.kill_host()
    await world.project.command("runs", "list", "--json")
    await world.answer(run, decision="answer", value="Ada")
    result = await world.project.ended(run)
    assert (result["status"], result["output"]["name"], result["replayed_effects"]) == ("succeeded", "Ada", 3)
    assert result["attempts"] == 2


async def test_an_answer_that_does_not_fit_is_refused_and_the_run_waits_on(world: World) -> None:
    agent = world.project.native("asks", ASKS)
    async with world.project_host() as connection:
        run = (await connection.post("/v1/runs", {"agent": agent, "input": {"options": ["Ada", "Bob"]}}))["run_id"]
    await waiting(world, run, "question")
    wrong: list[dict[str, str]] = [
        {"decision": "answer", "value": "Eve"},
        {"decision": "retry"},
        {"decision": "answer", "value": "Ada", "interrupt": "i9"},
    ]
    for each in wrong:
        with pytest.raises(AgentForgeError) as refused:
            await world.answer(run, **each)
        assert refused.value.code == "AF712"
    await waiting(world, run, "question")


@pytest.mark.parametrize("default", [True, False])
async def test_a_question_that_nobody_answers_in_time_takes_its_default_or_fails(world: World, default: bool) -> None:
    agent = world.project.native("asks", ASKS)
    given = {"timeout_s": 0.3, **({"default": "nobody"} if default else {})}
    async with world.project_host() as connection:
        run = (await connection.post("/v1/runs", {"agent": agent, "input": given}))["run_id"]
    async with asyncio.timeout(60):
        while (result := await world.project.ended(run))["status"] == "waiting":
            await asyncio.sleep(0.05)
    if default:
        assert (result["status"], result["output"]["name"]) == ("succeeded", "nobody")
    else:
        assert (result["status"], result["error"]["code"]) == ("failed", "AF715")


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("decision", ["approve", "reject"])
async def test_a_call_that_needs_an_approval_waits_for_it(world: World, framework: str, decision: str) -> None:
    code = (world.project.root / "agent/tools.py").read_text()
    agent = world.project.with_tools("approved", code, "careful", approval="always")
    model = world.project.model.script(
        "once", Step(calls=[CalledTool("careful", {"n": 1})]), Step(text="so: {tool}"), per="conversation"
    )
    run = await world.project.detached(agent, "go", "--on", framework, "--model", f"openai:{model}")
    interrupt = await waiting(world, run, "approval")
    assert interrupt["data"] == {"name": "careful", "arguments": {"n": 1}}
    assert world.calls() == []
    async with asyncio.timeout(60):
        while any(worker["runs"] for worker in await world.project.workers()):
            await asyncio.sleep(0.05)
    await world.answer(run, decision=decision, value=None)
    result = await world.project.ended(run)
    assert result["status"] == "succeeded", result
    assert world.calls() == ([("careful", 1)] if decision == "approve" else [])
    assert ("rejected" in result["output"]) == (decision == "reject")
    assert len(world.requests()) == 2


async def test_a_child_run_is_started_once(world: World) -> None:
    agent = world.project.native("parent", PARENT)
    world.project.write("parent/child.yaml", CHILD)
    async with world.project_host() as connection:
        given = {"agent": agent, "input": "x", "variables": world.project.variables}
        run = (await connection.post("/v1/runs", given))["run_id"]
    await waiting(world, run, "question")
    await world.kill_host()
    await world.project.command("runs", "list", "--json")
    await world.answer(run, decision="answer", value="yes")
    result = await world.project.ended(run)
    assert (result["status"], result["output"]["child"]) == ("succeeded", "FINAL: for the child")
    assert len(world.requests()) == 1
    runs = (await world.project.command("runs", "list", "--json")).objects
    assert {each["run_id"] for each in runs} == {run, result["output"]["run_id"]}


@pytest.mark.parametrize("decision", ["continue", "fail"])
async def test_a_run_that_takes_another_way_after_a_payment_asks_first(world: World, decision: str) -> None:
    agent = world.project.native("moody", MOODY)
    mood = world.project.marks / "mood.txt"
    mood.write_text("glad")
    async with world.project_host() as connection:
        given = {"agent": agent, "input": {"mood": str(mood)}, "variables": world.project.variables}
        run = (await connection.post("/v1/runs", given))["run_id"]
    await waiting(world, run, "question")
    mood.write_text("sad")
    await world.answer(run, decision="answer", value="yes")
    interrupt = await waiting(world, run, "divergence")
    assert interrupt["data"]["effect"] == 2
    (change,) = interrupt["data"]["diff"]
    assert (change["path"], change["before"], change["after"]) == ("$.messages[0].content", "glad", "sad")
    assert len(world.requests()) == 2
    await world.answer(run, decision=decision)
    if decision == "fail":
        assert (await world.project.ended(run))["status"] == "failed"
        return
    await waiting(world, run, "question")  # its answer belonged to the way that the run has left
    await world.answer(run, decision="answer", value="yes")
    result = await world.project.ended(run)
    assert (result["status"], result["output"]) == ("succeeded", "done")
    assert len(world.requests()) == 3
