"""Programs that use too much, under the watch of a host: real processes, real control groups where there are some."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentforge.errors.sandbox import LimitExceeded
from agentforge.sandbox import Fence, Level, Limits, Ward, Watch
from agentforge.sandbox.cgroups import Cgroups

__all__ = ["NOBODY", "Watched", "as_nobody", "cgroups_here", "small", "watched", "without_cgroups"]

NOBODY = 65534
_SPARE_S = 120
"""Seconds after which a program that nobody ended ends by itself."""
_HEAD = f"""
import ctypes, mmap, os, sys, signal, threading, time
signal.alarm({_SPARE_S})
MIB = 2**20
sys.stdin.readline()
"""


@dataclass
class Watched:
    """A program under watch."""

    process: "subprocess.Popen[bytes]"
    ward: Ward
    errors: "asyncio.Queue[LimitExceeded]" = field(default_factory=asyncio.Queue)

    def begin(self) -> None:
        """Have it begin: until then it waits."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    async def error(self, patience_s: float = 20.0) -> LimitExceeded:
        """Wait for what it is to be ended for."""
        async with asyncio.timeout(patience_s):
            return await self.errors.get()

    async def stays(self, seconds: float = 1.5) -> None:
        """See that nothing is said against it for some looks."""
        with contextlib.suppress(TimeoutError):
            error = await self.error(seconds)
            raise AssertionError(f"it is to be ended: {error.message}")


def cgroups_here() -> bool:
    """Whether this host can make control groups for everything."""
    return len(Cgroups.find(Path("/tmp")).held) == 3


def without_cgroups() -> Cgroups:
    """Return what a host has that can make none."""
    return Cgroups(Path("/tmp"), 1)


@contextlib.asynccontextmanager
async def watched(
    code: str, limits: Limits, cgroups: Cgroups | None = None, *, level: Level = "none", scratch: Path | None = None
) -> AsyncIterator[Watched]:
    """Run a program under watch; at the end it and all that it has started are gone."""
    watch = Watch(cgroups or without_cgroups())
    watch.begin()
    command = [_interpreter(), "-I", "-S", "-c", _HEAD + code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        errors: asyncio.Queue[LimitExceeded] = asyncio.Queue()
        folders = [scratch] if scratch is not None else []
        ward = await watch.admit("w1", process.pid, Fence(level, limits=limits), errors.put_nowait, folders)
        try:
            yield Watched(process, ward, errors)
        finally:
            ward.end()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            await watch.dismiss(ward)
            await watch.close()


def _interpreter() -> str:
    """Return this Python, or the system's where it is another user's own."""
    return sys.executable if os.access(sys.executable, os.X_OK) else "/usr/bin/python3"


def as_nobody(act: Callable[[], None]) -> None:
    """Do something in a process of an ordinary user; what it raises fails the test."""
    if os.geteuid() != 0:
        act()
        return
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are no threads that hold anything it needs
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            act()
        except BaseException:
            os.write(writing, traceback.format_exc().encode()[-60_000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        failure = said.read()
    os.waitpid(child, 0)
    assert not failure, failure


def small(**limits: float) -> Limits:
    """Limits that a test may go beyond without harm to the machine."""
    return replace(Limits(memory_mib=200, processes=40, cpus=1.0, scratch_mib=16), **limits)  # type: ignore[arg-type]
