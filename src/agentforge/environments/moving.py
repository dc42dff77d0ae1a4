"""Export of environments into a bundle, and import of one: afterwards they are built without any index."""

import asyncio
import contextlib
import os
import platform
import secrets
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from agentforge import __version__
from agentforge.environments.additions import content_of
from agentforge.environments.bundle import BundledEnvironment, BundledPackage, BundleFile, write_bundle
from agentforge.environments.collecting import delete
from agentforge.environments.environment import BuildProgress, EnvironmentRequest, Progress
from agentforge.environments.fetching import FetchedWheel, Fetcher
from agentforge.environments.home import Home, storage_errors, write_atomically
from agentforge.environments.interpreters import Interpreter, Interpreters
from agentforge.environments.lock import Lock
from agentforge.environments.project_lock import LockEntry
from agentforge.environments.wheels import Wheels, is_wheel_for, rank_of
from agentforge.errors.environments import InterpreterMissing
from agentforge.errors.keeping import BundleInvalid, BundleNotWritten, BundleUnfit

__all__ = ["Exported", "Imported", "Moving"]


@dataclass(frozen=True, slots=True)
class Exported:
    """One environment that is to be exported: what a request means in a project."""

    entry: LockEntry
    request: EnvironmentRequest


@dataclass(frozen=True, slots=True)
class Imported:
    """One environment that a bundle brought: how a project may pin it."""

    entry: LockEntry
    """With the lock's text, for a project that has no other way to it."""
    lock: Lock
    built: tuple[str, ...] = ()
    """Packages whose lock names a source archive: their wheels were built by who exported, and no lock names them."""


class Moving:
    """Writes and reads bundles for one data folder."""

    def __init__(self, home: Home, wheels: Wheels, interpreters: Interpreters, environ: Mapping[str, str]) -> None:
        self._home, self._wheels, self._interpreters, self._environ = home, wheels, interpreters, environ

    async def export(self, environments: Sequence[Exported], target: Path, progress: Progress) -> int:
        """Write a bundle with the wheels of these environments for this machine; return its size.

        Raises BundleNotWritten, PackageFileMissing, IndexUnreachable, InterpreterMissing, LocalPackageFailed.
        """
        await asyncio.to_thread(_require_writable, target)  # not after everything was fetched
        with storage_errors(Path(tempfile.gettempdir())):
            folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="agentforge-export-")
            try:
                async with Fetcher(self._environ, self._wheels, Path(folder)) as fetcher:
                    packed = [await self._packed(each, fetcher, progress) for each in _sorted(environments)]
                return await asyncio.to_thread(
                    write_bundle,
                    target,
                    [bundled for bundled, _ in packed],
                    {each.request.lock.digest: each.request.lock.text for each in environments},
                    {_entry_of(wheel): wheel.file for _, wheels in packed for wheel in wheels},
                    written_by=__version__,
                    platform=_machine(),
                )
            finally:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    async def _packed(
        self, exported: Exported, fetcher: Fetcher, progress: Progress
    ) -> tuple[BundledEnvironment, list[FetchedWheel]]:
        entry, request = exported.entry, exported.request
        interpreter = await asyncio.to_thread(self._interpreters.find, request.python)
        packages = request.lock.packages_for(interpreter.markers)
        fetched = 0

        def done(name: str) -> None:
            nonlocal fetched
            fetched += 1
            progress(BuildProgress(entry.request, "downloading", fetched, len(packages), name))

        progress(BuildProgress(entry.request, "downloading", 0, len(packages), "downloading"))
        wheels = await fetcher.fetch(request.lock, interpreter, done)
        progress(BuildProgress(entry.request, "ready", len(packages), len(packages), "ready"))
        bundled = BundledEnvironment(
            request=entry.request,
            framework=entry.framework,
            release=entry.release,
            python=entry.python,
            python_version=interpreter.version,
            lock=request.lock.digest,
            requirements=entry.requirements,
            packages=tuple(
                BundledPackage(
                    each.package.name,
                    each.package.version,
                    _entry_of(each),
                    each.source or None,
                    self._contents(each, exported, interpreter),
                )
                for each in sorted(wheels, key=lambda each: (each.package.name, each.package.version))
            ),
        )
        return bundled, wheels

    def _contents(self, wheel: FetchedWheel, exported: Exported, interpreter: Interpreter) -> tuple[str, ...]:
        """Return which contents of local packages were built to a wheel: another build might give other bytes."""
        found = set()
        for content in filter(None, map(content_of, exported.entry.requirements)):
            for lock in ("", exported.request.lock.digest):
                with contextlib.suppress(FileNotFoundError):
                    note = self._wheels.note_of_content(content, interpreter, lock).read_text(encoding="utf-8")
                    if note.startswith(f"{wheel.digest}/"):
                        found.add(content)
        return tuple(sorted(found))

    def take(self, file: Path, approve: Callable[[Imported], object] = lambda _: None) -> list[Imported]:
        """Check a bundle whole, then keep its locks and wheels below the data folder. Blocks while it reads.

        `approve` is called with each environment before anything is kept, and raises what speaks against it. Raises
        BundleInvalid, BundleTooNew, BundleUnfit, InterpreterMissing, DiskFull, HomeNotWritable; nothing was taken
        then.
        """
        with BundleFile.opened(file) as bundle:
            interpreters = [self._fitting(each, bundle) for each in bundle.manifest.environments]
            imported = [_imported(each, bundle.lock(each)) for each in bundle.manifest.environments]
            for found in imported:
                approve(found)
            with storage_errors(self._home.path), self._staging() as staging:
                names = [name for name in bundle.manifest.entries if name.startswith("wheels/")]
                for name in names:
                    _, digest, filename = name.split("/")
                    (staging / digest).mkdir(exist_ok=True)
                    bundle.extract(name, staging / digest / filename)
                for each, interpreter in zip(bundle.manifest.environments, interpreters, strict=True):
                    _require_wheels(each, staging, interpreter)
                self._place(staging, names)
                for each, interpreter in zip(bundle.manifest.environments, interpreters, strict=True):
                    self._note(each, interpreter)
                    write_atomically(self._home.lock_text(each.lock), bundle.lock(each).text)
            return imported

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """Give a folder on the disk of the wheels; what a killed import leaves there a collection takes away."""
        staging = self._home.wheels / f".import.{secrets.token_hex(4)}"
        staging.mkdir(parents=True)
        try:
            yield staging
        finally:
            delete(staging)

    def _place(self, staging: Path, names: Sequence[str]) -> None:
        for name in names:
            _, digest, filename = name.split("/")
            target = self._home.wheels / digest / filename
            target.parent.mkdir(exist_ok=True)
            (staging / digest / filename).replace(target)  # its bytes were looked at, those that are there were not

    def _note(self, environment: BundledEnvironment, interpreter: Interpreter) -> None:
        for package in environment.packages:
            notes = [self._wheels.note_of_content(each, interpreter, environment.lock) for each in package.contents]
            if package.source is not None:
                notes.append(self._wheels.note_of_source(package.source, environment.lock, interpreter))
            for note in notes:
                write_atomically(note, package.wheel.removeprefix("wheels/") + "\n")

    def _fitting(self, environment: BundledEnvironment, bundle: BundleFile) -> Interpreter:
        """Return the interpreter that an environment would be built with. Raises BundleUnfit, InterpreterMissing."""
        what = f"`{environment.request}`"
        wanted = f"=={environment.python}.*" if not environment.release else environment.python
        series = ".".join(map(str, Version(environment.python_version).release[:2]))
        try:
            interpreter = self._interpreters.find(wanted)
        except InterpreterMissing as error:
            raise BundleUnfit(f"{what} needs Python {series}, which is not on this machine", hint=error.hint) from None
        if interpreter.tag != f"py{series.replace('.', '')}":
            raise BundleUnfit(
                f"The wheels of {what} are for Python {series}; here it would be built with {interpreter.version}",
                hint=f"Run AgentForge with Python {series} here, or export on a machine where it runs with "
                f"{'.'.join(interpreter.version.split('.')[:2])}.",
            )
        for package in environment.packages:
            filename = package.wheel.rpartition("/")[2]
            if rank_of(filename, interpreter) is None:
                raise BundleUnfit(
                    f"`{filename}` can't be installed on this machine (`{_machine()}`); "
                    f"the bundle was written on `{bundle.manifest.platform}`",
                    hint="Export the environments on a machine of the same kind, with a system no newer than this one.",
                )
        brought = {(package.name, package.version) for package in environment.packages}
        for locked in bundle.lock(environment).packages_for(interpreter.markers):
            if (locked.name, locked.version) not in brought:
                raise BundleUnfit(
                    f"{what} needs `{locked.name}` {locked.version} on Python {interpreter.version}, and the bundle, "
                    f"written for {environment.python_version}, does not have it",
                    hint=f"Export it with Python {interpreter.version}.",
                )
        return interpreter


