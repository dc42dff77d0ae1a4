"""The environments of a user: what a release is locked to, building, finding and removing."""

import asyncio
import contextlib
import functools
import hashlib
import os
import platform
import shutil
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from agentforge.environments import claims
from agentforge.environments.building import Build, activate, read_marker
from agentforge.environments.environment import (
    BuildProgress,
    Check,
    Environment,
    EnvironmentRequest,
    Progress,
    Stage,
)
from agentforge.environments.home import Home, storage_errors
from agentforge.environments.interpreters import Interpreter, Interpreters
from agentforge.environments.lock import Lock
from agentforge.environments.locking import Locking
from agentforge.environments.project_lock import LockEntry
from agentforge.environments.uv import Uv
from agentforge.errors.environments import EnvironmentInUse, EnvironmentUnknown
from agentforge.frameworks import Release

__all__ = ["Environments"]


class Environments:
    """All built environments below a data folder. Many processes may use the same folder at once."""

    def __init__(
        self,
        home: Path,
        *,
        environ: Mapping[str, str] = os.environ,
        interpreters: Interpreters | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._home = Home(home)
        self._uv = Uv(environ)
        self._clock = clock
        self.interpreters = interpreters or Interpreters(environ)
        self._locking = Locking(self._home, self._uv, self.interpreters, environ)

    async def lock(
        self,
        release: Release,
        extra_requirements: Sequence[str] = (),
        *,
        progress: Progress | None = None,
        refresh: bool = False,
    ) -> Lock:
        """Return a release's lock: the shipped one, else one resolved as of the release's own time.

        With extra packages the shipped pins stay if they can. What was resolved once is remembered; `refresh`
        resolves again. Raises ResolutionFailed, IndexUnreachable, UploadTimesMissing, ReleaseNotInIndex,
        RequirementInvalid, InterpreterMissing, LockInvalid.
        """
        with storage_errors(self._home.path):
            return await self._locking.of_release(release, extra_requirements, progress, refresh=refresh)

    async def lock_tools(
        self,
        python: str = "3.11",
        requirements: Sequence[str] = (),
        *,
        progress: Progress | None = None,
        refresh: bool = False,
    ) -> Lock:
        """Return the lock of a tool environment on a Python series; no requirements give an empty one."""
        with storage_errors(self._home.path):
            return await self._locking.of_tools(python, requirements, progress, refresh=refresh)

    def restore(self, entry: LockEntry, release: Release | None = None) -> Lock:
        """Return the lock that a project pinned: inline, shipped with `release`, or remembered here.

        Raises LockUnavailable, ProjectLockInvalid.
        """
        return self._locking.restore(entry, release)

    def find(self, request: EnvironmentRequest) -> Environment | None:
        """Return the built environment for a request, or None. Raises InterpreterMissing."""
        return self._ready(_id(request, self.interpreters.find(request.python)))

    async def ensure(
        self, request: EnvironmentRequest, progress: Progress | None = None, check: Check | None = None
    ) -> Environment:
        """Return the environment for a request, built and checked first if there is none yet.

        Of several processes one builds and the others wait for it. A failed, cancelled or killed build leaves
        nothing that counts. Raises InterpreterMissing, InstallFailed, WrongVersion, CheckFailed, IndexUnreachable,
        HomeNotWritable, DiskFull.
        """
        interpreter = await asyncio.to_thread(self.interpreters.find, request.python)
        id = _id(request, interpreter)
        tell = _Tell(id, progress)
        environment = self._ready(id)
        if environment is None:
            with storage_errors(self._home.path):
                environment = await self._claim_and_build(id, request, interpreter, tell, check)
        tell("ready", 0, 0, "ready")
        return environment

    def list(self) -> list[Environment]:
        """Return all built environments, by id. Sizes are measured when asked for."""
        try:
            places = sorted(self._home.environments.iterdir())
        except FileNotFoundError:
            return []
        found = (read_marker(place) for place in places if not place.name.startswith("."))
        return [environment for environment in found if environment is not None]

    def get(self, id: str) -> Environment:
        """Return a built environment. Raises EnvironmentUnknown."""
        environment = self._ready(id)
        if environment is None:
            raise EnvironmentUnknown(f"There is no environment `{id}`")
        return environment

    @contextlib.contextmanager
    def hold(self, id: str) -> Iterator[Environment]:
        """Keep an environment from being removed while the block runs (or the process lives).

        Whoever starts a worker in it holds it. Raises EnvironmentUnknown.
        """
        self.get(id)
        with claims.using(self._home.claim(id)):
            yield self.get(id)  # asked again: it may have been removed just before we held it

    def remove(self, id: str) -> None:
        """Delete a built environment. Raises EnvironmentUnknown, EnvironmentInUse."""
        place = self.get(id).path
        doomed = self._home.new_staging(id)
        with storage_errors(self._home.path), claims.removing(self._home.claim(id)) as alone:
            if not alone:
                raise EnvironmentInUse(f"`{id}` is in use")
            self._home.staging.mkdir(parents=True, exist_ok=True)
            place.rename(doomed)
            shutil.rmtree(doomed)

    def _ready(self, id: str) -> Environment | None:
        if not id or "/" in id or id.startswith("."):
            return None
        return read_marker(self._home.environment(id))

    async def _claim_and_build(
        self, id: str, request: EnvironmentRequest, interpreter: Interpreter, tell: "_Tell", check: Check | None
    ) -> Environment:
        def waiting() -> None:
            tell("waiting", 0, 0, "another process is building it")

        async with claims.building(self._home.claim(id), lambda: self._ready(id) is not None, waiting) as claim:
            environment = self._ready(id)
            if environment is not None:
                return environment
            assert claim is not None
            await asyncio.to_thread(self._clear_staging, id)
            async with self._staging(id) as staging:
                build = Build(id, request, interpreter, staging, self._uv, claim, tell.report)
                candidate = await build.run(check, self._clock())
                return activate(candidate, self._home.environment(id))

    @contextlib.asynccontextmanager
    async def _staging(self, id: str) -> AsyncIterator[Path]:
        staging = self._home.new_staging(id)
        try:
            yield staging
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True))

    def _clear_staging(self, claimed: str) -> None:
        """Delete what dead processes left. A folder whose environment is claimed belongs to a living one."""
        left = list(self._home.staging.iterdir()) if self._home.staging.is_dir() else []
        for folder in left:
            id = folder.name.rpartition(".")[0]
            if id == claimed:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with claims.removing(self._home.claim(id)) as alone:
                if alone:
                    shutil.rmtree(folder, ignore_errors=True)


class _Tell:
    def __init__(self, id: str, progress: Progress | None) -> None:
        self._id, self._progress = id, progress

    def __call__(self, stage: Stage, done: int, total: int, message: str) -> None:
        self.report(BuildProgress(self._id, stage, done, total, message))

    def report(self, progress: BuildProgress) -> None:
        if self._progress is not None:
            self._progress(progress)


def _id(request: EnvironmentRequest, interpreter: Interpreter) -> str:
    """Return `<name>-<version>-py311-<12 hex digits over lock, interpreter and platform>`."""
    named = f"{request.lock.digest}\n{interpreter.version}\n{_machine()}\n"
    short = hashlib.sha256(named.encode()).hexdigest()[:12]
    parts = [request.name, request.release, interpreter.tag, short]
    return "-".join(part for part in parts if part)


@functools.cache
def _machine() -> str:
    return f"{sysconfig.get_platform()}-{platform.libc_ver()[0] or 'libc'}"
