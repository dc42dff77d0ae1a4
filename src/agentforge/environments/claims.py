"""Claims on an environment across processes: one builds it, many use it, nobody removes it under them.

A claim is a flock on a file named by the environment's id. It ends with the process that holds it, so that a
killed process leaves nothing to clean up. The files are kept: deleting one would split its claimants.
"""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

__all__ = ["building", "removing", "using"]

_POLL_S = 0.05


@contextlib.asynccontextmanager
async def building(file: Path, done: Callable[[], bool], waiting: Callable[[], None]) -> AsyncIterator[int | None]:
    """Claim an environment alone and yield the claim's descriptor.

    While somebody else has it, `waiting` is called once and the wait goes on (a cancellable one); it ends with
    None when `done` says that the other has built what we came for.
    """
    descriptor = _open(file)
    try:
        told = False
        while not _take(descriptor, fcntl.LOCK_EX):
            if done():
                yield None
                return
            if not told:
                waiting()
                told = True
            await asyncio.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def using(file: Path) -> Iterator[None]:
    """Share an environment with its other users. Waits for a builder that is just finishing."""
    descriptor = _open(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def removing(file: Path) -> Iterator[bool]:
    """Yield whether the environment could be claimed alone, without waiting."""
    descriptor = _open(file)
    try:
        yield _take(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    file.parent.mkdir(parents=True, exist_ok=True)
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
