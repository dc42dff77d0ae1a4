"""Which process it is: a pid alone may have been given to another process since it was written down."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

__all__ = ["ProcessId", "ProcessStat", "boot_id", "process_stat"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class ProcessStat(NamedTuple):
    """What `/proc/PID/stat` says of a live process, proc(5)."""

    group: int
    session: int
    started: int
    """Clock ticks since the machine was started."""


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process of one start of the machine, told from all that had or will have its pid."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return who has this pid now; None if nobody has, or the process has ended already."""
        stat = process_stat(pid)
        return cls(pid, stat.started, boot_id()) if stat is not None else None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what `str` of one has written; None if that is something else."""
        parts = text.split()
        if len(parts) != 3 or not (parts[0].isdecimal() and parts[1].isdecimal()):
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2])

    def __str__(self) -> str:
        """Return it as one line for a file."""
        return f"{self.pid} {self.started} {self.boot}"

    @property
    def alive(self) -> bool:
        """Whether it has not ended; one that its parent has not taken note of has."""
        return ProcessId.of(self.pid) == self

    def kill(self) -> bool:
        """End it at once. False if it has ended already; another process is never hit."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (ProcessLookupError, ValueError):
            return False
        try:  # the descriptor stays with the process that is looked at, whoever gets its pid
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(descriptor)
        return True


def process_stat(pid: int, *, ended: bool = False) -> ProcessStat | None:
    """Return what the kernel says of a process; None if there is none, or it has ended unless `ended` ones count."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold anything; this begins with field 3
    if fields[0] in (b"Z", b"X") and not ended:
        return None
    return ProcessStat(int(fields[2]), int(fields[3]), int(fields[19]))


def boot_id() -> str:
    """Return what names this start of the machine."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return "unknown"
