"""The pool: who shares a worker, who waits, what happens when workers fail to come or go away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agentforge.errors.workers import HandshakeFailed, WorkerDied, WorkerStartFailed
from agentforge.workers.pool import Pool, PoolLimits
from agentforge.workers.spec import WorkerSpec


class StandIn:
    """A worker without a process."""

    def __init__(self, worker_id: str, spec: WorkerSpec, capabilities: Any) -> None:
        self.id = worker_id
        self.spec = spec
        self.hello = {"capabilities": capabilities}
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.stopped: list[str] = []

    @property
    def alive(self) -> bool:
        return not self.ended.done()

    async def stop(self, reason: str = "stopped") -> None:
        self.stopped.append(reason)
        await asyncio.sleep(0)
        self.die()

    async def kill(self, reason: str) -> None:
        await self.stop(f"killed: {reason}")

    def die(self) -> None:
        if not self.ended.done():
            self.ended.set_result("gone")


class Starter:
    """Starts stand-ins when the test says so."""

    def __init__(self, concurrent: bool = True) -> None:
        self.started: list[StandIn] = []
        self.asked = 0
        self.cancelled = 0
        self.capabilities: Any = {"concurrent": concurrent, "native_concurrent": False}
        self.failure: Exception | None = None
        self.failure_of: str | None = None
        """The agent version that alone fails; None means all."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.dies_at_once = False

    async def __call__(self, worker_id: str, spec: WorkerSpec) -> Any:
        self.asked += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure is not None and self.failure_of in (None, spec.agent_version):
            raise self.failure
        worker = StandIn(worker_id, spec, self.capabilities)
        if self.dies_at_once:
            worker.die()
        self.started.append(worker)
        return worker


@contextlib.asynccontextmanager
async def pool(starter: Starter, **limits: Any) -> AsyncIterator[Pool]:
    made = Pool(starter, PoolLimits(**limits))
    try:
        yield made
    finally:
        await made.close()
        for each in Lease.all:
            each.task.cancel()
        await asyncio.gather(*(each.task for each in Lease.all), return_exceptions=True)
        Lease.all.clear()


def spec(version: str = "v1", **changes: Any) -> WorkerSpec:
    return WorkerSpec("agent", "env", Path("/python"), version, **changes)


class Lease:
    """A lease as a run holds it: taken and given back when the test says so."""

    all: ClassVar[list["Lease"]] = []

    def __init__(self, made: Pool, wanted: WorkerSpec) -> None:
        self.worker: Any = None
        self._over = asyncio.Event()
        self.task = asyncio.create_task(self._hold(made, wanted))
        self.all.append(self)

    async def _hold(self, made: Pool, wanted: WorkerSpec) -> None:
        async with made.lease(wanted) as self.worker:
            await self._over.wait()

    async def give_back(self) -> None:
        self._over.set()
        await self.task
        await settle()


async def settle() -> None:
    """Let everything happen that can happen without us."""
    for _ in range(20):
        await asyncio.sleep(0)


async def lease(made: Pool, wanted: WorkerSpec | None = None) -> Lease:
    taken = Lease(made, wanted or spec())
    await settle()
    return taken


# ---- sharing and capacity


async def test_runs_of_one_key_share_a_worker() -> None:
    async with pool(starter := Starter()) as made:
        leases = [await lease(made) for _ in range(10)]
        assert {each.worker for each in leases} == set(starter.started)
        assert made.workers() == [(starter.started[0], 10)]
        for each in leases:
            await each.give_back()
        assert made.workers() == [(starter.started[0], 0)]


async def test_runs_of_different_keys_never_share() -> None:
    async with pool(starter := Starter()) as made:
        specs = [
            spec("v1"),
            spec("v2"),
            spec("v1", variables={"A": "1"}),
            WorkerSpec("tools", "env", Path("/python"), "v1"),
            WorkerSpec("agent", "other", Path("/python"), "v1"),
        ]
        leases = [await lease(made, each) for each in specs]
        assert len({each.worker for each in leases}) == len(specs) == len(starter.started)
        for each in leases:
            await each.give_back()


