"""Interfaces of the kernel that a worker has no business with.

Calls that would act on the whole machine get arguments that can't work (`asks`): the answer tells whether the kernel
would have listened.
"""

import contextlib
import ctypes
import errno
import glob
import mmap
import os
import platform
import shutil
import socket
import struct
import subprocess
from typing import Optional

from .calls import asks, call, libc
from .registry import MARK, Blocked, World, attack, canary_in

__all__ = ["machine_code"]

_FILTERED = "the call is filtered"
_NO_CAPS = "all capabilities are dropped"
_BOTH = _NO_CAPS + "; " + _FILTERED


@attack("sandbox", _FILTERED, optional=True)
def io_uring(world: World) -> Optional[str]:
    """Use io_uring, which does input and output past a filter of system calls"""
    os.close(call("io_uring_setup", 1, ctypes.create_string_buffer(120)))
    return "made a ring"


@attack("sandbox", _BOTH, who="root")
def bpf_program(world: World) -> Optional[str]:
    """Load BPF programs or make BPF maps"""
    descriptor = call("bpf", 0, ctypes.create_string_buffer(struct.pack("5I", 2, 4, 8, 1, 0), 128), 128)
    os.close(descriptor)
    return "made a map"


@attack("sandbox", _FILTERED, optional=True)
def perf_event(world: World) -> Optional[str]:
    """Watch the processor (`perf_event_open`)"""
    size = 128
    event = ctypes.create_string_buffer(struct.pack("IIQ", 1, size, 1) + bytes(24) + struct.pack("Q", 0x61), size)
    os.close(call("perf_event_open", event, 0, -1, -1, 0))
    return "opened an event"


@attack("sandbox", _FILTERED, optional=True)
def userfaultfd(world: World) -> Optional[str]:
    """Hold the kernel up in page faults (`userfaultfd`), which makes races in it easy"""
    os.close(call("userfaultfd", 1 | os.O_CLOEXEC))
    return "made one"


@attack("sandbox", _BOTH, who="root")
def fanotify(world: World) -> Optional[str]:
    """Watch all file systems (`fanotify`)"""
    os.close(call("fanotify_init", 0, os.O_RDONLY))
    return "watching"


@attack("sandbox", _BOTH, who="root", optional=True)
def load_module(world: World) -> Optional[str]:
    """Load a kernel module (one that is empty)"""
    return asks("init_module", ctypes.c_char_p(b""), 0, ctypes.c_char_p(b""), past=errno.ENOEXEC)


@attack("sandbox", _BOTH, who="root", optional=True)
def remove_module(world: World) -> Optional[str]:
    """Remove a kernel module (one that is not there)"""
    return asks("delete_module", ctypes.c_char_p(b"af_canary_none"), os.O_NONBLOCK, past=errno.ENOENT)


@attack("sandbox", _BOTH, who="root", optional=True)
def load_kernel(world: World) -> Optional[str]:
    """Load another kernel (`kexec_load`, with flags that don't exist)"""
    return asks("kexec_load", 0, 0, 0, 0x7FFF0000 | 0xFF00, past=errno.EINVAL)


@attack("sandbox", _BOTH, who="root")
def reboot(world: World) -> Optional[str]:
    """Restart the machine (with a magic number that is wrong)"""
    return asks("reboot", 1, 2, 3, 0, past=errno.EINVAL)


@attack("sandbox", _BOTH, who="root")
def swap_on(world: World) -> Optional[str]:
    """Swap to a file (one that is not there)"""
    return asks("swapon", ctypes.c_char_p(b"/nowhere/at/all"), 0, past=errno.ENOENT)


@attack("sandbox", _NO_CAPS + "; the sandbox has a name of its own", who="root", changes="hostname")
def set_host_name(world: World) -> Optional[str]:
    """Change the machine's name"""
    socket.sethostname(MARK)
    return "set"


@attack("sandbox", _BOTH, who="root")
def set_clock(world: World) -> Optional[str]:
    """Set the machine's clock (its time zone, to what it is)"""
    call("settimeofday", 0, ctypes.c_char_p(bytes(8)))
    return "set"


@attack("sandbox", _BOTH, who="root")
def account_processes(world: World) -> Optional[str]:
    """Write down every process that ends (`acct`, into a file that is not there)"""
    return asks("acct", ctypes.c_char_p(b"/nowhere/at/all"), past=errno.ENOENT)


