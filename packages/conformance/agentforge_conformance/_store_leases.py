"""Leases and many callers: the part of the store suite about who may write and what is seen then."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec import structs

from agentforge.errors.store import (
    LeaseLost,
    StoreClosed,
    ValueNotStorable,
)
from agentforge.store import (
    Attempt,
    Lease,
    RunId,
    Store,
)
from agentforge_conformance._store_records import (
    LARGE,
    NOW,
    OTHER,
    PROJECT,
    VERSION,
    effect,
    events,
    new_run,
    run_of,
    seqs,
)

__all__ = ["LeaseTests"]


class LeaseTests:
    """Who may write, and what everybody then sees."""

    # Projects and leases

    async def test_a_project_begins_with_epoch_one_and_each_lease_raises_it(self, store: Store) -> None:
        """Epochs are per project."""
        assert await store.get_lease(PROJECT) is None
        taken = [await store.acquire_lease(*one) for one in ((PROJECT, "a"), (PROJECT, "b"), (OTHER, "c"))]
        assert [structs.replace(lease, renewed_at=NOW) for lease in taken] == [
            Lease(PROJECT, 1, "a", NOW),
            Lease(PROJECT, 2, "b", NOW),
            Lease(OTHER, 1, "c", NOW),
        ]
        assert await store.get_lease(PROJECT) == taken[1]
        assert [project.project for project in await store.list_projects()] == [PROJECT, OTHER]

    async def test_a_lease_can_be_renewed_until_another_host_has_it(self, store: Store, second_store: Store) -> None:
        """Who else wants the project sees when its holder was there last, by the holder's clock."""
        lease = await store.acquire_lease(PROJECT, "a")
        for at in (NOW + 5, NOW - 5):
            await store.renew_lease(lease, at)
            assert await second_store.get_lease(PROJECT) == Lease(PROJECT, 1, "a", at)
        taken = await second_store.acquire_lease(PROJECT, "b")
        with pytest.raises(LeaseLost):
            await store.renew_lease(lease, NOW + 9)
        with pytest.raises(LeaseLost):
            await store.renew_lease(Lease(OTHER, 1, "a"), NOW)
        assert await store.get_lease(PROJECT) == taken

    async def test_hosts_that_ask_at_once_get_different_epochs(self, store: Store, second_store: Store) -> None:
        """Two connections never win the same epoch."""
        stores = [store, second_store] * 10
        leases = await asyncio.gather(*(one.acquire_lease(PROJECT, str(n)) for n, one in enumerate(stores)))
        assert sorted(lease.epoch for lease in leases) == list(range(1, 21))

    async def test_a_lost_lease_fences_every_write_and_leaves_nothing_behind(
        self, store: Store, second_store: Store, lease: Lease
    ) -> None:
        """The old host can write nothing any more, not even what it began."""
        run_id = await new_run(store, lease, thread="q3")
        await store.start_attempt(Attempt(run_id, 1, "worker", NOW), lease.epoch)
        before = await store.get_run(run_id)
        await second_store.acquire_lease(PROJECT, "second host")
        old = lease.epoch
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: store.create_run(run_of(old)),
            lambda: store.import_run(run_of(old), VERSION, [], [], [], old),
            lambda: store.claim_run(run_id, old),
            lambda: store.claim_runs(PROJECT, old),
            lambda: store.update_run(run_id, old, status="running"),
            lambda: store.start_attempt(Attempt(run_id, 2, "worker", NOW), old),
            lambda: store.finish_attempt(run_id, 1, old, status="failed", finished_at=NOW),
            lambda: store.append_events(run_id, old, events(run_id, 1)),
            lambda: store.append_effect(effect(run_id, 0), old, events(run_id, 1)),
            lambda: store.void_effects(run_id, old, -1, {"status": "queued"}, events(run_id, 1)),
            lambda: store.finish_run(run_id, old, {"status": "failed"}, events(run_id, 1), [{"role": "user"}]),
            lambda: store.append_messages(run_id, old, [{"role": "user"}]),
            lambda: store.remove_messages(run_id, old),
            lambda: store.delete_run(run_id, old),
            lambda: store.delete_thread(PROJECT, "q3", old),
        ]
        for write in writes:
            with pytest.raises(LeaseLost):
                await write()
        assert await store.get_run(run_id) == before
        assert len((await store.list_runs(PROJECT))[0]) == 1
        assert await store.list_attempts(run_id) == [Attempt(run_id, 1, "worker", NOW)]
        assert await store.list_events(run_id) == []
        assert await store.list_effects(run_id) == []
        assert await store.list_messages(PROJECT, "q3") == []

    async def test_a_new_host_writes_a_run_only_after_claiming_it(
        self, store: Store, second_store: Store, lease: Lease
    ) -> None:
        """The project's epoch alone is not enough: the run needs it too."""
        run_id = await new_run(store, lease)
        await store.append_events(run_id, lease.epoch, events(run_id, 1))
        new = (await second_store.acquire_lease(PROJECT, "second host")).epoch
        with pytest.raises(LeaseLost):
            await second_store.append_events(run_id, new, events(run_id, 2))
        claimed = await second_store.claim_run(run_id, new)
        assert claimed.lease_epoch == new
        await second_store.append_events(run_id, new, events(run_id, 2))
        with pytest.raises(LeaseLost):
            await store.append_events(run_id, lease.epoch, events(run_id, 3))
        assert seqs(await store.list_events(run_id)) == [1, 2]

    async def test_a_host_that_is_fenced_in_mid_stream_keeps_exactly_what_was_acknowledged(
        self, store: Store, second_store: Store, lease: Lease
    ) -> None:
        """Whatever the interleaving, an append is acknowledged and there, or refused and not there."""
        run_id = await new_run(store, lease)

        async def append(seq: int) -> int | None:
            try:
                await store.append_events(run_id, lease.epoch, events(run_id, seq))
            except LeaseLost:
                return None
            return seq

        appends = [asyncio.create_task(append(seq)) for seq in range(1, 101)]
        await appends[0]
        await second_store.acquire_lease(PROJECT, "second host")
        last = asyncio.create_task(append(101))
        kept = [seq for seq in await asyncio.gather(*appends, last) if seq is not None]
        assert await last is None
        assert seqs(await second_store.list_events(run_id)) == kept

    async def test_a_lease_taken_between_two_appends_stops_the_second(self, store: Store, lease: Lease) -> None:
        """Also when all of them are committed together."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        outcomes = await asyncio.gather(
            *(store.append_events(run_id, epoch, events(run_id, seq)) for seq in (1, 2, 3)),
            store.acquire_lease(PROJECT, "second host"),
            store.append_events(run_id, epoch, events(run_id, 4)),
            return_exceptions=True,
        )
        assert isinstance(outcomes[-1], LeaseLost)
        assert seqs(await store.list_events(run_id)) == [1, 2, 3]

    # Many callers

    async def test_two_hundred_concurrent_appends_keep_the_order_of_each_run(
        self, store: Store, second_store: Store, lease: Lease
    ) -> None:
        """What an earlier call wrote is never missing when a later one is acknowledged."""
        runs = [await new_run(store, lease) for _ in range(20)]
        acknowledged: dict[RunId, list[int]] = {run_id: [] for run_id in runs}

        async def append(run_id: RunId, seq: int) -> None:
            data = {"text": LARGE} if seq == 3 else None
            await store.append_events(run_id, lease.epoch, events(run_id, seq, data=data))
            acknowledged[run_id].append(seq)

        await asyncio.gather(*(append(run_id, seq) for seq in range(1, 11) for run_id in runs))
        for run_id in runs:
            assert acknowledged[run_id] == list(range(1, 11))
            assert seqs(await second_store.list_events(run_id)) == list(range(1, 11))

    async def test_a_read_sees_every_acknowledged_write(self, store: Store, second_store: Store, lease: Lease) -> None:
        """On this store and on another one, while others write."""
        run_id, busy = await new_run(store, lease), await new_run(store, lease)
        noise = asyncio.gather(*(store.append_events(busy, lease.epoch, events(busy, seq)) for seq in range(1, 200)))
        for seq in range(1, 20):
            await store.append_events(run_id, lease.epoch, events(run_id, seq))
            assert seqs(await store.list_events(run_id)) == list(range(1, seq + 1))
            assert seqs(await second_store.list_events(run_id, after=seq - 1)) == [seq]
        await noise

    async def test_a_cancelled_caller_disturbs_no_other(self, store: Store, lease: Lease) -> None:
        """Its own write may or may not have happened."""
        run_id = await new_run(store, lease)
        given_up = asyncio.create_task(store.append_events(run_id, lease.epoch, events(run_id, 1)))
        going_on = asyncio.create_task(store.append_events(run_id, lease.epoch, events(run_id, 2)))
        await asyncio.sleep(0)
        given_up.cancel()
        await going_on
        assert 2 in seqs(await store.list_events(run_id))

    async def test_closing_commits_what_was_asked_for_and_then_refuses(
        self, store: Store, second_store: Store, lease: Lease
    ) -> None:
        """A second close does nothing."""
        run_id = await new_run(store, lease)
        pending = [
            asyncio.ensure_future(store.append_events(run_id, lease.epoch, events(run_id, seq))) for seq in range(1, 21)
        ]
        await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(*pending)
        await store.close()
        assert seqs(await second_store.list_events(run_id)) == list(range(1, 21))
        with pytest.raises(StoreClosed):
            await store.get_run(run_id)
        with pytest.raises(StoreClosed):
            await store.append_events(run_id, lease.epoch, events(run_id, 21))

    async def test_values_that_are_no_json_are_refused_and_odd_text_is_kept(self, store: Store, lease: Lease) -> None:
        """A model may send half a surrogate pair; that must not lose the run."""
        run_id = await new_run(store, lease)
        with pytest.raises(ValueNotStorable):
            await store.append_events(run_id, lease.epoch, events(run_id, 1, data={"x": object()}))
        odd = {"text": "\ud83d \x00 ü", "number": 2**70, "nested": [{"": None}]}
        await store.append_events(run_id, lease.epoch, events(run_id, 1, data=odd))
        assert (await store.list_events(run_id))[0].data == odd