async def test_a_worker_is_reused_by_the_next_run() -> None:
    async with pool(starter := Starter()) as made:
        for _ in range(3):
            await (await lease(made)).give_back()
        assert len(starter.started) == 1


async def test_runs_that_come_while_the_worker_starts_wait_for_that_one() -> None:
    starter = Starter()
    starter.gate.clear()
    async with pool(starter) as made:
        leases = [await lease(made) for _ in range(5)]
        assert starter.asked == 1
        starter.gate.set()
        await settle()
        assert {each.worker for each in leases} == set(starter.started)
        assert len(starter.started) == 1


async def test_a_full_worker_gets_a_second_beside_it_and_no_third() -> None:
    async with pool(starter := Starter(), workers_per_key=2, runs_per_worker=2) as made:
        leases = [await lease(made) for _ in range(5)]
        assert len(starter.started) == 2
        assert [each.worker is not None for each in leases] == [True] * 4 + [False]
        await leases[0].give_back()
        assert leases[4].worker is leases[0].worker


async def test_the_least_busy_worker_takes_the_next_run() -> None:
    async with pool(starter := Starter(), workers_per_key=2, runs_per_worker=3) as made:
        leases = [await lease(made) for _ in range(4)]
        first, second = starter.started
        assert [each.worker for each in leases] == [first, first, first, second]
        await leases[0].give_back()
        await leases[1].give_back()
        assert (await lease(made)).worker in (first, second)
        assert (await lease(made)).worker in (first, second)
        assert sorted(count for _, count in made.workers()) == [2, 2]


async def test_a_worker_that_runs_one_at_a_time_gets_one_at_a_time() -> None:
    async with pool(Starter(concurrent=False), workers_per_key=1) as made:
        first, second = await lease(made), await lease(made)
        assert (first.worker is not None, second.worker) == (True, None)
        await first.give_back()
        assert second.worker is first.worker


async def test_a_concurrency_in_the_spec_bounds_a_worker_that_can_serve_many() -> None:
    async with pool(Starter(), workers_per_key=1) as made:
        leases = [await lease(made, spec(concurrency=2)) for _ in range(3)]
        assert [each.worker is not None for each in leases] == [True, True, False]


async def test_a_pool_bounds_what_a_spec_allows() -> None:
    async with pool(Starter(), workers_per_key=1, runs_per_worker=2) as made:
        leases = [await lease(made, spec(concurrency=3)) for _ in range(3)]
        assert [each.worker is not None for each in leases] == [True, True, False]


async def test_a_concurrency_in_the_spec_gives_no_more_to_a_worker_that_cannot() -> None:
    async with pool(Starter(concurrent=False), workers_per_key=1) as made:
        leases = [await lease(made, spec(concurrency=5)) for _ in range(2)]
        assert [each.worker is not None for each in leases] == [True, False]


async def test_native_agents_have_a_capability_of_their_own() -> None:
    async with pool(Starter(), workers_per_key=1) as made:
        leases = [await lease(made, spec(native=True)) for _ in range(2)]
        assert [each.worker is not None for each in leases] == [True, False]


# ---- waiting


async def test_who_waits_first_is_served_first() -> None:
    async with pool(Starter(concurrent=False), workers_per_key=1) as made:
        holder = await lease(made)
        waiting = [await lease(made) for _ in range(5)]
        for position, each in enumerate(waiting):
            await holder.give_back()
            assert [other.worker is not None for other in waiting[position:]] == [True] + [False] * (4 - position)
            holder = each
        await holder.give_back()


async def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    async with pool(Starter(concurrent=False), workers_per_key=1) as made:
        async with made.lease(spec()):
            waiting = await lease(made)
        newcomer = await lease(made)  # comes after the seat is free and before the one who waits has run
        assert waiting.worker is not None
        assert newcomer.worker is None