def _require_wheels(environment: BundledEnvironment, staging: Path, interpreter: Interpreter) -> None:
    """Refuse what is named like a wheel for this machine and is none: other locks may name its hash, too."""
    for package in environment.packages:
        entry = package.wheel
        if not is_wheel_for(staging / entry.removeprefix("wheels/"), interpreter):
            raise BundleInvalid(f"`{entry}` is no wheel for this machine, whatever its name says", place=entry)


def _require_writable(target: Path) -> None:
    if target.is_dir():
        raise BundleNotWritten(f"`{target}` is a folder")
    if not target.parent.is_dir():
        raise BundleNotWritten(f"There is no folder `{target.parent}`")
    if not os.access(target.parent, os.W_OK):
        raise BundleNotWritten(f"The folder `{target.parent}` can't be written")


def _sorted(environments: Sequence[Exported]) -> list[Exported]:
    return sorted(environments, key=lambda each: (each.entry.request, each.entry.requirements))


def _entry_of(wheel: FetchedWheel) -> str:
    return f"wheels/{wheel.digest}/{wheel.file.name}"


def _imported(environment: BundledEnvironment, lock: Lock) -> Imported:
    entry = LockEntry(
        request=environment.request,
        framework=environment.framework,
        release=environment.release,
        python=environment.python,
        lock=environment.lock,
        requirements=environment.requirements,
        text=lock.text,
    )
    built = tuple(f"{each.name} {each.version}" for each in environment.packages if each.source is not None)
    return Imported(entry, lock, built)


def _machine() -> str:
    return f"{sysconfig.get_platform()}-{'-'.join(platform.libc_ver()) or 'libc'}"
