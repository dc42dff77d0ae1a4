"""Large payloads as files named by the SHA-256 of their bytes: `<root>/ab/cdef...`.

A file appears under its name by rename only, so a name always holds the whole payload. `durable` also forces the file
and its folder to disk before `put` returns, which is before the transaction that names it commits.

Blobs that no record refers to are deleted by age. A payload that is put again becomes young again, and a lock on the
folder keeps the two apart: whoever puts shares it, whoever deletes has it alone.
"""

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path

from agentforge.errors.store import BlobNotFound
from agentforge.store.records import BlobId

__all__ = ["FileBlobs", "make_folder"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileBlobs:
    """A folder of blobs. Any thread may use it, and several processes the same folder."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root
        self._durable = durable
        self._numbers = count()
        self._safe: set[Path] = set()

    def prepare(self) -> None:
        """Make the folder. Raises `OSError`."""
        make_folder(self.root, durable=self._durable)

    def put(self, data: bytes) -> BlobId:
        """Keep the bytes unless they are kept already. Raises `OSError`."""
        digest = sha256(data).hexdigest()
        path = self._path(digest)
        with self._locked(fcntl.LOCK_SH):
            if not _has_size(path, len(data)):
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._write(path, data)
            else:
                os.utime(path)
                if self._durable:
                    _sync(path)
            if self._durable:
                self._sync_names(path.parent)
        return BlobId(digest)

    def get(self, blob: BlobId) -> bytes:
        """Return the bytes. Raises `BlobNotFound` if there are none, or others than there were."""
        if not _DIGEST.fullmatch(blob):
            raise BlobNotFound(f"`{blob}` is no digest of a blob.")
        try:
            data = self._path(blob).read_bytes()
        except FileNotFoundError as error:
            raise BlobNotFound(f"The blob `{blob}` is missing from `{self.root}`.") from error
        except OSError as error:
            raise BlobNotFound(f"The blob `{blob}` in `{self.root}` cannot be read: {error.strerror}.") from error
        if sha256(data).hexdigest() != blob:
            raise BlobNotFound(f"The blob `{blob}` in `{self.root}` is damaged: its bytes have another digest.")
        return data

    def older_than(self, time: float) -> dict[Path, float]:
        """Return the files that were last put before `time`, in epoch seconds, and when that was."""
        found = {path: _put_at(path) for path in self.root.glob("??/*")}
        return {path: at for path, at in found.items() if at is not None and at <= time}

    def name_of(self, path: Path) -> str:
        """Return the digest that a file is named by, or what else it is called."""
        return path.parent.name + path.name

    def discard(self, files: Mapping[Path, float]) -> int:
        """Delete files unless they were put again after the time that goes with them; return how many went."""
        count = 0
        for path, at in files.items():
            with self._locked(fcntl.LOCK_EX):
                if _put_at(path) == at:
                    path.unlink()
                    count += 1
        return count

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def _sync_names(self, folder: Path) -> None:
        _sync(folder)
        # Folders are never deleted, so the name of one has to be made safe once only.
        if folder not in self._safe:
            _sync(self.root)
            self._safe.add(folder)

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest[2:]

    def _write(self, path: Path, data: bytes) -> None:
        staged = path.with_name(f".{path.name}.{os.getpid()}.{next(self._numbers)}")
        try:
            with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                if self._durable:
                    file.flush()
                    os.fsync(file.fileno())
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def make_folder(path: Path, *, durable: bool) -> None:
    """Make a folder and those above it unless they are there; `durable`: so that none is lost with the power."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if durable:
        # Its own name too: somebody else may have made it a moment ago.
        for folder in dict.fromkeys([*reversed(made), path]):
            _sync(folder.parent)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _put_at(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
