"""Garbage collection: environments, locks, wheels and staging folders that nobody needs.

What may go is decided while nobody can pin anything (`Home.keeping`), and set aside by a rename at once; it is
deleted after that. So two collections may run at the same time, and one that is killed leaves a staging folder, which
the next build or collection deletes.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agentforge.environments import claims
from agentforge.environments.building import standing
from agentforge.environments.environment import Environment
from agentforge.environments.home import Home
from agentforge.environments.needs import Needs
from agentforge.environments.wheels import lock_of_note

__all__ = ["Collected", "Collection", "Collector", "Freed", "Kept", "delete"]

YOUNG_S = 3600.0
"""What is younger stays, unless it is an environment: a lock or a wheel is there before the entry that names it."""
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
Kind = Literal["environment", "half-made", "staging", "lock", "wheel"]


@dataclass(frozen=True, slots=True)
class Collected:
    """One thing that goes."""

    kind: Kind
    name: str
    size_bytes: int
    """Disk blocks of its files."""
    freed_bytes: int
    """What of it really comes free: files that have no other name, in uv's cache or another environment."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An environment that stays."""

    name: str
    reason: str


@dataclass(slots=True)
class Collection:
    """What a garbage collection removed, or would remove."""

    dry_run: bool
    removed: list[Collected] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    """Projects that were taken off the register."""

    @property
    def freed_bytes(self) -> int:
        """Bytes that came free."""
        return sum(each.freed_bytes for each in self.removed)

    @property
    def size_bytes(self) -> int:
        """Bytes of all that went, whoever else has them too."""
        return sum(each.size_bytes for each in self.removed)


