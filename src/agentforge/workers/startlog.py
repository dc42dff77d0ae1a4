"""What a process says before it captures its own output: kept in memory of a fixed size, which is no file of the host.

A sandbox leaves its first process with what it was given for stdout; a worker finds that through /proc. What it finds
is this: it can't grow, and there is no way from it to any folder.
"""

import os
import tempfile

__all__ = ["StartLog"]

_SIZE = 64 << 10
_SHOWN = 2000
"""Bytes of it, the last ones, that an error shows."""


class StartLog:
    """The stdout and stderr of one process. To be closed once."""

    def __init__(self) -> None:
        self.descriptor = _memory()
        """What the process is to have for its stdout and stderr."""

    def read(self) -> str:
        """Return the end of what was said; empty once it is closed."""
        if self.descriptor < 0:
            return ""
        said = os.pread(self.descriptor, _SIZE, 0).rstrip(b"\0")
        return said[-_SHOWN:].decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _memory() -> int:
    if not hasattr(os, "memfd_create"):  # not Linux: there is no sandbox to get at it from either
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())
    import fcntl

    descriptor = os.memfd_create("start.log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, _SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor
