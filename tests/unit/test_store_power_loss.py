"""What is left when the power goes: at any moment, whatever the disk had kept of what was not synced.

The store's own statements run on a recorded disk (see `power_world`). Every moment of the recording is then a crash:
the folder is made as the disk may hold it, and read again with the SQLite that Python brings.
"""

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from agentforge.errors.store import BlobNotFound
from agentforge.store import BlobId, Durability, RunId, Store, open_store
from agentforge.store.blobs import FileBlobs
from agentforge.store.sql import SqlStore
from agentforge_conformance.store import PROJECT, VERSION, effect, events, run_of

from .power_world import Disk, RecordedDatabase, everything, nothing, some_of

LARGE = 70_000
GROUPS = (1, 1, 4, 1, 7, 1, 1, 12, 1, 1, 1, 3)
"""How many effects are appended at once, time after time."""


def request_of(position: int) -> bytes:
    return str(position).encode() * (LARGE if position % 5 == 3 else 900)


async def work(store: Store, disk: Disk) -> None:
    """Journal a run, and mark each effect once it is acknowledged."""
    lease = await store.acquire_lease(PROJECT, "host")
    await store.put_agent_version(VERSION)
    run_id = (await store.create_run(run_of(lease.epoch, run_id=RunId("run")))).run_id

    async def append(position: int) -> None:
        made = effect(run_id, position, request=request_of(position))
        await store.append_effect(made, lease.epoch, events(run_id, position + 1))
        disk.mark(position)

    first = 0
    for count in GROUPS:
        await asyncio.gather(*(append(position) for position in range(first, first + count)))
        first += count
    await store.finish_run(run_id, lease.epoch, {"status": "succeeded"})
    disk.mark("finished")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path.resolve() / "recorded" / ".agentforge")


async def record(disk: Disk, durability: Durability, *, durable_blobs: bool | None = None, **more: object) -> None:
    disk.root.parent.mkdir()
    with disk.record():
        database = RecordedDatabase(disk, disk.root / "state.db", durability, **more)
        if durable_blobs is not None:
            database.blobs = FileBlobs(database.blobs.root, durable=durable_blobs)
        async with SqlStore(database) as store:
            await work(store, disk)


class Crashes:
    """Makes crashes of a recording and counts what is wrong afterwards."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk, self._folder = disk, folder
        self.found: Counter[str] = Counter()
        folder.mkdir()

    def at(self, end: int, keep) -> Path:
        folder = self._folder / str(self.found["crashes"])
        folder.mkdir()
        self.found["crashes"] += 1
        self._disk.after_crash(end, folder, keep)
        self._look(folder / ".agentforge", self._disk.marks(end))
        return folder / ".agentforge" / "state.db"

    def _look(self, root: Path, acknowledged: list[object]) -> None:
        try:
            there = self._read(root)
        except sqlite3.DatabaseError:
            self.found["damaged"] += 1
            return
        self.found["lost"] += any(mark not in there for mark in acknowledged)

    def _read(self, root: Path) -> list[object]:
        if not (root / "state.db").exists():
            return []
        with closing(sqlite3.connect(root / "state.db")) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            self.found["damaged"] += connection.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
            self.found["damaged"] += connection.execute("PRAGMA foreign_key_check").fetchall() != []
            if not connection.execute("SELECT * FROM sqlite_master").fetchall():
                return []
            effects = connection.execute("SELECT position, request, request_blob FROM effects ORDER BY rowid")
            return self._effects(root, effects.fetchall()) + self._run(connection)

    def _effects(self, root: Path, rows: list[tuple[int, bytes, str | None]]) -> list[object]:
        positions = [position for position, _, _ in rows]
        # Commits are lost from the end only: none is there whose predecessor is not.
        if positions != list(range(len(rows))):
            self.found["out of order"] += 1
            return []
        blobs = FileBlobs(root / "blobs", durable=False)
        for position, request, blob in rows:
            try:
                kept = blobs.get(BlobId(blob)) if blob else request
            except BlobNotFound:
                self.found["without payload"] += 1
            else:
                self.found["wrong payload"] += kept != request_of(position)
        return positions

    def _run(self, connection: sqlite3.Connection) -> list[object]:
        rows = connection.execute("SELECT 1 FROM runs WHERE status = 'succeeded'").fetchall()
        return ["finished"] * len(rows)


def crash_everywhere(disk: Disk, folder: Path) -> Counter[str]:
    """Crash with the most loss at every moment where it matters, and by chance after every step."""
    crashes, random = Crashes(disk, folder), Random(7)
    for moment in disk.moments():
        crashes.at(moment, nothing)
    for end in range(0, len(disk.steps), 2):
        crashes.at(end, some_of(random))
    return crashes.found


def wrong(found: Counter[str]) -> set[str]:
    return {what for what, count in found.items() if count and what != "crashes"}


async def test_full_durability_survives_a_power_loss_at_any_moment(disk: Disk, tmp_path: Path) -> None:
    await record(disk, "full")
    found = crash_everywhere(disk, tmp_path / "crashes")
    assert found["crashes"] > 100
    assert wrong(found) == set()


async def test_process_durability_may_lose_the_last_commits_to_a_power_loss_and_nothing_else(
    disk: Disk, tmp_path: Path
) -> None:
    await record(disk, "process")
    found = crash_everywhere(disk, tmp_path / "crashes")
    assert wrong(found) == {"lost", "without payload"}


@pytest.mark.parametrize("durability", ["process", "full"])
async def test_both_levels_survive_the_end_of_the_process_at_any_moment(
    disk: Disk, tmp_path: Path, durability: Durability
) -> None:
    await record(disk, durability)
    crashes = Crashes(disk, tmp_path / "crashes")
    for end in range(0, len(disk.steps), 3):
        crashes.at(end, everything)
    assert wrong(crashes.found) == set()


async def test_a_store_opens_and_goes_on_after_a_power_loss(disk: Disk, tmp_path: Path) -> None:
    """Also when the power went while the store was being made."""
    await record(disk, "process")
    crashes, random = Crashes(disk, tmp_path / "crashes"), Random(11)
    for end in (*disk.moments()[::6], *range(0, len(disk.steps), 150)):
        async with open_store(crashes.at(end, some_of(random)), "full") as store:
            lease = await store.acquire_lease(PROJECT, "next host")
            for run in await store.claim_runs(PROJECT, lease.epoch):
                kept = len(await store.list_events(run.run_id))
                await store.append_events(run.run_id, lease.epoch, events(run.run_id, kept + 1))


# The simulation finds what is missing


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        ({"synchronous": "NORMAL"}, {"lost"}),
        ({"durable_blobs": False}, {"without payload"}),
        ({"synchronous": "OFF"}, {"lost", "damaged"}),
    ],
)
async def test_a_sync_that_is_left_out_shows(
    disk: Disk, tmp_path: Path, planted: dict[str, object], expected: set[str]
) -> None:
    await record(disk, "full", **planted)
    assert wrong(crash_everywhere(disk, tmp_path / "crashes")) >= expected
