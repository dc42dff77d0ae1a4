"""The commands that are not about one run: help, init, doctor, frameworks, environments."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from .project_world import Project

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMMANDS = [
    "run", "init", "demo", "doctor", "framework list", "framework search", "framework show", "framework compare",
    "framework docs", "framework examples", "framework config", "framework register", "framework unregister",
    "framework deprecate", "env build", "env list", "env show",
    "env remove", "env gc", "env export", "env import",
    "runs list", "runs show", "runs events", "runs watch", "runs cancel", "runs resume", "runs answer",
    "runs checkpoints", "runs diff", "runs rollback", "runs fork", "runs replay", "runs export", "runs import",
    "threads list", "threads show", "threads export", "threads delete", "host status", "host stop", "host logs",
]  # fmt: skip
# pydantic comes with typer as soon as it reads arguments
SLOW = ["pydantic", "fastapi", "aiohttp", "sqlalchemy", "rich", "httpx", "httpcore", "jsonschema", "uvicorn", "yaml"]


async def test_help_lists_every_command_and_each_shows_an_example(own_project: Project) -> None:
    top = await own_project.command("--help")
    assert top.code == 0
    for command in COMMANDS:
        assert command.split()[0] in top.out
        done = await own_project.command(*command.split(), "--help")
        assert (done.code, done.err) == (0, ""), done
        assert f"Example: agentforge {command}" in done.out, command
    assert own_project.processes() == []
    assert not (own_project.root / ".agentforge").exists()


async def test_help_and_a_warm_run_import_little(shared_project: Project) -> None:
    for arguments, allowed in ([["--help"], set()], [["run", shared_project.agent(), "x"], {"pydantic"}]):
        code = (
            "import sys, atexit\nfrom agentforge.cli import main\n"
            "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\nmain.main()"
        )
        if allowed:
            await shared_project.run("agent")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, *arguments,
            cwd=shared_project.root, env={**os.environ, **shared_project.variables},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, err = await process.communicate()
        assert process.returncode == 0, err
        loaded = set(err.decode().split())
        assert "typer" in loaded
        assert sorted(set(SLOW) & loaded) == sorted(allowed)


async def test_the_version_is_shown(shared_project: Project) -> None:
    done = await shared_project.command("--version")
    assert (done.code, done.out.split()[0]) == (0, "agentforge")


async def test_init_makes_a_project_whose_agent_works_at_once(own_project: Project) -> None:
    done = await own_project.command("init", "mine")
    assert done.code == 0
    folder = own_project.root / "mine"
    made = {Path(line).name for line in done.out.splitlines()}
    assert made == {"agentforge.toml", "agent.yaml", "tools.py", "expenses.csv"} == {p.name for p in folder.iterdir()}
    run = await own_project.command("run", "agent.yaml", "How much was travel?", "--on", "python", "--json", cwd=folder)
    assert run.result["status"] == "succeeded"
    assert run.result["tool_calls"][0]["name"] == "total_for"
    assert (folder / ".agentforge").is_dir()
    again = await own_project.command("init", "mine")
    assert (again.code, again.out) == (2, "")
    assert "`agentforge.toml`" in again.err
    assert (await own_project.command("host", "stop", "-C", "mine")).code == 0


@pytest.mark.parametrize(("broken", "code"), [(False, 0), (True, 1)])
async def test_doctor_says_what_works_and_what_to_do_about_the_rest(
    shared_project: Project, broken: bool, code: int
) -> None:
    variables = {"AGENTFORGE_HOME": str(shared_project.write("occupied", ""))} if broken else {}
    done = await shared_project.command("doctor", "--json", variables=variables)
    assert done.code == code, done
    findings = {finding["check"]: finding for finding in done.objects}
    assert {"python", "home", "frameworks", "embedded", "model", "host", "sandbox"} <= set(findings)
    assert findings["home"]["state"] == ("failed" if broken else "ok")
    for finding in done.objects:
        assert finding["message"]
        assert finding["state"] == "ok" or finding["hint"], finding
    text = await shared_project.command("doctor", variables=variables)
    assert text.code == code
    assert ("FAIL" in text.out) is broken


async def test_frameworks_are_listed_and_shown(shared_project: Project) -> None:
    listed = (await shared_project.command("framework", "list", "--json")).objects
    names = [framework["name"] for framework in listed]
    assert {"langchain", "crewai", "pydantic-ai", "python"} <= set(names)
    table = (await shared_project.command("framework", "list")).out.splitlines()
    assert table[0].split()[0] == "NAME"
    assert len(table) == len(names) + 1
    shown = (await shared_project.command("framework", "show", "langchain", "--json")).result
    assert shown["releases"]
    assert {value["level"] for value in shown["capabilities"].values()} <= {"full", "partial", "todo", "absent"}
    text = (await shared_project.command("framework", "show", "langchain")).out
    assert "CAPABILITY" in text
    unknown = await shared_project.command("framework", "show", "langchian")
    assert (unknown.code, unknown.out) == (1, "")
    assert "`langchain`" in unknown.err


async def test_environments_are_built_once_listed_shown_and_removed(own_project: Project, tmp_path: Path) -> None:
    own_project.variables["AGENTFORGE_HOME"] = str(tmp_path / "home")
    first = await own_project.command("env", "build", "python", "--json")
    assert first.code == 0, first
    name = first.result["id"]
    assert f"{name}: ready" in first.err
    second = await own_project.command("env", "build", "python", "--json")
    assert second.result["built_at"] == first.result["built_at"]
    assert second.err == ""
    listed = (await own_project.command("env", "list", "--json")).objects
    assert [each["id"] for each in listed] == [name]
    sized = (await own_project.command("env", "list", "--sizes", "--json")).objects
    assert sized[0]["size_bytes"] > 0
    shown = (await own_project.command("env", "show", name, "--json")).result
    assert Path(shown["path"]).is_dir()
    needed = await own_project.command("env", "remove", name)
    assert (needed.code, "error[AF330]" in needed.err) == (1, True), "the project's lock names it"
    (own_project.root / "agentforge.lock").unlink()
    removed = await own_project.command("env", "remove", name)
    assert (removed.code, removed.out) == (0, "")
    assert not Path(shown["path"]).exists()
    assert (await own_project.command("env", "list", "--json")).objects == []
    missing = await own_project.command("env", "show", name)
    assert (missing.code, missing.out) == (1, "")
    assert "error[AF3" in missing.err
    assert (await own_project.run(own_project.agent(), "built again"))["output"] == "FINAL: built again"


async def test_several_environments_are_built_at_once_and_one_failure_does_not_hide_the_others(
    own_project: Project,
) -> None:
    done = await own_project.command("env", "build", "python", "nothing", "--json")
    assert done.code == 1
    assert done.result["framework"] == "python"
    assert "error[AF202]" in done.err


async def test_a_closed_pipe_is_no_bug(shared_project: Project) -> None:
    process = await asyncio.create_subprocess_shell(
        f"{Path(sys.executable).with_name('agentforge')} framework list --json | head -c 1",
        cwd=shared_project.root, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert (out, err) == (b"{", b"")


async def test_the_shell_gets_completions(shared_project: Project) -> None:
    done = await shared_project.command(variables={"_AGENTFORGE_COMPLETE": "source_bash"})
    assert done.code == 0
    assert "agentforge" in done.out


async def test_json_of_every_list_is_one_object_a_line(shared_project: Project) -> None:
    await shared_project.run(shared_project.agent())
    for command in (["runs", "list"], ["framework", "list"], ["env", "list"], ["doctor"]):
        done = await shared_project.command(*command, "--json")
        for line in done.out.splitlines():
            assert isinstance(json.loads(line), dict)
