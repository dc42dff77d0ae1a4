"""Wheels of local packages: built from a folder once for each content of it, and kept by their own digest.

A lock names such a package like any other, by version and hash; what was installed from it stays what it was when
the folder changes, and a changed folder gives another wheel.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, parse_tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from agentforge.environments.home import Home, storage_errors, touched, write_atomically
from agentforge.environments.interpreters import Interpreter
from agentforge.environments.lock import Lock, LockedPackage
from agentforge.environments.uv import Uv, failure
from agentforge.errors.environments import LocalPackageFailed

__all__ = ["LocalWheel", "Wheels", "content_digest", "is_wheel_for", "lock_of_note", "rank_of"]

MAX_FILES = 5000
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "build", "dist"})
_LINE = re.compile(
    r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;]+)(?P<marker>\s*;[^\n\\]*)?(?P<hashes>(?:\s*\\\n\s+--hash=\S+)+)",
    re.MULTILINE,
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_LOCK_OF_NOTE = re.compile(r".+-([0-9a-f]{64})-py\d+")
_WHEEL_BYTES = 1 << 16
# Archives made from the same files should be the same, byte for byte: no time of today gets into them.
_SAME_BYTES = {"SOURCE_DATE_EPOCH": "315532800"}


@dataclass(frozen=True, slots=True)
class LocalWheel:
    """One wheel of a local package."""

    name: str
    """Normalised: `my-lib`."""
    version: str
    file: Path
    digest: str
    """SHA-256 of the file: the hash in a lock."""

    @property
    def address(self) -> str:
        """Where uv finds it."""
        return self.file.as_uri()


class Wheels:
    """The wheels below the data folder: `wheels/<digest>/<file>`, and notes of what some of them were built from.

    A note that a bundle brought names the lock that it came with, and counts for no other: whoever wrote the bundle
    could have built anything.
    """

    def __init__(self, home: Home, uv: Uv) -> None:
        self._home, self._uv = home, uv

    async def build(self, package: Path, content: str, interpreter: Interpreter, lock: str = "") -> LocalWheel:
        """Return the wheel of a package (a folder, a source archive, a wheel) for a Python; built unless it was.

        `content` is its `content_digest`; `lock` the digest of the lock that it is for, which may have come with a
        wheel of it. Raises LocalPackageFailed with what the build said.
        """
        note = self.note_of_content(content, interpreter)
        for each in (self.note_of_content(content, interpreter, lock), note) if lock else (note,):
            known = await asyncio.to_thread(self._noted, each)
            if known is not None:
                return known
        with storage_errors(self._home.path), tempfile.TemporaryDirectory(prefix="agentforge-wheel-") as folder:
            file = await self._made(package, interpreter, Path(folder))
            wheel = await asyncio.to_thread(self._kept, package, file)
            write_atomically(note, f"{wheel.digest}/{wheel.file.name}\n")
        return wheel

    def addressed(self, lock: str, interpreter: Interpreter, indexed: Collection[str] = ()) -> str:
        """Return a lock's text for uv: packages whose wheel is here by its file, all else as it is.

        Of the packages `indexed` the index has a wheel that the lock names: none that was built takes its place.
        """
        if not self._home.wheels.is_dir():
            return lock
        digest = Lock(lock).digest

        def with_address(found: re.Match[str]) -> str:
            name, hashes = canonicalize_name(found["name"]), tuple(_HASH.findall(found["hashes"]))
            package = LockedPackage(name, found["version"], hashes=hashes)
            wheel = self.find(package, interpreter)
            if wheel is None and name not in indexed:
                _, wheel = self.built(package, digest, interpreter)
            if wheel is None:
                return found[0]
            # Of a file uv takes no other hash than its own.
            return f"{found['name']} @ {wheel.address}{found['marker'] or ''} --hash=sha256:{wheel.digest}"

        return _LINE.sub(with_address, lock)

    def find(self, package: LockedPackage, interpreter: Interpreter) -> LocalWheel | None:
        """Return the best wheel that is here of those that a lock names itself."""
        files = (file for digest in package.hashes for file in (self._home.wheels / digest).glob("*.whl"))
        return _best(files, package, interpreter)

    def built(self, package: LockedPackage, lock: str, interpreter: Interpreter) -> tuple[str, LocalWheel | None]:
        """Return a wheel that came with a lock (its digest), and the source archive named there that it was built from.

        The lock does not name this wheel: one that it names goes before, here or on the index.
        """
        for source in package.hashes:
            with contextlib.suppress(FileNotFoundError):
                note = self.note_of_source(source, lock, interpreter).read_text(encoding="utf-8")
                wheel = _best([self._home.wheels / note.strip()], package, interpreter)
                if wheel is not None:
                    return source, wheel
        return "", None

    def only_built(self, lock: Lock, interpreter: Interpreter) -> list[LockedPackage]:
        """Return the packages of a lock of which a built wheel is here, and none that the lock names."""
        if not (self._home.wheels / "by-source").is_dir():
            return []
        return [
            package
            for package in lock.packages_for(interpreter.markers)
            if self.find(package, interpreter) is None and self.built(package, lock.digest, interpreter)[1]
        ]

    def note_of_source(self, source: str, lock: str, interpreter: Interpreter) -> Path:
        """File that says which wheel a lock's bundle had for a source archive that the lock names."""
        return self._home.wheels / "by-source" / f"{source}-{lock}-{interpreter.tag}"

    def note_of_content(self, content: str, interpreter: Interpreter, lock: str = "") -> Path:
        """File that says which wheel the content of a local package was built to, here or for the bundle of a lock."""
        scope = f"{content}-{lock}" if lock else content
        return self._home.wheels / "by-content" / f"{scope}-{interpreter.tag}"

    async def from_source(self, archive: Path, interpreter: Interpreter, folder: Path) -> Path:
        """Build the wheel of a source archive of an index. Raises PackageBuildFailed with its last words."""
        run = await self._uv.run(
            "build", "--wheel", "--python", interpreter.path, "--out-dir", folder, archive,
            extra=_SAME_BYTES,
        )  # fmt: skip
        if run.code != 0:
            raise failure(run.stderr, f"Building a wheel of `{archive.name}`")
        return _only_wheel(folder)

    def _noted(self, note: Path) -> LocalWheel | None:
        try:
            file = self._home.wheels / note.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        return _wheel(file, file.parent.name) if touched(file) else None

    async def _made(self, package: Path, interpreter: Interpreter, folder: Path) -> Path:
        if package.name.endswith(".whl"):
            return package
        source, out = folder / "source", folder / "out"
        if not await asyncio.to_thread(_copy, package, source):
            source = package
        python: tuple[str | Path, ...] = ("--python", interpreter.path)
        run = await self._uv.run(
            "build", "--wheel", "--no-config", *python, "--out-dir", out, source, extra=_SAME_BYTES
        )
        if run.code != 0:
            text = run.stderr.replace(str(source), str(package))
            raise failure(text, f"Building the local package `{package}`", otherwise=LocalPackageFailed)
        return _only_wheel(out)

    def _kept(self, package: Path, file: Path) -> LocalWheel:
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        place = self._home.wheels / digest / file.name
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            fresh = place.with_name(f".{file.name}.{os.getpid()}")
            fresh.write_bytes(data)
            fresh.replace(place)
        try:
            return _wheel(place, digest)
        except InvalidWheelFilename as error:
            raise LocalPackageFailed(f"`{package}` is no wheel: {error}") from None


