"""Builds that are killed at any moment: what was there stays, what is new is whole or not there, the next one works."""

import hashlib
import os
import random
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from agentforge.environments import Environments, ProjectLock

from .index_world import LocalIndex, served
from .kit_world import write_kit

KILLS = 10
SEED = int(os.environ.get("AGENTFORGE_TEST_SEED") or secrets.randbits(32))
AGENTFORGE = Path(sys.executable).with_name("agentforge")
COMPANIONS = 25


@dataclass
class Builds:
    """A project whose environment `old` is there, and whose environment `new` is built again and again."""

    folder: Path
    old: str
    new: str
    variables: dict[str, str]

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, reference: str, home: str = "home") -> "subprocess.Popen[bytes]":
        environ = {**os.environ, **self.variables, "AGENTFORGE_HOST": "inline"}
        environ["AGENTFORGE_HOME"] = str(self.folder / home)
        command = [AGENTFORGE, "env", "build", reference]
        with (self.folder / "said").open("wb") as said:
            return subprocess.Popen(command, cwd=self.project, env=environ, stdout=said, stderr=said)

    def build(self, reference: str, home: str = "home") -> float:
        """Build to the end; return how long it took."""
        began = time.monotonic()
        code = self.start(reference, home).wait()
        assert code == 0, (self.folder / "said").read_text()
        return time.monotonic() - began

    def built(self, home: str = "home") -> dict[str, Path]:
        """Return the environments by the reference of their release."""
        found = Environments(self.folder / home).list()
        return {f"{each.framework}=={each.release}": each.path for each in found}

    def pins(self) -> list[str]:
        return [entry.request for entry in ProjectLock.load(self.project / "agentforge.lock").entries]

    def back(self, lock: str) -> None:
        """Take the new environment and its entry in the lock away."""
        (self.project / "agentforge.lock").write_text(lock)
        for environment in Environments(self.home).list():
            if f"{environment.framework}=={environment.release}" == self.new:
                Environments(self.home).remove(environment.id)


def content(environment: Path) -> dict[str, str]:
    """Return what an environment holds, but for what is new in each build: times, and compiled code that has them."""
    found = {}
    for path in sorted(environment.rglob("*")):
        if path.suffix == ".pyc" or path.name in ("ready.json", "__pycache__"):
            continue
        if path.is_symlink():
            found[str(path.relative_to(environment))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(environment))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def kill(process: "subprocess.Popen[bytes]", *, all_of_it: bool) -> None:
    """`kill -9` the command, and with `all_of_it` whatever it started."""
    try:
        others = psutil.Process(process.pid).children(recursive=True) if all_of_it else []
    except psutil.NoSuchProcess:
        others = []
    process.kill()
    for each in others:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            pass
    process.wait()


def staging(home: Path) -> list[str]:
    folder = home / "environments" / ".staging"
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
async def kits(tmp_path: Path) -> AsyncIterator[Builds]:
    """A framework with two dozen packages from an index on this machine."""
    names = tuple(f"companion{number}" for number in range(COMPANIONS))
    index = LocalIndex()
    for name in names:
        index.add(name, "1.0", "2024-01-10")
    for version in ("1.0", "1.1"):
        index.add("kit", version, "2024-01-10", names)
    async with served(index):
        variables = {
            "UV_DEFAULT_INDEX": f"{index.url}/simple",
            "UV_CACHE_DIR": str(tmp_path / "uv"),
            "OPENAI_BASE_URL": "http://127.0.0.1:1",
            "OPENAI_API_KEY": "none",
        }
        builds = Builds(tmp_path, "kit==1.0", "kit==1.1", variables)
        write_kit(builds.project / "kit")
        (builds.project / "agentforge.toml").write_text('[catalogue]\nfolders = ["kit"]\n')
        yield builds


@pytest.mark.timeout(900)
@pytest.mark.feature("AF-011")
async def test_a_build_that_is_killed_at_ten_random_points_leaves_the_old_state_or_the_new_one(kits: Builds) -> None:
    import asyncio

    await asyncio.to_thread(kill_often, kits)


@pytest.mark.matrix
@pytest.mark.timeout(3600)
def test_a_build_of_a_real_framework_that_is_killed_at_ten_random_points(tmp_path: Path) -> None:
    builds = Builds(tmp_path, "python", "haystack==3.4.0", {})
    builds.project.mkdir()
    (builds.project / "agentforge.toml").touch()
    builds.old = f"python=={sys.version_info.major}.{sys.version_info.minor}"
    kill_often(builds)


def kill_often(builds: Builds) -> None:
    print(f"AGENTFORGE_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    builds.build(builds.old)
    lock = (builds.project / "agentforge.lock").read_text()
    took = builds.build(builds.new, "other")
    (builds.project / "agentforge.lock").write_text(lock)
    old = content(builds.built()[builds.old])
    whole = content(builds.built("other")[builds.new])
    found = {"old": 0, "new": 0}
    for number in range(KILLS):
        if "UV_CACHE_DIR" in builds.variables and rng.random() < 0.5:
            shutil.rmtree(builds.variables["UV_CACHE_DIR"], ignore_errors=True)  # downloads are in it, too
        all_of_it = rng.random() < 0.5
        after_s = rng.uniform(0, took)
        try:
            state = killed_once(builds, after_s, all_of_it=all_of_it, old=old, whole=whole)
            found[state] += 1
            builds.back(lock)
        except BaseException as error:
            error.add_note(f"seed {SEED}, kill {number} after {after_s:.3f} of {took:.3f} s, all of it: {all_of_it}")
            raise
    print(f"{KILLS} kills within {took:.1f} s: {found}")
    assert found["old"] > 0, f"each build had ended before it was killed (seed {SEED})"


def killed_once(builds: Builds, after_s: float, *, all_of_it: bool, old: dict[str, str], whole: dict[str, str]) -> Any:
    """Kill a build, look at what is there, and build to the end."""
    before = builds.pins()
    process = builds.start(builds.new)
    time.sleep(after_s)
    kill(process, all_of_it=all_of_it)
    built = builds.built()
    assert content(built[builds.old]) == old
    state = "new" if builds.new in built else "old"
    if state == "new":
        assert content(built[builds.new]) == whole
    assert builds.pins() in (before, sorted([*before, builds.new]))
    builds.build(builds.new)
    assert content(builds.built()[builds.new]) == whole
    assert content(builds.built()[builds.old]) == old
    assert staging(builds.home) == []
    assert {each.name for each in (builds.home / "environments").iterdir() if each.name[0] != "."} == {
        each.name for each in builds.built().values()
    }
    return state