async def test_who_gives_up_waiting_holds_nobody_back() -> None:
    async with pool(Starter(concurrent=False), workers_per_key=1) as made:
        holder, quitter, waiting = [await lease(made) for _ in range(3)]
        quitter.task.cancel()
        await settle()
        await holder.give_back()
        assert waiting.worker is not None
        assert quitter.task.cancelled()


async def test_who_gives_up_in_the_moment_of_getting_a_seat_gives_it_back() -> None:
    async with pool(Starter(concurrent=False), workers_per_key=1) as made:
        async with made.lease(spec()):
            quitter = await lease(made)
        quitter.task.cancel()  # it has the seat and has not run since
        await settle()
        assert quitter.worker is None
        assert [count for _, count in made.workers()] == [0]
        assert (await lease(made)).worker is not None


async def test_a_start_goes_on_when_the_one_who_wanted_it_gives_up() -> None:
    starter = Starter()
    starter.gate.clear()
    async with pool(starter) as made:
        quitter, waiting = await lease(made), await lease(made)
        quitter.task.cancel()
        await settle()
        starter.gate.set()
        await settle()
        assert waiting.worker is starter.started[0]


# ---- starts that fail


async def test_a_failed_start_reaches_all_who_wait_and_the_next_run_tries_again() -> None:
    starter = Starter()
    starter.gate.clear()
    starter.failure = WorkerStartFailed("no such python")
    async with pool(starter) as made:
        leases = [await lease(made) for _ in range(3)]
        starter.gate.set()
        for each in leases:
            with pytest.raises(WorkerStartFailed, match="no such python"):
                await each.task
        starter.failure = None
        assert (await lease(made)).worker is not None
        assert starter.asked == 2


async def test_a_failed_start_of_a_second_worker_leaves_those_who_wait_to_the_first() -> None:
    async with pool(starter := Starter(concurrent=False), workers_per_key=2) as made:
        holder = await lease(made)
        starter.failure = WorkerStartFailed("no memory")
        waiting = await lease(made)
        assert not waiting.task.done()
        assert starter.asked == 2, "a start that fails must not be tried in a loop"
        await holder.give_back()
        assert waiting.worker is holder.worker


async def test_a_worker_that_dies_at_its_start_is_a_failed_start() -> None:
    starter = Starter()
    starter.dies_at_once = True
    async with pool(starter) as made:
        with pytest.raises(WorkerDied, match="right after its start"):
            await (await lease(made)).task
        assert made.workers() == []


async def test_the_room_of_a_start_that_failed_goes_to_the_next_key() -> None:
    starter = Starter()
    starter.gate.clear()
    starter.failure = WorkerStartFailed("no such python")
    async with pool(starter, workers=1) as made:
        failing, waiting = await lease(made, spec("failing")), await lease(made, spec("waiting"))
        assert starter.asked == 1
        starter.failure_of = "failing"
        starter.gate.set()
        await settle()
        with pytest.raises(WorkerStartFailed):
            await failing.task
        assert waiting.worker is starter.started[0]


async def test_starts_that_fail_do_not_take_turns() -> None:
    async with pool(starter := Starter(concurrent=False), workers_per_key=2) as made:
        for version in ("v1", "v2"):
            await lease(made, spec(version))
        starter.failure = WorkerStartFailed("no memory")
        for version in ("v1", "v2"):
            await lease(made, spec(version))
        assert starter.asked == 4


@pytest.mark.parametrize("capabilities", [None, ["concurrent"], "all"])
async def test_a_worker_that_introduces_itself_oddly_is_a_failed_start_and_killed(capabilities: Any) -> None:
    starter = Starter()
    starter.capabilities = capabilities
    async with pool(starter) as made:
        with pytest.raises(HandshakeFailed, match="capabilities"):
            await (await lease(made)).task
        assert starter.started[0].stopped == ["killed: its start failed"]
        assert made.workers() == []
        starter.capabilities = {}
        assert (await lease(made)).worker is not None


# ---- workers that go


