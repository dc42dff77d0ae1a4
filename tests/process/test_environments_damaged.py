"""Environments that somebody damaged: what a look at them finds, and that they are made anew beside their users."""

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentforge.environments import (
    CheckReport,
    Environment,
    EnvironmentRequest,
    Environments,
    Inspection,
    Lock,
    inspect,
)
from agentforge.errors.environments import CheckFailed, EnvironmentInUse
from agentforge.frameworks import Catalogue

from .index_world import LocalIndex, served
from .test_environments import MANIFEST

Plant = Callable[[Path], object]


@pytest.fixture
async def index() -> AsyncIterator[LocalIndex]:
    index = LocalIndex()
    index.add("kit", "1.1", "2025-01-10", ("companion",))
    index.add("companion", "1.5", "2024-01-12")
    async with served(index):
        yield index


@pytest.fixture
def environments(index: LocalIndex, tmp_path: Path) -> Environments:
    cache = {"UV_DEFAULT_INDEX": f"{index.url}/simple", "UV_CACHE_DIR": str(tmp_path / "cache")}
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_HTTP_RETRIES": "0", **cache}
    return Environments(tmp_path / "home", environ=environ)


@pytest.fixture
async def request_11(environments: Environments, tmp_path: Path) -> EnvironmentRequest:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "framework.toml").write_text(MANIFEST)
    release = Catalogue.discover([tmp_path / "kit"], check_files=False).resolve("kit==1.1")
    return EnvironmentRequest.for_release(release, await environments.lock(release))


@pytest.fixture
async def built(environments: Environments, request_11: EnvironmentRequest) -> Environment:
    return await environments.ensure(request_11)


def packages(environment: Environment) -> Path:
    """Where the packages of an environment are."""
    (place,) = (environment.path / "venv" / "lib").glob("python*/site-packages")
    return place


