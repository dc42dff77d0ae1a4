"""Disks that are full, read-only or lose files, and databases of other releases: what was acknowledged stays."""

import asyncio
import errno
import fcntl
import os
import resource
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from agentforge.errors import AgentForgeError
from agentforge.errors.store import BlobNotFound, StoreFailed, StoreReadOnly
from agentforge.store import Durability, Lease, RunId, Store, open_store, schema
from agentforge.store.blobs import FileBlobs
from agentforge.store.sql import SqlStore
from agentforge.store.sqlite import SqliteDatabase
from agentforge_conformance.store import NOW, PROJECT, effect, events, new_run

NOBODY = 65534
LARGE = "x" * 100_000


def integrity(path: Path) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall()


def blob_files(folder: Path) -> list[Path]:
    return [path for path in (folder / "blobs").rglob("*") if path.is_file()]


async def begin(store: Store, **fields: object) -> tuple[RunId, Lease]:
    lease = await store.acquire_lease(PROJECT, "host")
    return await new_run(store, lease, **fields), lease


# A full disk


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Refuse, as a full disk does, to let any file of this process grow above `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("durability", ["process", "full"])
async def test_a_disk_that_fills_up_while_journalling_loses_nothing_that_was_acknowledged(
    tmp_path: Path, durability: Durability
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path, durability) as store:
        run_id, lease = await begin(store)

        async def append(position: int) -> int | None:
            try:
                await store.append_effect(
                    effect(run_id, position, request=b"q" * 9000), lease.epoch, events(run_id, position + 1)
                )
            except StoreFailed:
                return None
            return position

        with no_file_above(500_000):
            tries = [await append(position) for position in range(40)]
            tries += await asyncio.gather(*(append(position) for position in range(40, 120)))
        kept = [position for position in tries if position is not None]
        assert 0 < len(kept) < 120
        assert [one.position for one in await store.list_effects(run_id)] == kept
        assert [event.seq for event in await store.list_events(run_id)] == [position + 1 for position in kept]
        again = [position for position in range(120) if position not in kept]
        assert [await append(position) for position in again] == again
        assert len(await store.list_effects(run_id)) == 120
    assert integrity(path) == [("ok",)]


async def test_a_blob_that_does_not_fit_on_the_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    huge = LARGE * 8
    async with open_store(tmp_path / "state.db") as store:
        run_id, lease = await begin(store)
        with no_file_above(700_000):
            for write in (store.put_blob(huge.encode()), store.update_run(run_id, lease.epoch, output=huge)):
                with pytest.raises(StoreFailed, match="blob"):
                    await write
            await store.append_events(run_id, lease.epoch, events(run_id, 1))
        assert blob_files(tmp_path) == []
        await store.update_run(run_id, lease.epoch, output=huge)
        assert (await store.get_run(run_id)).output == huge


async def test_a_payload_that_cannot_be_forced_to_the_disk_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with open_store(tmp_path / "state.db", "full") as store:
        run_id, lease = await begin(store)
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", fails)
            large, small, other = await asyncio.gather(
                store.append_events(run_id, lease.epoch, events(run_id, 1, data={"text": LARGE})),
                store.append_events(run_id, lease.epoch, events(run_id, 2)),
                store.append_events(run_id, lease.epoch, events(run_id, 3, data={"text": LARGE + LARGE})),
                return_exceptions=True,
            )
        assert [type(large), small, type(other)] == [StoreFailed, None, StoreFailed]
        assert blob_files(tmp_path) == []
        await store.append_events(run_id, lease.epoch, events(run_id, 1, data={"text": LARGE}))
        assert [event.seq for event in await store.list_events(run_id)] == [1, 2]


async def test_a_full_database_lets_runs_be_deleted(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "state.db")
    async with SqlStore(database) as store:
        run_id, lease = await begin(store)
        await store.append_events(run_id, lease.epoch, events(run_id, 1, 500))
        writer = store._writer
        assert writer is not None
        writer._cursor.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreFailed, match="full"):
            await store.append_events(run_id, lease.epoch, events(run_id, 501, 500))
        await store.delete_run(run_id, lease.epoch)
        again = await new_run(store, lease)
        await store.append_events(again, lease.epoch, events(again, 1, 200))


# A disk that cannot be written


@contextmanager
def as_somebody_else() -> Iterator[None]:
    """Give up the right of root to write whatever it wants; nothing to give up for others."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody may look into, with a store that nobody may write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(_make(folder / "state.db"))
        (folder / "state.db").chmod(0o444)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


async def _make(path: Path) -> None:
    async with open_store(path) as store:
        await begin(store)


def test_a_store_that_may_not_be_written_says_so_and_is_left_alone(read_only: Path) -> None:
    before = (read_only / "state.db").read_bytes()
    with as_somebody_else(), pytest.raises(StoreReadOnly) as caught:
        asyncio.run(open_store(read_only / "state.db").open())
    assert str(read_only / "state.db") in caught.value.message
    with as_somebody_else(), pytest.raises(StoreReadOnly):
        asyncio.run(open_store(read_only / "new" / "state.db").open())
    assert (read_only / "state.db").read_bytes() == before
    assert sorted(path.name for path in read_only.iterdir()) == ["blobs", "state.db"]


async def test_a_database_that_becomes_read_only_fails_writes_until_it_is_not(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "state.db")
    async with SqlStore(database) as store:
        run_id, lease = await begin(store)
        writer = store._writer
        assert writer is not None
        writer._cursor.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreReadOnly):
            await store.append_events(run_id, lease.epoch, events(run_id, 1))
        assert (await store.get_run(run_id)).run_id == run_id
        writer._cursor.execute("PRAGMA query_only = OFF")
        await store.append_events(run_id, lease.epoch, events(run_id, 1))


# Lost and damaged payloads


def damage(blob: Path) -> None:
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")


@pytest.mark.parametrize("lose", [damage, Path.unlink, lambda blob: blob.write_bytes(b"")])
async def test_a_lost_payload_is_told_from_the_rest(tmp_path: Path, lose) -> None:
    """Other runs go on, and lists show the damaged one as what it is."""
    async with open_store(tmp_path / "state.db") as store:
        run_id, lease = await begin(store, input=LARGE, output="small")
        other = await new_run(store, lease, input="fine")
        [blob] = blob_files(tmp_path)
        lose(blob)
        with pytest.raises(BlobNotFound):
            await store.get_run(run_id)
        lease = await store.acquire_lease(PROJECT, "next host")
        lists = [(await store.list_runs(PROJECT))[0][::-1], await store.unfinished_runs(PROJECT)]
        for damaged, fine in (*lists, await store.claim_runs(PROJECT, lease.epoch)):
            assert (damaged.run_id, damaged.input, damaged.output) == (run_id, None, "small")
            assert blob.name in damaged.unreadable
            assert (fine.run_id, fine.input, fine.unreadable) == (other, "fine", None)
        await store.finish_run(run_id, lease.epoch, {"status": "failed"})


async def test_a_lost_payload_of_a_part_names_the_part(tmp_path: Path) -> None:
    """So that the run can go back to before it."""
    async with open_store(tmp_path / "state.db") as store:
        run_id, lease = await begin(store, thread="q3")
        await store.append_effect(effect(run_id, 0), lease.epoch, events(run_id, 1))
        await store.append_effect(
            effect(run_id, 1, response=LARGE.encode()), lease.epoch, events(run_id, 2, data={"text": LARGE})
        )
        await store.append_messages(run_id, lease.epoch, [{"text": LARGE + LARGE}])
        for blob in blob_files(tmp_path):
            damage(blob)
        for read, part, number in (
            (store.list_effects(run_id), "effect", 1),
            (store.list_events(run_id), "event", 2),
            (store.list_messages(PROJECT, "q3"), "message", 1),
        ):
            with pytest.raises(BlobNotFound, match=f"{part} `{number}` of the run `{run_id}`") as caught:
                await read
            assert caught.value.details == {"run_id": run_id, "part": part, "number": number}
        assert await store.void_effects(run_id, lease.epoch, above=0) == 1
        assert [one.position for one in await store.list_effects(run_id)] == [0]


async def test_a_payload_that_cannot_be_read_is_not_found(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        run_id, _ = await begin(store, input=LARGE)
        [blob] = blob_files(tmp_path)
        blob.unlink()
        blob.mkdir()
        with pytest.raises(BlobNotFound, match="cannot be read"):
            await store.get_run(run_id)


# Unused blobs


def grow_old(path: Path) -> None:
    at = path.stat().st_mtime - 7200
    os.utime(path, (at, at))


async def test_only_old_blobs_that_nothing_refers_to_are_collected(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        await begin(store, input=LARGE)
        old, young = await store.put_blob(b"old"), await store.put_blob(b"young")
        again = await store.put_blob(b"again")
        torn = tmp_path / "blobs" / old[:2] / f".{old[2:]}.77.0"
        torn.write_bytes(b"ol")
        for path in blob_files(tmp_path):
            if path.name != young[2:]:
                grow_old(path)
        assert await store.put_blob(b"again") == again
        assert await store.collect_blobs(3600) == 2
        assert len(blob_files(tmp_path)) == 3
        assert await store.get_blob(young) == b"young"
        assert await store.get_blob(again) == b"again"
        with pytest.raises(BlobNotFound):
            await store.get_blob(old)


async def test_collecting_while_the_same_payloads_are_put_takes_none_of_them(tmp_path: Path) -> None:
    """A payload that is put in that moment is there afterwards, though its file had been old and unused."""
    async with open_store(tmp_path / "state.db") as store, open_store(tmp_path / "state.db") as other:
        lease = await store.acquire_lease(PROJECT, "host")
        for turn in range(20):
            text = LARGE + str(turn)
            gone = await new_run(store, lease, input=text)
            await store.delete_run(gone, lease.epoch)
            for path in blob_files(tmp_path):
                grow_old(path)
            run_id, _ = await asyncio.gather(new_run(store, lease, input=text), other.collect_blobs(3600))
            assert (await store.get_run(run_id)).input == text


@pytest.mark.parametrize("puts", [True, False])
def test_nothing_is_put_while_a_collection_decides_and_the_other_way_round(tmp_path: Path, puts: bool) -> None:
    blobs = FileBlobs(tmp_path, durable=False)
    path = tmp_path / blobs.put(b"old")[:2]
    [file] = path.iterdir()
    call = partial(blobs.put, b"old") if puts else partial(blobs.discard, {file: file.stat().st_mtime})
    with ThreadPoolExecutor(1) as threads:
        with blobs._locked(fcntl.LOCK_EX if puts else fcntl.LOCK_SH):
            future = threads.submit(call)
            with pytest.raises(TimeoutError):
                future.result(0.2)
        future.result(30)


# Other releases


async def test_a_journal_of_the_first_schema_is_migrated_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        schema.upgrade(connection, str(path), head="0001")
    engine.dispose()
    with closing(sqlite3.connect(path)) as old:
        old.execute("INSERT INTO projects VALUES (?, ?, 4, 'old host')", (PROJECT, NOW))
        old.execute("INSERT INTO agent_versions VALUES ('v', 'expenses', '{}', '{}', ?)", (NOW,))
        old.execute(
            "INSERT INTO runs (run_id, project, principal, labels, agent_name, agent_version, framework, release,"
            " environment, model, options, status, lease_epoch, created_at, usage, metrics, sandbox) VALUES"
            " ('r', ?, 'local', '{}', 'expenses', 'v', 'python', '', '', '', '{}', 'running', 4, ?, '{}', '{}', '')",
            (PROJECT, NOW),
        )
        old.execute(
            "INSERT INTO effects VALUES ('r', 0, 1, 'model', 'h', 0, X'71', NULL, X'61', NULL, 200, NULL, NULL, 1, 2)"
        )
        old.commit()
    async with open_store(path) as store:
        assert await store.get_lease(PROJECT) == Lease(PROJECT, 4, "old host", 0.0)
        lease = await store.acquire_lease(PROJECT, "new host")
        [run] = await store.claim_runs(PROJECT, lease.epoch)
        [kept] = await store.list_effects(run.run_id)
        assert (kept.position, kept.voided) == (0, False)
        assert await store.void_effects(run.run_id, lease.epoch, -1) == 1


async def test_a_database_with_a_damaged_log_opens_with_the_commits_before_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        run_id, lease = await begin(store)
        for seq in range(1, 21):
            await store.append_events(run_id, lease.epoch, events(run_id, seq))
        copy = tmp_path / "copy"
        copy.mkdir()
        (copy / "state.db").write_bytes(path.read_bytes())
        log = (tmp_path / "state.db-wal").read_bytes()
        (copy / "state.db-wal").write_bytes(log[:-40_000] + b"\xa5" * 40_000)
    async with open_store(copy / "state.db") as store:
        kept = [event.seq for event in await store.list_events(run_id)]
        assert 0 < len(kept) < 20
        assert kept == list(range(1, len(kept) + 1))
    assert integrity(copy / "state.db") == [("ok",)]


async def test_every_failure_is_one_of_ours(tmp_path: Path) -> None:
    """Also when the table is gone: no exception of the driver reaches the engine."""
    async with open_store(tmp_path / "state.db") as store:
        run_id, lease = await begin(store)
        with closing(sqlite3.connect(tmp_path / "state.db")) as other:
            other.execute("DROP TABLE effects")
        for call in (store.list_effects(run_id), store.append_effect(effect(run_id, 0), lease.epoch)):
            with pytest.raises(AgentForgeError):
                await call
