"""SQLite as a store's database: one file in write-ahead mode, blobs in `blobs/` beside it.

Everything that only SQLite understands is in this module.
"""

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection, Engine, QueuePool, create_engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError

from agentforge.errors import AgentForgeError
from agentforge.errors.store import (
    NotAStore,
    RecordExists,
    StoreFailed,
    StoreLocked,
    StoreReadOnly,
)
from agentforge.store.blobs import FileBlobs, make_folder
from agentforge.store.database import Database
from agentforge.store.records import UNFINISHED
from agentforge.store.schema import upgrade
from agentforge.store.sql import SqlStore

if TYPE_CHECKING:
    from agentforge.store.opening import Durability

__all__ = ["SqliteDatabase", "sqlite_store", "unfinished_specs_in"]

# In write-ahead mode NORMAL loses no commit when the process dies, FULL none when the power goes either.
_SYNCHRONOUS = {"process": "NORMAL", "full": "FULL"}
_ERRORS: dict[int, tuple[type[AgentForgeError], str]] = {
    sqlite3.SQLITE_BUSY: (StoreLocked, "is locked by another program"),
    sqlite3.SQLITE_LOCKED: (StoreLocked, "is locked by another program"),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "cannot be written"),
    sqlite3.SQLITE_PERM: (StoreReadOnly, "cannot be written"),
    sqlite3.SQLITE_CANTOPEN: (StoreReadOnly, "cannot be opened"),
    sqlite3.SQLITE_NOTADB: (NotAStore, "is not a database"),
}


class SqliteDatabase(Database):
    """A database file. Several processes may have it open; one writes at a time, the others wait `busy_timeout_s`."""

    begin = "BEGIN IMMEDIATE"

    def __init__(
        self, path: Path, durability: "Durability" = "process", *, readers: int = 4, busy_timeout_s: float = 10.0
    ) -> None:
        self.path = path
        self.readers = readers
        self._durable = durability == "full"
        self.blobs = FileBlobs(path.parent / "blobs", durable=self._durable)
        self._synchronous = _SYNCHRONOUS[durability]
        self._busy_timeout_s = busy_timeout_s
        self.engine: Engine = create_engine(
            "sqlite://", creator=self._connect, poolclass=QueuePool, pool_size=readers, max_overflow=0
        )

    def open(self) -> None:
        """Make the file if there is none, check that we may write, and migrate."""
        try:
            self._create()
            self.blobs.prepare()
            with self.engine.connect() as connection:
                self._migrate(connection)
        except OSError as error:
            raise StoreReadOnly(f"`{self.path}` cannot be made: {error.strerror}.") from error
        except DBAPIError as error:
            translated = self.translate(error.orig) if isinstance(error.orig, Exception) else None
            raise (translated or error) from error
        except sqlite3.Error as error:
            raise (self.translate(error) or error) from error

    def writer_connection(self) -> DBAPIConnection:
        """Return a connection of its own for the writer."""
        # SQLAlchemy's protocol asks for a `__getattr__` that no driver's class declares.
        return cast("DBAPIConnection", self._connect())

    def close(self) -> None:
        """Close the readers' connections; the last one to close folds the log into the file."""
        self.engine.dispose()

    def translate(self, error: Exception) -> AgentForgeError | None:
        """Return our error for one of SQLite's."""
        if not isinstance(error, sqlite3.Error):
            return None
        if isinstance(error, sqlite3.IntegrityError):
            return RecordExists(f"A record is there already, or what it refers to is not: `{error}`.")
        if isinstance(error, sqlite3.DatabaseError):
            kind, what = _ERRORS.get(_code(error), (StoreFailed, "failed"))
            return kind(f"The database `{self.path}` {what}: `{error}`.")
        return None

    def is_fatal(self, error: Exception) -> bool:
        """Whether SQLite gave up the transaction."""
        return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError

    def _create(self) -> None:
        # What agents say is private, so the files are from the first moment on; SQLite's own inherit the mode.
        make_folder(self.path.parent, durable=self._durable)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))

    def _connect(self) -> sqlite3.Connection:
        connection = self._driver()
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _driver(self) -> sqlite3.Connection:
        # No isolation level: the driver would otherwise begin transactions of its own, and not all of them.
        return sqlite3.connect(self.path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False)

    def _migrate(self, connection: Connection) -> None:
        connection.exec_driver_sql(self.begin)
        try:
            upgrade(connection, str(self.path))
        except BaseException:
            connection.rollback()
            raise
        connection.commit()


def unfinished_specs_in(path: Path) -> list[tuple[str, bytes]]:
    """Return id and spec (as JSON) of the unfinished runs in a database file, whoever has it open.

    Nothing is written, migrated or locked; a file that is not there has none. Columns are those of the first schema,
    which every later one has. Raises StoreFailed, StoreLocked, StoreReadOnly, NotAStore.
    """
    if not path.exists():
        return []
    marks = ", ".join("?" * len(UNFINISHED))
    query = f"SELECT r.run_id, v.spec FROM runs r JOIN agent_versions v ON v.id = r.agent_version WHERE r.status IN ({marks})"  # noqa: E501, S608
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not {"runs", "agent_versions"} <= tables:
                return []  # made a moment ago, or by another program
            found = connection.execute(query, sorted(UNFINISHED)).fetchall()
    except sqlite3.Error as error:
        kind, what = _ERRORS.get(_code(error), (StoreFailed, "failed"))
        raise kind(f"The database `{path}` {what}: `{error}`.") from error
    return [(str(run_id), spec.encode() if isinstance(spec, str) else spec) for run_id, spec in found]


def _code(error: sqlite3.Error) -> int:
    # The low byte is the primary code; the rest says more, such as which kind of read-only.
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def sqlite_store(path: Path, durability: "Durability" = "process") -> SqlStore:
    """Return the store in the file at `path`."""
    return SqlStore(SqliteDatabase(path, durability))
