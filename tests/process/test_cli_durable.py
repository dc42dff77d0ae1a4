"""Durable runs by the command line: hosts that are killed, runs that wait, and a run's history."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agentforge.api.place import answers, host_place
from agentforge_conformance.scripted_model import CalledTool, Step

from .project_world import Project, gone, open_project

HELD = Step(delay_s=600)
"""An answer that does not come before the host is killed."""
REPLACED = "the host ended; going on with a new one"


def calls_of(project: Project) -> list[str]:
    """Return what the tools have written down, a line a call."""
    file = project.marks / "calls.txt"
    return file.read_text().splitlines() if file.exists() else []


def adding(project: Project, folder: str = "adding", **options: Any) -> str:
    """Write an agent whose tool doubles a number and notes each call."""
    code = (
        f"def double(number: int) -> int:\n    with open({str(project.marks / 'calls.txt')!r}, 'a') as file:\n"
        "        file.write(f'{number}\\n')\n    return 2 * number\n"
    )
    return project.with_tools(folder, code, "double", **options)


def paying(project: Project, **options: Any) -> str:
    """Write an agent whose tool hangs when it is called for the first time, and notes each call."""
    code = (
        "import pathlib, time\n\n\ndef pay(amount: int) -> str:\n"
        f"    file = pathlib.Path({str(project.marks / 'calls.txt')!r})\n    first = not file.exists()\n"
        "    with file.open('a') as stream:\n        stream.write(f'{amount}\\n')\n"
        "    time.sleep(600 if first else 0)\n    return f'paid {amount}'\n"
    )
    return project.with_tools("paying", code, "pay", **options)


async def kill_host(project: Project) -> None:
    """Kill the host as `kill -9` does and wait until it is gone; its workers end with it."""
    pid = (await project.host())["pid"]
    os.kill(pid, signal.SIGKILL)
    await gone(pid)


def model(project: Project, *steps: Step) -> list[str]:
    """Return the options that have the model give these answers, and then the default script's."""
    name = project.model.script("held", *steps, after="default")
    return ["--model", f"openai:{name}"]


