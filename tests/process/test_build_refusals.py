"""Builds that can't be: each says its code, the reason and what to do, without a traceback, and nothing is lost."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agentforge.environments import Environments, ProjectLock

from .index_world import LocalIndex, served
from .kit_world import write_kit
from .project_world import Done, Project

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOWHERE = "http://127.0.0.1:1/simple"
MORE_RELEASES = """
[[releases]]
versions = ">=5,<6"
python = ">=3.99"
requirements = ["kit=={version}"]
adapter = "adapter:KitAdapter"
"""


@pytest_asyncio.fixture(loop_scope="module")
async def index() -> AsyncIterator[LocalIndex]:
    index = LocalIndex()
    index.add("kit", "1.0", "2024-01-10", ("companion",))
    index.add("kit", "1.1", "2024-01-10", ("companion",))
    index.add("kit", "1.2", "2024-01-10", ("companion>=2",))
    index.add("kit", "1.3", "2024-01-10", ("broken",))
    index.add("kit", "1.4", "2024-01-10", ("dynamic",))
    index.add("kit", "5.0", "2024-01-10")
    index.add("companion", "1.0", "2024-01-10")
    index.add("companion", "2.0", "2024-01-10")
    index.add_source("broken", "1.0", "2024-01-10", fails="there is no compiler for this")
    index.add_source("dynamic", "1.0", "2024-01-10", fails="there is no compiler for this", told=False)
    async with served(index):
        yield index


@pytest_asyncio.fixture(loop_scope="module")
async def kits(own_project: Project, index: LocalIndex, tmp_path: Path) -> Project:
    """A project with the environment of kit 1.0 and a home of its own."""
    own_project.variables |= {
        "UV_DEFAULT_INDEX": f"{index.url}/simple",
        "UV_CACHE_DIR": str(tmp_path / "uv"),
        "UV_HTTP_RETRIES": "0",
        "AGENTFORGE_HOME": str(tmp_path / "home"),
        "AGENTFORGE_HOST": "inline",
    }
    write_kit(own_project.root / "frameworks/kit", extra=MORE_RELEASES)
    own_project.write("agentforge.toml", '[catalogue]\nfolders = ["frameworks/kit"]\n')
    done = await own_project.command("env", "build", "kit==1.0")
    assert done.code == 0, done
    return own_project


def home_of(project: Project) -> Path:
    return Path(project.variables["AGENTFORGE_HOME"])


def state(project: Project) -> dict[str, str]:
    """Return all files of the built environments by path."""
    found = {}
    for environment in Environments(home_of(project)).list():
        for path in environment.path.rglob("*"):
            if path.is_file() and not path.is_symlink():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def refused(project: Project, *arguments: str, code: str, says: tuple[str, ...], hint: str) -> Done:
    """Build, and see that it is refused in this way and that what was there is there."""
    before, pins = state(project), ProjectLock.load(project.root / "agentforge.lock").entries
    assert before
    done = await project.command("env", "build", *arguments)
    assert done.code == 1, done
    assert f"error[{code}]: " in done.err, done.err
    for words in says:
        assert words in done.err, done.err
    assert f"hint: {hint}" in done.err, done.err
    assert "Traceback" not in done.err + done.out
    assert state(project) == before
    assert set(pins) <= set(ProjectLock.load(project.root / "agentforge.lock").entries)
    left = home_of(project) / "environments" / ".staging"
    assert not left.is_dir() or list(left.iterdir()) == []
    return done


@pytest.mark.feature("AF-011")
async def test_a_version_that_the_index_does_not_have(kits: Project) -> None:
    await refused(kits, "kit==1.7", code="AF305", says=("`kit` has no release `1.7`",), hint="Check the version")


async def test_a_version_that_no_adapter_covers(kits: Project) -> None:
    await refused(kits, "kit==3.0", code="AF204", says=("`3.0`", ">=1,<2"), hint="`agentforge framework show kit`")


async def test_a_python_that_is_not_there(kits: Project) -> None:
    says = ("`>=3.99`", f"`{sys.version_info.major}.{sys.version_info.minor}.")
    await refused(kits, "kit==5.0", code="AF306", says=says, hint="Install one, for example with `uv python install")


async def test_requirements_that_exclude_each_other(kits: Project) -> None:
    with (kits.root / "agentforge.toml").open("a") as file:
        file.write('[frameworks.kit]\npins = ["companion<2"]\n')
    says = ("`companion`", "companion>=2", "companion<2", "kit==1.2")
    await refused(kits, "kit==1.2", code="AF302", says=says, hint="Loosen or remove `companion<2`")


async def test_an_index_that_can_not_be_reached(kits: Project) -> None:
    kits.variables["UV_DEFAULT_INDEX"] = NOWHERE
    await refused(kits, "kit==1.1", code="AF303", says=(NOWHERE,), hint="Check the network")
    kits.variables["UV_CACHE_DIR"] += "-empty"
    shutil.rmtree(home_of(kits) / "locks")
    built = await kits.command("env", "build", "kit==1.0")
    assert built.code == 0, "what is built needs no index"


async def test_an_index_that_breaks_off_in_the_middle_of_a_build(kits: Project, index: LocalIndex) -> None:
    index.broken.add("kit-1.1-py3-none-any.whl")
    await refused(kits, "kit==1.1", code="AF303", says=("kit-1.1",), hint="Check the network")
    index.broken.clear()
    assert (await kits.command("env", "build", "kit==1.1")).code == 0


async def test_an_index_without_upload_times(kits: Project, index: LocalIndex) -> None:
    index.upload_times = False
    says = ("does not say when `kit` 1.1 was uploaded",)
    await refused(kits, "kit==1.1", code="AF304", says=says, hint="Ask for a tested release")


async def test_a_package_whose_build_fails(kits: Project) -> None:
    says = ("`broken==1.0` has no wheel", "could not be built: RuntimeError: there is no compiler for this")
    await refused(kits, "kit==1.3", code="AF337", says=says, hint="Install what its build needs")


async def test_a_package_that_can_not_even_be_asked_what_it_needs(kits: Project) -> None:
    says = ("`dynamic==1.0` has no wheel", "could not be built: RuntimeError: there is no compiler for this")
    await refused(kits, "kit==1.4", code="AF337", says=says, hint="Install what its build needs")


async def test_all_that_failed_of_several_is_told_and_the_others_are_built(kits: Project) -> None:
    done = await kits.command("env", "build", "kit==1.7", "kit==1.1", "kit==1.3")
    assert done.code == 1
    assert ("error[AF305]" in done.err, "error[AF337]" in done.err) == (True, True), done.err
    releases = {each.release for each in Environments(home_of(kits)).list()}
    assert releases == {"1.0", "1.1"}


def can_mount() -> bool:
    return subprocess.run(["unshare", *MOUNTS, "true"], capture_output=True, check=False).returncode == 0


MOUNTS = ["--mount", "--propagation", "private", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
async def test_a_disk_that_is_full_before_during_or_at_the_end_of_a_build(
    kits: Project, index: LocalIndex, tmp_path: Path, part: float
) -> None:
    """The environments are on a disk of their own, which has room for a part of one more."""
    if not can_mount():
        pytest.skip("this machine lets nobody mount a file system: `unshare --mount` fails")
    (environment,) = Environments(home_of(kits)).list()
    size_kib = int(environment.size_bytes / 1024 * part)
    before = await asyncio.to_thread(on_full_disk, kits, size_kib, tmp_path)
    assert before.returncode == 1, before
    said = before.stderr.decode()
    assert ("error[AF311]: " in said, "hint: Free some space" in said, "Traceback" in said) == (True, True, False), said
    assert b"kept" in before.stdout
    assert b"room: 0" in before.stdout, "with what nobody needs taken away there is room"
    assert (await kits.command("env", "build", "kit==1.1")).code == 0, "with room it is built"


def on_full_disk(project: Project, size_kib: int, folder: Path) -> "subprocess.CompletedProcess[bytes]":
    """Build kit 1.1 where the home is a copy of the project's on a disk that has `size_kib` left."""
    small = folder / "small"
    small.mkdir()
    script = (
        'set -e; mount -t tmpfs -o size=64m none "$1"; cp -a "$2/." "$1"; used=$(df -k --output=used "$1" | tail -1)\n'
        'mount -o remount,size=$((used + $3))k "$1"\n'
        'export AGENTFORGE_HOME="$1"; cd "$4"; set +e; "$5" env build kit==1.1; code=$?\n'
        'test "$(ls "$1/environments")" = "$(ls "$2/environments")" && '
        'test -z "$(ls -A "$1/environments/.staging" 2>/dev/null)" && echo kept\n'
        '"$5" env gc --forget . >&2 && "$5" env build kit==1.1 >&2; echo "room: $?"; exit $code'
    )
    program = Path(sys.executable).with_name("agentforge")
    arguments = [str(each) for each in (small, home_of(project), size_kib, project.root, program)]
    return subprocess.run(
        ["unshare", *MOUNTS, "sh", "-c", script, "sh", *arguments],
        env={**os.environ, **project.variables},
        capture_output=True,
        check=False,
    )
