"""What a process inside a sandbox may do, as a value: part of what makes two workers the same."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["LEVELS", "Fence", "Level", "Limits"]

Level = Literal["strict", "standard", "none"]
LEVELS: tuple[Level, ...] = ("none", "standard", "strict")
"""From the weakest to the strongest."""

_CPUS = max(1.0, (os.cpu_count() or 2) / 2)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the processes of one sandbox may use together, unless said otherwise."""

    memory_mib: int = 4096
    """Memory that is theirs alone, all processes together."""
    processes: int = 512
    """Processes and threads."""
    cpus: float = _CPUS
    """Processor time a second, in processors."""
    open_files: int = 16384
    """Descriptors of one process."""
    file_mib: int = 1024
    """Size of one file."""
    disk_mib: int = 2048
    """Size of one run's workspace."""
    scratch_mib: int = 512
    """Size of HOME, and of the temporary folder: both are memory of their own."""
    output_mib: int = 64
    """What one run may write into its log, its events and its result, together."""
    events: int = 100_000
    """Events and lines of log of one run."""
    requests_per_s: float = 2000.0
    """Model calls and connections to the host a second, per worker; more of them wait or are refused."""
    frames_per_s: float = 20_000.0
    """Messages to the host a second, per worker; more of them wait."""


@dataclass(frozen=True, slots=True)
class Fence:
    """How a process is fenced in. `strict` differs from `standard` in who shares the process, not in the walls."""

    level: Level = "standard"
    reads: tuple[Path, ...] = ()
    """Files and folders it may read, besides the system's libraries and what it is started from."""
    writes: tuple[Path, ...] = ()
    """Folders it may write, besides its workspaces, its HOME and its temporary folder."""
    workspaces: Path | None = None
    """The workspaces it may write: those of a group, or of one run. What stands there was made by inmates."""
    hides: tuple[Path, ...] = ()
    """Folders in those of which it sees nothing but what it is started from, or is named itself."""
    network: tuple[str, ...] = ()
    """`host:port` pairs that it may reach through the host."""
    limits: Limits = Limits()
