"""Effects that a run has left, and whole runs that move: the part of the store suite about recovery."""

import asyncio

import pytest
from msgspec import structs

from agentforge.errors.store import LeaseLost, RecordExists, RunNotFound
from agentforge.store import AgentVersionId, Attempt, Effect, Lease, RunId, Store
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

__all__ = ["RecoveryTests"]


def positions(found: list[Effect]) -> list[int]:
    """Return the places of effects."""
    return [one.position for one in found]


class RecoveryTests:
    """What a rollback, a fork, an import and the next host do to runs."""

    # Voided effects

    async def test_voided_effects_are_kept_but_not_listed(self, store: Store, lease: Lease) -> None:
        """A second time nothing is left to void, and their places stay taken."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        made = [effect(run_id, position) for position in range(5)]
        for one in made:
            await store.append_effect(one, epoch)
        assert await store.void_effects(run_id, epoch, above=1) == 3
        assert await store.void_effects(run_id, epoch, above=1) == 0
        assert await store.list_effects(run_id) == made[:2]
        assert await store.list_effects(run_id, after=0, limit=1) == made[1:2]
        kept = made[:2] + [structs.replace(one, voided=True) for one in made[2:]]
        assert await store.list_effects(run_id, voided=True) == kept
        with pytest.raises(RecordExists):
            await store.append_effect(effect(run_id, 4), epoch)
        await store.append_effect(effect(run_id, 5), epoch)
        assert positions(await store.list_effects(run_id)) == [0, 1, 5]
        assert await store.void_effects(run_id, epoch, above=-1) == 3
        assert await store.list_effects(run_id) == []

    async def test_a_page_of_effects_has_valid_ones_only(self, store: Store, lease: Lease) -> None:
        """Voided ones take no room in it; without a limit all come."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        made = [effect(run_id, position, voided=position % 2 == 0) for position in range(1200)]
        await asyncio.gather(*(store.append_effect(one, epoch) for one in made))
        assert positions(await store.list_effects(run_id, limit=3)) == [1, 3, 5]
        assert positions(await store.list_effects(run_id, limit=3, voided=True)) == [0, 1, 2]
        assert len(await store.list_effects(run_id, limit=None, voided=True)) == 1200

    async def test_effects_are_voided_together_with_changes_and_events(self, store: Store, lease: Lease) -> None:
        """All or none."""
        run_id, epoch = await new_run(store, lease, status="failed"), lease.epoch
        await store.append_effect(effect(run_id, 0), epoch, events(run_id, 1))
        with pytest.raises(RecordExists):
            await store.void_effects(run_id, epoch, -1, {"status": "queued"}, events(run_id, 1))
        assert positions(await store.list_effects(run_id)) == [0]
        assert (await store.get_run(run_id)).status == "failed"
        changes = events(run_id, 2, data={"text": LARGE})
        assert await store.void_effects(run_id, epoch, -1, {"status": "queued", "labels": {"a": "b"}}, changes) == 1
        run = await store.get_run(run_id)
        assert (run.status, run.labels) == ("queued", {"a": "b"})
        assert (await store.list_runs(PROJECT, labels={"a": "b"}))[0] == [run]
        assert seqs(await store.list_events(run_id)) == [1, 2]

    async def test_effects_of_the_same_moment_are_voided_too(self, store: Store, lease: Lease) -> None:
        """In the order of the calls, also when all are committed together; other runs keep theirs."""
        run_id, other, epoch = await new_run(store, lease), await new_run(store, lease), lease.epoch
        outcomes = await asyncio.gather(
            store.append_effect(effect(run_id, 0), epoch),
            store.append_effect(effect(other, 0), epoch),
            store.append_effect(effect(run_id, 1), epoch),
            store.void_effects(run_id, epoch, 0),
            store.append_effect(effect(run_id, 2), epoch),
        )
        assert outcomes[3] == 1
        assert positions(await store.list_effects(run_id)) == [0, 2]
        assert positions(await store.list_effects(other)) == [0]

    async def test_effects_of_an_unknown_run_cannot_be_voided(self, store: Store, lease: Lease) -> None:
        """Nor those of a run with events of another one."""
        with pytest.raises(RunNotFound):
            await store.void_effects(RunId("unknown"), lease.epoch, -1)
        run_id = await new_run(store, lease)
        with pytest.raises(ValueError, match=run_id):
            await store.void_effects(run_id, lease.epoch, -1, {}, events(RunId("another"), 1))

    # The next host

    async def test_the_next_host_claims_all_unfinished_runs_at_once(
        self, store: Store, second_store: Store, lease: Lease
    ) -> None:
        """Oldest first; finished ones and those of other projects stay where they are."""
        other = await store.acquire_lease(OTHER, "host")
        elsewhere = await new_run(store, other)
        ids = [await new_run(store, lease, status=s) for s in ("waiting", "succeeded", "running", "failed", "queued")]
        new = (await second_store.acquire_lease(PROJECT, "second host")).epoch
        mine = (await second_store.create_run(run_of(new))).run_id
        claimed = await second_store.claim_runs(PROJECT, new)
        assert [run.run_id for run in claimed] == [ids[0], ids[2], ids[4]]
        assert {run.lease_epoch for run in claimed} == {new}
        assert claimed == [run for run in await second_store.unfinished_runs(PROJECT) if run.run_id != mine]
        assert (await second_store.get_run(ids[1])).lease_epoch == lease.epoch
        assert (await second_store.get_run(elsewhere)).lease_epoch == other.epoch
        assert await second_store.claim_runs(PROJECT, new) == []
        await second_store.append_events(ids[0], new, events(ids[0], 1))
        with pytest.raises(LeaseLost):
            await store.append_events(ids[0], lease.epoch, events(ids[0], 2))

    # Whole runs

    async def test_a_whole_run_is_kept_with_its_parts(self, store: Store, lease: Lease) -> None:
        """Under the epoch of the host that keeps it, whatever epoch it had elsewhere."""
        run = run_of(77, status="succeeded", labels={"from": "there"}, input=LARGE, output="412.5", thread="q3")
        attempts = [Attempt(run.run_id, number, "w", NOW, NOW + 1, "succeeded") for number in (1, 2)]
        made = [effect(run.run_id, 0), effect(run.run_id, 1, voided=True), effect(run.run_id, 2, request=b"x" * 99_999)]
        told = [*events(run.run_id, 1, 3), *events(run.run_id, 4, data={"text": LARGE})]
        kept = await store.import_run(run, VERSION, attempts, told, made, lease.epoch)
        assert kept == structs.replace(run, lease_epoch=lease.epoch)
        assert await store.get_run(run.run_id) == kept
        assert await store.get_agent_version(VERSION.id) == VERSION
        assert await store.list_attempts(run.run_id) == attempts
        assert await store.list_events(run.run_id) == told
        assert await store.list_effects(run.run_id, voided=True) == made
        assert (await store.list_runs(PROJECT, labels={"from": "there"}))[0] == [kept]
        await store.update_run(run.run_id, lease.epoch, status="queued")

    async def test_a_whole_run_is_kept_all_or_none(self, store: Store, lease: Lease) -> None:
        """Not with a known id, not with a place taken twice, not with parts of another run."""
        known = await new_run(store, lease)
        newer = structs.replace(VERSION, id=AgentVersionId("6" * 64))
        with pytest.raises(RecordExists, match=known):
            await store.import_run(run_of(1, run_id=known), newer, [], events(known, 1), [], lease.epoch)
        run = run_of(1, labels={"half": "done"})
        twice = [effect(run.run_id, 0), effect(run.run_id, 0)]
        with pytest.raises(RecordExists):
            await store.import_run(run, newer, [], events(run.run_id, 1), twice, lease.epoch)
        with pytest.raises(ValueError, match=run.run_id):
            await store.import_run(run, newer, [Attempt(known, 1, "w", NOW)], [], [], lease.epoch)
        assert [one.run_id for one in (await store.list_runs(PROJECT))[0]] == [known]
        assert (await store.list_runs(PROJECT, labels={"half": "done"}))[0] == []
        assert await store.list_events(run.run_id) == await store.list_events(known) == []
        await store.import_run(run, newer, [], events(run.run_id, 1), twice[:1], lease.epoch)
        assert (await store.get_run(run.run_id)).agent_version == newer.id

    async def test_a_run_is_found_by_its_submit_key(self, store: Store, lease: Lease) -> None:
        """In its project only; a whole run that comes with a known key is not kept again."""
        run_id = await new_run(store, lease, submit_key="key")
        found = await store.find_submitted(PROJECT, "key")
        assert found == await store.get_run(run_id)
        assert await store.find_submitted(PROJECT, "other key") is None
        assert await store.find_submitted(OTHER, "key") is None
        again = run_of(lease.epoch, submit_key="key")
        assert await store.import_run(again, VERSION, [], events(again.run_id, 1), [], lease.epoch) == found
        assert await store.list_events(again.run_id) == []

    # Order

    async def test_order_is_by_number_whatever_the_clock_says(self, store: Store, lease: Lease) -> None:
        """A clock that goes back reorders nothing."""
        runs = [await new_run(store, lease, created_at=NOW - hour, thread="q3") for hour in range(3)]
        run_id, epoch = runs[0], lease.epoch
        told = [structs.replace(event, at=NOW - event.seq) for event in events(run_id, 1, 3)]
        made = [effect(run_id, position, started_at=NOW - position) for position in range(3)]
        for event, one in zip(told, made, strict=True):
            await store.append_effect(one, epoch, [event])
        for number, kept in enumerate(runs):
            await store.append_messages(kept, epoch, [{"n": number}])
        assert await store.list_events(run_id) == told
        assert await store.list_effects(run_id) == made
        assert [run.run_id for run in (await store.list_runs(PROJECT))[0]] == runs[::-1]
        assert [run.run_id for run in await store.unfinished_runs(PROJECT)] == runs
        assert [message.message["n"] for message in await store.list_messages(PROJECT, "q3")] == [0, 1, 2]