def interrupt_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the one thing that a run waits for."""
    assert result["status"] == "waiting", result
    (interrupt,) = result["interrupts"]
    return dict(interrupt)


@pytest.mark.feature("AF-081")
async def test_a_command_ends_with_the_right_answer_when_its_host_is_killed(project: Project) -> None:
    options = model(project, Step(calls=[CalledTool("double", {"number": 21})]), HELD)
    command = await project.start("run", adding(project), "x", "--stream", "--json", *options)
    await project.model.wait_for_requests(2)
    await kill_host(project)
    done = await command.done()
    assert done.code == 0, done
    assert done.err.splitlines().count(REPLACED) == 1
    *events, result = done.objects
    assert (result["status"], result["output"]) == ("succeeded", "FINAL: tool said 42")
    assert (result["attempts"], result["replayed_effects"], result["interrupts"]) == (2, 2, [])
    assert calls_of(project) == ["21"]
    assert len(project.model.requests) == 3  # the one that was held is asked again, the first is not
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["kind"] for event in events].count("attempt.started") == 2
    assert [event["kind"] for event in events].count("tool.returned") == 1
    assert events == (await project.command("runs", "events", result["run_id"], "--json")).objects


@pytest.mark.feature("AF-081")
async def test_several_runs_side_by_side_and_a_watcher_go_on_with_one_new_host(project: Project) -> None:
    options = model(project, *[HELD] * 3)
    watched = await project.detached(project.agent(), "watched", *options)
    watcher = await project.start("runs", "watch", watched, "--json")
    both = await project.start("run", "agent", "both", "--json", "--on", "python,python==3.11", *options)
    await project.model.wait_for_requests(3)
    first = json.loads(await watcher.line())  # it watches
    await kill_host(project)
    seen, ended = await watcher.done(), await both.done()
    assert (seen.code, ended.code) == (0, 0), (seen, ended)
    events = [first, *seen.objects]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["kind"] == "run.finished"
    assert [result["output"] for result in ended.objects] == ["FINAL: both"] * 2
    assert REPLACED in seen.err
    assert ended.err.count(REPLACED) == 1


@pytest.mark.feature("AF-081")
async def test_what_a_killed_host_left_is_resumed_at_one_command(project: Project) -> None:
    agent = project.agent()
    options = model(project, *[HELD] * 3)
    left = [await project.detached(agent, str(number), *options) for number in range(3)]
    await project.model.wait_for_requests(3)
    await kill_host(project)
    done = await project.command("runs", "resume", "--all", "--json")
    assert done.code == 0, done
    assert {result["run_id"]: result["output"] for result in done.objects} == {
        run_id: f"FINAL: {number}" for number, run_id in enumerate(left)
    }
    assert "3 of 3" in done.err
    again = await project.command("runs", "resume", "--all")
    assert (again.code, again.out, again.err) == (0, "", "there is nothing to resume\n")


@pytest.mark.feature("AF-081")
async def test_a_tool_in_flight_at_a_crash_is_for_a_human_to_decide(project: Project) -> None:
    options = model(project, Step(calls=[CalledTool("pay", {"amount": 5})]))
    command = await project.start("run", paying(project), "x", *options)
    async with asyncio.timeout(60):
        while not calls_of(project):
            await asyncio.sleep(0.05)
    run_id = (await project.command("runs", "list", "--json")).result["run_id"]
    await kill_host(project)
    done = await command.done()
    assert (done.code, done.out) == (1, ""), done
    assert f"run {run_id} waits: " in done.err
    assert f"hint: agentforge runs answer {run_id} retry | result JSON | fail" in done.err
    listed = await project.command("runs", "list", "--status", "waiting")
    assert "WAITS FOR" in listed.out
    assert "`pay`" in listed.out
    assert f"agentforge runs answer {run_id} retry" in (await project.command("runs", "show", run_id)).out
    assert calls_of(project) == ["5"]
    unfit = await project.command("runs", "answer", run_id, "approve")
    assert (unfit.code, unfit.out) == (1, "")
    assert "error[AF712]" in unfit.err
    answered = await project.command("runs", "answer", run_id, "result", '"paid by hand"')
    assert (answered.code, answered.out) == (0, "FINAL: tool said paid by hand\n"), answered
    assert calls_of(project) == ["5"]
    late = await project.command("runs", "answer", run_id, "retry")
    assert late.code == 1, late
    assert "error[AF71" in late.err


@pytest.mark.feature("AF-081")
async def test_a_host_that_is_stopped_is_not_started_again_by_who_waits(project: Project) -> None:
    command = await project.start("run", project.agent(), "x", *model(project, HELD))
    await project.model.wait_for_requests(1)
    pid = (await project.host())["pid"]
    stopped = await project.command("host", "stop")
    assert stopped.code == 0, stopped
    done = await command.done()
    assert (done.code, done.out) == (1, ""), done
    assert "error[AF706]" in done.err
    assert "hint: `agentforge runs resume --all`" in done.err
    await gone(pid)
    assert not answers(host_place(project.root))
    resumed = await project.command("runs", "resume", "--all", "--json")
    assert (resumed.code, resumed.result["output"]) == (0, "FINAL: x"), resumed


@pytest.mark.parametrize(
    ("words", "code", "output"),
    [
        (["approve"], 0, "FINAL: tool said 42\n"),
        (["reject", "far too much"], 0, "far too much"),
        (["fail"], 1, ""),
    ],
)
async def test_a_call_that_needs_approval_waits_for_it(
    project: Project, words: list[str], code: int, output: str
) -> None:
    options = model(project, Step(calls=[CalledTool("double", {"number": 21})]))
    done = await project.command("run", adding(project, approval="always"), "x", "--json", *options)
    assert done.code == 1, done
    interrupt = interrupt_of(done.result)
    assert interrupt["kind"] == "approval"
    run_id = done.result["run_id"]
    assert f"hint: agentforge runs answer {run_id} approve | reject [REASON] | fail" in done.err
    assert calls_of(project) == []
    answered = await project.command("runs", "answer", run_id, *words)
    assert answered.code == code, answered
    assert output in answered.out
    assert calls_of(project) == (["21"] if words == ["approve"] else [])
    if words == ["fail"]:
        assert "error[AF716]" in answered.err


async def test_a_question_is_answered_by_what_is_typed(project: Project) -> None:
    code = (
        "async def agent(input, ctx):\n"
        "    color = await ctx.ask('Which color?', options=['red', 'blue'])\n"
        "    count = await ctx.ask('How many?', schema={'type': 'integer', 'minimum': 1})\n"
        "    return {'color': color, 'count': count}\n"
    )
    asked = await project.command("run", project.native("asking", code), "x")
    assert (asked.code, asked.out) == (1, ""), asked
    assert "waits: Which color?" in asked.err
    assert "red | blue | fail" in asked.err
    run_id = (await project.command("runs", "list", "--json")).result["run_id"]
    unfit = await project.command("runs", "answer", run_id, "green")
    assert (unfit.code, "error[AF712]" in unfit.err) == (1, True), unfit
    first = await project.command("runs", "answer", run_id, "blue")
    assert (first.code, "waits: How many?" in first.err) == (1, True), first
    second = await project.command("runs", "answer", run_id, "2", "--json")
    assert (second.code, second.result["output"]) == (0, {"color": "blue", "count": 2}), second
    assert second.result["attempts"] >= 2


# ---- history


async def finished(project: Project, **options: Any) -> dict[str, Any]:
    """Return the result of a run with two model calls and a tool call between them."""
    return await project.run(
        adding(project, **options), "x", *model(project, Step(calls=[CalledTool("double", {"number": 21})]))
    )


async def checkpoints(project: Project, run_id: str, *options: str) -> list[dict[str, Any]]:
    """Return a run's checkpoints."""
    return (await project.command("runs", "checkpoints", run_id, "--json", *options)).objects


