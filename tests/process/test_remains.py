"""What a host leaves behind is gone before the next one begins, and nothing else is touched."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentforge.errors.store import LeaseLost
from agentforge.errors.workers import RemainsAlive
from agentforge.workers import Handlers, Worker, WorkersFolder, WorkerSpec, worker_zip, workers_gone
from agentforge.workers.identity import ProcessId

from .project_world import Project, gone

pytestmark = pytest.mark.feature("AF-081")

Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Start a program in a session of its own, which is ended after the test; it has said its first line."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object, **options: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
            stdout=subprocess.PIPE, text=True, start_new_session=True, **options,  # type: ignore[call-overload]
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


WAITS = "print('', flush=True); import time; time.sleep(600)"
SHARES = """
    import fcntl, os, sys, time
    lock = os.open(sys.argv[1], os.O_RDONLY)
    if sys.argv[2] == "share":
        fcntl.flock(lock, fcntl.LOCK_SH)
    print(flush=True)
    time.sleep(600)
"""


def recorded(workers: WorkersFolder, process: ProcessId | None) -> Path:
    """Write a worker's folder that names a process."""
    assert process is not None
    folder = workers.path / "w1"
    folder.mkdir()
    (folder / "process").write_text(f"{process}\n")
    return folder


async def test_a_worker_of_an_earlier_host_is_ended_before_the_next_one_begins(tmp_path: Path) -> None:
    workers = await workers_gone(tmp_path / "workers", 1)
    worker = await Worker.start(
        "t1",
        WorkerSpec("tools", "env", Path(sys.executable), "version", label="tools"),
        pyz=worker_zip(tmp_path),
        folder=workers.path / "t1",
        handlers=Handlers(),
        workers=workers,
    )
    process = ProcessId.of(worker.pid)
    assert process is not None
    assert (workers.path / "t1" / "process").read_text() == f"{process}\n"
    following = await workers_gone(tmp_path / "workers", 2)
    assert not process.alive
    assert list((tmp_path / "workers").iterdir()) == [following.path]
    assert "SIGKILL" in await worker.ended


async def test_a_host_that_was_replaced_starts_no_more_workers(tmp_path: Path) -> None:
    workers = await workers_gone(tmp_path / "workers", 1)
    await workers_gone(tmp_path / "workers", 2)
    spec = WorkerSpec("tools", "env", Path(sys.executable), "version", label="tools")
    with pytest.raises(LeaseLost):
        await Worker.start(
            "t1", spec, pyz=worker_zip(tmp_path), folder=tmp_path / "t1", handlers=Handlers(), workers=workers
        )


@pytest.mark.parametrize("how", ["closed", "locked", "gone"])
async def test_no_share_is_given_once_a_later_host_has_begun(tmp_path: Path, how: str) -> None:
    """It may have closed the folder and gone through, or be going through just now, or have removed it."""
    import fcntl

    workers = await workers_gone(tmp_path, 1)
    with workers.share() as share:
        assert os.fstat(share).st_ino == (workers.path / "lock").stat().st_ino
    with (workers.path / "lock").open("r+") as other:
        if how == "locked":
            fcntl.flock(other, fcntl.LOCK_EX)
        elif how == "closed":
            (workers.path / "closed").touch()
        else:
            shutil.rmtree(workers.path)
        with pytest.raises(LeaseLost), workers.share():
            pass


async def test_who_holds_a_share_is_ended_and_who_has_the_file_open_is_not(tmp_path: Path, start: Starter) -> None:
    workers = await workers_gone(tmp_path, 1)
    sharing = start(SHARES, workers.path / "lock", "share")
    reading = start(SHARES, workers.path / "lock", "read")
    await workers_gone(tmp_path, 2)
    assert sharing.wait() == -signal.SIGKILL
    assert reading.poll() is None


async def test_the_children_of_a_worker_are_ended_with_it(tmp_path: Path, start: Starter) -> None:
    workers = await workers_gone(tmp_path, 1)
    leader = start("import os; os.fork(); " + WAITS)  # the child is in its group, and has no share of anything
    assert leader.stdout is not None
    leader.stdout.readline()
    members = [pid for pid in map(int, _pids()) if os.getsid(pid) == leader.pid]
    assert len(members) == 2
    recorded(workers, ProcessId.of(leader.pid))
    await workers_gone(tmp_path, 2)
    assert [pid for pid in members if ProcessId.of(pid)] == []


