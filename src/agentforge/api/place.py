"""Where a project's host is: its socket, its lock, its log. Imports little: every command passes here."""

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from agentforge.config import STATE_DIR
from agentforge.errors.host import SocketUnusable

__all__ = ["HostPlace", "host_place"]


@dataclass(frozen=True, slots=True)
class HostPlace:
    """The files of one project's host."""

    root: Path
    socket: Path
    log: Path
    lock: Path

    def private(self) -> "HostPlace":
        """Return the place of a host that serves this process alone."""
        return replace(self, socket=self.socket.with_name(f"{self.socket.stem}-{os.getpid()}.sock"))


def host_place(root: Path) -> HostPlace:
    """Return where the host of a project is or would be. Raises SocketUnusable."""
    root = root.resolve()
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    state = root / STATE_DIR
    return HostPlace(root, _socket_folder() / f"{name}.sock", state / "host.log", state / "host.lock")


def _socket_folder() -> Path:
    """A short path, because a socket's may have 107 bytes at most, in a folder that only its owner can enter."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) / "agentforge" if 0 < len(runtime) <= 60 else Path(f"/tmp/agentforge-{os.getuid()}")  # noqa: S108
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SocketUnusable(f"`{folder}` can't be made: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SocketUnusable(f"`{folder}` is not a folder of your own with mode 700")
    return folder
