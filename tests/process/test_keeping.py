"""Removing and collecting environments: never what a lock, an unfinished run or a process uses; bytes told truly."""

import asyncio
import json
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentforge.environments import Environment, EnvironmentRequest, Environments, LockEntry, ProjectLock
from agentforge.environments.home import Home, write_atomically
from agentforge.errors.environments import EnvironmentInUse
from agentforge.errors.keeping import EnvironmentNeeded, ProjectUnreadable

from .index_world import LocalIndex, served
from .kit_world import write_kit, write_library
from .project_world import Project

SERIES = f"{sys.version_info.major}.{sys.version_info.minor}"
LONG_AGO_S = 7200.0


@pytest.fixture
async def index() -> AsyncIterator[LocalIndex]:
    index = LocalIndex()
    index.add("kit", "1.0", "2024-01-10")
    index.add("kit", "1.1", "2024-02-10")
    for number in range(1, 6):
        index.add("companion", f"{number}.0", "2024-01-12")
    async with served(index):
        yield index


@pytest.fixture
def environ(index: LocalIndex, tmp_path: Path) -> dict[str, str]:
    uv = {"UV_DEFAULT_INDEX": f"{index.url}/simple", "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_HTTP_RETRIES": "0"}
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **uv}


@pytest.fixture
def environments(environ: dict[str, str], tmp_path: Path) -> Environments:
    return Environments(tmp_path / "home", environ=environ)


async def built(environments: Environments, *requirements: str) -> Environment:
    lock = await environments.lock_tools(SERIES, requirements)
    return await environments.ensure(EnvironmentRequest.for_tools(lock, SERIES))


def pin(environments: Environments, root: Path, environment: Environment, generations: int = 1) -> None:
    """Have a project use an environment, in its first of some generations."""
    root.mkdir(exist_ok=True)
    pins = ProjectLock.load(root / "agentforge.lock")
    text = (environment.path / "lock.txt").read_text()
    pins.pin(LockEntry("tools", "tools", "", SERIES, environment.lock_digest, (), text))
    for number in range(1, generations):
        pins.pin(LockEntry("tools", "tools", "", SERIES, f"{number:064}", (), "other"))
    with environments.pinning(root):
        pins.save()


def age(*paths: Path) -> None:
    for path in paths:
        for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
            os.utime(each, (time.time() - LONG_AGO_S,) * 2)


def left(environments: Environments) -> set[str]:
    return {each.id for each in environments.list()}


@pytest.mark.feature("AF-003")
async def test_what_a_lock_needs_in_any_generation_stays_and_its_project_is_named(
    environments: Environments, tmp_path: Path
) -> None:
    used, unused = await built(environments, "companion==1.0"), await built(environments, "companion==2.0")
    pin(environments, tmp_path / "one", used, generations=2)
    with pytest.raises(EnvironmentNeeded) as refused:
        environments.remove(used.id)
    assert f"`{tmp_path / 'one'}` (its `agentforge.lock`: `tools#1`)" in refused.value.message
    found = environments.collect(dry_run=True)
    assert [each.name for each in found.removed if each.kind == "environment"] == [unused.id]
    assert left(environments) == {used.id, unused.id}
    again = environments.collect()
    assert [each.name for each in again.removed if each.kind == "environment"] == [unused.id]
    assert left(environments) == {used.id}
    assert [(kept.name, "tools#1" in kept.reason) for kept in again.kept] == [(used.id, True)]


async def test_an_unfinished_run_of_another_project_keeps_its_environment(
    environments: Environments, environ: dict[str, str], tmp_path: Path, project: Project
) -> None:
    project.variables |= {**environ, "AGENTFORGE_HOME": str(tmp_path / "home")}
    agent = project.native("waits", "async def agent(input, run):\n    return await run.ask('which?')\n")
    run = await project.command("run", agent, "hello", "--json")
    assert run.result["status"] == "waiting", run
    await project.stop()
    (environment,) = environments.list()
    (project.root / "agentforge.lock").unlink()
    with pytest.raises(EnvironmentNeeded, match=run.result["run_id"]):
        environments.remove(environment.id)
    assert [kept.name for kept in environments.collect().kept] == [environment.id]
    assert (await project.command("runs", "cancel", run.result["run_id"])).code in (0, 1)
    await project.stop()
    (project.root / "agentforge.lock").unlink(missing_ok=True)
    assert environments.remove(environment.id).name == environment.id


