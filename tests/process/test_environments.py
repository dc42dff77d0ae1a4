"""Real environments, built by uv from an index of tiny wheels on this machine's loopback."""

import asyncio
import os
import platform
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentforge.environments import (
    BuildProgress,
    CheckReport,
    Environment,
    EnvironmentRequest,
    Environments,
    Lock,
    LockEntry,
)
from agentforge.environments.home import write_atomically
from agentforge.environments.relock import relock
from agentforge.environments.uv import Uv
from agentforge.errors.environments import (
    CheckFailed,
    EnvironmentInUse,
    EnvironmentUnknown,
    HomeNotWritable,
    IndexUnreachable,
    InstallFailed,
    InterpreterMissing,
    ReleaseNotInIndex,
    ResolutionFailed,
    UploadTimesMissing,
    WrongVersion,
)
from agentforge.frameworks import Catalogue

from .index_world import LocalIndex, served, wheel

MANIFEST = """
name = "kit"
title = "Kit"
summary = "A framework for tests."
distribution = "kit"

[[releases]]
versions = ">=1,<2"
python = ">=3.8"
requirements = ["kit=={version}"]
adapter = "adapter:KitAdapter"
tested = [{ version = "1.0", as_of = 2024-06-01T00:00:00Z, lock = "locks/1.0.txt" }]
"""


@pytest.fixture
async def index() -> AsyncIterator[LocalIndex]:
    index = LocalIndex()
    index.gate.set()
    index.add("kit", "1.0", "2024-01-10", ("companion",))
    index.add("kit", "1.1", "2025-01-10", ("companion",))
    index.add("companion", "1.5", "2024-01-12")
    index.add("companion", "2.0", "2025-01-12")
    index.add("companion", "3.0", "2026-01-12")
    index.add("extra", "1.0", "2026-01-01", ("companion>=1",))
    index.add("modern", "1.0", "2026-01-01", ("companion>=3",))
    async with served(index):
        yield index


@pytest.fixture
def environ(index: LocalIndex, tmp_path: Path) -> dict[str, str]:
    cache = {"UV_DEFAULT_INDEX": f"{index.url}/simple", "UV_CACHE_DIR": str(tmp_path / "cache")}
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_HTTP_RETRIES": "0", **cache}


@pytest.fixture
def environments(environ: dict[str, str], tmp_path: Path) -> Environments:
    return Environments(tmp_path / "home", environ=environ)


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / "framework.toml").write_text(MANIFEST)
    return Catalogue.discover([folder], check_files=False)


@pytest.fixture
async def request_10(environments: Environments, catalogue: Catalogue) -> EnvironmentRequest:
    """The environment of the untested release 1.1."""
    release = catalogue.resolve("kit==1.1")
    return EnvironmentRequest.for_release(release, await environments.lock(release))


@pytest.fixture
def left_nothing(tmp_path: Path) -> Iterator[None]:
    """After the test there is no environment and nothing in staging."""
    yield
    assert leftovers(tmp_path / "home") == []


def leftovers(home: Path) -> list[str]:
    places = [home / "environments", home / "environments" / ".staging"]
    return sorted(f.name for place in places if place.is_dir() for f in place.iterdir() if f.name[0] != ".")


def pins(lock: Lock) -> dict[str, str]:
    return {package.name: package.version for package in lock.packages}


async def installed(environment: Environment) -> dict[str, str]:
    ask = "import importlib.metadata as m; print({d.name: d.version for d in m.distributions()})"
    process = await asyncio.create_subprocess_exec(
        environment.python, "-I", "-c", ask, stdout=asyncio.subprocess.PIPE, env={}
    )
    out, _ = await process.communicate()
    return dict(eval(out))


@pytest.mark.feature("AF-003")
async def test_an_untested_release_is_resolved_as_of_its_own_time(
    environments: Environments, catalogue: Catalogue
) -> None:
    lock = await environments.lock(catalogue.resolve("kit==1.1"))
    assert pins(lock) == {"kit": "1.1", "companion": "2.0"}
    assert "://" not in lock.text
    assert all(package.hashed for package in lock.packages)


