"""A disk whose power can go at any moment: everything written is recorded, and any outcome of a crash can be made.

`Disk.record` notes what Python does to files below a folder (`os.open`, `os.mkdir`, `os.replace`, `os.unlink`,
`os.fsync`), and `RecordedDatabase` runs the store's own statements on SQLite's code with a VFS (through apsw) that
notes every write and sync. `Disk.after_crash` then makes the folder as the disk may hold it when the power goes after
any step: what was synced is there, and of everything else whatever subset the caller chooses. The rules:

- A file's content is safe up to its last sync; of later writes any sectors of 512 bytes may be there, or none.
- A name (made, renamed, deleted) is safe once its folder was synced; before that the old or the new state is there.
- SQLite syncs the folder itself with the first sync of a journal or log that it made (os_unix.c,
  `UNIXFILE_DIRSYNC`; seen with strace too), which is below the level of a VFS and added here.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from threading import Lock
from typing import NamedTuple

import apsw
import pytest

from agentforge.store.sqlite import SqliteDatabase

SECTOR = 512
FOLDER = -1
"""In the place of a file's number: the name is a folder's."""


class Step(NamedTuple):
    """What happened: `make`, `rename`, `delete`, `write`, `truncate`, `sync`, `sync_folder` or `mark`."""

    kind: str
    name: str = ""
    file: int = 0
    offset: int = 0
    data: bytes = b""
    other: str = ""
    value: object = None


@dataclass
class _File:
    safe: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list)

    def sync(self) -> None:
        for step in self.pending:
            _apply(self.safe, step, lambda: True)
        self.pending.clear()


def _apply(content: bytearray, step: Step, keep: Callable[[], bool]) -> None:
    if step.kind == "truncate":
        if keep():
            del content[step.offset :]
        return
    for start in range(0, len(step.data), SECTOR):
        if keep():
            piece, at = step.data[start : start + SECTOR], step.offset + start
            content.extend(bytes(max(0, at - len(content))))
            content[at : at + len(piece)] = piece


class Disk:
    """The steps below `root`, in order. `root.parent` was safe before the first one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.steps: list[Step] = []
        self._lock = Lock()
        self._files: dict[str, int] = {}
        self._numbers = count(1)

    def mark(self, value: object) -> None:
        """Note that something was reported as done."""
        self.note(Step("mark", value=value))

    def note(self, step: Step) -> None:
        with self._lock:
            self.steps.append(step)

    def number(self, name: str) -> int:
        """Return the number of the file that has this name now, a new one if there is none."""
        if name not in self._files:
            self._files[name] = next(self._numbers)
            self.note(Step("make", name, self._files[name]))
        return self._files[name]

    def delete(self, name: str) -> None:
        if self._files.pop(name, None):
            self.note(Step("delete", name))

    # What Python does to files

    @contextmanager
    def record(self) -> Iterator[None]:
        """Record until the end of the block."""
        real = {name: getattr(os, name) for name in ("open", "mkdir", "replace", "unlink", "fsync")}

        def open_(path, flags, *rest, **named):
            descriptor = real["open"](path, flags, *rest, **named)
            if flags & os.O_CREAT and self._ours(path):
                self.number(os.fspath(path))
            return descriptor

        def mkdir(path, *rest, **named):
            real["mkdir"](path, *rest, **named)
            if self._ours(path):
                self.note(Step("make", os.fspath(path), FOLDER))

        def replace(old, new, **named):
            if self._ours(old):
                self._content(os.fspath(old))
                self._files[os.fspath(new)] = self._files.pop(os.fspath(old))
                self.note(Step("rename", os.fspath(old), self._files[os.fspath(new)], other=os.fspath(new)))
            real["replace"](old, new, **named)

        def unlink(path, **named):
            real["unlink"](path, **named)
            self.delete(os.fspath(path))

        def fsync(descriptor):
            name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            if Path(name).is_dir():
                self.note(Step("sync_folder", name))
            elif self._ours(name):
                self._content(name)
                self.note(Step("sync", file=self._files[name]))

        with pytest.MonkeyPatch.context() as patch:
            for each in (open_, mkdir, replace, unlink, fsync):
                patch.setattr(os, each.__name__.rstrip("_"), each)
            yield

    def _ours(self, path: object) -> bool:
        return isinstance(path, str | Path) and Path(path).is_relative_to(self.root)

    def _content(self, name: str) -> None:
        self.note(Step("write", file=self._files[name], data=Path(name).read_bytes()))

    # The crash

    def marks(self, end: int) -> list[object]:
        """Return what had been reported as done before step `end`."""
        return [step.value for step in self.steps[:end] if step.kind == "mark"]

    def moments(self) -> list[int]:
        """Return the steps before which something unsafe becomes safe, and the end: elsewhere nothing more is lost."""
        return [n for n, step in enumerate(self.steps) if step.kind.startswith("sync")] + [len(self.steps)]

    def after_crash(self, end: int, into: Path, keep: Callable[[], bool]) -> None:
        """Make in `into` what the disk holds when the power goes before step `end`; `keep` says what else it kept."""
        files: dict[int, _File] = {FOLDER: _File()}
        names: dict[str, int] = {}
        unsafe: list[Step] = []
        for step in self.steps[:end]:
            if step.kind in ("make", "rename", "delete"):
                unsafe.append(step)
                files.setdefault(step.file, _File())
            elif step.kind == "sync_folder":
                for done in [one for one in unsafe if str(Path(one.name).parent) == step.name]:
                    _rename(names, done)
                    unsafe.remove(done)
            elif step.kind == "sync":
                files[step.file].sync()
            elif step.kind != "mark":
                files[step.file].pending.append(step)
        for step in unsafe:
            if keep():
                _rename(names, step)
        self._write(names, files, into, keep)

    def _write(self, names: dict[str, int], files: dict[int, _File], into: Path, keep: Callable[[], bool]) -> None:
        for name in sorted(names):
            path = into / Path(name).relative_to(self.root.parent)
            if not path.parent.is_dir():
                continue  # The name of a folder above is lost, and all that is in it.
            if names[name] == FOLDER:
                path.mkdir()
                continue
            content = bytearray(files[names[name]].safe)
            for step in files[names[name]].pending:
                _apply(content, step, keep)
            path.write_bytes(content)


