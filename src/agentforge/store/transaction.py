"""What one operation of the writer sees: the open transaction, its statements, and the fence.

Rows to append are gathered and inserted together at the end, so an operation reads tables only that it does not append
to through `insert`. All of this runs in the writer's thread.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Table, bindparam, select
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.elements import ClauseElement

from agentforge.errors.store import LeaseLost, RunNotFound
from agentforge.store.records import Json, ProjectId, RunId
from agentforge.store.rows import Row, SqlValue
from agentforge.store.statements import Statements, key
from agentforge.store.tables import projects, runs

__all__ = ["HeldRun", "Transaction"]

# FOR SHARE keeps another host from taking the lease between our look and our commit, where several can write at once.
_HELD_RUN = (
    select(runs.c.project, runs.c.lease_epoch, runs.c.thread, projects.c.epoch)
    .join(projects, projects.c.project == runs.c.project)
    .where(runs.c.run_id == bindparam("run_id"))
    .with_for_update(read=True, of=projects)
)
_EPOCH = (
    select(projects.c.epoch).where(projects.c.project == bindparam("project")).with_for_update(read=True, of=projects)
)


class HeldRun(NamedTuple):
    """What an operation may need to know of the run that it writes."""

    project: ProjectId
    run_epoch: int
    thread: str | None
    project_epoch: int


class Transaction:
    """One open transaction. `writes` counts what was done, so that the writer knows whether a failure left traces."""

    def __init__(self, cursor: DBAPICursor, statements: Statements) -> None:
        self._cursor = cursor
        self._statements = statements
        self._rows: dict[Table, list[Row]] = {}
        self._runs: dict[RunId, HeldRun] = {}
        self._epochs: dict[ProjectId, int] = {}
        self.writes = 0

    # The fence

    def require_run(self, run_id: RunId, epoch: int) -> HeldRun:
        """Return the run if `epoch` may write it. Raises `RunNotFound`, `LeaseLost`."""
        held = self.held_run(run_id)
        if held.run_epoch != epoch or held.project_epoch != epoch:
            raise LeaseLost(
                f"The run `{run_id}` can no longer be written under lease epoch `{epoch}`: the project is at "
                f"`{held.project_epoch}`, the run at `{held.run_epoch}`."
            )
        return held

    def require_lease(self, project: ProjectId, epoch: int) -> None:
        """Do nothing if `epoch` is the project's. Raises `LeaseLost`."""
        current = self._epochs.get(project)
        if current is None:
            found = self.fetch(_EPOCH, {"project": project})
            current = self._epochs[project] = found[0] if found else 0
        if current != epoch:
            raise LeaseLost(f"The project `{project}` is at lease epoch `{current}`, not at `{epoch}` any more.")

    def held_run(self, run_id: RunId) -> HeldRun:
        """Return the run as it is now. Raises `RunNotFound`."""
        held = self._runs.get(run_id)
        if held is None:
            found = self.fetch(_HELD_RUN, {"run_id": run_id})
            if found is None:
                raise RunNotFound(f"There is no run `{run_id}`.")
            held = self._runs[run_id] = HeldRun(*found)
        return held

    def forget(self) -> None:
        """Look the fence up again: an operation changed who may write, or was undone."""
        self._runs.clear()
        self._epochs.clear()

    def discard(self) -> None:
        """Drop what is gathered and known: an operation was undone."""
        self._rows.clear()
        self.forget()

    # Statements

    def fetch(self, clause: ClauseElement, parameters: Row) -> tuple[Json, ...] | None:
        """Return the first row of a SELECT."""
        self._statements.compile(clause).execute(self._cursor, parameters)
        return self._cursor.fetchone()

    def fetch_all(self, clause: ClauseElement, parameters: Row) -> Sequence[tuple[Json, ...]]:
        """Return the rows of a SELECT."""
        self._statements.compile(clause).execute(self._cursor, parameters)
        return self._cursor.fetchall()

    def execute(self, clause: ClauseElement, parameters: Row) -> int:
        """Run a statement now and return how many rows it touched."""
        self.writes += 1
        self._statements.compile(clause).execute(self._cursor, parameters)
        return self._cursor.rowcount

    def update(self, table: Table, values: Row, **where: SqlValue) -> int:
        """Set `values` in the rows whose columns equal `where`; return how many there are."""
        self.writes += 1
        statement = self._statements.update(table, tuple(values), tuple(where))
        statement.execute(self._cursor, {**values, **{key(column): value for column, value in where.items()}})
        return self._cursor.rowcount

    def insert_now(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows that later operations of this transaction may read."""
        if rows:
            self.writes += 1
            self._statements.insertion(table).execute_many(self._cursor, rows)

    def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Insert rows at the end of the transaction."""
        if rows:
            self.writes += 1
            self._rows.setdefault(table, []).extend(rows)

    def flush(self) -> None:
        """Insert what is gathered."""
        for table, rows in self._rows.items():
            self._statements.insertion(table).execute_many(self._cursor, rows)
        self._rows.clear()