def write_anew(file: Path, text: str) -> None:
    """Write as editors do: another file under the same name, so that nothing that links to the old one changes."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def delete_a_file(place: Path) -> None:
    (place / "companion.py").unlink()


def change_a_file(place: Path) -> None:
    write_anew(place / "companion.py", 'version = "6.6"\n')  # as long as it was


def lengthen_a_file(place: Path) -> None:
    write_anew(place / "kit.py", (place / "kit.py").read_text() + "# more\n")


def take_a_package_out(place: Path) -> None:
    for path in [place / "companion.py", *(place / "companion-1.5.dist-info").iterdir()]:
        path.unlink()
    (place / "companion-1.5.dist-info").rmdir()


def exchange_a_package(place: Path) -> None:
    (place / "companion-1.5.dist-info").rename(place / "companion-1.6.dist-info")


def delete_a_record(place: Path) -> None:
    (place / "companion-1.5.dist-info" / "RECORD").unlink()


def garble_a_record(place: Path) -> None:
    (place / "companion-1.5.dist-info" / "RECORD").write_bytes(b"\xff\x00")


def delete_the_interpreter(place: Path) -> None:
    (place.parents[2] / "bin" / "python").unlink()


def delete_the_settings_of_the_venv(place: Path) -> None:
    (place.parents[2] / "pyvenv.cfg").unlink()


def change_the_lock(place: Path) -> None:
    write_anew(place.parents[3] / "lock.txt", "companion==1.5\n")


@pytest.mark.parametrize(
    ("plant", "kinds"),
    [
        (delete_a_file, {"missing"}),
        (change_a_file, {"changed"}),
        (lengthen_a_file, {"changed"}),
        (take_a_package_out, {"package"}),
        (exchange_a_package, {"package", "missing"}),
        (delete_a_record, {"missing"}),
        (garble_a_record, {"missing"}),
        (delete_the_interpreter, {"interpreter"}),
        (delete_the_settings_of_the_venv, {"missing"}),
        (change_the_lock, {"lock"}),
    ],
)
async def test_a_quick_look_finds_what_was_damaged_and_nothing_before(
    built: Environment, plant: Plant, kinds: set[str]
) -> None:
    assert inspect(built, every_file=True).damages == ()
    plant(packages(built))
    for every_file in (False, True):
        found = inspect(built, every_file=every_file)
        assert {damage.kind for damage in found.broken} >= kinds, found
        assert found.problem


async def test_a_change_that_keeps_the_time_of_the_file_is_found_by_reading_it(built: Environment) -> None:
    file = packages(built) / "companion.py"
    times = file.stat()
    change_a_file(packages(built))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert inspect(built).damages == ()
    (damage,) = inspect(built, every_file=True).damages
    assert (damage.kind, Path(damage.place).name, damage.package) == ("changed", "companion.py", "companion")


async def test_what_was_put_beside_its_packages_does_not_break_it(built: Environment) -> None:
    (packages(built) / "sitecustomize.py").write_text("")
    (packages(built) / "__pycache__").mkdir(exist_ok=True)
    (packages(built) / "__pycache__" / "kit.cpython-311.pyc").write_bytes(b"")
    found = inspect(built, every_file=True)
    assert (found.broken, [Path(each.place).name for each in found.damages]) == ((), ["sitecustomize.py"])
    assert "sitecustomize.py" in found.problem


def names(folder: int) -> list[str]:
    """Return what is in an open folder, wherever it is by now."""
    return sorted(os.listdir(folder))


def whole(environment: Environment | None) -> Inspection:
    assert environment is not None
    found = inspect(environment, every_file=True)
    assert found.damages == ()
    return found


async def test_a_broken_environment_is_made_anew_and_its_users_keep_the_old_one(
    environments: Environments, request_11: EnvironmentRequest, built: Environment, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as old, contextlib.ExitStack() as new:
        old.enter_context(environments.hold(built.id))
        inside = os.open(packages(built), os.O_RDONLY)  # as a mount of it in a worker's sandbox
        old.callback(os.close, inside)
        delete_a_file(packages(built))
        again = await environments.rebuild(request_11)
        assert (again.id, again.path) == (built.id, built.path)
        assert again.built_at > built.built_at
        whole(again)
        left = names(inside)
        assert "kit.py" in left
        assert "companion.py" not in left
        await environments.rebuild(request_11)  # once more while they are there
        new.enter_context(environments.hold(built.id))
        environments.tidy()
        assert names(inside) == left
        staging = tmp_path / "home" / "environments" / ".staging"
        assert len(list(staging.iterdir())) == 1
        old.close()
        environments.tidy()  # with the new users there
        assert list(staging.iterdir()) == []
        with pytest.raises(EnvironmentInUse):
            environments.remove(built.id)
        whole(environments.get(built.id))
    claims = [each.name for each in (tmp_path / "home" / "environments" / ".claims").iterdir()]
    assert [name for name in claims if "~" in name] == [f"{built.id}~rebuild"]
    environments.remove(built.id)


async def test_a_file_that_was_changed_in_its_place_is_changed_in_the_cache_and_comes_from_the_index_anew(
    environments: Environments, request_11: EnvironmentRequest, built: Environment, index: LocalIndex
) -> None:
    file = packages(built) / "companion.py"
    before = file.read_text()
    assert file.stat().st_nlink > 1, "the cache and the environment share the file on this file system"
    file.write_text('version = "6.6"\n')
    index.requested.clear()
    whole(await environments.rebuild(request_11))
    assert file.read_text() == before
    assert index.requested == ["companion-1.5-py3-none-any.whl"]
    index.requested.clear()
    environments.remove(built.id)
    whole(await environments.ensure(request_11))  # the cache is well, too
    assert index.requested == []


async def test_what_a_wheel_recorded_wrongly_of_itself_is_no_damage(
    environments: Environments, request_11: EnvironmentRequest, index: LocalIndex
) -> None:
    wrong = index.wrongly_recorded("companion-1.5-py3-none-any.whl")
    hashes = request_11.lock.text.replace(wrong[0], wrong[1])
    built = await environments.ensure(replace(request_11, lock=Lock(hashes)))
    assert index.requested.count("companion-1.5-py3-none-any.whl") == 2  # it might have been the cache
    assert inspect(built, every_file=True).damages == ()
    assert [Path(each).name for each in json.loads((built.path / "odd.json").read_text())] == ["companion.py"]
    (packages(built) / "kit.py").unlink()
    assert [each.kind for each in inspect(built).broken] == ["missing"]


async def test_a_rebuild_that_fails_leaves_the_old_environment(
    environments: Environments, request_11: EnvironmentRequest, built: Environment, tmp_path: Path
) -> None:
    async def refuse(candidate: Environment) -> CheckReport:
        return CheckReport("the tool loop went wrong")

    with pytest.raises(CheckFailed):
        await environments.rebuild(request_11, None, refuse)
    assert environments.get(built.id) == built
    assert list((tmp_path / "home" / "environments" / ".staging").iterdir()) == []


async def test_several_that_want_it_anew_share_one_rebuild(
    environments: Environments, request_11: EnvironmentRequest, built: Environment
) -> None:
    found = await asyncio.gather(*(environments.rebuild(request_11) for _ in range(3)))
    assert {each.built_at for each in found} == {found[0].built_at}
    assert found[0].built_at > built.built_at


async def test_an_environment_whose_interpreter_is_gone_is_made_anew_while_its_workers_go_on(
    environments: Environments,
) -> None:
    request = EnvironmentRequest("tools", Lock(""), ">=3.11")
    environment = await environments.ensure(request)
    with environments.hold(environment.id):
        environment.python.unlink()
        assert environments.find(request) is None
        async with asyncio.timeout(30):
            again = await environments.ensure(request)
    assert again.python.exists()


_BUILD = """
import asyncio, sys
from pathlib import Path
from agentforge.environments import *
from agentforge.frameworks import Catalogue

