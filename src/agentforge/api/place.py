"""Where a project's host is: its socket, its lock, its log. Imports little: every command passes here."""

import hashlib
import os
import socket
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from agentforge.config import STATE_DIR
from agentforge.errors.host import SocketUnusable

__all__ = ["HostPlace", "answers", "host_place"]


@dataclass(frozen=True, slots=True)
class HostPlace:
    """The files of one project's host; `shared` unless it serves one process alone."""

    root: Path
    socket: Path
    log: Path
    lock: Path
    shared: bool = True

    def private(self) -> "HostPlace":
        """Return the place of a host that serves this process alone."""
        return replace(self, socket=self.socket.with_name(f"{self.socket.stem}-{os.getpid()}.sock"), shared=False)


def host_place(root: Path) -> HostPlace:
    """Return where the host of a project is or would be. Raises SocketUnusable.

    A host that was started with another `XDG_RUNTIME_DIR` (by cron, over ssh) is where its lock file says.
    """
    root = root.resolve()
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    state = root / STATE_DIR
    place = HostPlace(root, _socket_folder() / f"{name}.sock", state / "host.log", state / "host.lock")
    told = _told_socket(place.lock)
    if told is not None and told != place.socket and answers(elsewhere := replace(place, socket=told)):
        return elsewhere
    return place


def answers(place: HostPlace) -> bool:
    """Whether something listens on the host's socket."""
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(str(place.socket))
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _told_socket(lock: Path) -> Path | None:
    """Return the socket that a host has written into its lock file, if it is ours: a project may come from anybody."""
    try:
        told = Path(os.fsdecode(lock.read_bytes()))
        found = told.lstat()
    except (OSError, ValueError):
        return None
    ours = told.is_absolute() and stat.S_ISSOCK(found.st_mode) and found.st_uid in _own_users()
    return told if ours else None


def _own_users() -> set[int]:
    """Return this user's id, and under sudo that of who called it."""
    caller = os.environ.get("SUDO_UID", "")
    return {os.getuid(), int(caller)} if os.getuid() == 0 and caller.isdecimal() else {os.getuid()}


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
