"""The reads, each as a function of a connection; they run in reader threads and load blobs there too."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection, Select, bindparam, func, select, union

from agentforge.errors.store import AgentVersionNotFound, InvalidCursor, RunNotFound
from agentforge.store import rows
from agentforge.store.records import (
    UNFINISHED,
    AgentVersion,
    AgentVersionId,
    Attempt,
    BlobId,
    Effect,
    Event,
    Lease,
    Project,
    ProjectId,
    Run,
    RunId,
    RunStatus,
    Thread,
    ThreadMessage,
)
from agentforge.store.rows import ReadBlob
from agentforge.store.tables import (
    agent_versions,
    attempts,
    effects,
    events,
    metadata,
    projects,
    responses,
    run_labels,
    runs,
    thread_messages,
)

__all__ = [
    "blobs_in_use",
    "cached_response",
    "find_runs",
    "find_submitted",
    "get_agent_version",
    "get_lease",
    "get_run",
    "last_seq",
    "list_attempts",
    "list_effects",
    "list_events",
    "list_messages",
    "list_projects",
    "list_runs",
    "list_threads",
    "unfinished_runs",
]


def get_lease(connection: Connection, project: ProjectId) -> Lease | None:
    """Return the project's lease."""
    found = connection.execute(select(projects).where(projects.c.project == project)).first()
    return None if found is None else Lease(found.project, found.epoch, found.holder, found.renewed_at)


def list_projects(connection: Connection) -> list[Project]:
    """Return the projects by name."""
    found = connection.execute(select(projects).order_by(projects.c.project))
    return [Project(row.project, row.created_at) for row in found]


def get_agent_version(connection: Connection, version: AgentVersionId) -> AgentVersion:
    """Return a version or raise `AgentVersionNotFound`."""
    found = connection.execute(select(agent_versions).where(agent_versions.c.id == version)).first()
    if found is None:
        raise AgentVersionNotFound(f"There is no agent version `{version}`.")
    return rows.agent_version_of(found)


def get_run(connection: Connection, run_id: RunId, read_blob: ReadBlob) -> Run:
    """Return a run or raise `RunNotFound`."""
    found = connection.execute(select(runs).where(runs.c.run_id == run_id)).first()
    if found is None:
        raise RunNotFound(f"There is no run `{run_id}`.")
    return rows.run_of(found, read_blob)


def find_submitted(connection: Connection, project: ProjectId, submit_key: str, read_blob: ReadBlob) -> Run | None:
    """Return the run that was submitted with this key."""
    query = select(runs).where(runs.c.project == project, runs.c.submit_key == submit_key)
    found = connection.execute(query).first()
    return None if found is None else rows.run_of(found, read_blob)


def list_runs(
    connection: Connection,
    read_blob: ReadBlob,
    project: ProjectId,
    *,
    status: RunStatus | None,
    agent: str | None,
    framework: str | None,
    labels: Mapping[str, str] | None,
    thread: str | None,
    before: str | None,
    limit: int,
) -> tuple[list[Run], str | None]:
    """Return a page of runs, newest first, and the cursor of the next one."""
    query = select(runs).where(runs.c.project == project).order_by(runs.c.number.desc())
    same = {"status": status, "agent_name": agent, "framework": framework, "thread": thread}
    query = query.where(*(runs.c[column] == wanted for column, wanted in same.items() if wanted is not None))
    for key, value in (labels or {}).items():
        query = query.where(runs.c.run_id.in_(_labelled(key, value)))
    if before is not None:
        query = query.where(runs.c.number < _number(before))
    # One more than asked for tells whether there is a next page.
    found = connection.execute(query.limit(limit + 1)).all()
    page = found[:limit]
    cursor = str(page[-1].number) if page and len(found) > limit else None
    return [rows.listed_run_of(row, read_blob) for row in page], cursor


def _labelled(key: str, value: str) -> Select[tuple[str]]:
    return select(run_labels.c.run_id).where(run_labels.c.key == key, run_labels.c.value == value)


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidCursor(f"`{cursor}` is no cursor.")
    return int(cursor)


