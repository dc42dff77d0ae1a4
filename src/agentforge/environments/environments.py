"""The environments of a user: what a release is locked to, building, finding and removing."""

import asyncio
import builtins
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
from types import MappingProxyType

from packaging.version import Version

from agentforge.environments import claims
from agentforge.environments.building import Build, activate, read_marker, standing
from agentforge.environments.collecting import Collected, Collection, Collector, Freed, delete
from agentforge.environments.environment import (
    BuildProgress,
    Check,
    Environment,
    EnvironmentRequest,
    Progress,
    Stage,
)
from agentforge.environments.home import Home, storage_errors
from agentforge.environments.index import Index
from agentforge.environments.interpreters import Interpreter, Interpreters
from agentforge.environments.lock import Lock
from agentforge.environments.locking import Locking
from agentforge.environments.moving import Moving
from agentforge.environments.needs import Need, Needs, known_needs_of, needs_of
from agentforge.environments.project_lock import LockEntry
from agentforge.environments.projects import Projects
from agentforge.environments.rebuilding import Rebuild, drop_replaced
from agentforge.environments.uv import Uv
from agentforge.environments.wheels import LocalWheel, Wheels
from agentforge.errors.environments import EnvironmentInUse, EnvironmentUnknown
from agentforge.errors.keeping import EnvironmentNeeded, ProjectUnreadable
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
        self._environ = environ
        self._wheels = Wheels(self._home, self._uv)
        self._clock = clock
        self._room = asyncio.Semaphore(max(2, os.cpu_count() or 2))
        """How many environments are built at once: more would only take longer, each of them."""
        self.projects = Projects(self._home)
        self.interpreters = interpreters or Interpreters(environ)
        self._locking = Locking(self._home, self._uv, self.interpreters, environ)
        self.moving = Moving(self._home, self._wheels, self.interpreters, environ)

    async def lock(
        self,
        release: Release,
        extra_requirements: Sequence[str] = (),
        *,
        progress: Progress | None = None,
        refresh: bool = False,
        local: Mapping[str, LocalWheel] = MappingProxyType({}),
        roles: Mapping[str, str] = MappingProxyType({}),
        keep: str = "",
        as_of_now: bool = False,
    ) -> Lock:
        """Return a release's lock: the shipped one, else one resolved as of the release's own time.

        With extra packages the shipped pins stay if they can, or those of the lock whose text is `keep`. What was
        resolved once is remembered; `refresh` resolves again. `local` has the wheel of each line that is a local
        package, `roles` says who brought a line, and `as_of_now` resolves an untested release with all that there
        is today. Raises ResolutionFailed, IndexUnreachable, UploadTimesMissing, ReleaseNotInIndex,
        RequirementInvalid, InterpreterMissing, LockInvalid.
        """
        with storage_errors(self._home.path):
            return await self._locking.of_release(
                release,
                extra_requirements,
                progress,
                refresh=refresh,
                local=local,
                roles=roles,
                keep=keep,
                as_of_now=as_of_now,
            )

    async def wheel(self, package: Path, content: str, python: str, lock: str = "") -> LocalWheel:
        """Return the wheel of a local package with some content (see `content_digest`) for a range of Pythons.

        `lock` is the digest of the lock that it is for: a bundle may have brought a wheel with it. Raises
        LocalPackageFailed, InterpreterMissing.
        """
        interpreter = await asyncio.to_thread(self.interpreters.find, python)
        return await self._wheels.build(package, content, interpreter, lock)

    async def latest(self, releases: Sequence[tuple[str, Callable[[str], bool]]]) -> str | None:
        """Return the newest version on the index of the distributions that are named, among those admitted.

        Pre-releases count only where there is nothing else. Raises IndexUnreachable, ReleaseNotInIndex.
        """
        index = Index.from_environment(self._environ)
        found: list[Version] = []
        for distribution, admits in releases:
            found += [each for each in await index.versions(distribution) if admits(str(each))]
        final = [each for each in found if not each.is_prerelease]
        return str(max(final or found)) if found else None

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
        return self._ready(self.identify(request))

    def identify(self, request: EnvironmentRequest) -> str:
        """Return the id that the environment of a request has or would have. Raises InterpreterMissing."""
        return _id(request, self.interpreters.find(request.python))

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
            if self.standing(id) is not None:
                tell("waiting", 0, 0, "its interpreter is gone: building it anew")
            environment = await self._made(id, request, interpreter, tell, check)
        tell("ready", 0, 0, "ready")
        return environment

    async def rebuild(
        self, request: EnvironmentRequest, progress: Progress | None = None, check: Check | None = None
    ) -> Environment:
        """Return the environment for a request, made anew beside the one that is there and put in its place.

        Who uses the old one is not disturbed; it goes when nobody does any more. Raises what `ensure` raises, and
        then the old one is still there.
        """
        interpreter = await asyncio.to_thread(self.interpreters.find, request.python)
        id = _id(request, interpreter)
        tell = _Tell(id, progress)
        environment = await self._made(id, request, interpreter, tell, check)
        tell("ready", 0, 0, "ready")
        return environment

    def standing(self, id: str) -> Environment | None:
        """Return the environment that was built under an id, even if it does not work any more; None without one."""
        return standing(self._home.environment(id)) if _is_id(id) else None

    def list_standing(self) -> "list[Environment]":
        """Return all environments that were built, those that do not work any more too, by id."""
        try:
            places = sorted(self._home.environments.iterdir())
        except FileNotFoundError:
            return []
        found = (standing(place) for place in places if not place.name.startswith("."))
        return [environment for environment in found if environment is not None]

    def under_way(self) -> "set[str]":
        """Return the ids of the environments that some process is building, or building anew, right now."""
        folders = self._home.staging.iterdir() if self._home.staging.is_dir() else ()
        names = {folder.name.rpartition(".")[0] for folder in folders}
        return {name.partition("~")[0] for name in names if self._is_building(name)}

    def _is_building(self, name: str) -> bool:
        """Whether whoever builds it lives: it holds its claim alone, and to build anew the one of the turn."""
        turn = f"{name.partition('~')[0]}~rebuild" if "~" in name else name
        return claims.is_held_alone(self._home.claim(turn))

    def tidy(self) -> None:
        """Delete environments that were replaced and that nobody uses any more."""
        drop_replaced(self._home)

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

    def needs(self, id: str) -> "tuple[builtins.list[Need], builtins.list[ProjectUnreadable]]":
        """Return which registered projects need a built environment and for what, and those that can't be asked.

        Raises EnvironmentUnknown.
        """
        environment = self._built(id)
        known, unreadable = known_needs_of(self.projects.list())
        return known.of(environment), unreadable

    def remove(self, id: str) -> Collected:
        """Delete a built environment that nobody needs.

        Raises EnvironmentUnknown, EnvironmentNeeded, EnvironmentInUse, ProjectUnreadable.
        """
        environment = self._built(id)
        with storage_errors(self._home.path), contextlib.ExitStack() as held:
            with claims.alone(self._home.keeping):
                users = needs_of(self.projects.list()).of(environment)
                if users:
                    told = [need.told for need in users]
                    raise EnvironmentNeeded(f"`{id}` is needed by {', '.join(told)}", environment=id, needed_by=told)
                if not held.enter_context(claims.removing(self._home.claim(id))):
                    raise EnvironmentInUse(f"`{id}` is in use")
                doomed = self._home.new_staging(id)
                self._home.staging.mkdir(parents=True, exist_ok=True)
                self._built(id).path.rename(doomed)  # asked again: somebody may have been faster
            size, freed = Freed().count(doomed)
            delete(doomed)
        return Collected("environment", id, size, freed)

    def collect(self, *, dry_run: bool = False, older_than_s: float = 0.0, forget: Sequence[Path] = ()) -> Collection:
        """Delete the environments that nobody needs, and what dead processes and environments left.

        `older_than_s`: what was built or used since then stays; `forget` are projects that count no more. Raises
        ProjectUnreadable, and then nothing is removed.
        """
        collector = Collector(self._home, now=self._clock(), dry_run=dry_run, older_than_s=older_than_s)
        ignored = {Path(os.path.abspath(each)) for each in forget}  # noqa: PTH100  `..` goes, links stay

        def needs() -> Needs:
            self.projects.drop_gone()
            return needs_of([root for root in self.projects.list() if root not in ignored])

        with storage_errors(self._home.path):
            if not dry_run:
                self.tidy()
            found = collector.collect(needs, self.list_standing)
            if not dry_run:
                found.forgotten = [str(each) for each in sorted(ignored) if self.projects.forget(each)]
        return found

    @contextlib.contextmanager
    def pinning(self, root: Path) -> Iterator[None]:
        """Register a project, and keep garbage collections from deciding anything while its lock is written.

        What was pinned is found again, or built anew, by who asks for it after that.
        """
        with storage_errors(self._home.path), claims.using(self._home.keeping):
            self.projects.register(root)
            yield

    def _built(self, id: str) -> Environment:
        """Return a built environment, also one whose interpreter is gone. Raises EnvironmentUnknown."""
        found = self.standing(id)
        if found is None:
            raise EnvironmentUnknown(f"There is no environment `{id}`")
        return found

    def _ready(self, id: str) -> Environment | None:
        return read_marker(self._home.environment(id)) if _is_id(id) else None

    async def _made(
        self, id: str, request: EnvironmentRequest, interpreter: Interpreter, tell: "_Tell", check: Check | None
    ) -> Environment:
        """Build an environment, beside the one that is there if there is one."""
        before = self.standing(id)
        if self._room.locked():
            tell("waiting", 0, 0, "other builds go first")
        async with self._room:
            with storage_errors(self._home.path):
                if self.standing(id) is None:
                    return await self._claim_and_build(id, request, interpreter, tell, check)
                return await self._build_anew(id, before, request, interpreter, tell, check)

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
                build = self._new_build(id, request, interpreter, staging, claim, tell)
                candidate = await build.run(check, self._clock())
                return activate(candidate, self._home.environment(id))

    def _new_build(
        self, id: str, request: EnvironmentRequest, interpreter: Interpreter, staging: Path, claim: int, tell: "_Tell"
    ) -> Build:
        return Build(id, request, interpreter, staging, self._uv, self._wheels, self._environ, claim, tell.report)

    async def _build_anew(
        self,
        id: str,
        before: Environment | None,
        request: EnvironmentRequest,
        interpreter: Interpreter,
        tell: "_Tell",
        check: Check | None,
    ) -> Environment:
        def build(staging: Path, claim: int) -> Build:
            return self._new_build(id, request, interpreter, staging, claim, tell)

        def waiting() -> None:
            tell("waiting", 0, 0, "another process is building it")

        await asyncio.to_thread(self._clear_staging, "")
        rebuild = Rebuild(self._home, id, before, lambda: self.standing(id), build, self._clock)
        environment = await rebuild.run(check, waiting)
        await asyncio.to_thread(self.tidy)
        return environment

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
        drop_replaced(self._home)


class _Tell:
    def __init__(self, id: str, progress: Progress | None) -> None:
        self._id, self._progress = id, progress

    def __call__(self, stage: Stage, done: int, total: int, message: str) -> None:
        self.report(BuildProgress(self._id, stage, done, total, message))

    def report(self, progress: BuildProgress) -> None:
        if self._progress is not None:
            self._progress(progress)


def _is_id(text: str) -> bool:
    return bool(text) and "/" not in text and not text.startswith(".")


def _id(request: EnvironmentRequest, interpreter: Interpreter) -> str:
    """Return `<name>-<version>-py311-<12 hex digits over lock, interpreter and platform>`."""
    named = f"{request.lock.digest}\n{interpreter.version}\n{_machine()}\n"
    short = hashlib.sha256(named.encode()).hexdigest()[:12]
    parts = [request.name, request.release, interpreter.tag, short]
    return "-".join(part for part in parts if part)


@functools.cache
def _machine() -> str:
    return f"{sysconfig.get_platform()}-{platform.libc_ver()[0] or 'libc'}"
