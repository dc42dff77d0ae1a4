"""The folders of frameworks: where manifests are, which files count, and whether any has changed.

A registered folder may be a whole repository. What does not belong to a framework (hidden folders, virtual
environments, packages of Node) is never walked, and of the rest a look stops at bounds.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

__all__ = ["MANIFEST_FILE", "Look", "adapter_files", "look_at", "manifest_folders"]

MANIFEST_FILE = "framework.toml"

_FOREIGN = frozenset({"__pycache__", "node_modules"})
_FOR_READERS = frozenset({"samples", "examples", "tests"})
# What a worker is never handed: locks are for the host, the rest is for readers.
_NOT_ADAPTER = _FOR_READERS | {"locks", "README.md"}
_CODE = (".py", ".toml")
_MOST_FOLDERS = 200
_MOST_ENTRIES = 1000
"""Entries of one folder below the first that a look sees."""
_MOST_BELOW = 5000
"""Entries of all folders below the first that a look sees."""
_MOST_DATA = 50
"""Files of one folder, beside code, that a look asks for their times."""
_MOST_FILES = 2000
"""Files that a look asks for their times."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a folder: as long as the stamp is the same, so is what counts of the folder."""

    stamp: tuple[object, ...]
    entries: int
    """How many there were to look at."""


def manifest_folders(place: Path) -> list[Path]:
    """Return the folders with a manifest: this one, or those in it; this one too if there are none at all."""
    if _has_manifest(place):
        return [place]
    try:
        folders = [Path(each.path) for each in _entries(place) if each.is_dir()]
    except OSError:
        folders = []
    # A folder without any manifest is reported by load_manifest.
    return sorted(each for each in folders if _has_manifest(each)) or [place]


def look_at(place: Path) -> Look:
    """Look whether anything has changed of the frameworks in a place: manifests, code of adapters, locks.

    Of a folder with a great many files only the first ones are seen, code before data.
    """
    stamp: list[object] = []
    entries = 0
    for folder in manifest_folders(place):
        try:
            stamp.append(str(folder))
            asked = below = 0
            for number, found in enumerate(islice(_walk(folder, _FOR_READERS, _MOST_ENTRIES), _MOST_FOLDERS)):
                seen = list(_seen(found))
                stamp += [*seen, len(found)]
                asked, entries = asked + len(seen), entries + len(found) + 1
                below += len(found) if number else 0
                if asked > _MOST_FILES or below > _MOST_BELOW:
                    break
        except OSError:
            stamp.append(None)
    return Look(tuple(stamp), entries)


def adapter_files(folder: Path) -> tuple[PurePosixPath, ...]:
    """Return the files of an adapter that a worker gets, relative to its folder and sorted."""
    found = (Path(each.path) for files in _walk(folder, _NOT_ADAPTER) for each in files)
    return tuple(sorted(PurePosixPath(path.relative_to(folder)) for path in found))


def _has_manifest(folder: Path) -> bool:
    try:
        (folder / MANIFEST_FILE).stat()
    except OSError:
        return False
    return True


def _seen(files: list["os.DirEntry[str]"]) -> Iterator[tuple[str, int, int]]:
    files.sort(key=lambda each: (not each.name.endswith(_CODE), each.name))
    code = sum(each.name.endswith(_CODE) for each in files)
    for each in files[: min(code, _MOST_FILES) + _MOST_DATA]:
        status = each.stat()
        yield each.path, status.st_mtime_ns, status.st_size


def _walk(folder: Path, left_out: frozenset[str], most: int | None = None) -> Iterator[list["os.DirEntry[str]"]]:
    """Yield the files of each folder, from the top; of those below it with at `most` so many. Raises OSError."""
    waiting = [folder]
    for below in waiting:
        entries = [each for each in _entries(below, most if below != folder else None) if each.name not in left_out]
        yield [each for each in entries if each.is_file()]
        waiting += sorted(Path(each.path) for each in entries if each.is_dir() and _leads_down(each, below))


def _entries(folder: Path, most: int | None = None) -> list["os.DirEntry[str]"]:
    """Return what may belong to a framework of a folder; nothing of a virtual environment."""
    with os.scandir(folder) as found:
        entries = [each for each in islice(found, most) if not (each.name.startswith(".") or each.name in _FOREIGN)]
    if any(each.name == "pyvenv.cfg" for each in entries):
        return []
    return [each for each in entries if not each.name.endswith((".pyc", ".pyo"))]


def _leads_down(entry: "os.DirEntry[str]", below: Path) -> bool:
    """Whether a folder is no link to one that it is in."""
    return not (entry.is_symlink() and below.resolve().is_relative_to(Path(entry.path).resolve()))
