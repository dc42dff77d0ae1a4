"""One host for a project at a time: who comes second, what becomes of one that falls silent, and how hosts leave.

A test never measures time: it stops and continues real processes and looks at what came before what.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sqlite3
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agentforge.api.holding import hold, is_over
from agentforge.api.place import HostPlace, Told, answers, host_place, listens
from agentforge.errors.host import HostAlreadyRuns, HostGone
from agentforge.store import ProjectId, open_store
from agentforge.workers.identity import ProcessId

from .project_world import PATIENCE_S, Project

pytestmark = pytest.mark.feature("AF-081")


class Host:
    """A host that is a child of this test, so that its log and its exit status can be seen."""

    def __init__(self, project: Project, process: asyncio.subprocess.Process, log: Path) -> None:
        self.project = project
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    async def said(self, words: str) -> None:
        """Wait until it has said something."""
        async with asyncio.timeout(PATIENCE_S):
            while words not in self.log:
                await asyncio.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the host alone."""
        self.process.send_signal(number)

    async def stop(self) -> None:
        """Stop it as Ctrl-Z does, and wait until it has stopped."""
        self.send(signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE_S):
            while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        """Wait for its end and return its exit status."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


Start = Callable[[], Awaitable[Host]]


@pytest.fixture
async def start(project: Project, tmp_path: Path) -> AsyncIterator[Start]:
    """Start hosts of the project; each is returned when it has said whether it is ready."""
    started: list[Host] = []
    numbers = itertools.count(1)

    async def start() -> Host:
        log = tmp_path / f"host-{next(numbers)}.log"
        reader, writer = os.pipe()
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "agentforge.api.server", "--project", str(project.root),
                "--ready-fd", str(writer),
                stdout=output, stderr=output, env={**os.environ, **project.variables}, pass_fds=(writer,),
            )  # fmt: skip
        os.close(writer)
        host = Host(project, process, log)
        started.append(host)
        with os.fdopen(reader) as told:
            await asyncio.to_thread(told.readline)
        return host

    yield start
    for host in started:
        if host.process.returncode is None:
            host.send(signal.SIGKILL)
            await host.ended()


def rows(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything that is recorded, but not when the lease was last renewed."""
    with contextlib.closing(sqlite3.connect(project.root / ".agentforge" / "state.db")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in names}
        found["projects"] = database.execute("SELECT project, epoch, holder FROM projects").fetchall()
    return found


async def ask_once(project: Project, model: str) -> None:
    """Ask the model as a run does."""
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    async with aiohttp.ClientSession() as session:
        await session.post(f"{project.model.base_url}/chat/completions", json=body)


# ---- two at once


@pytest.mark.timeout(400)
async def test_of_two_hosts_that_start_at_once_one_is_refused_every_time(project: Project, start: Start) -> None:
    for _ in range(20):
        both = await asyncio.gather(start(), start())
        serving = await project.host()
        (first,) = [host for host in both if host.process.pid == serving["pid"]]
        (second,) = [host for host in both if host is not first]
        assert await second.ended() == 1
        assert "AF905" in second.log
        assert "Traceback" not in second.log
        assert (await project.host())["pid"] == first.process.pid
        first.send(signal.SIGTERM)
        assert await first.ended() == 0, first.log


# ---- a host that falls silent


async def test_a_stopped_host_is_replaced_and_commits_nothing_when_it_goes_on(project: Project, start: Start) -> None:
    project.write("agentforge.toml", "[host]\nlease_s = 1\ndrain_s = 0\n")
    old = await start()
    run_id = await project.detached(project.agent(), "x", "--model", "openai:barrier-2")
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(1)
    workers = [ProcessId.of(worker["pid"]) for worker in await project.workers()]
    assert workers
    await old.stop()
    # What the command below gets answered is the new host's: until then everything is as it was.
    assert (await project.command("runs", "list", "--json")).code == 0
    assert not any(worker is not None and worker.alive for worker in workers)
    new = await project.host()
    assert new["pid"] != old.process.pid
    result = await project.ended(run_id)  # its request released that of the old host, which has its answer now
    before = rows(project)
    old.send(signal.SIGCONT)
    assert await old.ended() == 1
    assert "another host has taken over" in old.log
    assert rows(project) == before
    ends = [event for event in await project.events(run_id) if event["kind"] == "run.finished"]
    assert [end["data"]["status"] for end in ends] == [result["status"]]
    assert (await project.host())["pid"] == new["pid"]
    assert (await project.run("agent", "after that"))["status"] == "succeeded"
    assert (await project.host())["pid"] == new["pid"]


