"""One worker's sandbox under watch: looked at now and then, ended or slowed when it uses more than it may."""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence

from agentforge.errors.sandbox import CpuExceeded, DiskExceeded, LimitExceeded, MemoryExceeded, ProcessesExceeded
from agentforge.sandbox.brake import Brake
from agentforge.sandbox.cgroups import Cgroup, Hits
from agentforge.sandbox.fence import Fence
from agentforge.sandbox.guard import Guard
from agentforge.sandbox.hidden import memory_devices, nameless, nameless_memory
from agentforge.sandbox.mechanisms import Mechanism, mechanisms
from agentforge.sandbox.processes import Usage, exact_memory, frozen, tree, usage

__all__ = ["Ward"]

_log = logging.getLogger(__name__)
_MIB = 2**20
_EXACT_S = 2.0
"""Least seconds between two exact looks at memory that only might be too much."""
_SEARCH_S = 3.0
_SEARCH_SHARE = 0.01
"""Most of its time that looking for files without a name may take, for each worker."""
_MEMFD = nameless_memory()
_SPARE = 16
"""Processes beyond the limit that are looked for: the sandbox's own do not count for everybody."""
_CROWDED_LOOKS = 2
"""Looks in a row at a sandbox that is refused processes before it is ended: its program may report that itself."""


class Ward:
    """The processes of a worker, which descend from `root`, and what holds them to their limits."""

    def __init__(
        self, worker: str, root: int, fence: Fence, cgroup: Cgroup, exceeded: Callable[[LimitExceeded], None]
    ) -> None:
        """`exceeded` is called once, on the host's loop, with what the worker is to be ended for."""
        self.worker = worker
        self.exceeded = exceeded
        self.held: dict[str, Mechanism] = mechanisms(fence.level, cgroup.held)
        """By limit, what holds it."""
        self.limits = fence.limits
        self.workspaces = fence.workspaces
        self.guards: list[Guard] = []
        """Of its folders on the disk."""
        self.over = False
        """Whether it has exceeded something, or has ended: it is not looked at any more."""
        self.hurry = False
        """Whether it grows so fast that it should be looked at again soon."""
        self._fenced = fence.level != "none"
        self._root = root
        self._cgroup = cgroup
        self._polled = {name for name in ("memory_mib", "processes", "cpus") if "cgroup" not in self.held[name]}
        self._brake = Brake(root, fence.limits.cpus, self._cant_be_slowed)
        self._unslowed = ""
        self._hits = Hits()
        self._crowded = 0
        self._pids: list[int] = []
        self._forks = b""
        self._memory = (time.monotonic(), 0)
        self._exact_at = 0.0
        self._nameless = 0
        self.search_due = time.monotonic() + _SEARCH_S
        """When to `search` it next, by the monotonic clock."""

    def look(self, forks: bytes) -> LimitExceeded | None:
        """Return what it has exceeded, if anything. `forks` differs from the last time if processes were started.

        In a thread: it may block for some milliseconds.
        """
        hits = self._cgroup.hits()
        if hits.memory:
            return self._too_much_memory()
        refused, self._hits = hits.processes > self._hits.processes, hits
        found = Usage()
        if self._polled:
            found = usage(self._tree(forks))
            if "memory_mib" in self._polled and self._memory_exceeded(found):
                return self._too_much_memory()
            if "cpus" in self._polled:
                self._brake.look(found.cpu_s)
        if self._is_crowded(found.tasks, refused):
            return ProcessesExceeded(f"its processes and threads reached `processes: {self.limits.processes}`")
        if self._unslowed:
            return CpuExceeded(f"it kept more than `cpus: {self.limits.cpus:g}` busy, and {self._unslowed}")
        return None

    def search(self) -> LimitExceeded | None:
        """Look for what it keeps in files without a name; returns what it has exceeded with them, if anything.

        In a thread, once it is due: it takes some microseconds for each file that is open.
        """
        began = time.monotonic()
        pids = tree(self._root, self.limits.processes + _SPARE)
        found = dict(nameless(pids))
        self._nameless = found.pop(_MEMFD, 0)
        on_disk = sum(size for device, size in found.items() if device not in memory_devices(pids[-1]))
        self.search_due = began + max(_SEARCH_S, (time.monotonic() - began) / _SEARCH_SHARE)
        if on_disk > self.limits.disk_mib * _MIB:
            return DiskExceeded(
                f"files that it has deleted and keeps open grew beyond `disk_mib: {self.limits.disk_mib}`"
            )
        return None

    def verdict(self) -> LimitExceeded | None:
        """Return for what the kernel has ended it, where its root process is found to have ended; may block."""
        return self._too_much_memory() if self._cgroup.hits().memory else None

    def end(self) -> None:
        """Kill the processes that are not in namespaces of their own: those that would outlive the root process."""
        if self._fenced:
            return
        with contextlib.suppress(PermissionError):
            for pid in reversed(frozen(self._root)):  # stopped, none of them gets away
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def release(self) -> None:
        """Let go of it, once its worker has ended: its cgroup goes, and what is left in that. May block."""
        self.over = True
        self._brake.release()
        self._cgroup.remove()

    def _tree(self, forks: bytes) -> Sequence[int]:
        if forks != self._forks or not self._pids:
            self._pids, self._forks = tree(self._root, self.limits.processes + _SPARE), forks
        return self._pids

    def _memory_exceeded(self, found: Usage) -> bool:
        """Whether it uses too much. What is cheap to know tells only when that may be; then it is counted exactly."""
        limit = self.limits.memory_mib * _MIB
        now = time.monotonic()
        (before, held), self._memory = self._memory, (now, found.private)
        growth = (found.private - held) / max(now - before, 0.001)
        self.hurry = growth > 0 and (limit - found.private) / growth < 1.0
        resident = found.resident + self._nameless
        if resident <= limit or (found.private <= limit and now - self._exact_at < _EXACT_S):
            return False
        self._exact_at = now
        return exact_memory(self._pids, self._nameless) > limit

    def _is_crowded(self, tasks: int, refused: bool) -> bool:
        """Whether it has more processes than it may, or stays at the limit that the kernel holds it to."""
        held = self.held["processes"]
        if held == "watch":
            return tasks > self.limits.processes
        full = refused or (self._cgroup.tasks() if "cgroup" in held else tasks) >= self.limits.processes
        self._crowded = self._crowded + 1 if full else 0
        return self._crowded >= _CROWDED_LOOKS

    def _too_much_memory(self) -> MemoryExceeded:
        return MemoryExceeded(f"its processes used more than `memory_mib: {self.limits.memory_mib}`")

    def _cant_be_slowed(self, why: str) -> None:
        self._unslowed = why
        _log.warning("worker %s can't be slowed: %s", self.worker, why)