async def test_a_dead_worker_is_forgotten_and_the_next_run_gets_a_new_one() -> None:
    async with pool(starter := Starter()) as made:
        first = await lease(made)
        starter.started[0].die()
        await settle()
        assert made.workers() == []
        second = await lease(made)
        assert second.worker is starter.started[1]
        await first.give_back()
        assert made.workers() == [(second.worker, 1)]


async def test_those_who_wait_for_a_worker_that_dies_get_a_new_one() -> None:
    async with pool(starter := Starter(concurrent=False), workers_per_key=1) as made:
        await lease(made)
        waiting = await lease(made)
        starter.started[0].die()
        await settle()
        assert waiting.worker is starter.started[1]


async def test_a_retired_worker_ends_with_its_last_run_and_gets_no_new_one() -> None:
    async with pool(starter := Starter()) as made:
        runs = [await lease(made) for _ in range(2)]
        old = starter.started[0]
        made.retire(runs[0].worker)
        later = await lease(made)
        assert later.worker is starter.started[1]
        await runs[0].give_back()
        assert old.stopped == []
        await runs[1].give_back()
        assert old.stopped == ["retired"]


async def test_a_retired_worker_without_runs_ends_at_once() -> None:
    async with pool(starter := Starter()) as made:
        await (await lease(made)).give_back()
        made.retire(starter.started[0])  # type: ignore[arg-type]
        made.retire(starter.started[0])  # type: ignore[arg-type]
        await settle()
        assert starter.started[0].stopped == ["retired"]


async def test_a_retired_worker_takes_no_place_from_its_successor() -> None:
    async with pool(starter := Starter(concurrent=False), workers_per_key=1) as made:
        hanging, waiting = await lease(made), await lease(made)
        made.retire(hanging.worker)
        await settle()
        assert waiting.worker is starter.started[1]


async def test_an_idle_worker_is_stopped_and_a_busy_one_is_not() -> None:
    async with pool(starter := Starter(), idle_s=0.02) as made:
        idle, busy = await lease(made, spec("idle")), await lease(made, spec("busy"))
        await idle.give_back()
        async with asyncio.timeout(5):
            await idle.worker.ended
        await settle()
        assert idle.worker.stopped == ["idle"]
        assert (await lease(made, spec("busy"))).worker is busy.worker
        assert made.workers() == [(busy.worker, 2)]
        again = await lease(made, spec("idle"))
        assert again.worker is starter.started[2]


async def test_a_lease_outlives_its_forgotten_group() -> None:
    async with pool(starter := Starter(), idle_s=0.01) as made:
        held = await lease(made)
        starter.started[0].die()
        other = await lease(made, spec("other"))
        await other.give_back()
        async with asyncio.timeout(5):
            await other.worker.ended  # the sweep has been here, so the group of the dead worker is gone too
        await held.give_back()


# ---- the end


async def test_closing_stops_all_workers_and_refuses_new_runs() -> None:
    async with pool(starter := Starter()) as made:
        for version in ("v1", "v2"):
            await (await lease(made, spec(version))).give_back()
        await made.close()
        assert [worker.stopped for worker in starter.started] == [["host stops"]] * 2
        with pytest.raises(WorkerStartFailed, match="stopping"):
            async with made.lease(spec()):
                pass


async def test_closing_ends_starts_under_way_and_those_who_wait_for_them() -> None:
    starter = Starter()
    starter.gate.clear()
    async with pool(starter) as made:
        waiting = await lease(made)
        await made.close()
        with pytest.raises(WorkerStartFailed, match="stopping"):
            await waiting.task
        assert starter.cancelled == 1
        assert starter.started == []


async def test_closing_with_runs_under_way_lets_them_give_back_what_is_gone() -> None:
    async with pool(starter := Starter(concurrent=False), workers_per_key=1) as made:
        holder, waiting = await lease(made), await lease(made)
        await made.close()
        with pytest.raises(WorkerStartFailed):
            await waiting.task
        await holder.give_back()
        assert len(starter.started) == 1
