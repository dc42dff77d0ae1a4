"""Updates of a project's environments, by real commands: bad releases are refused, good ones can be gone back from."""

import asyncio
import os
import re
import shutil
import signal
import time
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agentforge import Forge
from agentforge_conformance.scripted_model import Step

from .index_world import LocalIndex, served
from .project_world import Project, open_project
from .update_world import TOOLS, index_of_ledgers, record, write_ledger

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index() -> AsyncIterator[LocalIndex]:
    async with served(index_of_ledgers()) as index:
        yield index


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environments of this module's tests are: built once, and not those of other tests."""
    return tmp_path_factory.mktemp("life")


@pytest_asyncio.fixture(loop_scope="module")
async def ledgers(own_project: Project, index: LocalIndex, places: Path) -> Project:
    """A project with the framework, of which 1.0 is the only tested release so far."""
    return set_up(own_project, index, places)


def set_up(project: Project, index: LocalIndex, places: Path) -> Project:
    project.variables |= {
        "UV_DEFAULT_INDEX": f"{index.url}/simple",
        "UV_CACHE_DIR": str(places / "uv"),
        "UV_HTTP_RETRIES": "0",
        "AGENTFORGE_HOME": str(places / "home"),
    }
    write_ledger(project.root / "frameworks/ledger", "1.0")
    project.write("agentforge.toml", '[catalogue]\nfolders = ["frameworks/ledger"]\n')
    return project


def books(project: Project) -> str:
    """Write the agent that charges; what its tool does is in the file `charged`."""
    log = str(project.marks / "charged")
    return project.with_tools("books", TOOLS.format(log=log), "charge")


def charged(project: Project) -> list[str]:
    return (project.marks / "charged").read_text().splitlines()


def offer(project: Project, *versions: str) -> None:
    """Have releases tested from now on."""
    write_ledger(project.root / "frameworks/ledger", "1.0", *versions)


def pinned(project: Project) -> list[tuple[str, str, int, bool]]:
    table = tomllib.loads((project.root / "agentforge.lock").read_text())
    return [
        (each["request"], each["release"], each["generation"], each.get("active", True))
        for each in table["environment"]
        if each["release"]
    ]


async def updated(project: Project, *options: str, code: int = 0) -> dict[str, Any]:
    done = await project.command("env", "update", "--json", *options, patience_s=180)
    assert done.code == code, done
    return done.result


def steps(report: dict[str, Any]) -> dict[str, str]:
    return {each["step"]: each["state"] for each in report["steps"]}


@pytest.mark.feature("AF-012")
async def test_a_release_that_fails_a_scenario_is_not_promoted_and_says_which(ledgers: Project) -> None:
    agent = books(ledgers)
    await record(ledgers, agent, "--on", "ledger")
    offer(ledgers, "1.1")
    report = await updated(ledgers, code=1)
    assert (report["status"], report["from"]["release"], report["to"]["release"]) == ("refused", "1.0", "1.1")
    assert steps(report) == {"resolve": "passed", "build": "passed", "smoke": "failed"}
    assert [each["scenario"] for each in report["smoke"] if each["state"] == "failed"] == ["parallel-calls"]
    refused = report["refused"]
    assert (refused["code"], refused["details"]["scenarios"]) == ("AF324", ["parallel-calls"])
    assert "two calls were to be made" in refused["message"]
    assert pinned(ledgers) == [("ledger", "1.0", 1, True)]
    said = await ledgers.command("env", "update", patience_s=180)
    assert (said.code, "error[AF324]" in said.err, "ledger  1.0 -> 1.1  refused" in said.out) == (1, True, True), said
    assert (await record(ledgers, agent, "--on", "ledger"))["release"] == "1.0"


