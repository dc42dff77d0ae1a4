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
    JsonObject,
    Lease,
    Project,
    ProjectId,
    Run,
    RunChanges,
    RunId,
    RunStatus,
    Thread,
    ThreadMessage,
)

__all__ = ["Store"]


class Store(ABC):
    """Projects, runs and their journal. `async with store:` opens and closes it.

    Every method may raise `StoreFailed` (disk full, damaged file), `StoreLocked` or `StoreClosed`. Methods that name
    a run raise `RunNotFound` when there is none, lists of its parts are then empty. Values that JSON cannot hold raise
    `ValueNotStorable`, before anything is written.
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

        Unfinished runs keep their epoch until `claim_run` moves them, one by one.
        """

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
    async def list_runs(
        self,
        project: ProjectId,
        *,
        status: RunStatus | None = None,
        agent: str | None = None,
        framework: str | None = None,
        labels: Mapping[str, str] | None = None,
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
        self, run_id: RunId, after: int = 0, limit: int = 1000, kinds: Collection[str] | None = None
    ) -> list[Event]:
        """Return up to `limit` events with `seq` above `after`, in order; with `kinds` only those of such kinds."""

    @abstractmethod
    async def list_effects(self, run_id: RunId, after: int = -1, limit: int = 1000) -> list[Effect]:
        """Return up to `limit` effects with `position` above `after`, in order."""

    # Threads

    @abstractmethod
    async def append_messages(self, run_id: RunId, epoch: int, messages: Sequence[JsonObject]) -> list[ThreadMessage]:
        """Add messages to the end of the run's thread. Raises `ValueError` if the run has no thread."""

    @abstractmethod
    async def list_messages(
        self, project: ProjectId, thread: str, after: int = 0, limit: int = 1000
    ) -> list[ThreadMessage]:
        """Return up to `limit` messages with `seq` above `after`, in order."""

    @abstractmethod
    async def list_threads(self, project: ProjectId) -> list[Thread]:
        """Return the project's threads, the one used last first."""

    @abstractmethod
    async def delete_thread(self, project: ProjectId, thread: str, epoch: int) -> int:
        """Delete a thread's messages and return how many there were."""