async def main(home, folder):
    environments = Environments(Path(home))
    release = Catalogue.discover([Path(folder)], check_files=False).resolve("kit==1.1")
    request = EnvironmentRequest.for_release(release, await environments.lock(release))
    print("go", flush=True)
    await environments.rebuild(request)
    print("done", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.timeout(300)
async def test_a_rebuild_that_is_killed_at_any_time_leaves_the_old_environment_or_the_new_one(
    environments: Environments, request_11: EnvironmentRequest, built: Environment, index: LocalIndex, tmp_path: Path
) -> None:
    environ = {**os.environ, "UV_DEFAULT_INDEX": f"{index.url}/simple", "UV_CACHE_DIR": str(tmp_path / "cache")}

    async def rebuild(kill_after_s: float = 120) -> tuple[float, bool]:
        """Damage it and have a process build it anew; return how long that took, and whether it was done."""
        (packages(environments.get(built.id)) / "companion.py").unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _BUILD, str(tmp_path / "home"), str(tmp_path / "kit"),
            stdout=asyncio.subprocess.PIPE, env=environ, start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert await process.stdout.readline() == b"go\n"
        started = time.monotonic()
        with contextlib.suppress(TimeoutError, ProcessLookupError):
            await asyncio.wait_for(process.wait(), kill_after_s)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.killpg(process.pid, signal.SIGKILL)
        done = b"done" in await process.stdout.read()
        await process.wait()
        return time.monotonic() - started, done

    took_s, done = await rebuild()
    assert done
    whole(environments.get(built.id))
    seed = random.randrange(2**32)
    print(f"seed {seed}, a rebuild takes {took_s:.2f} s")
    chance = random.Random(seed)
    hit = 0
    for _ in range(10):
        _, done = await rebuild(chance.uniform(0, took_s))
        found = inspect(environments.get(built.id), every_file=True)
        assert {Path(each.place).name for each in found.damages} in (set(), {"companion.py"})
        assert not (done and found.damages)
        hit += bool(found.damages)
    assert hit, "no kill came before the swap"
    whole(await environments.rebuild(request_11))
    assert list((tmp_path / "home" / "environments" / ".staging").iterdir()) == []
