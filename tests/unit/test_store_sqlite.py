"""Opening an SQLite store: new, old, newer, foreign, locked, broken; and what it leaves on the disk."""

import asyncio
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from agentforge.errors import AgentForgeError
from agentforge.errors.store import (
    BlobNotFound,
    NotAStore,
    StoreClosed,
    StoreFailed,
    StoreLocked,
    StoreReadOnly,
    StoreTooNew,
    UnknownStoreScheme,
)
from agentforge.store import Durability, Store, open_store, schema, sqlite
from agentforge.store.sql import SqlStore
from agentforge.store.sqlite import SqliteDatabase
from agentforge.store.tables import metadata
from agentforge_conformance.store import NOW, PROJECT, VERSION, events, new_run, run_of


async def failure_of(store: Store) -> AgentForgeError:
    with pytest.raises(AgentForgeError) as caught:
        await store.open()
    return caught.value


def pragma(path: Path, durability: Durability, name: str) -> object:
    connection = SqliteDatabase(path, durability).writer_connection()
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA {name}")
    [value] = cursor.fetchone() or [None]
    cursor.close()
    connection.close()
    return value


# Addresses


async def test_a_store_opens_from_a_path_and_from_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in (tmp_path / "a/state.db", str(tmp_path / "b.db"), f"sqlite:///{tmp_path}/c.db", "sqlite:///d.db"):
        async with open_store(address) as store:
            await store.acquire_lease(PROJECT, "host")
    assert all((tmp_path / name).is_file() for name in ("a/state.db", "b.db", "c.db", "d.db"))


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(UnknownStoreScheme, match="oracle://"):
        open_store("oracle://somewhere")


# The schema


def test_the_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "state.db")
    database.open()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    database.close()
    assert differences == []


def test_head_is_the_newest_revision_and_every_revision_is_packaged() -> None:
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


