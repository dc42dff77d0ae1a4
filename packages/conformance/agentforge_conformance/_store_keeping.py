"""Cached responses and unused blobs: the part of the store suite about what is kept for a while only."""

import asyncio

import pytest

from agentforge.errors.store import BlobNotFound
from agentforge.store import AgentVersion, AgentVersionId, Lease, Store
from agentforge_conformance._store_records import (
    LARGE,
    NOW,
    OTHER,
    PROJECT,
    effect,
    events,
    new_run,
)

__all__ = ["KeepingTests"]


class KeepingTests:
    """What may go again: cached responses by their time, blobs when nothing refers to them."""

    # The response cache

    async def test_a_cached_response_comes_back_until_it_expires(self, store: Store, second_store: Store) -> None:
        """Byte for byte, in its project only, with or without a lease."""
        big = bytes(range(256)) * 1024
        await store.cache_response(PROJECT, "small", b"\x00\xff", NOW, NOW + 10)
        await store.cache_response(PROJECT, "big", big, NOW, None)
        assert await second_store.cached_response(PROJECT, "small", NOW + 9.5) == b"\x00\xff"
        assert await store.cached_response(PROJECT, "small", NOW + 10) is None
        assert await second_store.cached_response(PROJECT, "big", NOW + 1e9) == big
        assert await store.cached_response(OTHER, "big", NOW) is None
        assert await store.cached_response(PROJECT, "unknown", NOW) is None

    async def test_a_later_response_takes_the_place_of_an_earlier_one(self, store: Store) -> None:
        """Also when both come at once; a large one gives way to a small one."""
        await store.cache_response(PROJECT, "key", LARGE.encode(), NOW, NOW + 1)
        await asyncio.gather(*(store.cache_response(PROJECT, "key", str(n).encode(), NOW, NOW + 100) for n in range(9)))
        assert await store.cached_response(PROJECT, "key", NOW + 50) == b"8"

    async def test_cached_responses_can_be_pruned_and_cleared(self, store: Store) -> None:
        """Of one project; those without an end are cleared only."""
        for key, expires_at in (("a", NOW), ("b", NOW + 1), ("c", None)):
            for project in (PROJECT, OTHER):
                await store.cache_response(project, key, key.encode(), NOW, expires_at)
        assert await store.prune_responses(PROJECT, NOW) == 1
        assert await store.prune_responses(PROJECT, NOW) == 0
        assert await store.cached_response(PROJECT, "a", NOW - 1) is None
        assert await store.cached_response(PROJECT, "b", NOW) == b"b"
        assert await store.clear_responses(PROJECT) == 2
        assert await store.cached_response(PROJECT, "c", NOW) is None
        assert await store.clear_responses(OTHER) == 3

    # Unused blobs

    async def test_a_blob_that_no_record_refers_to_is_collected(self, store: Store, lease: Lease) -> None:
        """Whatever a record refers to stays: payloads of runs, journal, threads and cache, files of agents."""
        epoch = lease.epoch
        used = await store.put_blob(b"def total_for(): ...")
        unused = await store.put_blob(b"nobody wants this")
        await store.put_agent_version(
            AgentVersion(id=AgentVersionId("v"), name="x", spec={}, files={"tools.py": used}, created_at=NOW)
        )
        run_id = await new_run(store, lease, input=LARGE + "input", output=LARGE + "output", thread="q3")
        request, response = (LARGE + "request").encode(), (LARGE + "response").encode()
        told = events(run_id, 1, data={"text": LARGE})
        await store.append_effect(effect(run_id, 0, request=request, response=response), epoch, told)
        await store.append_messages(run_id, epoch, [{"content": LARGE}])
        await store.cache_response(PROJECT, "key", LARGE.encode(), NOW, None)
        assert await store.collect_blobs(0) == 1
        with pytest.raises(BlobNotFound):
            await store.get_blob(unused)
        assert await store.get_blob(used) == b"def total_for(): ..."
        run = await store.get_run(run_id)
        assert (run.input, run.output) == (LARGE + "input", LARGE + "output")
        [kept] = await store.list_effects(run_id)
        assert (kept.request, kept.response) == (request, response)
        assert await store.list_events(run_id) == told
        assert len(await store.list_messages(PROJECT, "q3")) == 1
        assert await store.cached_response(PROJECT, "key", NOW) == LARGE.encode()

    async def test_the_blobs_of_what_was_deleted_are_collected(self, store: Store, lease: Lease) -> None:
        """Unless something else has the same payload."""
        gone, kept = await new_run(store, lease, input=LARGE), await new_run(store, lease, input=LARGE)
        await store.update_run(gone, lease.epoch, output=LARGE + "only here")
        await store.delete_run(gone, lease.epoch)
        assert await store.collect_blobs(0) == 1
        assert (await store.get_run(kept)).input == LARGE
        await store.delete_run(kept, lease.epoch)
        assert await store.collect_blobs(0) == 1

    async def test_a_young_blob_stays_for_the_record_that_is_to_come(self, store: Store) -> None:
        """A collection that runs while payloads are put takes none of them away."""
        blob = await store.put_blob(b"young")
        assert await store.collect_blobs(3600) == 0
        assert await store.get_blob(blob) == b"young"
