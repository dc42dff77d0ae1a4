"""What a run needs built, as the project pins it: the framework's environment and the project's tool environment."""

import asyncio
import contextlib
import functools
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
from agentforge.engine.sharing import JoinedWork
from agentforge.environments import (
    CONTENT,
    LOCK_FILE,
    BuildProgress,
    Environment,
    EnvironmentRequest,
    Environments,
    LocalWheel,
    Lock,
    LockEntry,
    Progress,
    ProjectLock,
    content_digest,
    content_of,
)
from agentforge.environments.project_lock import TOOLS
from agentforge.errors import AgentForgeError
from agentforge.errors.config import FileSyntaxError
from agentforge.errors.environments import EnvironmentUnknown, LocalPackageFailed, PinMoved, RebuildImpossible
from agentforge.errors.frameworks import ReferenceInvalid, ReleaseUnknown
from agentforge.frameworks import Catalogue, LiveCatalogue, Reference, Release, ReleaseRange

__all__ = ["TOOLS", "Provision", "Provisioned"]

_LATEST_FOR_S = 60.0
_Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A release with the lock that this project pins for it."""

    release: Release
    lock: Lock
    request: EnvironmentRequest


class Provision:
    """Resolves and pins for one project; the project's host is the only writer of its lock file."""

    def __init__(
        self,
        root: Path,
        catalogue: Catalogue | LiveCatalogue,
        environments: Environments,
    ) -> None:
        self._catalogue = catalogue
        self.environments = environments
        self._root = root
        self._lock_path = root / LOCK_FILE
        self._latest: dict[str, tuple[str, float]] = {}
        self._resolved: dict[tuple[str, tuple[str, ...], _Stamp], Provisioned] = {}
        self._resolved_tools: dict[tuple[str, tuple[str, ...], _Stamp], EnvironmentRequest] = {}
        # None is the answer of work whose result was not pinned, because somebody else had pinned something meanwhile.
        self._resolving = JoinedWork[Provisioned | None, BuildProgress]()
        self._resolving_tools = JoinedWork[EnvironmentRequest | None, BuildProgress]()
        self._pinning = asyncio.Lock()
        """Held while the lock file is compared and written, never while something is resolved."""
        self._changes = 0
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
        said = {line: roles.get(given, "") for line, given in zip(lines, requirements, strict=True)}
        while True:
            stamp = self._lock_stamp()
            known = self._resolved.get((reference, lines, stamp))
            catalogue = self.catalogue
            if known is not None and known.release.framework in catalogue:
                return known
            entry = (await asyncio.to_thread(ProjectLock.load, self._lock_path)).pinned(reference, lines)
            release = await asyncio.to_thread(catalogue.resolve, reference, entry.release if entry else None)
            wanted = _Wanted(reference, release, named, said, as_of_now)
            key = (catalogue, entry, reference, tuple(said.items()), as_of_now)
            found = await self._resolving.do(key, functools.partial(self._provisioned, wanted, entry, stamp), progress)
            if found is not None:
                return found

    async def _provisioned(
        self, wanted: "_Wanted", entry: LockEntry | None, stamp: _Stamp, progress: Progress
    ) -> Provisioned | None:
        """Return what the entry has, or what is resolved and pinned in its place; None if it is not there any more."""
        release, lines = wanted.release, tuple(wanted.named)
        same = entry if entry is not None and entry.release == release.version else None
        local = await self._wheels(wanted.named, release, entry)
        if same is not None and _holds(same, lines, local):
            lock = self.environments.restore(same, release)
        else:
            lock = await self.environments.lock(
                release, lines, progress=progress, local=local, roles=wanted.roles,
                keep=same.text if same is not None else "", as_of_now=wanted.as_of_now,
            )  # fmt: skip
            made = _entry_of(wanted.reference, release, lock, lines)
            pinned = await self._pin_instead(entry, made)
            if pinned is None:
                return None
            stamp = pinned
        found = Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))
        self._resolved[(wanted.reference, lines, stamp)] = found
        return found

    async def _wheels(
        self, named: Mapping[str, Path | None], release: Release, entry: LockEntry | None
    ) -> dict[str, LocalWheel]:
        """Return the wheel of each line that is a local package; the entry's lock may have come with some."""
        lock = entry.lock if entry is not None else ""
        return {
            line: await self.environments.wheel(path, content_of(line), release.python, lock)
            for line, path in named.items()
            if path is not None
        }

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
                await self._pin(pins, entry)
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
        local = await self._wheels(named, release, entry)
        lock = await self.environments.lock(
            release, tuple(named), progress=progress, local=local, refresh=refresh, as_of_now=as_of_now
        )
        return Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))

    async def promote(self, entry: LockEntry, found: Provisioned) -> LockEntry:
        """Make a lock the active generation in the place of another, and return it; the earlier one is kept.

        What was a generation before is that one again. Raises PinMoved if `entry` is not the active one any more.
        """
        added = _entry_of(entry.request, found.release, found.lock, entry.requirements)
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
            await self._save(pins)

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
        while True:
            stamp = self._lock_stamp()
            if (known := self._resolved_tools.get((python, requirements, stamp))) is not None:
                return known
            entry = (await asyncio.to_thread(ProjectLock.load, self._lock_path)).pinned(TOOLS, requirements)
            work = functools.partial(self._provisioned_tools, python, requirements, entry, stamp)
            found = await self._resolving_tools.do((python, requirements, entry), work, progress)
            if found is not None:
                return found

    async def _provisioned_tools(
        self, python: str, requirements: tuple[str, ...], entry: LockEntry | None, stamp: _Stamp, progress: Progress
    ) -> EnvironmentRequest | None:
        if entry is not None and entry.python == python:
            lock = self.environments.restore(entry)
        else:
            lock = await self.environments.lock_tools(python, requirements, progress=progress)
            pinned = await self._pin_instead(
                entry, LockEntry(TOOLS, TOOLS, "", python, lock.digest, requirements, lock.text)
            )
            if pinned is None:
                return None
            stamp = pinned
        request = EnvironmentRequest.for_tools(lock, python)
        self._resolved_tools[(python, requirements, stamp)] = request
        return request

    async def close(self) -> None:
        """Stop what is being resolved."""
        await self._resolving.close()
        await self._resolving_tools.close()

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
        entries = {(each.framework, each.lock): each.pythons for each in self._pins() if each.active}
        found = []
        for environment in self.environments.list_standing():
            pythons = entries.get((environment.framework or TOOLS, environment.lock_digest))
            if pythons is not None and self._is_choice(environment, pythons):
                found.append(environment)
        return found

    def _is_choice(self, environment: Environment, pythons: str) -> bool:
        """Whether its Python is the one that this machine takes for a range."""
        try:
            wanted = self.environments.interpreters.find(pythons)
        except AgentForgeError:
            return True
        return wanted.version == environment.python_version

    def _lock_stamp(self) -> _Stamp:
        """Changes whenever the project's lock file does: what was resolved under it is good until then."""
        # Not by the file's time alone: two changes may come within one tick of its clock.
        try:
            return self._lock_path.stat().st_mtime_ns, self._changes
        except FileNotFoundError:
            return 0, self._changes

    async def _pin_instead(self, before: LockEntry | None, entry: LockEntry) -> _Stamp | None:
        """Pin an entry in the place of another; return the stamp from then on, or None if that is not there any more.

        What was resolved took its time, without keeping anybody from pinning the same request.
        """
        async with self._pinning:
            pins = await asyncio.to_thread(ProjectLock.load, self._lock_path)
            if pins.pinned(entry.request, entry.requirements) != before:
                return None
            await self._pin(pins, entry)
            return self._lock_stamp()

    async def _pin(self, pins: ProjectLock, entry: LockEntry) -> None:
        before = pins.entries
        pins.pin(entry)
        if pins.entries != before:
            await self._save(pins)

    async def _save(self, pins: ProjectLock) -> None:
        await asyncio.to_thread(self._write, pins)  # it may have to wait for a garbage collection
        self._changes += 1
        self._resolved.clear()
        self._resolved_tools.clear()

    def _write(self, pins: ProjectLock) -> None:
        with self.environments.pinning(self._root):
            pins.save()


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a reference means here, and what is to be in its environment besides."""

    reference: str
    release: Release
    named: Mapping[str, Path | None]
    """The additional lines as the lock has them, those of local packages with the package's path."""
    roles: Mapping[str, str]
    """Who brought which line."""
    as_of_now: bool


def _entry_of(request: str, release: Release, lock: Lock, lines: tuple[str, ...]) -> LockEntry:
    """Return what the project's lock gets: without the text where it is the one that is shipped."""
    return LockEntry(
        request=request,
        framework=release.framework.name,
        release=release.version,
        python=lock.python or release.python,
        lock=lock.digest,
        requirements=lines,
        text="" if release.tested and not lines else lock.text,
    )


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
