"""Wheels of local packages: built from a folder once for each content of it, and kept by their own digest.

A lock names such a package like any other, by version and hash; what was installed from it stays what it was when
the folder changes, and a changed folder gives another wheel.
"""

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from agentforge.environments.home import Home, storage_errors, touched, write_atomically
from agentforge.environments.interpreters import Interpreter
from agentforge.environments.uv import Uv, failure
from agentforge.errors.environments import LocalPackageFailed

__all__ = ["LocalWheel", "Wheels", "content_digest", "rank_of"]

MAX_FILES = 5000
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "build", "dist"})
_LINE = re.compile(
    r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;]+)(?P<marker>\s*;[^\n\\]*)?(?P<hashes>(?:\s*\\\n\s+--hash=\S+)+)",
    re.MULTILINE,
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
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
    """The wheels below the data folder: `wheels/<digest>/<file>`, and `wheels/by-content/<content>-<python>`."""

    def __init__(self, home: Home, uv: Uv) -> None:
        self._home, self._uv = home, uv

    async def build(self, package: Path, content: str, interpreter: Interpreter) -> LocalWheel:
        """Return the wheel of a package (a folder, a source archive, a wheel) for a Python; built unless it was.

        `content` is its `content_digest`. Raises LocalPackageFailed with what the build said.
        """
        note = self.note_of_content(content, interpreter)
        known = await asyncio.to_thread(self._noted, note)
        if known is not None:
            return known
        with storage_errors(self._home.path), tempfile.TemporaryDirectory(prefix="agentforge-wheel-") as folder:
            file = await self._made(package, interpreter, Path(folder))
            wheel = await asyncio.to_thread(self._kept, package, file)
            write_atomically(note, f"{wheel.digest}/{wheel.file.name}\n")
        return wheel

    def addressed(self, lock: str, interpreter: Interpreter) -> str:
        """Return a lock's text for uv: packages whose wheel is here by its file, all else as it is."""
        if not self._home.wheels.is_dir():
            return lock

        def with_address(found: re.Match[str]) -> str:
            wheel = self.find(_HASH.findall(found["hashes"]), interpreter)
            if wheel is None:
                return found[0]
            # Of a file uv takes no other hash than its own.
            return f"{found['name']} @ {wheel.address}{found['marker'] or ''} --hash=sha256:{wheel.digest}"

        return _LINE.sub(with_address, lock)

    def find(self, hashes: Sequence[str], interpreter: Interpreter) -> LocalWheel | None:
        """Return the best wheel that is here of those that a lock names: itself, or built from the archive it names."""
        found = []
        for digest in hashes:
            files = [*(self._home.wheels / digest).glob("*.whl")]
            note = self.note_of_source(digest, interpreter)
            if note.is_file():
                files.append(self._home.wheels / note.read_text(encoding="utf-8").strip())
            found += [(rank, file) for file in files if (rank := rank_of(file.name, interpreter)) is not None]
        known = sorted((rank, file) for rank, file in found if file.is_file())
        return _wheel(known[0][1], known[0][1].parent.name) if known else None

    def note_of_source(self, digest: str, interpreter: Interpreter) -> Path:
        """File that says which wheel a source archive was built to."""
        return self._home.wheels / "by-source" / f"{digest}-{interpreter.tag}"

    def note_of_content(self, content: str, interpreter: Interpreter) -> Path:
        """File that says which wheel the content of a local package was built to."""
        return self._home.wheels / "by-content" / f"{content}-{interpreter.tag}"

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
