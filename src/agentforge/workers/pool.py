"""Workers shared among runs: started when first needed, reused by runs of the same key, stopped when idle."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from agentforge.workers.process import Worker
from agentforge.workers.spec import WorkerSpec

__all__ = ["Pool", "PoolLimits"]

Starter = Callable[[str, WorkerSpec], Awaitable[Worker]]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of a pool."""

    workers_per_key: int = 2
    """Processes for runs of one key."""
    runs_per_worker: int = 1000
    """Runs at once in a process that can serve many."""
    idle_s: float = 300.0
    """Seconds without a run after which a worker is stopped."""


@dataclass(eq=False)
class _Seat:
    worker: Worker
    capacity: int
    active: int = 0
    retired: bool = False
    idle_since: float = field(default_factory=time.monotonic)


class _Group:
    """The workers of one key and those who wait for one."""

    def __init__(self) -> None:
        self.seats: list[_Seat] = []
        self.starting = 0
        self.waiters: list[asyncio.Future[None]] = []
        self.failure: BaseException | None = None

    def free_seat(self) -> _Seat | None:
        free = [s for s in self.seats if s.worker.alive and not s.retired and s.active < s.capacity]
        return min(free, key=lambda seat: seat.active, default=None)

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


class Pool:
    """Leases workers to runs. `start` makes one; it is called for each key at most `workers_per_key` times at once."""

    def __init__(self, start: Starter, limits: PoolLimits = PoolLimits()) -> None:
        self._start = start
        self._limits = limits
        self._groups: dict[str, _Group] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._closed = False

    @contextlib.asynccontextmanager
    async def lease(self, spec: WorkerSpec) -> AsyncIterator[Worker]:
        """Give a worker for one run. Raises what starting one raises."""
        seat = await self._take(spec)
        seat.active += 1
        try:
            yield seat.worker
        finally:
            seat.active -= 1
            seat.idle_since = time.monotonic()
            if seat.retired and seat.active == 0:
                self._spawn(seat.worker.stop("retired"))
            self._groups[spec.key].wake()

    def retire(self, worker: Worker) -> None:
        """Give a worker no further run and stop it when its last one ends."""
        for group in self._groups.values():
            for seat in group.seats:
                if seat.worker is worker:
                    seat.retired = True
                    if seat.active == 0:
                        self._spawn(worker.stop("retired"))

    def workers(self) -> list[tuple[Worker, int]]:
        """Return the live workers, each with the number of its runs."""
        return [(s.worker, s.active) for g in self._groups.values() for s in g.seats if not s.worker.ended.done()]

    async def close(self) -> None:
        """Stop all workers."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        live = [seat.worker for group in self._groups.values() for seat in group.seats if not seat.worker.ended.done()]
        await asyncio.gather(*(worker.stop("host stops") for worker in live))
        for group in self._groups.values():
            group.wake()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- inside

    async def _take(self, spec: WorkerSpec) -> _Seat:
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._stop_idle())
        group = self._groups.setdefault(spec.key, _Group())
        while True:
            if self._closed:
                raise asyncio.CancelledError
            seat = group.free_seat()
            if seat is not None:
                return seat
            if len(group.seats) + group.starting < self._limits.workers_per_key and not group.starting:
                self._spawn(self._add(spec, group))
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            group.waiters.append(waiter)
            failures = group.failure
            await waiter
            if group.failure is not None and group.failure is not failures and not group.seats:
                raise group.failure

    async def _add(self, spec: WorkerSpec, group: _Group) -> None:
        group.starting += 1
        try:
            worker = await self._start(f"w{next(self._numbers)}", spec)
        except Exception as error:
            group.failure = error
        else:
            group.seats.append(_Seat(worker, self._capacity(worker)))
            worker.ended.add_done_callback(lambda _: self._forget(group, worker))
        finally:
            group.starting -= 1
            group.wake()

    def _capacity(self, worker: Worker) -> int:
        concurrent = bool(worker.hello.get("capabilities", {}).get("concurrent"))
        if worker.spec.concurrency:
            return worker.spec.concurrency
        return self._limits.runs_per_worker if concurrent else 1

    def _forget(self, group: _Group, worker: Worker) -> None:
        group.seats = [seat for seat in group.seats if seat.worker is not worker]
        group.wake()

    async def _stop_idle(self) -> None:
        while True:
            await asyncio.sleep(min(self._limits.idle_s / 4, 15.0))
            limit = time.monotonic() - self._limits.idle_s
            for key, group in list(self._groups.items()):
                for seat in group.seats:
                    if not seat.active and seat.idle_since < limit and not seat.retired:
                        seat.retired = True
                        self._spawn(seat.worker.stop("idle"))
                if not group.seats and not group.starting and not group.waiters:
                    del self._groups[key]

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
