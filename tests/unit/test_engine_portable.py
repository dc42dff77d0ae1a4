"""A run out of one store into a file, and into another store."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from agentforge.config import load_agent_value
from agentforge.engine.exported import (
    LOCK,
    ExportedAttempt,
    ExportedEffect,
    ExportedEvent,
    ExportedMessage,
    ExportedRun,
    ExportedVersion,
)
from agentforge.engine.portable import export_run, import_run
from agentforge.engine.provision import Provisioned
from agentforge.engine.versions import AgentVersions
from agentforge.environments import EnvironmentRequest, Lock
from agentforge.errors import InternalError
from agentforge.errors.runs import ExportInvalid, RunUnderWay, RunUnknown
from agentforge.frameworks import Catalogue
from agentforge.store import (
    AgentVersion,
    Attempt,
    Effect,
    Event,
    Lease,
    ProjectId,
    Run,
    RunId,
    Store,
    ThreadMessage,
    open_store,
)

from .export_world import GOLDEN, HOME, THREAD, altered, keep_sample, parts_of, repacked

AWAY = ProjectId("/srv/expenses")
BOUND = {"project", "principal", "lease_epoch", "submit_key", "unreadable"}
"""Fields of a run that belong to its machine."""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    async with open_store(path / "state.db") as store:
        yield store


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "home") as store:
        yield store


@pytest.fixture
async def away(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "away") as store:
        yield store


@pytest.fixture
async def lease(home: Store) -> Lease:
    return await home.acquire_lease(HOME, "home")


@pytest.fixture
async def epoch(away: Store) -> int:
    await away.acquire_lease(AWAY, "before")
    return (await away.acquire_lease(AWAY, "away")).epoch


def portable(run: Run) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(run).items() if name not in BOUND}


async def everything(store: Store, run_id: RunId) -> list[Any]:
    """Return a run's records, without what belongs to a machine."""
    run = await store.get_run(run_id)
    version = await store.get_agent_version(run.agent_version)
    return [
        portable(run),
        version,
        [await store.get_blob(blob) for blob in version.files.values()],
        await store.list_attempts(run_id),
        await store.list_events(run_id, limit=None),
        await store.list_effects(run_id, limit=None, voided=True),
    ]


async def said_in(store: Store, project: ProjectId, thread: str = THREAD) -> list[Any]:
    return [each.message["content"] for each in await store.list_messages(project, thread)]


async def test_an_imported_run_has_the_records_of_the_exported_one(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease)

    imported = await import_run(away, await export_run(home, run.run_id), AWAY, epoch)

    assert await everything(away, run.run_id) == await everything(home, run.run_id)
    assert imported == await away.get_run(run.run_id)
    assert (imported.project, imported.lease_epoch, imported.submit_key, imported.principal) == (AWAY, 2, None, "local")
    assert await said_in(away, AWAY) == ["hi", "hello"]


async def test_a_run_that_was_imported_is_exported_as_the_same_file_again(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease)
    data = await export_run(home, run.run_id)
    await import_run(away, data, AWAY, epoch)

    again = await export_run(away, run.run_id)

    assert data == await export_run(home, run.run_id)
    assert {name for name, part in parts_of(data).items() if parts_of(again)[name] != part} <= {
        "messages.jsonl", "manifest.json",
    }  # fmt: skip


@pytest.mark.parametrize("status", ["queued", "running"])
async def test_a_run_under_way_is_not_exported(home: Store, lease: Lease, status: Any) -> None:
    run = await keep_sample(home, lease, status=status)

    with pytest.raises(RunUnderWay, match=f"is {status}"):
        await export_run(home, run.run_id)


