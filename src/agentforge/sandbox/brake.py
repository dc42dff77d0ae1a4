"""Holding a sandbox to its share of the processors where no cgroup does: its processes are stopped now and then.

A stop lasts a tenth of a second at most, so that heartbeats and answers still get through.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable

from agentforge.sandbox.processes import frozen, threads, tree, usage

__all__ = ["Brake"]

_BURST_S = 2.0
"""Seconds of its share that an idle sandbox saves up: an import or a short computation is not slowed."""
_STOP_S = 0.1
_GO_S = 0.005
"""How long it runs between two stops while it owes time: with all processors busy, that is a twentieth of them."""
_CALM_S = 0.05
"""Seconds between two looks at one that is being slowed and owes nothing just now."""
_CALM_LOOKS = 40
"""Looks in a row without a debt after which it is left alone again."""
_HOPELESS_S = 10.0
"""Debt, in seconds of the share, that can't come about if stopping has an effect."""
_NICE = 10


class Brake:
    """Slows one sandbox, its outermost process is `root`, when it uses more than `cpus` processors for long.

    `failed` is called with a sentence, in the brake's own thread, when it can't be slowed.
    """

    def __init__(self, root: int, cpus: float, failed: Callable[[str], None]) -> None:
        self._root = root
        self._cpus = cpus
        self._failed = failed
        self._saved_s = _BURST_S * cpus
        """Processor time that it may use at once; below zero is a debt."""
        self._used_s = 0.0
        self._looked_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._released = threading.Event()

    @property
    def slows(self) -> bool:
        """Whether it is at work: then it looks by itself."""
        return self._thread is not None and self._thread.is_alive()

    def look(self, used_s: float) -> None:
        """Take note of the processor time that the sandbox has used since it began; slow it if that is too much."""
        if self.slows or self._released.is_set():
            return
        self._account(used_s)
        if self._saved_s < 0:
            self._thread = threading.Thread(target=self._slow, name="brake", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:
                self._failed("there is no thread left to slow them down")

    def release(self) -> None:
        """Let the sandbox go, for good."""
        self._released.set()

    def _account(self, used_s: float) -> None:
        now = time.monotonic()
        elapsed_s, self._looked_at = now - self._looked_at, now
        spent_s, self._used_s = max(used_s - self._used_s, 0.0), used_s
        self._saved_s = min(self._saved_s + elapsed_s * self._cpus - spent_s, _BURST_S * self._cpus)

    def _slow(self) -> None:
        for pid in tree(self._root):
            _be_nice(pid)
        calm = 0
        while calm < _CALM_LOOKS and not self._released.is_set():
            pids = tree(self._root)
            if not pids:
                return
            self._account(usage(pids).cpu_s)
            if self._saved_s < -_HOPELESS_S * self._cpus - 1.0:
                self._failed("its processes go on however often they are stopped")
                return
            calm = 0 if self._saved_s < 0 else calm + 1
            if calm:
                self._released.wait(_CALM_S)
            elif not self._stop(min(-self._saved_s / self._cpus, _STOP_S)):
                self._failed("its processes can't be stopped")
                return

    def _stop(self, seconds: float) -> bool:
        """Stop the sandbox for so long, and let it run for a moment."""
        try:
            frozen(self._root)
            self._released.wait(seconds)
        except PermissionError:
            return False
        finally:
            for pid in tree(self._root):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGCONT)
        self._released.wait(_GO_S)
        return True


def _be_nice(pid: int) -> None:
    """Have a process's threads, and what they start, give way to others; the host among them."""
    for thread in threads(pid):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, _NICE)
