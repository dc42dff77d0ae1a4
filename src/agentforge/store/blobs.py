"""Large payloads as files named by the SHA-256 of their bytes: `<root>/ab/cdef...`.

A file appears under its name by rename only, so a name always holds the whole payload. `durable` also forces the file
and its folder to disk before `put` returns, which is before the transaction that names it commits.
"""

import os
import re
from hashlib import sha256
from itertools import count
from pathlib import Path

from agentforge.errors.store import BlobNotFound
from agentforge.store.records import BlobId

__all__ = ["FileBlobs"]

_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileBlobs:
    """A folder of blobs. Any thread may use it, and several processes the same folder."""

    def __init__(self, root: Path, *, durable: bool) -> None:
        self.root = root
        self._durable = durable
        self._numbers = count()

    def prepare(self) -> None:
        """Make the folder. Raises `OSError`."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._durable:
            _sync(self.root.parent)

    def put(self, data: bytes) -> BlobId:
        """Keep the bytes unless they are kept already. Raises `OSError`."""
        digest = sha256(data).hexdigest()
        path = self._path(digest)
        if not _has_size(path, len(data)):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(path, data)
        elif self._durable:
            _sync(path)
        if self._durable:
            _sync(path.parent)
            _sync(self.root)
        return BlobId(digest)

    def get(self, blob: BlobId) -> bytes:
        """Return the bytes. Raises `BlobNotFound` if there are none, or others than there were."""
        if not _DIGEST.fullmatch(blob):
            raise BlobNotFound(f"`{blob}` is no digest of a blob.")
        try:
            data = self._path(blob).read_bytes()
        except FileNotFoundError as error:
            raise BlobNotFound(f"The blob `{blob}` is missing from `{self.root}`.") from error
        if sha256(data).hexdigest() != blob:
            raise BlobNotFound(f"The blob `{blob}` in `{self.root}` is damaged: its bytes have another digest.")
        return data

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


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
