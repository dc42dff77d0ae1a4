"""The one interface that the engine keeps its records through; every store behaves alike (see `StoreSuite`).

Who calls it: the engine and the host, on one asyncio loop. Writes of many callers are committed in groups; an awaited
write is durable when it returns and every read that starts afterwards sees it. A write whose caller is cancelled may
still be committed. Operations of one store are applied in the order in which they were called.

Fencing: a write that takes `epoch` succeeds only while the project's lease has that epoch, and if it writes a run,
while the run has that epoch too; else it raises `LeaseLost` and has written nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Self, Unpack

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

__all__ = ["Store"]


class Store(ABC):
    """Projects, runs and their journal. `async with store:` opens and closes it.

    Every method may raise `StoreFailed` (disk full, damaged file), `StoreLocked` or `StoreClosed`. Methods that name
    a run raise `RunNotFound` when there is none, lists of its parts are then empty. Values that JSON cannot hold raise
    `ValueNotStorable`, before anything is written.

    A payload that the disk has lost raises `BlobNotFound` with `details` that say whose it is (`run_id`, `part`
    which is effect, event or message, and its `number`); lists of runs go on without it (`Run.unreadable`).
    """

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # The store itself

    @abstractmethod
    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises `StoreTooNew`, `NotAStore`, `StoreLocked`, `StoreReadOnly`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Commit what was asked for so far and let go of everything. A second call does nothing."""

    # Projects and leases

    @abstractmethod
    async def acquire_lease(self, project: ProjectId, holder: str) -> Lease:
        """Take the project over under a new epoch (the old one + 1); a project that is new here begins with 1.

        Unfinished runs keep their epoch until `claim_runs` or `claim_run` moves them.
        """

    @abstractmethod
    async def renew_lease(self, lease: Lease, at: float) -> None:
        """Note that the holder is there at `at` (`Lease.renewed_at`). Raises `LeaseLost` if the epoch moved on."""

    @abstractmethod
    async def get_lease(self, project: ProjectId) -> Lease | None:
        """Return who has the project, `None` if nobody ever had."""

    @abstractmethod
    async def list_projects(self) -> list[Project]:
        """Return the projects by name."""

    # Blobs and agent versions

    @abstractmethod
    async def put_blob(self, data: bytes) -> BlobId:
        """Keep these bytes and return their SHA-256; the same bytes are kept once."""

    @abstractmethod
    async def get_blob(self, blob: BlobId) -> bytes:
        """Return the bytes. Raises `BlobNotFound`, also when they no longer have this digest."""

    @abstractmethod
    async def collect_blobs(self, older_than_s: float) -> int:
        """Delete the blobs that no record refers to and return how many there were.

        One that was put (or put again) in the last `older_than_s` seconds stays: a payload is kept before the record
        that names it. Unfinished files that a crash left behind go too.
        """

    @abstractmethod
    async def put_agent_version(self, version: AgentVersion) -> AgentVersion:
        """Keep a version; if its id is known the one kept first is returned."""

    @abstractmethod
    async def get_agent_version(self, version: AgentVersionId) -> AgentVersion:
        """Return a version. Raises `AgentVersionNotFound`."""

    # Runs

    @abstractmethod
    async def create_run(self, run: Run) -> Run:
        """Keep a new run, written under `run.lease_epoch`; its agent version must be kept already.

        A run of this project with the same `submit_key` is returned instead, whatever else differs (compare the
        `run_id`). Raises `RecordExists` for a known `run_id`, `AgentVersionNotFound`, `LeaseLost`.
        """

    @abstractmethod
    async def claim_run(self, run_id: RunId, epoch: int) -> Run:
        """Move a run of an earlier holder to `epoch`, the project's current one; the old holder can write no more."""

    @abstractmethod
    async def claim_runs(self, project: ProjectId, epoch: int) -> list[Run]:
        """Move all unfinished runs of earlier holders to `epoch`, all or none, and return them, oldest first."""

    @abstractmethod
    async def import_run(
        self,
        run: Run,
        version: AgentVersion,
        attempts: Sequence[Attempt],
        events: Sequence[Event],
        effects: Sequence[Effect],
        epoch: int,
    ) -> Run:
        """Keep a whole run with its parts (an imported one, or a fork), all or none, and return it under `epoch`.

        Its agent version is kept with it unless it is known. Like `create_run` it returns a run of this project with
        the same `submit_key` instead. Raises `RecordExists` for a known `run_id`, `LeaseLost`.
        """

    @abstractmethod
    async def update_run(self, run_id: RunId, epoch: int, **changes: Unpack[RunChanges]) -> None:
        """Change some fields of a run."""

    @abstractmethod
    async def start_attempt(self, attempt: Attempt, epoch: int) -> None:
        """Keep a new attempt. Raises `RecordExists` for a known number."""

    @abstractmethod
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
        """Say how an attempt ended."""

    @abstractmethod
    async def append_events(self, run_id: RunId, epoch: int, events: Sequence[Event]) -> None:
        """Append events of this run, all or none. Raises `RecordExists` if a `seq` is taken."""

    @abstractmethod
    async def append_effect(self, effect: Effect, epoch: int, events: Sequence[Event] = ()) -> None:
        """Append an effect and the events that go with it, all or none. Raises `RecordExists` if a place is taken."""

    @abstractmethod
    async def void_effects(
        self,
        run_id: RunId,
        epoch: int,
        above: int,
        changes: RunChanges | None = None,
        events: Sequence[Event] = (),
        only: Sequence[int] | None = None,
    ) -> int:
        """Void the run's effects with a `position` above `above` and return how many were valid until then.

        `only` takes just those at these positions. With `changes` of the run and `events`, all or none. Positions of
        voided effects are not free again.
        """

    @abstractmethod
    async def finish_run(
        self,
        run_id: RunId,
        epoch: int,
        changes: RunChanges,
        events: Sequence[Event] = (),
        messages: Sequence[JsonObject] = (),
    ) -> None:
        """Change the run, append its last events and add `messages` to its thread, all or none.

        `messages` of a run without a thread raise `ValueError`.
        """

    @abstractmethod
    async def delete_run(self, run_id: RunId, epoch: int) -> None:
        """Delete a run with its attempts, events and effects; thread messages stay.

        Needs only the project's lease: a run of an earlier epoch need not be claimed first.
        """

    # Reading runs

    @abstractmethod
    async def get_run(self, run_id: RunId) -> Run:
        """Return a run."""

    @abstractmethod
    async def find_submitted(self, project: ProjectId, submit_key: str) -> Run | None:
        """Return the project's run that was submitted with this key, `None` if there is none."""

    @abstractmethod
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
        """Return a page of runs, newest first, and the cursor of the next page (`None`: this is the last).

        All filters have to match, and of `labels` every pair. Raises `InvalidCursor`.
        """

    @abstractmethod
    async def unfinished_runs(self, project: ProjectId) -> list[Run]:
        """Return the queued, running and waiting runs, oldest first."""

    @abstractmethod
    async def list_attempts(self, run_id: RunId) -> list[Attempt]:
        """Return the attempts by number."""

    @abstractmethod
    async def list_events(
        self, run_id: RunId, after: int = 0, limit: int | None = 1000, kinds: Collection[str] | None = None
    ) -> list[Event]:
        """Return up to `limit` events (`None`: all) with `seq` above `after`, in order; with `kinds` only such ones."""

    @abstractmethod
    async def last_seq(self, run_id: RunId) -> int:
        """Return the number of the run's last event, 0 if it has none."""

    @abstractmethod
    async def list_effects(
        self, run_id: RunId, after: int = -1, limit: int | None = 1000, *, voided: bool = False
    ) -> list[Effect]:
        """Return up to `limit` valid effects (`None`: all) with `position` above `after`, in order.

        With `voided` those as well that the run has left behind.
        """

    @abstractmethod
    async def used_releases(self, project: ProjectId) -> list[UsedRelease]:
        """Return which agent of the project has run on which release, by name."""

    # Measurements: of releases on machines, for all projects of the store; they need no lease

    @abstractmethod
    async def record_measurements(self, measurements: Sequence[Measurement]) -> None:
        """Keep measurements, each in the place of an older one of the same release, machine and name."""

    @abstractmethod
    async def list_measurements(
        self, framework: str | None = None, release: str | None = None, machine: str | None = None
    ) -> list[Measurement]:
        """Return the newest measurement of each name, by framework, release and machine."""

    # Health of environments: what this project's hosts found out on their machines; it needs no lease

    @abstractmethod
    async def record_health(self, record: HealthRecord, keep: int = 100) -> HealthRecord:
        """Keep what a probe found and return it with its `number` and `previous`.

        Of each environment the last `keep` records stay, and the last `keep` of those that changed its state.
        """

    @abstractmethod
    async def latest_health(self, project: ProjectId, machine: str) -> list[HealthRecord]:
        """Return the newest record of each environment of a machine, by environment."""

    @abstractmethod
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
        """Return records with a number above `after`, those of some environments, or of changes alone.

        The `newest` come first and count, else the oldest.
        """

    # Threads

    @abstractmethod
    async def append_messages(self, run_id: RunId, epoch: int, messages: Sequence[JsonObject]) -> list[ThreadMessage]:
        """Add messages to the end of the run's thread. Raises `ValueError` if the run has no thread."""

    @abstractmethod
    async def remove_messages(self, run_id: RunId, epoch: int) -> int:
        """Take the messages that a run added out of its thread; return how many there were."""

    @abstractmethod
    async def list_messages(
        self, project: ProjectId, thread: str, after: int = 0, limit: int | None = 1000
    ) -> list[ThreadMessage]:
        """Return up to `limit` messages (`None`: all) with `seq` above `after`, in order."""

    @abstractmethod
    async def list_threads(self, project: ProjectId) -> list[Thread]:
        """Return the project's threads, the one used last first."""

    @abstractmethod
    async def delete_thread(self, project: ProjectId, thread: str, epoch: int) -> int:
        """Delete a thread's messages and return how many there were."""

    # The response cache: needs no lease, and nothing but a repeated request is lost with it

    @abstractmethod
    async def cached_response(self, project: ProjectId, key: str, now: float) -> bytes | None:
        """Return what is cached under `key` and has not expired at `now`."""

    @abstractmethod
    async def cache_response(
        self, project: ProjectId, key: str, response: bytes, created_at: float, expires_at: float | None
    ) -> None:
        """Keep a response under `key` until `expires_at` (`None`: no end), in the place of an earlier one."""

    @abstractmethod
    async def prune_responses(self, project: ProjectId, now: float) -> int:
        """Delete the project's responses that have expired at `now` and return how many there were."""

    @abstractmethod
    async def clear_responses(self, project: ProjectId) -> int:
        """Delete all cached responses of the project and return how many there were."""