@pytest.mark.parametrize("status", ["waiting", "failed", "cancelled", "succeeded"])
async def test_a_run_that_rests_can_go_on_elsewhere(
    home: Store, away: Store, lease: Lease, epoch: int, status: Any
) -> None:
    run = await keep_sample(home, lease, status=status)
    await import_run(away, await export_run(home, run.run_id), AWAY, epoch)

    await away.update_run(run.run_id, epoch, status="running")
    effects = await away.list_effects(run.run_id, limit=None, voided=True)
    last = msgspec.structs.replace(effects[-1], position=effects[-1].position + 1, voided=False)
    await away.append_effect(last, epoch, [Event(run.run_id, 10, 3, "tool.returned", 0, {})])
    await away.finish_run(
        run.run_id, epoch, {"status": "succeeded"}, messages=[{"role": "assistant", "content": "done"}]
    )

    assert (await away.get_run(run.run_id)).status == "succeeded"
    assert await said_in(away, AWAY) == ["hi", "hello", "done"]


async def test_an_unknown_run_is_said_so(home: Store) -> None:
    with pytest.raises(RunUnknown, match="`nobody`"):
        await export_run(home, "nobody")


async def test_a_run_that_goes_on_while_it_is_exported_is_not(home: Store, lease: Lease) -> None:
    run = await keep_sample(home, lease)
    list_events = home.list_events

    async def answered_meanwhile(*args: Any, **options: Any) -> Any:
        await home.update_run(run.run_id, lease.epoch, status="running")
        return await list_events(*args, **options)

    home.list_events = answered_meanwhile  # type: ignore[method-assign]
    with pytest.raises(RunUnderWay, match="went on"):
        await export_run(home, run.run_id)


async def test_options_with_variables_never_leave(home: Store, lease: Lease) -> None:
    run = await keep_sample(home, lease, options={"variables": {"OPENAI_API_KEY": "sk-secret"}})

    with pytest.raises(InternalError):
        await export_run(home, run.run_id)


@pytest.mark.parametrize(
    ("record", "exported", "left_out"),
    [
        (Run, ExportedRun, BOUND),
        (AgentVersion, ExportedVersion, set()),
        (Attempt, ExportedAttempt, {"run_id"}),
        (Event, ExportedEvent, {"run_id"}),
        (Effect, ExportedEffect, {"run_id"}),
        (ThreadMessage, ExportedMessage, {"thread"}),
    ],
)
def test_every_field_of_a_record_is_exported_or_left_out_on_purpose(record: Any, exported: Any, left_out: Any) -> None:
    blobs = {"request_blob", "response_blob"}
    assert set(record.__struct_fields__) - left_out == set(exported.__struct_fields__) - blobs


async def test_versions_as_the_engine_makes_them_pass_the_check(
    home: Store, away: Store, lease: Lease, epoch: int, tmp_path: Path
) -> None:
    (tmp_path / "agent").mkdir()
    for name in ("tools.py", "Upper.py", "z.txt", "\u00fc.txt"):
        (tmp_path / "agent" / name).write_text('def add(a: int) -> int:\n    """Add."""\n    return a\n')
    agent = {"name": "a", "instructions": "x", "tools": [{"python": "tools.py:add"}], "settings": {"temperature": 0}}
    definition = load_agent_value(agent, tmp_path / "agent")
    release = Catalogue.discover((), lambda _: True).resolve("python")
    lock = Lock("# none\n")
    provisioned = Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))
    version = await AgentVersions(home, tmp_path / "versions", lambda: 1.5).make(definition, provisioned)
    run = Run(
        run_id=RunId("r"), project=HOME, agent_name="a", agent_version=version.id, framework="python",
        status="failed", lease_epoch=lease.epoch, created_at=2,
    )  # fmt: skip
    await home.create_run(run)

    await import_run(away, await export_run(home, run.run_id), AWAY, epoch)

    assert len(version.files) == 5
    assert await away.get_agent_version(version.id) == version


# ---- ids


async def test_a_second_import_returns_the_run_that_is_here(home: Store, away: Store, lease: Lease, epoch: int) -> None:
    run = await keep_sample(home, lease)
    data = await export_run(home, run.run_id)

    first, second = await import_run(away, data, AWAY, epoch), await import_run(away, data, AWAY, epoch)

    assert first == second
    assert len((await away.list_runs(AWAY))[0]) == 1
    assert await said_in(away, AWAY) == ["hi", "hello"]


