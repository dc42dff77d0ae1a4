"""The project's host: started once by whoever comes first, warm for those who follow, gone when it should be."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from agentforge.api.place import host_place

from .project_world import EXAMPLE, Project, gone

pytestmark = pytest.mark.feature("AF-078")

TOOLS = '''
import time

def hangs(why: str) -> str:
    """Never return."""
    time.sleep(600)
'''


def hosts(project: Project) -> list[int]:
    """Return the pids of the project's hosts."""
    return [each.pid for each in project.processes() if "agentforge.api.server" in each.cmdline()]


async def pids(project: Project) -> set[int]:
    """Return the pids of the host and its workers."""
    host = await project.host()
    return {host["pid"], *(worker["pid"] for worker in host["workers"])}


async def test_ten_commands_at_once_start_one_host(project: Project) -> None:
    agent = project.agent()
    results = await asyncio.gather(*(project.run(agent, f"number {number}") for number in range(10)))
    assert [result["output"] for result in results] == [f"FINAL: number {number}" for number in range(10)]
    assert len(hosts(project)) == 1
    starts = [line for line in host_place(project.root).log.read_text().splitlines() if "already serves" in line]
    assert starts == []


@pytest.mark.framework("langchain")
async def test_a_second_command_finds_host_and_worker_warm(project: Project) -> None:
    first = await project.run(str(EXAMPLE), "x", "--on", "langchain")
    before = await pids(project)
    second = await project.run(str(EXAMPLE), "y", "--on", "langchain")
    assert await pids(project) == before
    assert len(before) == 3
    started = [
        [event["data"]["pid"] for event in await project.events(run["run_id"]) if event["kind"] == "attempt.started"]
        for run in (first, second)
    ]
    assert started[0] == started[1]


async def test_a_host_leaves_when_it_is_idle_and_not_before(project: Project) -> None:
    project.write("agentforge.toml", "[host]\nidle_s = 0.5\n")
    command = await project.start("run", project.agent(), "x", "--model", "openai:slow-2", "--json")
    async with asyncio.timeout(60):
        await project.model.wait_for_requests(1)
    (pid,) = hosts(project)
    assert (await command.done()).result["status"] == "succeeded"
    await gone(pid)
    assert project.processes() == []
    assert not host_place(project.root).socket.exists()
    assert (await project.run("agent", "again"))["output"] == "FINAL: again"


async def test_status_stop_and_logs_tell_of_the_host(project: Project) -> None:
    for command in ("status", "stop", "logs"):
        done = await project.command("host", command)
        assert (done.code, done.out) == (1, ""), done
        assert "error[AF906]" in done.err
    assert hosts(project) == []
    await project.run(str(EXAMPLE), "x", "--on", "python")
    status = (await project.command("host", "status", "--json")).result
    assert status["pid"] in hosts(project)
    assert status["project"] == str(project.root)
    assert {worker["kind"] for worker in status["workers"]} == {"agent", "tools"}
    text = (await project.command("host", "status")).out
    assert str(status["pid"]) in text
    before = await pids(project)
    done = await project.command("host", "stop")
    assert (done.code, done.out) == (0, "")
    await asyncio.gather(*map(gone, before))
    assert (await project.command("host", "status")).code == 1
    assert (await project.command("host", "logs", "-n", "5")).code == 0


async def test_a_command_right_after_the_hosts_end_gets_a_new_one(project: Project) -> None:
    agent = project.with_tools("slow-to-leave", TOOLS, "hangs")
    run_id = await project.detached(agent)
    await project.until(run_id, "tool.called")
    (pid,) = hosts(project)
    os.kill(pid, signal.SIGTERM)
    results = await asyncio.gather(*(project.run(project.agent(), f"{number}") for number in range(3)))
    assert [result["output"] for result in results] == ["FINAL: 0", "FINAL: 1", "FINAL: 2"]
    assert hosts(project) != [pid]


