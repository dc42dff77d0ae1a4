"""Limits on what goes on at once, and the response cache, by the command line and over a real host."""

import asyncio
from typing import Any

import pytest

from .project_world import PATIENCE_S, Project

MODEL = """
[models.default]
base_url = "${env:OPENAI_BASE_URL}"
api_key = "${env:OPENAI_API_KEY}"
model = "fake"
"""
HOLDS = '''
import os, time

def holds(gate: str = "") -> str:
    """Wait while there is a gate."""
    while os.path.exists({gate!r}):
        time.sleep(0.01)
    return "through"
'''


class Held:
    """A run that goes on until it is let go: it has the only place there is."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._gate = project.marks / "gate"  # where the tools of an agent may read
        self.run_id = ""

    async def begin(self) -> None:
        self._gate.touch()
        agent = self._project.with_tools("holds", HOLDS.format(gate=str(self._gate)), "holds")
        self.run_id = await self._project.detached(agent)
        await self._project.until(self.run_id, "tool.called")

    def let_go(self) -> None:
        self._gate.unlink()


@pytest.fixture
async def held(project: Project) -> Held:
    return Held(project)


async def queued(project: Project) -> set[str]:
    done = await project.command("runs", "list", "--status", "queued", "--json")
    return {run["run_id"] for run in done.objects}


async def begun_in_order(project: Project, *runs: str) -> list[str]:
    """Return the runs in the order in which they began."""
    results = await asyncio.gather(*(project.ended(run) for run in runs))
    assert {result["status"] for result in results} == {"succeeded"}
    return [result["run_id"] for result in sorted(results, key=lambda result: str(result["started_at"]))]


@pytest.mark.feature("AF-074")
async def test_runs_above_the_limit_begin_by_priority_and_in_their_threads_order(project: Project, held: Held) -> None:
    project.write("agentforge.toml", "[queue]\nmax_runs = 1\n")
    await held.begin()
    agent = project.agent()
    first = await project.detached(agent, "first", "--thread", "t")
    second = await project.detached(agent, "second", "--thread", "t", "--priority", "5")
    third = await project.detached(agent, "third", "--priority", "9")
    fourth = await project.detached(agent, "fourth", "--priority", "-1")
    assert await queued(project) == {first, second, third, fourth}
    held.let_go()
    assert await begun_in_order(project, first, second, third, fourth) == [third, first, second, fourth]


@pytest.mark.feature("AF-074")
async def test_a_limit_of_an_agent_holds_up_no_other_agent(project: Project, held: Held) -> None:
    project.write("agentforge.toml", "[queue.agents]\nholds = 1\n")
    await held.begin()
    same = await project.detached("holds")
    other = await project.run(project.agent("other"))
    assert other["status"] == "succeeded"
    assert await queued(project) == {same}
    assert (await project.command("runs", "cancel", same)).code == 0
    assert await queued(project) == set()
    held.let_go()
    assert (await project.ended(held.run_id))["status"] == "succeeded"
    assert (await project.ended(same))["status"] == "cancelled"


@pytest.mark.feature("AF-074")
async def test_a_run_too_many_is_refused_and_not_recorded(project: Project, held: Held) -> None:
    project.write("agentforge.toml", "[queue]\nmax_runs = 1\nmax_queued = 1\n")
    await held.begin()
    agent = project.agent()
    waits = await project.detached(agent)
    refused = await project.command("run", agent, "one too many", "--detach", "--json")
    assert refused.code == 1
    assert "AF722" in refused.err + refused.out
    held.let_go()
    assert (await project.ended(waits))["status"] == "succeeded"
    listed = await project.command("runs", "list", "--json")
    assert {run["run_id"] for run in listed.objects} == {held.run_id, waits}


@pytest.mark.feature("AF-074")
async def test_a_request_waits_while_the_tokens_of_its_model_are_overdrawn(project: Project) -> None:
    project.write("agentforge.toml", MODEL + "tokens_per_minute = 600\n")
    agent = project.agent()
    first = await project.run(agent, "word " * 610)
    assert first["usage"]["input_tokens"] > 610
    second = await project.run(agent, "hello")
    waited = [event["data"] for event in await project.events(second["run_id"]) if event["kind"] == "model.requested"]
    assert [data["waited_ms"] > 0 for data in waited] == [True]
    calls = [event["data"] for event in await project.events(first["run_id"]) if event["kind"] == "model.requested"]
    assert ["waited_ms" in data for data in calls] == [False]


@pytest.mark.feature("AF-074")
async def test_a_model_is_asked_no_more_often_than_it_may_be(project: Project) -> None:
    project.write("agentforge.toml", MODEL + "requests_per_minute = 2\n")
    agent = project.agent()
    first, second, third = [await project.detached(agent) for _ in range(3)]
    await asyncio.gather(project.ended(first), project.ended(second))
    async with project.connection() as connection:
        assert (await connection.get(f"/v1/runs/{third}"))["status"] == "running"
    assert len(project.model.requests) == 2
    assert (await project.command("runs", "cancel", third)).code == 0


@pytest.mark.feature("AF-074")
async def test_a_queued_run_is_cancelled_and_holds_nobody_up(project: Project, held: Held) -> None:
    project.write("agentforge.toml", "[queue.agents]\nholds = 1\n")
    await held.begin()
    waiting = await project.detached("holds")
    assert (await project.command("runs", "cancel", waiting)).code == 0
    assert (await project.ended(waiting))["status"] == "cancelled"
    held.let_go()
    assert (await project.ended(held.run_id))["status"] == "succeeded"
    assert (await project.run("holds"))["status"] == "succeeded"


def answered(events: list[dict[str, Any]]) -> list[bool]:
    """Return of each model call whether the cache answered it."""
    return [bool(event["data"].get("cached")) for event in events if event["kind"] == "model.responded"]


@pytest.mark.feature("AF-098")
@pytest.mark.feature("AF-060")
async def test_an_identical_request_is_answered_from_the_cache(project: Project) -> None:
    project.write("agentforge.toml", MODEL + "cache_ttl_s = 3600\n")
    agent = project.agent()
    first = await project.run(agent, "hello")
    again = await project.run(agent, "hello")
    assert (again["output"], again["model_calls"]) == (first["output"], first["model_calls"])
    assert (first["usage"]["input_tokens"] > 0, again["usage"]["input_tokens"]) == (True, 0)
    assert answered(await project.events(first["run_id"])) == [False]
    assert answered(await project.events(again["run_id"])) == [True]
    assert len(project.model.requests) == 1
    await project.stop()
    assert answered(await project.events((await project.run(agent, "hello"))["run_id"])) == [True], "another host"
    assert answered(await project.events((await project.run(agent, "other"))["run_id"])) == [False]
    assert len(project.model.requests) == 2
    for options in (["--no-cache"], ["--no-cache"]):
        asked = await project.run(agent, "hello", *options)
        assert answered(await project.events(asked["run_id"])) == [False]
    uncached = await project.run(project.agent("uncached", cache=False), "hello")
    assert answered(await project.events(uncached["run_id"])) == [False]
    assert len(project.model.requests) == 5


@pytest.mark.feature("AF-098")
@pytest.mark.framework("langchain")
async def test_a_stream_is_answered_as_a_stream(project: Project) -> None:
    project.write("agentforge.toml", MODEL + "cache_ttl_s = 3600\n")
    agent = project.agent(framework="langchain")
    runs = []
    async with asyncio.timeout(PATIENCE_S):
        for options in ([], ["--stream"], ["--stream"]):
            runs.append((await project.command("run", agent, "hello", "--json", *options)).objects[-1])
    assert len({run["output"] for run in runs}) == 1
    cached = [answered(await project.events(run["run_id"])) for run in runs]
    assert cached == [[False], [False], [True]]
    assert len(project.model.requests) == 2
