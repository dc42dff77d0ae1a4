"""What the processes of a sandbox use, read from /proc; proc(5). Nothing here trusts what a process says of itself.

A process that ends meanwhile counts as nothing: what it used is with its parent by then.
"""

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Usage", "exact_memory", "forks", "frozen", "threads", "tree", "usage"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST = 10_000
_PASSES = 50
"""How often processes are looked for that were started while the others were stopped."""
_OWN, _SHARED = (b"Pss_Anon:", b"SwapPss:"), b"Pss_Shmem:"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes use together."""

    private: int = 0
    """Bytes in memory that are not of files and not shared memory; what a fork shares with its parent counts twice."""
    resident: int = 0
    """Bytes in memory of whatever kind: never less than what is theirs alone."""
    tasks: int = 0
    """Processes and threads."""
    cpu_s: float = 0.0
    """Processor time since they began, and that of the children that they have taken note of."""


def tree(root: int, most: int = _MOST) -> list[int]:
    """Return a process that lives and all that descend from it, in namespaces of their own too.

    It ends with about `most`: they may become more faster than we look.
    """
    found: list[int] = []
    waiting = [root]
    while waiting and len(found) <= most:
        pid = waiting.pop()
        children = _children(pid)
        if children is not None:
            found.append(pid)
            waiting += children
    return found


def usage(pids: Iterable[int]) -> Usage:
    """Return what processes use. Cheap: two short files each."""
    private = resident = tasks = 0
    ticks = 0
    for pid in pids:
        pages, stat = _read(f"/proc/{pid}/statm"), _read(f"/proc/{pid}/stat")
        if not pages or not stat:
            continue
        _, in_memory, shared, *_ = map(int, pages.split())
        private += max(in_memory - shared, 0)
        resident += in_memory
        fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold anything; this is field 3
        tasks += int(fields[17])
        ticks += sum(map(int, fields[11:15]))
    return Usage(private * _PAGE, resident * _PAGE, tasks, ticks * _TICK_S)


def exact_memory(pids: Iterable[int], nameless: int = 0) -> int:
    """Return the bytes that are theirs alone, shared and swapped memory too, each page once; some ms a gigabyte.

    `nameless`: what their open files hold in memory without being mapped, perhaps. Where the kernel does not tell,
    because a process has hidden itself, its private memory counts instead.
    """
    own = shared = 0
    for pid in pids:
        said = [line.split() for line in _read(f"/proc/{pid}/smaps_rollup").splitlines()]
        kib = {words[0]: int(words[1]) for words in said if len(words) == 3}
        own += sum(kib[each] for each in _OWN if each in kib) * 1024 if kib else usage([pid]).private
        shared += kib.get(_SHARED, 0) * 1024
    return own + max(shared, nameless)


def threads(pid: int) -> list[int]:
    """Return the ids of a process's threads."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208  ten times as fast
    except OSError:
        return []


def frozen(root: int) -> list[int]:
    """Stop a process and all that descend from it, and return them, each after the one that has started it.

    Raises PermissionError for one that is not ours to stop; those before it stay stopped.
    """
    stopped: dict[int, None] = {}
    for _ in range(_PASSES):
        new = [pid for pid in tree(root) if pid not in stopped]
        if not new:
            break
        for pid in new:
            stopped[pid] = None
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
    return list(stopped)


def forks() -> bytes:
    """Return what is another value once any process or thread was started since."""
    return _read("/proc/loadavg").rpartition(b" ")[2]  # the pid that was given last


def _children(pid: int) -> list[int] | None:
    tasks = threads(pid)
    if not tasks:
        return None
    return [int(child) for task in tasks for child in _read(f"/proc/{pid}/task/{task}/children", whole=True).split()]


def _read(path: str, *, whole: bool = False) -> bytes:
    """Return what a file says, nothing if its process has ended; `whole`: one that may be longer than one read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = part = os.read(descriptor, 65536)
        while whole and part:
            part = os.read(descriptor, 65536)
            data += part
    except OSError:  # it has ended since
        return b""
    finally:
        os.close(descriptor)
    return data
