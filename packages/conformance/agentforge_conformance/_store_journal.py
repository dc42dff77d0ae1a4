"""Events, effects and threads: the part of the store suite about what is appended."""

import asyncio
import itertools

import pytest
from msgspec import structs

from agentforge.errors.store import (
    RecordExists,
    RunNotFound,
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
    effect,
    events,
    new_run,
    seqs,
)

__all__ = ["JournalTests"]


class JournalTests:
    """What is appended to a run and to its thread."""

    # The journal

    async def test_events_come_back_in_order_and_in_pages(self, store: Store, lease: Lease) -> None:
        """Small and large ones alike."""
        run_id = await new_run(store, lease)
        made = events(run_id, 1, 7) + events(run_id, 8, data={"text": LARGE}) + events(run_id, 9)
        await store.append_events(run_id, lease.epoch, made)
        await store.append_events(run_id, lease.epoch, [])
        assert await store.list_events(run_id) == made
        assert await store.list_events(run_id, after=3, limit=5) == made[3:8]
        assert await store.list_events(run_id, after=9) == []

    async def test_events_of_some_kinds_can_be_asked_for(self, store: Store, lease: Lease) -> None:
        """In order and in pages as all of them."""
        run_id = await new_run(store, lease)
        made = [structs.replace(e, kind="tool.called" if e.seq % 2 else "other") for e in events(run_id, 1, 7)]
        await store.append_events(run_id, lease.epoch, made)
        assert seqs(await store.list_events(run_id, kinds=["tool.called"])) == [1, 3, 5, 7]
        assert seqs(await store.list_events(run_id, after=1, limit=2, kinds={"tool.called"})) == [3, 5]
        assert await store.list_events(run_id, kinds=("other", "tool.called")) == made
        assert await store.list_events(run_id, kinds=[]) == []

    async def test_a_taken_seq_refuses_the_whole_append_and_nothing_else(self, store: Store, lease: Lease) -> None:
        """Its neighbours in the same commit are untouched, whatever came first."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        await store.append_events(run_id, epoch, events(run_id, 5))
        outcomes = await asyncio.gather(
            store.append_events(run_id, epoch, events(run_id, 1, 2)),
            store.append_events(run_id, epoch, events(run_id, 3, 3)),
            store.update_run(run_id, epoch, status="running"),
            store.append_events(RunId("unknown"), epoch, []),
            store.append_events(run_id, epoch, events(run_id, 6, 2)),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [
            type(None),
            RecordExists,
            type(None),
            RunNotFound,
            type(None),
        ]
        assert seqs(await store.list_events(run_id)) == [1, 2, 5, 6, 7]
        assert (await store.get_run(run_id)).status == "running"

    async def test_events_of_another_run_are_refused(self, store: Store, lease: Lease) -> None:
        """They would pass the fence of this one."""
        run_id, other = await new_run(store, lease), await new_run(store, lease)
        with pytest.raises(ValueError, match=run_id):
            await store.append_events(run_id, lease.epoch, events(run_id, 1) + events(other, 1))
        assert await store.list_events(run_id) == []

    async def test_effects_come_back_byte_for_byte(self, store: Store, lease: Lease) -> None:
        """With their events, in order of position."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        big = bytes(range(256)) * 1024
        made = [
            effect(run_id, 0),
            effect(run_id, 1, request=big, response=big[::-1], usage=None, cost_usd=None),
            effect(run_id, 2, kind="tool", request=b"", response=b"", status=500),
        ]
        for one in reversed(made):
            await store.append_effect(one, epoch, events(run_id, one.position + 1))
        assert await store.list_effects(run_id) == made
        assert await store.list_effects(run_id, after=0, limit=1) == made[1:2]
        assert seqs(await store.list_events(run_id)) == [1, 2, 3]

    async def test_an_effect_and_its_events_are_kept_together_or_not_at_all(self, store: Store, lease: Lease) -> None:
        """A taken position refuses the events, a taken seq the effect."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        await store.append_effect(effect(run_id, 0), epoch, events(run_id, 1))
        with pytest.raises(RecordExists):
            await store.append_effect(effect(run_id, 0), epoch, events(run_id, 2))
        with pytest.raises(RecordExists):
            await store.append_effect(effect(run_id, 1), epoch, events(run_id, 1))
        assert len(await store.list_effects(run_id)) == 1
        assert seqs(await store.list_events(run_id)) == [1]

    async def test_a_finished_run_has_its_changes_events_and_messages(self, store: Store, lease: Lease) -> None:
        """All of them in one step."""
        run_id, epoch = await new_run(store, lease, thread="q3"), lease.epoch
        await store.finish_run(
            run_id,
            epoch,
            {"status": "succeeded", "output": "412.5", "finished_at": NOW},
            events(run_id, 1),
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": LARGE}],
        )
        run = await store.get_run(run_id)
        assert (run.status, run.output, run.finished_at) == ("succeeded", "412.5", NOW)
        assert seqs(await store.list_events(run_id)) == [1]
        messages = await store.list_messages(PROJECT, "q3")
        assert [(m.seq, m.run_id, m.message["content"]) for m in messages] == [
            (1, run_id, "?"),
            (2, run_id, LARGE),
        ]

    async def test_a_finish_that_fails_changes_nothing(self, store: Store, lease: Lease) -> None:
        """Neither through a taken seq nor for want of a thread."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        await store.append_events(run_id, epoch, events(run_id, 1))
        with pytest.raises(RecordExists):
            await store.finish_run(run_id, epoch, {"status": "failed"}, events(run_id, 1))
        with pytest.raises(ValueError, match="thread"):
            await store.finish_run(run_id, epoch, {"status": "failed"}, events(run_id, 2), [{"role": "user"}])
        assert (await store.get_run(run_id)).status == "queued"
        assert seqs(await store.list_events(run_id)) == [1]

    async def test_a_deleted_run_is_gone_with_its_parts(self, store: Store, lease: Lease) -> None:
        """Its thread's messages stay; a run of an earlier host can be deleted as well."""
        run_id, kept = await new_run(store, lease, thread="q3"), await new_run(store, lease)
        await store.start_attempt(Attempt(run_id, 1, "w", NOW), lease.epoch)
        await store.append_effect(effect(run_id, 0), lease.epoch, events(run_id, 1))
        await store.append_messages(run_id, lease.epoch, [{"role": "user"}])
        new = await store.acquire_lease(PROJECT, "second host")
        await store.delete_run(run_id, new.epoch)
        with pytest.raises(RunNotFound):
            await store.get_run(run_id)
        assert await store.list_attempts(run_id) == []
        assert await store.list_effects(run_id) == []
        assert await store.list_events(run_id) == []
        assert len(await store.list_messages(PROJECT, "q3")) == 1
        assert [run.run_id for run in (await store.list_runs(PROJECT))[0]] == [kept]

    # Threads

    async def test_messages_of_many_runs_are_numbered_through(self, store: Store, lease: Lease) -> None:
        """Also when the runs add theirs at once."""
        runs = [await new_run(store, lease, thread="q3") for _ in range(5)]
        added = await asyncio.gather(
            *(store.append_messages(run, lease.epoch, [{"from": run}, {"to": run}]) for run in runs)
        )
        found = await store.list_messages(PROJECT, "q3")
        assert [message.seq for message in found] == list(range(1, 11))
        assert sorted(itertools.chain(*added), key=lambda message: message.seq) == found
        assert await store.list_messages(PROJECT, "q3", after=2, limit=3) == found[2:5]
        assert await store.list_messages(PROJECT, "unknown") == []

    async def test_a_long_thread_and_a_long_journal_come_whole(self, store: Store, lease: Lease) -> None:
        """Without a limit there is none."""
        run_id = await new_run(store, lease, thread="q3")
        await store.append_messages(run_id, lease.epoch, [{"n": n} for n in range(10_500)])
        await store.append_events(run_id, lease.epoch, events(run_id, 1, 1500))
        found = await store.list_messages(PROJECT, "q3", limit=None)
        assert [message.message["n"] for message in found] == list(range(10_500))
        assert len(await store.list_messages(PROJECT, "q3")) == len(await store.list_events(run_id)) == 1000
        assert len(await store.list_events(run_id, limit=None)) == 1500

    async def test_threads_belong_to_their_project_and_can_be_deleted(self, store: Store, lease: Lease) -> None:
        """The same name in another project is another thread."""
        other = await store.acquire_lease(OTHER, "host")
        mine, theirs = await new_run(store, lease, thread="q3"), await new_run(store, other, thread="q3")
        await store.append_messages(mine, lease.epoch, [{"n": 1}, {"n": 2}])
        await store.append_messages(theirs, other.epoch, [{"n": 3}])
        [thread] = await store.list_threads(PROJECT)
        assert (thread.project, thread.thread, thread.messages) == (PROJECT, "q3", 2)
        assert await store.delete_thread(PROJECT, "q3", lease.epoch) == 2
        assert await store.list_threads(PROJECT) == []
        assert await store.delete_thread(PROJECT, "q3", lease.epoch) == 0
        assert len(await store.list_messages(OTHER, "q3")) == 1

    async def test_what_a_run_said_can_be_taken_back(self, store: Store, lease: Lease) -> None:
        """What others said in its thread stays, with its numbers."""
        one, other = await new_run(store, lease, thread="q3"), await new_run(store, lease, thread="q3")
        await store.append_messages(one, lease.epoch, [{"n": 1}, {"n": 2}])
        await store.append_messages(other, lease.epoch, [{"n": 3}])
        assert await store.remove_messages(one, lease.epoch) == 2
        assert [(each.seq, each.message) for each in await store.list_messages(PROJECT, "q3")] == [(3, {"n": 3})]
        assert await store.remove_messages(one, lease.epoch) == 0

    async def test_a_run_without_a_thread_takes_no_messages(self, store: Store, lease: Lease) -> None:
        """They would belong nowhere."""
        run_id = await new_run(store, lease)
        with pytest.raises(ValueError, match="thread"):
            await store.append_messages(run_id, lease.epoch, [{"role": "user"}])
