"""Conversations over several runs: listed, read, taken away, deleted."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentforge.engine.threads import Threads
from agentforge.errors.runs import RunUnderWay, ThreadUnknown
from agentforge.store import Lease, ProjectId, RunId, Store, open_store
from agentforge_conformance.store import PROJECT, new_run


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "state.db") as opened:
        yield opened


@pytest.fixture
async def lease(store: Store) -> Lease:
    return await store.acquire_lease(PROJECT, "host")


async def turn(store: Store, lease: Lease, thread: str, user: str, answer: str, **fields: Any) -> RunId:
    run_id = await new_run(store, lease, thread=thread, **fields)
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    await store.finish_run(run_id, lease.epoch, {"status": "succeeded"}, messages=messages)
    return run_id


async def test_a_list_shows_the_thread_used_last_first(store: Store, lease: Lease) -> None:
    await turn(store, lease, "a", "1", "2", framework="langchain")
    await turn(store, lease, "b", "3", "4", framework="crewai")
    last = await turn(store, lease, "a", "5", "6", framework="pydantic-ai")

    listed = await Threads(store).list(PROJECT)

    assert [(each["thread"], each["messages"], each["frameworks"]) for each in listed] == [
        ("a", 4, ["langchain", "pydantic-ai"]), ("b", 2, ["crewai"]),
    ]  # fmt: skip
    assert listed[0]["last_run"] == last
    assert listed[0]["updated_at"].endswith("Z")
    assert await Threads(store).list(ProjectId("other")) == []


async def test_a_thread_shows_who_said_what_when(store: Store, lease: Lease) -> None:
    first = await turn(store, lease, "a", "hi", "hello")
    second = await turn(store, lease, "a", "again", "yes")

    shown = await Threads(store).show(PROJECT, "a")

    assert shown["thread"] == "a"
    assert shown["last_run"] == second
    assert [(each["seq"], each["role"], each["content"], each["run_id"]) for each in shown["messages"]] == [
        (1, "user", "hi", first), (2, "assistant", "hello", first),
        (3, "user", "again", second), (4, "assistant", "yes", second),
    ]  # fmt: skip
    assert all(each["at"].endswith("Z") for each in shown["messages"])


async def test_an_exported_thread_is_its_messages_and_where_they_come_from(store: Store, lease: Lease) -> None:
    first = await turn(store, lease, "a", "hi", "hello", framework="langchain", release="1.4.7")
    gone = await turn(store, lease, "a", "again", "yes", framework="crewai", release="1.15.30")
    await store.delete_run(gone, lease.epoch)

    assert await Threads(store).export(PROJECT, "a") == {
        "format": "agentforge-thread",
        "version": 1,
        "thread": "a",
        "messages": [
            {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
            {"role": "user", "content": "again"}, {"role": "assistant", "content": "yes"},
        ],
        "runs": [{"run_id": first, "agent": "expenses", "framework": "langchain", "release": "1.4.7"}],
    }  # fmt: skip


async def test_the_export_of_a_long_thread_knows_all_its_runs(store: Store, lease: Lease) -> None:
    made = [await turn(store, lease, "a", "hi", str(number)) for number in range(203)]

    exported = await Threads(store).export(PROJECT, "a")

    assert [each["run_id"] for each in exported["runs"]] == made


async def test_a_deleted_thread_is_gone_and_its_runs_stay(store: Store, lease: Lease) -> None:
    run_id = await turn(store, lease, "a", "hi", "hello")
    await turn(store, lease, "b", "hi", "hello")
    threads = Threads(store)

    assert await threads.delete(PROJECT, "a", lease.epoch) == 2

    assert [each["thread"] for each in await threads.list(PROJECT)] == ["b"]
    assert (await store.get_run(run_id)).thread == "a"


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_a_thread_with_a_run_under_way_is_not_deleted(store: Store, lease: Lease, status: Any) -> None:
    await turn(store, lease, "a", "hi", "hello")
    run_id = await new_run(store, lease, thread="a", status=status)

    with pytest.raises(RunUnderWay, match=f"`{run_id}` of the thread `a` is {status}"):
        await Threads(store).delete(PROJECT, "a", lease.epoch)
    assert len((await Threads(store).show(PROJECT, "a"))["messages"]) == 2


async def test_a_thread_whose_run_waits_can_be_deleted(store: Store, lease: Lease) -> None:
    await turn(store, lease, "a", "hi", "hello")
    await new_run(store, lease, thread="a", status="waiting")

    assert await Threads(store).delete(PROJECT, "a", lease.epoch) == 2


async def test_an_unknown_thread_is_said_so(store: Store, lease: Lease) -> None:
    await turn(store, lease, "a", "hi", "hello")
    threads, other = Threads(store), ProjectId("other")

    for asked in (
        threads.show(PROJECT, "b"), threads.export(PROJECT, "b"), threads.delete(PROJECT, "b", lease.epoch),
        threads.show(other, "a"),
    ):  # fmt: skip
        with pytest.raises(ThreadUnknown, match="there is no thread"):
            await asked