@pytest.mark.feature("AF-012")
async def test_a_release_that_drops_an_argument_of_a_recorded_run_is_not_promoted(ledgers: Project) -> None:
    agent = books(ledgers)
    run = await record(ledgers, agent, "--on", "ledger")
    before, asked = charged(ledgers), len(ledgers.model.requests)
    offer(ledgers, "1.2")
    report = await updated(ledgers, code=1)
    assert steps(report) == {"resolve": "passed", "build": "passed", "smoke": "passed", "runs": "failed"}
    (played,) = report["runs"]
    assert (played["run_id"], played["agent"], played["state"]) == (run["run_id"], "books", "different")
    (difference,) = played["differences"]
    assert difference["kind"] == "tool_call"
    assert difference["expected"]["arguments"]["receipt"] == "r-7"
    assert "receipt" not in difference["found"]["arguments"]
    (change,) = difference["changes"]
    assert (change["path"], change["kind"], change["before"]) == ("$.arguments.receipt", "removed", "r-7")
    refused = report["refused"]
    assert (refused["code"], refused["details"]["runs"]) == ("AF325", [run["run_id"]])
    assert re.search(r"tool call 1: expected `charge\(.*receipt='r-7'\)`, found `charge\(", refused["message"])
    assert pinned(ledgers) == [("ledger", "1.0", 1, True)]
    assert (charged(ledgers), len(ledgers.model.requests)) == (before, asked), "no tool and no model was touched"
    said = await ledgers.command("env", "update", patience_s=180)
    assert f"{run['run_id']} (books):" in said.out
    without = await updated(ledgers, "--runs", "0")  # whoever looks away sees nothing
    assert (without["status"], without["runs"]) == ("promoted", [])


@pytest.mark.feature("AF-012")
@pytest.mark.parametrize(
    ("version", "kind", "words"),
    [("1.4", "extra_model_call", "made 3 model calls only"), ("1.5", "output", "differs at `$`")],
)
async def test_a_release_that_asks_more_or_answers_otherwise_is_not_promoted(
    ledgers: Project, version: str, kind: str, words: str
) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    offer(ledgers, version)
    report = await updated(ledgers, code=1)
    (played,) = report["runs"]
    assert [each["kind"] for each in played["differences"]] == [kind], played
    assert words in report["refused"]["message"]
    assert report["refused"]["code"] == "AF325"


@pytest.mark.feature("AF-012")
async def test_a_release_that_can_not_be_built_leaves_all_as_it_was(ledgers: Project) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    offer(ledgers, "1.6")
    lock = ledgers.root / "frameworks/ledger/locks/1.6.txt"
    lock.write_text(lock.read_text().replace("sha256:", "sha256:00"))
    report = await updated(ledgers, code=1)
    assert (steps(report)["build"], report["status"]) == ("failed", "refused")
    assert report["refused"]["code"] in ("AF302", "AF307"), report["refused"]
    assert pinned(ledgers) == [("ledger", "1.0", 1, True)]
    adapter = ledgers.root / "frameworks/ledger/adapter.py"
    offer(ledgers, "1.6")
    adapter.write_text(adapter.read_text().replace('metadata.version("ledger")', 'metadata.version("nothing")'))
    report = await updated(ledgers, code=1)
    assert (steps(report)["build"], report["refused"]["code"]) == ("failed", "AF309")