@attack("sandbox", _FILTERED, optional=True)
def disk_quotas(world: World) -> Optional[str]:
    """Talk to the kernel about disk quotas (`quotactl`)"""
    call("quotactl", 0x800001 << 8, 0, 0, 0)  # Q_SYNC of all
    return "they were synchronised"


@attack("sandbox", _BOTH, who="root")
def kernel_log(world: World) -> Optional[str]:
    """Read the kernel's log"""
    return "it has room for %d bytes" % call("syslog", 10, 0, 0)


@attack("sandbox", _FILTERED)
def personality(world: World) -> Optional[str]:
    """Switch address randomisation off (`personality`)"""
    before = call("personality", 0xFFFFFFFF)
    call("personality", before | 0x0040000)
    after = call("personality", 0xFFFFFFFF)
    return "switched off" if after & 0x0040000 else None


@attack("sandbox", _BOTH, who="root", optional=True)
def io_ports(world: World) -> Optional[str]:
    """Get at the processor's input and output ports (`iopl`)"""
    if platform.machine() != "x86_64":
        raise Blocked("this processor has none")
    call("iopl", 3)
    return "allowed"


@attack("sandbox", _NO_CAPS, who="root")
def real_time(world: World) -> Optional[str]:
    """Take the processor from everybody (real-time scheduling), away from a cgroup that has none of it to give"""
    child = os.fork()
    if not child:
        try:
            for place in glob.glob("/sys/fs/cgroup/*/cgroup.procs") + ["/sys/fs/cgroup/cgroup.procs"]:
                with contextlib.suppress(OSError), open(place, "r+") as file:
                    file.write("0")
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            os._exit(0)
        finally:
            os._exit(1)
    return None if os.waitpid(child, 0)[1] else "was real-time"


@attack("sandbox", _NO_CAPS, who="root")
def higher_priority(world: World) -> Optional[str]:
    """Take precedence over other processes (`nice`)"""
    os.nice(-5)
    return "took precedence"


@attack(
    "sandbox",
    "the limits of a sandbox are hard ones, and the capability (CAP_SYS_RESOURCE) is dropped",
    who="root",
    optional=True,
)
def raise_own_limits(world: World) -> Optional[str]:
    """Raise one's own hard limits"""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 4096))
    return "raised a limit from 0"


@attack("sandbox", "no capability (CAP_SETUID), and only the worker's own user id exists in the sandbox", who="root")
def become_root(world: World) -> Optional[str]:
    """Become another user"""
    for uid in (0, 65534, 1):
        try:
            os.setresuid(uid, uid, uid)
            return "became %d" % uid
        except OSError:
            pass
    return None


@attack("sandbox", "`no_new_privs`, and mounts of the sandbox are `nosuid`")
def setuid_program(world: World) -> Optional[str]:
    """Start a program that belongs to root and has the set-user-id bit"""
    said = subprocess.run(
        [world.setuid_program, "-c", "import os; print(os.geteuid())"], stdout=subprocess.PIPE, check=True
    )
    return "ran as root" if said.stdout.strip() == b"0" else None


@attack("sandbox", "`no_new_privs`, and mounts of the sandbox are `nosuid`", canary="other-user")
def program_with_capabilities(world: World) -> Optional[bytes]:
    """Start a program that has capabilities in its file"""
    said = subprocess.run([world.capable_program, world.other_users_file], stdout=subprocess.PIPE, check=True)
    return canary_in(said.stdout)


@attack("sandbox", "`no_new_privs` and no capability (CAP_FOWNER, CAP_SETFCAP)", who="root")
def make_setuid_program(world: World) -> Optional[str]:
    """Make a program with the set-user-id bit of root, or with capabilities, in the workspace"""
    place = os.path.join(world.workspace, "program")
    shutil.copy("/bin/true", place)
    os.setxattr(place, "security.capability", struct.pack("<5I", 0x2000001, 0xFFFFFFFF, 0, 0xFF, 0))
    os.unlink(place)
    return "gave it all capabilities"


@attack("sandbox", "`/proc/sys` is not writable: it belongs to another user namespace", who="root", changes="sysctl")
def write_proc_sys(world: World) -> Optional[str]:
    """Change the kernel's settings (one of the test's own network)"""
    with open("/proc/sys/net/ipv4/ip_default_ttl", "r+") as file:
        file.write("77")
    return "changed"


@attack("sandbox", "`/proc/sys` is not writable: it belongs to another user namespace", who="root")
def core_pattern(world: World) -> Optional[str]:
    """Have the kernel start a program at the next crash (`core_pattern`; opened, not written)"""
    return _openable("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger")


