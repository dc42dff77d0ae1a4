"""The one thread that writes: it commits what many callers ask for in few transactions.

It takes everything that waits, runs it in one transaction and resolves all futures with one call into the event loop,
so that the cost of a commit is shared by all who came while the one before was under way. An operation that fails on
its checks has written nothing and fails alone. If one fails later (a taken number), the transaction is rolled back and
every operation runs again behind a savepoint of its own, in the same order.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeAlias, TypeVar

from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from agentforge.errors import AgentForgeError
from agentforge.errors.store import StoreClosed, StoreFailed, ValueNotStorable
from agentforge.store.database import Database
from agentforge.store.rows import Spill
from agentforge.store.statements import Statements
from agentforge.store.transaction import Transaction

__all__ = ["Operation", "Writer"]

T = TypeVar("T")
Operation: TypeAlias = Callable[[Transaction], T]
BATCH_LIMIT = 512
"""Operations of one transaction; bounds how long the first of them waits for the last."""

SPILLERS = 8
"""Blobs of one transaction that are written at once."""


@dataclass(slots=True, frozen=True)
class _Entry(Generic[T]):
    operation: Operation[T]
    spills: Sequence[Spill]
    future: asyncio.Future[T]


@dataclass(slots=True, frozen=True)
class _Outcome:
    entry: _Entry[Any]
    value: object = None
    error: Exception | None = None


class _LeftTracesError(Exception):
    """An operation failed after it had written: the others have to be run without it."""


class Writer:
    """Runs operations in the order of `submit`. Lives on one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._statements = Statements(database.engine.dialect)
        self._entries: SimpleQueue[_Entry[Any] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._connection: DBAPIConnection = database.writer_connection()
        self._cursor: DBAPICursor = self._connection.cursor()
        self._spillers = ThreadPoolExecutor(SPILLERS, "agentforge-store-blobs")
        self._thread = Thread(target=self._work, name="agentforge-store-writer", daemon=True)
        self._open = True
        self._thread.start()

    def submit(self, operation: Operation[T], spills: Sequence[Spill] = ()) -> asyncio.Future[T]:
        """Queue an operation; its future is resolved after the commit. `spills` become blobs first."""
        if not self._open:
            raise StoreClosed("The store is closed.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._entries.put(_Entry(operation, spills, future))
        return future

    async def close(self) -> None:
        """Commit what is queued, then end the thread."""
        self._open = False
        self._entries.put(None)
        await asyncio.to_thread(self._thread.join)
        self._spillers.shutdown()

    # In the thread

    def _work(self) -> None:
        going = True
        while going:
            entries, going = self._take()
            if entries:
                outcomes = self._commit(entries)
                # The loop may have been closed under us; then nobody waits for these.
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(_resolve, outcomes)
        self._cursor.close()
        self._connection.close()

    def _take(self) -> tuple[list[_Entry[Any]], bool]:
        entries: list[_Entry[Any]] = []
        entry = self._entries.get()
        while entry is not None:
            entries.append(entry)
            if len(entries) == BATCH_LIMIT:
                return entries, True
            try:
                entry = self._entries.get_nowait()
            except Empty:
                return entries, True
        return entries, False

    def _commit(self, entries: Sequence[_Entry[Any]]) -> list[_Outcome]:
        outcomes: list[_Outcome] = []
        ready = list(entries)
        try:
            outcomes = self._spill(entries)
            failed = {id(outcome.entry) for outcome in outcomes}
            ready = [entry for entry in entries if id(entry) not in failed]
            return outcomes + (self._try(ready) if ready else [])
        except Exception as error:
            return outcomes + [_Outcome(entry, error=self._translate(error)) for entry in ready]

    def _try(self, entries: Sequence[_Entry[Any]]) -> list[_Outcome]:
        try:
            return self._in_transaction(entries, self._together)
        except Exception as error:
            if self._database.is_fatal(error):
                raise
        return self._in_transaction(entries, self._apart)

    def _spill(self, entries: Sequence[_Entry[Any]]) -> list[_Outcome]:
        # Files are written before the transaction begins: nobody waits for the database's lock meanwhile.
        # Many go side by side, because each may wait for the disk, and then all wait at once.
        spilling = [entry for entry in entries if entry.spills]
        apply = map if len(spilling) < 2 else self._spillers.map
        outcomes: Iterable[_Outcome | None] = apply(self._put, spilling)
        return [outcome for outcome in outcomes if outcome is not None]

    def _put(self, entry: _Entry[Any]) -> _Outcome | None:
        try:
            for spill in entry.spills:
                spill.row[f"{spill.column}_blob"] = self._database.blobs.put(spill.data)
        except OSError as error:
            return _Outcome(entry, error=StoreFailed(f"A blob cannot be written: {error}."))
        return None

    def _in_transaction(
        self, entries: Sequence[_Entry[Any]], body: Callable[[Sequence[_Entry[Any]]], list[_Outcome]]
    ) -> list[_Outcome]:
        try:
            self._cursor.execute(self._database.begin)
            outcomes = body(entries)
            self._connection.commit()
        except BaseException:
            # The database may have rolled back already, or be gone; the first error is the one to tell.
            with contextlib.suppress(Exception):
                self._connection.rollback()
            raise
        return outcomes

    def _together(self, entries: Sequence[_Entry[Any]]) -> list[_Outcome]:
        transaction = Transaction(self._cursor, self._statements)
        outcomes = []
        for entry in entries:
            writes = transaction.writes
            try:
                outcomes.append(_Outcome(entry, entry.operation(transaction)))
            except (AgentForgeError, ValueError) as error:
                if transaction.writes != writes:
                    raise _LeftTracesError from error
                outcomes.append(_Outcome(entry, error=error))
        transaction.flush()
        return outcomes

    def _apart(self, entries: Sequence[_Entry[Any]]) -> list[_Outcome]:
        transaction = Transaction(self._cursor, self._statements)
        outcomes = []
        for entry in entries:
            self._cursor.execute("SAVEPOINT operation")
            try:
                value = entry.operation(transaction)
                transaction.flush()
                outcomes.append(_Outcome(entry, value))
            except Exception as error:
                if self._database.is_fatal(error):
                    raise
                self._cursor.execute("ROLLBACK TO SAVEPOINT operation")
                transaction.discard()
                outcomes.append(_Outcome(entry, error=self._translate(error)))
            self._cursor.execute("RELEASE SAVEPOINT operation")
        return outcomes

    def _translate(self, error: Exception) -> Exception:
        if translated := self._database.translate(error):
            translated.__cause__ = error
            return translated
        if isinstance(error, OverflowError | UnicodeEncodeError):
            return ValueNotStorable(f"A value does not fit into its column: {error}.")
        return error


def _resolve(outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        future = outcome.entry.future
        if future.done():
            continue
        if outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.value)