async def test_the_children_of_a_worker_that_is_gone_are_known_by_their_home(tmp_path: Path, start: Starter) -> None:
    workers = await workers_gone(tmp_path, 1)
    leaves = "import subprocess; print(subprocess.Popen(['sleep', '600'], stdout=-3).pid, flush=True); input()"
    children = {}
    for name, home in (("ours", workers.path / "w1" / "home"), ("another", tmp_path / "home")):
        leader = subprocess.Popen(
            [sys.executable, "-c", leaves],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, env={"HOME": str(home)},
        )  # fmt: skip
        process = ProcessId.of(leader.pid)
        assert leader.stdout is not None
        children[name] = int(leader.stdout.readline())
        leader.communicate("\n")
        folder = workers.path / name
        folder.mkdir()
        (folder / "process").write_text(f"{process}\n")
    try:
        await workers_gone(tmp_path, 2)
        assert ProcessId.of(children["ours"]) is None
        assert ProcessId.of(children["another"]) is not None
    finally:
        for pid in children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("what", ["started", "boot"])
async def test_a_process_that_merely_got_the_pid_is_left_alone(tmp_path: Path, start: Starter, what: str) -> None:
    workers = await workers_gone(tmp_path, 1)
    innocent = start(WAITS, env={**os.environ, "HOME": str(workers.path / "w1" / "home")})
    process = ProcessId.of(innocent.pid)
    assert process is not None
    other = ProcessId(process.pid, process.started - (what == "started"), "x" if what == "boot" else process.boot)
    recorded(workers, other)
    await workers_gone(tmp_path, 2)
    assert innocent.poll() is None
    assert not other.kill()
    assert innocent.poll() is None


async def test_what_a_later_host_has_is_left_alone(tmp_path: Path, start: Starter) -> None:
    """A host that was stopped at its start and goes on too late must not end the workers of its successor."""
    later = await workers_gone(tmp_path, 2)
    sharing = start(SHARES, later.path / "lock", "share")
    await workers_gone(tmp_path, 1)
    with later.share():
        pass
    assert sharing.poll() is None


async def test_a_lock_that_nobody_lets_go_of_is_told(tmp_path: Path) -> None:
    import fcntl

    workers = await workers_gone(tmp_path, 1)
    with (workers.path / "lock").open("rb") as held:  # by this very process, which is not ended
        fcntl.flock(held, fcntl.LOCK_SH)
        with pytest.raises(RemainsAlive, match="can't be seen"):
            await workers_gone(tmp_path, 2, patience_s=0.1)
    await workers_gone(tmp_path, 2)


LEAVES = '''
import os, subprocess, sys, time
from pathlib import Path

def leaves(text: str) -> str:
    """Start a program, and a process that leaves the session."""
    pids = [subprocess.Popen(["sleep", "600"]).pid]
    pid = os.fork()
    if pid == 0:
        os.setsid()
        time.sleep(600)
        os._exit(0)
    Path(FILE).write_text(f"{pids[0]} {pid}")
    time.sleep(600)
'''


async def test_after_a_killed_host_no_child_of_a_tool_lives_when_the_next_one_is_ready(
    project: Project, tmp_path: Path
) -> None:
    """A sandbox takes them along by itself: this is what is done without one."""
    project.write("agentforge.toml", '[host]\ndrain_s = 0\n[sandbox]\nlevel = "none"\n')
    file = tmp_path / "pids"
    agent = project.with_tools("leaving", LEAVES.replace("FILE", repr(str(file))), "leaves")
    await project.detached(agent)
    async with asyncio.timeout(60):
        while not file.exists() or " " not in file.read_text():
            await asyncio.sleep(0.02)
    children = [ProcessId.of(int(pid)) for pid in file.read_text().split()]
    host = await project.host()
    for pid in (host["pid"], *(worker["pid"] for worker in host["workers"])):
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
    assert all(child is not None and child.alive for child in children)  # else there is nothing to see here
    assert (await project.command("runs", "list", "--json")).code == 0
    assert not any(child is not None and child.alive for child in children)


def _pids() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdecimal()]
