"""Which lock a release, a tool environment or a project's entry gets: shipped, remembered or resolved now."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from agentforge.environments.additions import Additions, checked_requirements, roles_for_uv
from agentforge.environments.environment import BuildProgress, Progress
from agentforge.environments.home import Home, touched, write_atomically
from agentforge.environments.index import Index
from agentforge.environments.interpreters import Interpreters, python_floor
from agentforge.environments.lock import Lock
from agentforge.environments.project_lock import LockEntry
from agentforge.environments.resolving import Question, as_of_release, check_lock, compile_lock
from agentforge.environments.uv import Uv
from agentforge.environments.wheels import LocalWheel
from agentforge.errors.environments import LockUnavailable, ProjectLockInvalid, ResolutionFailed
from agentforge.frameworks import Release

__all__ = ["Locking"]

_FRAMEWORK = "the framework itself"
_AGENT = "`requirements`"


class _Resolution(NamedTuple):
    """What is resolved, as of when, and who brought which line."""

    release: Release
    as_of_now: bool
    roles: Mapping[str, str]


class Locking:
    """Finds and remembers locks below the data folder."""

    def __init__(self, home: Home, uv: Uv, interpreters: Interpreters, environ: Mapping[str, str]) -> None:
        self._home, self._uv, self._interpreters, self._environ = home, uv, interpreters, environ

    async def of_release(
        self,
        release: Release,
        extra: Sequence[str],
        progress: Progress | None,
        *,
        refresh: bool,
        local: Mapping[str, LocalWheel],
        roles: Mapping[str, str],
        keep: str,
        as_of_now: bool,
    ) -> Lock:
        """Return the lock of a release with additional lines; see `Environments.lock`."""
        shipped = Lock(release.lock_path.read_text(encoding="utf-8")) if release.lock_path else None
        added = Additions.read(extra, release.distribution, local)
        wanted = (*release.requirements, *added.requirements)
        if not wanted:
            return Lock("")
        if shipped is not None and not extra:
            check_lock(shipped, release.reference, release.distribution, release.version)
            return self._remember(replace(shipped, requirements=wanted))
        python = await self._narrowed(release.python)
        constraints = _without(keep or (shipped.text if shipped else ""), [wheel.name for wheel in local.values()])
        question = Question(wanted, python_floor(python), constraints=constraints, bounds=added.bounds)
        whose = roles_for_uv(roles, release.distribution, local)
        resolution = _Resolution(release, as_of_now, whose | dict.fromkeys(release.requirements, _FRAMEWORK))

        async def resolve() -> Lock:
            lock = await self._resolve_release(resolution, question, progress)
            if release.distribution:
                check_lock(lock, release.reference, release.distribution, release.version)
            return lock

        found = await self._recalled(question, resolve, refresh=refresh or as_of_now)
        return replace(found, python=python, requirements=tuple(extra))

    async def of_tools(
        self, python: str, requirements: Sequence[str], progress: Progress | None, *, refresh: bool
    ) -> Lock:
        """Return the lock of a tool environment."""
        pythons = f"=={python}.*"
        wanted = checked_requirements(requirements)
        if not wanted:
            return Lock("", python=pythons)
        question = Question(wanted, python_floor(pythons))

        async def resolve() -> Lock:
            return await self._compile(question, pythons, "the tools' requirements", progress)

        return replace(await self._recalled(question, resolve, refresh=refresh), python=pythons)

    def restore(self, entry: LockEntry, release: Release | None) -> Lock:
        """Return the lock that a project's entry names."""
        lock = self._restored(entry, release)
        if lock is not None:
            python = entry.python if entry.release else ""
            return replace(lock, python=python, requirements=entry.requirements)
        raise LockUnavailable(
            f"The lock of `{entry.request}` ({entry.framework} {entry.release}) that this project pins is not here: "
            "it was shipped with another version of AgentForge",
            hint=f"`agentforge env update {entry.request}` pins the one that this version ships.",
        )

    def _restored(self, entry: LockEntry, release: Release | None) -> Lock | None:
        if entry.text:
            if Lock(entry.text).digest != entry.lock:
                raise ProjectLockInvalid(f"The lock text of `{entry.request}` does not have the digest `{entry.lock}`")
            return Lock(entry.text)
        files = [release.lock_path] if release and release.lock_path else []
        texts = [f.read_text(encoding="utf-8") for f in (*files, self._home.lock_text(entry.lock)) if f.is_file()]
        return next((lock for lock in map(Lock, (*texts, "")) if lock.digest == entry.lock), None)

    async def _resolve_release(self, resolution: "_Resolution", question: Question, progress: Progress | None) -> Lock:
        """Resolve with the pins that should stay if they can, else freely; an untested release as of its own time."""
        release = resolution.release
        free = question
        if release.distribution and not release.tested and not resolution.as_of_now:
            index = Index.from_environment(self._environ)
            free = question = replace(question, as_of=await as_of_release(release, index))
        if not question.constraints:
            return await self._compile(question, release.python, release.reference, progress, resolution.roles)
        try:
            return await self._compile(question, release.python, release.reference, progress, resolution.roles)
        except ResolutionFailed:
            if progress is not None:
                message = "the extra packages do not fit the tested versions; resolving without these"
                progress(BuildProgress(release.reference, "resolving", 0, 0, message))
            free = replace(free, constraints="")
            return await self._compile(free, release.python, release.reference, progress, resolution.roles)

    async def _compile(
        self,
        question: Question,
        python: str,
        what: str,
        progress: Progress | None,
        roles: Mapping[str, str] | None = None,
    ) -> Lock:
        interpreter = await asyncio.to_thread(self._interpreters.find, python)
        return await compile_lock(self._uv, interpreter.path, question, what, progress, roles, _AGENT)

    async def _narrowed(self, python: str) -> str:
        """Return the part of a Python range from the interpreter that will be used upwards.

        A lock for one machine need not serve older Pythons, which extra packages may have given up.
        """
        interpreter = await asyncio.to_thread(self._interpreters.find, python)
        series = ".".join(interpreter.version.split(".")[:2])
        return str(SpecifierSet(python) & SpecifierSet(f">={series}"))

    async def _recalled(self, question: Question, resolve: Callable[[], Awaitable[Lock]], *, refresh: bool) -> Lock:
        note = self._home.resolved(question.digest)
        if not refresh:
            try:
                text = self._home.lock_text(note.read_text(encoding="utf-8").strip()).read_text(encoding="utf-8")
                return Lock(text, question.requirements)
            except FileNotFoundError:
                pass
        lock = self._remember(await resolve())
        write_atomically(note, lock.digest + "\n")
        return lock

    def _remember(self, lock: Lock) -> Lock:
        file = self._home.lock_text(lock.digest)
        if not touched(file):
            write_atomically(file, lock.text)
        return lock


def _without(text: str, names: Sequence[str]) -> str:
    """Return the lines of a lock but those of some packages."""
    if not names:
        return text
    blocks = text.replace("\\\n", "\0").splitlines()
    return "\n".join(
        block.replace("\0", "\\\n") for block in blocks if canonicalize_name(block.partition("==")[0]) not in names
    )
