"""The first process of a sandbox, as the host sees it: whoever ends that one ends all that is in there.

The process that the host has started is outside. It takes the first one along when it ends, by what that one has set
for itself; and what is inside may change that one, which is as weak as itself: by its memory, for example. What a
process makes of itself does not save it from the host, and the kernel ends a process namespace with its first process.
"""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Self

import psutil

from agentforge.workers.identity import ProcessId

__all__ = ["Inside"]

_LOOK_S = 0.002


def _children(pid: int) -> list[int]:
    """Return the children of a process; proc(5) has them in a file, of kernels that are built so."""
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return [child.pid for child in psutil.Process(pid).children()]


class Inside:
    """One sandbox's first process, whoever may get its pid later. To be closed once."""

    def __init__(self, process: ProcessId, descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor

    @classmethod
    def of(cls, outer: int) -> Self | None:
        """Return the first process in the sandbox that process `outer` has made; None if there is none (yet)."""
        try:
            descriptor = os.pidfd_open(first := _children(outer)[0])
        except (OSError, IndexError, psutil.Error):
            return None
        process = ProcessId.of(first)
        if process is None:
            os.close(descriptor)
            return None
        return cls(process, descriptor)

    @classmethod
    async def appear(cls, outer: asyncio.subprocess.Process) -> Self | None:
        """Wait for it; None if `outer` ends before."""
        while (found := cls.of(outer.pid)) is None and outer.returncode is None:  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(_LOOK_S)
        return found

    def kill(self) -> None:
        """End all that is in the sandbox."""
        if self._descriptor >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