def _openable(*paths: str) -> Optional[str]:
    opened = []
    refusal: Optional[OSError] = None
    for path in paths:
        try:
            os.close(os.open(path, os.O_WRONLY))
            opened.append(path)
        except OSError as error:
            refusal = error
    if not opened and refusal is not None:
        raise refusal
    return "could write " + ", ".join(opened) if opened else None


@attack("sandbox", "there is no `/sys` in the sandbox", who="root")
def write_sys(world: World) -> Optional[str]:
    """Change the kernel's settings below `/sys` (opened, not written)"""
    return _openable("/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled")


@attack("sandbox", "there is no `/sys` in the sandbox, and no capability to mount one", who="root")
def leave_cgroup(world: World) -> Optional[str]:
    """Move into another cgroup, out of the worker's limits"""
    with open(os.path.join(world.cgroup, "cgroup.procs"), "w") as file:
        file.write("0")
    with open("/proc/self/cgroup") as file:
        return "moved" if os.path.basename(world.cgroup) in file.read() else None


@attack("sandbox", "there is no `/sys` in the sandbox, and no capability to mount one", who="root", optional=True)
def release_agent(world: World) -> Optional[str]:
    """Have the kernel start a program when a cgroup gets empty (`release_agent`; opened, not written)"""
    found = glob.glob("/sys/fs/cgroup/*/release_agent")
    return _openable(*found) if found else None


@attack("sandbox", "the filter knows one architecture: calls of another one end the process", optional=True)
def other_architecture(world: World) -> Optional[str]:
    """Make a filtered call by the kernel's 32-bit entry (`int 0x80`)"""
    # mov eax, 288 (keyctl); xor ebx, ebx (GET_KEYRING_ID); mov ecx, -3; xor edx, edx; int 0x80; ret
    code = b"\x53\xb8\x20\x01\x00\x00\x31\xdb\xb9\xfd\xff\xff\xff\x31\xd2\xcd\x80\x5b\xc3"
    number = machine_code(code)
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    return "found keyring %d" % number


@attack("sandbox", "the filter knows one architecture: calls of another one end the process", optional=True)
def other_number_space(world: World) -> Optional[str]:
    """Make a filtered call by the kernel's x32 numbers"""
    result = libc("syscall", ctypes.c_long(0x40000000 | 250), 0, -3, 0)
    return "found keyring %d" % result


@attack("sandbox", "arguments are compared as the kernel takes them, in 32 bits")
def high_bits(world: World) -> Optional[str]:
    """Pass arguments whose upper half is not zero, which a careless filter takes for others (CVE-2019-10063)"""
    high, passed = 1 << 32, []
    for name, arguments in (("socket", (high | 16, 3, 0)), ("socket", (high | 40, 1, 0))):
        try:
            os.close(call(name, *arguments))
            passed.append("%s %d" % (name, arguments[0] & 0xFF))
        except OSError:
            pass
    try:
        child = call("clone", high | 0x10000000 | 17, 0, 0, 0, 0)
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        passed.append("clone")
    except OSError:
        pass
    return "passed: " + ", ".join(passed) if passed else None


def machine_code(code: bytes) -> int:
    """Run machine code that returns a number. Raises Blocked on another processor than x86_64."""
    if platform.machine() != "x86_64":
        raise Blocked("this is machine code for x86_64")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(place)())


@attack("sandbox", _BOTH, who="root")
def hang_up_terminal(world: World) -> Optional[str]:
    """Hang up terminals (`vhangup`; there is none)"""
    call("vhangup")
    return "allowed"


@attack(
    "sandbox", "the sandbox's `/proc` is its own, and the kernel's messages are not in it", who="root", optional=True
)
def kernel_symbols(world: World) -> Optional[str]:
    """Read where the kernel's functions are (`/proc/kallsyms`)"""
    with open("/proc/kallsyms") as file:
        addresses = {line.split()[0] for line in file}
    return "read %d addresses" % len(addresses) if len(addresses) > 1 else None


@attack("sandbox", _NO_CAPS + " (CAP_SYS_RAWIO)", who="root", optional=True)
def kernel_memory(world: World) -> Optional[str]:
    """Read the machine's memory (`/proc/kcore`; its first bytes)"""
    with open("/proc/kcore", "rb", 0) as file:
        return "read %r" % file.read(4)
