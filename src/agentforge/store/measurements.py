"""Measurements of releases on machines: the writes and reads of their table. The newest of each name counts."""

from collections.abc import Sequence

from msgspec import structs
from sqlalchemy import Connection, bindparam, func, select

from agentforge.store.records import Measurement, ProjectId, UsedRelease
from agentforge.store.rows import Row
from agentforge.store.tables import measurements, runs
from agentforge.store.transaction import Transaction

__all__ = ["list_measurements", "measurement_row", "record_measurements", "used_releases"]

_COLUMNS = ("framework", "release", "machine", "name")
_AT = select(measurements.c.at).where(*(measurements.c[column] == bindparam(column) for column in _COLUMNS))


def measurement_row(measurement: Measurement) -> Row:
    """Return the row of a measurement."""
    return dict(structs.asdict(measurement))


def record_measurements(transaction: Transaction, rows: Sequence[Row]) -> None:
    """Keep each in the place of an older one of the same name, release and machine."""
    for row in rows:
        known = transaction.fetch(_AT, row)
        if known is None:
            transaction.insert_now(measurements, [row])
        elif known[0] <= row["at"]:
            values = {column: value for column, value in row.items() if column not in _COLUMNS}
            transaction.update(measurements, values, **{column: row[column] for column in _COLUMNS})


def list_measurements(
    connection: Connection, framework: str | None, release: str | None, machine: str | None
) -> list[Measurement]:
    """Return the measurements that match, ordered by release and name."""
    wanted = {"framework": framework, "release": release, "machine": machine}
    query = select(measurements).where(
        *(measurements.c[column] == value for column, value in wanted.items() if value is not None)
    )
    found = connection.execute(query.order_by(*(measurements.c[column] for column in _COLUMNS)))
    return [Measurement(*row) for row in found]


def used_releases(connection: Connection, project: ProjectId) -> list[UsedRelease]:
    """Return which agent has run on which release, and when last."""
    table = runs.c
    columns = (table.agent_name, table.framework, table.release)
    query = select(*columns, func.count(), func.max(table.created_at)).where(table.project == project)
    found = connection.execute(query.group_by(*columns).order_by(*columns))
    return [UsedRelease(*row) for row in found]
