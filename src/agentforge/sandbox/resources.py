"""What the kernel holds each process to: the command that sets resource limits before a worker's program starts.

They are inherited by all that the program starts, and can't be raised again. Besides the number of processes all of
them count for one process, or one file; what a sandbox uses as a whole is for `cgroups` and `watch`.
"""

import os
import re
import resource
import shutil

from agentforge.sandbox.fence import Limits

__all__ = ["STACK_MIB", "counts_processes", "limited", "program"]

MIB = 1024 * 1024
STACK_MIB = 8
"""What glibc reserves for the stack of a thread, unless told otherwise; pthread_create(3)."""
_COUNTS_BY_NAMESPACE = (5, 14)
"""Since this Linux the processes of a user count in each user namespace apart; before, all that the user has."""


def limited(limits: Limits, *, backstop: bool, own_user: bool = True) -> tuple[str, ...]:
    """Return the words to put before a program's command; none where the machine has no `prlimit`.

    `backstop`: also hold each process's memory, where no cgroup does it. The watcher only looks now and then, and a
    process can fill gigabytes between two looks. What the kernel counts here (RLIMIT_DATA, getrlimit(2)) is what was
    reserved to be written, touched or not: so the stacks of all threads come on top of `memory_mib`. The address space
    (RLIMIT_AS) would be no measure at all: interpreters and numeric libraries reserve many times what they use.

    `own_user`: whether the processes are in a user namespace of their own, so that they can be counted apart.
    """
    found = program()
    if found is None:
        return ()
    wanted = {
        "nofile": _within(resource.RLIMIT_NOFILE, limits.open_files),
        "fsize": _within(resource.RLIMIT_FSIZE, limits.file_mib * MIB),
        "core": 0,
    }
    if own_user and counts_processes():
        wanted["nproc"] = _within(resource.RLIMIT_NPROC, limits.processes)
    if backstop:
        wanted["data"] = _within(resource.RLIMIT_DATA, (limits.memory_mib + STACK_MIB * limits.processes) * MIB)
    return (found, *(f"--{name}={value}:{value}" for name, value in wanted.items()))


def program() -> str | None:
    """Return the `prlimit` of this machine, at a path that is in every sandbox; None if it has none."""
    return shutil.which("prlimit", path="/usr/bin:/bin:/usr/local/bin")


def counts_processes() -> bool:
    """Whether the kernel counts the processes of a user namespace apart from all others that their user has."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return release is not None and (int(release[1]), int(release[2])) >= _COUNTS_BY_NAMESPACE


def _within(kind: int, wanted: int) -> int:
    """Return the limit, or the host's own hard one where that is lower: nobody but root may go beyond."""
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
