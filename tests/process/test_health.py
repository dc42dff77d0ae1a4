"""How well environments are: damage is told when a run wants them, probes find what looks do not, history stays."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from agentforge import Forge
from agentforge.api.connection import Connection
from agentforge_conformance.scripted_model import CalledTool, Step

from .index_world import LocalIndex, served
from .kit_world import write_kit
from .project_world import Project, gone

pytestmark = pytest.mark.asyncio(loop_scope="module")
Plant = Callable[[Path], object]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def index() -> AsyncIterator[LocalIndex]:
    index = LocalIndex()
    index.add("kit", "1.1", "2024-02-10", ("companion",))
    index.add("companion", "1.5", "2024-01-12")
    index.add("extra", "1.0", "2024-01-12")
    async with served(index):
        yield index


@pytest_asyncio.fixture(loop_scope="module")
async def kits(own_project: Project, index: LocalIndex, tmp_path: Path) -> Project:
    """A project with a framework of its own, and built environments of its own."""
    own_project.variables |= {
        "UV_DEFAULT_INDEX": f"{index.url}/simple",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_HTTP_RETRIES": "0",
        "AGENTFORGE_HOME": str(tmp_path / "home"),
    }
    write_kit(own_project.root / "frameworks/kit")
    own_project.write("agentforge.toml", '[catalogue]\nfolders = ["frameworks/kit"]\n')
    return own_project


@pytest_asyncio.fixture(loop_scope="module")
async def built(kits: Project) -> str:
    """The id of its environment, in which a run has gone well."""
    result = await kits.run(kits.agent("first"), "report", "--on", "kit==1.1")
    assert result["status"] == "succeeded", result
    (environment,) = (await kits.command("env", "list", "--json")).objects
    return str(environment["id"])


def place_of(project: Project, environment: str) -> Path:
    """Return where an environment is."""
    return Path(project.variables["AGENTFORGE_HOME"]) / "environments" / environment


def packages(project: Project, environment: str) -> Path:
    (place,) = (place_of(project, environment) / "venv" / "lib").glob("python*/site-packages")
    return place


def change(file: Path, text: str, *, unseen: bool = False) -> None:
    """Change a file of an environment, and of it alone; `unseen`: with the time that it had."""
    before = file.stat()
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    if unseen:
        os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(file)


async def states(project: Project, *options: str, code: int = 0) -> dict[str, dict[str, Any]]:
    done = await project.command("framework", "health", *options, "--json")
    assert done.code == code, done
    return {each["environment"]: each for each in done.objects}


async def state(project: Project, *options: str, code: int = 0) -> dict[str, Any]:
    (only,) = (await states(project, *options, code=code)).values()
    return only


async def history(project: Project, *options: str) -> list[tuple[str, str]]:
    """Return why and with what the environments were found, the oldest first."""
    done = await project.command("framework", "health", "--history", *options, "--json")
    assert done.code == 0, done
    return [(each["cause"], each["state"]) for each in done.objects][::-1]


async def asked(project: Project, path: str) -> tuple[int, dict[str, Any]]:
    """Ask the host as whoever watches it does: for a status and a body."""
    curl = ("curl", "--silent", "--write-out", "\n%{http_code}", "--unix-socket", str((await project.host())["socket"]))
    process = await asyncio.create_subprocess_exec(*curl, f"http://host{path}", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    body, _, status = out.decode().rpartition("\n")
    return int(status), json.loads(body)


def delete_a_file(place: Path) -> None:
    (place / "companion.py").unlink()


def change_a_file(place: Path) -> None:
    change(place / "companion.py", 'version = "6.6"\n')


@pytest.mark.feature("AF-006")
@pytest.mark.feature("AF-015")
@pytest.mark.parametrize("plant", [delete_a_file, change_a_file])
async def test_a_damaged_environment_is_told_to_the_run_that_wants_it_and_made_anew_as_the_hint_says(
    kits: Project, built: str, plant: Plant
) -> None:
    assert (await state(kits))["state"] == "ready"
    assert (await asked(kits, "/readyz"))[0] == 200
    plant(packages(kits, built))
    failed = await kits.run(kits.agent("second"), "report", "--on", "kit==1.1")
    assert failed["error"]["code"] == "AF350"
    assert "companion.py" in failed["error"]["message"]
    assert f"agentforge env build --rebuild {built}" in failed["error"]["hint"]
    ill = await state(kits, code=1)
    assert (ill["environment"], ill["state"], ill["checked_by"], ill["used"]) == (built, "broken", "run", True)
    alive = await asked(kits, "/healthz")
    assert (alive[0], alive[1]["state"], alive[1]["environments"]["broken"]) == (200, "broken", 1)
    ready = await asked(kits, "/readyz")
    assert (ready[0], ready[1]["checks"]["environments"]["ok"], ready[1]["checks"]["store"]["ok"]) == (503, False, True)
    listed = {each["name"]: each["health"] for each in (await kits.command("framework", "list", "--json")).objects}
    assert listed["kit"] == {"1.1": "broken"}
    assert "1.1 broken" in (await kits.command("framework", "list")).out

    kept = await kits.command("env", "build", "kit==1.1")
    assert (kept.code, "AF350" in kept.err) == (1, True)
    again = await kits.command("env", "build", "--rebuild", built)
    assert again.code == 0, again
    assert (await kits.run("second", "report", "--on", "kit==1.1"))["status"] == "succeeded"
    assert (await state(kits))["state"] == "ready"
    assert await history(kits) == [("run", "broken"), ("build", "ready")]
    assert (await asked(kits, "/healthz"))[1]["state"] == "ready"
    log = (kits.root / ".agentforge" / "host.log").read_text()
    assert f"environment {built} is broken now, and was ready: files " in log
    assert f"environment {built} is ready now, and was broken" in log


@pytest.mark.feature("AF-015")
async def test_runs_in_a_damaged_environment_go_on_and_so_do_they_while_it_is_made_anew(
    kits: Project, built: str
) -> None:
    kits.model.script("slow", Step(text="and so on", delay_s=6))
    agent = kits.with_tools("tooled", "def look() -> str:\n    '''Look.'''\n    return 'seen'\n", "look")
    runs = [await kits.detached(agent, "hello", "--on", "kit==1.1", "--model", "openai:slow") for _ in range(3)]
    await kits.model.wait_for_requests(3)
    delete_a_file(packages(kits, built))
    done = await kits.command("env", "build", "--rebuild", "kit==1.1", "--json")
    assert (done.code, done.result["id"]) == (0, built), done
    assert {(await kits.ended(run))["status"] for run in runs} == {"succeeded"}
    assert (packages(kits, built) / "companion.py").exists()
    assert (await kits.run(agent, "hello", "--on", "kit==1.1", "--model", "openai:slow"))["status"] == "succeeded"
    staging = place_of(kits, built).parent / ".staging"
    async with asyncio.timeout(30):  # the old one goes when its workers have
        while list(staging.iterdir()):
            await asyncio.sleep(0.2)


@pytest.mark.feature("AF-015")
async def test_an_environment_without_its_interpreter_is_made_anew_by_the_run_that_wants_it(
    kits: Project, built: str
) -> None:
    (place_of(kits, built) / "venv" / "bin" / "python").unlink()
    ill = await state(kits, code=1)
    assert (ill["state"], "interpreter is gone" in ill["problem"]) == ("broken", True)
    done = await kits.command("run", kits.agent("second"), "report", "--on", "kit==1.1", "--json")
    assert done.result["status"] == "succeeded", done
    assert (await state(kits))["state"] == "ready"
    assert await history(kits) == [("asked", "broken"), ("build", "ready")]


@pytest.mark.feature("AF-015")
async def test_a_probe_reads_every_file_and_what_it_finds_keeps_runs_out(kits: Project, built: str) -> None:
    well = await state(kits, "--probe")
    assert (well["state"], well["checked_by"]) == ("ready", "asked")
    assert all(well[took] is not None for took in ("files_s", "start_s", "run_s", "cpu_s"))
    change(packages(kits, built) / "companion.py", 'version = "6.6"\n', unseen=True)
    assert (await state(kits))["state"] == "ready"  # by all that a look shows
    ill = await state(kits, "kit@1", "--probe", code=1)
    assert (ill["state"], "companion.py" in ill["problem"]) == ("broken", True)
    assert (await kits.run(kits.agent("second"), "report", "--on", "kit==1.1"))["error"]["code"] == "AF350"
    assert (await kits.command("env", "build", "--rebuild", "kit==1.1")).code == 0
    assert (await kits.run("second", "report", "--on", "kit==1.1"))["status"] == "succeeded"
    assert (await state(kits, built, "--probe"))["state"] == "ready"
    found = [("asked", "ready"), ("asked", "broken"), ("build", "ready"), ("asked", "ready")]
    assert await history(kits, "kit") == found


@pytest.mark.feature("AF-008")
async def test_a_comparison_shows_what_builds_and_probes_have_measured(kits: Project, built: str) -> None:
    async def measured() -> dict[str, Any]:
        (column,) = (await kits.command("framework", "compare", "kit==1.1", "--json")).result["columns"]
        return dict(column["measured"])

    first = await measured()
    assert {name for name, value in first.items() if value is not None} == {"size"}
    assert (first["size"]["unit"], first["size"]["value"] > 0) == ("MiB", True)
    (environment,) = (await kits.command("env", "list", "--sizes", "--json")).objects
    assert first["size"]["value"] == round(environment["size_bytes"] / 2**20, 1)
    assert (await state(kits, "--probe"))["state"] == "ready"
    then = await measured()
    assert then["size"] == first["size"]
    assert [(name, then[name]["unit"]) for name in ("import", "memory")] == [("import", "ms"), ("memory", "MiB")]
    assert then["import"]["value"] > 0
    assert then["memory"]["value"] > 1
    assert then["import"]["command"] == "agentforge framework health kit==1.1 --probe"
    assert (then["overhead"], then["conformance"]) == (None, None)
    result = await kits.run(kits.agent("more", requirements=["extra"]), "report", "--on", "kit==1.1")
    assert result["status"] == "succeeded"
    assert len(await states(kits)) == 2
    assert await measured() == then  # an environment with more in it says nothing of the release


@pytest.mark.feature("AF-015")
async def test_a_probe_makes_a_scripted_run_with_the_adapter_of_now(kits: Project, built: str) -> None:
    adapter = kits.root / "frameworks/kit/adapter.py"
    good = adapter.read_text()
    for bad, said in (
        (good.replace('version("kit")', '"9.9"'), "9.9"),
        (good.replace("import json\n", "import json\nimport jsn\n"), "jsn"),
        (
            good.replace("        if not (isinstance", "        raise OSError('no gear')\n        if not (isinstance"),
            "gear",
        ),
    ):
        adapter.write_text(bad)
        ill = await state(kits, "--probe", code=1)
        newest = (await kits.command("framework", "health", "--history", "--limit", "1", "--json")).result
        assert (ill["state"], ill["problem"]) == ("broken", newest["problem"])
        assert said in newest["problem"] + newest["details"], newest
    adapter.write_text(good)
    assert (await state(kits, "--probe"))["state"] == "ready"
    records = (await kits.command("framework", "health", "--history", "--json")).objects
    assert [each["changed"] for each in records] == [True, False, False, True]


@pytest.mark.feature("AF-015")
async def test_what_works_and_is_not_as_it_should_be_is_degraded(kits: Project, built: str) -> None:
    assert (await kits.command("framework", "deprecate", "kit@1", "--since", "2020-01-01")).code == 0
    old = await state(kits)
    assert (old["state"], "deprecated since 2020-01-01" in old["problem"]) == ("degraded", True)
    assert (await kits.command("framework", "deprecate", "kit@1", "--unset")).code == 0
    assert (await state(kits))["state"] == "ready"
    (packages(kits, built) / "helper.pth").write_text("")
    more = await state(kits, "--probe")
    assert (more["state"], "helper.pth" in more["problem"]) == ("degraded", True)
    assert (await kits.run(kits.agent("second"), "report", "--on", "kit==1.1"))["status"] == "succeeded"
    assert (await asked(kits, "/healthz"))[1]["state"] == "degraded"
    assert (await asked(kits, "/readyz"))[0] == 200


@pytest.mark.feature("AF-015")
async def test_environments_are_probed_by_and_by_while_runs_go_on_and_changes_are_told(kits: Project) -> None:
    kits.variables["AGENTFORGE_HEALTH_INTERVAL_S"] = "1"
    kits.model.script("slow", Step(text="and so on", delay_s=12))
    run = await kits.detached(kits.agent(), "hello", "--on", "kit==1.1", "--model", "openai:slow")
    await kits.model.wait_for_requests(1)
    (environment,) = (await kits.command("env", "list", "--json")).objects
    async with kits.connection() as connection, aclosing(followed(connection)) as changes, asyncio.timeout(60):
        while ("periodic", "ready") not in await history(kits):
            await asyncio.sleep(0.2)
        file = packages(kits, environment["id"]) / "companion.py"
        text = file.read_text()
        change(file, 'version = "6.6"\n', unseen=True)
        told = await anext(changes)
        assert (told["environment"], told["cause"]) == (environment["id"], "periodic")
        assert (told["previous"], told["state"]) == ("ready", "broken")
        change(file, text, unseen=True)
        assert ((await anext(changes))["state"], (await kits.ended(run))["status"]) == ("ready", "succeeded")
    log = (kits.root / ".agentforge" / "host.log").read_text()
    assert "is broken now, and was ready" in log


async def followed(connection: Connection) -> AsyncIterator[dict[str, Any]]:
    async for kind, data in connection.stream("GET", "/v1/health/events", after=0):
        assert kind == "health.changed"
        yield data


@pytest.mark.feature("AF-015")
async def test_the_history_is_there_in_the_next_host(kits: Project, built: str) -> None:
    change(packages(kits, built) / "companion.py", 'version = "6.6"\n', unseen=True)
    await states(kits, "--probe", code=1)
    pid = (await kits.host())["pid"]
    await kits.stop()
    ill = await state(kits, code=1)
    assert (await kits.host())["pid"] != pid
    assert (ill["state"], ill["checked_by"]) == ("broken", "asked")
    assert await history(kits) == [("asked", "broken")]
    async with kits.connection() as connection:
        events = [data async for _, data in connection.stream("GET", "/v1/health/events", after=0, follow="false")]
        assert [each["state"] for each in events] == ["broken"]
        after = [
            each async for each in connection.stream("GET", "/v1/health/events", after=events[0]["seq"], follow="false")
        ]
        assert after == []


@pytest.mark.feature("AF-015")
async def test_an_environment_that_is_being_built_is_shown_as_such(kits: Project, index: LocalIndex) -> None:
    index.asked.clear()
    index.gate.clear()
    building = await kits.start("env", "build", "kit==1.1")
    try:
        async with asyncio.timeout(30):
            await index.asked.wait()
        new = await state(kits)
        assert (new["state"], new["environment"].startswith("kit-1.1-")) == ("building", True)
        assert await state(kits, "kit@1") == new
    finally:
        index.gate.set()
    assert (await building.done()).code == 0
    assert (await state(kits, "kit"))["state"] == "ready"


async def test_the_environment_of_tools_is_probed_without_a_run(kits: Project) -> None:
    agent = kits.with_tools("tooled", "def look() -> str:\n    '''Look.'''\n    return 'seen'\n", "look")
    kits.model.script("calls", Step(calls=[CalledTool("look", {})]), Step(text="{tool}"))
    assert (await kits.run(agent, "hello", "--on", "kit==1.1", "--model", "openai:calls"))["output"] == "seen"
    assert len(await states(kits)) == 2
    tools = await state(kits, "tools", "--probe")
    assert (tools["state"], tools["framework"], tools["run_s"]) == ("ready", None, None)


async def test_a_probe_ends_with_its_host(kits: Project, built: str) -> None:
    place = packages(kits, built) / "big.py"
    with place.open("wb") as file:
        file.truncate(16 << 30)  # takes half a minute to read
    record = packages(kits, built) / "companion-1.5.dist-info/RECORD"
    change(record, record.read_text() + f"big.py,sha256={'x' * 43},{16 << 30}\n")
    probing = await kits.start("framework", "health", "--probe")
    host = psutil.Process((await kits.host())["pid"])
    async with asyncio.timeout(30):
        while not (probers := [each for each in host.children() if "agentforge.lifecycle.prober" in each.cmdline()]):
            await asyncio.sleep(0.05)
    os.kill(host.pid, signal.SIGKILL)
    for prober in probers:
        await gone(prober.pid, patience_s=8)
    place.unlink()
    await probing.done()


async def test_what_is_not_built_has_no_health(kits: Project, built: str) -> None:
    done = await kits.command("framework", "health", "langchain")
    assert (done.code, "AF313" in done.err, "env build langchain" in done.err) == (1, True, True)
    done = await kits.command("framework", "health", "--probe", "--history")
    assert done.code == 2
    unknown = await kits.command("env", "build", "--rebuild", "nothing-1.0-py311-000000000000")
    assert (unknown.code, "AF202" in unknown.err) == (1, True)


async def test_an_environment_of_a_framework_that_this_project_does_not_know_is_not_made_anew_by_its_id(
    kits: Project, built: str
) -> None:
    assert (await kits.command("framework", "unregister", "kit")).code == 0
    done = await kits.command("env", "build", "--rebuild", built)
    assert (done.code, "AF352" in done.err) == (1, True)
    assert (await state(kits, built, "--probe"))["run_s"] is None  # its files and its interpreter are


async def test_a_program_asks_and_follows(kits: Project, built: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in kits.variables.items():
        monkeypatch.setenv(name, value)
    async with Forge(kits.root) as forge:
        (found,) = await forge.probe("kit")
        assert (found["environment"], found["state"]) == (built, "ready")
        following = asyncio.ensure_future(anext(forge.health_changes(after=0)))
        change_a_file(packages(kits, built))
        failed = await forge.run(kits.root / kits.agent("second"), "report", on="kit==1.1")
        assert (failed.run_id is not None, failed.error and failed.error.code) == (True, "AF350")
        assert (await asyncio.wait_for(following, 20))["cause"] == "run"
        assert [each["state"] for each in await forge.health()] == ["broken"]
        assert [each["state"] for each in await forge.health_history(built)] == ["broken", "ready"]
        again = await forge.run(kits.root / "first", "report", on="kit==1.1")
        assert again.status == "succeeded", "its worker was there before"


@pytest.mark.feature("AF-015")
@pytest.mark.framework("pydantic-ai")
async def test_an_environment_of_a_real_framework_is_well(own_project: Project) -> None:
    assert (await own_project.command("env", "build", "pydantic-ai")).code == 0
    found = await state(own_project, "--probe", "pydantic-ai")
    assert (found["state"], found["problem"]) == ("ready", "")
    assert 0 < found["run_s"] < found["start_s"]
