"""Health of environments: the writes and reads of their table. What is kept of each environment has a bound."""

from collections.abc import Collection

from msgspec import structs
from sqlalchemy import Connection, Integer, bindparam, delete, func, select

from agentforge.store.records import HealthRecord, ProjectId
from agentforge.store.rows import Row
from agentforge.store.tables import health
from agentforge.store.transaction import Transaction

__all__ = ["health_row", "latest_health", "list_health", "record_health"]

_MOST_OF_A_PROJECT = 20_000
"""Environments go and come; what is known of those that went goes with the oldest."""
_PLACE = ("project", "machine", "environment")
_ONE = bindparam("one", 1, type_=Integer)
_of_place = tuple(health.c[column] == bindparam(column) for column in _PLACE)
_changed = health.c.state != health.c.previous
_LAST = select(health.c.number, health.c.state).where(*_of_place).order_by(health.c.number.desc())
_FIRST_KEPT = (
    select(health.c.number).where(*_of_place).order_by(health.c.number.desc()).limit(_ONE).offset(bindparam("keep"))
)
_FIRST_KEPT_CHANGE = (
    select(health.c.number)
    .where(*_of_place, _changed)
    .order_by(health.c.number.desc())
    .limit(_ONE)
    .offset(bindparam("keep"))
)
_DROP = delete(health).where(*_of_place, ~_changed, health.c.number <= bindparam("last"))
_DROP_CHANGES = delete(health).where(*_of_place, _changed, health.c.number <= bindparam("last"))
_FIRST_OF_PROJECT = (
    select(health.c.number)
    .where(health.c.project == bindparam("project"))
    .order_by(health.c.number.desc())
    .limit(_ONE)
    .offset(bindparam("keep"))
)
_DROP_OF_PROJECT = delete(health).where(health.c.project == bindparam("project"), health.c.number <= bindparam("last"))


def health_row(record: HealthRecord) -> Row:
    """Return the row of a record, without what the store itself sets."""
    values = structs.asdict(record)
    return {column: value for column, value in values.items() if column not in ("number", "previous")}


def record_health(transaction: Transaction, row: Row, keep: int) -> HealthRecord:
    """Keep a record after the one of its environment that came before, and drop what is beyond the bound."""
    place: Row = {**{column: row[column] for column in _PLACE}, "one": 1}
    last = transaction.fetch(_LAST, place)
    full: Row = {**row, "previous": last[1] if last is not None else "ready"}
    transaction.insert_now(health, [full])
    found = transaction.fetch(_LAST, place)
    assert found is not None
    for first, drop, most in (
        (_FIRST_KEPT, _DROP, keep),
        (_FIRST_KEPT_CHANGE, _DROP_CHANGES, keep),
        (_FIRST_OF_PROJECT, _DROP_OF_PROJECT, _MOST_OF_A_PROJECT),
    ):
        beyond = transaction.fetch(first, {**place, "keep": most})
        if beyond is not None:
            transaction.execute(drop, {**place, "last": beyond[0]})
    return HealthRecord(**{**full, "number": found[0]})


def latest_health(connection: Connection, project: ProjectId, machine: str) -> list[HealthRecord]:
    """Return the newest record of each environment, by environment."""
    newest = (
        select(func.max(health.c.number))
        .where(health.c.project == project, health.c.machine == machine)
        .group_by(health.c.environment)
    )
    found = connection.execute(select(health).where(health.c.number.in_(newest)).order_by(health.c.environment))
    return [HealthRecord(**row) for row in found.mappings()]


def list_health(
    connection: Connection,
    project: ProjectId,
    machine: str,
    environments: Collection[str] | None,
    *,
    changes: bool,
    after: int,
    newest: bool,
    limit: int,
) -> list[HealthRecord]:
    """Return records above a number, the newest or the oldest of them first."""
    table = health.c
    query = select(health).where(table.project == project, table.machine == machine, table.number > after)
    if environments is not None:
        query = query.where(table.environment.in_(environments))
    if changes:
        query = query.where(_changed)
    found = connection.execute(query.order_by(table.number.desc() if newest else table.number).limit(limit))
    return [HealthRecord(**row) for row in found.mappings()]
