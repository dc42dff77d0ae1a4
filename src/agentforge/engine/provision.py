"""What a run needs built: the framework's environment and the project's tool environment, pinned by the project."""

import asyncio
import contextlib
import os
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from agentforge.config import Project
from agentforge.config.requirement import local_package
from agentforge.engine.adapters import AdapterStore
from agentforge.engine.check import EnvironmentCheck
from agentforge.environments import (
    CONTENT,
    LOCK_FILE,
    BuildProgress,
    Check,
    Environment,
    EnvironmentRequest,
    Environments,
    LocalWheel,
    Lock,
    LockEntry,
    ProjectLock,
    content_digest,
    content_of,
)
from agentforge.errors import AgentForgeError
from agentforge.errors.config import FileSyntaxError
from agentforge.errors.environments import EnvironmentUnknown, LocalPackageFailed, PinMoved, RebuildImpossible
from agentforge.errors.frameworks import ReferenceInvalid, ReleaseUnknown
from agentforge.frameworks import Catalogue, LiveCatalogue, Reference, Release, ReleaseRange
from agentforge.sandbox import Level

__all__ = ["TOOLS", "Provision", "Provisioned"]

Progress = Callable[[BuildProgress], None]
TOOLS = "tools"
_LATEST_FOR_S = 60.0


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A release with the lock that this project pins for it."""

    release: Release
    lock: Lock
    request: EnvironmentRequest


class _Build:
    """One build under way, shared by everybody who waits for it."""

    def __init__(self) -> None:
        self.listeners: list[Progress] = []
        self.last: BuildProgress | None = None
        self.task: asyncio.Task[Environment]

    def tell(self, progress: BuildProgress) -> None:
        self.last = progress
        for listener in list(self.listeners):
            listener(progress)


class Provision:
    """Resolves, pins and builds for one project; the project's host is the only writer of its lock file."""

    def __init__(
        self,
        root: Path,
        catalogue: Catalogue | LiveCatalogue,
        environments: Environments,
        adapters: AdapterStore,
        level: Level = "standard",
    ) -> None:
        self._level = level
        self._catalogue = catalogue
        self.environments = environments
        self.adapters = adapters
        self._root = root
        self._lock_path = root / LOCK_FILE
        self._latest: dict[str, tuple[str, float]] = {}
        self._builds: dict[tuple[str, str, str], _Build] = {}
        self._ready: dict[tuple[str, str, str], Environment] = {}
        self._resolved: dict[tuple[str, tuple[str, ...], int], Provisioned] = {}
        self._resolved_tools: dict[tuple[str, tuple[str, ...], int], EnvironmentRequest] = {}
        self._pinning = asyncio.Lock()
        self._meant: tuple[object, ProjectLock | None, dict[tuple[str, tuple[str, ...]], Release]] = (None, None, {})

    @property
    def catalogue(self) -> Catalogue:
        """The frameworks that this project knows at the moment."""
        return self._catalogue.current()

    async def framework(
        self,
        reference: str,
        requirements: Sequence[str] = (),
        progress: Progress | None = None,
        *,
        roles: Mapping[str, str] = MappingProxyType({}),
        as_of_now: bool = False,
    ) -> Provisioned:
        """Return the release that a reference means in this project, pinned from now on. Raises AF2xx and AF3xx.

        `requirements` are lines as `environments.additions` has them, paths absolute; `roles` says who brought which.
        An untested release that is not pinned yet is resolved as of its own time, or with `as_of_now` of today.
        """
        named = await asyncio.to_thread(self._named, requirements)
        lines = tuple(named)
        key = (reference, lines, self._lock_stamp())
        if key in self._resolved and self._resolved[key].release.framework in self.catalogue:
            return self._resolved[key]
        async with self._pinning:
            pins = await asyncio.to_thread(ProjectLock.load, self._lock_path)
            entry = pins.pinned(reference, lines)
            pinned = entry.release if entry else None
            release = await asyncio.to_thread(self.catalogue.resolve, reference, pinned)
            local = {
                line: await self.environments.wheel(path, content_of(line), release.python)
                for line, path in named.items()
                if path is not None
            }
            if entry is not None and entry.release == release.version and _holds(entry, lines, local):
                lock = self.environments.restore(entry, release)
            else:
                keep = entry.text if entry is not None and entry.release == release.version else ""
                said = {line: roles.get(given, "") for line, given in zip(lines, requirements, strict=True)}
                lock = await self.environments.lock(
                    release, lines, progress=progress, local=local, roles=said, keep=keep, as_of_now=as_of_now
                )
                shipped = release.tested and not requirements
                text = "" if shipped else lock.text
                await asyncio.to_thread(  # it may have to wait for a garbage collection
                    self._pin,
                    pins,
                    LockEntry(
                        request=reference,
                        framework=release.framework.name,
                        release=release.version,
                        python=lock.python or release.python,
                        lock=lock.digest,
                        requirements=lines,
                        text=text,
                    ),
                )
        found = Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))
        self._resolved[(reference, lines, self._lock_stamp())] = found
        return found

    def meant(self, reference: str, requirements: Sequence[str] = ()) -> Release:
        """Return the release that a reference means here; nothing is resolved or pinned. Raises AF20x, AF314."""
        catalogue, stamp = self.catalogue, self._lock_stamp()
        if self._meant[0] != (catalogue, stamp):
            self._meant = ((catalogue, stamp), ProjectLock.load(self._lock_path), {})
        _, pins, known = self._meant
        key = (reference, tuple(requirements))
        if key not in known:
            entry = pins.pinned(reference, self._named(requirements)) if pins is not None else None
            known[key] = catalogue.resolve(reference, entry.release if entry else None)
        return known[key]

    def pinned(self, reference: str, requirements: Sequence[str] = ()) -> LockEntry | None:
        """Return what the project's lock says of a reference. Raises ProjectLockInvalid."""
        return ProjectLock.load(self._lock_path).pinned(reference, self._named(requirements))

    async def adopt(self, entry: LockEntry) -> bool:
        """Pin what came from elsewhere where the project pins nothing for its request; return whether it is pinned."""
        async with self._pinning:
            pins = await asyncio.to_thread(ProjectLock.load, self._lock_path)
            current = pins.pinned(entry.request, entry.requirements)
            if current is None:
                await asyncio.to_thread(self._pin, pins, entry)
            return current is None or current.lock == entry.lock

    def _named(self, requirements: Sequence[str]) -> dict[str, Path | None]:
        """Return the lines as the lock has them, in their order, those of local packages with the package's path."""
        named: dict[str, Path | None] = {}
        for line in requirements:
            local = local_package(line)
            if local is None:
                named[line] = None
                continue
            relative = os.path.relpath(local.path, self._root)
            shown = relative if relative.startswith("..") else f"./{relative}"
            named[f"{shown}{local.extras}{CONTENT}{_content(local.path)}"] = local.path
        return named

    async def latest(self, reference: str) -> str:
        """Return the exact reference of the newest release on the index that a name or series admits.

        It is asked for once in a while only. Raises ReferenceInvalid, FrameworkUnknown, ReleaseUnknown,
        IndexUnreachable.
        """
        known = self._latest.get(reference)
        if known is not None and time.monotonic() - known[1] < _LATEST_FOR_S:
            return known[0]
        wanted, manifest = await asyncio.to_thread(self.catalogue.covering, reference)
        if wanted.version is not None:
            raise ReferenceInvalid(
                f"`{reference}` is one exact release, which has no latest",
                hint=f"Write `{wanted.name}`, or a series of it, to get the newest.",
            )
        if not manifest.distribution:
            return self.catalogue.resolve(reference).reference
        version = await self.environments.latest(
            [(each.distribution or manifest.distribution, _admits(wanted, each)) for each in manifest.releases]
        )
        if version is None:
            ranges = ", ".join(f"`{each.versions}`" for each in manifest.releases)
            raise ReleaseUnknown(f"The index has no release of `{reference}` that the adapter covers ({ranges})")
        found = f"{manifest.name}=={version}"
        self._latest[reference] = (found, time.monotonic())
        return found

    # ---- generations

    async def pins(self) -> tuple[LockEntry, ...]:
        """Return all generations of all requests of this project. Raises ProjectLockInvalid."""
        return (await asyncio.to_thread(ProjectLock.load, self._lock_path)).entries

    def generation(self, entry: LockEntry) -> Provisioned:
        """Return what a generation of a framework's request has. Raises LockUnavailable, AF20x."""
        release = self.catalogue.resolve(f"{entry.framework}=={entry.release}")
        lock = self.environments.restore(entry, release)
        return Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))

    async def candidate(
        self, entry: LockEntry, release: Release, progress: Progress | None = None, *, refresh: bool, as_of_now: bool
    ) -> Provisioned:
        """Return a release with the lock that it would get in the place of a generation; nothing is pinned.

        The additional packages are those of the generation. `refresh` resolves anew what was resolved before. Raises
        PinMoved where a local package has changed meanwhile, and AF3xx.
        """
        named = await asyncio.to_thread(self._named, [_unnamed(line, self._root) for line in entry.requirements])
        if set(named) != set(entry.requirements):
            changed = ", ".join(f"`{line.partition(CONTENT)[0]}`" for line in named if line not in entry.requirements)
            raise PinMoved(
                f"the local package {changed} of `{entry.request}` has changed since it was locked",
                hint="Run an agent with it first, which locks what it is now; then start the update again.",
            )
        local = {
            line: await self.environments.wheel(path, content_of(line), release.python)
            for line, path in named.items()
            if path is not None
        }
        lock = await self.environments.lock(
            release, tuple(named), progress=progress, local=local, refresh=refresh, as_of_now=as_of_now
        )
        return Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))

    async def promote(self, entry: LockEntry, found: Provisioned) -> LockEntry:
        """Make a lock the active generation in the place of another, and return it; the earlier one is kept.

        What was a generation before is that one again. Raises PinMoved if `entry` is not the active one any more.
        """
        release, lock = found.release, found.lock
        added = LockEntry(
            request=entry.request,
            framework=release.framework.name,
            release=release.version,
            python=lock.python or release.python,
            lock=lock.digest,
            requirements=entry.requirements,
            text="" if release.tested and not entry.requirements else lock.text,
        )
        async with self._changing(entry) as pins:
            self._keep_unshipped(pins, entry)
            history = pins.generations(entry.request, entry.requirements)
            known = next((each for each in history if _same_lock(each, added)), None)
            return pins.pin(added) if known is None else pins.activate(known)

    async def activate(self, entry: LockEntry, active: LockEntry) -> LockEntry:
        """Make a generation the active one in the place of another. Raises PinMoved if that is not active any more."""
        async with self._changing(active) as pins:
            return pins.activate(entry)

    @contextlib.asynccontextmanager
    async def _changing(self, active: LockEntry) -> AsyncIterator[ProjectLock]:
        """Give the lock to a change of a request's generation, and save it."""
        async with self._pinning:
            pins = await asyncio.to_thread(ProjectLock.load, self._lock_path)
            if pins.pinned(active.request, active.requirements) != active:
                raise PinMoved(f"`{active.request}` means something else in this project since the change was begun")
            yield pins
            await asyncio.to_thread(self._save, pins)
            # Not by the file's time alone: two changes may come within one tick of its clock.
            self._resolved.clear()
            self._resolved_tools.clear()
            self._meant = (None, None, {})

    def _keep_unshipped(self, pins: ProjectLock, entry: LockEntry) -> None:
        """Keep the text of a lock that was shipped and is not any more, so that it can be gone back to."""
        if entry.text:
            return
        with contextlib.suppress(AgentForgeError):
            before = self.generation(entry)
            path = before.release.lock_path
            if before.lock.text and (path is None or path.read_text("utf-8") != before.lock.text):
                pins.keep_text(entry, before.lock.text)

    def recorded(self, framework: str, version: str, lock: Lock) -> Provisioned:
        """Return an exact release with the lock that a run was started with, whatever the project pins by now."""
        release = self.catalogue.resolve(f"{framework}=={version}")
        return Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))

    async def tools(self, project: Project, progress: Progress | None = None) -> EnvironmentRequest:
        """Return the request for the project's tool environment, pinned from now on."""
        config = project.config.tools
        python = config.python or f"{sys.version_info.major}.{sys.version_info.minor}"
        requirements = _tool_requirements(project)
        key = (python, requirements)
        if (found := self._resolved_tools.get((*key, self._lock_stamp()))) is not None:
            return found
        async with self._pinning:
            pins = await asyncio.to_thread(ProjectLock.load, self._lock_path)
            entry = pins.pinned(TOOLS, requirements)
            if entry is not None and entry.python == python:
                lock = self.environments.restore(entry)
            else:
                lock = await self.environments.lock_tools(python, requirements, progress=progress)
                await asyncio.to_thread(  # it may have to wait for a garbage collection
                    self._pin,
                    pins,
                    LockEntry(
                        request=TOOLS,
                        framework=TOOLS,
                        release="",
                        python=python,
                        lock=lock.digest,
                        requirements=tuple(requirements),
                        text=lock.text,
                    ),
                )
        request = EnvironmentRequest.for_tools(lock, python)
        self._resolved_tools[(*key, self._lock_stamp())] = request
        return request

    async def ensure(
        self, request: EnvironmentRequest, release: Release | None, progress: Progress | None = None
    ) -> Environment:
        """Return the built environment; builds of the same one in this host are done once and shared."""
        key = (request.name, request.lock.digest, request.python)
        known = self._ready.get(key)
        if known is not None and known.python.exists():
            return known
        build = self._builds.get(key)
        if build is None:
            build = self._builds[key] = _Build()
            check: Check | None = EnvironmentCheck(release, self.adapters, self._level) if release else None
            build.task = asyncio.create_task(self.environments.ensure(request, build.tell, check))
            build.task.add_done_callback(lambda _: self._builds.pop(key, None))
        if progress is not None:
            build.listeners.append(progress)
            if build.last is not None:
                progress(build.last)
        try:
            # A caller that gives up must not stop the build for the others.
            environment = await asyncio.shield(build.task)
        finally:
            if progress is not None:
                build.listeners.remove(progress)
        self._ready[key] = environment
        return environment

    async def rebuild(
        self, request: EnvironmentRequest, release: Release | None, progress: Progress | None = None
    ) -> Environment:
        """Return the environment for a request, made anew beside the one that is there (`Environments.rebuild`)."""
        check = EnvironmentCheck(release, self.adapters, self._level) if release else None
        environment = await self.environments.rebuild(request, progress, check)
        self._ready[(request.name, request.lock.digest, request.python)] = environment
        return environment

    def built_from(self, id: str) -> tuple[EnvironmentRequest, Release | None]:
        """Return what an environment was built from. Raises EnvironmentUnknown, RebuildImpossible."""
        environment = self.environments.standing(id)
        if environment is None:
            raise EnvironmentUnknown(f"There is no environment `{id}`")
        python = f"=={environment.python_version}"
        if environment.framework is None:
            return EnvironmentRequest(TOOLS, self._lock_of(environment, None), python), None
        try:
            release = self.catalogue.resolve(f"{environment.framework}=={environment.release}")
        except AgentForgeError as error:
            raise RebuildImpossible(
                f"`{id}` can't be made anew: its framework is not in this project's catalogue: {error.message}",
                hint="Do it in a project that knows the framework (`agentforge framework register`).",
            ) from error
        lock = self._lock_of(environment, release)
        return replace(EnvironmentRequest.for_release(release, lock), python=python), release

    def _lock_of(self, environment: Environment, release: Release | None) -> Lock:
        """Return the lock of an environment: its own copy, or where that was changed one that is the same."""
        try:
            lock = Lock((environment.path / "lock.txt").read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            lock = Lock("")
        if lock.digest == environment.lock_digest:
            return lock
        name = environment.framework or TOOLS
        wanted = LockEntry(name, name, environment.release or "", "", environment.lock_digest)
        pinned = [each for each in self._pins() if each.lock == wanted.lock and each.text]
        try:
            return self.environments.restore(pinned[0] if pinned else wanted, release)
        except AgentForgeError as error:
            raise RebuildImpossible(f"`{environment.id}` can't be made anew: its lock is gone") from error

    def _pins(self) -> tuple[LockEntry, ...]:
        return ProjectLock.load(self._lock_path).entries

    def used(self) -> list[Environment]:
        """Return the environments that this project's active pins mean, as far as they are built. Blocking."""
        entries = {(each.framework, each.lock): each.python for each in self._pins() if each.active}
        found = []
        for environment in self.environments.list_standing():
            python = entries.get((environment.framework or TOOLS, environment.lock_digest))
            if python is not None and self._is_choice(environment, python):
                found.append(environment)
        return found

    def _is_choice(self, environment: Environment, python: str) -> bool:
        """Whether its Python is the one that this machine takes for a range (or a series, as tools have it)."""
        try:
            wanted = self.environments.interpreters.find(python if set(python) & set("<>=!~") else f"=={python}.*")
        except AgentForgeError:
            return True
        return wanted.version == environment.python_version

    def forget(self, environment_id: str) -> None:
        """Look again for an environment the next time: it was removed."""
        self._ready = {key: found for key, found in self._ready.items() if found.id != environment_id}

    async def close(self) -> None:
        """Stop the builds under way; they leave nothing half-made."""
        tasks = [build.task for build in self._builds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _lock_stamp(self) -> int:
        """Changes whenever the project's lock file does: what was resolved under it is good until then."""
        try:
            return self._lock_path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _pin(self, pins: ProjectLock, entry: LockEntry) -> None:
        before = pins.entries
        pins.pin(entry)
        if pins.entries != before:
            self._save(pins)

    def _save(self, pins: ProjectLock) -> None:
        with self.environments.pinning(self._root):
            pins.save()


def _admits(wanted: Reference, releases: ReleaseRange) -> Callable[[str], bool]:
    return lambda version: releases.contains(version) and wanted.admits(version)


def _holds(entry: LockEntry, lines: Sequence[str], local: Mapping[str, LocalWheel]) -> bool:
    """Whether a project's lock has just these contents of the local packages that it asks for."""
    return set(entry.requirements) == set(lines) and all(wheel.digest in entry.text for wheel in local.values())


def _same_lock(one: LockEntry, other: LockEntry) -> bool:
    return (one.framework, one.release, one.lock, one.python) == (
        other.framework, other.release, other.lock, other.python,
    ) and set(one.requirements) == set(other.requirements)  # fmt: skip


def _unnamed(line: str, root: Path) -> str:
    """Return a line of the lock as a project or an agent gives it: local packages by their absolute path."""
    if not content_of(line):
        return line
    local = local_package(line.partition(CONTENT)[0])
    return line if local is None else f"{(root / local.path).resolve()}{local.extras}"


def _content(package: Path) -> str:
    try:
        return content_digest(package)
    except OSError as error:
        raise LocalPackageFailed(f"the local package `{package}` can't be read: {error.strerror}") from None


def _tool_requirements(project: Project) -> tuple[str, ...]:
    config = project.config.tools
    if config.pyproject is None:
        return tuple(config.requirements)
    path = project.root / config.pyproject
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        dependencies = table["project"]["dependencies"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileSyntaxError(f"`{path}`, named by `[tools] pyproject`, can't be read: {error}") from None
    except (KeyError, TypeError):
        return ()
    return tuple(str(line) for line in dependencies)
