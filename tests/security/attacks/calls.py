"""System calls by name, for what Python has no function for."""

import ctypes
import os
import platform
from typing import Any, Dict, Tuple

__all__ = ["LIBC", "asks", "call", "libc"]

LIBC = ctypes.CDLL(None, use_errno=True)
# x86_64, aarch64
_NUMBERS: Dict[str, Tuple[int, int]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "iopl": (172, -1),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "mq_timedreceive": (243, 183),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "socket": (41, 198),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine(), 0)
LIBC.syscall.restype = ctypes.c_long


def call(name: str, *arguments: Any) -> int:
    """Make a system call. Raises OSError."""
    ctypes.set_errno(0)
    given = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(LIBC.syscall(ctypes.c_long(_NUMBERS[name][_COLUMN]), *given))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (name, os.strerror(number)))
    return result


def asks(name: str, *arguments: Any, past: int) -> str:
    """Make a call whose arguments are wrong on purpose; the errno `past` shows that only they kept it from working.

    For calls that would act on the whole machine. Raises OSError for any other errno.
    """
    try:
        result = call(name, *arguments)
    except OSError as error:
        if error.errno != past:
            raise
        return "%s was allowed and looked at its arguments: %s" % (name, error.strerror)
    return "%s was allowed: %d" % (name, result)


def libc(name: str, *arguments: Any) -> int:
    """Call a function of the C library that answers -1 for an error. Raises OSError."""
    ctypes.set_errno(0)
    result = int(getattr(LIBC, name)(*arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (name, os.strerror(number)))
    return result