async def test_a_host_that_does_not_answer_keeps_its_project_until_its_lease_is_over(
    project: Project, start: Start
) -> None:
    project.write("agentforge.toml", "[host]\nlease_s = 600\n")
    place = host_place(project.root)
    old = await start()
    await old.stop()
    with pytest.raises(HostGone, match=str(old.process.pid)):
        await hold(place, told(place), patience_s=0)
    old.send(signal.SIGCONT)
    with pytest.raises(HostAlreadyRuns):
        await hold(place, told(place), patience_s=0)
    assert (await project.host())["pid"] == old.process.pid


async def test_a_host_whose_write_is_refused_leaves_at_once(project: Project, start: Start) -> None:
    """Its lease is not looked at for long: the first write of a run tells."""
    project.write("agentforge.toml", "[host]\nlease_s = 600\n")
    host = await start()
    run_id = await project.detached(project.agent(), "x", "--model", "openai:barrier-2")
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(1)
    workers = [ProcessId.of(worker["pid"]) for worker in await project.workers()]
    async with open_store(project.root / ".agentforge" / "state.db") as store:
        lease = await store.acquire_lease(ProjectId(str(project.root)), "somebody else")
    before = rows(project)
    await ask_once(project, "barrier-2")
    assert await host.ended() == 1
    assert "AF805" in host.log
    assert rows(project) == before
    assert before["projects"] == [(str(project.root), lease.epoch, "somebody else")]
    assert not any(worker is not None and worker.alive for worker in workers)
    assert (await project.command("runs", "list")).code == 0  # which starts the next host
    await asyncio.gather(ask_once(project, "barrier-2"), project.ended(run_id))


async def test_a_host_that_was_replaced_leaves_the_files_of_its_successor(project: Project, start: Start) -> None:
    project.write("agentforge.toml", "[host]\nlease_s = 1\n")
    place = host_place(project.root)
    old = await start()
    await old.stop()
    new = await start()
    of_new = [(path.stat().st_ino, path.read_bytes() if path.is_file() else b"") for path in (place.socket, place.lock)]
    old.send(signal.SIGCONT)
    assert await old.ended() == 1
    assert of_new == [
        (path.stat().st_ino, path.read_bytes() if path.is_file() else b"") for path in (place.socket, place.lock)
    ]
    assert (await project.host())["pid"] == new.process.pid
    third = await start()
    assert await third.ended() == 1
    assert "AF905" in third.log


STOPPED_IN_A_WRITE = """
import asyncio, os, signal, sqlite3, sys, time
from pathlib import Path
from agentforge.api.holding import hold
from agentforge.api.place import Told, host_place
from agentforge.workers.identity import ProcessId

root, own_process = Path(sys.argv[1]), sys.argv[2] == "host"
place = host_place(root)
told = Told(str(ProcessId.of(os.getpid())), place.socket, True, own_process, 1.0)
lock = asyncio.run(hold(place, told, patience_s=0))
database = sqlite3.connect(root / ".agentforge" / "state.db", isolation_level=None)
database.execute("BEGIN IMMEDIATE")
print(flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep(600)
"""


@pytest.mark.parametrize("what", ["host", "program"])
async def test_a_host_that_was_stopped_in_the_middle_of_a_write_is_killed_unless_it_is_in_a_users_program(
    project: Project, what: str
) -> None:
    project.write("agentforge.toml", "[host]\nlease_s = 1\n")
    assert (await project.command("runs", "list")).code == 0
    await project.stop()
    stopped = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(STOPPED_IN_A_WRITE), str(project.root), what,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert stopped.stdout is not None
    await stopped.stdout.readline()
    try:
        done = await project.command("runs", "list")
        if what == "host":
            assert done.code == 0, done
            assert await stopped.wait() == -signal.SIGKILL
        else:
            assert done.code == 1
            assert "AF803" in done.err
            assert stopped.returncode is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            stopped.kill()
        await stopped.wait()


# ---- the clock


@pytest.mark.parametrize(
    ("now", "over"), [(1000.0, False), (1015.0, False), (1015.1, True), (999.5, False), (998.0, True), (5e9, True)]
)
def test_a_lease_ends_after_its_time_and_means_nothing_when_it_is_from_the_future(now: float, over: bool) -> None:
    assert is_over(1000.0, now, 15.0) == over


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("now", [900.0, 1016.0])
async def test_who_answers_keeps_the_project_whatever_the_clock_says(
    place: HostPlace, now: float, shared: bool
) -> None:
    held = await hold(place, replace(told(place), shared=shared), patience_s=0, clock=lambda: 1000.0)
    serving = await asyncio.start_unix_server(_answer, place.socket)
    async with serving:
        assert await asyncio.to_thread(answers, place)
        with pytest.raises(HostAlreadyRuns):
            await hold(place, told(place), patience_s=0, clock=lambda: now)
    assert held.held
    held.close()


