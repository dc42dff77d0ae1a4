"""Getting out of, or making, namespaces and mounts. Nothing is changed but in the test's own."""

import ctypes
import errno
import os
import signal
import struct
from typing import Dict, Optional

from .calls import asks, call
from .registry import Blocked, World, attack, canary_in

__all__ = ["NAMESPACES"]

_NO_ADMIN = "no capability (CAP_SYS_ADMIN)"
_FILTERED = "; the call is filtered"
_NO_USERNS = "user namespaces are used up (`--disable-userns`) and filtered"
NAMESPACES: Dict[str, int] = {
    "mnt": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "time": 0x80,
}
"""All but the user namespace, with their flags."""
_NEWUSER = 0x10000000


@attack("sandbox", _NO_ADMIN + _FILTERED, who="root")
def mount_folder(world: World) -> Optional[str]:
    """Mount a file system"""
    place = ctypes.c_char_p(os.fsencode(_folder(world)))
    call("mount", ctypes.c_char_p(b"none"), place, ctypes.c_char_p(b"tmpfs"), 0, 0)
    call("umount2", place, 2)
    return "mounted"


def _folder(world: World) -> str:
    place = os.path.join(world.workspace, "place")
    os.makedirs(place, exist_ok=True)
    return place


@attack("sandbox", _NO_ADMIN + _FILTERED, who="root")
def mount_by_new_calls(world: World) -> Optional[str]:
    """Mount with the newer calls (`fsopen`, `open_tree`, `move_mount`, `mount_setattr`)"""
    worked = []
    for name, arguments in (
        ("fsopen", (ctypes.c_char_p(b"tmpfs"), 0)),
        ("open_tree", (-100, ctypes.c_char_p(b"/"), 1)),
        ("mount_setattr", (-100, ctypes.c_char_p(os.fsencode(_folder(world))), 0, bytes(32), 32)),
    ):
        try:
            os.close(call(name, *arguments)) if name != "mount_setattr" else call(name, *arguments)
        except OSError as error:
            if error.errno != errno.EINVAL:
                continue
        worked.append(name)
    return ", ".join(worked) or None


@attack("sandbox", _NO_ADMIN + _FILTERED, who="root")
def remount_writable(world: World) -> Optional[str]:
    """Make a read-only mount writable"""
    place = ctypes.c_char_p(os.fsencode(world.read_only_mount))
    flags = 0x20 | 0x1000  # REMOUNT, BIND
    call("mount", ctypes.c_char_p(b"none"), place, 0, flags, 0)
    call("mount", ctypes.c_char_p(b"none"), place, 0, flags | 1, 0)
    return "remounted"


@attack("sandbox", _NO_ADMIN + _FILTERED, who="root")
def unmount(world: World) -> Optional[str]:
    """Take a mount away to see what is below it"""
    return asks("umount2", ctypes.c_char_p(os.fsencode(world.workspace)), 8, past=errno.EINVAL)


@attack("sandbox", _NO_ADMIN + _FILTERED, who="root")
def pivot_root(world: World) -> Optional[str]:
    """Change the root of the mount namespace (to where it can't be)"""
    place = ctypes.c_char_p(os.fsencode(_folder(world)))
    return asks("pivot_root", place, place, past=errno.EINVAL)


@attack("sandbox", "no capability (CAP_SYS_CHROOT)", who="root", canary="ssh-key")
def chroot_escape(world: World) -> Optional[bytes]:
    """Climb out of a chroot by another one"""
    here = os.open("/", os.O_RDONLY)
    os.chroot(_folder(world))
    os.fchdir(here)
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
    with open(world.ssh_key, "rb") as file:
        return canary_in(file.read())


@attack("sandbox", _NO_USERNS)
def unshare_user(world: World) -> Optional[str]:
    """Become root in a new user namespace (`unshare`)"""
    call("unshare", _NEWUSER)
    return "user id there: %d" % os.getuid()


@attack("sandbox", _NO_USERNS)
def unshare_user_and_all(world: World) -> Optional[str]:
    """Make a user namespace with all others inside, and mount there"""
    call("unshare", _NEWUSER | NAMESPACES["mnt"] | NAMESPACES["net"] | NAMESPACES["ipc"] | NAMESPACES["uts"])
    place = ctypes.c_char_p(os.fsencode(_folder(world)))
    call("mount", ctypes.c_char_p(b"none"), ctypes.c_char_p(b"/"), 0, 0x44000, 0)
    call("mount", ctypes.c_char_p(b"none"), place, ctypes.c_char_p(b"tmpfs"), 0, 0)
    return "mounted in a namespace of its own"


@attack("sandbox", _NO_USERNS)
def clone_user(world: World) -> Optional[str]:
    """Start a process in a new user namespace (`clone`)"""
    child = call("clone", _NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
    return _ended(child)


@attack("sandbox", _NO_USERNS + "; `clone3` is answered with ENOSYS, as its flags can't be filtered")
def clone3_user(world: World) -> Optional[str]:
    """Start a process in a new user namespace (`clone3`)"""
    arguments = ctypes.create_string_buffer(struct.pack("11Q", _NEWUSER, 0, 0, 0, signal.SIGCHLD, *[0] * 6), 88)
    return _ended(call("clone3", arguments, 88))


def _ended(child: int) -> str:
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return "started process %d" % child


@attack("sandbox", _NO_ADMIN + _FILTERED, who="root")
def unshare_others(world: World) -> Optional[str]:
    """Make a new mount, cgroup, uts, ipc, pid, network or time namespace"""
    made = []
    for name, flag in NAMESPACES.items():
        try:
            call("unshare", flag)
            made.append(name)
        except OSError:
            pass
    return "made " + ", ".join(made) if made else None


@attack(
    "sandbox", "no other namespace can be named: `/proc` shows the sandbox's processes only" + _FILTERED, who="root"
)
def enter_namespaces(world: World) -> Optional[str]:
    """Enter the namespaces of other processes (`setns`)"""
    entered = []
    for pid in (world.host_pid, 1, os.getppid()):
        for name in (*NAMESPACES, "user"):
            try:
                descriptor = os.open("/proc/%d/ns/%s" % (pid, name), os.O_RDONLY)
                call("setns", descriptor, 0)
                entered.append("%s of %d" % (name, pid))
            except OSError:
                pass
    if not entered:
        raise Blocked("none can be entered")
    return "entered " + ", ".join(entered)


@attack("sandbox", "every process has the sandbox's root, and none has more rights than the worker", who="root")
def enter_by_pidfd(world: World) -> Optional[str]:
    """Enter all namespaces of the host's process at once (`setns` on a process descriptor)"""
    descriptor = call("pidfd_open", world.host_pid, 0)
    call("setns", descriptor, NAMESPACES["uts"])
    return "entered"