@pytest.mark.feature("AF-003")
async def test_an_environment_holds_exactly_its_lock_and_no_bytecode(
    environments: Environments, request_10: EnvironmentRequest
) -> None:
    seen: list[BuildProgress] = []
    environment = await environments.ensure(request_10, seen.append)
    assert await installed(environment) == pins(request_10.lock)
    assert (environment.path / "lock.txt").read_text() == request_10.lock.text
    assert (environment.framework, environment.release) == ("kit", "1.1")
    assert environment.id.startswith(f"kit-1.1-py{sys.version_info.major}{sys.version_info.minor}-")
    assert environment.size_bytes > 0
    assert not list(environment.path.rglob("*.pyc"))
    assert [found.id for found in environments.list()] == [environment.id]
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["downloading", "installing", "checking", "ready"]
    assert max(progress.done for progress in seen if progress.stage == "installing") == 2


async def test_the_second_build_of_a_lock_starts_nothing(
    environments: Environments, request_10: EnvironmentRequest, index: LocalIndex, tmp_path: Path
) -> None:
    first = await environments.ensure(request_10)
    another_process = Environments(tmp_path / "home", environ={"PATH": "/nowhere", "HOME": "/nowhere"})
    seen: list[BuildProgress] = []
    assert await another_process.ensure(request_10, seen.append) == first
    assert [progress.stage for progress in seen] == ["ready"]


async def test_plain_python_needs_no_index(tmp_path: Path) -> None:
    environments = Environments(tmp_path, environ={"HOME": str(tmp_path), "UV_OFFLINE": "1"})
    release = Catalogue.discover().resolve("python")
    lock = await environments.lock(release)
    environment = await environments.ensure(EnvironmentRequest.for_release(release, lock))
    assert (lock.text, environment.release) == ("", release.version)
    assert await installed(environment) == {}
    tools = await environments.lock_tools(release.version)
    built = await environments.ensure(EnvironmentRequest.for_tools(tools, release.version))
    assert built.framework is None
    assert built.id.startswith("tools-py")


@pytest.mark.usefixtures("left_nothing")
async def test_another_version_than_the_requested_one_is_refused(
    environments: Environments, request_10: EnvironmentRequest
) -> None:
    wrong = EnvironmentRequest("kit", request_10.lock, request_10.python, "1.2", "kit")
    with pytest.raises(WrongVersion, match=r"`kit` 1\.2, but has 1\.1"):
        await environments.ensure(wrong)
    absent = EnvironmentRequest("kit", request_10.lock, request_10.python, "1.1", "other")
    with pytest.raises(WrongVersion, match="does not have it"):
        await environments.ensure(absent)


@pytest.mark.usefixtures("left_nothing")
async def test_an_environment_that_fails_its_check_is_thrown_away(
    environments: Environments, request_10: EnvironmentRequest
) -> None:
    async def check(candidate: Environment) -> CheckReport:
        assert await installed(candidate) == {"kit": "1.1", "companion": "2.0"}
        assert environments.list() == []
        return CheckReport("no tool was called", details="Traceback ...")

    with pytest.raises(CheckFailed, match="no tool was called") as caught:
        await environments.ensure(request_10, check=check)
    assert caught.value.details["traceback"] == "Traceback ..."


@pytest.mark.usefixtures("left_nothing")
async def test_a_file_with_another_hash_is_refused(
    environments: Environments, request_10: EnvironmentRequest, index: LocalIndex
) -> None:
    index.files["kit-1.1-py3-none-any.whl"] = wheel("kit", "1.1", ("companion", "extra")), "2025-01-10"
    with pytest.raises((InstallFailed, ResolutionFailed), match=r"[Hh]ash"):
        await environments.ensure(request_10)


@pytest.mark.usefixtures("left_nothing")
async def test_a_cancelled_build_leaves_nothing(
    environments: Environments, request_10: EnvironmentRequest, index: LocalIndex
) -> None:
    index.gate.clear()
    build = asyncio.create_task(environments.ensure(request_10))
    await index.asked.wait()
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build


