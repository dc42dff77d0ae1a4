"""The reads, each as a function of a connection; they run in reader threads and load blobs there too."""

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, Select, func, select

from agentforge.errors.store import AgentVersionNotFound, InvalidCursor, RunNotFound
from agentforge.store import rows
from agentforge.store.records import (
    FINISHED,
    AgentVersion,
    AgentVersionId,
    Attempt,
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
    projects,
    run_labels,
    runs,
    thread_messages,
)

__all__ = [
    "get_agent_version",
    "get_lease",
    "get_run",
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
    return None if found is None else Lease(found.project, found.epoch, found.holder)


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


def list_runs(
    connection: Connection,
    read_blob: ReadBlob,
    project: ProjectId,
    *,
    status: RunStatus | None,
    agent: str | None,
    framework: str | None,
    labels: Mapping[str, str] | None,
    before: str | None,
    limit: int,
) -> tuple[list[Run], str | None]:
    """Return a page of runs, newest first, and the cursor of the next one."""
    query = select(runs).where(runs.c.project == project).order_by(runs.c.number.desc())
    for column, wanted in ((runs.c.status, status), (runs.c.agent_name, agent), (runs.c.framework, framework)):
        if wanted is not None:
            query = query.where(column == wanted)
    for key, value in (labels or {}).items():
        query = query.where(runs.c.run_id.in_(_labelled(key, value)))
    if before is not None:
        query = query.where(runs.c.number < _number(before))
    # One more than asked for tells whether there is a next page.
    found = connection.execute(query.limit(limit + 1)).all()
    page = found[:limit]
    cursor = str(page[-1].number) if page and len(found) > limit else None
    return [rows.run_of(row, read_blob) for row in page], cursor


def _labelled(key: str, value: str) -> Select[tuple[str]]:
    return select(run_labels.c.run_id).where(run_labels.c.key == key, run_labels.c.value == value)


def _number(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidCursor(f"`{cursor}` is no cursor.")
    return int(cursor)


def unfinished_runs(connection: Connection, project: ProjectId, read_blob: ReadBlob) -> list[Run]:
    """Return the runs that have not finished, oldest first."""
    query = select(runs).where(runs.c.project == project, runs.c.status.not_in(sorted(FINISHED)))
    found = connection.execute(query.order_by(runs.c.number))
    return [rows.run_of(row, read_blob) for row in found]


def list_attempts(connection: Connection, run_id: RunId) -> list[Attempt]:
    """Return a run's attempts in order."""
    query = select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.number)
    return [rows.attempt_of(row) for row in connection.execute(query)]


def list_events(
    connection: Connection, run_id: RunId, after: int, limit: int, kinds: Collection[str] | None, read_blob: ReadBlob
) -> list[Event]:
    """Return a run's events in order."""
    query = select(events).where(events.c.run_id == run_id, events.c.seq > after)
    if kinds is not None:
        query = query.where(events.c.kind.in_(kinds))
    found = connection.execute(query.order_by(events.c.seq).limit(limit))
    return [rows.event_of(row, read_blob) for row in found]


def list_effects(connection: Connection, run_id: RunId, after: int, limit: int, read_blob: ReadBlob) -> list[Effect]:
    """Return a run's effects in order."""
    query = select(effects).where(effects.c.run_id == run_id, effects.c.position > after)
    found = connection.execute(query.order_by(effects.c.position).limit(limit))
    return [rows.effect_of(row, read_blob) for row in found]


def list_messages(
    connection: Connection, project: ProjectId, thread: str, after: int, limit: int, read_blob: ReadBlob
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