async def test_a_run_whose_environment_is_removed_before_its_worker_starts_builds_it_once_more(
    environments: Environments, index: LocalIndex, environ: dict[str, str], tmp_path: Path, project: Project
) -> None:
    """The tools' environment is still being built when somebody takes away the one that the framework needs."""
    project.variables |= {**environ, "AGENTFORGE_HOME": str(tmp_path / "home")}
    project.write("agentforge.toml", '[tools]\nrequirements = ["companion==1.0"]\n')
    code = 'def total_for(category: str) -> float:\n    """Add up."""\n    return 1.0\n'
    agent = project.with_tools("agent", code, "total_for")
    index.gate.clear()
    run = await project.detached(agent, "FINAL: done")
    await asyncio.wait_for(index.asked.wait(), 60)
    (environment,) = environments.list()
    found = await asyncio.to_thread(environments.collect, forget=[project.root])
    assert environment.id in [each.name for each in found.removed]
    index.gate.set()
    result = await project.ended(run)
    assert result["status"] == "succeeded", result["error"]
    assert environment.id in left(environments)


async def test_what_a_process_uses_stays_whatever_the_locks_say(environments: Environments) -> None:
    held, free = await built(environments, "companion==1.0"), await built(environments, "companion==2.0")
    with environments.hold(held.id):
        found = environments.collect()
        with pytest.raises(EnvironmentInUse):
            environments.remove(held.id)
    assert [(kept.name, kept.reason) for kept in found.kept] == [(held.id, "a process uses it")]
    assert left(environments) == {held.id}
    assert free.id in [each.name for each in found.removed]


async def test_a_project_that_is_gone_needs_nothing_and_one_that_can_not_be_read_stops_everything(
    environments: Environments, tmp_path: Path
) -> None:
    environment = await built(environments, "companion==1.0")
    root = tmp_path / "one"
    pin(environments, root, environment)
    good = (root / "agentforge.lock").read_text()
    for bad in ("broken = [", good.replace(f'python = "{SERIES}"', 'python = "three"')):
        assert bad != good
        (root / "agentforge.lock").write_text(bad)
        for act in (environments.collect, lambda: environments.remove(environment.id)):
            with pytest.raises(ProjectUnreadable, match=str(root)) as refused:
                act()
            assert f"--forget {root}" in refused.value.hint
        known, unreadable = environments.needs(environment.id)  # who only asks is answered
        assert (known, [str(root) in error.message for error in unreadable]) == ([], [True])
    (root / "agentforge.lock").write_text(good)
    (root / ".agentforge").mkdir()
    (root / ".agentforge/state.db").write_bytes(b"no database at all, but long enough to be read as one" * 50)
    with pytest.raises(ProjectUnreadable, match=r"state\.db"):
        environments.collect()
    (root / ".agentforge/state.db").unlink()
    assert left(environments) == {environment.id}
    assert environments.collect(forget=[root], dry_run=True).removed
    assert environments.projects.list() == [root]
    (root / "agentforge.lock").unlink()
    (root / ".agentforge").rmdir()
    environments.collect()
    assert left(environments) == set()
    assert environments.projects.list() == []
    assert list((tmp_path / "home/projects").iterdir()) == []


async def test_a_project_whose_folder_is_gone_is_dropped_by_the_next_one_that_comes(
    environments: Environments, tmp_path: Path
) -> None:
    for name in ("gone", "empty", "new"):
        (tmp_path / name).mkdir()
        environments.projects.register(tmp_path / name)
        if name == "gone":
            (tmp_path / name).rmdir()
    roots = [json.loads(file.read_text())["root"] for file in (tmp_path / "home/projects").iterdir()]
    assert sorted(roots) == [str(tmp_path / "empty"), str(tmp_path / "new")]


async def test_a_forgotten_project_needs_nothing(environments: Environments, tmp_path: Path) -> None:
    environment = await built(environments, "companion==1.0")
    pin(environments, tmp_path / "one", environment)
    assert environments.collect(forget=[tmp_path / "one"]).forgotten == [str(tmp_path / "one")]
    assert left(environments) == set()


async def test_what_was_used_lately_stays_with_an_age(environments: Environments, tmp_path: Path) -> None:
    old, used = await built(environments, "companion==1.0"), await built(environments, "companion==2.0")
    home = Home(tmp_path / "home")
    for each in (old, used):
        marker = each.path / "ready.json"
        facts = {**json.loads(marker.read_text()), "built_at": time.time() - LONG_AGO_S}
        marker.write_text(json.dumps(facts))
        age(home.claim(each.id))
    with environments.hold(used.id):
        pass
    environments.collect(older_than_s=3600)
    assert left(environments) == {used.id}
    environments.collect()
    assert left(environments) == set()