def _rename(names: dict[str, int], step: Step) -> None:
    if step.kind != "make":
        names.pop(step.name, None)
    if step.kind != "delete":
        names[step.other or step.name] = step.file


# SQLite on that disk


class _Vfs(apsw.VFS):
    def __init__(self, disk: Disk, name: str) -> None:
        self.called, self._disk = name, disk
        super().__init__(name, "unix")

    def xOpen(self, name, flags):
        return _VfsFile(self._disk, name, flags)

    def xDelete(self, filename, syncdir):
        super().xDelete(filename, syncdir)
        self._disk.delete(filename)
        if syncdir:
            self._disk.note(Step("sync_folder", str(Path(filename).parent)))


class _VfsFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name, flags) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("unix", name, flags)
        self._disk, self._file = disk, None
        if path is not None:
            new = path not in disk._files
            self._file = disk.number(path)
            is_log = flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL)
            self._folder = str(Path(path).parent) if new and is_log else None

    def xWrite(self, data, offset):
        super().xWrite(data, offset)
        self._note("write", offset=offset, data=bytes(data))

    def xTruncate(self, newsize):
        super().xTruncate(newsize)
        self._note("truncate", offset=newsize)

    def xSync(self, flags):
        # Nothing reaches the real disk any sooner for it, and the test is quicker.
        self._note("sync")
        if self._file is not None and self._folder is not None:
            self._disk.note(Step("sync_folder", self._folder))
            self._folder = None

    def _note(self, kind: str, **facts) -> None:
        if self._file is not None:
            self._disk.note(Step(kind, file=self._file, **facts))


class _Connection:
    """As much of `sqlite3.Connection` as the store uses."""

    def __init__(self, path: Path, vfs: str) -> None:
        self._connection = apsw.Connection(str(path), vfs=vfs)
        self._connection.set_busy_timeout(10_000)

    def cursor(self) -> "_Cursor":
        return _Cursor(self._connection)

    def execute(self, sql: str) -> "_Cursor":
        return self.cursor().execute(sql)

    def commit(self) -> None:
        if self._connection.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self._connection.in_transaction:
            self.execute("ROLLBACK")

    def create_function(self, *_: object, **__: object) -> None:
        pass

    def close(self) -> None:
        self._connection.close()


class _Cursor:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._rows: deque[tuple] = deque()
        self.description: tuple | None = None
        self.rowcount = self.lastrowid = -1

    def execute(self, sql: str, parameters: tuple = ()) -> "_Cursor":
        return self._run("execute", sql, parameters)

    def executemany(self, sql: str, rows: list[tuple]) -> "_Cursor":
        return self._run("executemany", sql, rows)

    def _run(self, how: str, sql: str, parameters: object) -> "_Cursor":
        cursor = self._connection.cursor()
        cursor.exec_trace = self._describe
        self._rows = deque(getattr(cursor, how)(sql, parameters).fetchall())
        self.rowcount = self._connection.changes()
        cursor.close()
        return self

    def _describe(self, cursor, sql, bindings) -> bool:
        columns = cursor.get_description()
        self.description = tuple((name, None, None, None, None, None, None) for name, _ in columns) or None
        return True

    def fetchone(self) -> tuple | None:
        return self._rows.popleft() if self._rows else None

    def fetchall(self) -> list[tuple]:
        rows, self._rows = list(self._rows), deque()
        return rows

    def close(self) -> None:
        self._rows.clear()


class RecordedDatabase(SqliteDatabase):
    """The store's database on a recorded disk. `checkpoint_pages`: how long the log may become."""

    def __init__(self, disk: Disk, *parameters, synchronous: str | None = None, checkpoint_pages: int = 20) -> None:
        self._disk_vfs = _Vfs(disk, f"recorded-{id(disk)}")
        self._checkpoint_pages = checkpoint_pages
        super().__init__(*parameters)
        self._synchronous = synchronous or self._synchronous

    def _driver(self):
        connection = _Connection(self.path, self._disk_vfs.called)
        connection.execute(f"PRAGMA wal_autocheckpoint = {self._checkpoint_pages}")
        return connection


def nothing() -> bool:
    """Keep nothing that is not safe: the most that can be lost."""
    return False


def everything() -> bool:
    """Keep all of it: the process was killed, the machine goes on."""
    return True


def some_of(random: Random) -> Callable[[], bool]:
    """Keep each thing by chance, and at one moment more of them than at another."""
    share = random.random()
    return lambda: random.random() < share
