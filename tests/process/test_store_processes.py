"""The store across processes: killed writers, rival hosts, a database that may not be written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from agentforge.store import Durability, RunId, open_store
from agentforge_conformance.store import PROJECT, new_run

WRITER = """
import asyncio, json, sys
from agentforge.store import Event, RunId, open_store

async def main(path, durability, epoch, runs):
    async with open_store(path, durability) as store:
        async def write(run_id):
            for seq in range(1, 1_000_000):
                data = {"text": "x" * 70_000} if seq % 10 == 0 else {"n": seq}
                await store.append_events(run_id, epoch, [Event(run_id, seq, 1, "log.written", 0.0, data)])
                print(json.dumps([run_id, seq]), flush=True)
        await asyncio.gather(*(write(RunId(run_id)) for run_id in runs))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
"""
HOST = """
import asyncio, sys
from agentforge.store import ProjectId, open_store

async def main(path):
    async with open_store(path) as store:
        for _ in range(20):
            print((await store.acquire_lease(ProjectId("expenses"), "host")).epoch)

asyncio.run(main(sys.argv[1]))
"""
# Runs as nobody: root may write everything. What it needs is imported before it loses its rights.
UNPRIVILEGED = """
import asyncio, os, sys
import agentforge.store.sqlite, alembic.command, sqlalchemy.dialects.sqlite
from agentforge.errors import AgentForgeError
from agentforge.store import open_store

if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)

async def main(path):
    try:
        async with open_store(path):
            print("opened")
    except AgentForgeError as error:
        print(error.code)

asyncio.run(main(sys.argv[1]))
"""


def python(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("durability", ["process", "full"])
async def test_every_acknowledged_event_survives_the_kill_of_its_writer(tmp_path: Path, durability: Durability) -> None:
    path = tmp_path / "state.db"
    async with open_store(path, durability) as store:
        lease = await store.acquire_lease(PROJECT, "host")
        runs = [await new_run(store, lease) for _ in range(4)]
    child = python(WRITER, str(path), durability, str(lease.epoch), *runs)
    assert child.stdout is not None
    acknowledged: dict[RunId, int] = {}
    for line in islice(child.stdout, 200):
        run_id, seq = json.loads(line)
        acknowledged[run_id] = seq
    child.send_signal(signal.SIGKILL)
    for line in child.stdout:
        if line.endswith("\n"):
            run_id, seq = json.loads(line)
            acknowledged[run_id] = seq
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    assert set(acknowledged) == set(runs)
    async with open_store(path, durability) as store:
        for run_id, last in acknowledged.items():
            found = await store.list_events(run_id, limit=1_000_000)
            assert [event.seq for event in found] == list(range(1, len(found) + 1))
            # Of one append at most nobody had heard yet.
            assert last <= len(found) <= last + 1
        new = await store.acquire_lease(PROJECT, "next host")
        assert (await store.claim_run(runs[0], new.epoch)).lease_epoch == new.epoch


def test_hosts_in_several_processes_never_share_an_epoch(tmp_path: Path) -> None:
    hosts = [python(HOST, str(tmp_path / "state.db")) for _ in range(3)]
    epochs = [int(line) for host in hosts for line in host.communicate()[0].split()]
    assert [host.returncode for host in hosts] == [0, 0, 0]
    assert sorted(epochs) == list(range(1, 61))


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("what", ["file", "folder", "new"])
async def test_a_database_that_cannot_be_written_is_refused(open_folder: Path, what: str) -> None:
    state = open_folder / "state"
    path = state / "state.db"
    async with open_store(path):
        pass
    shutil.chown(state, "nobody") if os.geteuid() == 0 else None
    state.chmod(0o555 if what == "folder" else 0o755)
    path.chmod(0o444 if what == "file" else 0o666)
    if what == "new":
        path, _ = state / "deeper" / "state.db", state.chmod(0o555)
    output = python(UNPRIVILEGED, str(path)).communicate()[0]
    state.chmod(0o755)
    assert output == "AF804\n"