async def test_the_bytes_that_come_free_are_those_that_nobody_else_has(
    environments: Environments, tmp_path: Path
) -> None:
    """Files are linked to uv's cache, and between environments; only what has no other name comes free."""
    environment = await built(environments, "companion==1.0")
    shared, twice, alone = (environment.path / name for name in ("shared", "twice", "alone"))
    for file in (shared, twice, alone):
        file.write_bytes(b"x" * 2**20)
    os.link(shared, tmp_path / "elsewhere")
    os.link(twice, environment.path / "venv/twice")
    before = environments.collect(dry_run=True)
    removed = environments.remove(environment.id)
    assert removed.freed_bytes == next(each.freed_bytes for each in before.removed if each.name == environment.id)
    assert 2 * 2**20 <= removed.freed_bytes < removed.size_bytes - 2**20
    assert (tmp_path / "elsewhere").stat().st_nlink == 1
    linked = [each for each in removed_links(tmp_path / "cache") if each.name == "companion.py"]
    assert linked, "the module's only other name is in uv's cache"


def removed_links(cache: Path) -> list[Path]:
    return [each for each in cache.rglob("*.py") if each.stat().st_nlink == 1]


async def test_two_collections_at_once_remove_each_thing_once(
    environments: Environments, environ: dict[str, str], tmp_path: Path
) -> None:
    made = [await built(environments, f"companion=={number}.0") for number in range(1, 6)]
    pin(environments, tmp_path / "one", made[0])
    others = [Environments(tmp_path / "home", environ=environ) for _ in range(3)]
    found = await asyncio.gather(*(asyncio.to_thread(each.collect) for each in others))
    removed = [each.name for one in found for each in one.removed if each.kind == "environment"]
    assert sorted(removed) == sorted(each.id for each in made[1:])
    assert left(environments) == {made[0].id}


async def test_builds_beside_collections_give_environments_that_work(
    environments: Environments, environ: dict[str, str], tmp_path: Path
) -> None:
    """A pinned environment is there from its build on, however often somebody collects."""
    stop = False

    def collecting() -> int:
        count = 0
        while not stop:
            Environments(tmp_path / "home", environ=environ).collect()
            count += 1
        return count

    task = asyncio.create_task(asyncio.to_thread(collecting))
    try:
        for number in range(1, 6):
            lock = await environments.lock_tools(SERIES, [f"companion=={number}.0"])
            root = tmp_path / f"p{number}"
            root.mkdir()
            pins = ProjectLock(root / "agentforge.lock")
            pins.pin(LockEntry("tools", "tools", "", SERIES, lock.digest, (), lock.text))
            with environments.pinning(root):
                pins.save()
            environment = await environments.ensure(EnvironmentRequest.for_tools(lock, SERIES))
            with environments.hold(environment.id) as held:
                assert held.python.exists()
    finally:
        stop = True
    assert await task > 1
    assert len(left(environments)) == 5


