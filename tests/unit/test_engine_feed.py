"""The order in which watchers see a run's events, whatever is being committed meanwhile."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentforge.engine.allowance import Allowance, Backlog
from agentforge.engine.feed import Feed
from agentforge.errors.sandbox import OutputExceeded
from agentforge.sandbox import Limits
from agentforge.store import AgentVersion, AgentVersionId, Event, ProjectId, Run, RunChanges, RunId, open_store

pytestmark = pytest.mark.feature("AF-076")


async def _feed(folder: Path, backlog: Backlog | None = None) -> tuple[Feed, object]:
    store = open_store(folder / "state.db")
    await store.open()
    lease = await store.acquire_lease(ProjectId("p"), "test")
    version = AgentVersion(id=AgentVersionId("v"), name="a", spec={}, created_at=0.0)
    await store.put_agent_version(version)
    run = Run(
        run_id=RunId("r"),
        project=lease.project,
        agent_name="a",
        agent_version=version.id,
        framework="python",
        lease_epoch=lease.epoch,
        created_at=0.0,
    )
    await store.create_run(run)
    return Feed(store, run.run_id, lease.epoch, lambda: 1.0, backlog=backlog), store


async def test_a_watcher_that_caught_up_waits_for_the_last_event_while_it_is_committed(tmp_path: Path) -> None:
    feed, store = await _feed(tmp_path)
    seen: list[str] = []

    async def watch() -> None:
        async for event in feed.watch():
            seen.append(event.kind)

    feed.emit("run.started", {})
    await feed.flush()
    watcher = asyncio.create_task(watch())
    while not seen:
        await asyncio.sleep(0)
    ending = asyncio.create_task(feed.finish({"status": "succeeded"}, [("run.finished", {})]))
    await asyncio.sleep(0)  # the commit is under way now; wake the watcher in the middle of it
    feed._publish([])
    await asyncio.gather(ending, watcher)
    assert seen == ["run.started", "run.finished"]
    await store.close()  # type: ignore[attr-defined]


async def test_events_are_numbered_without_gaps_and_late_ones_are_dropped(tmp_path: Path) -> None:
    feed, store = await _feed(tmp_path)
    for number in range(50):
        feed.emit("step.started", {"step": number})
    await feed.finish({"status": "failed"}, [("run.finished", {})])
    feed.emit("log.written", {"text": "too late"})
    kinds = [(event.seq, event.kind) async for event in feed.watch()]
    assert [seq for seq, _ in kinds] == list(range(1, 52))
    assert kinds[-1] == (51, "run.finished")
    await store.close()  # type: ignore[attr-defined]


async def test_a_watcher_that_resumes_gets_the_rest_and_nothing_twice(tmp_path: Path) -> None:
    feed, store = await _feed(tmp_path)
    for number in range(10):
        feed.emit("step.started", {"step": number})
    await feed.finish({"status": "succeeded"}, [("run.finished", {})])
    assert [event.seq async for event in feed.watch(after=7)] == [8, 9, 10, 11]
    await store.close()  # type: ignore[attr-defined]


async def test_nothing_is_seen_before_it_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed, store = await _feed(tmp_path)
    committed: list[int] = []
    append, finish = store.append_events, store.finish_run  # type: ignore[attr-defined]

    async def spied_append(run_id: RunId, epoch: int, events: Sequence[Event]) -> None:
        await append(run_id, epoch, events)
        committed.extend(event.seq for event in events)

    async def spied_finish(run_id: RunId, epoch: int, changes: RunChanges, events: Sequence[Event], *rest: Any) -> None:
        await finish(run_id, epoch, changes, events, *rest)
        committed.extend(event.seq for event in events)

    monkeypatch.setattr(store, "append_events", spied_append)
    monkeypatch.setattr(store, "finish_run", spied_finish)

    async def watch() -> None:
        async for event in feed.watch():
            assert event.seq in committed

    watcher = asyncio.create_task(watch())
    for number in range(20):
        feed.emit("step.started", {"step": number})
        if number % 3 == 0:
            await feed.flush()
    await feed.finish({"status": "succeeded"}, [("run.finished", {})])
    await watcher
    assert committed == list(range(1, 22))
    await store.close()  # type: ignore[attr-defined]


async def test_a_late_watcher_reads_what_is_no_longer_kept_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentforge.engine.feed._KEPT", 5)
    feed, store = await _feed(tmp_path)
    for number in range(30):
        feed.emit("step.started", {"step": number})
        if number % 3 == 0:
            await feed.flush()
    await feed.finish({"status": "succeeded"}, [("run.finished", {})])
    for after in (0, 7, 25, 29, 31):
        assert [event.seq async for event in feed.watch(after)] == list(range(after + 1, 32))
    await store.close()  # type: ignore[attr-defined]


async def test_a_commit_whose_caller_is_cancelled_is_whole_and_seen(tmp_path: Path) -> None:
    feed, store = await _feed(tmp_path)
    feed.emit("step.started", {"step": 1})
    flushing = asyncio.create_task(feed.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    feed.emit("step.finished", {"step": 1})
    await feed.finish({"status": "succeeded"}, [("run.finished", {})])
    watched = [event.kind async for event in feed.watch()]
    assert watched == ["step.started", "step.finished", "run.finished"]
    kept = await store.list_events(RunId("r"))  # type: ignore[attr-defined]
    assert [event.kind for event in kept] == watched
    await store.close()  # type: ignore[attr-defined]


async def test_a_gap_in_the_numbers_does_not_hide_what_follows(tmp_path: Path) -> None:
    feed, store = await _feed(tmp_path)
    feed.emit("step.started", {"step": 1})
    await feed.flush()
    feed.make("tool.returned", {})  # numbered for a commit that failed
    await feed.finish({"status": "failed"}, [("run.finished", {})])
    assert [event.seq async for event in feed.watch(after=1)] == [3]
    await store.close()  # type: ignore[attr-defined]


async def test_events_of_a_failed_commit_come_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed, store = await _feed(tmp_path)
    append = store.append_events  # type: ignore[attr-defined]
    failures = iter([OSError("locked")])

    async def sometimes(*arguments: object) -> None:
        for failure in failures:
            raise failure
        await append(*arguments)

    monkeypatch.setattr(store, "append_events", sometimes)
    feed.emit("run.started", {})
    with pytest.raises(OSError, match="locked"):
        await feed.flush()
    await feed.flush()
    await feed.finish({"status": "succeeded"}, [("run.finished", {})])
    assert [event.kind async for event in feed.watch()] == ["run.started", "run.finished"]
    await store.close()  # type: ignore[attr-defined]


async def test_what_waits_to_be_recorded_is_counted_until_it_is(tmp_path: Path) -> None:
    backlog = Backlog()
    feed, store = await _feed(tmp_path, backlog=backlog)
    feed.emit("log.written", {"stream": "stdout", "text": "x" * 1000})
    feed.emit("log.written", {"stream": "stdout", "text": "x" * 1000})
    assert 2000 < backlog.bytes < 2200
    await feed.flush()
    assert backlog.bytes == 0
    feed.emit("log.written", {"stream": "stdout", "text": "x" * 1000})
    feed.close()
    assert backlog.bytes == 0
    await store.close()  # type: ignore[attr-defined]


async def test_large_events_leave_memory_early_and_are_still_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentforge.engine.feed._KEPT_BYTES", 5000)
    feed, store = await _feed(tmp_path)
    for number in range(30):
        feed.emit("log.written", {"stream": "stdout", "text": f"{number:1000}"})
        await feed.flush()
    assert len(feed._committed) <= 5
    assert len(feed._sizes) <= 5
    await feed.finish({"status": "succeeded"}, [("run.finished", {})])
    assert [event.seq async for event in feed.watch()] == list(range(1, 32))
    await store.close()  # type: ignore[attr-defined]


async def test_a_run_that_may_write_no_more_writes_its_end(tmp_path: Path) -> None:
    told: list[OutputExceeded] = []
    feed, store = await _feed(tmp_path)
    feed.allowance = Allowance(told.append)
    feed.allowance.limits = Limits(events=3)
    for number in range(6):
        feed.emit("step.started", {"step": number})
        feed.emit("message.delta", {"call_id": "c", "text": "the model's own words are not counted"})
    await feed.finish({"status": "failed"}, [("run.finished", {})])
    kinds = [event.kind async for event in feed.watch()]
    assert kinds.count("step.started") == 3
    assert kinds.count("message.delta") == 6
    assert kinds[-1] == "run.finished"
    assert [error.code for error in told] == ["AF447"] * 3
    await store.close()  # type: ignore[attr-defined]
