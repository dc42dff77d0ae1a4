"""Workers shared among runs: started when first needed, reused by runs of the same key, stopped when idle."""

import asyncio
import collections
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from agentforge.errors.workers import HandshakeFailed, WorkerDied, WorkerStartFailed
from agentforge.workers.process import Worker
from agentforge.workers.spec import WorkerSpec

__all__ = ["Pool", "PoolLimits"]

Starter = Callable[[str, WorkerSpec], Awaitable[Worker]]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds of a pool."""

    workers: int = 16
    """Processes in the whole pool; the one idle for longest makes room for a key that has none."""
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
    """The workers of one key and those who wait for one, first come first served."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.seats: list[_Seat] = []
        self.starting = False
        self.waiters: collections.deque[asyncio.Future[_Seat]] = collections.deque()

    def usable(self) -> list[_Seat]:
        return [seat for seat in self.seats if seat.worker.alive and not seat.retired]

    def hand_out(self) -> None:
        """Give free seats to those who wait."""
        while self.waiters:
            if self.waiters[0].done():  # gave up waiting
                self.waiters.popleft()
                continue
            free = [seat for seat in self.usable() if seat.active < seat.capacity]
            if not free:
                return
            seat = min(free, key=lambda seat: seat.active)
            seat.active += 1
            self.waiters.popleft().set_result(seat)

    def fail(self, error: Exception) -> None:
        """Tell all who wait that there will be no worker."""
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self.waiters.clear()


class Pool:
    """Leases workers to runs. `start` makes one, for each key one at a time; their ids begin with `prefix`."""

    def __init__(self, start: Starter, limits: PoolLimits = PoolLimits(), prefix: str = "w") -> None:
        self._start = start
        self._limits = limits
        self._prefix = prefix
        self._groups: dict[str, _Group] = {}
        self._numbers = itertools.count(1)
        self._starts: set[asyncio.Task[None]] = set()
        self._stops: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._closed = False

    @contextlib.asynccontextmanager
    async def lease(self, spec: WorkerSpec) -> AsyncIterator[Worker]:
        """Give a worker for one run. Raises what starting one raises, WorkerStartFailed while the pool closes."""
        if self._closed:
            raise _closing()
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._stop_idle())
        group = self._groups.setdefault(spec.key, _Group(spec))
        seat = await self._take(group)
        try:
            yield seat.worker
        finally:
            self._give_back(group, seat)

    def retire(self, worker: Worker) -> None:
        """Give a worker no further run and stop it when its last one ends."""
        for group in list(self._groups.values()):
            for seat in group.seats:
                if seat.worker is worker and not seat.retired:
                    self._retire(seat, "retired")
                    self._serve(group)

    def workers(self) -> list[tuple[Worker, int]]:
        """Return the live workers, each with the number of its runs."""
        return [(s.worker, s.active) for g in self._groups.values() for s in g.seats if not s.worker.ended.done()]

    async def close(self) -> None:
        """Stop all workers; who still waits for one gets WorkerStartFailed."""
        self._closed = True
        if self._reaper is not None:
            self._reaper.cancel()
        for task in self._starts:
            task.cancel()
        await asyncio.gather(*self._starts, return_exceptions=True)
        for group in self._groups.values():
            group.fail(_closing())
        live = [worker for worker, _ in self.workers()]
        await asyncio.gather(*(worker.stop("host stops") for worker in live))
        await asyncio.gather(*self._stops, return_exceptions=True)

    # ---- inside

    async def _take(self, group: _Group) -> _Seat:
        waiter: asyncio.Future[_Seat] = asyncio.get_running_loop().create_future()
        group.waiters.append(waiter)
        self._serve(group)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled() and waiter.exception() is None:  # it had been given a seat already
                self._give_back(group, waiter.result())
            raise

    def _give_back(self, group: _Group, seat: _Seat) -> None:
        seat.active -= 1
        seat.idle_since = time.monotonic()
        if seat.retired:
            self._retire(seat, "retired")
        self._serve(group)
        if not seat.active:
            self._serve_waiting()

    def _serve(self, group: _Group) -> None:
        group.hand_out()
        room = len(group.usable()) < self._limits.workers_per_key
        if group.waiters and room and not group.starting and not self._closed and self._room():
            group.starting = True
            _keep(self._starts, self._add(group))

    def _serve_waiting(self) -> None:
        """Serve every group that waits: a process has ended or become idle, and its room is anybody's."""
        for group in list(self._groups.values()):
            if group.waiters:
                self._serve(group)

    def _serve_destitute(self) -> None:
        """Serve the groups that wait and have no worker: a start has failed, and its room is theirs.

        The others try again when one of their workers is given back: now, starts that fail would take turns for ever.
        """
        for group in list(self._groups.values()):
            if group.waiters and not group.usable():
                self._serve(group)

    def _room(self) -> bool:
        """Whether one more process may start; if not, have the one that was idle longest make room."""
        groups = self._groups.values()
        seats = [seat for group in groups for seat in group.seats]
        if len(seats) + sum(group.starting for group in groups) < self._limits.workers:
            return True
        idle = [seat for seat in seats if not seat.active]
        if idle and not any(seat.retired for seat in idle):  # else room is being made already
            self._retire(min(idle, key=lambda seat: seat.idle_since), "made room")
        return False

    async def _add(self, group: _Group) -> None:
        try:
            seat = await self._new_seat(group.spec)
        except Exception as error:
            group.starting = False
            if not group.usable():  # else they wait for a worker that is there; the next free seat tries a start again
                group.fail(error)
            self._serve_destitute()
            return
        finally:
            group.starting = False
        group.seats.append(seat)
        seat.worker.ended.add_done_callback(lambda _: self._forget(group, seat.worker))
        self._serve(group)

    async def _new_seat(self, spec: WorkerSpec) -> _Seat:
        worker = await self._start(f"{self._prefix}{next(self._numbers)}", spec)
        try:
            if not worker.alive:
                raise WorkerDied(f"worker `{worker.id}` of `{spec.label}` ended right after its start")
            return _Seat(worker, self._capacity(worker))
        except BaseException:
            if not worker.ended.done():
                await worker.kill("its start failed")
            raise

    def _capacity(self, worker: Worker) -> int:
        capabilities = worker.hello.get("capabilities", {})
        if not isinstance(capabilities, dict):
            raise HandshakeFailed(f"worker `{worker.spec.label}` says of its capabilities `{capabilities!r:.200}`")
        concurrent = bool(capabilities.get("native_concurrent" if worker.spec.native else "concurrent"))
        most = self._limits.runs_per_worker
        return min(worker.spec.concurrency or most, most) if concurrent else 1

    def _forget(self, group: _Group, worker: Worker) -> None:
        group.seats = [seat for seat in group.seats if seat.worker is not worker]
        self._serve_waiting()

    def _retire(self, seat: _Seat, reason: str) -> None:
        seat.retired = True
        if not seat.active and not seat.worker.ended.done():
            _keep(self._stops, seat.worker.stop(reason))

    async def _stop_idle(self) -> None:
        while True:
            await asyncio.sleep(min(self._limits.idle_s / 4, 15.0))
            limit = time.monotonic() - self._limits.idle_s
            for key, group in list(self._groups.items()):
                for seat in group.usable():
                    if not seat.active and seat.idle_since < limit:
                        self._retire(seat, "idle")
                if not group.seats and not group.starting and not group.waiters:
                    del self._groups[key]


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _closing() -> WorkerStartFailed:
    return WorkerStartFailed("the host is stopping", hint="Send the run again; the next command starts a new host.")
