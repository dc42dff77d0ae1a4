"""Read a file that a user wrote as text, with the errors of a missing or unreadable one."""

import difflib
import errno
import os
import stat
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from agentforge.config.source import Mark, Place, Problem, fault
from agentforge.errors.config import FileMissingError, FileSyntaxError

__all__ = ["FileVersion", "file_version", "missing_file", "read_text", "version_of"]

MAX_BYTES = 1024 * 1024
_MOST_NAMES = 1000
SETTLED_NS = 50_000_000
"""A file changed less than this ago may change again without its times moving on: clocks of file systems tick."""

FileVersion = tuple[int, ...]


def file_version(path: Path, clock: Callable[[], int] = time.time_ns) -> FileVersion:
    """Return what tells a file's present content from an earlier one, without reading it: the key of caches.

    A file that has only just changed gets a new version each time.
    """
    return version_of(path.stat(), clock)


def version_of(status: os.stat_result, clock: Callable[[], int] = time.time_ns) -> FileVersion:
    """Return the version that a stat result stands for; see `file_version`."""
    version = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
    now = clock()
    return (*version, now) if now - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED_NS else version


def read_text(path: Path, most_bytes: int = MAX_BYTES) -> str:
    """Return the text of a regular UTF-8 file. Raises FileMissingError or FileSyntaxError."""
    try:
        data, size = _read(path, most_bytes)
    except FileNotFoundError:
        raise missing_file(path) from None
    except OSError as error:
        hint = "Give the path of a file that you may read."
        raise FileMissingError(f"`{path}` can't be read: {error.strerror}", hint=hint, file=str(path)) from None
    if len(data) > most_bytes:
        statement = f"the file has {size} bytes; at most {most_bytes} are read"
        hint = "Keep data in files of its own."
        raise fault([Problem(FileSyntaxError, Place(str(path)), "", statement, hint)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        place = Place(str(path), Mark(before.count(b"\n") + 1, error.start - before.rfind(b"\n")))
        statement = f"the byte `0x{data[error.start]:02x}` is not UTF-8"
        raise fault([Problem(FileSyntaxError, place, "", statement, "Save the file as UTF-8.")]) from None


def _read(path: Path, most_bytes: int) -> tuple[bytes, int]:
    """Return a regular file's first bytes, more than are taken if there are, and its size. Raises OSError."""
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe that nobody writes to opens, too
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            kind = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
            raise OSError(kind, os.strerror(kind) if kind == errno.EISDIR else "it is not a regular file")
        with open(opened, "rb", closefd=False) as file:
            data = file.read(most_bytes + 1)
    finally:
        os.close(opened)
    return data, max(status.st_size, len(data))


def missing_file(path: Path) -> FileMissingError:
    """Return the error for a file that is not there; the hint names near ones."""
    folder = path.parent
    if not folder.is_dir():
        return FileMissingError(f"`{path}` does not exist, nor does its folder", hint="Check the path.", file=str(path))
    try:
        names = sorted(each.name for each in islice(folder.iterdir(), _MOST_NAMES) if each.is_file() or each.is_dir())
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    near = near or [name for name in names if path.suffix and name.endswith(path.suffix)][:5]
    hint = "The folder has " + ", ".join(f"`{name}`" for name in near) + "." if near else "Check the path."
    return FileMissingError(f"`{path}` does not exist", hint=hint, file=str(path))