@pytest.mark.feature("AF-082")
async def test_checkpoints_are_listed_and_shown(project: Project) -> None:
    run_id = (await finished(project))["run_id"]
    found = await checkpoints(project, run_id)
    assert [(each["effect"], each["kind"]) for each in found] == [(0, "model"), (1, "tool"), (2, "model")]
    table = (await project.command("runs", "checkpoints", run_id)).out.splitlines()
    assert table[0].split() == ["CHECKPOINT", "KIND", "NAME", "TOOK", "TOKENS", "AT"]
    assert "double" in table[2]
    shown = (await project.command("runs", "checkpoints", run_id, "--show", "1", "--json")).result
    assert (shown["request"]["arguments"], shown["response"]) == ({"number": 21}, {"value": 42})
    text = (await project.command("runs", "checkpoints", run_id, "--show", "1")).out
    assert text.splitlines()[0] == "effect 1: tool double"
    unknown = await project.command("runs", "checkpoints", run_id, "--show", "9")
    assert (unknown.code, "error[AF714]" in unknown.err) == (1, True), unknown


@pytest.mark.feature("AF-085")
async def test_a_fork_with_another_result_ends_differently_and_leaves_the_original(project: Project) -> None:
    run = await finished(project)
    shown = (await project.command("runs", "checkpoints", run["run_id"], "--show", "1", "--json")).result
    project.write("effect.json", json.dumps({**shown, "response": {"value": 1000}}))
    forked = await project.command("runs", "fork", run["run_id"], "--edit", "effect.json", "--json")
    assert forked.code == 0, forked
    assert forked.result["run_id"] != run["run_id"]
    assert forked.result["output"] == "FINAL: tool said 1000"
    assert calls_of(project) == ["21"]
    assert (await project.command("runs", "show", run["run_id"], "--json")).result["output"] == "FINAL: tool said 42"
    differs = await project.command("runs", "diff", run["run_id"], forked.result["run_id"], "--json")
    assert (differs.code, differs.result["same"], differs.result["first_difference"]) == (0, False, 1)
    text = (await project.command("runs", "diff", run["run_id"], forked.result["run_id"])).out
    assert "effect 1 (tool double): changed\n  $.response.value  42 → 1000\n" in text
    assert "the output is different" in text
    assert f"{run['run_id']} at effect 1" in (await project.command("runs", "show", forked.result["run_id"])).out
    project.write("value.json", "2000")
    bare = await project.command("runs", "fork", run["run_id"], "--at", "1", "--edit", "value.json")
    assert (bare.code, bare.out) == (0, "FINAL: tool said 2000\n"), bare


@pytest.mark.feature("AF-085")
async def test_a_run_is_rolled_back_and_goes_on_from_there(project: Project) -> None:
    run = await finished(project)
    back = await project.command("runs", "rollback", run["run_id"], "--at", "0")
    assert (back.code, back.out) == (0, f"{run['run_id']} waiting\n"), back
    assert f"hint: agentforge runs resume {run['run_id']}" in back.err
    assert len(await checkpoints(project, run["run_id"])) == 1
    voided = [each["voided"] for each in await checkpoints(project, run["run_id"], "--all")]
    assert voided == [False, True, True]
    resumed = await project.command("runs", "resume", run["run_id"], "--json")
    assert (resumed.code, resumed.result["output"]) == (0, "FINAL: tool said 42"), resumed
    assert calls_of(project) == ["21", "21"]
    again = await project.command("runs", "resume", run["run_id"])
    assert (again.code, "error[AF713]" in again.err) == (1, True), again


@pytest.mark.feature("AF-082")
async def test_a_named_checkpoint_is_gone_back_to_by_its_name(project: Project) -> None:
    code = (
        "async def agent(input, ctx):\n    first = await ctx.random()\n    await ctx.checkpoint('half way')\n"
        "    return [first, await ctx.random()]\n"
    )
    run = await project.run(project.native("naming", code), "x")
    assert [each["name"] for each in await checkpoints(project, run["run_id"]) if each["kind"] == "checkpoint"] == [
        "half way"
    ]
    unknown = await project.command("runs", "rollback", run["run_id"], "--at", "nowhere")
    assert (unknown.code, "`nowhere`" in unknown.err) == (2, True), unknown
    assert (await project.command("runs", "rollback", run["run_id"], "--at", "half way")).code == 0
    resumed = await project.command("runs", "resume", run["run_id"], "--json")
    assert resumed.result["output"][0] == run["output"][0]
    assert resumed.result["output"][1] != run["output"][1]