@pytest.mark.feature("AF-011")
async def test_some_environments_are_built_at_once_and_the_others_wait_for_their_turn(
    environments: Environments, index: LocalIndex
) -> None:
    at_once = max(2, os.cpu_count() or 2)
    for number in range(at_once + 2):
        index.add(f"part{number}", "1.0", "2026-01-01")
    locks = [await environments.lock_tools("3.11", [f"part{number}"]) for number in range(at_once + 2)]
    index.gate.clear()
    index.requested.clear()
    seen: list[BuildProgress] = []
    builds = [
        asyncio.create_task(environments.ensure(EnvironmentRequest("tools", lock, ">=3.11"), seen.append))
        for lock in locks
    ]
    while len(index.requested) < at_once:
        await asyncio.sleep(0.01)
    waiting = {each.environment for each in seen if each.stage == "waiting"}
    assert len(waiting) == 2
    assert waiting.isdisjoint(each.environment for each in seen if each.stage == "downloading")
    index.gate.set()
    assert len({(await build).id for build in builds}) == at_once + 2
    assert len(index.requested) == at_once + 2


BUILD = """
import asyncio, json, sys
from pathlib import Path
from agentforge.environments import CheckReport, EnvironmentRequest, Environments, Lock

home, lock, python, builds = sys.argv[1:]

async def check(candidate):
    with open(builds, "a") as file:
        file.write("built\\n")
    return CheckReport()

async def main():
    request = EnvironmentRequest("kit", Lock(Path(lock).read_text()), python, "1.1", "kit")
    tell = lambda progress: print(progress.stage, flush=True)
    await Environments(Path(home)).ensure(request, tell, check)

asyncio.run(main())
"""


@dataclass
class Builders:
    """Starts processes that build the same environment."""

    arguments: list[str]
    environ: dict[str, str]
    builds: Path

    async def start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", BUILD, *self.arguments, stdout=asyncio.subprocess.PIPE, env=self.environ
        )


@pytest.fixture
def builders(request_10: EnvironmentRequest, environ: dict[str, str], tmp_path: Path) -> Builders:
    lock, builds = tmp_path / "lock.txt", tmp_path / "builds"
    lock.write_text(request_10.lock.text)
    arguments = [str(tmp_path / "home"), str(lock), request_10.python, str(builds)]
    return Builders(arguments, environ, builds)


async def line_of(process: asyncio.subprocess.Process, wanted: str) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        if line.decode().strip() == wanted:
            return
    raise AssertionError(f"the process ended before it said {wanted}")


async def test_two_processes_build_the_same_lock_once(
    builders: Builders, index: LocalIndex, environments: Environments
) -> None:
    index.gate.clear()
    first = await builders.start()
    await index.asked.wait()
    second = await builders.start()
    await line_of(second, "waiting")
    index.gate.set()
    for process in (first, second):
        await line_of(process, "ready")
        assert await process.wait() == 0
    assert builders.builds.read_text() == "built\n"
    assert sorted(index.requested) == ["companion-2.0-py3-none-any.whl", "kit-1.1-py3-none-any.whl"]
    assert len(environments.list()) == 1


async def test_a_killed_build_leaves_nothing_that_counts_and_the_next_one_works(
    builders: Builders, index: LocalIndex, environments: Environments, request_10: EnvironmentRequest, tmp_path: Path
) -> None:
    index.gate.clear()
    killed = await builders.start()
    await index.asked.wait()
    killed.send_signal(signal.SIGKILL)
    await killed.wait()
    assert environments.list() == []
    assert len(leftovers(tmp_path / "home")) == 1  # what it was building, in staging
    index.gate.set()
    environment = await environments.ensure(request_10)
    assert leftovers(tmp_path / "home") == [environment.id]
    assert await installed(environment) == pins(request_10.lock)


async def test_the_next_build_of_anything_clears_what_dead_processes_left(
    environments: Environments, tmp_path: Path
) -> None:
    left = tmp_path / "home" / "environments" / ".staging" / "old-1.0-py311-abc.12345678"
    left.mkdir(parents=True)
    lock = await environments.lock_tools("3.11")
    environment = await environments.ensure(EnvironmentRequest("tools", lock, ">=3.11"))
    assert leftovers(tmp_path / "home") == [environment.id]


async def test_an_environment_whose_interpreter_is_gone_is_built_again(environments: Environments) -> None:
    request = EnvironmentRequest("tools", Lock(""), ">=3.11")
    environment = await environments.ensure(request)
    environment.python.unlink()
    again = await environments.ensure(request)
    assert again.id == environment.id
    assert again.python.exists()