@pytest.mark.feature("AF-012")
@pytest.mark.feature("AF-013")
async def test_a_good_release_is_promoted_and_gone_back_from_while_twenty_runs_are_in_flight(
    ledgers: Project, record_property: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = books(ledgers)
    first = await record(ledgers, agent, "--on", "ledger")
    offer(ledgers, "1.2", "1.3")
    report = await updated(ledgers)
    assert (report["status"], report["to"]["release"], report["to"]["generation"]) == ("promoted", "1.3", 2)
    (played,) = report["runs"]
    assert (played["run_id"], played["state"], played["model_calls"], played["tool_calls"]) == (
        first["run_id"], "same", 3, 3,
    )  # fmt: skip
    assert [each["changes"][0]["path"] for each in played["wire"]] == ["$.user"] * 3
    assert [(each["name"], each["before"], each["after"]) for each in report["packages"]] == [
        ("companion", "1.5", "2.0"),
        ("ledger", "1.0", "1.3"),
    ]
    assert pinned(ledgers) == [("ledger", "1.0", 1, False), ("ledger", "1.3", 2, True)]

    for name, value in ledgers.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ledgers.root)
    ledgers.model.script("held", Step(gate=21, text="Ended well."))
    asked = len(ledgers.model.requests)
    async with Forge(ledgers.root, background=True) as forge:
        runs = [await forge.submit(agent, "x", on="ledger", model="openai:script:held") for _ in range(20)]
        await ledgers.model.wait_for_requests(asked + 20)
        started = time.monotonic()
        back = await forge.rollback_environment("ledger")
        took_s = time.monotonic() - started
        assert (back["generation"], back["release"], back["before"]["generation"]) == (1, "1.0", 2)
        last = await forge.submit(agent, "x", on="ledger", model="openai:script:held")  # opens the gate
        results = await asyncio.gather(*(run.result() for run in [*runs, last]))
    assert [result.status for result in results] == ["succeeded"] * 21
    assert [result.release for result in results] == ["1.3"] * 20 + ["1.0"]
    assert pinned(ledgers) == [("ledger", "1.0", 1, True), ("ledger", "1.3", 2, False)]
    record_property("rollback_s", round(took_s, 4))
    print(f"rollback took {took_s * 1000:.1f} ms with 20 runs in flight")
    assert took_s < 1.0

    again = await updated(ledgers)  # the same lock is the same generation
    assert (again["status"], again["to"]["generation"]) == ("promoted", 2)
    started = time.monotonic()
    done = await ledgers.command("env", "rollback", "ledger", "--json")
    print(f"the command took {time.monotonic() - started:.2f} s")
    assert (done.code, done.result["generation"]) == (0, 1)
    forward = await ledgers.command("env", "rollback", "ledger", "--to", "2")
    assert forward.out == "ledger  generation 1 -> 2  1.3\n"


async def test_what_is_current_is_left_alone_and_a_dry_run_changes_nothing(ledgers: Project) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    report = await updated(ledgers)
    assert (report["status"], report["to"], steps(report)) == ("current", None, {"resolve": "passed"})
    offer(ledgers, "1.3")
    lock = (ledgers.root / "agentforge.lock").read_text()
    report = await updated(ledgers, "--dry-run")
    assert (report["status"], report["to"]["generation"]) == ("passed", None)
    assert (ledgers.root / "agentforge.lock").read_text() == lock
    said = await ledgers.command("env", "update", "--dry-run")
    assert "ledger  1.0 -> 1.3  would be promoted" in said.out
    assert "recorded runs: 1 of 1 went as before, 1 with other requests on the wire" in said.out


async def test_a_newer_lock_of_the_same_release_counts_and_the_old_one_can_be_gone_back_to(ledgers: Project) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    lock = ledgers.root / "frameworks/ledger/locks/1.0.txt"
    newer = (ledgers.root / "frameworks/ledger/locks/1.3.txt", offer(ledgers, "1.3"))[0].read_text()
    companion = newer.split("ledger==")[0]
    offer(ledgers)
    old = lock.read_text()
    lock.write_text(companion + "ledger==" + old.split("ledger==")[1])
    report = await updated(ledgers)
    assert (report["status"], report["from"]["release"], report["to"]["release"]) == ("promoted", "1.0", "1.0")
    assert [each["name"] for each in report["packages"]] == ["companion"]
    table = tomllib.loads((ledgers.root / "agentforge.lock").read_text())["environment"]
    assert [each.get("text", "") for each in table if each["request"] == "ledger"] == [old, ""]
    done = await ledgers.command("env", "rollback", "ledger", "--json")
    assert (done.code, done.result["generation"]) == (0, 1)
    assert (await record(ledgers, "books", "--on", "ledger"))["release"] == "1.0"


async def test_an_update_that_no_recorded_run_speaks_for_says_so(ledgers: Project) -> None:
    assert (await ledgers.command("env", "build", "ledger")).code == 0
    offer(ledgers, "1.3")
    report = await updated(ledgers, "--dry-run")
    assert report["warnings"] == ["there is no recorded run on `ledger`: only the scripted scenarios were tried"]
    assert (await updated(ledgers, "--runs", "0"))["warnings"] == []


