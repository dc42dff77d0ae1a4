"""Where a project's host is: its socket, its lock, its log. Imports little: every command passes here."""

import contextlib
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from agentforge.config import STATE_DIR
from agentforge.errors.host import SocketUnusable, StateNotWritable

__all__ = ["HostPlace", "Told", "answers", "host_place", "listens", "writing_state"]

_ANSWER_S = 3.0
_QUESTION = b"GET /v1/host HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n"


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
    told = Told.read(place.lock)
    if told is None or not told.shared or told.socket == place.socket or not _is_own_socket(told.socket):
        return place
    elsewhere = replace(place, socket=told.socket)
    return elsewhere if listens(elsewhere) else place


def listens(place: HostPlace) -> bool:
    """Whether a process takes connections on the host's socket: a stopped one does, too."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(_ANSWER_S)
        try:
            probe.connect(str(place.socket))
        except OSError:
            return False
    return True


def answers(place: HostPlace, within_s: float = _ANSWER_S) -> bool:
    """Whether a host answers on the host's socket; one that is stopped or hangs does not. Blocks up to `within_s`."""
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(within_s)
        try:
            probe.connect(str(place.socket))
            probe.sendall(_QUESTION)
            return probe.recv(1) != b""
        except OSError:
            return False


@contextlib.contextmanager
def writing_state(state: Path) -> Iterator[None]:
    """Translate the operating system's refusals to write in the folder of a project's state into StateNotWritable."""
    try:
        yield
    except OSError as error:
        raise StateNotWritable(f"`{error.filename or state}` can't be written: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class Told:
    """What a host writes into its lock file about itself, as lines of a word and a value."""

    process: str
    """Which process it is in (`ProcessId`)."""
    socket: Path
    shared: bool
    """Whether it serves everybody, or only the process that it is in."""
    own_process: bool
    """Whether its process is there for it alone, and not a user's program."""
    lease_s: float
    """Seconds without a sign of life after which it may be taken for dead."""

    @classmethod
    def read(cls, lock: Path) -> "Told | None":
        """Return what a lock file says; None if there is none, or nothing that a host has written."""
        try:
            lines = os.fsdecode(lock.read_bytes()).splitlines()
            said = dict(line.split(" ", 1) for line in lines)
            serves, runs_in = said["serves"], said["in"]
            return cls(
                said["process"], Path(said["socket"]), serves == "all", runs_in == "host", float(said["lease_s"])
            )
        except (OSError, ValueError, KeyError):
            return None

    def to_bytes(self) -> bytes:
        """Return it as `read` reads it."""
        lines = {
            "process": self.process,
            "socket": os.fspath(self.socket),
            "serves": "all" if self.shared else "one",
            "in": "host" if self.own_process else "program",
            "lease_s": f"{self.lease_s:g}",
        }
        return b"".join(os.fsencode(f"{word} {value}\n") for word, value in lines.items())


def _is_own_socket(path: Path) -> bool:
    """Whether a socket that a lock file names is ours: a project may come from anybody."""
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return False
    return path.is_absolute() and stat.S_ISSOCK(found.st_mode) and found.st_uid in _own_users()


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
