"""The project's `agentforge.lock`: which environments the project uses, written so that others get the same.

Each entry is one generation of what a request (`langchain`, `langchain@1`, `tools`) means here; one generation of
a request is active. The text of a lock is kept inline unless AgentForge ships it.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from agentforge.config.source import Place, shown
from agentforge.config.toml_source import parse_toml
from agentforge.environments.additions import asked
from agentforge.environments.home import CLOSED, write_atomically
from agentforge.errors.config import ConfigError
from agentforge.errors.environments import PinMoved, ProjectLockInvalid, ProjectNotWritable
from agentforge.errors.frameworks import ReferenceInvalid
from agentforge.frameworks import Reference

__all__ = ["LOCK_FILE", "TOOLS", "LockEntry", "ProjectLock"]

LOCK_FILE = "agentforge.lock"
TOOLS = "tools"
"""Request and framework of the entries of tool environments."""
_VERSION = 1
_HEAD = "# Written by AgentForge: the environments of this project. Commit it; `agentforge env` changes it.\n"


@dataclass(frozen=True, slots=True)
class LockEntry:
    """One generation of what a request means in this project."""

    request: str
    """As the agent or the project wrote it: `langchain`, `langchain@1`, `tools`."""
    framework: str
    """Framework's name, or `tools`."""
    release: str
    """Exact version; empty for tools."""
    python: str
    """Range of Python versions that the lock serves (`lock.python or release.python`); for tools the series."""
    lock: str
    """Digest of the lock."""
    requirements: tuple[str, ...] = ()
    """Extra packages that the request came with; part of its identity."""
    text: str = ""
    """The lock itself; empty: AgentForge ships it with the release (or there is nothing to install)."""
    generation: int = 0
    """Place in the request's history; given by `pin`."""
    active: bool = True

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """What `pinned` looks for."""
        return self.request, asked(self.requirements)

    @property
    def pythons(self) -> str:
        """Range of Python versions, for tools too."""
        return f"=={self.python}.*" if self.framework == TOOLS else self.python


class ProjectLock:
    """The file as values. Changes stay in memory until `save`; the project's host is its only writer."""

    def __init__(self, path: Path, entries: Iterable[LockEntry] = ()) -> None:
        self.path = path
        self._entries = list(entries)

    @classmethod
    def load(cls, path: Path) -> "ProjectLock":
        """Read the file; a missing one is an empty lock. Raises ProjectLockInvalid."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return cls(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ProjectLockInvalid(f"`{path}` can't be read: {error}") from None
        return cls(path, _File(path, text).entries())

    @property
    def entries(self) -> tuple[LockEntry, ...]:
        """All generations, in the order of the file."""
        return tuple(sorted(self._entries, key=lambda e: (*e.key, e.generation)))

    def pinned(self, request: str, requirements: Iterable[str] = ()) -> LockEntry | None:
        """Return the active generation of a request, or None."""
        return next((e for e in self.generations(request, requirements) if e.active), None)

    def generations(self, request: str, requirements: Iterable[str] = ()) -> tuple[LockEntry, ...]:
        """Return all generations of a request, oldest first."""
        key = request, asked(requirements)
        return tuple(e for e in self.entries if e.key == key)

    def pin(self, entry: LockEntry) -> LockEntry:
        """Make an entry the active generation of its request: a new one, unless the active one says the same."""
        current = self.pinned(entry.request, entry.requirements)
        if current is not None and replace(entry, generation=current.generation, active=True) == current:
            return current
        history = self.generations(entry.request, entry.requirements)
        if current is not None and set(current.requirements) != set(entry.requirements):
            # The content of a local package: each edit would be one more generation of a lock that is text in here.
            self._entries.remove(current)
            history = tuple(each for each in history if each != current)
        added = replace(
            entry,
            requirements=tuple(sorted(entry.requirements)),
            generation=max((each.generation for each in history), default=0) + 1,
        )
        self._entries.append(added)
        return self.activate(added)

    def activate(self, entry: LockEntry) -> LockEntry:
        """Make a generation that is already here the active one of its request, and return it. Raises PinMoved."""
        chosen = next((e for e in self._entries if replace(e, active=entry.active) == entry), None)
        if chosen is None:
            raise PinMoved(f"`{entry.request}` has no such generation {entry.generation} any more")
        self._entries = [replace(e, active=e is chosen) if e.key == entry.key else e for e in self._entries]
        return replace(entry, active=True)

    def keep_text(self, entry: LockEntry, text: str) -> None:
        """Keep the text of a generation's lock here: nobody ships it any more."""
        self._entries = [replace(e, text=text) if e == entry else e for e in self._entries]

    def save(self) -> None:
        """Write the file: the same entries give the same bytes, and readers never see half of it.

        Raises ProjectNotWritable.
        """
        tables = [_table(entry) for entry in self.entries]
        text = tomli_w.dumps({"version": _VERSION, "environment": tables}, multiline_strings=True)
        try:
            write_atomically(self.path, _HEAD + text)
        except OSError as error:
            if error.errno in CLOSED:
                raise ProjectNotWritable(f"`{self.path}` can't be written: {error.strerror}") from error
            raise


def _table(entry: LockEntry) -> dict[str, Any]:
    table = asdict(entry)
    table["requirements"] = list(entry.requirements)
    for key in ("requirements", "text"):
        if not table[key]:
            del table[key]
    if table["active"]:
        del table["active"]
    return table