def unfinished_runs(connection: Connection, project: ProjectId, read_blob: ReadBlob) -> list[Run]:
    """Return the runs that have not finished, oldest first."""
    query = select(runs).where(runs.c.project == project, runs.c.status.in_(sorted(UNFINISHED)))
    found = connection.execute(query.order_by(runs.c.number))
    return [rows.listed_run_of(row, read_blob) for row in found]


def find_runs(connection: Connection, run_ids: Sequence[RunId], read_blob: ReadBlob) -> list[Run]:
    """Return the runs that there are of these, in this order."""
    query = select(runs).where(runs.c.run_id == bindparam("run_id"))
    found = (connection.execute(query, {"run_id": run_id}).first() for run_id in run_ids)
    return [rows.listed_run_of(row, read_blob) for row in found if row is not None]


def list_attempts(connection: Connection, run_id: RunId) -> list[Attempt]:
    """Return a run's attempts in order."""
    query = select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.number)
    return [rows.attempt_of(row) for row in connection.execute(query)]


def list_events(
    connection: Connection,
    run_id: RunId,
    after: int,
    limit: int | None,
    kinds: Collection[str] | None,
    read_blob: ReadBlob,
) -> list[Event]:
    """Return a run's events in order."""
    query = select(events).where(events.c.run_id == run_id, events.c.seq > after)
    if kinds is not None:
        query = query.where(events.c.kind.in_(kinds))
    found = connection.execute(query.order_by(events.c.seq).limit(limit))
    return [rows.event_of(row, read_blob) for row in found]


def last_seq(connection: Connection, run_id: RunId) -> int:
    """Return the number of the last event, or 0."""
    found = connection.execute(select(func.max(events.c.seq)).where(events.c.run_id == run_id)).scalar()
    return int(found or 0)


def list_effects(
    connection: Connection, run_id: RunId, after: int, limit: int | None, voided: bool, read_blob: ReadBlob
) -> list[Effect]:
    """Return a run's effects in order."""
    query = select(effects).where(effects.c.run_id == run_id, effects.c.position > after)
    if not voided:
        query = query.where(effects.c.voided == 0)
    found = connection.execute(query.order_by(effects.c.position).limit(limit))
    return [rows.effect_of(row, read_blob) for row in found]


def list_messages(
    connection: Connection, project: ProjectId, thread: str, after: int, limit: int | None, read_blob: ReadBlob
) -> list[ThreadMessage]:
    """Return a thread's messages in order."""
    table = thread_messages.c
    query = select(thread_messages).where(table.project == project, table.thread == thread, table.seq > after)
    found = connection.execute(query.order_by(table.seq).limit(limit))
    return [rows.message_of(row, read_blob) for row in found]


def list_threads(connection: Connection, project: ProjectId) -> list[Thread]:
    """Return the project's threads, the one used last first."""
    table = thread_messages.c
    count, last = func.count().label("messages"), func.max(table.at).label("last")
    query = select(table.project, table.thread, count, last).where(table.project == project)
    found = connection.execute(query.group_by(table.project, table.thread).order_by(last.desc(), table.thread))
    return [Thread(*row) for row in found]


def cached_response(
    connection: Connection, project: ProjectId, key: str, now: float, read_blob: ReadBlob
) -> bytes | None:
    """Return a response that has not expired."""
    table = responses.c
    query = select(responses).where(table.project == project, table.key == key)
    found = connection.execute(query.where(table.expires_at.is_(None) | (table.expires_at > now))).first()
    return None if found is None else rows.response_of(found, read_blob)


def blobs_in_use(connection: Connection) -> set[BlobId]:
    """Return every blob that some record refers to."""
    columns = [column for table in metadata.sorted_tables for column in table.c if column.name.endswith("_blob")]
    found = connection.scalars(union(*(select(column).where(column.is_not(None)) for column in columns)))
    named = {BlobId(blob) for blob in found}
    for files in connection.scalars(select(agent_versions.c.files)):
        named.update(rows.decode(files).values())
    return named
