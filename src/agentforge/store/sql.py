"""The store on an SQL database: writes through the group-committing writer, reads in threads of their own."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, Unpack

from msgspec import structs
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from agentforge.errors.store import StoreClosed, StoreFailed
from agentforge.store import health as health_rows
from agentforge.store import measurements as measuring
from agentforge.store import operations, reading, rows, tables
from agentforge.store.database import Database
from agentforge.store.interface import Store
from agentforge.store.records import (
    AgentVersion,
    AgentVersionId,
    Attempt,
    AttemptStatus,
    BlobId,
    Effect,
    Event,
    HealthRecord,
    JsonObject,
    Lease,
    Measurement,
    Project,
    ProjectId,
    Run,
    RunChanges,
    RunId,
    RunStatus,
    Thread,
    ThreadMessage,
    UsedRelease,
)
from agentforge.store.rows import Row, Spill
from agentforge.store.writer import Operation, Writer

__all__ = ["SqlStore"]

T = TypeVar("T")
Part = TypeVar("Part", Attempt, Event, Effect)


class SqlStore(Store):
    """A store in any database that `Database` describes. `clock` gives epoch seconds."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._writer: Writer | None = None
        self._readers: ThreadPoolExecutor | None = None

    # The store itself

    async def open(self) -> None:
        try:
            await asyncio.to_thread(self._database.open)
            self._writer = Writer(self._database)
        except BaseException:
            self._database.close()
            raise
        self._readers = ThreadPoolExecutor(self._database.readers, "agentforge-store-reader")

    async def close(self) -> None:
        writer, readers = self._writer, self._readers
        self._writer = self._readers = None
        if writer is not None and readers is not None:
            await writer.close()
            await asyncio.to_thread(readers.shutdown)
            await asyncio.to_thread(self._database.close)

    def _write(self, operation: Operation[T], spills: Sequence[Spill] = ()) -> Awaitable[T]:
        if self._writer is None:
            raise StoreClosed("The store is not open.")
        return self._writer.submit(operation, spills)

    async def _read(self, read: Callable[[Connection], T]) -> T:
        return await self._in_reader(partial(self._with_connection, read))

    async def _in_reader(self, call: Callable[[], T]) -> T:
        if self._readers is None:
            raise StoreClosed("The store is not open.")
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)

    def _with_connection(self, read: Callable[[Connection], T]) -> T:
        try:
            with self._database.engine.connect() as connection:
                return read(connection)
        except DBAPIError as error:
            translated = self._database.translate(error.orig) if isinstance(error.orig, Exception) else None
            raise (translated or error) from error

    # Projects and leases

    async def acquire_lease(self, project: ProjectId, holder: str) -> Lease:
        at = self._clock()
        return await self._write(partial(operations.acquire_lease, project=project, holder=holder, at=at))

    async def renew_lease(self, lease: Lease, at: float) -> None:
        await self._write(partial(operations.renew_lease, lease=lease, at=at))

    async def get_lease(self, project: ProjectId) -> Lease | None:
        return await self._read(partial(reading.get_lease, project=project))

    async def list_projects(self) -> list[Project]:
        return await self._read(reading.list_projects)

    # Blobs and agent versions

    async def put_blob(self, data: bytes) -> BlobId:
        try:
            return await self._in_reader(partial(self._database.blobs.put, data))
        except OSError as error:
            raise StoreFailed(f"A blob cannot be written: {error}.") from error

    async def get_blob(self, blob: BlobId) -> bytes:
        return await self._in_reader(partial(self._database.blobs.get, blob))

    async def collect_blobs(self, older_than_s: float) -> int:
        blobs = self._database.blobs
        # Listed before the records are read: a blob that comes in between is no candidate.
        candidates = await self._in_reader(partial(blobs.older_than, self._clock() - older_than_s))
        used = await self._read(reading.blobs_in_use)
        unused = {path: at for path, at in candidates.items() if blobs.name_of(path) not in used}
        return await self._in_reader(partial(blobs.discard, unused))

    async def put_agent_version(self, version: AgentVersion) -> AgentVersion:
        await self._write(partial(operations.put_agent_version, row=rows.agent_version_row(version)))
        return await self.get_agent_version(version.id)

    async def get_agent_version(self, version: AgentVersionId) -> AgentVersion:
        return await self._read(partial(reading.get_agent_version, version=version))

    # Runs

    async def create_run(self, run: Run) -> Run:
        row, spills = rows.run_row(run)
        operation = partial(
            operations.create_run,
            project=run.project,
            epoch=run.lease_epoch,
            row=row,
            labels=rows.label_rows(run.run_id, run.labels),
        )
        kept = await self._write(operation, spills)
        return run if kept == run.run_id else await self.get_run(kept)

    async def claim_run(self, run_id: RunId, epoch: int) -> Run:
        await self._write(partial(operations.claim_run, run_id=run_id, epoch=epoch))
        return await self.get_run(run_id)

    async def claim_runs(self, project: ProjectId, epoch: int) -> list[Run]:
        claimed = await self._write(partial(operations.claim_runs, project=project, epoch=epoch))
        read = partial(reading.find_runs, run_ids=claimed, read_blob=self._database.blobs.get)
        return await self._read(read)

    async def import_run(
        self,
        run: Run,
        version: AgentVersion,
        attempts: Sequence[Attempt],
        events: Sequence[Event],
        effects: Sequence[Effect],
        epoch: int,
    ) -> Run:
        run = structs.replace(run, lease_epoch=epoch, agent_version=version.id)
        row, spills = rows.run_row(run)
        parts = {
            tables.attempts: [rows.attempt_row(attempt) for attempt in _of_run(run.run_id, attempts)],
            tables.events: rows.event_rows(_of_run(run.run_id, events), spills),
            tables.effects: [rows.effect_row(effect, spills) for effect in _of_run(run.run_id, effects)],
        }
        operation = partial(
            operations.import_run,
            project=run.project,
            epoch=epoch,
            row=row,
            labels=rows.label_rows(run.run_id, run.labels),
            version=rows.agent_version_row(version),
            parts=parts,
        )
        kept = await self._write(operation, spills)
        return run if kept == run.run_id else await self.get_run(kept)

    async def update_run(self, run_id: RunId, epoch: int, **changes: Unpack[RunChanges]) -> None:
        row, spills = rows.changes_row(changes)
        labels = _labels(run_id, changes)
        operation = partial(operations.update_run, run_id=run_id, epoch=epoch, changes=row, labels=labels)
        await self._write(operation, spills)

    async def start_attempt(self, attempt: Attempt, epoch: int) -> None:
        row = rows.attempt_row(attempt)
        await self._write(partial(operations.start_attempt, run_id=attempt.run_id, epoch=epoch, row=row))

    async def finish_attempt(
        self,
        run_id: RunId,
        number: int,
        epoch: int,
        *,
        status: AttemptStatus,
        finished_at: float,
        error: JsonObject | None = None,
    ) -> None:
        changes = rows.attempt_changes(status, finished_at, error)
        await self._write(
            partial(operations.finish_attempt, run_id=run_id, number=number, epoch=epoch, changes=changes)
        )

    async def append_events(self, run_id: RunId, epoch: int, events: Sequence[Event]) -> None:
        spills: list[Spill] = []
        found = rows.event_rows(_of_run(run_id, events), spills)
        await self._write(partial(operations.append_events, run_id=run_id, epoch=epoch, rows=found), spills)

    async def append_effect(self, effect: Effect, epoch: int, events: Sequence[Event] = ()) -> None:
        spills: list[Spill] = []
        operation = partial(
            operations.append_effect,
            run_id=effect.run_id,
            epoch=epoch,
            row=rows.effect_row(effect, spills),
            rows=rows.event_rows(_of_run(effect.run_id, events), spills),
        )
        await self._write(operation, spills)

    async def void_effects(
        self,
        run_id: RunId,
        epoch: int,
        above: int,
        changes: RunChanges | None = None,
        events: Sequence[Event] = (),
        only: Sequence[int] | None = None,
    ) -> int:
        changes = changes or {}
        row, spills = rows.changes_row(changes)
        operation = partial(
            operations.void_effects,
            run_id=run_id,
            epoch=epoch,
            above=above,
            only=only,
            changes=row,
            labels=_labels(run_id, changes),
            rows=rows.event_rows(_of_run(run_id, events), spills),
        )
        return await self._write(operation, spills)

    async def finish_run(
        self,
        run_id: RunId,
        epoch: int,
        changes: RunChanges,
        events: Sequence[Event] = (),
        messages: Sequence[JsonObject] = (),
    ) -> None:
        row, spills = rows.changes_row(changes)
        operation = partial(
            operations.finish_run,
            run_id=run_id,
            epoch=epoch,
            changes=row,
            labels=_labels(run_id, changes),
            rows=rows.event_rows(_of_run(run_id, events), spills),
            messages=rows.message_rows(run_id, messages, self._clock(), spills),
        )
        await self._write(operation, spills)

    async def delete_run(self, run_id: RunId, epoch: int) -> None:
        await self._write(partial(operations.delete_run, run_id=run_id, epoch=epoch))

    # Reading runs

    async def get_run(self, run_id: RunId) -> Run:
        return await self._read(partial(reading.get_run, run_id=run_id, read_blob=self._database.blobs.get))

    async def find_submitted(self, project: ProjectId, submit_key: str) -> Run | None:
        read_blob = self._database.blobs.get
        return await self._read(
            partial(reading.find_submitted, project=project, submit_key=submit_key, read_blob=read_blob)
        )

    async def list_runs(
        self,
        project: ProjectId,
        *,
        status: RunStatus | None = None,
        agent: str | None = None,
        framework: str | None = None,
        labels: Mapping[str, str] | None = None,
        thread: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> tuple[list[Run], str | None]:
        read = partial(
            reading.list_runs,
            read_blob=self._database.blobs.get,
            project=project,
            status=status,
            agent=agent,
            framework=framework,
            labels=labels,
            thread=thread,
            before=before,
            limit=limit,
        )
        return await self._read(read)

    async def unfinished_runs(self, project: ProjectId) -> list[Run]:
        read_blob = self._database.blobs.get
        return await self._read(partial(reading.unfinished_runs, project=project, read_blob=read_blob))

    async def list_attempts(self, run_id: RunId) -> list[Attempt]:
        return await self._read(partial(reading.list_attempts, run_id=run_id))

    async def list_events(
        self, run_id: RunId, after: int = 0, limit: int | None = 1000, kinds: Collection[str] | None = None
    ) -> list[Event]:
        read_blob = self._database.blobs.get
        return await self._read(
            partial(reading.list_events, run_id=run_id, after=after, limit=limit, kinds=kinds, read_blob=read_blob)
        )

    async def last_seq(self, run_id: RunId) -> int:
        return await self._read(partial(reading.last_seq, run_id=run_id))

    async def list_effects(
        self, run_id: RunId, after: int = -1, limit: int | None = 1000, *, voided: bool = False
    ) -> list[Effect]:
        read = partial(
            reading.list_effects,
            run_id=run_id,
            after=after,
            limit=limit,
            voided=voided,
            read_blob=self._database.blobs.get,
        )
        return await self._read(read)

    async def used_releases(self, project: ProjectId) -> list[UsedRelease]:
        return await self._read(partial(measuring.used_releases, project=project))

    # Measurements

    async def record_measurements(self, measurements: Sequence[Measurement]) -> None:
        rows = [measuring.measurement_row(each) for each in measurements]
        await self._write(partial(measuring.record_measurements, rows=rows))

    async def list_measurements(
        self, framework: str | None = None, release: str | None = None, machine: str | None = None
    ) -> list[Measurement]:
        return await self._read(
            partial(measuring.list_measurements, framework=framework, release=release, machine=machine)
        )

    # Health of environments

    async def record_health(self, record: HealthRecord, keep: int = 100) -> HealthRecord:
        row = health_rows.health_row(record)
        return await self._write(partial(health_rows.record_health, row=row, keep=keep))

    async def latest_health(self, project: ProjectId, machine: str) -> list[HealthRecord]:
        return await self._read(partial(health_rows.latest_health, project=project, machine=machine))

    async def list_health(
        self,
        project: ProjectId,
        machine: str,
        environments: Collection[str] | None = None,
        *,
        changes: bool = False,
        after: int = 0,
        newest: bool = True,
        limit: int = 100,
    ) -> list[HealthRecord]:
        read = partial(
            health_rows.list_health,
            project=project,
            machine=machine,
            environments=environments,
            changes=changes,
            after=after,
            newest=newest,
            limit=limit,
        )
        return await self._read(read)

    # Threads

    async def append_messages(self, run_id: RunId, epoch: int, messages: Sequence[JsonObject]) -> list[ThreadMessage]:
        spills: list[Spill] = []
        at = self._clock()
        found = rows.message_rows(run_id, messages, at, spills)
        operation = partial(operations.append_messages, run_id=run_id, epoch=epoch, messages=found)
        thread, first = await self._write(operation, spills)
        return [ThreadMessage(thread, seq, run_id, message, at) for seq, message in enumerate(messages, first)]

    async def remove_messages(self, run_id: RunId, epoch: int) -> int:
        return await self._write(partial(operations.remove_messages, run_id=run_id, epoch=epoch))

    async def list_messages(
        self, project: ProjectId, thread: str, after: int = 0, limit: int | None = 1000
    ) -> list[ThreadMessage]:
        read = partial(
            reading.list_messages,
            project=project,
            thread=thread,
            after=after,
            limit=limit,
            read_blob=self._database.blobs.get,
        )
        return await self._read(read)

    async def list_threads(self, project: ProjectId) -> list[Thread]:
        return await self._read(partial(reading.list_threads, project=project))

    async def delete_thread(self, project: ProjectId, thread: str, epoch: int) -> int:
        operation = partial(operations.delete_thread, project=project, thread=thread, epoch=epoch)
        return await self._write(operation)

    # The response cache

    async def cached_response(self, project: ProjectId, key: str, now: float) -> bytes | None:
        read_blob = self._database.blobs.get
        return await self._read(
            partial(reading.cached_response, project=project, key=key, now=now, read_blob=read_blob)
        )

    async def cache_response(
        self, project: ProjectId, key: str, response: bytes, created_at: float, expires_at: float | None
    ) -> None:
        row, spills = rows.response_row(project, key, response, created_at, expires_at)
        await self._write(partial(operations.cache_response, row=row), spills)

    async def prune_responses(self, project: ProjectId, now: float) -> int:
        return await self._write(partial(operations.prune_responses, project=project, now=now))

    async def clear_responses(self, project: ProjectId) -> int:
        return await self._write(partial(operations.clear_responses, project=project))


def _labels(run_id: RunId, changes: RunChanges) -> list[Row] | None:
    return rows.label_rows(run_id, changes["labels"]) if "labels" in changes else None


def _of_run(run_id: RunId, parts: Sequence[Part]) -> Sequence[Part]:
    # The fence is checked for this run only, so nothing of another one may slip through with it.
    if any(part.run_id != run_id for part in parts):
        raise ValueError(f"These parts are not all of the run `{run_id}`.")
    return parts