@pytest.mark.feature("AF-082")
async def test_a_run_is_replayed_without_model_and_tools(project: Project) -> None:
    run = await finished(project)
    asked = len(project.model.requests)
    same = await project.command("runs", "replay", run["run_id"], "--json")
    assert (same.code, same.result["same"], same.result["replayed"]) == (0, True, 3), same
    file = project.root / "adding" / "agent.yaml"
    edited = json.loads(file.read_text())
    file.write_text(json.dumps({**edited, "instructions": "Answer briefly."}))
    assert (await project.command("runs", "replay", run["run_id"])).code == 0
    other = await project.command("runs", "replay", run["run_id"], "--agent", "adding/agent.yaml")
    assert other.code == 1, other
    assert "not the same" in other.out
    assert "effect 0 (model)" in other.out
    assert "Answer briefly." in other.out
    assert len(project.model.requests) == asked
    assert calls_of(project) == ["21"]
    assert len((await project.command("runs", "list", "--json")).objects) == 1


@pytest.mark.feature("AF-083")
async def test_a_run_is_taken_to_another_project(project: Project, tmp_path: Path) -> None:
    run = await finished(project)
    exported = await project.command("runs", "export", run["run_id"], "run.afrun")
    assert (exported.code, exported.out) == (0, ""), exported
    async with open_project(tmp_path / "other") as other:
        taken = await other.command("runs", "import", str(project.root / "run.afrun"))
        assert (taken.code, taken.out) == (0, f"{run['run_id']}\n"), taken
        shown = (await other.command("runs", "show", run["run_id"], "--json")).result
        assert (shown["status"], shown["output"]) == ("succeeded", "FINAL: tool said 42")
        assert (await other.command("runs", "replay", run["run_id"])).code == 0
        other.write("broken.afrun", "no export")
        broken = await other.command("runs", "import", "broken.afrun")
        assert (broken.code, "error[AF719]" in broken.err) == (1, True), broken
        missing = await other.command("runs", "import", "missing.afrun")
        assert (missing.code, "missing.afrun" in missing.err) == (2, True), missing


async def test_threads_are_listed_shown_exported_and_deleted(project: Project) -> None:
    agent = project.agent()
    for text in ("one", "two"):
        await project.run(agent, text, "--thread", "talks/q3 ?")
    listed = (await project.command("threads", "list", "--json")).objects
    assert [(each["thread"], each["messages"], each["frameworks"]) for each in listed] == [
        ("talks/q3 ?", 4, ["python"])
    ]
    assert "talks/q3 ?" in (await project.command("threads", "list")).out
    shown = (await project.command("threads", "show", "talks/q3 ?")).out.splitlines()
    assert [line for line in shown if line.startswith("user: ")] == ["user: one", "user: two"]
    messages = (await project.command("threads", "show", "talks/q3 ?", "--json")).objects
    exported = await project.command("threads", "export", "talks/q3 ?")
    head, *lines = exported.objects
    assert (head["format"], head["version"], head["thread"], len(head["runs"])) == (
        "agentforge-thread",
        1,
        "talks/q3 ?",
        2,
    )
    assert [each["content"] for each in lines] == [each["content"] for each in messages]
    assert (await project.command("threads", "export", "talks/q3 ?", "q3.jsonl")).out == ""
    assert (project.root / "q3.jsonl").read_text() == exported.out
    assert (await project.command("threads", "delete", "talks/q3 ?")).code == 0
    assert (await project.command("threads", "list", "--json")).objects == []
    for verb in ("show", "export", "delete"):
        gone_ = await project.command("threads", verb, "talks/q3 ?")
        assert (gone_.code, "error[AF721]" in gone_.err) == (1, True), gone_


@pytest.mark.parametrize(
    "arguments",
    [
        ["runs", "resume"],
        ["runs", "resume", "r1", "--all"],
        ["runs", "resume", "../r1"],
        ["runs", "fork", "r1", "--edit", "agentforge.toml"],
        ["runs", "fork", "r1", "--at", "1", "--edit", "missing.json"],
        ["runs", "rollback", "r1"],
        ["runs", "diff", "r1", "é"],
        ["run", "agent", "--priority", "101"],
        ["run", "agent", "--on-divergence", "guess"],
        ["threads", "show", ""],
    ],
)
async def test_what_can_not_be_meant_starts_nothing(project: Project, arguments: list[str]) -> None:
    done = await project.command(*arguments)
    assert (done.code, done.out) == (2, ""), done
    assert done.err
    assert project.processes() == []