@pytest.mark.parametrize("now", [900.0, 1016.0])
async def test_who_does_not_answer_keeps_it_for_its_lease_and_no_clock_makes_that_longer(
    place: HostPlace, now: float
) -> None:
    held = await hold(place, told(place), patience_s=0, clock=lambda: 800.0)
    held.beat(1000.0)
    for early in (1001.0, 1014.0):
        with pytest.raises(HostGone):
            await hold(place, told(place), patience_s=0, clock=lambda early=early: early)
    assert held.held
    taken = await hold(place, told(place), patience_s=0, clock=lambda: now)
    assert taken.held
    assert not held.held
    held.beat(now + 5)
    held.close()  # what becomes of the old one changes nothing for the new one
    assert taken.held
    with pytest.raises(HostGone):
        await hold(place, told(place), patience_s=0, clock=lambda: now + 1)
    taken.close()
    (await hold(place, told(place), patience_s=0, clock=lambda: now)).close()


async def test_of_many_that_take_over_at_once_one_does(place: HostPlace) -> None:
    held = await hold(place, told(place), patience_s=0, clock=lambda: 1000.0)
    trying = (hold(place, told(place), patience_s=0.5, clock=lambda: 2000.0) for _ in range(20))
    tried = await asyncio.gather(*trying, return_exceptions=True)
    taken = [lock for lock in tried if not isinstance(lock, BaseException)]
    assert len(taken) == 1
    assert {type(error) for error in tried if isinstance(error, BaseException)} == {HostGone}
    for lock in (held, *taken):
        lock.close()


@pytest.fixture
def place(tmp_path: Path) -> HostPlace:
    """The place of a project that has no host."""
    (tmp_path / ".agentforge").mkdir()
    return host_place(tmp_path)


def told(place: HostPlace) -> Told:
    """Return what a host in this process says of itself."""
    return Told(str(ProcessId.of(os.getpid())), place.socket, True, True, 15.0)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


async def test_a_socket_that_takes_connections_and_says_nothing_does_not_answer(place: HostPlace) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(place.socket))
        silent.listen()
        assert listens(place)
        assert not answers(place, 0.1)


# ---- leaving


async def test_a_host_that_is_told_to_end_lets_its_runs_end_first(project: Project, start: Start) -> None:
    project.write("agentforge.toml", "[host]\ndrain_s = 600\n")
    host = await start()
    agent = project.agent()
    waiting = await project.start("run", agent, "x", "--model", "openai:barrier-2", "--json")
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(1)
    host.send(signal.SIGTERM)
    await host.said("waiting for 1 run")
    late = await project.start("run", agent, "late", "--json")  # refused, so it gets a host of its own
    await ask_once(project, "barrier-2")
    done = await waiting.done()
    assert (done.code, done.result["status"]) == (0, "succeeded")
    assert await host.ended() == 0
    assert (await late.done()).result["status"] == "succeeded"
    assert (await project.host())["pid"] != host.process.pid


@pytest.mark.parametrize("how", ["signal", "command"])
async def test_told_twice_a_host_leaves_at_once_and_records_nothing_more(
    project: Project, start: Start, how: str
) -> None:
    project.write("agentforge.toml", "[host]\ndrain_s = 600\n")
    host = await start()
    run_id = await project.detached(project.agent(), "x", "--model", "openai:slow-600")
    async with asyncio.timeout(PATIENCE_S):
        await project.model.wait_for_requests(1)
    workers = [ProcessId.of(worker["pid"]) for worker in await project.workers()]

    async def tell() -> None:
        if how == "signal":
            host.send(signal.SIGTERM)
        else:
            async with project.connection() as connection:
                await connection.post("/v1/host/stop")

    await tell()
    await host.said("waiting for 1 run")
    before = rows(project)
    await tell()
    assert await host.ended() == 0, host.log
    after = rows(project)
    del before["projects"], after["projects"]  # it gave the lease up, so that nothing else could be written
    assert after == before
    assert not any(worker is not None and worker.alive for worker in workers)
    assert any(run_id in row and "'running'" in row for row in before["runs"])


async def test_host_stop_is_done_when_the_host_is_gone(project: Project, start: Start) -> None:
    host = await start()
    assert (await project.command("host", "stop")).code == 0
    assert await host.ended() == 0
    assert not (project.root / ".agentforge" / "workers").exists() or not list(
        (project.root / ".agentforge" / "workers").iterdir()
    )


# ---- the log


async def test_a_long_log_is_begun_anew_and_the_last_one_kept(project: Project) -> None:
    log = host_place(project.root).log
    log.parent.mkdir()
    before = log.with_name("host.log.1")
    for size, kept in ((10, False), (6 * 2**20, True)):
        log.write_text("x" * size)
        assert (await project.command("runs", "list")).code == 0
        assert before.exists() == kept
        assert log.read_text().startswith("x") != kept
        await project.stop()
    assert before.stat().st_size == 6 * 2**20
