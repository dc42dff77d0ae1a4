"""Statements compiled once and then given to the driver as text.

SQLAlchemy spends more on one small statement than the database does, so the writer uses it as a compiler only.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TypeAlias

from sqlalchemy import Table, bindparam, insert, update
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ClauseElement

from agentforge.store.rows import Row, SqlValue

__all__ = ["Insertion", "Statement", "Statements", "key"]

GROUP_SIZES = (32, 8, 1)
"""How many rows one INSERT takes. Each call of the driver gives up the interpreter's lock and has to win it back from
the event loop's thread, so few calls matter more than short ones."""

Parameters: TypeAlias = tuple[SqlValue, ...] | Row


class Statement:
    """A statement whose parameters are named by its `bindparam`s."""

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self.sql = str(compiled)
        self.names = compiled.positiontup
        """The order of the parameters where the driver wants them by position."""

    def execute(self, cursor: DBAPICursor, parameters: Row) -> None:
        """Run it with the parameters that it names; others are ignored."""
        if self.names is None:
            cursor.execute(self.sql, parameters)
        else:
            cursor.execute(self.sql, tuple(parameters[name] for name in self.names))


class Insertion:
    """INSERT of any number of rows into one table, in as few calls of the driver as we can."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        columns = [column.name for column in table.columns if column.autoincrement is not True]
        self._row_values = itemgetter(*columns)
        self._groups = [_Group(table, columns, size, dialect) for size in GROUP_SIZES]

    def execute(self, cursor: DBAPICursor, rows: Sequence[Row]) -> None:
        """Insert the rows; each has to have every column."""
        start = 0
        for group in self._groups:
            while len(rows) - start >= group.size:
                part = rows[start : start + group.size]
                cursor.execute(group.sql, group.parameters(v for row in part for v in self._row_values(row)))
                start += group.size


class _Group:
    def __init__(self, table: Table, columns: Sequence[str], size: int, dialect: Dialect) -> None:
        names = [[f"{column}_{row}" for column in columns] for row in range(size)]
        values = [dict(zip(columns, map(bindparam, row), strict=True)) for row in names]
        statement = Statement(insert(table).values(values), dialect)
        self.size = size
        self.sql = statement.sql
        self._names = [name for row in names for name in row]
        self._by_position = statement.names is not None
        assert not self._by_position or statement.names == self._names

    def parameters(self, values: Iterable[SqlValue]) -> Parameters:
        return tuple(values) if self._by_position else dict(zip(self._names, values, strict=True))


class Statements:
    """Everything that was compiled for one database, by what it was compiled from."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._statements: dict[ClauseElement, Statement] = {}
        self._insertions: dict[Table, Insertion] = {}
        self._updates: dict[tuple[Table, tuple[str, ...], tuple[str, ...]], Statement] = {}

    def compile(self, clause: ClauseElement) -> Statement:
        """Return the statement of a clause that lives as long as the program."""
        if (found := self._statements.get(clause)) is None:
            found = self._statements[clause] = Statement(clause, self._dialect)
        return found

    def insertion(self, table: Table) -> Insertion:
        """Return the INSERT of all columns of a table."""
        if (found := self._insertions.get(table)) is None:
            found = self._insertions[table] = Insertion(table, self._dialect)
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
