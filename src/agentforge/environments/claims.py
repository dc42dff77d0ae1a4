"""Claims on an environment across processes: one builds it, many use it, nobody removes it under them.

A claim is a flock on a file named by the environment's id. It ends with the process that holds it, so that a
killed process leaves nothing to clean up. The files are kept: deleting one would split its claimants.

An environment that is built anew is swapped with the old one while that is used, and takes a new file with it: the
old file keeps its claimants, under the name of what the old environment is until they are gone. A gate keeps anybody
from taking a claim in the middle of that.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

__all__ = [
    "alias",
    "alone",
    "building",
    "is_held_alone",
    "last_used",
    "removing",
    "shared",
    "swapping",
    "using",
]

_POLL_S = 0.05
_GATE = ".gate"


@contextlib.asynccontextmanager
async def building(file: Path, done: Callable[[], bool], waiting: Callable[[], None]) -> AsyncIterator[int | None]:
    """Claim an environment alone and yield the claim's descriptor.

    While somebody else has it, `waiting` is called once and the wait goes on (a cancellable one); it ends with
    None when `done` says that the other has built what we came for.
    """
    descriptor = None
    try:
        told = False
        while (descriptor := _claim(file, fcntl.LOCK_EX)) is None:
            if done():
                yield None
                return
            if not told:
                waiting()
                told = True
            await asyncio.sleep(_POLL_S)
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def using(file: Path) -> Iterator[None]:
    """Share an environment with its other users. Waits for a builder that is just finishing."""
    while (descriptor := _claim(file, fcntl.LOCK_SH)) is None:
        _wait(file)
    try:
        os.utime(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def shared(file: Path) -> AsyncIterator[int]:
    """Do as `using`, with a wait that can be cancelled; yields the claim's descriptor."""
    descriptor = _claim(file, fcntl.LOCK_SH)
    while descriptor is None:
        await asyncio.sleep(_POLL_S)  # flock tells nobody
        descriptor = _claim(file, fcntl.LOCK_SH)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_held_alone(file: Path) -> bool:
    """Whether somebody has a claim alone."""
    descriptor = _claim(file, fcntl.LOCK_SH)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


@contextlib.contextmanager
def removing(file: Path) -> Iterator[bool]:
    """Yield whether the environment could be claimed alone, without waiting."""
    descriptor = _claim(file, fcntl.LOCK_EX)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def alias(file: Path, other: Path) -> None:
    """Give a claim a second name: whoever holds it holds both."""
    file.touch(0o600)
    other.hardlink_to(file)


@contextlib.contextmanager
def swapping(file: Path) -> Iterator[None]:
    """Keep everybody from taking a claim while what it is for is swapped; then it is a new one, which nobody has.

    Who holds the old one holds it under its second name (`alias`).
    """
    with _gate(file.parent, fcntl.LOCK_EX):
        fresh = file.with_name(f"{_GATE}.fresh")  # of whoever holds the gate
        fresh.unlink(missing_ok=True)
        fresh.touch(0o600, exist_ok=False)
        try:
            yield
            fresh.replace(file)
        finally:
            fresh.unlink(missing_ok=True)


def _claim(file: Path, kind: int) -> int | None:
    """Take a claim if nobody is in the way, and return its descriptor."""
    with _gate(file.parent, fcntl.LOCK_SH):
        descriptor = _open(file)
        if _take(descriptor, kind):
            return descriptor
    os.close(descriptor)
    return None


def _wait(file: Path) -> None:
    """Wait until nobody has a claim alone."""
    descriptor = _open(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _gate(folder: Path, kind: int) -> Iterator[None]:
    descriptor = _open(folder / _GATE)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Have something to oneself. Waits for all others who claim it."""
    descriptor = _open(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def last_used(file: Path) -> float:
    """Return when somebody last began to use what a claim's file stands for; 0 if nobody ever did."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _open(file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
