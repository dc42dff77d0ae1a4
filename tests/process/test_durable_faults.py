"""What goes wrong under a journal: a full disk, a read-only one, a lost payload, a newer schema."""

import resource
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from .durable_world import World, finished_well
from .project_world import Project


@pytest.fixture
async def world(project: Project) -> World:
    return World(project)


def database(world: World) -> Path:
    return world.project.root / ".agentforge" / "state.db"


async def limit_files(world: World, size: int) -> None:
    """Have the host write no file beyond so many bytes: as a full disk would."""
    host = psutil.Process((await world.project.host())["pid"])
    host.rlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.parametrize("decision", ["result", "retry"])
async def test_a_full_disk_stops_the_run_and_it_goes_on_when_there_is_space(world: World, decision: str) -> None:
    gate = world.close_gate("careful2")
    run = await world.start()
    await world.until_called(3)
    await limit_files(world, 1)
    gate.unlink()
    failed = await world.project.ended(run)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "AF800"), failed
    await limit_files(world, resource.RLIM_INFINITY)
    assert integrity(world) == "ok"
    await world.post(f"/v1/runs/{run}/resume")
    # The tool returned and that could not be recorded: whether it may be called again is for a human to say.
    waiting = await world.project.ended(run)
    assert (waiting["status"], [each["kind"] for each in waiting["interrupts"]]) == ("waiting", ["tool"])
    await world.answer(run, decision=decision, **({"value": 3} if decision == "result" else {}))
    finished_well(await world.project.ended(run), replayed=6 if decision == "result" else 5)


def integrity(world: World) -> str:
    with closing(sqlite3.connect(database(world))) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


async def test_a_payload_that_was_lost_ends_its_run_alone(world: World) -> None:
    gate = world.close_gate("careful2")
    lost = await world.start()
    await world.until_called(3)
    await world.kill_host()
    gate.unlink()
    with closing(sqlite3.connect(database(world), isolation_level=None)) as connection:
        connection.execute("UPDATE effects SET response = NULL, response_blob = ? WHERE position = 2", ("0" * 64,))
    await world.project.command("runs", "list", "--json")
    result = await world.project.ended(lost)
    assert (result["status"], result["error"]["code"]) == ("failed", "AF808")
    other = await world.start()
    assert (await world.project.ended(other))["status"] == "succeeded"


async def test_the_journal_of_a_newer_release_is_left_alone(world: World) -> None:
    run = await world.start()
    await world.project.ended(run)
    await world.project.stop()
    with closing(sqlite3.connect(database(world), isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = database(world).read_bytes()
    refused = await world.project.command("runs", "list")
    assert refused.code == 1
    assert "AF801" in refused.err
    assert database(world).read_bytes() == before


async def test_a_store_that_can_not_be_written_refuses_runs_with_a_code(world: World) -> None:
    run = await world.start()
    await world.project.ended(run)
    await limit_files(world, 1)
    refused = await world.project.command("run", world.agent, "go", "--model", f"openai:{world.model}", "--json")
    assert refused.code == 1
    assert "AF800" in refused.out + refused.err
    await limit_files(world, resource.RLIM_INFINITY)
    assert (await world.project.ended(await world.start()))["status"] == "succeeded"
