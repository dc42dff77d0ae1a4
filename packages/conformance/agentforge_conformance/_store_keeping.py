"""Cached responses and unused blobs: the part of the store suite about what is kept for a while only."""

import asyncio

import pytest

from agentforge.errors.store import BlobNotFound
from agentforge.store import (
    AgentVersion,
    AgentVersionId,
    HealthRecord,
    HealthState,
    Lease,
    Measurement,
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

    # Measurements

    async def test_the_newest_measurement_of_each_name_is_kept(self, store: Store, second_store: Store) -> None:
        """By release and machine; an older one that comes late changes nothing."""

        def size(value: float, at: float, release: str = "1.0", machine: str = "here") -> Measurement:
            return Measurement("kit", release, machine, "size", value, "MiB", at, "bench kit")

        await store.record_measurements([size(1, NOW), size(2, NOW, machine="there"), size(3, NOW, "2.0")])
        await asyncio.gather(*(store.record_measurements([size(10 + n, NOW + n)]) for n in range(5)))
        await store.record_measurements([size(99, NOW - 1)])
        assert await second_store.list_measurements("kit", "1.0", "here") == [size(14, NOW + 4)]
        assert [each.value for each in await store.list_measurements("kit")] == [14, 2, 3]
        assert await store.list_measurements("other") == []

    async def test_it_is_known_which_agent_ran_on_which_release(self, store: Store, lease: Lease) -> None:
        """Counted by agent and release, with when it was last."""
        for number, release in enumerate(("1.0", "2.0", "1.0")):
            await new_run(store, lease, release=release, created_at=NOW + number)
        found = await store.used_releases(PROJECT)
        assert [(each.release, each.runs, each.last_at) for each in found] == [("1.0", 2, NOW + 2), ("2.0", 1, NOW + 1)]
        assert await store.used_releases(OTHER) == []

    # Health of environments

    async def test_a_health_record_knows_what_the_one_before_it_says(self, store: Store, second_store: Store) -> None:
        """By project, machine and environment; the first one follows the check of the build."""
        states: list[HealthState] = ["ready", "broken", "broken", "ready"]
        found = [await store.record_health(health(state, number)) for number, state in enumerate(states)]
        assert [each.previous for each in found] == ["ready", "ready", "broken", "broken"]
        assert [each.changed for each in found] == [False, True, False, True]
        assert (await store.record_health(health("broken", 9, environment="other"))).previous == "ready"
        assert (await store.record_health(health("ready", 9, machine="there"))).previous == "ready"
        assert await second_store.list_health(PROJECT, "here", ["kit"]) == found[::-1]
        changes = await store.list_health(PROJECT, "here", ["kit"], changes=True, newest=False)
        assert changes == [found[1], found[3]]
        assert await store.list_health(PROJECT, "here", ["kit"], after=found[1].number, newest=False, limit=1) == [
            found[2]
        ]
        latest = await store.latest_health(PROJECT, "here")
        assert [(each.environment, each.state) for each in latest] == [("kit", "ready"), ("other", "broken")]
        assert await store.latest_health(OTHER, "here") == []

    async def test_of_health_the_newest_records_and_the_newest_changes_stay(self, store: Store) -> None:
        """So that an environment that was well for long is still known to have been broken before."""
        await store.record_health(health("broken", 0, environment="other"), keep=3)
        well: list[HealthState] = ["ready"] * 20
        states: list[HealthState] = ["broken", "ready", "broken", "ready", *well]
        numbers = [(await store.record_health(health(state, at), keep=3)).number for at, state in enumerate(states)]
        kept = await store.list_health(PROJECT, "here", ["kit"], newest=False)
        assert [each.number for each in kept] == [*numbers[1:4], *numbers[-3:]]
        assert len(await store.list_health(PROJECT, "here", ["other"])) == 1
        assert sorted(set(numbers)) == numbers

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


def health(state: HealthState, at: int, *, environment: str = "kit", machine: str = "here") -> HealthRecord:
    """Return what a probe found."""
    problem = "" if state == "ready" else "a file is missing"
    return HealthRecord(
        PROJECT, machine, environment, "kit", None, NOW + at, "asked", state, problem, files_s=0.5, start_s=None
    )