async def test_only_what_is_asked_for_is_updated_and_only_to_what_it_admits(ledgers: Project) -> None:
    agent = books(ledgers)
    for reference in ("ledger@1", "ledger==1.0", "ledger"):
        await record(ledgers, agent, "--on", reference)
    offer(ledgers, "1.2", "1.3")
    report = await updated(ledgers, "ledger@1")
    assert (report["request"], report["from"]["release"], report["status"]) == ("ledger@1", "1.0", "promoted")
    assert len(report["runs"]) == 1, "runs of other requests are no evidence"
    assert [each[:3] for each in pinned(ledgers)] == [
        ("ledger", "1.0", 1), ("ledger==1.0", "1.0", 1), ("ledger@1", "1.0", 1), ("ledger@1", "1.3", 2),
    ]  # fmt: skip
    exact = await updated(ledgers, "ledger==1.0")
    assert exact["status"] == "current"
    back = await updated(ledgers, "ledger@1", "--to", "1.0")
    assert (back["status"], back["to"]["release"], back["to"]["generation"]) == ("promoted", "1.0", 1)
    refused = await updated(ledgers, "ledger==1.0", "--to", "1.3", code=1)
    assert refused["refused"]["code"] == "AF321"
    nowhere = await updated(ledgers, "ledger", "--to", "9.9", code=1)
    assert nowhere["refused"]["code"] == "AF204"
    unknown = await ledgers.command("env", "update", "ledgre")
    assert (unknown.code, "AF320" in unknown.err, "`ledger@1`" in unknown.err) == (1, True, True)
    both = await ledgers.command("env", "update", "--to", "1.3", "--latest")
    assert both.code == 2


async def test_latest_goes_to_the_newest_release_on_the_index(ledgers: Project) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    manifest = ledgers.root / "frameworks/ledger/framework.toml"
    offer(ledgers, "1.3")
    text = manifest.read_text()
    manifest.write_text(re.sub(r'tested = \[\{ version = "1.3".*\n', "", text))
    assert (await updated(ledgers))["status"] == "current"
    report = await updated(ledgers, "--latest")
    assert (report["status"], report["to"]["release"], report["to"]["tested"]) == ("promoted", "1.3", False)
    assert (await updated(ledgers))["status"] == "current"  # never back to an older release by itself


async def test_another_project_keeps_what_it_has(ledgers: Project, index: LocalIndex, places: Path) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    async with open_project(ledgers.root.parent / "other") as opened:
        other = set_up(opened, index, places)
        await record(other, books(other), "--on", "ledger")
        before = (other.root / "agentforge.lock").read_bytes()
        offer(other, "1.3")
        offer(ledgers, "1.3")
        assert (await updated(ledgers))["status"] == "promoted"
        assert (other.root / "agentforge.lock").read_bytes() == before
        assert (await record(other, "books", "--on", "ledger"))["release"] == "1.0"


NATIVE = '''
async def agent(input, ctx):
    """Uses every effect that a run can have."""
    at, chance = await ctx.now(), await ctx.random()
    await ctx.checkpoint("begun")
    looked = await ctx.tool_effect("look", {"at": 1}, lambda: open(%r, "a").write("x"))
    child = await ctx.run_agent("child", "hello")
    body = await ctx.chat([{"role": "user", "content": f"{input} at {at} by {chance}"}])
    return [at, chance, looked, child["output"], body["choices"][0]["message"]["content"]]
'''

FICKLE = """
import random


async def agent(input, ctx):
    body = await ctx.chat([{"role": "user", "content": input}])
    return f"{body['choices'][0]['message']['content']} {random.SystemRandom().random()}"
"""