async def test_what_was_left_over_goes_and_what_is_young_or_named_stays(
    environments: Environments, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    environment = await built(environments, "companion==1.0")
    library = write_library(tmp_path / "lib", "1")
    kept_wheel = await environments.wheel(library, "content-1", f"=={SERIES}.*")
    write_library(library, "2")
    lost_wheel = await environments.wheel(library, "content-2", f"=={SERIES}.*")
    text = f"mylib==0.1 \\\n    --hash=sha256:{kept_wheel.digest}\n"
    root = tmp_path / "one"
    root.mkdir()
    pins = ProjectLock(root / "agentforge.lock")
    pins.pin(LockEntry("tools", "tools", "", SERIES, "a" * 64, (), text))
    with environments.pinning(root):
        pins.save()
    stale = home.environments / ".staging" / "old-1.0-py311-abc.12345678"
    half = home.environment("half-1.0-py311-abc")
    for folder in (stale, half):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    old_lock, young_lock = home.lock_text("b" * 64), home.lock_text("c" * 64)
    for file in (old_lock, young_lock):
        write_atomically(file, "x")
    write_atomically(home.resolved("some"), "b" * 64 + "\n")
    age(old_lock, home.resolved("some"), kept_wheel.file.parent, lost_wheel.file.parent)
    age(*(home.wheels / "by-content").iterdir())
    with environments.hold(environment.id):
        found = environments.collect()
    assert sorted((each.kind, each.name) for each in found.removed) == sorted(
        [
            ("half-made", half.name),
            ("staging", stale.name),
            ("lock", old_lock.name),
            ("lock", "some"),
            ("wheel", lost_wheel.digest),
            ("wheel", f"content-2-py{SERIES.replace('.', '')}"),
        ]
    )
    for path, stays in [(stale, False), (half, False), (old_lock, False), (young_lock, True), (kept_wheel.file, True)]:
        assert path.exists() is stays, path
    assert not lost_wheel.file.exists()
    assert home.lock_text(environment.lock_digest).exists()
    assert [kept.name for kept in found.kept] == [environment.id]


async def test_a_build_under_way_loses_nothing(
    environments: Environments, index: LocalIndex, environ: dict[str, str], tmp_path: Path
) -> None:
    lock = await environments.lock_tools(SERIES, ["companion==1.0"])
    index.gate.clear()
    build = asyncio.create_task(environments.ensure(EnvironmentRequest.for_tools(lock, SERIES)))
    await index.asked.wait()
    found = await asyncio.to_thread(Environments(tmp_path / "home", environ=environ).collect)
    assert found.removed == []
    index.gate.set()
    assert (await build).python.exists()


async def test_the_commands_remove_collect_and_say_why_not(
    project: Project, environ: dict[str, str], tmp_path: Path
) -> None:
    project.variables |= {**environ, "AGENTFORGE_HOME": str(tmp_path / "home")}
    write_kit(project.root / "frameworks/kit")
    assert (await project.command("framework", "register", "frameworks/kit")).code == 0
    for release in ("kit==1.0", "kit==1.1"):
        done = await project.command("env", "build", release, "--json")
        assert done.code == 0, done
    first, second = [each["id"] for each in (await project.command("env", "list", "--json")).objects]
    shown = (await project.command("env", "show", first, "--json")).result
    assert shown["needed_by"] == [{"project": str(project.root), "by": "lock", "name": "kit==1.0#1"}]
    await a_broken_neighbour_is_named(tmp_path / "home", tmp_path / "neighbour", project, first)
    refused = await project.command("env", "remove", first, "nothing-1", second)
    assert refused.code == 1
    assert refused.err.count("error[AF330]") == 2
    assert refused.err.count("error[AF313]") == 1
    assert f"`{project.root}` (its `agentforge.lock`: `kit==1.0#1`)" in refused.err
    assert "hint:" in refused.err
    pins = ProjectLock.load(project.root / "agentforge.lock")
    ProjectLock(pins.path, [each for each in pins.entries if each.release == "1.1"]).save()
    await project.stop()
    dry = (await project.command("env", "gc", "--dry-run", "--json")).result
    assert (dry["dry_run"], [each["name"] for each in dry["removed"] if each["kind"] == "environment"]) == (
        True,
        [first],
    )
    assert [kept["name"] for kept in dry["kept"]] == [second]
    young = await project.command("env", "gc", "--older-than", "1d", "--json")
    assert [each for each in young.result["removed"] if each["kind"] == "environment"] == []
    wrong = await project.command("env", "gc", "--older-than", "soon")
    assert (wrong.code, "`30d`" in wrong.err) == (2, True)
    done = await project.command("env", "gc")
    assert (done.code, f"removed environment {first}" in done.out) == (0, True), done
    assert "came free" in done.err
    assert [each["id"] for each in (await project.command("env", "list", "--json")).objects] == [second]
    forgotten = (await project.command("env", "gc", "--forget", ".", "--json")).result
    assert forgotten["forgotten"] == [str(project.root)]


async def a_broken_neighbour_is_named(home: Path, root: Path, project: Project, environment: str) -> None:
    """What another project of the user needs can't be read: showing says so, and is not kept from its own answer."""
    projects = Environments(home).projects
    root.mkdir()
    (root / "agentforge.lock").write_text("broken = [")
    projects.register(root)
    done = await project.command("env", "show", environment)
    assert (done.code, environment in done.out, f"needed by    {project.root}" in done.out) == (0, True, True), done
    assert f"warning: What the project `{root}` uses can't be read" in done.err
    projects.forget(root)


def test_a_database_that_is_written_at_the_moment_is_read_all_the_same(tmp_path: Path) -> None:
    from agentforge.store import unfinished_specs

    assert unfinished_specs(tmp_path / "state.db") == []
    writer = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    assert unfinished_specs(tmp_path / "state.db") == []  # made a moment ago
    writer.execute("CREATE TABLE agent_versions (id TEXT, spec TEXT)")
    writer.execute("CREATE TABLE runs (run_id TEXT, agent_version TEXT, status TEXT)")
    writer.execute("INSERT INTO agent_versions VALUES ('v', '{\"release\": \"1\"}')")
    rows = [("r1", "v", "waiting"), ("r2", "v", "succeeded"), ("r3", "v", "queued")]
    writer.executemany("INSERT INTO runs VALUES (?, ?, ?)", rows)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM runs")
    found = unfinished_specs(tmp_path / "state.db")
    assert found == [("r1", {"release": "1"}), ("r3", {"release": "1"})]
    writer.execute("ROLLBACK")
    writer.close()