def rank_of(filename: str, interpreter: Interpreter) -> int | None:
    """Return how well a wheel fits an interpreter of this machine (the smallest is best), or None if it does not."""
    try:
        tags = parse_wheel_filename(filename)[3]
    except InvalidWheelFilename:
        return None
    return min((rank for tag in tags if (rank := interpreter.supported.get(tag)) is not None), default=None)


def lock_of_note(name: str) -> str:
    """Return the digest of the lock that a note counts for, by the note's name; empty where it counts for all."""
    found = _LOCK_OF_NOTE.fullmatch(name)
    return found[1] if found else ""


def is_wheel_for(file: Path, interpreter: Interpreter) -> bool:
    """Whether the bytes of a file are those of a wheel that fits an interpreter, whatever the file's name says."""
    try:
        with zipfile.ZipFile(file) as archive:
            (place,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/WHEEL", name))
            with archive.open(place) as stream:
                text = stream.read(_WHEEL_BYTES).decode()
    except Exception:  # what zipfile raises for bytes that are no archive has no end
        return False
    return any(tag in interpreter.supported for line in text.splitlines() for tag in _tags(line))


def _tags(line: str) -> frozenset[Tag]:
    key, _, value = line.partition(":")
    return parse_tag(value.strip()) if key == "Tag" and value.count("-") == 2 else frozenset()


def _best(files: Iterable[Path], package: LockedPackage, interpreter: Interpreter) -> LocalWheel | None:
    """Return the wheel of a package that fits best, by its name; what a folder of wheels holds may be any package's."""
    found = [(rank, file) for file in files if (rank := rank_of(file.name, interpreter)) is not None and file.is_file()]
    wheels = (_wheel(file, file.parent.name) for _, file in sorted(found))
    version = Version(package.version)
    return next((each for each in wheels if (each.name, Version(each.version)) == (package.name, version)), None)


def _only_wheel(folder: Path) -> Path:
    return next(folder.glob("*.whl"))


def _wheel(file: Path, digest: str) -> LocalWheel:
    name, version, _, _ = parse_wheel_filename(file.name)
    return LocalWheel(canonicalize_name(name), str(version), file, digest)


def content_digest(package: Path) -> str:
    """Return a digest of what a local package is built from: names and contents of its files. Raises OSError.

    Hidden folders, caches, virtual environments and what builds leave behind (`build/`, `dist/`, `*.egg-info`) are
    no part of it. Raises LocalPackageFailed for more than 5000 files.
    """
    total = hashlib.sha256()
    if package.is_file():
        return hashlib.sha256(package.read_bytes()).hexdigest()[:16]
    for relative in _files(package):
        content = hashlib.sha256((package / relative).read_bytes()).hexdigest()
        total.update(f"{content} {relative}\n".encode(errors="surrogateescape"))
    return total.hexdigest()[:16]


def _files(package: Path) -> list[str]:
    found = []
    for relative in _walk(package, ""):
        found.append(relative)
        if len(found) > MAX_FILES:
            raise LocalPackageFailed(
                f"the local package `{package}` has more than {MAX_FILES} files",
                hint="Give the package a folder of its own, without data and environments.",
            )
    return sorted(found)


def _walk(root: Path, prefix: str) -> Iterator[str]:
    entries = list(os.scandir(root / prefix if prefix else root))
    if prefix and any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if not (entry.name.startswith(".") or entry.name in _LEFT_OUT or entry.name.endswith(".egg-info")):
                yield from _walk(root, f"{prefix}{entry.name}/")
        elif entry.is_file() and not entry.name.endswith((".pyc", ".pyo")):
            yield prefix + entry.name


def _copy(package: Path, target: Path) -> bool:
    """Copy a package's folder, because some builds write into it; False for a file."""
    if not package.is_dir():
        return False
    for relative in _files(package):
        place = target / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(package / relative, place)
    return True
