"""Gives a sandbox of a host that is root an ordinary user id. A program: `python -I -S stage.py UID BWRAP COUNT ...`.

bubblewrap has to run as the user that the inmate will be, and that user can't reach what lies below root's own
folders. So this program, still as root and in a mount namespace of its own, mounts each source where anybody gets to
it, becomes the user, and turns into bubblewrap: its process stays the child of the host, which it has to die with.

Arguments: the user id; the folder that bubblewrap was installed into, or an empty text; the number of sources; the
sources; then bubblewrap's command line, in which `@3` stands for the third source and `@@` for the folder.

A source with a `+` before it is somebody's own files that the inmate may use: there, and only there, it is who they
belong to. What it makes belongs to them as well (mount_setattr(2), MOUNT_ATTR_IDMAP). Where the kernel or the file
system has no such mounts the inmate is a stranger to these files.

No source is followed that is a link: whoever wanted what one leads to has named that.
"""

import contextlib
import ctypes
import errno
import os
import signal
import stat
import sys

__all__ = ["main"]

_STAGE = "/tmp"  # noqa: S108  any folder that every system has; in this namespace it is covered by a fresh one
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MS_NOSUID, _MS_NODEV = 0x2, 0x4
_CLONE_NEWUSER = 0x10000000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
"""Numbers of system calls, the same on every architecture."""
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH, _MOUNT_ATTR_IDMAP = 0x1, 0x4, 0x100000


def main(arguments: list[str]) -> None:
    """Stage the sources and become bubblewrap; never returns."""
    user, installed, count = int(arguments[0]), arguments[1], int(arguments[2])
    sources, command = arguments[3 : 3 + count], arguments[3 + count :]
    places = {f"@{number}": source for number, source in enumerate(sources)}
    if installed:
        places["@@"] = installed
    lent = {mark for mark, source in places.items() if source.startswith("+")}
    places = {mark: source.removeprefix("+") for mark, source in places.items()}
    _leave_the_mounts()
    # Opened before the stage is there: it may cover them. A mount can only be made of what is of the same namespace.
    opened = {mark: _opened(source) for mark, source in places.items()}
    _make_stage()
    staged = {}
    for number, mark in enumerate(opened):
        staged[mark] = _put(f"{_STAGE}/{number}", opened[mark], user if mark in lent else None)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    whole = [staged.get(word, word) for word in command]
    if installed:
        whole[0] = command[0].replace("@@", staged["@@"], 1)
    os.execv(whole[0], whole)  # noqa: S606  there is no shell, and is to be none


def _opened(source: str) -> int:
    descriptor = os.open(source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISLNK(os.fstat(descriptor).st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), source)
    return descriptor


def _leave_the_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _require(libc.unshare(_CLONE_NEWNS) == 0)
    _require(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0)


def _make_stage() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = b"mode=0755,size=64k"
    _require(libc.mount(b"tmpfs", _STAGE.encode(), b"tmpfs", _MS_NOSUID | _MS_NODEV, options) == 0)


def _put(place: str, descriptor: int, owner: int | None) -> str:
    """Mount what a descriptor stands for; with `owner`, as if it was that user's, if that can be done."""
    source = f"/proc/self/fd/{descriptor}"
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.mkdir(place, 0o755)  # noqa: PTH102  pathlib would double the time that this program takes to start
    else:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL, 0o644))
    if owner is not None:
        with contextlib.suppress(OSError):
            _lend(place, descriptor, owner)
            return place
    libc = ctypes.CDLL(None, use_errno=True)
    _require(libc.mount(source.encode(), place.encode(), None, _MS_BIND | _MS_REC, None) == 0)
    return place


def _lend(place: str, descriptor: int, user: int) -> None:
    """Mount what a descriptor stands for, with its owner's id turned into that of `user` there."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = os.fstat(descriptor)
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | _AT_EMPTY_PATH | os.O_CLOEXEC
    tree = libc.syscall(_OPEN_TREE, descriptor, b"", flags)
    _require(tree >= 0)
    namespace = _namespace_of_ids((found.st_uid, user), (found.st_gid, user))
    try:
        attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_IDMAP, 0, 0, namespace)
        size = ctypes.sizeof(attributes)
        done = libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_RECURSIVE | _AT_EMPTY_PATH, attributes, size)
        _require(done == 0)
        _require(libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, place.encode(), _MOVE_MOUNT_F_EMPTY_PATH) == 0)
    finally:
        os.close(namespace)
        os.close(tree)


def _namespace_of_ids(users: tuple[int, int], groups: tuple[int, int]) -> int:
    """Return a user namespace that turns the first of two ids into the second: a process has to make it."""
    done, end = os.pipe()
    child = os.fork()
    if child == 0:
        made = ctypes.CDLL(None).unshare(_CLONE_NEWUSER) == 0
        os.write(end, b"1" if made else b"0")
        signal.pause()
    try:
        if os.read(done, 1) != b"1":
            raise OSError("no user namespace can be made")
        for name, (inner, outer) in (("uid_map", users), ("gid_map", groups)):
            ids = os.open(f"/proc/{child}/{name}", os.O_WRONLY)
            os.write(ids, b"%d %d 1" % (inner, outer))
            os.close(ids)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(done)
        os.close(end)


def _require(done: bool) -> None:
    if not done:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        sys.exit(f"the sandbox can't be staged: {error}")
