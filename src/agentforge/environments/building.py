"""Building one environment in a staging folder: virtualenv, packages, the version that must come out, the check.

Called by `Environments.ensure` in the process that holds the claim. Nothing here is seen by anybody else before
`activate` renames the folder into place and writes the marker.
"""

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agentforge.environments.environment import (
    MARKER,
    BuildProgress,
    Check,
    Environment,
    EnvironmentRequest,
    Progress,
    Stage,
)
from agentforge.environments.fetching import indexed
from agentforge.environments.home import write_atomically
from agentforge.environments.inspecting import ODD, Inspection, inspect
from agentforge.environments.interpreters import Interpreter
from agentforge.environments.meter import Meter
from agentforge.environments.uv import Uv, failure
from agentforge.environments.verifying import verify
from agentforge.environments.wheels import Wheels
from agentforge.errors.environments import CheckFailed

__all__ = ["MARKER", "Build", "activate", "finish", "read_marker", "standing"]

_MARKER_KEYS = ("python_version", "framework", "release", "lock_digest", "built_at")


@dataclass(frozen=True, slots=True)
class Build:
    """One build under way: what is built, with what, where, and who is told."""

    id: str
    request: EnvironmentRequest
    interpreter: Interpreter
    staging: Path
    uv: Uv
    wheels: Wheels
    environ: Mapping[str, str]
    claim: int
    """Descriptor of the claim; uv inherits it, so that the claim lives as long as anything writes to `staging`."""
    progress: Progress

    async def run(self, check: Check | None, built_at: float) -> Environment:
        """Make the candidate in the staging folder and try it. Raises InstallFailed, WrongVersion, CheckFailed, ..."""
        candidate = await self._made(built_at)
        if check is not None:
            await self._check(candidate, check)
        return candidate

    async def _made(self, built_at: float) -> Environment:
        """Install; once more where the files are not as their packages recorded them.

        uv links files from its cache: who changed one in an environment, in its place, changed it there, too. What is
        not as recorded even when it is fresh from the index came so, and is noted.
        """
        candidate, found = await self._installed(built_at)
        if found.broken:
            packages = {damage.package for damage in found.broken if damage.package}
            self._tell("downloading", 0, len(packages), f"{found.problem}: getting them anew")
            await self._uv("cache", "clean", *sorted(packages))
            await asyncio.to_thread(shutil.rmtree, self.staging)
            candidate, found = await self._installed(built_at)
        if found.damages:
            (self.staging / ODD).write_text(json.dumps([damage.place for damage in found.damages]), encoding="utf-8")
        return candidate

    async def _installed(self, built_at: float) -> tuple[Environment, Inspection]:
        await self._install()
        candidate = Environment(
            id=self.id,
            path=self.staging,
            python_version=self.interpreter.version,
            framework=None if self.request.release is None else self.request.name,
            release=self.request.release,
            lock_digest=self.request.lock.digest,
            built_at=built_at,
        )
        self._tell("checking", 0, 0, "checking")
        candidate = replace(candidate, python_version=await verify(candidate, self.request))
        return candidate, await asyncio.to_thread(inspect, candidate, every_file=True)

    async def _install(self) -> None:
        self.staging.mkdir(parents=True)
        lock = self.staging / "lock.txt"
        lock.write_text(self.request.lock.text, encoding="utf-8", newline="")
        packages = self.request.lock.packages_for(self.interpreter.markers)
        self._tell("downloading", 0, len(packages), "downloading")
        meter = Meter(len(packages), self._tell)
        venv = self.staging / "venv"
        await self._uv("venv", "--quiet", "--relocatable", "--python", self.interpreter.path, venv)
        if packages:
            python = venv / "bin" / "python"
            sync = ("pip", "sync", "--verbose", "--require-hashes", "--strict", "--python")
            text = await self._addressed()
            if text != self.request.lock.text:  # the lock itself holds no address
                lock = self.staging / "install.txt"
                lock.write_text(text, encoding="utf-8", newline="")
            await self._uv(*sync, python, lock, on_line=meter.read)
            (self.staging / "install.txt").unlink(missing_ok=True)

    async def _addressed(self) -> str:
        """Return the lock for uv; a wheel that somebody built counts only if the index offers none that is locked."""
        only_built = await asyncio.to_thread(self.wheels.only_built, self.request.lock, self.interpreter)
        locked = await indexed(self.environ, self.wheels, only_built, self.interpreter)
        return await asyncio.to_thread(self.wheels.addressed, self.request.lock.text, self.interpreter, locked)

    async def _uv(self, *arguments: str | Path, on_line: Callable[[str], None] | None = None) -> None:
        run = await self.uv.run(*arguments, on_line=on_line, keep_open=[self.claim])
        if run.code != 0:
            raise failure(run.stderr, f"Building `{self.id}`")

    async def _check(self, candidate: Environment, check: Check) -> None:
        report = await check(candidate)
        if report.problem is not None:
            raise CheckFailed(
                f"`{self.id}` did not pass its check: {report.problem}",
                environment=self.id,
                traceback=report.details,
            )

    def _tell(self, stage: Stage, done: int, total: int, message: str) -> None:
        self.progress(BuildProgress(self.id, stage, done, total, message))


def activate(candidate: Environment, place: Path) -> Environment:
    """Rename a checked candidate into its place and, as the last act, write the marker that makes it one."""
    if place.exists():
        shutil.rmtree(place)  # an environment without a marker, or one whose interpreter is gone
    candidate.path.rename(place)
    finish(replace(candidate, path=place))
    return replace(candidate, path=place)


def finish(candidate: Environment) -> None:
    """Write the marker that makes an environment of what is in its folder."""
    facts = asdict(candidate)
    write_atomically(candidate.path / MARKER, json.dumps({key: facts[key] for key in _MARKER_KEYS}, indent=1) + "\n")


def read_marker(place: Path) -> Environment | None:
    """Return the environment in a folder, or None where there is none that works (interpreter gone: none)."""
    environment = standing(place)
    return environment if environment is not None and environment.python.exists() else None


def standing(place: Path) -> Environment | None:
    """Return the environment that a folder's marker tells of, or None; whether it works is another question."""
    try:
        facts = json.loads((place / MARKER).read_bytes())
        return Environment(id=place.name, path=place, **{key: facts[key] for key in _MARKER_KEYS})
    except (OSError, ValueError, KeyError, TypeError):
        return None
