"""Read a file that a user wrote as text, with the errors of a missing or unreadable one."""

import difflib
import os
import time
from collections.abc import Callable
from pathlib import Path

from agentforge.config.source import Mark, Place, Problem, fault
from agentforge.errors.config import FileMissingError, FileSyntaxError

__all__ = ["FileVersion", "file_version", "missing_file", "read_text", "version_of"]

MAX_BYTES = 1024 * 1024
SETTLED_NS = 50_000_000
"""A file changed less than this ago may change again without its times moving on: clocks of file systems tick."""

FileVersion = tuple[int, ...]


def file_version(path: Path, clock: Callable[[], int] = time.time_ns) -> FileVersion:
    """Return what tells a file's present content from an earlier one, without reading it: the key of caches.

    A file that has only just changed gets a new version each time.
    """
    return version_of(path.stat(), clock)


def version_of(stat: os.stat_result, clock: Callable[[], int] = time.time_ns) -> FileVersion:
    """Return the version that a stat result stands for; see `file_version`."""
    version = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev)
    now = clock()
    return (*version, now) if now - max(stat.st_mtime_ns, stat.st_ctime_ns) < SETTLED_NS else version


def read_text(path: Path) -> str:
    """Return a UTF-8 file's text. Raises FileMissingError or FileSyntaxError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise missing_file(path) from None
    except OSError as error:
        hint = "Give the path of a file that you may read."
        raise FileMissingError(f"`{path}` can't be read: {error.strerror}", hint=hint, file=str(path)) from None
    if len(data) > MAX_BYTES:
        statement = f"the file has {len(data)} bytes; at most {MAX_BYTES} are read"
        hint = "Keep data in files of its own."
        raise fault([Problem(FileSyntaxError, Place(str(path)), "", statement, hint)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = Place(str(path), Mark(before.count(b"\n") + 1, error.start - before.rfind(b"\n")))
        statement = f"the byte `0x{data[error.start]:02x}` is not UTF-8"
        raise fault([Problem(FileSyntaxError, place, "", statement, "Save the file as UTF-8.")]) from None


def missing_file(path: Path) -> FileMissingError:
    """Return the error for a file that is not there; the hint names near ones."""
    folder = path.parent
    if not folder.is_dir():
        return FileMissingError(f"`{path}` does not exist, nor does its folder", hint="Check the path.", file=str(path))
    names = sorted(each.name for each in folder.iterdir() if each.is_file() or each.is_dir())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    near = near or [name for name in names if path.suffix and name.endswith(path.suffix)][:5]
    hint = "The folder has " + ", ".join(f"`{name}`" for name in near) + "." if near else "Check the path."
    return FileMissingError(f"`{path}` does not exist", hint=hint, file=str(path))
