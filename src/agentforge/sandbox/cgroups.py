"""Control groups, where this host may make some: the kernel itself then holds a sandbox to its limits as a whole.

Version 2 where a subtree was delegated, version 1 where it can be written, each controller by itself; cgroups(7). All
groups are made below the host's own one, so that whatever limits the host limits its workers too. A group's name says
whose it is: `agentforge-<state folder>-<epoch>-<worker>`; the host that takes a project over removes what an earlier
one has left, and nothing else.
"""

import contextlib
import hashlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentforge.sandbox.fence import Limits
from agentforge.sandbox.hierarchies import Controller, Kernel, Place, find_places, settings

__all__ = ["Cgroup", "Cgroups", "Hits"]

_KERNEL = Kernel()
_PLACES = "cgroups"
"""The file in the state folder that names where hosts of the project have made groups."""


@dataclass(frozen=True, slots=True)
class Hits:
    """How often the processes of a group have run into its limits."""

    memory: int = 0
    """Processes that were killed for the group's memory."""
    processes: int = 0
    """Processes and threads that were refused."""


@dataclass
class Cgroup:
    """The groups of one sandbox: one for all controllers in version 2, one for each in version 1."""

    held: dict[Controller, str]
    """By controller that is in force, `cgroup v1` or `cgroup v2`."""
    folders: dict[Controller, Path]
    kernel: Kernel = field(repr=False)

    def take(self, processes: Callable[[], Iterable[int]]) -> None:
        """Move processes in, and those that they start meanwhile. A controller that can't take them is let go of."""
        for folder in dict.fromkeys(self.folders.values()):
            try:
                self._take_into(folder, processes)
            except OSError:
                self._let_go_of(folder)

    def _take_into(self, folder: Path, processes: Callable[[], Iterable[int]]) -> None:
        taken: set[int] = set()
        while left := [pid for pid in processes() if pid not in taken]:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):  # it has ended
                    self.kernel.write(folder / "cgroup.procs", f"{pid}\n")
                taken.add(pid)

    def _let_go_of(self, folder: Path) -> None:
        for controller in [each for each, its in self.folders.items() if its == folder]:
            del self.held[controller], self.folders[controller]
        _remove(folder, self.kernel, patience_s=0.0)

    def hits(self) -> Hits:
        """Return how often its limits were hit so far."""
        memory = processes = 0
        with contextlib.suppress(OSError, KeyError, ValueError):
            file = "memory.events" if self.held["memory"] == "cgroup v2" else "memory.oom_control"
            memory = _counts(self.kernel.read(self.folders["memory"] / file))["oom_kill"]
        with contextlib.suppress(OSError, KeyError, ValueError):
            processes = _counts(self.kernel.read(self.folders["pids"] / "pids.events"))["max"]
        return Hits(memory, processes)

    def tasks(self) -> int:
        """Return how many processes and threads there are now; 0 where nobody counts them."""
        with contextlib.suppress(OSError, KeyError, ValueError):
            return int(self.kernel.read(self.folders["pids"] / "pids.current"))
        return 0

    def remove(self, patience_s: float = 5.0) -> None:
        """Kill what is left in it and remove it; waits so long for processes that the kernel is ending. May block."""
        for folder in set(self.folders.values()):
            _remove(folder, self.kernel, patience_s)


class Cgroups:
    """Makes the groups of one host's sandboxes."""

    def __init__(
        self, state: Path, epoch: int, places: Iterable[Place] = (), why: str = "", kernel: Kernel = _KERNEL
    ) -> None:
        """`state` is the project's state folder, `epoch` that of the host's lease; `find` makes one."""
        self.why = why
        """Why there is no place for some controllers."""
        self._places = {place.controller: place for place in places}
        self._prefix = f"agentforge-{hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:12]}"
        self._state = state
        self._epoch = epoch
        self._kernel = kernel

    @classmethod
    def find(
        cls,
        state: Path,
        epoch: int = 0,
        *,
        move: bool = False,
        proc: Path = Path("/proc"),
        kernel: Kernel = _KERNEL,
    ) -> "Cgroups":
        """Find where groups can be made, by making some; `move`: the host may move to a group of its own for that."""
        places, why = find_places(kernel, proc, move=move)
        return cls(state, epoch, places, why, kernel)

    @property
    def held(self) -> Mapping[Controller, str]:
        """By controller that there is a place for, `cgroup v1` or `cgroup v2`."""
        return {place.controller: f"cgroup v{place.version}" for place in self._places.values()}

    def make(self, worker: str, limits: Limits) -> Cgroup:
        """Make the groups of a sandbox; what can't be made is not in force."""
        made = Cgroup({}, {}, self._kernel)
        for place in self._places.values():
            folder = place.folder / f"{self._prefix}-{self._epoch}-{worker}"
            try:
                if folder not in made.folders.values():
                    self._kernel.make(folder)
                for file, value in settings(place, limits, folder):
                    self._kernel.write(file, value)
            except OSError:
                if folder not in made.folders.values():
                    _remove(folder, self._kernel, patience_s=0.0)
                continue
            made.held[place.controller] = f"cgroup v{place.version}"
            made.folders[place.controller] = folder
        return made

    def clear(self, patience_s: float = 5.0) -> list[Path]:
        """Remove what hosts of earlier epochs have left, wherever they had their groups; returns what is still there.

        Notes where this host has its own, for the next one.
        """
        notes = self._state / _PLACES
        known = {Path(line) for line in _lines(notes)} | {place.folder for place in self._places.values()}
        left = []
        for parent in sorted(known):
            for folder in self._earlier(parent):
                _remove(folder, self._kernel, patience_s)
                left += [folder] if folder.exists() else []
        keep = {place.folder for place in self._places.values()} | {folder.parent for folder in left}
        if {str(folder) for folder in keep} != set(_lines(notes)):
            notes.write_text("".join(f"{folder}\n" for folder in sorted(keep)))
        return left

    def _earlier(self, parent: Path) -> list[Path]:
        name = re.compile(re.escape(self._prefix) + r"-(\d+)-[\w.-]+")
        try:
            found = [(folder, name.fullmatch(folder.name)) for folder in parent.iterdir()]
        except OSError:
            return []
        return [folder for folder, match in found if match is not None and int(match[1]) < self._epoch]


# ---- their end


def _remove(folder: Path, kernel: Kernel, patience_s: float) -> None:
    """Kill what is in a group and in those below it, and remove them as far as they can be by then."""
    deadline = time.monotonic() + patience_s
    while True:
        groups = sorted((Path(each) for each, _, _ in os.walk(folder)), key=lambda each: -len(each.parts))
        for group in groups:
            _kill(group, kernel)
            with contextlib.suppress(OSError):
                kernel.remove(group)
        if not folder.exists() or time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _kill(group: Path, kernel: Kernel) -> None:
    with contextlib.suppress(OSError):
        kernel.write(group / "cgroup.kill", "1")  # version 2 has it, since Linux 5.14
        return
    with contextlib.suppress(OSError, ValueError):
        for pid in map(int, kernel.read(group / "cgroup.procs").split()):
            _kill_member(pid, group, kernel)


def _kill_member(pid: int, group: Path, kernel: Kernel) -> None:
    """Kill a process that is in the group still: its pid may be another's by now. 0 is one of another namespace."""
    if pid in (0, os.getpid()):
        return
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if str(pid) in kernel.read(group / "cgroup.procs").split():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _counts(text: str) -> dict[str, int]:
    """Read lines of a name and a number."""
    return {name: int(number) for name, number in (line.split() for line in text.splitlines())}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