async def test_with_a_killed_host_everything_dies_and_the_next_one_goes_on_with_its_runs(project: Project) -> None:
    agent = project.with_tools("hanging", TOOLS, "hangs")
    calling = await project.detached(agent)
    asking = await project.detached(project.agent("asking"), "x", "--model", "openai:slow-600")
    await project.until(calling, "tool.called")
    await project.until(asking, "model.requested")
    all_of_them = await pids(project)
    assert len(all_of_them) == 4
    (host,) = hosts(project)
    os.kill(host, signal.SIGKILL)
    await asyncio.gather(*map(gone, all_of_them))
    async with asyncio.timeout(10):
        await project.model.wait_until_idle()
    await project.command("runs", "list")
    assert hosts(project) != [host]
    assert (await project.ended(calling))["interrupts"][0]["kind"] == "tool"
    await project.until(asking, "attempt.started")
    for run_id in (calling, asking):
        assert (await project.command("runs", "cancel", run_id, "--json")).result["status"] == "cancelled"
        events = await project.events(run_id)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert events[-1]["kind"] == "run.finished"
        done = await project.command("runs", "watch", run_id, "--json")
        assert (done.code, done.objects[-1]["kind"]) == (1, "run.finished")
    assert (await project.run("asking", "now"))["output"] == "FINAL: now"


async def test_a_second_host_for_the_same_project_is_refused(project: Project) -> None:
    await project.run(project.agent())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentforge.api.server", "--project", str(project.root),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"AF905" in err
    assert b"Traceback" not in err
    assert len(hosts(project)) == 1
    assert (await project.run("agent", "still there"))["output"] == "FINAL: still there"


async def test_the_project_is_found_upwards_or_named(project: Project, tmp_path: Path) -> None:
    project.agent("deep/down/agent")
    below = project.root / "deep" / "down"
    assert (await project.run("agent", "below", cwd=below))["output"] == "FINAL: below"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    agent = str(below / "agent")
    assert (await project.run(agent, "away", "-C", str(project.root), cwd=elsewhere))["output"] == "FINAL: away"
    assert len(hosts(project)) == 1
    assert not (below / ".agentforge").exists()
    assert not (elsewhere / ".agentforge").exists()


async def test_the_state_of_a_project_is_in_its_folder_and_ignored_by_git(project: Project, home: Path) -> None:
    await project.run(project.agent())
    state = project.root / ".agentforge"
    assert (state / ".gitignore").read_text() == "*\n"
    assert (state / "state.db").is_file()
    assert (project.root / "agentforge.lock").is_file()
    assert not (state / "environments").exists()
    assert list(home.glob("environments/python-*"))


async def test_inline_keeps_the_host_inside_the_command_and_leaves_nothing_behind(project: Project) -> None:
    inline = {"AGENTFORGE_HOST": "inline"}
    command = await project.start(
        "run", str(EXAMPLE), "x", "--on", "python", "--model", "openai:slow-1", "--json", variables=inline
    )
    async with asyncio.timeout(60):
        await project.model.wait_for_requests(1)
    assert hosts(project) == []
    done = await command.done()
    assert (done.code, done.result["status"]) == (0, "succeeded"), done
    assert project.processes() == []
    listed = await project.command("runs", "list", "--json", variables=inline)
    assert [run["run_id"] for run in listed.objects] == [done.result["run_id"]]
    assert project.processes() == []


async def test_inline_commands_at_once_do_not_disturb_each_other(project: Project) -> None:
    agent = project.agent()
    inline = {"AGENTFORGE_HOST": "inline"}
    runs = (project.run(agent, f"{number}", variables=inline) for number in range(3))
    assert [result["output"] for result in await asyncio.gather(*runs)] == ["FINAL: 0", "FINAL: 1", "FINAL: 2"]
    assert project.processes() == []


async def test_ctrl_c_ends_an_inline_command_with_its_host_and_its_run(project: Project) -> None:
    inline = {"AGENTFORGE_HOST": "inline"}
    command = await project.start("run", project.agent(), "x", "--model", "openai:slow-600", variables=inline)
    async with asyncio.timeout(60):
        await project.model.wait_for_requests(1)
    command.interrupt()
    done = await command.done()
    assert (done.code, done.out) == (130, ""), done
    assert project.processes() == []
    (run,) = (await project.command("runs", "list", "--json", variables=inline)).objects
    assert run["status"] == "cancelled"


async def test_a_detached_run_needs_a_host_that_stays(project: Project) -> None:
    done = await project.command("run", project.agent(), "x", "--detach", variables={"AGENTFORGE_HOST": "inline"})
    assert (done.code, done.out) == (2, ""), done
    assert "AGENTFORGE_HOST" in done.err
