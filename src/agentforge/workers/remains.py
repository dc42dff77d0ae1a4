"""What a host leaves behind when it does not end in order: its workers, and processes that they have started.

Each host keeps its workers in a folder of its own, `<state>/workers/<epoch>-<token>`. In it is the file `lock`: with
every worker goes a share of it, which the host takes before the start; the kernel lets go of it when the last process
that holds it is gone, the worker itself or the sandbox around it, and a later host knows that all are gone when it
gets the whole of the lock. Each worker's folder says which process it is, so that a later
host can also end what that process has started, and never hits a process that merely got its pid.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import re
import secrets
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from agentforge.errors.store import LeaseLost
from agentforge.errors.workers import RemainsAlive
from agentforge.workers.identity import ProcessId, boot_id, process_stat
from agentforge.workers.removal import remove_tree

__all__ = ["WorkersFolder", "workers_gone"]

_log = logging.getLogger(__name__)
_LOCK = "lock"
_CLOSED = "closed"
_RECORD = "process"
_INSIDE = "inside"
_NAME = re.compile(r"(\d+)-[0-9a-f]+")


class WorkersFolder:
    """Where one host's workers live, under one epoch of its lease. Made by `workers_gone`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, parent: Path, epoch: int) -> Self:
        """Make the folder of a host that has the lease under `epoch`."""
        path = parent / f"{epoch}-{secrets.token_hex(4)}"
        path.mkdir(mode=0o700)
        os.close(os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return cls(path)

    @contextlib.contextmanager
    def share(self) -> Iterator[int]:
        """Give a descriptor that holds a share of the lock, for a worker to inherit; it is closed here in the end.

        Raises LeaseLost if a later host has closed this folder to new workers. That is looked at once the share is
        taken: either it is seen here, or the share is seen by that host.
        """
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _served_by_another() from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _served_by_another() from None
            if (self.path / _CLOSED).exists():
                raise _served_by_another()
            yield descriptor
        finally:
            os.close(descriptor)

    def record(self, folder: Path, pid: int) -> None:
        """Write into a worker's folder which process it is."""
        process = ProcessId.of(pid)
        if process is not None:
            (folder / _RECORD).write_text(f"{process}\n")

    def record_inside(self, folder: Path, process: ProcessId) -> None:
        """Write into a worker's folder which process is the first in its sandbox."""
        (folder / _INSIDE).write_text(f"{process}\n")

    def close(self) -> None:
        """Remove the folder once its workers are gone."""
        remove_tree(self.path)


async def workers_gone(parent: Path, epoch: int, patience_s: float = 10.0) -> WorkersFolder:
    """End what hosts of earlier epochs have left in `parent`, and return the folder for the workers of this one.

    To be called once the lease is taken, and before anything is done with runs of earlier epochs: when it returns,
    none of the old workers lives, nor will one ever start again. Raises RemainsAlive if they do not end in time.
    """
    deadline = time.monotonic() + patience_s
    for old in _earlier(parent, epoch):
        await _clear(old, epoch, deadline)
    return WorkersFolder.make(parent, epoch)


def _earlier(parent: Path, epoch: int) -> list[Path]:
    """Return the folders of earlier epochs, and what is no such folder. One of a later epoch is not ours to touch."""
    parent.mkdir(parents=True, exist_ok=True)
    found = []
    for path in sorted(parent.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None or int(match[1]) < epoch:
            found.append(path)
    return found


async def _clear(old: Path, epoch: int, deadline: float) -> None:
    with _retired(old, epoch) as lock:
        told: set[int] = set()
        pause_s = 0.01
        while True:
            free = lock is None or _got_all(lock)
            left = _remains(old, None if free else lock)
            if free and not left:
                break
            _tell(old, [process for process in left if process.pid not in told])
            told.update(process.pid for process in left)
            if time.monotonic() > deadline:
                raise _still_there(old, left)
            _end(old, left)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.2)
        if told:
            _log.info("what an earlier host had left is gone")
        remove_tree(old)


@contextlib.contextmanager
def _retired(old: Path, epoch: int) -> Iterator[int | None]:
    """Close an old folder to new workers and open its lock file, if it has one."""
    try:
        lock = os.open(old / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        (old / _CLOSED).write_text(f"by the host of epoch {epoch}\n")
        yield lock
    finally:
        os.close(lock)


def _served_by_another() -> LeaseLost:
    return LeaseLost("A later host serves the project: no more workers are started here.")


def _got_all(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# ---- who is left


def _remains(old: Path, lock: int | None) -> list[ProcessId]:
    """Return the live processes that belong to an old folder's workers; `lock`: also who holds a share of it."""
    leaders = _recorded(old)
    if not leaders and lock is None:
        return []
    inode = os.fstat(lock) if lock is not None else None
    found = []
    for pid in _pids():
        if _is_member(pid, leaders, old) or (inode is not None and _holds_share(pid, inode)):
            process = ProcessId.of(pid)
            if process is not None:
                found.append(process)
    return found


def _recorded(old: Path) -> dict[int, ProcessId]:
    """Return the workers that the folder names, by pid; those of an earlier start of the machine are gone."""
    found: dict[int, ProcessId] = {}
    for record in (*old.glob(f"*/{_RECORD}"), *old.glob(f"*/{_INSIDE}")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            process = ProcessId.parse(record.read_text())
            if process is not None and process.boot == boot_id():
                found[process.pid] = process
    return found


def _pids() -> list[int]:
    own = os.getpid()
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and int(path.name) != own]


def _is_member(pid: int, leaders: Mapping[int, ProcessId], old: Path) -> bool:
    """Whether a process is one of these workers, or in the group or session of one.

    A worker leads its group, and its pid is not given away while the group has members. But group and worker may
    be gone for long and the pid be another's. So where the worker itself is gone its folder has to be the HOME of
    what is in its group: that is how a worker's children are started.
    """
    stat = process_stat(pid)
    if stat is None:
        return False
    leader = leaders.get(stat.session) or leaders.get(stat.group)
    if leader is None:
        return False
    now = process_stat(leader.pid, ended=True)
    return now.started == leader.started if now is not None else _has_home_in(pid, old)


def _has_home_in(pid: int, folder: Path) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return b"\0HOME=" + os.fsencode(folder) + b"/" in b"\0" + variables


def _holds_share(pid: int, inode: os.stat_result) -> bool:
    """Whether a process has a share of the lock: a worker, the sandbox around one, or what one has forked.

    To have the file open is not enough: the old host has it, and so may whatever was forked from the program it is in.
    """
    folder = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        for descriptor in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):  # it was closed meanwhile
                found = descriptor.stat()
                if (found.st_dev, found.st_ino) == (inode.st_dev, inode.st_ino):
                    said = (folder / "fdinfo" / descriptor.name).read_text()
                    if re.search(r"^lock:.* FLOCK .* READ ", said, re.MULTILINE):
                        return True
    return False


# ---- ending them


def _end(old: Path, left: Sequence[ProcessId]) -> None:
    """Kill each, and the groups of the workers among them as a whole: a group can't fork faster than that."""
    leaders = _recorded(old)
    for process in left:
        if leaders.get(process.pid) == process:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    for process in left:
        process.kill()


def _tell(old: Path, left: Sequence[ProcessId]) -> None:
    if left:
        _log.warning("ending what the host of `%s` has left: %s", old.name, _named(left))


def _still_there(old: Path, left: Sequence[ProcessId]) -> RemainsAlive:
    if not left:
        return RemainsAlive(
            f"a process that can't be seen from here holds `{old / _LOCK}`",
            hint="It may run in another container: end it there, then run the command again.",
        )
    pids = " ".join(str(process.pid) for process in left)
    return RemainsAlive(
        f"workers of an earlier host do not end: {_named(left)}",
        hint=f"See what holds them up: `ps -o pid,stat,wchan,args {pids}`; end them, then run the command again.",
    )


def _named(processes: Sequence[ProcessId]) -> str:
    return ", ".join(f"`{process.pid}` ({_command(process.pid)})" for process in processes)


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        words = ""
    return words[:80] or "ended"
