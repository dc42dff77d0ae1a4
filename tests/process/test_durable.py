"""Runs that outlive their worker and their host, wait for people, and are rolled back, forked and replayed."""

import json

import pytest

from agentforge_conformance.scripted_model import CalledTool, Step

from .durable_world import FRAMEWORKS, World, finished_well
from .project_world import Project


@pytest.fixture
async def world(project: Project) -> World:
    return World(project)


@pytest.mark.feature("AF-081")
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_killed_worker_costs_nothing_that_was_finished(world: World, framework: str) -> None:
    gate = world.close_gate("easy1")
    run = await world.start(framework)
    await world.until_called(2)
    await world.kill_worker()
    gate.unlink()
    result = await world.project.ended(run)
    # The tool was under way in a process of its own: it went on, and the next attempt got what it returned.
    finished_well(result, replayed=result["replayed_effects"])
    assert result["replayed_effects"] in (3, 4)
    assert world.calls() == [("careful", 0), ("easy", 1), ("careful", 2)]
    assert len(world.requests()) == 4
    assert result["attempts"] == 2


@pytest.mark.feature("AF-081")
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_killed_host_costs_nothing_that_was_finished(world: World, framework: str) -> None:
    gate = world.close_gate("easy1")
    run = await world.start(framework)
    await world.until_called(2)
    await world.kill_host()
    gate.unlink()
    done = await world.project.command("runs", "list", "--json")  # any command starts the next host
    assert done.code == 0
    result = await world.project.ended(run)
    finished_well(result, replayed=3)
    assert world.calls() == [("careful", 0), ("easy", 1), ("easy", 1), ("careful", 2)]
    assert len(set(world.keys())) == 3
    assert len(world.requests()) == 4
    events = await world.project.events(run)
    assert [event["data"]["attempt"] for event in events if event["kind"] == "attempt.started"] == [1, 2]
    assert sum(event["kind"] == "model.responded" for event in events) == 4
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


@pytest.mark.feature("AF-081")
@pytest.mark.parametrize("decision", ["retry", "result", "fail"])
async def test_a_tool_in_flight_that_must_not_run_twice_has_the_run_wait(world: World, decision: str) -> None:
    gate = world.close_gate("careful2")
    run = await world.start()
    await world.until_called(3)
    await world.kill_host()
    gate.unlink()
    await world.project.command("runs", "list", "--json")
    waiting = await world.project.ended(run)
    assert (waiting["status"], waiting["attempts"]) == ("waiting", 2)
    (interrupt,) = waiting["interrupts"]
    assert (interrupt["kind"], interrupt["data"]["name"]) == ("tool", "careful")
    assert interrupt["answers"] == ["retry", "result", "fail"]
    assert world.calls() == [("careful", 0), ("easy", 1), ("careful", 2)]
    await world.answer(run, decision=decision, **({"value": 3} if decision == "result" else {}))
    result = await world.project.ended(run)
    if decision == "fail":
        assert (result["status"], result["error"]["code"]) == ("failed", "AF716")
        return
    finished_well(result, replayed=6 if decision == "result" else 5)
    assert world.calls().count(("careful", 2)) == (2 if decision == "retry" else 1)


async def test_a_stopping_host_does_not_wait_for_the_tools_of_a_run_that_waits(world: World) -> None:
    world.project.write("agentforge.toml", "[host]\ndrain_s = 0\n")
    both = [CalledTool("easy", {"n": 5}), CalledTool("careful", {"n": 0})]  # in this order: the run may wait at once
    world.model = world.project.model.script("both", Step(calls=both), Step(text="done"), per="conversation")
    first, second = world.close_gate("careful0"), world.close_gate("easy5")
    run = await world.start()
    await world.until_called(2)
    await world.kill_host()
    await world.project.command("runs", "list", "--json")
    await world.until_called(3)  # `easy` is called again and hangs; whether `careful` was done is for a human to say
    await world.project.stop()
    first.unlink()
    second.unlink()
    await world.project.command("runs", "list", "--json")
    assert (await world.project.ended(run))["status"] == "waiting"
    await world.answer(run, decision="result", value=1)
    assert (await world.project.ended(run))["output"] == "done"


async def test_a_run_that_was_left_and_rolled_back_goes_on_only_when_it_is_resumed(world: World) -> None:
    world.project.write(
        "agentforge.toml",
        '[models.own]\nbase_url = "${env:OPENAI_BASE_URL}"\napi_key = "${env:OPENAI_API_KEY}"\nmodel = "fake"\n',
    )
    gate = world.close_gate("easy1")
    world.model = world.project.model.script("fake", *(Step(calls=[CalledTool("easy", {"n": 1})]), Step(text="done")))
    run = await world.project.detached(world.agent, "go", "--model", "own")
    await world.until_called(1)
    await world.kill_host()
    gate.unlink()
    without = {"OPENAI_BASE_URL": "", "OPENAI_API_KEY": ""}
    rolled = await world.project.command("runs", "rollback", run, "--at", "-1", variables=without)
    assert rolled.code == 0, rolled
    resumed = await world.project.command("runs", "resume", "--all", "--json")
    assert run not in [each["run_id"] for each in resumed.objects if each["status"] != "waiting"]
    assert (await world.project.ended(run))["status"] == "waiting"
    assert (await world.project.command("runs", "resume", run)).code == 0
    assert (await world.project.ended(run))["status"] == "succeeded"


async def test_a_waiting_run_outlives_its_host_and_holds_no_worker(world: World) -> None:
    run = await waiting_for_tool(world)
    await world.kill_host()
    await world.project.command("runs", "list", "--json")
    assert (await world.project.ended(run))["status"] == "waiting"
    assert await world.project.workers() == []
    await world.answer(run, decision="result", value=3)
    finished_well(await world.project.ended(run), replayed=6)


async def waiting_for_tool(world: World) -> str:
    """Return a run that waits because of a tool."""
    gate = world.close_gate("careful2")
    run = await world.start()
    await world.until_called(3)
    await world.kill_worker("tools")
    assert (await world.project.ended(run))["status"] == "waiting"
    gate.unlink()
    return run


async def test_the_end_of_a_tools_process_repeats_an_idempotent_call_with_its_key(world: World) -> None:
    gate = world.close_gate("easy1")
    run = await world.start()
    await world.until_called(2)
    await world.kill_worker("tools")
    await world.until_called(3)
    gate.unlink()
    finished_well(await world.project.ended(run), replayed=0)
    assert world.calls() == [("careful", 0), ("easy", 1), ("easy", 1), ("careful", 2)]
    assert len(set(world.keys())) == 3


async def test_editing_the_agent_between_crash_and_recovery_changes_nothing(world: World) -> None:
    gate = world.close_gate("easy1")
    run = await world.start()
    await world.until_called(2)
    await world.kill_host()
    gate.unlink()
    world.project.write("agent/tools.py", "def careful(n: int) -> int:\n    return 1000\n")
    world.project.write(
        "agent/agent.yaml", json.dumps({"name": "other", "instructions": "Sing.", "framework": "python"})
    )
    await world.project.command("runs", "list", "--json")
    finished_well(await world.project.ended(run), replayed=3)


async def test_a_stopping_host_hands_its_runs_over(world: World) -> None:
    world.project.write("agentforge.toml", "[host]\ndrain_s = 0\n")
    gate = world.close_gate("easy1")
    run = await world.start()
    await world.until_called(2)
    await world.project.stop()
    gate.unlink()
    await world.project.command("runs", "list", "--json")
    finished_well(await world.project.ended(run), replayed=3)
