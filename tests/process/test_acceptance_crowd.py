"""Many runs at once in one worker: each its own answer, each its own token."""

import asyncio

import pytest

from agentforge import Forge
from agentforge.store import RunId, open_store

from .project_world import KEY, Project

RUNS = 200
TOOLS = '''
def lookup(name: str) -> str:
    """Look a name up."""
    return name
'''


@pytest.mark.feature("AF-041")
@pytest.mark.framework("langchain")
async def test_two_hundred_runs_at_once_share_one_worker_and_nothing_else(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in project.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(project.root)
    agent = project.with_tools("crowd", TOOLS, "lookup")
    questions = [f"question-{number:03}" for number in range(RUNS)]
    async with Forge(project.root, background=True) as forge, asyncio.timeout(90):
        runs = [await forge.submit(agent, each, on="langchain", model="openai:echo") for each in questions]
        results = await asyncio.gather(*(run.result() for run in runs))
    for question, result in zip(questions, results, strict=True):
        assert result.status == "succeeded", result.error
        assert f"user said {question}" in result.output
        assert len(result.tool_calls) == 1
    assert len(project.model.requests) == 2 * RUNS
    assert project.keys_seen() == {f"Bearer {KEY}"}
    assert await _workers_of(project, [run.run_id for run in runs]) == {(await project.workers())[0]["pid"]}
    for question, run in zip(questions, runs, strict=True):
        asked = await _model_requests(project, run.run_id)
        assert len(asked) == 2
        # The gateway knows a request's run by its token alone: with another run's token it would be recorded there.
        assert all(question in body and body.count("question-") == 1 for body in asked), (question, asked)


async def _workers_of(project: Project, run_ids: list[str]) -> set[int]:
    events = await asyncio.gather(*(project.events(run_id) for run_id in run_ids))
    return {event["data"]["pid"] for found in events for event in found if event["kind"] == "attempt.started"}


async def _model_requests(project: Project, run_id: str) -> list[str]:
    """Return the model requests in a run's journal."""
    store = open_store(project.root / ".agentforge" / "state.db")
    await store.open()
    try:
        effects = await store.list_effects(RunId(run_id))
    finally:
        await store.close()
    return [effect.request.decode() for effect in effects if effect.kind == "model"]