async def test_a_native_agents_values_are_served_and_a_run_that_never_repeats_says_nothing(ledgers: Project) -> None:
    ledgers.agent("steady/child", framework="ledger")
    steady = NATIVE % str(ledgers.marks / "looked")
    for name, code in (("steady", steady), ("fickle", FICKLE)):
        agent = ledgers.native(name, code, "ledger")
        result = await ledgers.run(agent, "hello", "--thread", name)
        assert result["status"] == "succeeded", result["error"]
    offer(ledgers, "1.3")
    report = await updated(ledgers)
    states = {each["agent"]: each["state"] for each in report["runs"]}
    assert states == {"steady-child": "same", "steady": "same", "fickle": "unplayable"}, report
    (warning,) = report["warnings"]
    assert "1 of 3 recorded runs left out" in warning
    assert "the present environment does not repeat it either" in warning
    assert report["status"] == "promoted"
    assert (ledgers.marks / "looked").read_text() == "x", "an agent's own tool was not called again"


async def test_a_release_that_takes_an_agents_settings_no_more_is_not_promoted(ledgers: Project) -> None:
    manifest = ledgers.root / "frameworks/ledger/framework.toml"
    takes = 'settings = { type = "object", properties = { rounds = { type = "integer" } } }\n'
    manifest.write_text(manifest.read_text() + takes)
    agent = ledgers.agent("set", framework_settings={"rounds": 3})
    assert (await ledgers.run(agent, "x", "--on", "ledger"))["status"] == "succeeded"
    offer(ledgers, "1.3")
    text = manifest.read_text()
    manifest.write_text(text.replace('lock = "locks/1.0.txt" }]\n', 'lock = "locks/1.0.txt" }]\n' + takes))
    report = await updated(ledgers, code=1)
    assert report["refused"]["code"] == "AF325"
    assert "`rounds` is not a setting of Ledger 1.3" in report["refused"]["message"]
    manifest.write_text(manifest.read_text() + takes)
    assert (await updated(ledgers))["status"] == "promoted"


OWN_TOOLS = """
import os


async def agent(input, ctx):
    tool = {{"name": "own", "parameters": {{"type": "object", "properties": {{}}}}}}
    body = await ctx.chat([{{"role": "user", "content": input}}], tools=[{{"type": "function", "function": tool}}])
    for call in body["choices"][0]["message"]["tool_calls"]:
        with open(os.path.join({marks!r}, call["function"]["name"]), "a") as log:
            log.write("called\\n")
    return "done"
"""


async def test_agents_whose_own_tools_would_run_are_left_out(ledgers: Project) -> None:
    manifest = ledgers.root / "frameworks/ledger/framework.toml"
    manifest.write_text(manifest.read_text().replace('tool-replay = { level = "full" }', ""))
    agent = ledgers.native("own", OWN_TOOLS.format(marks=str(ledgers.marks)), "ledger")
    result = await ledgers.run(agent, "hello")
    assert result["status"] == "succeeded", result
    offer(ledgers, "1.3")
    manifest.write_text(manifest.read_text().replace('tool-replay = { level = "full" }', ""))
    report = await updated(ledgers)
    (played,) = report["runs"]
    assert (played["state"], "tool-replay" in played["reason"]) == ("unplayable", True), played["reason"]
    assert (ledgers.marks / "own").read_text() == "called\n"


async def test_threads_streams_schemas_and_failing_tools_are_played_as_they_were(ledgers: Project) -> None:
    agent = books(ledgers)
    for text in ("one", "two"):
        result = await ledgers.run(agent, text, "--on", "ledger", "--thread", "talk")
        assert result["status"] == "succeeded", result["error"]
    schema = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}
    ledgers.agent("structured", output=schema)
    assert (await ledgers.run("structured", "x", "--on", "ledger"))["output"] == {"total": 2.0}
    streamed = await ledgers.command("run", "structured", "x", "--on", "ledger", "--stream", "--json")
    assert streamed.code == 0
    code = 'def fail(why: str) -> str:\n    """Fail."""\n    raise ValueError(why)\n'
    ledgers.with_tools("told", code, "fail", on_error="tell")
    told = await ledgers.run("told", "x", "--on", "ledger")
    assert told["tool_calls"][0]["error"], told
    offer(ledgers, "1.3")
    report = await updated(ledgers)
    assert [each["state"] for each in report["runs"]] == ["same"] * 5, report
    assert report["status"] == "promoted"
    few = await updated(ledgers, "--to", "1.0", "--runs", "1", "--dry-run")
    assert sorted(each["agent"] for each in few["runs"]) == ["books", "structured", "told"]


