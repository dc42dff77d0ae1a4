"""CPU time of runs that share a process.

The process's CPU clock can't be split by run exactly; it is split evenly among the runs that were active while it
advanced. `share` is the integral of d(cpu)/n over the process's life; a run's CPU is the difference of two readings.
"""

import resource
import time

__all__ = ["CpuShare", "peak_rss_mib", "rss_mib"]


class CpuShare:
    """The shared counter. Used on the loop's thread only."""

    def __init__(self) -> None:
        self._active = 0
        self._share_s = 0.0
        self._last_s = time.process_time()

    def enter(self) -> float:
        """Count a run in; returns the reading to subtract at its end."""
        self._advance()
        self._active += 1
        return self._share_s

    def leave(self, start: float) -> float:
        """Count a run out; returns its CPU seconds."""
        self._advance()
        self._active -= 1
        return self._share_s - start

    def _advance(self) -> None:
        now = time.process_time()
        if self._active:
            self._share_s += (now - self._last_s) / self._active
        self._last_s = now


def peak_rss_mib() -> float:
    """Largest resident set of this process so far, in MiB.

    `VmHWM` and not `ru_maxrss`, which a process inherits from the one that started it.
    """
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) / 1024.0
    except (OSError, ValueError, IndexError):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def rss_mib() -> float:
    """Resident set of this process now, in MiB (0.0 where /proc is missing)."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize() / 1048576.0
    except (OSError, ValueError, IndexError):
        return 0.0
