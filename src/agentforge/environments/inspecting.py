"""Whether a built environment is still what was built: its files against what its packages recorded of themselves.

An installer leaves in each package's `RECORD` (the binary distribution format's) the SHA-256 and size of every file.
A quick look asks the file system for each file and reads only those that were written after the environment was
finished; a thorough one reads all. Blocking: 50 ms to half a second, or as long as reading all files takes.
"""

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from agentforge.environments.environment import MARKER, Environment
from agentforge.environments.interpreters import Interpreter
from agentforge.environments.lock import Lock

__all__ = ["ODD", "Damage", "DamageKind", "Inspection", "inspect"]

ODD = "odd.json"
"""File of an environment with the paths that are not as recorded since it was built: some wheels are wrong."""

DamageKind = Literal["interpreter", "lock", "package", "missing", "changed", "added"]
_WORDS: dict[DamageKind, str] = {
    "interpreter": "its interpreter is gone",
    "lock": "its lock is not the one that it was built from",
    "package": "packages are not those of its lock",
    "missing": "files are missing",
    "changed": "files were changed",
    "added": "there is more in it than its lock says",
}
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was built."""

    kind: DamageKind
    place: str
    """Path below the environment's folder, or a package with its version."""
    package: str = ""
    """Name of the package that it concerns."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look at an environment's files found."""

    damages: tuple[Damage, ...]
    files: int
    """How many files its packages have."""
    duration_s: float

    @property
    def broken(self) -> tuple[Damage, ...]:
        """The damages that make it another environment than its lock says; what was added beside does not."""
        return tuple(each for each in self.damages if each.kind != "added")

    @property
    def problem(self) -> str:
        """What is wrong, in a sentence; empty where nothing is."""
        return "; ".join(_said(kind, self.damages) for kind in _WORDS if any(kind == d.kind for d in self.damages))


def _said(kind: DamageKind, damages: Sequence[Damage]) -> str:
    places = [f"`{_short(damage.place)}`" for damage in damages if damage.kind == kind]
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return f"{_WORDS[kind]} ({', '.join(places[:_SHOWN])}{more})"


def _short(place: str) -> str:
    return place.partition("site-packages/")[2] or place


def inspect(environment: Environment, *, every_file: bool = False) -> Inspection:
    """Look at an environment's files: all of them with `every_file`, else those that seem to have been touched."""
    started = time.monotonic()
    root = environment.path
    if not environment.python.exists():
        damages = [Damage("interpreter", "venv/bin/python")]
        return Inspection(tuple(damages), 0, time.monotonic() - started)
    recorded = _Recorded.read(environment)
    damages = [*_of_lock(environment, recorded)]
    odd = _odd(root)
    finished = _finished(root)
    for path, entries in recorded.files.items():
        kind = _of_file(path, entries, finished, every_file)
        if kind is not None:
            damages.append(Damage(kind, os.path.relpath(path, root), entries[0].package))
    if every_file:
        damages += [Damage("added", os.path.relpath(path, root)) for path in _added(recorded, finished)]
    found = tuple(damage for damage in damages if damage.place not in odd)
    return Inspection(found, len(recorded.files), time.monotonic() - started)


class _Entry(NamedTuple):
    """What one package recorded of a file; empty where it says nothing."""

    package: str
    digest: str
    size: str


@dataclass(slots=True)
class _Recorded:
    """The packages of an environment and what they recorded; a file may be of several of them."""

    packages: dict[str, str]
    files: dict[str, list[_Entry]]
    places: list[str]
    """The folders that packages are in."""
    unread: dict[str, str]
    """Records that are not there, by package."""

    @classmethod
    def read(cls, environment: Environment) -> "_Recorded":
        found = cls({}, {}, [], {})
        for place in sorted((environment.path / "venv" / "lib").glob("python*/site-packages")):
            found.places.append(str(place))
            for info in sorted(place.glob("*.dist-info")):
                found._read_package(str(place), info)
        return found

    def _read_package(self, place: str, info: Path) -> None:
        name, _, version = info.name.removesuffix(".dist-info").partition("-")
        name = canonicalize_name(name)
        self.packages[name] = version
        try:
            rows = list(csv.reader(io.StringIO((info / "RECORD").read_text("utf-8"))))
        except (OSError, UnicodeDecodeError, csv.Error):
            self.unread[name] = str(info / "RECORD")
            return
        # There are thousands of files: plain text and few calls.
        for row in rows:
            if len(row) >= 3 and not row[0].endswith(".pyc"):
                path = f"{place}/{row[0]}"
                if ".." in row[0] or "//" in path:
                    path = os.path.normpath(path)
                entry = _Entry(name, row[1], row[2])
                if path in self.files:
                    self.files[path].append(entry)
                else:
                    self.files[path] = [entry]


def _of_lock(environment: Environment, recorded: _Recorded) -> Iterator[Damage]:
    root = environment.path
    if not (root / "venv" / "pyvenv.cfg").is_file():
        yield Damage("missing", "venv/pyvenv.cfg")
    yield from (Damage("missing", os.path.relpath(path, root), name) for name, path in recorded.unread.items())
    try:
        lock = Lock((root / "lock.txt").read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        yield Damage("lock", "lock.txt")
        return
    if lock.digest != environment.lock_digest:
        yield Damage("lock", "lock.txt")
        return
    wanted = {each.name: each.version for each in lock.packages_for(_markers(environment))}
    for name, version in wanted.items():
        if not _same_version(recorded.packages.get(name), version):
            yield Damage("package", f"{name}=={version}", name)
    for name in sorted(recorded.packages.keys() - wanted.keys()):
        yield Damage("added", f"{name}=={recorded.packages[name]}")


def _markers(environment: Environment) -> Mapping[str, str]:
    return Interpreter(environment.python, environment.python_version).markers


def _same_version(found: str | None, wanted: str) -> bool:
    if found is None:
        return False
    try:
        return Version(found) == Version(wanted)
    except InvalidVersion:
        return found == wanted.replace("-", "_")


def _of_file(path: str, entries: Sequence[_Entry], finished: int, every_file: bool) -> DamageKind | None:
    try:
        found = os.stat(path)  # noqa: PTH116  thousands of them: as text
    except OSError:
        return "missing"
    if not (every_file or found.st_mtime_ns >= finished):
        return None
    if all(entry.size and entry.size != str(found.st_size) for entry in entries):
        return "changed"
    digests = {entry.digest for entry in entries}
    if "" in digests:
        return None  # a package does not record the digest of its record
    try:
        return None if not digests.isdisjoint(_digests(path, digests)) else "changed"
    except OSError:
        return "changed"


def _digests(path: str, wanted: set[str]) -> Iterator[str]:
    """Yield a file's digests, by each algorithm that is asked for."""
    for algorithm in {each.partition("=")[0] for each in wanted}:
        if algorithm in hashlib.algorithms_available:
            with open(path, "rb") as file:  # noqa: PTH123
                digest = hashlib.file_digest(file, algorithm).digest()
            yield f"{algorithm}={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        else:
            yield next(each for each in wanted if each.startswith(f"{algorithm}="))  # can't be told: as recorded


def _added(recorded: _Recorded, finished: int) -> Iterator[str]:
    """Yield the files that came after the environment was finished and are no package's."""
    for place in recorded.places:
        for folder, folders, names in os.walk(place):
            folders[:] = [each for each in folders if each != "__pycache__"]
            for name in names:
                path = os.path.join(folder, name)  # noqa: PTH118
                if path in recorded.files or name.endswith(".pyc"):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if os.lstat(path).st_mtime_ns >= finished:
                        yield path


def _finished(root: Path) -> int:
    """Return when the environment was finished; of one that is being built nothing is younger.

    A file system's clock ticks every few milliseconds: what is as old as the marker may have come after it.
    """
    try:
        return (root / MARKER).stat().st_mtime_ns
    except FileNotFoundError:
        return sys.maxsize


def _odd(root: Path) -> frozenset[str]:
    try:
        return frozenset(json.loads((root / ODD).read_bytes()))
    except (OSError, ValueError, TypeError):
        return frozenset()