@pytest.mark.feature("AF-013")
async def test_a_generation_whose_environment_is_gone_says_so_and_is_built_again(ledgers: Project) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    none = await ledgers.command("env", "rollback", "ledger")
    assert (none.code, "AF322" in none.err) == (1, True)
    offer(ledgers, "1.3")
    report = await updated(ledgers)
    listed = {each["id"]: each for each in (await ledgers.command("env", "list", "--json")).objects}
    (old,) = [
        each["environment"]
        for each in (await ledgers.command("env", "list", "--generations", "--json")).objects
        if (each["request"], each["generation"]) == ("ledger", 1)
    ]
    assert listed[old]["requests"] == [{"request": "ledger", "requirements": [], "generation": 1, "active": False}]
    assert listed[report["to"]["environment"]]["requests"][0]["active"] is True
    assert "ledger#2*" in (await ledgers.command("env", "show", report["to"]["environment"])).out
    await ledgers.stop()
    shutil.rmtree(Path(ledgers.variables["AGENTFORGE_HOME"]) / "environments" / old)
    gone = await ledgers.command("env", "rollback", "ledger")
    assert (gone.code, "AF323" in gone.err, "--build" in gone.err) == (1, True, True), gone
    assert pinned(ledgers)[1] == ("ledger", "1.3", 2, True)
    table = (await ledgers.command("env", "list", "--generations")).out
    assert re.search(r"ledger +1 +no +1\.0 +\S+ +no", table), table
    built = await ledgers.command("env", "rollback", "ledger", "--build", "--json", patience_s=180)
    assert (built.code, built.result["environment"]) == (0, old)
    for options, code in ((("nothing",), "AF320"), (("ledger", "--to", "7"), "AF322")):
        refused = await ledgers.command("env", "rollback", *options)
        assert (refused.code, code in refused.err) == (1, True), refused


async def test_requests_with_several_sets_of_packages_are_told_apart(ledgers: Project) -> None:
    books(ledgers)
    for name in ("bare", "bound"):
        ledgers.agent(name, **({"requirements": ["companion<2"]} if name == "bound" else {}))
        assert (await ledgers.run(name, "x", "--on", "ledger"))["status"] == "succeeded"
    offer(ledgers, "1.3")
    done = await ledgers.command("env", "update", "--json", patience_s=180)
    found = {tuple(each["requirements"]): each for each in done.objects}
    assert {key: each["status"] for key, each in found.items()} == {(): "promoted", ("companion<2",): "promoted"}, done
    assert {"name": "companion", "change": "changed", "before": "1.5", "after": "2.0"} in found[()]["packages"]
    assert [each["name"] for each in found["companion<2",]["packages"]] == ["ledger"]
    back = await ledgers.command("env", "rollback", "ledger", "--with", "companion<2")
    assert back.code == 0, back
    active = {
        (tuple(each["requirements"]), each["generation"])
        for each in (await ledgers.command("env", "list", "--generations", "--json")).objects
        if each["active"] and each["request"] == "ledger"
    }
    assert active == {((), 2), (("companion<2",), 1)}


