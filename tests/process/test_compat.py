"""`agentforge compat` on frameworks of our own: planted faults show as failed capabilities, and nothing else does."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
import pytest_asyncio

from agentforge import Forge
from agentforge.errors.compat import SuiteBroken
from agentforge.frameworks import Catalogue
from agentforge.lifecycle.suite import Suite
from agentforge_conformance.adapter import AdapterSuite
from agentforge_conformance.capabilities import CAPABILITIES, capability_of

from .project_world import PATIENCE_S, Project, open_project
from .test_adapter_suite import FAULTY, MANIFEST, RED

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

LONG_S = 240.0
SOUND = """
name = "sound"
title = "Sound"
summary = "The python adapter as it is."
distribution = ""
model_settings = ["temperature", "max_tokens", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty"]
[capabilities]
streaming = {level = "full"}
tools = {level = "full"}
cancel = {level = "full"}
structured-output = {level = "full"}
threads = {level = "partial", note = "Only by half."}
concurrency = {level = "absent", note = "Not even tried."}
juggling = {level = "full"}
[[releases]]
versions = ">=3.8"
python = ">=3.8"
adapter = "adapter:PythonAdapter"
tested = [{version = "3.11", as_of = 2026-11-15T00:00:00Z}]
"""
RED_CAPABILITIES = {capability_of(getattr(AdapterSuite, name.partition("[")[0])) for name in RED}


def write_framework(folder: Path, manifest: str, **modules: str) -> None:
    folder.mkdir(parents=True)
    (folder / "framework.toml").write_text(manifest)
    (folder / "adapter.py").write_text((Catalogue.discover().get("python").folder / "adapter.py").read_text("utf-8"))
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tried(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Project]:
    """A project with a sound and a faulty framework."""
    async with open_project(tmp_path_factory.mktemp("compat") / "project") as project:
        write_framework(project.root / "frameworks/faulty", MANIFEST, faulty=FAULTY)
        write_framework(project.root / "frameworks/sound", SOUND)
        done = await project.command("framework", "register", "frameworks", "--json")
        assert sorted(done.result["registered"]) == ["faulty", "sound"], done
        yield project


async def compat(project: Project, *arguments: str, **given: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    done = await project.command("compat", *arguments, "--json", patience_s=LONG_S, **given)
    return done.code, {each["framework"]: each for each in done.objects}


def results(report: dict[str, Any]) -> dict[str, str]:
    return {name: each["result"] for name, each in report["capabilities"].items()}


async def test_planted_faults_fail_their_capabilities_and_do_not_stop_the_next_release(tried: Project) -> None:
    junit = tried.root / "report.xml"
    code, reports = await compat(tried, "faulty", "sound", "--junit", str(junit))
    assert (code, list(reports)) == (1, ["faulty", "sound"])
    faulty, sound = reports.values()
    assert (faulty["status"], faulty["failed"], faulty["error"]) == ("failed", len(RED), None)
    assert {name for name, result in results(faulty).items() if result == "fail"} == RED_CAPABILITIES
    assert results(faulty)["tools"] == "fail"
    assert results(faulty)["confinement"] == "fail"
    assert results(faulty)["concurrency"] == "absent"
    assert faulty["capabilities"]["concurrency"]["note"] == "Not even tried."
    assert results(faulty)["basics"] == "fail"
    assert results(faulty)["native-tool-calls"] == "pass"
    failures = [each for value in faulty["capabilities"].values() for each in value["failures"]]
    assert {each["test"] for each in failures} == RED
    assert all(each["message"] for each in failures)
    assert faulty["conformance"] < 100
    assert (sound["status"], sound["failed"], sound["conformance"]) == ("passed", 0, 100.0)
    found = results(sound)
    assert found.pop("threads") == "partial"
    assert found.pop("juggling") == "untested"
    assert {name for name, result in found.items() if result == "absent"} == {
        "concurrency", "native", "tool-replay", "fidelity",
    }  # fmt: skip
    assert set(found) | {"threads"} == set(CAPABILITIES)
    assert sound["release"] == "3.11"
    assert sound["python"].startswith("3.11.")
    suites = {suite.get("name"): suite for suite in ElementTree.parse(junit).getroot()}
    assert int(suites["faulty==3.11"].attrib["failures"]) == len(RED)
    assert {case.get("name") for case in suites["faulty==3.11"] if case.find("failure") is not None} == RED
    assert suites["sound==3.11"].attrib["failures"] == "0"


async def test_what_came_out_is_measured_and_compared(tried: Project) -> None:
    await compat(tried, "sound")
    compared = (await tried.command("framework", "compare", "sound", "python", "--json")).result
    sound, python = (column["measured"]["conformance"] for column in compared["columns"])
    assert (sound["value"], sound["unit"], sound["command"]) == (100.0, "%", "agentforge compat sound==3.11")
    assert python is None


async def test_only_what_is_missing_is_tried_and_an_edited_adapter_is_missing(tried: Project) -> None:
    _, before = await compat(tried, "sound")
    _, kept = await compat(tried, "sound", "--only-missing")
    assert kept == before
    adapter = tried.root / "frameworks/sound/adapter.py"
    text = adapter.read_text()
    adapter.write_text(text + "\n# edited\n")
    _, again = await compat(tried, "sound", "--only-missing")
    assert again["sound"]["adapter"] != before["sound"]["adapter"]
    adapter.write_text(text)


async def test_a_release_that_failed_is_missing(tried: Project) -> None:
    _, before = await compat(tried, "faulty", "--capability", "basics")
    _, after = await compat(tried, "faulty", "--capability", "basics", "--only-missing")
    assert before["faulty"]["status"] == after["faulty"]["status"] == "failed"
    assert set(after["faulty"]["capabilities"]) == {"basics"}


async def test_a_suite_that_is_killed_is_an_error_of_its_release_alone(tried: Project) -> None:
    command = await tried.start("compat", "faulty", "sound", "--capability", "replay", "--json")
    (await suite_of(tried, "faulty")).kill()
    done = await command.done(patience_s=LONG_S)
    assert done.code == 1
    faulty, sound = done.objects
    assert (faulty["status"], faulty["error"]["code"]) == ("error", "AF341")
    assert "ended with -9" in faulty["error"]["message"]
    assert (sound["status"], sound["error"]) == ("passed", None)


async def test_a_command_that_is_interrupted_leaves_no_suite_behind(tried: Project) -> None:
    command = await tried.start("compat", "sound")
    suite = await suite_of(tried, "sound")
    command.interrupt()
    assert (await command.done()).code == 130
    async with asyncio.timeout(PATIENCE_S):
        while suite.is_running() and suite.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)


async def test_a_host_that_is_killed_takes_its_suite_along(tried: Project) -> None:
    command = await tried.start("compat", "sound")
    suite = await suite_of(tried, "sound")
    psutil.Process((await tried.host())["pid"]).send_signal(signal.SIGKILL)
    assert (await command.done(patience_s=LONG_S)).code == 1
    async with asyncio.timeout(PATIENCE_S):
        while suite.is_running() and suite.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.05)


async def test_bad_wishes_are_refused(tried: Project) -> None:
    done = await tried.command("compat", "sound", "--capability", "flying")
    assert (done.code, "error[AF207]" in done.err, "`flying`" in done.err) == (1, True, True)
    assert "takeover" in done.err  # the hint lists what there is
    assert "error[AF202]" in (await tried.command("compat", "sond")).err
    assert "error[AF203]" in (await tried.command("compat", "sound@7")).err


async def test_a_release_without_its_python_is_not_tried_and_named_exactly_an_error(tried: Project) -> None:
    manifest = tried.root / "frameworks/sound/framework.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace('"3.11"', '"3.98"'))
    code, reports = await compat(tried, "sound")
    assert (code, reports["sound"]["status"], reports["sound"]["error"]["code"]) == (0, "unavailable", "AF306")
    code, reports = await compat(tried, "sound==3.98")
    assert (code, reports["sound"]["status"], reports["sound"]["error"]["code"]) == (1, "error", "AF306")
    manifest.write_text(text)


async def test_without_pytest_the_command_says_what_to_install(tried: Project, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pytest'] = None\n")
    await tried.stop()
    variables = {"PYTHONPATH": str(tmp_path), "AGENTFORGE_HOST": "inline"}
    done = await tried.command("compat", "sound", variables=variables, patience_s=LONG_S)
    assert done.code == 1
    assert "error[AF340]: sound==3.11: The conformance suite needs `pytest`" in done.err
    assert "inferloop-agentforge-conformance[suites]" in done.err


async def test_the_python_client_returns_the_reports(tried: Project) -> None:
    async with Forge(tried.root) as forge:
        (report,) = await forge.compat("sound", capabilities=["tools"])
    assert {each["outcome"] for each in report["tests"]} == {"passed"}
    assert {each["capability"] for each in report["tests"]} == {"tools"}
    assert json.loads(json.dumps(report)) == report


BROKEN = {
    "it can't be collected": ("sys.modules['agentforge_conformance.adapter'] = None", "ended with 2", "ImportError"),
    "it is not there": ("sys.modules['agentforge_conformance.try_release'] = None", "ended with 1", "try_release"),
    "it leaves early": ("import pytest\npytest.main = lambda *_, **__: os._exit(0)", "ended with 0", ""),
}
"""What a suite's interpreter does when it starts, and what is said of it."""


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_suite_that_did_not_run_has_not_passed(fault: str, tmp_path: Path) -> None:
    code, ended, said = BROKEN[fault]
    (tmp_path / "sitecustomize.py").write_text(f"import os, sys\n{code}\n")
    release = Catalogue.discover().resolve("python==3.11")
    suite = Suite({**os.environ, "PYTHONPATH": str(tmp_path)})
    with pytest.raises(SuiteBroken) as caught:
        await suite.run(release, Path(sys.executable), [], lambda *_: None)
    assert ended in caught.value.message
    assert said in caught.value.message


async def test_a_suite_that_says_nothing_is_ended() -> None:
    release = Catalogue.discover().resolve("python==3.11")
    with pytest.raises(SuiteBroken, match=r"said nothing for 0\.01 s"):
        await Suite(silence_s=0.01).run(release, Path(sys.executable), [], lambda *_: None)


async def suite_of(project: Project, framework: str) -> psutil.Process:
    """Wait until the suite of a framework runs its tests."""
    mark = str(project.root / "frameworks" / framework)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for process in psutil.process_iter():
                if _runs(process, mark):
                    return process
            await asyncio.sleep(0.02)


def _runs(process: psutil.Process, mark: str) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "agentforge_conformance.try_release" in words and mark in words
