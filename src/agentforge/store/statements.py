"""Statements compiled once and then given to the driver as text.

SQLAlchemy spends more on one small statement than the database does, so the writer uses it as a compiler only.
"""

from collections.abc import Sequence
from typing import TypeAlias, cast

from sqlalchemy import BindParameter, Table, bindparam, insert, update
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from agentforge.store.rows import Row, SqlValue

__all__ = ["Statement", "Statements", "key"]

Parameters: TypeAlias = tuple[SqlValue, ...] | Row


class Statement:
    """A statement whose parameters are named by its `bindparam`s."""

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._sql = str(compiled)
        # None where the driver takes parameters by name.
        self._names = compiled.positiontup

    def execute(self, cursor: DBAPICursor, parameters: Row) -> None:
        """Run it with the parameters that it names; others are ignored."""
        cursor.execute(self._sql, self._parameters(parameters))

    def execute_many(self, cursor: DBAPICursor, rows: Sequence[Row]) -> None:
        """Run it once for each row. (Several rows in one INSERT measured no faster, a busy event loop included.)"""
        cursor.executemany(self._sql, cast("Sequence[Row]", [self._parameters(row) for row in rows]))

    def _parameters(self, parameters: Row) -> Parameters:
        return parameters if self._names is None else tuple(parameters[name] for name in self._names)


class Statements:
    """Everything that was compiled for one database, by what it was compiled from."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._clauses: dict[ClauseElement, Statement] = {}
        self._insertions: dict[Table, Statement] = {}
        self._updates: dict[tuple[Table, tuple[str, ...], tuple[str, ...]], Statement] = {}

    def compile(self, clause: ClauseElement) -> Statement:
        """Return the statement of a clause that lives as long as the program."""
        if (found := self._clauses.get(clause)) is None:
            found = self._clauses[clause] = Statement(clause, self._dialect)
        return found

    def insertion(self, table: Table) -> Statement:
        """Return the INSERT of all columns of a table but the one that numbers its rows."""
        if (found := self._insertions.get(table)) is None:
            columns: dict[str, BindParameter[SqlValue]] = {
                c.name: bindparam(c.name) for c in table.columns if c.autoincrement is not True
            }
            found = self._insertions[table] = Statement(insert(table).values(columns), self._dialect)
        return found

    def update(self, table: Table, columns: tuple[str, ...], where: tuple[str, ...]) -> Statement:
        """Return the UPDATE of these columns where others equal the parameters `key_<column>`."""
        if (found := self._updates.get((table, columns, where))) is None:
            clause = update(table).values({column: bindparam(column) for column in columns})
            clause = clause.where(*(table.c[column] == bindparam(key(column)) for column in where))
            found = self._updates[table, columns, where] = Statement(clause, self._dialect)
        return found


def key(column: str) -> str:
    """Return the name of the parameter that a column is compared with."""
    return f"key_{column}"
