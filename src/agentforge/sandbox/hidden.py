"""What the processes of a sandbox keep where no walk through folders finds it: in open files that have no name."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

__all__ = ["memory_devices", "nameless", "nameless_memory"]

_BLOCK = 512
_IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


def nameless(pids: Iterable[int]) -> Mapping[int, int]:
    """Return by device how many bytes are in files that were deleted, or never had a name, and are open.

    A few microseconds for each open file. Where the kernel does not tell, there are none.
    """
    sizes: dict[int, int] = defaultdict(int)
    seen: set[tuple[int, int]] = set()
    for pid in pids:
        for path in _open_files(pid):
            try:
                found = os.stat(path)  # noqa: PTH116  there are thousands; nothing is opened
            except OSError:
                continue  # it was closed meanwhile
            if found.st_nlink == 0 and stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                sizes[found.st_dev] += found.st_blocks * _BLOCK
    return sizes


def nameless_memory() -> int:
    """Return the device that files of memfd_create(2) are on: one for the whole machine."""
    descriptor = os.memfd_create("device")
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def memory_devices(pid: int) -> set[int]:
    """Return the devices that are mounted in a process's view and are memory: their size is limited."""
    try:
        lines = Path(f"/proc/{pid}/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] in _IN_MEMORY:
            major, _, minor = fields.split(" ")[2].partition(":")
            found.add(os.makedev(int(major), int(minor)))
    return found


def _open_files(pid: int) -> list[str]:
    folder = f"/proc/{pid}/fd"
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]  # noqa: PTH208  ten times as fast
    except OSError:
        return []
