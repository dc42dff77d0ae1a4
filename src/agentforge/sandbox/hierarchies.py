"""Where the host can have control groups made: its own place in each hierarchy, tried out; cgroups(7)."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentforge.sandbox.fence import Limits

__all__ = ["CONTROLLERS", "Controller", "Kernel", "Place", "find_places", "settings"]

Controller = Literal["memory", "pids", "cpu"]
CONTROLLERS: tuple[Controller, ...] = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
_HOST = "agentforge-host"
"""The group that the host itself moves to: only groups without processes of their own may have limited ones in them."""


class Kernel:
    """The files of control groups: what is asked of the kernel, and nothing more."""

    def make(self, folder: Path) -> None:
        """Make a group."""
        folder.mkdir()

    def remove(self, folder: Path) -> None:
        """Remove a group that has no process."""
        folder.rmdir()

    def read(self, file: Path) -> str:
        """Return what a file says."""
        return file.read_text()

    def write(self, file: Path, text: str) -> None:
        """Write a file, in one go."""
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """Where groups for one controller are made."""

    controller: Controller
    version: Literal[1, 2]
    folder: Path


def find_places(kernel: Kernel, proc: Path = Path("/proc"), *, move: bool = False) -> tuple[list[Place], str]:
    """Return where groups can be made, by making some, and why there is no place for the other controllers.

    `move`: the host may move into a group of its own for that.
    """
    places: list[Place] = []
    reasons: list[str] = []
    for own in _own(proc):
        places += own.places(kernel, move, reasons)
    missing = [each for each in CONTROLLERS if each not in {place.controller for place in places}]
    if not missing:
        return places, ""
    return places, "; ".join(dict.fromkeys(reasons)) or f"there is no cgroup controller for {' and '.join(missing)}"


def settings(place: Place, limits: Limits, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files that limit a group, with their values; swap would be memory beyond the limit."""
    memory, quota = limits.memory_mib * 2**20, max(int(limits.cpus * _PERIOD_US), 1000)
    match place.controller, place.version:
        case "memory", 2:
            yield folder / "memory.max", f"{memory}"
            yield folder / "memory.oom.group", "1"
            if (folder / "memory.swap.max").exists():
                yield folder / "memory.swap.max", "0"
        case "memory", _:
            yield folder / "memory.limit_in_bytes", f"{memory}"
            if (folder / "memory.memsw.limit_in_bytes").exists():
                yield folder / "memory.memsw.limit_in_bytes", f"{memory}"
        case "pids", _:
            yield folder / "pids.max", f"{limits.processes}"
        case "cpu", 2:
            yield folder / "cpu.max", f"{quota} {_PERIOD_US}"
        case _:
            yield folder / "cpu.cfs_period_us", f"{_PERIOD_US}"
            yield folder / "cpu.cfs_quota_us", f"{quota}"


# ---- where the host itself is


class _Unusable(Exception):
    """Groups can't be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class _Own:
    """The host's own group in one hierarchy."""

    version: Literal[1, 2]
    controllers: tuple[Controller, ...]
    """Of version 1: the hierarchy's own."""
    folder: Path

    def places(self, kernel: Kernel, move: bool, reasons: list[str]) -> list[Place]:
        """Return where groups can be made, and say why not in `reasons`."""
        try:
            offered = self._divided(kernel, move) if self.version == 2 else self.controllers
        except _Unusable as error:
            reasons.append(str(error))
            return []
        found = []
        for controller in offered:
            try:
                self._try_out(controller, kernel)
                found.append(Place(controller, self.version, self.folder))
            except _Unusable as error:
                reasons.append(str(error))
        return found

    def _divided(self, kernel: Kernel, move: bool) -> list[Controller]:
        """Have groups below this one limited. Where it has processes that can't be: the host alone in it moves below.

        Returns for what they can be limited. Raises _Unusable.
        """
        offered = [each for each in CONTROLLERS if each in self._words(kernel, "cgroup.controllers")]
        if not offered:
            raise _Unusable("cgroup v2 has no memory, pids and cpu controllers here")
        enabled = self._words(kernel, "cgroup.subtree_control")
        missing = [each for each in offered if each not in enabled]
        if not missing:
            return offered
        processes = self._words(kernel, "cgroup.procs")
        is_root = not (self.folder / "cgroup.events").exists()  # what holds below does not hold for the root
        alone = processes == [str(os.getpid())]
        if not (is_root or alone):
            raise _Unusable("other processes are in the host's cgroup, so that it can't be divided")
        try:
            if alone and move and not is_root:
                with contextlib.suppress(FileExistsError):
                    kernel.make(self.folder / _HOST)
                kernel.write(self.folder / _HOST / "cgroup.procs", f"{os.getpid()}\n")
            kernel.write(self.folder / "cgroup.subtree_control", " ".join(f"+{each}" for each in missing))
        except OSError as error:
            raise _Unusable(f"the host's cgroup can't be divided: {error.strerror}") from None
        return offered

    def _try_out(self, controller: Controller, kernel: Kernel) -> None:
        """Really make a group, limit it, and remove it again. Raises _Unusable."""
        folder = self.folder / f"agentforge-try-{os.getpid()}-{controller}"
        try:
            kernel.make(folder)
        except OSError as error:
            raise _Unusable(f"no cgroup can be made in `{self.folder}`: {error.strerror}") from None
        try:
            for file, value in settings(Place(controller, self.version, folder), Limits(), folder):
                kernel.write(file, value)
        except OSError as error:
            raise _Unusable(f"a cgroup's {controller} can't be limited: {error.strerror}") from None
        finally:
            kernel.remove(folder)

    def _words(self, kernel: Kernel, file: str) -> list[str]:
        try:
            return kernel.read(self.folder / file).split()
        except OSError as error:
            raise _Unusable(f"`{self.folder / file}` can't be read: {error.strerror}") from None


def _own(proc: Path) -> Iterator[_Own]:
    """Yield the host's own group in each hierarchy that is mounted where it can be seen."""
    paths: dict[str, str] = {}
    for line in _lines(proc / "self/cgroup"):
        _, names, path = line.split(":", 2)
        paths.update((name, path) for name in names.split(","))  # version 2 has no name
    for line in _lines(proc / "self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        controllers = tuple(each for each in CONTROLLERS if each in options.split(",")) if kind == "cgroup" else ()
        name = controllers[0] if controllers else ""
        if kind not in ("cgroup", "cgroup2") or name not in paths or (kind == "cgroup" and not name):
            continue
        root, mounted = fields.split(" ")[3:5]
        with contextlib.suppress(ValueError):  # mounted is a part of the tree that the host is not in
            folder = Path(_plain(mounted)) / Path(paths[name]).relative_to(_plain(root))
            if ".." not in folder.parts:
                yield _Own(1 if controllers else 2, controllers, folder)


def _plain(path: str) -> str:
    """Return a path of mountinfo as it is: it writes blanks and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
