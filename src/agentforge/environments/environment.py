"""What an environment is, what is asked for, and what a build tells its caller while it goes on."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from agentforge.environments.lock import Lock
from agentforge.frameworks import Release

__all__ = [
    "MARKER",
    "BuildProgress",
    "Check",
    "CheckReport",
    "Environment",
    "EnvironmentRequest",
    "Progress",
    "Stage",
]

MARKER = "ready.json"
"""File that ends a build: without it a folder is no environment."""

Stage = Literal["waiting", "resolving", "downloading", "installing", "checking", "ready"]


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """One report of a build under way. `done` of `total` counts packages; total 0: not countable."""

    environment: str
    """Id of the environment, or the reference being resolved while there is no id yet."""
    stage: Stage
    done: int
    total: int
    message: str


Progress = Callable[[BuildProgress], None]
"""Called on the event loop's thread, in order; must not block."""


@dataclass(frozen=True, slots=True)
class EnvironmentRequest:
    """An environment that somebody needs."""

    name: str
    """Framework's name, or `tools`."""
    lock: Lock
    python: str
    """Range of Python versions."""
    release: str | None = None
    """The release that must come out; None for a tool environment."""
    distribution: str = ""
    """The package whose installed version must equal `release`; empty: the interpreter's own version."""

    @classmethod
    def for_release(cls, release: Release, lock: Lock) -> "EnvironmentRequest":
        """Ask for a framework's release with the lock that `Environments.lock` gave."""
        python = lock.python or release.python
        return cls(release.framework.name, lock, python, release.version, release.distribution)

    @classmethod
    def for_tools(cls, lock: Lock, python: str) -> "EnvironmentRequest":
        """Ask for a tool environment with the lock that `Environments.lock_tools` gave (`python`: its series)."""
        return cls("tools", lock, f"=={python}.*")


@dataclass(frozen=True)
class Environment:
    """One built virtualenv, or a candidate in its staging folder while it is being checked. Immutable."""

    id: str
    path: Path
    """Folder of the environment: `venv/`, `lock.txt` and the marker `ready.json`."""
    python_version: str
    """Exact version of the interpreter, 3.11.7."""
    framework: str | None
    """None for a tool environment."""
    release: str | None
    lock_digest: str
    built_at: float

    @cached_property
    def python(self) -> Path:
        """The environment's own interpreter. A link into the system: start it by this path, don't resolve it."""
        return self.path / "venv" / "bin" / "python"

    @cached_property
    def size_bytes(self) -> int:
        """Disk blocks of its files, measured when first asked for; files shared with the cache count too."""
        return sum(_blocks(self.path))


def _blocks(folder: Path) -> list[int]:
    sizes = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # Python writes its bytecode by files that it renames
                if entry.is_dir(follow_symlinks=False):
                    sizes.extend(_blocks(Path(entry.path)))
                else:
                    sizes.append(entry.stat(follow_symlinks=False).st_blocks * 512)
    return sizes


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check of a candidate found. `problem` is a sentence saying why not, or None."""

    problem: str | None = None
    version: str = ""
    """The release that the adapter's probe saw."""
    details: str = ""
    """Native traceback or output, for readers with time."""
    duration_s: float = 0.0
    start_s: float = 0.0
    """Of that, until a worker had started and imported the framework; 0 if it never did."""
    cpu_s: float = 0.0
    """Processor time that the worker used, whatever else the machine did; 0 if it never answered."""
    memory_bytes: int = 0
    """Memory of the worker after the run, without what is swapped out; 0 if it never answered."""
    code: str = ""
    """Code of what kept the check from being made; empty where the candidate answered."""


class Check(Protocol):
    """The check of a freshly installed candidate: import, probe and one scripted tool loop.

    Called once per build by the building process, on its event loop, before the environment is activated.
    It should leave bytecode writing on: what it imports gets compiled, and nothing else.
    """

    async def __call__(self, candidate: Environment) -> CheckReport:
        """Try the candidate; a report with a `problem` (or an exception) refuses it."""
        ...
