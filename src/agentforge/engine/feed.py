"""A run's events: numbered here, committed in groups, then given to whoever watches.

Order is the number's. Nobody sees an event before its commit, so a watcher that resumes after any number misses
nothing and sees nothing twice, whatever crashed in between.
"""

import asyncio
import contextlib
import logging
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import Any

from agentforge.engine.allowance import Allowance, Backlog, size_of
from agentforge.store import Effect, Event, JsonObject, RunChanges, RunId, Store

__all__ = ["Feed", "FeedEnded"]

_KEPT = 4096
"""Events of a live run kept in memory for watchers; older ones are read from the store."""
_KEPT_BYTES = 4 << 20
"""What those may take."""
_NOT_COUNTED = "message.delta"
"""What the model says, not the run."""
_GATHER_S = 0.02
"""How long an event waits for others to be committed with it; an effect's commit takes them along at once.

Nobody notices a token that is this late, and most events of a small run need no commit of their own.
"""
_log = logging.getLogger(__name__)


class FeedEnded(Exception):
    """The run's end is committed, or about to be: nothing more can be recorded of it."""


class Feed:
    """The events of one live run. All methods on the engine's loop."""

    def __init__(
        self,
        store: Store,
        run_id: RunId,
        epoch: int,
        clock: Callable[[], float],
        *,
        seq: int = 0,
        attempt: int = 0,
        pause_s: float = 0.0,
        backlog: Backlog | None = None,
    ) -> None:
        """`seq` and `attempt` are the last ones recorded; `pause_s` delays what follows a commit, for fault tests.

        `backlog` is where all feeds of a host count what waits.
        """
        self.run_id = run_id
        self.attempt = attempt
        self.finished = False
        """Whether the last event is committed, or none will come any more."""
        self.allowance: Allowance | None = None
        """What events are counted against."""
        self._ending = False
        self._store = store
        self._epoch = epoch
        self._clock = clock
        self._pause_s = pause_s
        self._seq = seq
        self._pending: list[Event] = []
        self._committed: list[Event] = []
        self._sizes: dict[int, int] = {}
        """Bytes of the events in memory, by number."""
        self._kept_bytes = 0
        self._backlog = backlog or Backlog()
        self._dropped = seq
        """Number of the last event that has left memory."""
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def make(self, kind: str, data: JsonObject) -> Event:
        """Number an event that the caller commits itself (with `commit_effect` or `finish`)."""
        return self._make(kind, data, size_of(data))

    def emit(self, kind: str, data: JsonObject) -> None:
        """Number an event and commit it soon, together with those that follow at once."""
        if self._ending:
            return
        size, allowed = self._counted(kind, data)
        if not allowed:
            return
        self._pending.append(self._make(kind, data, size))
        self._backlog.bytes += size
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self._flush_soon)

    def _counted(self, kind: str, data: JsonObject) -> tuple[int, bool]:
        """Return an event's size, and whether the run may write it."""
        size = size_of(data)
        return size, kind == _NOT_COUNTED or self.allowance is None or self.allowance.take(size)

    def _make(self, kind: str, data: JsonObject, size: int) -> Event:
        self._seq += 1
        self._sizes[self._seq] = size
        return Event(self.run_id, self._seq, self.attempt, kind, self._clock(), data)

    async def flush(self) -> None:
        """Commit what is pending. Raises what the store raises."""
        await self._whole(self._flush())

    async def _flush(self) -> None:
        async with self._lock:
            with self._taken() as batch:
                if batch:
                    await self._store.append_events(self.run_id, self._epoch, batch)
                    self._publish(batch)

    async def commit_effect(self, effect: Effect, kind: str, data: JsonObject) -> None:
        """Commit an effect with the event that tells of it, after everything that is pending.

        Raises FeedEnded once the run's end is being committed, and what the store raises.
        """
        await self._whole(self._commit_effect(effect, kind, data))
        if self._pause_s:
            await asyncio.sleep(self._pause_s)

    async def _commit_effect(self, effect: Effect, kind: str, data: JsonObject) -> None:
        async with self._lock:
            if self._ending:
                raise FeedEnded
            with self._taken() as batch:
                batch = [*batch, self._make(kind, data, self._counted(kind, data)[0])]
                await self._store.append_effect(effect, self._epoch, batch)
                self._publish(batch)

    async def void(self, effects: Sequence[Effect], kind: str, data: JsonObject) -> None:
        """Have no replay answer from these effects any more, with the event that tells of it."""
        await self._whole(self._void(effects, kind, data))

    async def _void(self, effects: Sequence[Effect], kind: str, data: JsonObject) -> None:
        async with self._lock:
            with self._taken() as batch:
                batch = [*batch, self.make(kind, data)]
                positions = [effect.position for effect in effects]
                await self._store.void_effects(self.run_id, self._epoch, -1, events=batch, only=positions)
                self._publish(batch)

    async def finish(
        self, changes: RunChanges, last: Sequence[tuple[str, JsonObject]], messages: Sequence[JsonObject] = ()
    ) -> None:
        """Commit how the run stands now, with its last events (kind and data); later ones are dropped."""
        await self._whole(self._finish(changes, last, messages))

    async def _finish(
        self, changes: RunChanges, last: Sequence[tuple[str, JsonObject]], messages: Sequence[JsonObject]
    ) -> None:
        async with self._lock:
            self._ending = True
            with self._taken() as pending:
                events = [*pending, *(self.make(kind, data) for kind, data in last)]
                await self._store.finish_run(self.run_id, self._epoch, changes, events, messages)
                self.finished = True
                self._publish(events)

    def close(self) -> None:
        """Let watchers go: no further event will come."""
        self._ending = self.finished = True
        self._backlog.bytes -= self._waiting()
        self._pending = []
        if self._timer is not None:
            self._timer.cancel()
        self._changed.set()

    async def _whole(self, commit: Coroutine[Any, Any, None]) -> None:
        """Wait for a commit that goes on if its caller is cancelled: half of one would lose or repeat events."""
        task = asyncio.ensure_future(commit)
        self._commits.add(task)
        task.add_done_callback(self._committed_or_not)
        await asyncio.shield(task)

    def _committed_or_not(self, task: "asyncio.Task[None]") -> None:
        self._commits.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and not isinstance(failure, FeedEnded):
            _log.warning("a commit of run %s failed: %s", self.run_id, failure)

    @contextlib.contextmanager
    def _taken(self) -> Iterator[list[Event]]:
        """Take what is pending; it is pending again, for the next commit, when this one fails."""
        waiting = self._waiting()
        batch, self._pending = self._pending, []
        try:
            yield batch
        except BaseException:
            self._pending[:0] = batch
            raise
        self._backlog.bytes -= waiting

    def _waiting(self) -> int:
        return sum(self._sizes[event.seq] for event in self._pending)

    def _flush_soon(self) -> None:
        self._timer = None
        task = asyncio.ensure_future(self._flush())
        self._commits.add(task)
        task.add_done_callback(self._committed_or_not)

    async def watch(self, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events above `after`, those to come too, until the run's last one."""
        while True:
            changed, finished = self._changed, self.finished
            async for event in self._available(after):
                after = event.seq
                yield event
            if finished:
                return
            if changed is self._changed:
                await changed.wait()

    async def _available(self, after: int) -> AsyncIterator[Event]:
        while after < self._dropped and (page := await self._store.list_events(self.run_id, after)):
            for event in page:
                after = event.seq
                yield event
        for event in self._committed[bisect_right(self._committed, after, key=lambda event: event.seq) :]:
            yield event

    def _publish(self, batch: Sequence[Event]) -> None:
        self._committed.extend(batch)
        self._kept_bytes += sum(self._sizes[event.seq] for event in batch)
        excess = 0
        while excess < len(self._committed) and (
            len(self._committed) - excess > _KEPT or self._kept_bytes > _KEPT_BYTES
        ):
            self._kept_bytes -= self._sizes.pop(self._committed[excess].seq)
            excess += 1
        if excess:
            self._dropped = self._committed[excess - 1].seq
            del self._committed[:excess]
        self._changed.set()
        self._changed = asyncio.Event()
