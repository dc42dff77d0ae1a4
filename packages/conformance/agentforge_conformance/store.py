"""What every store does, as tests to inherit.

    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def store(self, tmp_path):
            async with open_store(tmp_path / "state.db") as store:
                yield store

        @pytest.fixture
        async def second_store(self, tmp_path, store):      # the same records, as another host opens them
            async with open_store(tmp_path / "state.db") as store:
                yield store

Needs pytest-asyncio in auto mode. The store is empty when a test begins.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from agentforge.errors.store import (
    AgentVersionNotFound,
    BlobNotFound,
    InvalidCursor,
    LeaseLost,
    RecordExists,
    RunNotFound,
    StoreClosed,
    ValueNotStorable,
)
from agentforge.store import (
    BLOB_LIMIT,
    AgentVersion,
    AgentVersionId,
    Attempt,
    BlobId,
    Effect,
    Event,
    Json,
    JsonObject,
    Lease,
    ProjectId,
    Run,
    RunId,
    Store,
)

__all__ = ["NOW", "PROJECT", "VERSION", "StoreSuite", "effect", "events", "new_run", "run_of"]

PROJECT, OTHER = ProjectId("expenses"), ProjectId("other")
NOW = 1_763_800_000.25
VERSION = AgentVersion(
    id=AgentVersionId("5" * 64),
    name="expenses",
    spec={"instructions": "Use the tools.", "settings": {"temperature": 0.5}},
    files={"tools.py": BlobId("a" * 64)},
    created_at=NOW,
)
LARGE = "ä" * BLOB_LIMIT
_numbers = itertools.count(1)


def run_of(epoch: int, **fields: Json) -> Run:
    """Return a run of `PROJECT` that no store has yet; `fields` replace the defaults."""
    run = Run(
        run_id=RunId(f"run-{next(_numbers)}"),
        project=PROJECT,
        agent_name="expenses",
        agent_version=VERSION.id,
        framework="langchain",
        input="How much was travel?",
        lease_epoch=epoch,
        created_at=NOW,
    )
    return msgspec.structs.replace(run, **fields)


async def new_run(store: Store, lease: Lease, **fields: Json) -> RunId:
    """Keep a new run under the lease and return its id."""
    await store.put_agent_version(VERSION)
    return (await store.create_run(run_of(lease.epoch, project=lease.project, **fields))).run_id


def events(run_id: RunId, first: int, count: int = 1, data: JsonObject | None = None) -> list[Event]:
    """Return `count` events numbered from `first`."""
    return [
        Event(run_id, seq, 1, "log.written", NOW + seq, data or {"line": f"{seq}"})
        for seq in range(first, first + count)
    ]


def effect(run_id: RunId, position: int, **fields: Json) -> Effect:
    """Return a model call of a run."""
    made = Effect(
        run_id=run_id,
        position=position,
        attempt=1,
        kind="model",
        request_hash="f" * 64,
        occurrence=position,
        request=b'{"messages": []}',
        response=b"\x00\xff not text",
        status=200,
        usage={"input_tokens": 12},
        cost_usd=0.25,
        started_at=NOW,
        duration_ms=12.5,
    )
    return msgspec.structs.replace(made, **fields)


def _seqs(found: Sequence[Event]) -> list[int]:
    return [event.seq for event in found]


class StoreSuite:
    """The behaviour of `Store`. Inherit it and give the fixtures `store` and `second_store`."""

    @pytest.fixture
    async def lease(self, store: Store) -> Lease:
        """The first host's lease."""
        return await store.acquire_lease(PROJECT, "first host")

    # Projects and leases

    async def test_a_project_begins_with_epoch_one_and_each_lease_raises_it(self, store: Store) -> None:
        """Epochs are per project."""
        assert await store.get_lease(PROJECT) is None
        assert await store.acquire_lease(PROJECT, "a") == Lease(PROJECT, 1, "a")
        assert await store.acquire_lease(PROJECT, "b") == Lease(PROJECT, 2, "b")
        assert await store.acquire_lease(OTHER, "c") == Lease(OTHER, 1, "c")
        assert await store.get_lease(PROJECT) == Lease(PROJECT, 2, "b")
        assert [project.project for project in await store.list_projects()] == [PROJECT, OTHER]

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
            lambda: store.claim_run(run_id, old),
            lambda: store.update_run(run_id, old, status="running"),
            lambda: store.start_attempt(Attempt(run_id, 2, "worker", NOW), old),
            lambda: store.finish_attempt(run_id, 1, old, status="failed", finished_at=NOW),
            lambda: store.append_events(run_id, old, events(run_id, 1)),
            lambda: store.append_effect(effect(run_id, 0), old, events(run_id, 1)),
            lambda: store.finish_run(run_id, old, {"status": "failed"}, events(run_id, 1), [{"role": "user"}]),
            lambda: store.append_messages(run_id, old, [{"role": "user"}]),
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
        assert _seqs(await store.list_events(run_id)) == [1, 2]

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
        assert _seqs(await second_store.list_events(run_id)) == kept

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
        assert _seqs(await store.list_events(run_id)) == [1, 2, 3]

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
        assert _seqs(await store.list_events(run_id)) == [1, 2, 5, 6, 7]
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
        assert _seqs(await store.list_events(run_id)) == [1, 2, 3]

    async def test_an_effect_and_its_events_are_kept_together_or_not_at_all(self, store: Store, lease: Lease) -> None:
        """A taken position refuses the events, a taken seq the effect."""
        run_id, epoch = await new_run(store, lease), lease.epoch
        await store.append_effect(effect(run_id, 0), epoch, events(run_id, 1))
        with pytest.raises(RecordExists):
            await store.append_effect(effect(run_id, 0), epoch, events(run_id, 2))
        with pytest.raises(RecordExists):
            await store.append_effect(effect(run_id, 1), epoch, events(run_id, 1))
        assert len(await store.list_effects(run_id)) == 1
        assert _seqs(await store.list_events(run_id)) == [1]

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
        assert _seqs(await store.list_events(run_id)) == [1]
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
        assert _seqs(await store.list_events(run_id)) == [1]

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
        await new_run(store, lease, status="failed", labels={"team": "a"}, framework="crewai")
        await new_run(store, lease, agent_name="other", labels={"env": "x"})

        async def count(**filters: Json) -> int:
            return len((await store.list_runs(PROJECT, **filters))[0])

        assert await count(status="failed") == 2
        assert await count(agent="other") == 1
        assert await count(framework="crewai") == 1
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

    async def test_a_run_without_a_thread_takes_no_messages(self, store: Store, lease: Lease) -> None:
        """They would belong nowhere."""
        run_id = await new_run(store, lease)
        with pytest.raises(ValueError, match="thread"):
            await store.append_messages(run_id, lease.epoch, [{"role": "user"}])

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
            assert _seqs(await second_store.list_events(run_id)) == list(range(1, 11))

    async def test_a_read_sees_every_acknowledged_write(self, store: Store, second_store: Store, lease: Lease) -> None:
        """On this store and on another one, while others write."""
        run_id, busy = await new_run(store, lease), await new_run(store, lease)
        noise = asyncio.gather(*(store.append_events(busy, lease.epoch, events(busy, seq)) for seq in range(1, 200)))
        for seq in range(1, 20):
            await store.append_events(run_id, lease.epoch, events(run_id, seq))
            assert _seqs(await store.list_events(run_id)) == list(range(1, seq + 1))
            assert _seqs(await second_store.list_events(run_id, after=seq - 1)) == [seq]
        await noise

    async def test_a_cancelled_caller_disturbs_no_other(self, store: Store, lease: Lease) -> None:
        """Its own write may or may not have happened."""
        run_id = await new_run(store, lease)
        given_up = asyncio.create_task(store.append_events(run_id, lease.epoch, events(run_id, 1)))
        going_on = asyncio.create_task(store.append_events(run_id, lease.epoch, events(run_id, 2)))
        await asyncio.sleep(0)
        given_up.cancel()
        await going_on
        assert 2 in _seqs(await store.list_events(run_id))

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
        assert _seqs(await second_store.list_events(run_id)) == list(range(1, 21))
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
