"""The project's `agentforge.lock`: which environments the project uses, written so that others get the same.

Each entry is one generation of what a request (`langchain`, `langchain@1`, `tools`) means here; one generation of
a request is active. The text of a lock is kept inline unless AgentForge ships it.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from agentforge.environments.additions import asked
from agentforge.environments.home import write_atomically
from agentforge.errors.environments import ProjectLockInvalid

__all__ = ["LOCK_FILE", "LockEntry", "ProjectLock"]

LOCK_FILE = "agentforge.lock"
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
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ProjectLockInvalid(f"`{path}` is not TOML: {error}") from None
        return cls(path, _entries(path, table))

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
        """Make a generation that is already here the active one of its request, and return it."""
        self._entries = [
            replace(e, active=e.generation == entry.generation) if e.key == entry.key else e for e in self._entries
        ]
        return replace(entry, active=True)

    def keep_text(self, entry: LockEntry, text: str) -> None:
        """Keep the text of a generation's lock here: nobody ships it any more."""
        self._entries = [replace(e, text=text) if e == entry else e for e in self._entries]

    def save(self) -> None:
        """Write the file: the same entries give the same bytes, and readers never see half of it."""
        tables = [_table(entry) for entry in self.entries]
        text = tomli_w.dumps({"version": _VERSION, "environment": tables}, multiline_strings=True)
        write_atomically(self.path, _HEAD + text)


def _table(entry: LockEntry) -> dict[str, Any]:
    table = asdict(entry)
    table["requirements"] = list(entry.requirements)
    for key in ("requirements", "text"):
        if not table[key]:
            del table[key]
    if table["active"]:
        del table["active"]
    return table


def _entries(path: Path, table: dict[str, Any]) -> list[LockEntry]:
    version = table.get("version")
    if version != _VERSION:
        newer = isinstance(version, int) and version > _VERSION
        raise ProjectLockInvalid(
            f"`{path}` has version `{version}`, this AgentForge reads {_VERSION}",
            hint="A newer AgentForge wrote it: update this one." if newer else None,
        )
    found = table.get("environment", [])
    if not isinstance(found, list):
        raise ProjectLockInvalid(f"`{path}`: `environment` must be an array of tables")
    entries = [_entry(path, number, item) for number, item in enumerate(found)]
    active = [e.key for e in entries if e.active]
    if len(active) != len(set(active)):
        raise ProjectLockInvalid(f"`{path}` has two active generations of one request")
    return entries


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


def _entry(path: Path, number: int, item: Any) -> LockEntry:
    place = f"`{path}`, environment {number + 1}"
    if not isinstance(item, dict):
        raise ProjectLockInvalid(f"{place} is not a table")
    for key, value in item.items():
        if key not in _TYPES:
            raise ProjectLockInvalid(f"{place}: unknown key `{key}`")
        if not isinstance(value, _TYPES[key]):
            raise ProjectLockInvalid(f"{place}: `{key}` is `{value}`, which is not a {_TYPES[key].__name__}")
    missing = [key for key in _REQUIRED if key not in item]
    if missing:
        raise ProjectLockInvalid(f"{place}: `{missing[0]}` is missing")
    return LockEntry(**{**item, "requirements": tuple(item.get("requirements", ()))})
