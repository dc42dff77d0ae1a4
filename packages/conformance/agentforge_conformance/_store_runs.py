"""Blobs, agent versions, runs and lists of them: the part of the store suite about what a run is."""

import asyncio

import msgspec
import pytest

from agentforge.errors.store import (
    AgentVersionNotFound,
    BlobNotFound,
    InvalidCursor,
    LeaseLost,
    RecordExists,
    RunNotFound,
    ValueNotStorable,
)
from agentforge.store import (
    AgentVersionId,
    Attempt,
    BlobId,
    Json,
    JsonObject,
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
)

__all__ = ["RunTests"]


class RunTests:
    """What is kept of a run and how it is found again."""

    # Blobs and agent versions

    async def test_blobs_come_back_and_the_same_bytes_have_one_name(self, store: Store) -> None:
        """Empty ones too."""
        for data in (b"", b"abc", bytes(300_000)):
            blob = await store.put_blob(data)
            assert await store.put_blob(data) == blob
            assert await store.get_blob(blob) == data

    @pytest.mark.parametrize("name", ["0" * 64, "", "../../etc/passwd"])
    async def test_an_unknown_blob_is_not_found(self, store: Store, name: str) -> None:
        """Nor is what cannot be a digest."""
        with pytest.raises(BlobNotFound):
            await store.get_blob(BlobId(name))

    async def test_an_agent_version_is_kept_once_and_never_changes(self, store: Store) -> None:
        """The version that was kept first wins."""
        assert await store.put_agent_version(VERSION) == VERSION
        assert await store.put_agent_version(msgspec.structs.replace(VERSION, created_at=1.0)) == VERSION
        assert await store.get_agent_version(VERSION.id) == VERSION
        with pytest.raises(AgentVersionNotFound):
            await store.get_agent_version(AgentVersionId("unknown"))

    # Runs

    async def test_a_run_comes_back_as_it_was_made(self, store: Store, lease: Lease) -> None:
        """Every field, filled and empty."""
        await store.put_agent_version(VERSION)
        plain = run_of(lease.epoch)
        full = run_of(
            lease.epoch,
            principal="ann",
            labels={"team": "a", "env": "test"},
            release="1.4.7",
            environment="env-1",
            model="default",
            thread="q3",
            input={"question": [1, None, "ü"]},
            options={"limits": {"steps": 12}},
            status="running",
            submit_key="key",
            started_at=NOW + 1,
            finished_at=NOW + 2,
            output=["done"],
            error={"code": "AF700"},
            usage={"input_tokens": 1},
            cost_usd=0.125,
            metrics={"replayed_effects": 0},
            sandbox="strict",
        )
        for run in (plain, full):
            assert await store.create_run(run) == run
            assert await store.get_run(run.run_id) == run

    async def test_a_submit_key_returns_the_run_that_it_made_first(self, store: Store, lease: Lease) -> None:
        """Also when both are submitted at once; another project may use the same key."""
        await store.put_agent_version(VERSION)
        other = await store.acquire_lease(OTHER, "host")
        made = [run_of(lease.epoch, submit_key="key") for _ in range(5)]
        kept = await asyncio.gather(*(store.create_run(run) for run in made))
        assert {run.run_id for run in kept} == {made[0].run_id}
        elsewhere = run_of(other.epoch, submit_key="key", project=OTHER)
        assert (await store.create_run(elsewhere)).run_id == elsewhere.run_id

    async def test_a_run_is_refused_without_its_agent_version_or_with_a_known_id(
        self, store: Store, lease: Lease
    ) -> None:
        """Neither leaves anything behind."""
        with pytest.raises(AgentVersionNotFound):
            await store.create_run(run_of(lease.epoch))
        run_id = await new_run(store, lease)
        with pytest.raises(RecordExists):
            await store.create_run(run_of(lease.epoch, run_id=run_id, labels={"team": "b"}))
        assert [run.run_id for run in (await store.list_runs(PROJECT))[0]] == [run_id]
        assert (await store.list_runs(PROJECT, labels={"team": "b"}))[0] == []

    async def test_a_run_of_a_project_that_no_host_has_is_refused(self, store: Store) -> None:
        """There is no lease to write it under."""
        await store.put_agent_version(VERSION)
        with pytest.raises(LeaseLost):
            await store.create_run(run_of(1))

    async def test_changes_set_only_what_they_name(self, store: Store, lease: Lease) -> None:
        """`None` and empty values are changes as well."""
        run_id = await new_run(store, lease, labels={"team": "a"}, cost_usd=0.5)
        before = await store.get_run(run_id)
        await store.update_run(run_id, lease.epoch, status="running", started_at=NOW, labels={"team": "b"})
        await store.update_run(run_id, lease.epoch, output={"answer": LARGE}, cost_usd=None)
        await store.update_run(run_id, lease.epoch)
        expected = msgspec.structs.replace(
            before,
            status="running",
            started_at=NOW,
            labels={"team": "b"},
            output={"answer": LARGE},
            cost_usd=None,
        )
        assert await store.get_run(run_id) == expected
        assert (await store.list_runs(PROJECT, labels={"team": "b"}))[0] == [expected]
        assert (await store.list_runs(PROJECT, labels={"team": "a"}))[0] == []

    async def test_a_large_payload_that_becomes_small_again_is_read_as_small(self, store: Store, lease: Lease) -> None:
        """The blob's name does not linger."""
        run_id = await new_run(store, lease, output=LARGE)
        assert (await store.get_run(run_id)).output == LARGE
        await store.update_run(run_id, lease.epoch, output="small")
        assert (await store.get_run(run_id)).output == "small"

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"run_id": "x"}, TypeError),
            ({"lease_epoch": 9}, TypeError),
            ({"status": "done"}, ValueNotStorable),
            ({"labels": {"a": 1}}, ValueNotStorable),
            ({"output": object()}, ValueNotStorable),
        ],
    )
    async def test_what_a_run_cannot_hold_is_refused(
        self, store: Store, lease: Lease, changes: JsonObject, error: type[Exception]
    ) -> None:
        """Before anything is written."""
        run_id = await new_run(store, lease)
        before = await store.get_run(run_id)
        with pytest.raises(error):
            await store.update_run(run_id, lease.epoch, **changes)
        assert await store.get_run(run_id) == before

    async def test_everything_about_an_unknown_run_says_so(self, store: Store, lease: Lease) -> None:
        """Lists of its parts are empty."""
        run_id, epoch = RunId("unknown"), lease.epoch
        for call in (
            store.get_run(run_id),
            store.claim_run(run_id, epoch),
            store.update_run(run_id, epoch, status="failed"),
            store.append_events(run_id, epoch, events(run_id, 1)),
            store.append_effect(effect(run_id, 0), epoch),
            store.start_attempt(Attempt(run_id, 1, "w", NOW), epoch),
            store.finish_run(run_id, epoch, {}),
            store.delete_run(run_id, epoch),
        ):
            with pytest.raises(RunNotFound):
                await call
        assert await store.list_events(run_id) == []
        assert await store.list_effects(run_id) == []
        assert await store.list_attempts(run_id) == []

    async def test_attempts_begin_and_end(self, store: Store, lease: Lease) -> None:
        """In order of their number, which is taken once."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        first, second = (Attempt(run_id, number, "w1", NOW + number) for number in (1, 2))
        await store.start_attempt(second, epoch)
        await store.start_attempt(first, epoch)
        error = {"code": "AF401"}
        await store.finish_attempt(run_id, 1, epoch, status="lost", finished_at=NOW + 9, error=error)
        ended = Attempt(run_id, 1, "w1", NOW + 1, NOW + 9, "lost", error)
        assert await store.list_attempts(run_id) == [ended, second]
        with pytest.raises(RecordExists):
            await store.start_attempt(first, epoch)
        with pytest.raises(RunNotFound):
            await store.finish_attempt(run_id, 3, epoch, status="failed", finished_at=NOW)

    # Lists

    async def test_runs_are_listed_newest_first_in_pages(self, store: Store, lease: Lease) -> None:
        """Pages neither repeat nor skip a run, also when new ones come in between."""
        made = [await new_run(store, lease) for _ in range(7)]
        first, cursor = await store.list_runs(PROJECT, limit=3)
        await new_run(store, lease)
        second, cursor = await store.list_runs(PROJECT, limit=3, before=cursor)
        third, end = await store.list_runs(PROJECT, limit=3, before=cursor)
        assert [run.run_id for run in first + second + third] == made[::-1]
        assert end is None
        assert await store.list_runs(OTHER) == ([], None)

    async def test_a_page_that_is_just_full_is_the_last(self, store: Store, lease: Lease) -> None:
        """There is no cursor to an empty page."""
        for _ in range(3):
            await new_run(store, lease)
        assert (await store.list_runs(PROJECT, limit=3))[1] is None

    async def test_filters_have_to_match_all(self, store: Store, lease: Lease) -> None:
        """Status, agent, framework and every label."""
        wanted = await new_run(store, lease, status="failed", labels={"team": "a", "env": "x"})
        await new_run(store, lease, status="failed", labels={"team": "a"}, framework="crewai", thread="q3")
        await new_run(store, lease, agent_name="other", labels={"env": "x"})

        async def count(**filters: Json) -> int:
            return len((await store.list_runs(PROJECT, **filters))[0])

        assert await count(status="failed") == 2
        assert await count(agent="other") == 1
        assert await count(framework="crewai") == 1
        assert await count(thread="q3") == 1
        assert await count(thread="q4") == 0
        assert await count(labels={"team": "a"}) == 2
        assert await count(labels={"team": "b"}) == 0
        found, _ = await store.list_runs(
            PROJECT, status="failed", agent="expenses", framework="langchain", labels={"team": "a", "env": "x"}
        )
        assert [run.run_id for run in found] == [wanted]

    @pytest.mark.parametrize("cursor", ["", "x", "-1", "²", "9" * 30])
    async def test_a_made_up_cursor_is_refused(self, store: Store, cursor: str) -> None:
        """It is never taken for the first page."""
        with pytest.raises(InvalidCursor):
            await store.list_runs(PROJECT, before=cursor)

    async def test_unfinished_runs_are_those_that_may_go_on(self, store: Store, lease: Lease) -> None:
        """Oldest first, of this project only."""
        other = await store.acquire_lease(OTHER, "host")
        ids = {}
        for status in ("queued", "running", "waiting", "succeeded", "failed", "cancelled"):
            ids[status] = await new_run(store, lease, status=status)
        await new_run(store, other)
        found = [run.run_id for run in await store.unfinished_runs(PROJECT)]
        assert found == [ids["queued"], ids["running"], ids["waiting"]]