async def test_environments_are_compared_by_id_reference_and_generation(ledgers: Project) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    offer(ledgers, "1.3")
    report = await updated(ledgers)
    changed = [
        {"name": "companion", "change": "changed", "before": "1.5", "after": "2.0"},
        {"name": "ledger", "change": "changed", "before": "1.0", "after": "1.3"},
    ]
    for before, after in (
        ("ledger#1", "ledger#2"),
        ("ledger#1", "ledger"),
        ("ledger==1.0", report["to"]["environment"]),
    ):
        found = (await ledgers.command("env", "diff", before, after, "--json")).result
        assert (found["packages"], found["same"], found["python"]) == (changed, False, None), (before, after)
    assert (await ledgers.command("env", "diff", "ledger", "ledger#2", "--json")).result["same"] is True
    other = (await ledgers.command("env", "diff", "ledger", "python==3.11", "--json")).result
    assert {each["change"] for each in other["packages"]} == {"removed"}
    shown = (await ledgers.command("env", "diff", "ledger#1", "ledger#2")).out
    assert re.search(r"companion +changed +1\.5 +2\.0", shown)
    lock = (ledgers.root / "agentforge.lock").read_text()
    for before, code in (("ledger#9", "AF322"), ("nothing#1", "AF320"), ("a b", "AF313"), ("legder", "AF202")):
        refused = await ledgers.command("env", "diff", before, "ledger")
        assert (refused.code, code in refused.err) == (1, True), refused
    assert (ledgers.root / "agentforge.lock").read_text() == lock


async def test_the_python_client_updates_goes_back_and_compares(
    ledgers: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    offer(ledgers, "1.3")
    for name, value in ledgers.variables.items():
        monkeypatch.setenv(name, value)
    stages: list[str] = []
    async with Forge(ledgers.root, background=True) as forge:
        (report,) = await forge.update_environments("ledger", progress=lambda each: stages.append(each["stage"]))
        assert report["status"] == "promoted"
        assert (await forge.rollback_environment("ledger", 1))["generation"] == 1
        assert len((await forge.diff_environments("ledger#1", "ledger#2"))["packages"]) == 2
        assert [each["active"] for each in (await forge.environments())["generations"] if each["release"]] == [
            True, False,
        ]  # fmt: skip
    assert {"resolving", "smoke", "runs"} <= set(stages)


@pytest.mark.feature("AF-012")
@pytest.mark.parametrize(
    ("how", "stage"),
    [
        ("host killed", "building"),
        ("interrupted", "scripted scenarios"),
        ("host killed", "playing recorded runs"),
    ],
)
async def test_an_update_that_is_cut_off_changes_nothing_and_the_next_one_is_as_good(
    ledgers: Project, how: str, stage: str
) -> None:
    await record(ledgers, books(ledgers), "--on", "ledger")
    offer(ledgers, "1.3")
    lock = (ledgers.root / "agentforge.lock").read_bytes()
    pid = (await ledgers.host())["pid"]
    update = await ledgers.start("env", "update")
    await update.said(stage)
    if how == "interrupted":
        update.interrupt()
    else:
        os.kill(pid, signal.SIGKILL)
    done = await update.done()
    assert done.code == (130 if how == "interrupted" else 1), done
    assert (ledgers.root / "agentforge.lock").read_bytes() == lock
    report = await updated(ledgers)
    assert (report["status"], report["to"]["generation"]) == ("promoted", 2)


REAL = [
    pytest.param("langchain", "0.3.30", "promoted", marks=pytest.mark.framework("langchain==0.3.30")),
    pytest.param("crewai", "0.150.0", "refused", marks=[pytest.mark.framework("crewai==0.150.0"), pytest.mark.matrix]),
]


@pytest.mark.feature("AF-012")
@pytest.mark.framework("langchain")
@pytest.mark.framework("crewai")
@pytest.mark.parametrize(("framework", "version", "status"), REAL)
async def test_real_frameworks_go_to_releases_that_do_the_same_and_not_to_those_that_speak_otherwise(
    own_project: Project, framework: str, version: str, status: str
) -> None:
    """CrewAI 0.150 has its tools called in text: it can do nothing with the answers that 1.x got."""
    agent = books(own_project)
    await record(own_project, agent, "--on", framework)
    before, asked = charged(own_project), len(own_project.model.requests)
    report = await updated(own_project, framework, "--to", version, code=0 if status == "promoted" else 1)
    assert steps(report)["smoke"] == "passed", report
    assert report["status"] == status, report
    assert (charged(own_project), len(own_project.model.requests)) == (before, asked)
    if status == "refused":
        assert report["refused"]["code"] == "AF325"
        return
    back = await own_project.command("env", "rollback", framework, "--json")
    assert (back.code, back.result["generation"]) == (0, 1)
