"""Folders that must not grow beyond a size: measured now and then, in parts, while hostile code writes to them."""

import math
import time
from collections.abc import Callable, Container
from pathlib import Path

from agentforge.sandbox.disk import Measuring

__all__ = ["Commons", "Guard"]

_MIB = 2**20
_MEASURE_S = 3.0
"""Seconds between two passes through a folder."""
_SOON_S = 0.25
"""The same, for one that is more than half full."""
_ENTRIES = 20_000
"""Most entries of one folder that are looked at in one go: a fraction of a second."""
_SHARE = 0.02
"""Most of a processor that the measuring may take; what takes more is measured less often."""
_DISTURBED = 20
"""Passes in a row that are disturbed before a folder counts as too large: somebody hides what is in it."""


class Guard:
    """A folder that must not grow beyond `limit_mib`."""

    def __init__(self, folder: Path, limit_mib: int, exceeded: Callable[[], None]) -> None:
        """`exceeded` is called once, on the host's loop."""
        self.folder = folder
        self.limit = limit_mib * _MIB
        self.exceeded = exceeded
        self.over = False
        self.closed = False
        self.due = time.monotonic() + _SOON_S
        """When to look at it next, by the monotonic clock."""
        self.seen = 0
        """Bytes that were in it when it was looked at last."""
        self._measuring: Measuring | None = None
        self._took_s = 0.0
        self._disturbed = 0

    def close(self) -> None:
        """Measure it no more."""
        self.closed = True

    def measure(self) -> bool:
        """Look at some more of it; returns whether it is too large. In a thread, once it is `due`."""
        began = time.thread_time()
        measuring = self._measuring = self._measuring or self._begun()
        done = measuring.go_on(_ENTRIES)
        self._took_s += time.thread_time() - began
        self.seen = measuring.size
        if measuring.replaced or measuring.size > self._most():
            return True
        if done:
            self._finish(measuring)
        return self._disturbed >= _DISTURBED

    def drop(self) -> None:
        """Let go of what a pass under way holds. In the thread that measures."""
        if self._measuring is not None:
            self._measuring.close()

    def _begun(self) -> Measuring:
        return Measuring(self.folder)

    def _most(self) -> float:
        return self.limit

    def _found(self, size: int) -> None:
        """Take note of what a whole pass has found."""

    def _finish(self, measuring: Measuring) -> None:
        self._disturbed = self._disturbed + 1 if measuring.disturbed else 0
        if not measuring.disturbed:
            self._found(measuring.size)
        pause_s = _SOON_S if measuring.size > self._most() - self.limit / 2 else _MEASURE_S
        self.due = time.monotonic() + max(pause_s, self._took_s / _SHARE)
        self._measuring, self._took_s = None, 0.0


class Commons(Guard):
    """A folder of folders that several workers may write: what is not guarded in there must not grow.

    It grows by what is guarded no longer, as far as that was allowed to grow itself; beyond that `limit_mib` are let
    pass. What a folder did not need of its limit is nobody's to use later: each pass takes what it finds for given.
    """

    def __init__(self, folder: Path, limit_mib: int, guarded: Container[Path], exceeded: Callable[[], None]) -> None:
        """`guarded` are the folders that are left out, now; of those in here only the ones right below it matter."""
        super().__init__(folder, limit_mib, exceeded)
        self.due = 0.0
        self.known = False
        """Whether a pass is over: what was there before counts for nothing."""
        self._guarded = guarded
        self._given = 0
        self._come = 0
        self._coming = 0

    def receive(self, guard: Guard) -> None:
        """Take note of a folder in it that is guarded no longer. Not while it is measured."""
        self._coming += max(guard.limit, guard.seen)

    def _begun(self) -> Measuring:
        self._come, self._coming = self._coming, 0  # what comes from here on may be seen by the next pass only
        return Measuring(self.folder, self._guarded)

    def _most(self) -> float:
        return self._given + self._come + self._coming + self.limit if self.known else math.inf

    def _found(self, size: int) -> None:
        self._given = min(size, self._given + self._come) if self.known else size
        self._come, self.known = 0, True