async def test_an_import_where_the_run_was_exported_changes_nothing(home: Store, lease: Lease) -> None:
    run = await keep_sample(home, lease)

    assert await import_run(home, await export_run(home, run.run_id), HOME, lease.epoch) == run
    assert await said_in(home, HOME) == ["hi", "hello"]


async def test_another_run_of_the_same_id_keeps_it_and_the_imported_one_says_so(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease)
    data = await export_run(home, run.run_id)
    await import_run(away, data, AWAY, epoch)
    await away.update_run(run.run_id, epoch, status="cancelled")

    imported, again = await import_run(away, data, AWAY, epoch), await import_run(away, data, AWAY, epoch)

    assert imported.run_id != run.run_id
    assert imported == again
    assert imported.status == "waiting"
    assert imported.options["imported"] == {"run_id": "r1", "thread": THREAD}
    assert imported.options["warnings"] == [f"imported as `{imported.run_id}`: `r1` is another run here"]
    assert (await away.get_run(run.run_id)).status == "cancelled"
    assert [each.run_id for each in await away.list_effects(imported.run_id)] == [imported.run_id] * 3


async def test_a_copy_that_has_gone_on_makes_room_for_one_more(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease)
    data = await export_run(home, run.run_id)
    kept = []
    for _ in range(3):
        kept.append(await import_run(away, data, AWAY, epoch))
        await away.update_run(kept[-1].run_id, epoch, output="elsewhere")

    assert len({each.run_id for each in kept}) == 3


async def test_the_same_run_in_another_project_is_another_one(home: Store, lease: Lease) -> None:
    run = await keep_sample(home, lease)
    other = await home.acquire_lease(AWAY, "other")

    imported = await import_run(home, await export_run(home, run.run_id), AWAY, other.epoch)

    assert (imported.project, imported.run_id != run.run_id) == (AWAY, True)
    assert imported.thread == THREAD


# ---- threads


async def said(store: Store, project: ProjectId, epoch: int, *contents: str, thread: str = THREAD) -> None:
    (version,) = {each.agent_version for each in (await store.list_runs(project))[0]} or {None}
    if version is None:
        version = (await store.put_agent_version(AgentVersion(id="0" * 64, name="a", spec={}, created_at=0))).id
    number = len((await store.list_runs(project))[0])
    run = Run(
        run_id=RunId(f"said-{number}"), project=project, agent_name="a", agent_version=version, framework="python",
        thread=thread, lease_epoch=epoch, created_at=0,
    )  # fmt: skip
    await store.create_run(run)
    await store.append_messages(run.run_id, epoch, [{"role": "user", "content": each} for each in contents])


async def test_a_thread_of_another_conversation_is_left_alone(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease)
    data = await export_run(home, run.run_id)
    await said(away, AWAY, epoch, "something else")

    imported, again = await import_run(away, data, AWAY, epoch), await import_run(away, data, AWAY, epoch)

    assert imported == again
    assert imported.run_id == run.run_id
    assert imported.thread is not None
    assert imported.thread.startswith(f"{THREAD}-")
    assert imported.options["warnings"] == [
        f"imported into the thread `{imported.thread}`: `{THREAD}` is another conversation here"
    ]
    assert await said_in(away, AWAY) == ["something else"]
    assert await said_in(away, AWAY, imported.thread) == ["hi", "hello"]


async def test_a_run_that_begins_a_thread_does_not_join_another_conversation(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    parts = parts_of(await export_run(home, (await keep_sample(home, lease)).run_id))
    await said(away, AWAY, epoch, "something else")

    imported = await import_run(away, repacked({**parts, "messages.jsonl": b""}), AWAY, epoch)

    assert imported.thread != THREAD


async def test_runs_of_one_thread_are_imported_one_after_another(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    first = await keep_sample(home, lease)
    early = await export_run(home, first.run_id)
    await home.finish_run(
        first.run_id, lease.epoch, {"status": "succeeded"}, messages=[{"role": "assistant", "content": "done"}]
    )
    late = await export_run(home, first.run_id)

    await import_run(away, early, AWAY, epoch)
    second = await import_run(away, late, AWAY, epoch)
    third = await import_run(away, early, AWAY, epoch)

    assert (second.thread, third.thread) == (THREAD, THREAD)
    assert await said_in(away, AWAY) == ["hi", "hello", "done"]


async def test_what_was_said_after_a_run_does_not_go_with_it(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease)
    await said(home, HOME, lease.epoch, "later")

    await import_run(away, await export_run(home, run.run_id), AWAY, epoch)

    assert await said_in(home, HOME) == ["hi", "hello", "later"]
    assert await said_in(away, AWAY) == ["hi", "hello"]


async def test_a_thread_that_lacks_the_messages_of_a_run_gets_them_by_a_second_import(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease)
    data = await export_run(home, run.run_id)
    await import_run(away, data, AWAY, epoch)
    await away.delete_thread(AWAY, THREAD, epoch)  # as a crash before the messages would have left it

    newer = await away.acquire_lease(AWAY, "the next host")
    await import_run(away, data, AWAY, newer.epoch)

    assert await said_in(away, AWAY) == ["hi", "hello"]


async def test_a_run_without_a_thread_brings_no_messages(home: Store, away: Store, lease: Lease, epoch: int) -> None:
    parts = parts_of(await export_run(home, (await keep_sample(home, lease)).run_id))
    run = {**json.loads(parts["run.json"]), "thread": None}
    data = repacked({**parts, "run.json": json.dumps(run).encode(), "messages.jsonl": b""})

    assert (await import_run(away, data, AWAY, epoch)).thread is None
    assert await away.list_threads(AWAY) == []


# ---- for ever


async def test_an_export_of_version_1_can_be_imported_for_ever(away: Store, epoch: int) -> None:
    run = await import_run(away, GOLDEN.read_bytes(), AWAY, epoch)

    version = await away.get_agent_version(run.agent_version)
    effects = await away.list_effects(run.run_id, voided=True)
    assert (run.run_id, run.status, run.thread, run.framework) == ("r1", "waiting", THREAD, "langchain")
    assert run.input == {"question": "How much?", "odd": "\ud83d"}
    assert [(each.position, each.kind, each.voided) for each in effects] == [
        (0, "model", False), (1, "tool", False), (2, "value", False), (3, "tool", True),
    ]  # fmt: skip
    assert effects[2].response == b"\xff\x00 no text"
    assert [each.seq for each in await away.list_events(run.run_id)] == [1, 2, 3, 4, 9]
    assert [each.status for each in await away.list_attempts(run.run_id)] == ["lost", "running"]
    assert sorted(version.files) == [LOCK, "agent.yaml", "lib/tools.py"]
    assert b"total_for" in await away.get_blob(version.files["lib/tools.py"])
    assert await said_in(away, AWAY) == ["hi", "hello"]


async def test_texts_that_are_no_unicode_survive_where_the_store_takes_them(
    home: Store, away: Store, lease: Lease, epoch: int
) -> None:
    run = await keep_sample(home, lease, output=["\ud800"], error={"message": "\udfff"}, metrics={"\ud800": 1})

    await import_run(away, await export_run(home, run.run_id), AWAY, epoch)

    assert await everything(away, run.run_id) == await everything(home, run.run_id)


@given(data=altered({name: part for name, part in parts_of(GOLDEN.read_bytes()).items() if name != "manifest.json"}))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_what_passes_the_checks_is_taken_by_the_store(away: Store, epoch: int, data: bytes) -> None:
    try:
        run = await import_run(away, data, AWAY, epoch)
    except ExportInvalid:
        return
    assert await import_run(away, data, AWAY, epoch) == run
    assert (await import_run(away, await export_run(away, run.run_id), AWAY, epoch)).run_id == run.run_id
