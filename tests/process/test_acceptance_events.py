"""Events: numbered without gaps, in an order that can be relied on, resumable, streamed by the command."""

import asyncio
import json
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from agentforge.api.place import host_place
from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import EXAMPLE, Project

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.feature("AF-071")]

FRAMEWORKS = ["python", pytest.param("langchain", marks=pytest.mark.framework("langchain"))]
KINDS = {
    "run.started", "attempt.started", "step.started", "step.finished", "model.requested", "model.responded",
    "model.failed", "tool.called", "tool.returned", "tool.failed", "message.delta", "message.added", "handoff.made",
    "checkpoint.saved", "interrupt.raised", "interrupt.answered", "replay.diverged", "log.written", "run.finished",
}  # fmt: skip


def kinds(events: list[dict[str, Any]], *of: str) -> list[str]:
    """Return the events' kinds in order, only those `of` interest."""
    return [event["kind"] for event in events if event["kind"].startswith(of or "")]


async def sse(project: Project, run_id: str, **headers: str) -> list[tuple[str, int | None, dict[str, Any]]]:
    """Read a run's stream to its end as any SSE client would: (event, id, data)."""
    connector = aiohttp.UnixConnector(str(host_place(project.root).socket))
    found = []
    async with (
        aiohttp.ClientSession(connector=connector, headers={"Accept": "text/event-stream", **headers}) as session,
        session.get(f"http://host/v1/runs/{run_id}/events") as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        fields: dict[str, str] = {}
        async for line in answer.content:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
                continue
            number = int(fields["id"]) if "id" in fields else None
            found.append((fields["event"], number, json.loads(fields["data"])))
            fields = {}
    return found


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_events_of_a_run_with_a_tool_come_in_order_and_in_pairs(
    shared_project: Project, framework: str
) -> None:
    result = await shared_project.run(str(EXAMPLE), "x", "--on", framework)
    events = await shared_project.events(result["run_id"])
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert set(kinds(events)) <= KINDS
    assert kinds(events)[0] == "run.started"
    assert kinds(events)[-1] == "run.finished"
    assert kinds(events, "run.", "attempt.", "model.", "tool.") == [
        "run.started", "attempt.started",
        "model.requested", "model.responded", "tool.called", "tool.returned", "model.requested", "model.responded",
        "run.finished",
    ]  # fmt: skip
    first, *_, last = events
    assert first["data"]["agent_version"] == result["agent_version"]
    assert (first["data"]["framework"], first["data"]["release"]) == (framework, result["release"])
    assert last["data"]["output"] == result["output"]
    for pair in ("model.requested", "model.responded"), ("tool.called", "tool.returned"):
        opened, closed = ([e["data"]["call_id"] for e in events if e["kind"] == kind] for kind in pair)
        assert opened == closed
        assert len(set(opened)) == len(opened)
    (called,) = [event["data"] for event in events if event["kind"] == "tool.called"]
    (returned,) = [event["data"] for event in events if event["kind"] == "tool.returned"]
    assert (called["name"], called["arguments"]) == ("total_for", {"category": "travel"})
    assert returned["result"] == result["tool_calls"][0]["result"]
    steps = [(event["kind"], event["data"]["step"]) for event in events if event["kind"].startswith("step.")]
    assert {step for kind, step in steps if kind == "step.started"} == {
        step for kind, step in steps if kind == "step.finished"
    }


async def test_the_command_prints_events_in_the_contracts_form(shared_project: Project) -> None:
    run_id = (await shared_project.run(shared_project.agent()))["run_id"]
    done = await shared_project.command("runs", "events", run_id, "--json")
    assert done.code == 0
    assert [event["seq"] for event in done.objects] == list(range(1, len(done.objects) + 1))
    for event in done.objects:
        assert list(event) == ["seq", "kind", "at", "data"]
        assert datetime.fromisoformat(event["at"]).tzinfo is not None
    rest = await shared_project.command("runs", "events", run_id, "--after", "2", "--json")
    assert rest.objects == done.objects[2:]
    watched = await shared_project.command("runs", "watch", run_id, "--json")
    assert (watched.code, watched.objects) == (0, done.objects)


async def test_a_stream_resumes_after_any_event_with_exactly_the_rest(shared_project: Project) -> None:
    run_id = (await shared_project.run(str(EXAMPLE), "x", "--on", "python"))["run_id"]
    whole = await sse(shared_project, run_id)
    *events, (last, number, result) = whole
    assert [number for _, number, _ in events] == list(range(1, len(events) + 1))
    assert all(kind == data["kind"] for kind, _, data in events)
    assert (last, number, result["run_id"], result["status"]) == ("result", None, run_id, "succeeded")
    for seen in range(len(events) + 1):
        assert await sse(shared_project, run_id, **{"Last-Event-ID": str(seen)}) == whole[seen:]


async def test_who_joins_while_a_run_goes_on_sees_all_of_it_once(shared_project: Project) -> None:
    text = " ".join(f"w{number}" for number in range(40))
    model = shared_project.model.script("long", Step(text=text, chunk_delay_s=0.01))
    run_id = await shared_project.detached(shared_project.agent(), "x", "--stream", "--model", f"openai:{model}")
    early = asyncio.create_task(sse(shared_project, run_id))
    await shared_project.until(run_id, "message.delta")
    late = asyncio.create_task(sse(shared_project, run_id))
    resumed = asyncio.create_task(sse(shared_project, run_id, **{"Last-Event-ID": "3"}))
    whole = await early
    assert await late == whole
    assert await resumed == whole[3:]
    assert await sse(shared_project, run_id) == whole


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_streaming_prints_the_events_then_the_result_and_the_deltas_are_the_answer(
    shared_project: Project, framework: str
) -> None:
    text = "one two three four five"
    model = shared_project.model.script(f"count-{framework}", Step(text=text, chunk_delay_s=0.02))
    done = await shared_project.command(
        "run", shared_project.agent(), "x", "--on", framework, "--model", f"openai:{model}", "--stream", "--json"
    )
    *events, result = done.objects
    assert done.code == 0
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "run.finished"
    assert result["output"] == text
    deltas = [event["data"]["text"] for event in events if event["kind"] == "message.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == text
    assert shared_project.model.requests[-1].json["stream"] is True


async def test_without_streaming_the_model_is_asked_for_a_whole_answer(shared_project: Project) -> None:
    result = await shared_project.run(shared_project.agent())
    assert "message.delta" not in kinds(await shared_project.events(result["run_id"]))
    assert not shared_project.model.requests[-1].json.get("stream")


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_streamed_tool_call_is_recorded_before_the_tool_is_called(
    shared_project: Project, framework: str
) -> None:
    calls = Step(text="let me see", calls=[CalledTool("total_for", {"category": "travel"})], chunk_delay_s=0.02)
    model = shared_project.model.script(f"look-{framework}", calls, Step(text="{tool} in all"))
    done = await shared_project.command(
        "run", str(EXAMPLE), "x", "--on", framework, "--model", f"openai:{model}", "--stream", "--json"
    )
    *events, result = done.objects
    assert done.code == 0, done
    order = kinds(events, "model.", "tool.", "message.delta")
    first = order.index("tool.called")
    assert order[:first].count("model.responded") == 1
    assert order[first - 1] == "model.responded"
    deltas = [event["data"] for event in events if event["kind"] == "message.delta"]
    call_ids = list(dict.fromkeys(delta["call_id"] for delta in deltas))
    said = ["".join(delta["text"] for delta in deltas if delta["call_id"] == each) for each in call_ids]
    assert said == ["let me see", result["output"]]


async def test_what_an_agent_prints_is_in_its_events_and_not_on_stdout(shared_project: Project) -> None:
    code = """
import sys
async def agent(input, ctx):
    print('to stdout')
    print('to stderr', file=sys.stderr)
    return 1
"""
    done = await shared_project.command("run", shared_project.native("prints", code), "x", "--json")
    events = await shared_project.events(done.result["run_id"])
    logs = {(e["data"]["stream"], e["data"]["text"]) for e in events if e["kind"] == "log.written"}
    assert {("stdout", "to stdout"), ("stderr", "to stderr")} <= logs
    assert kinds(events)[-1] == "run.finished"


async def test_runs_are_listed_and_shown(shared_project: Project) -> None:
    agent = shared_project.agent("listed")
    good = await shared_project.run(agent, "one", "--label", "team=blue")
    bad = await shared_project.run(agent, "two", "--model", "openai:fail-401", "--label", "team=red")
    listed = (await shared_project.command("runs", "list", "--agent", "listed", "--json")).objects
    assert [run["run_id"] for run in listed] == [bad["run_id"], good["run_id"]]
    failures = (
        await shared_project.command("runs", "list", "--agent", "listed", "--status", "failed", "--json")
    ).objects
    assert [run["run_id"] for run in failures] == [bad["run_id"]]
    blue = (await shared_project.command("runs", "list", "--label", "team=blue", "--json")).objects
    assert [run["run_id"] for run in blue] == [good["run_id"]]
    table = (await shared_project.command("runs", "list", "--limit", "1")).out.splitlines()
    assert table[0].split() == ["RUN", "AGENT", "FRAMEWORK", "STATUS", "TIME", "TOKENS", "CREATED"]
    assert table[1].startswith(bad["run_id"])
    shown = (await shared_project.command("runs", "show", bad["run_id"])).out
    assert "AF501" in shown
    assert "hint" in shown
