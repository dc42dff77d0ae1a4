"""What a run needs built: the framework's environment and the project's tool environment, pinned by the project."""

import asyncio
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentforge.config import Project
from agentforge.engine.adapters import AdapterStore
from agentforge.engine.check import EnvironmentCheck
from agentforge.environments import (
    LOCK_FILE,
    BuildProgress,
    Check,
    Environment,
    EnvironmentRequest,
    Environments,
    Lock,
    LockEntry,
    ProjectLock,
)
from agentforge.errors.config import FileSyntaxError
from agentforge.frameworks import Catalogue, Release
from agentforge.sandbox import Level

__all__ = ["Provision", "Provisioned"]

Progress = Callable[[BuildProgress], None]
TOOLS = "tools"


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
        catalogue: Catalogue,
        environments: Environments,
        adapters: AdapterStore,
        level: Level = "standard",
    ) -> None:
        self._level = level
        self.catalogue = catalogue
        self.environments = environments
        self.adapters = adapters
        self._lock_path = root / LOCK_FILE
        self._builds: dict[tuple[str, str, str], _Build] = {}
        self._ready: dict[tuple[str, str, str], Environment] = {}
        self._resolved: dict[tuple[str, tuple[str, ...], int], Provisioned] = {}
        self._resolved_tools: dict[tuple[str, tuple[str, ...], int], EnvironmentRequest] = {}
        self._pinning = asyncio.Lock()

    async def framework(
        self, reference: str, requirements: Sequence[str] = (), progress: Progress | None = None
    ) -> Provisioned:
        """Return the release that a reference means in this project, pinned from now on. Raises AF2xx and AF3xx."""
        key = (reference, tuple(requirements), self._lock_stamp())
        if key in self._resolved:
            return self._resolved[key]
        async with self._pinning:
            pins = await asyncio.to_thread(ProjectLock.load, self._lock_path)
            entry = pins.pinned(reference, requirements)
            pinned = entry.release if entry else None
            release = await asyncio.to_thread(self.catalogue.resolve, reference, pinned)
            if entry is not None and entry.release == release.version:
                lock = self.environments.restore(entry, release)
            else:
                lock = await self.environments.lock(release, requirements, progress=progress)
                shipped = release.tested and not requirements
                text = "" if shipped else lock.text
                self._pin(
                    pins,
                    LockEntry(
                        request=reference,
                        framework=release.framework.name,
                        release=release.version,
                        python=lock.python or release.python,
                        lock=lock.digest,
                        requirements=tuple(requirements),
                        text=text,
                    ),
                )
        found = Provisioned(release, lock, EnvironmentRequest.for_release(release, lock))
        self._resolved[(reference, tuple(requirements), self._lock_stamp())] = found
        return found

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
                self._pin(
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
            pins.save()


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