@pytest.fixture
def next_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The migrations of a release that adds a column."""
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9999_next.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        f"revision, down_revision, branch_labels, depends_on = '9999', '{schema.HEAD}', None, None\n"
        "def upgrade():\n"
        "    op.add_column('runs', sa.Column('region', sa.Text(), nullable=False, server_default='here'))\n"
    )
    return folder


def use(monkeypatch: pytest.MonkeyPatch, head: str, migrations: Path) -> None:
    def upgrade(connection, name):
        schema.upgrade(connection, name, head=head, migrations=migrations)

    monkeypatch.setattr(sqlite, "upgrade", upgrade)


async def test_an_older_database_is_migrated_and_a_newer_one_refused(
    tmp_path: Path, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        run_id = await new_run(store, await store.acquire_lease(PROJECT, "host"))
    with monkeypatch.context() as newer:
        use(newer, "9999", next_release)
        async with open_store(path) as store:
            assert (await store.list_runs(PROJECT))[0] != []
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT run_id, region FROM runs").fetchall() == [(run_id, "here")]
    connection.close()
    before = path.read_bytes()
    error = await failure_of(open_store(path))
    assert isinstance(error, StoreTooNew)
    assert "`9999`" in error.message
    assert "upgrade" in error.hint
    assert path.read_bytes() == before


async def test_a_migration_that_fails_leaves_the_old_database(
    tmp_path: Path, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        await store.acquire_lease(PROJECT, "host")
    revision = next_release / "versions" / "9999_next.py"
    revision.write_text(revision.read_text() + "    raise OSError('power')\n")
    with monkeypatch.context() as newer:
        use(newer, "9999", next_release)
        with pytest.raises(AgentForgeError):
            await open_store(path).open()
    async with open_store(path) as store:
        assert await store.get_lease(PROJECT) is not None
    with sqlite3.connect(path) as connection:
        assert "region" not in {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
    connection.close()


async def test_stores_that_open_at_once_make_the_schema_once(tmp_path: Path) -> None:
    stores = [open_store(tmp_path / "state.db") for _ in range(5)]
    await asyncio.gather(*(store.open() for store in stores))
    leases = [await store.acquire_lease(PROJECT, "host") for store in stores]
    assert [lease.epoch for lease in leases] == [1, 2, 3, 4, 5]
    await asyncio.gather(*(store.close() for store in stores))


# What is refused


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("my notes\n" * 200)
    error = await failure_of(open_store(path))
    assert isinstance(error, NotAStore)
    assert str(path) in error.message
    assert path.read_text() == "my notes\n" * 200


async def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    error = await failure_of(open_store(path))
    assert isinstance(error, NotAStore)
    assert "`bookmarks`" in error.message
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    connection.close()


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    async with open_store(tmp_path / "state.db") as store:
        assert await store.list_projects() == []


async def test_a_folder_in_the_place_of_the_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    assert isinstance(await failure_of(open_store(tmp_path / "state.db")), StoreReadOnly)


async def test_a_locked_database_is_refused_and_opens_later(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with open_store(path):
        pass
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    store = SqlStore(SqliteDatabase(path, busy_timeout_s=0.01))
    assert isinstance(await failure_of(store), StoreLocked)
    blocker.execute("ROLLBACK")
    await store.open()
    await store.close()
    blocker.close()


async def test_writes_fail_together_while_the_database_is_locked_and_go_on_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with SqlStore(SqliteDatabase(path, busy_timeout_s=0.01)) as store:
        lease = await store.acquire_lease(PROJECT, "host")
        run_id = await new_run(store, lease)
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        outcomes = await asyncio.gather(
            *(store.append_events(run_id, lease.epoch, events(run_id, seq)) for seq in (1, 2)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [StoreLocked, StoreLocked]
        blocker.execute("ROLLBACK")
        blocker.close()
        await store.append_events(run_id, lease.epoch, events(run_id, 1))
        assert len(await store.list_events(run_id)) == 1


async def test_a_damaged_database_is_reported_as_failed(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with open_store(path) as store:
        lease = await store.acquire_lease(PROJECT, "host")
        run_id = await new_run(store, lease)
        await store.append_events(run_id, lease.epoch, events(run_id, 1, 500))
    page = 4096
    data = bytearray(path.read_bytes())
    data[page * 2 :] = b"\xa5" * (len(data) - page * 2)
    path.write_bytes(data)
    with pytest.raises((StoreFailed, NotAStore)):
        async with open_store(path) as store:
            await store.list_events(run_id)


async def test_a_full_disk_fails_the_write_and_keeps_what_was_there(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "state.db")
    async with SqlStore(database) as store:
        lease = await store.acquire_lease(PROJECT, "host")
        run_id = await new_run(store, lease)
        writer = store._writer
        assert writer is not None
        writer._cursor.execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreFailed, match="full"):
            await store.append_events(run_id, lease.epoch, events(run_id, 1, 500))
        writer._cursor.execute("PRAGMA max_page_count = 100000")
        assert await store.list_events(run_id) == []
        await store.append_events(run_id, lease.epoch, events(run_id, 1, 500))


async def test_a_store_that_was_never_opened_is_closed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state.db")
    with pytest.raises(StoreClosed):
        await store.list_projects()
    await store.close()


async def test_a_store_opens_again_after_it_was_closed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "state.db")
    for epoch in (1, 2):
        async with store:
            assert (await store.acquire_lease(PROJECT, "host")).epoch == epoch


# On the disk


def test_durability_chooses_how_a_commit_reaches_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    assert pragma(path, "process", "synchronous") == 1
    assert pragma(path, "full", "synchronous") == 2
    assert pragma(path, "full", "journal_mode") == "wal"
    assert pragma(path, "full", "foreign_keys") == 1


async def test_what_agents_said_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with open_store(folder / "state.db") as store:
        lease = await store.acquire_lease(PROJECT, "host")
        await new_run(store, lease, input="x" * 100_000)
        modes = {stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
        assert modes == {0o700, 0o600}


async def test_small_payloads_are_in_the_database_and_large_ones_beside_it(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        lease = await store.acquire_lease(PROJECT, "host")
        limit = 64 * 1024
        await new_run(store, lease, input="x" * (limit - 2))
        assert list((tmp_path / "blobs").iterdir()) == []
        await new_run(store, lease, input="x" * (limit - 1))
        [blob] = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert len(blob.parent.name + blob.name) == 64
        assert blob.read_bytes() == b'"' + b"x" * (limit - 1) + b'"'


async def test_a_missing_or_damaged_blob_is_told_from_the_rest(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        lease = await store.acquire_lease(PROJECT, "host")
        run_id = await new_run(store, lease, input="x" * 100_000)
        [blob] = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        blob.write_bytes(b"something else")
        with pytest.raises(BlobNotFound, match="damaged"):
            await store.get_run(run_id)
        blob.unlink()
        with pytest.raises(BlobNotFound, match="missing"):
            await store.get_run(run_id)


async def test_a_blob_that_cannot_be_written_fails_its_own_write_only(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        lease = await store.acquire_lease(PROJECT, "host")
        run_id = await new_run(store, lease)
        (tmp_path / "blobs").rmdir()
        (tmp_path / "blobs").write_text("in the way")
        large, small = await asyncio.gather(
            store.append_events(run_id, lease.epoch, events(run_id, 1, data={"text": "x" * 100_000})),
            store.append_events(run_id, lease.epoch, events(run_id, 2)),
            return_exceptions=True,
        )
        assert isinstance(large, StoreFailed)
        assert small is None
        assert [event.seq for event in await store.list_events(run_id)] == [2]


async def test_a_value_that_fits_no_column_fails_its_own_write_only(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        lease = await store.acquire_lease(PROJECT, "host")
        run_id = await new_run(store, lease)
        outcomes = await asyncio.gather(
            store.append_events(run_id, lease.epoch, events(run_id, 2**70)),
            store.append_events(run_id, lease.epoch, events(run_id, 1)),
            store.update_run(run_id, lease.epoch, model="half a \ud83d pair"),
            return_exceptions=True,
        )
        codes = [outcome.code if isinstance(outcome, AgentForgeError) else outcome for outcome in outcomes]
        assert codes == ["AF809", None, "AF809"]
        assert [event.seq for event in await store.list_events(run_id)] == [1]


async def test_the_store_takes_its_times_from_its_clock(tmp_path: Path) -> None:
    async with SqlStore(SqliteDatabase(tmp_path / "state.db"), clock=lambda: NOW) as store:
        lease = await store.acquire_lease(PROJECT, "host")
        run_id = await new_run(store, lease, thread="q3")
        [message] = await store.append_messages(run_id, lease.epoch, [{"role": "user"}])
        assert message.at == NOW
        assert [project.created_at for project in await store.list_projects()] == [NOW]


async def test_a_batch_commits_once_for_many_callers(tmp_path: Path) -> None:
    async with open_store(tmp_path / "state.db") as store:
        lease = await store.acquire_lease(PROJECT, "host")
        await store.put_agent_version(VERSION)
        writer = store._writer
        commits = []
        writer._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
        await asyncio.gather(*(store.create_run(run_of(lease.epoch)) for _ in range(400)))
        writer._connection.set_trace_callback(None)
        assert 1 <= len(commits) <= 40


def test_tables_hold_no_type_that_a_driver_gives_back_differently(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "state.db")
    database.open()
    with database.engine.connect() as connection:
        found = inspect(connection)
        types = {str(column["type"]) for table in metadata.tables for column in found.get_columns(table)}
    database.close()
    assert types == {"TEXT", "VARCHAR(64)", "BIGINT", "INTEGER", "DOUBLE", "BLOB"}
