"""What holds a sandbox to each of its limits on this machine."""

import os
from collections.abc import Mapping

from agentforge.sandbox.bubblewrap import free_users
from agentforge.sandbox.fence import Level
from agentforge.sandbox.hierarchies import Controller
from agentforge.sandbox.resources import counts_processes, program

__all__ = ["Mechanism", "mechanisms"]

Mechanism = str
"""`cgroup v1`, `cgroup v2`, `rlimit`, `tmpfs`, `watch` (the host looks, and ends or slows what is over), `none`."""


def mechanisms(level: Level, cgroups: Mapping[Controller, str]) -> dict[str, Mechanism]:
    """Return by limit what holds it; `cgroups` are the controllers in force, with their kind."""
    rlimit = "rlimit" if program() is not None else "none"
    fenced = level != "none"
    return {
        "memory_mib": cgroups.get("memory", "watch"),
        "processes": cgroups.get("pids", "rlimit" if fenced and _counted() else "watch"),
        "cpus": cgroups.get("cpu", "watch"),
        "open_files": rlimit,
        "file_mib": rlimit,
        "disk_mib": "watch",
        "scratch_mib": "tmpfs" if fenced else "watch",
    }


def _counted() -> bool:
    """Whether a resource limit holds a sandbox's processes: it does not for the user 0, whatever the namespace."""
    return program() is not None and counts_processes() and (os.geteuid() != 0 or free_users() is not None)
