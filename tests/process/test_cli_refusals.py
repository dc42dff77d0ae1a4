"""Command lines that can't be right end with 2 and say why; what can't be started ends as its error says."""

import asyncio
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agentforge.api.place import answers, host_place
from agentforge_conformance.scripted_model import Step

from .project_world import Project, gone

INLINE = {"AGENTFORGE_HOST": "inline"}


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """Another runtime folder: what cron or another login has."""
    folder = tempfile.mkdtemp(prefix="af-", dir="/tmp")  # short: sockets are below it
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "agent", "caf\udce9"],
        ["runs", "show", "é"],
        ["runs", "show", ""],
        ["runs", "show", "?x=1"],
        ["runs", "cancel", "../host/stop"],
        ["runs", "list", "--status", "bogus"],
        ["runs", "list", "--label", "foo"],
    ],
)
async def test_what_can_not_be_right_starts_nothing(project: Project, arguments: list[str]) -> None:
    done = await project.command(*arguments)
    assert (done.code, done.out) == (2, ""), done
    assert done.err
    assert project.processes() == []


@pytest.mark.parametrize("arguments", [["framework", "show", ""], ["env", "show", "é"], ["env", "show", "?x=1"]])
async def test_names_that_are_odd_are_refused_and_no_bug(project: Project, arguments: list[str]) -> None:
    done = await project.command(*arguments)
    assert done.code in (1, 2), done
    assert done.out == ""
    assert "hint" in done.err


async def test_stdin_that_is_no_utf8_is_refused(project: Project) -> None:
    command = await project.start("run", project.agent(), "-")
    done = await command.done(b"caf\xe9")
    assert (done.code, done.out) == (2, ""), done
    assert "stdin is not UTF-8" in done.err


async def test_markup_in_a_name_is_a_name(project: Project) -> None:
    done = await project.command("run", project.agent(), "x", "--on", "[/b],python")
    assert done.code == 1, done
    assert "[/b]" in done.out
    assert "FINAL: x" in done.out


@pytest.mark.parametrize("variables", [{}, INLINE])
async def test_a_state_folder_that_can_not_be_made_is_told(project: Project, variables: dict[str, str]) -> None:
    project.write(".agentforge", "a file")
    done = await project.command("run", project.agent(), "x", variables=variables)
    assert (done.code, done.out) == (1, ""), done
    assert "error[AF909]" in done.err


@pytest.mark.parametrize(
    ("variables", "name"), [(INLINE, "host.lock"), ({}, "host.lock"), ({}, "host.starting"), ({}, "host.log")]
)
async def test_a_state_that_can_not_be_written_is_told(project: Project, variables: dict[str, str], name: str) -> None:
    project.write(f".agentforge/{name}/in-the-way", "no file, for root either")
    done = await project.command("runs", "list", variables=variables)
    assert (done.code, done.out) == (1, ""), done
    assert "error[AF909]" in done.err
    assert f".agentforge/{name}` can't be written: Is a directory" in done.err
    assert "hint: Make it writable" in done.err


async def test_half_of_a_surrogate_pair_passes_through_events_and_results(project: Project) -> None:
    model = project.model.script("half", Step(text="half: \ud83d"))
    asked = ["run", project.agent(), "x", "--model", f"openai:{model}", "--stream"]
    told = await project.command(*asked, "--json")
    assert told.code == 0, told
    *streamed, result = told.objects
    assert "".join(event["data"]["text"] for event in streamed if event["kind"] == "message.delta") == "half: \ud83d"
    assert result["status"] == "succeeded"
    recorded = await project.command("runs", "events", result["run_id"], "--json")
    kept = [event for event in recorded.objects if event["kind"] != "message.delta"]
    assert (recorded.code, kept) == (0, [event for event in streamed if event["kind"] != "message.delta"])
    human = await project.command(*asked)
    assert (human.code, human.out) == (0, "half: \\ud83d\n"), human


async def test_a_host_is_found_from_another_runtime_folder(project: Project, elsewhere: str) -> None:
    other = {"XDG_RUNTIME_DIR": elsewhere}
    first = await project.run(project.agent(), "here", variables=other)
    second = await project.run("agent", "there")
    pid = (await project.host())["pid"]
    listed = await project.command("runs", "list", "--json", variables=other)
    assert [run["run_id"] for run in listed.objects] == [second["run_id"], first["run_id"]]
    assert (await project.command("host", "status", "--json", variables=other)).result["pid"] == pid


async def test_commands_at_once_from_several_runtime_folders_start_one_host(project: Project, elsewhere: str) -> None:
    agent = project.agent()
    given = [{}, {"XDG_RUNTIME_DIR": elsewhere}] * 3
    results = await asyncio.gather(*(project.run(agent, "x", variables=each) for each in given))
    assert [result["status"] for result in results] == ["succeeded"] * len(given)
    hosts = [each for each in project.processes() if "agentforge.api.server" in each.cmdline()]
    assert len(hosts) == 1


async def test_a_lock_file_that_came_with_the_project_leads_nowhere(project: Project, tmp_path: Path) -> None:
    for told in ("/dev/null", "relative.sock", str(tmp_path / "missing.sock"), "\0", ""):
        project.write(".agentforge/host.lock", told)
        assert not answers(host_place(project.root)), told
    assert (await project.run(project.agent(), "x"))["output"] == "FINAL: x"


async def test_a_host_without_its_socket_leaves(project: Project) -> None:
    await project.run(project.agent())
    pid = (await project.host())["pid"]
    host_place(project.root).socket.unlink()
    await gone(pid)
    assert (await project.run("agent", "again"))["output"] == "FINAL: again"


async def test_ctrl_c_ends_a_command_that_waits_for_the_start_of_a_host(project: Project) -> None:
    agent = project.agent()
    lock = project.write(".agentforge/host.starting", "")
    with lock.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = await project.start("run", agent, "x")
        async with asyncio.timeout(20):
            while str(lock) not in (file.path for file in psutil.Process(command.pid).open_files()):
                await asyncio.sleep(0.01)
        command.interrupt()
        done = await command.done(patience_s=10)
    assert (done.code, done.out) == (130, ""), done
    assert project.processes() == []
