"""Holding a project: its lock file, which one host has at a time, and taking it over from one that is not there.

The kernel holds the lock for a host until its process ends. A host that is stopped or hangs keeps it, so a new host
puts another file in its place and locks that. What keeps the old one from doing harm when it comes back is the lease
in the store, not this file: here it is only decided who may try.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from agentforge.api.place import HostPlace, Told, answers, writing_state
from agentforge.errors.host import HostAlreadyRuns, HostGone
from agentforge.workers.identity import ProcessId

__all__ = ["HostLock", "hold", "is_over"]

_log = logging.getLogger(__name__)
_PAUSE_S = 0.05
_CLOCK_SLACK_S = 1.0


class HostLock:
    """The project's lock file, locked by this process. Made by `hold`."""

    def __init__(self, path: Path, descriptor: int, ousted: Told | None = None) -> None:
        self.ousted = ousted
        """The host that it was taken over from, which may come back at any time."""
        self._path = path
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether this is still the project's lock file, and no other host has put its own in its place."""
        return _same_file(self._path, self._descriptor)

    @property
    def deleted(self) -> bool:
        """Whether the project has no lock file any more: its state was deleted."""
        return not self._path.exists()

    def beat(self, at: float) -> None:
        """Give a sign of life: the file's time is when its host was last there."""
        os.utime(self._descriptor, (at, at))

    def tell(self, told: Told, at: float) -> None:
        """Write down who holds the lock."""
        text = told.to_bytes()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))
        self.beat(at)

    def close(self) -> None:
        """Let the project go. The file stays."""
        os.close(self._descriptor)

    def end_ousted(self) -> bool:
        """Kill the host that this was taken over from, if its process is there for it alone. False if it is not.

        For a host that was stopped in the middle of a write: nobody can write before it has ended.
        """
        process = ProcessId.parse(self.ousted.process) if self.ousted is not None else None
        if self.ousted is None or process is None or not self.ousted.own_process:
            return False
        return process.kill()


async def hold(
    place: HostPlace,
    told: Told,
    *,
    patience_s: float,
    given_up: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.time,
) -> HostLock:
    """Lock the project for the host that `told` describes.

    A host that is about to leave, or serves one process only, is waited for; one that neither answers nor has given
    a sign of life for as long as its lease lasts is replaced. Raises HostAlreadyRuns if one answers, HostGone if one
    does not answer for `patience_s` but lives, StateNotWritable.
    """
    deadline = time.monotonic() + patience_s
    while True:
        lock = _take(place.lock, told, clock())
        if lock is not None:
            return lock
        holder = Told.read(place.lock)
        answering = holder is not None and await asyncio.to_thread(answers, replace(place, socket=holder.socket))
        if given_up() or (answering and holder is not None and holder.shared):
            raise HostAlreadyRuns(f"another host already serves `{place.root}`")
        if not answering and (lock := _take_over(place.lock, told, clock())) is not None:
            return lock
        if time.monotonic() > deadline:
            raise _not_to_be_had(place, holder, answering)
        await asyncio.sleep(_PAUSE_S)


def is_over(last_sign: float, now: float, lease_s: float) -> bool:
    """Whether a host that does not answer may be taken for dead. Times are of the clock on the wall.

    A sign of life from the future was given before the clock was set back. It says nothing, and must not keep a dead
    host alive until that time comes.
    """
    return not -_CLOCK_SLACK_S <= now - last_sign <= lease_s


def _take(path: Path, told: Told, now: float) -> HostLock | None:
    """Lock the file if nobody has."""
    with writing_state(path.parent), _alone_in(path.parent) as alone:
        if not alone:
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _locked(descriptor):
            os.close(descriptor)
            return None
        lock = HostLock(path, descriptor)
        lock.tell(told, now)
        return lock


def _take_over(path: Path, told: Told, now: float) -> HostLock | None:
    """Put a file of our own in the place of the one that is there, if its holder has been gone for too long."""
    with writing_state(path.parent), _alone_in(path.parent) as alone:
        holder = Told.read(path)
        if not alone or holder is None:
            return None
        if not is_over(path.stat().st_mtime, now, holder.lease_s):
            return None
        staging = path.with_name(f"{path.name}.{os.getpid()}")
        staging.unlink(missing_ok=True)
        lock = HostLock(path, os.open(staging, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), holder)
        try:
            _locked(lock._descriptor)
            lock.tell(told, now)
            staging.rename(path)
        except BaseException:
            lock.close()
            raise
    _log.warning("the host in process %s does not answer: taking the project over", holder.process.split()[0])
    return lock


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Keep other hosts from taking the lock meanwhile; False while one does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    ours = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


def _not_to_be_had(place: HostPlace, holder: Told | None, answering: bool) -> HostAlreadyRuns | HostGone:
    process = ProcessId.parse(holder.process) if holder is not None else None
    if answering or process is None or not process.alive:
        return HostAlreadyRuns(f"another host already serves `{place.root}`")
    return HostGone(
        f"the host of `{place.root}` in process `{process.pid}` lives but does not answer",
        hint=f"Look into it: `agentforge host logs`; or end it: `kill -KILL {process.pid}`.",
    )
