"""Tie a process to the one that started it. Called by the embedded model's process before it does anything else.

Three ties, because each has a gap: the kernel's parent-death signal is Linux only; the parent may be gone before it is
set; and the end of a pipe is only seen once a thread of ours can run.
"""

import ctypes
import os
import signal
import sys
import threading

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int, pipe: int) -> None:
    """End this process at once when process `parent` ends, or when nobody holds the other end of `pipe` any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    threading.Thread(target=_end_at_eof, args=(pipe,), name="parent-watch", daemon=True).start()


def _end_at_eof(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    os._exit(0)