class Freed:
    """Counts disk blocks: those of a file come free with the last of its names."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], int] = {}

    def count(self, path: Path) -> tuple[int, int]:
        """Return (bytes of a file or folder, bytes of them that come free when it goes with all counted before)."""
        size = freed = 0
        for found in _stats(path):
            blocks = found.st_blocks * 512
            size += blocks
            inode = found.st_dev, found.st_ino
            names = self._names[inode] = self._names.get(inode, 0) + 1
            if _is_folder(found) or names == found.st_nlink:
                freed += blocks
        return size, freed


@dataclass(frozen=True, slots=True)
class _Doomed:
    kind: Kind
    name: str
    path: Path


class Collector:
    """One garbage collection below a data folder."""

    def __init__(self, home: Home, *, now: float, dry_run: bool, older_than_s: float) -> None:
        """`older_than_s`: what was built or used since then stays."""
        self._home = home
        self._now = now
        self._dry_run = dry_run
        self._older_than_s = older_than_s
        self._found = Collection(dry_run)
        self._doomed: list[_Doomed] = []

    def collect(self, needs: Callable[[], Needs], environments: Callable[[], Sequence[Environment]]) -> Collection:
        """Remove what nobody needs. `needs` and `environments` are asked while nothing can be pinned."""
        with contextlib.ExitStack() as held:
            with claims.alone(self._home.keeping):
                needed = needs()
                kept = self._environments(needed, environments(), held)
                self._half_made(held)
                self._staging(held)
                self._locks_and_wheels(needed, kept)
            self._delete()
        return self._found

    # ---- what goes

    def _environments(
        self, needed: Needs, built: Sequence[Environment], held: contextlib.ExitStack
    ) -> list[Environment]:
        """Set aside the environments that may go and return the others."""
        stay = []
        for environment in built:
            reason = self._reason_to_keep(environment, needed, held)
            if reason is None:
                self._set_aside("environment", environment.path)
            else:
                self._found.kept.append(Kept(environment.id, reason))
                stay.append(environment)
        return stay

    def _reason_to_keep(self, environment: Environment, needed: Needs, held: contextlib.ExitStack) -> str | None:
        users = needed.of(environment)
        if users:
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            return f"needed by {users[0].told}{more}"
        claim = self._home.claim(environment.id)
        used = max(environment.built_at, claims.last_used(claim))
        if self._older_than_s and self._now - used < self._older_than_s:
            return "built or used lately"
        if not held.enter_context(claims.removing(claim)):
            return "a process uses it"
        return None

    def _half_made(self, held: contextlib.ExitStack) -> None:
        """Set aside folders without a marker: what a process left that died while it put one into place."""
        for place in _entries(self._home.environments):
            if not place.is_dir() or standing(place) is not None:
                continue
            if held.enter_context(claims.removing(self._home.claim(place.name))):
                self._set_aside("half-made", place)

    def _staging(self, held: contextlib.ExitStack) -> None:
        """Doom what dead processes left in staging; a folder whose environment is claimed belongs to a living one."""
        mine = {each.path for each in self._doomed}
        free: dict[str, bool] = {}
        for folder in _entries(self._home.staging, hidden=True):
            id = folder.name.rpartition(".")[0] or folder.name
            if folder in mine:
                continue
            if id not in free:
                free[id] = held.enter_context(claims.removing(self._home.claim(id)))
            if free[id]:
                self._doomed.append(_Doomed("staging", folder.name, folder))

    def _locks_and_wheels(self, needed: Needs, kept: Iterable[Environment]) -> None:
        kept = list(kept)
        digests = needed.locks | {each.lock_digest for each in kept}
        texts = [*needed.texts, *(_text(each.path / "lock.txt") for each in kept)]
        for file in _entries(self._home.locks, hidden=True):
            if file.suffix == ".txt" and file.stem in digests:
                texts.append(_text(file))
            elif file.is_file() and self._is_old(file):
                self._doomed.append(_Doomed("lock", file.name, file))
        self._notes(self._home.locks / "by-input", lambda said: self._home.lock_text(said))
        hashes = {digest for text in texts for digest in _HASH.findall(text)}
        hashes |= self._built_from(hashes, digests)
        for folder in _entries(self._home.wheels, hidden=True):
            if not folder.name.startswith("by-") and folder.name not in hashes and self._is_old(folder):
                self._doomed.append(_Doomed("wheel", folder.name, folder))
        for name in ("by-content", "by-source"):
            self._notes(self._home.wheels / name, lambda said: (self._home.wheels / said).parent, digests)

    def _built_from(self, sources: set[str], locks: set[str]) -> set[str]:
        """Return the wheels that came with locks which are needed, for source archives that these name."""
        notes = [note for note in _entries(self._home.wheels / "by-source") if lock_of_note(note.name) in locks]
        return {_text(note).partition("/")[0] for note in notes if note.name.partition("-")[0] in sources}

    def _notes(self, folder: Path, target: Callable[[str], Path], locks: set[str] | None = None) -> None:
        """Doom the notes whose target goes, or is gone, and those that count for none of the locks."""
        going = {each.path for each in self._doomed}
        for note in _entries(folder, hidden=True):
            place, lock = target(_text(note).strip() or "-"), lock_of_note(note.name)
            lost = bool(locks is not None and lock and lock not in locks)
            if (lost or place in going or not place.exists()) and self._is_old(note):
                self._doomed.append(_Doomed("lock" if folder.name == "by-input" else "wheel", note.name, note))

    def _is_old(self, path: Path) -> bool:
        try:
            newest = max(found.st_mtime for found in _stats(path))
        except FileNotFoundError:
            return False  # another collection has it
        return self._now - newest >= max(YOUNG_S, self._older_than_s)

    # ---- how it goes

    def _set_aside(self, kind: Kind, place: Path) -> None:
        """Take something out of its place, so that nobody finds it there from now on."""
        if self._dry_run:
            self._doomed.append(_Doomed(kind, place.name, place))
            return
        aside = self._home.new_staging(place.name)
        self._home.staging.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            place.rename(aside)
            self._doomed.append(_Doomed(kind, place.name, aside))

    def _delete(self) -> None:
        freed = Freed()
        for each in self._doomed:
            with contextlib.suppress(FileNotFoundError):  # another collection has it
                size, free = freed.count(each.path)
                if not self._dry_run:
                    delete(each.path)
                self._found.removed.append(Collected(each.kind, each.name, size, free))


def delete(path: Path) -> None:
    """Delete a file or a folder. Raises OSError, unless it is gone."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        shutil.rmtree(path)  # says what is in the way


def _entries(folder: Path, *, hidden: bool = False) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if hidden or not each.name.startswith("."))
    except FileNotFoundError:
        return []


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _stats(path: Path) -> Iterator[os.stat_result]:
    found = path.lstat()
    yield found
    if _is_folder(found):
        with os.scandir(path) as entries:
            for entry in entries:
                yield from _stats(Path(entry.path))


def _is_folder(found: os.stat_result) -> bool:
    return stat.S_ISDIR(found.st_mode)
