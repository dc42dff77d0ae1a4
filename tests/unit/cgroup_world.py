"""Control groups in a plain folder, with the rules of the kernel that matter here: the double at the border."""

import errno
import os
from pathlib import Path

from agentforge.sandbox.hierarchies import Kernel

__all__ = ["FakeKernel"]

_FILES = {
    "memory": {"memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0", "memory.events": "oom_kill 0"},
    "pids": {"pids.max": "max", "pids.events": "max 0", "pids.current": "0"},
    "cpu": {"cpu.max": "max 100000"},
}


class FakeKernel(Kernel):
    """Version 2, mounted at `root`; the host is in the group `unit`, whose parent delegates these controllers."""

    def __init__(self, root: Path, *controllers: str) -> None:
        self.root = root
        self.proc = root.parent / "proc"
        self.refused: set[int] = set()
        """Processes that can't be moved."""
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/cgroup").write_text("4:memory:/elsewhere\n0::/slice/unit\n")
        (self.proc / "self/mountinfo").write_text(
            f"41 31 0:38 /slice {root} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
        )
        root.mkdir()
        (root / "cgroup.subtree_control").write_text(" ".join(controllers))
        self.own = root / "unit"
        self.make(self.own)
        self.put(os.getpid(), self.own)

    def put(self, pid: int, group: Path) -> None:
        """Have a process be in a group, whatever the rules."""
        for file in self.root.rglob("cgroup.procs"):
            file.write_text("".join(f"{each}\n" for each in file.read_text().split() if each != str(pid)))
        with (group / "cgroup.procs").open("a") as file:
            file.write(f"{pid}\n")

    def members(self, group: Path) -> set[int]:
        return set(map(int, (group / "cgroup.procs").read_text().split()))

    # ---- what the host asks of it

    def make(self, folder: Path) -> None:
        folder.mkdir()
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.events", "cgroup.kill"):
            (folder / name).write_text("")
        self._populate(folder)

    def remove(self, folder: Path) -> None:
        if self.members(folder) or any(each.is_dir() for each in folder.iterdir()):
            raise OSError(errno.EBUSY, "Device or resource busy")
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    def write(self, file: Path, text: str) -> None:
        if not file.exists():
            raise OSError(errno.ENOENT, "No such file or directory")
        match file.name:
            case "cgroup.procs" if int(text) in self.refused:
                raise OSError(errno.EACCES, "Permission denied")
            case "cgroup.procs" if self.read(file.with_name("cgroup.subtree_control")):
                raise OSError(errno.EBUSY, "Device or resource busy")
            case "cgroup.procs":
                self.put(int(text), file.parent)
            case "cgroup.subtree_control" if self.members(file.parent):
                raise OSError(errno.EBUSY, "Device or resource busy")
            case "cgroup.subtree_control":
                file.write_text(text.replace("+", ""))
                for group in file.parent.iterdir():
                    if group.is_dir():
                        self._populate(group)
            case "cgroup.kill":
                file.with_name("cgroup.procs").write_text("")
            case _:
                file.write_text(text)

    def _populate(self, folder: Path) -> None:
        controllers = (folder.parent / "cgroup.subtree_control").read_text()
        (folder / "cgroup.controllers").write_text(controllers)
        for controller in controllers.split():
            for name, value in _FILES.get(controller, {}).items():
                if not (folder / name).exists():
                    (folder / name).write_text(value)