_TYPES: dict[str, type] = {
    "request": str,
    "framework": str,
    "release": str,
    "python": str,
    "lock": str,
    "requirements": list,
    "text": str,
    "generation": int,
    "active": bool,
}
_REQUIRED = ("request", "framework", "release", "python", "lock", "generation")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SERIES = re.compile(r"[0-9]+(\.[0-9]+)*")
_MERGED = "Two branches that changed the request and were merged leave it so. "


class _File:
    """The text of a lock. Somebody may have edited or merged it: what can't be is refused with its place."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text

    def entries(self) -> list[LockEntry]:
        """Return the entries in their order. Raises ProjectLockInvalid."""
        table = self._table()
        version = table.get("version")
        if version != _VERSION:
            newer = isinstance(version, int) and version > _VERSION
            raise ProjectLockInvalid(
                f"`{self._path}` has version `{version}`, this AgentForge reads {_VERSION}",
                hint="A newer AgentForge wrote it: update this one." if newer else None,
            )
        found = table.get("environment", [])
        if not isinstance(found, list):
            raise ProjectLockInvalid(f"`{self._path}`: `environment` must be an array of tables")
        entries = [self._entry(number, item) for number, item in enumerate(found)]
        self._check_histories(entries)
        return entries

    def _table(self) -> Mapping[str, Any]:
        try:
            return tomllib.loads(self._text)
        except (ValueError, RecursionError) as error:  # ValueError: also a number with too many digits
            raise ProjectLockInvalid(f"`{self._path}` is not TOML: {error}") from None

    def _entry(self, number: int, item: Any) -> LockEntry:
        if not isinstance(item, dict):
            raise self._fault(number, "", "it is not a table")
        for key, value in item.items():
            if key not in _TYPES:
                raise self._fault(number, key, f"unknown key `{key}`")
            if type(value) is not _TYPES[key]:
                raise self._fault(number, key, f"`{key}` is `{shown(value)}`, which is not a {_TYPES[key].__name__}")
        missing = [key for key in _REQUIRED if key not in item]
        if missing:
            raise self._fault(number, "", f"`{missing[0]}` is missing")
        lines = item.get("requirements", [])
        if not all(isinstance(line, str) for line in lines):
            raise self._fault(number, "requirements", f"`requirements` is `{shown(lines)}`, which are not all text")
        entry = LockEntry(**{**item, "requirements": tuple(lines)})
        for key, reason in _problems(entry).items():
            raise self._fault(number, key, f"`{key}` is `{shown(item[key])}`, {reason}")
        return entry

    def _check_histories(self, entries: list[LockEntry]) -> None:
        """Refuse two entries of one generation, and two active ones of one request."""
        generations: dict[object, int] = {}
        active: dict[object, int] = {}
        for number, entry in enumerate(entries):
            other = generations.setdefault((entry.key, entry.generation), number)
            if other != number:
                what = f"`{entry.request}` has generation {entry.generation} twice, here and in environment {other + 1}"
                hint = "Remove one of the two; of the request's other entries one may be without `active = false`."
                raise self._fault(number, "", what, _MERGED + hint)
        for number, entry in enumerate(entries):
            other = active.setdefault(entry.key, number) if entry.active else number
            if other != number:
                what = f"`{entry.request}` has two active generations, this one and environment {other + 1}"
                raise self._fault(number, "", what, _MERGED + "Write `active = false` into one of the two.")

    def _fault(self, number: int, key: str, statement: str, hint: str | None = None) -> ProjectLockInvalid:
        place = self._place(number, key)
        at = {"line": place.mark.line, "column": place.mark.column} if place.mark else {}
        told = f"`{place}`, environment {number + 1}: {statement}"
        return ProjectLockInvalid(told, hint=hint, file=place.file, key=key, **at)

    def _place(self, number: int, key: str) -> Place:
        try:
            source = parse_toml(self._text, str(self._path))
        except ConfigError:  # it is flatter and shorter than this lets pass; the number of the entry has to do
            return Place(str(self._path))
        return source.key_place(("environment", number, key) if key else ("environment", number))


def _problems(entry: LockEntry) -> dict[str, str]:
    """Return what can't be of an entry: the keys, and why not."""
    found = _problems_of_tools(entry) if TOOLS in (entry.framework, entry.request) else _problems_of_release(entry)
    if not _DIGEST.fullmatch(entry.lock):
        found["lock"] = "which is not the digest of a lock (64 hex digits)"
    if entry.generation < 1:
        found["generation"] = "but generations are counted from 1"
    return found


def _problems_of_tools(entry: LockEntry) -> dict[str, str]:
    found = {}
    if entry.request != entry.framework:
        found["request"] = f"but `framework` is `{entry.framework}`: of tools both are `{TOOLS}`"
    if entry.release:
        found["release"] = "but tools have none: it must be empty"
    if not _SERIES.fullmatch(entry.python):
        found["python"] = "which is not a series of Python, as tools have it (`3.11`)"
    return found


def _problems_of_release(entry: LockEntry) -> dict[str, str]:
    found = {}
    if not _reads(SpecifierSet, entry.python):
        found["python"] = "which is not a range of Python versions (`>=3.10,<3.14`)"
    try:
        wanted = Reference.parse(entry.request)
    except ReferenceInvalid:
        return {**found, "request": "which is not a reference to a framework"}
    if wanted.name != entry.framework:
        found["framework"] = f"but `request` is `{entry.request}`"
    if not _reads(Version, entry.release):
        found["release"] = "which is not a version"
    elif not _reads(wanted.admits, entry.release) or not wanted.admits(entry.release):
        found["release"] = f"which the request `{entry.request}` does not admit"
    return found


def _reads(read: Callable[[str], object], text: str) -> bool:
    """Whether a text can be read as what it should be."""
    try:
        read(text)
    except ValueError:
        return False
    return True