async def test_an_environment_in_use_is_not_removed(environments: Environments, tmp_path: Path) -> None:
    environment = await environments.ensure(EnvironmentRequest("tools", Lock(""), ">=3.11"))
    with environments.hold(environment.id) as held, environments.hold(environment.id):
        assert held == environment
        with pytest.raises(EnvironmentInUse):
            environments.remove(environment.id)
    environments.remove(environment.id)
    assert leftovers(tmp_path / "home") == []
    with pytest.raises(EnvironmentUnknown), environments.hold(environment.id):
        pass


async def test_extra_packages_leave_the_tested_versions_as_they_are(
    environments: Environments, catalogue: Catalogue, environ: dict[str, str]
) -> None:
    tested = catalogue.resolve("kit")
    assert pins(await relock(tested, Uv(environ), environments.interpreters)) == {"kit": "1.0", "companion": "1.5"}
    assert pins(await environments.lock(tested)) == {"kit": "1.0", "companion": "1.5"}
    lock = await environments.lock(tested, ["extra"])
    assert pins(lock) == {"kit": "1.0", "companion": "1.5", "extra": "1.0"}
    seen: list[BuildProgress] = []
    lock = await environments.lock(tested, ["modern"], progress=seen.append)
    assert pins(lock) == {"kit": "1.0", "companion": "3.0", "modern": "1.0"}
    assert "do not fit" in seen[1].message
    environment = await environments.ensure(EnvironmentRequest.for_release(tested, lock))
    assert await installed(environment) == pins(lock)


async def test_what_was_resolved_once_is_remembered_until_it_is_asked_anew(
    environments: Environments, index: LocalIndex
) -> None:
    series = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert pins(await environments.lock_tools(series, ["companion"])) == {"companion": "3.0"}
    index.add("companion", "4.0", "2026-02-01")
    assert pins(await environments.lock_tools(series, ["companion"])) == {"companion": "3.0"}
    lock = await environments.lock_tools(series, ["companion"], refresh=True)
    assert pins(lock) == {"companion": "4.0"}
    entry = LockEntry("tools", "tools", "", series, lock.digest, ("companion",))
    assert environments.restore(entry).text == lock.text


async def test_a_conflict_is_explained_with_the_packages_and_their_pins(
    environments: Environments, catalogue: Catalogue
) -> None:
    with pytest.raises(ResolutionFailed) as caught:
        await environments.lock_tools("3.11", ["modern", "companion<2"])
    assert "modern" in caught.value.message
    assert "companion<2" in caught.value.message
    assert "companion>=3" in caught.value.message
    with pytest.raises(ResolutionFailed, match="modern"):  # it came a year after the release
        await environments.lock(catalogue.resolve("kit==1.1"), ["modern"])


async def test_an_index_without_upload_times_is_told_apart_from_an_unknown_release(
    environments: Environments, catalogue: Catalogue, index: LocalIndex
) -> None:
    with pytest.raises(ReleaseNotInIndex, match=r"`kit` has no release `1\.7`"):
        await environments.lock(catalogue.resolve("kit==1.7"))
    index.upload_times = False
    with pytest.raises(UploadTimesMissing, match=r"`kit` 1\.1"):
        await environments.lock(catalogue.resolve("kit==1.1"))


async def test_an_index_that_does_not_answer_is_named(catalogue: Catalogue, tmp_path: Path) -> None:
    environ = {"UV_DEFAULT_INDEX": "http://me:secret@127.0.0.1:1/simple", "UV_HTTP_RETRIES": "0", "HOME": str(tmp_path)}
    environments = Environments(tmp_path, environ=environ)
    with pytest.raises(IndexUnreachable, match=r"`http://127\.0\.0\.1:1/simple`"):
        await environments.lock(catalogue.resolve("kit==1.1"))
    with pytest.raises(IndexUnreachable) as caught:
        await environments.lock_tools("3.11", ["kit"])
    assert "secret" not in caught.value.message


async def test_a_data_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "not a folder")
    environments = Environments(tmp_path / "file" / "home")
    with pytest.raises(HomeNotWritable, match=str(tmp_path / "file")):
        await environments.ensure(EnvironmentRequest("tools", Lock(""), ">=3.11"))


async def test_a_python_that_this_machine_lacks_is_named_with_those_it_has(environments: Environments) -> None:
    with pytest.raises(InterpreterMissing, match=r"`==3\.6\.1`") as caught:
        await environments.ensure(EnvironmentRequest("tools", Lock(""), "==3.6.1"))
    assert platform.python_version() in caught.value.message
    assert not environments.interpreters.exists("==3.6.1")
