"""Using up what everybody shares. Each goes a little beyond a small limit, and no further."""

import ctypes
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List, Optional

from . import guest
from .calls import call
from .processes import held
from .registry import Blocked, World, attack

__all__ = ["SMALL"]

SMALL: Dict[str, Any] = {
    "memory_mib": 400,
    "processes": 64,
    "cpus": 0.15,
    "open_files": 256,
    "file_mib": 16,
    "disk_mib": 32,
    "scratch_mib": 24,
    "output_mib": 2,
    "events": 1000,
}
"""The limits that are tried."""
_MIB = 1 << 20
_FRAMES_PER_S = 500
_LEAVING: Dict[str, Any] = {"alone": True, "judge": "outlived", "timeout_s": 10.0}
_PIECE = os.urandom(_MIB)
# x86_64: setsid(); prctl(PR_SET_PDEATHSIG, 0); for (;;) pause();
_FORGET = bytes.fromhex("b8700000000f05b89d000000bf0100000031f60f05b8220000000f05ebf7")

_LOOK_S = 6.0
"""Until a watching host has seen what was written: it looks every three seconds, and needs some for many files."""


def _limit(name: str) -> Dict[str, Any]:
    return {"alone": True, "timeout_s": 30.0, "limits": {name: SMALL[name]}}


def _children(count: int, work: Any) -> List[int]:
    """Fork so many children that do something; return those that could be made."""
    made: List[int] = []
    for number in range(count):
        try:
            child = os.fork()
        except OSError:
            break
        if not child:
            try:
                work(number)
            finally:
                os._exit(0)
        made.append(child)
    return made


def _end(children: List[int]) -> None:
    for child in children:
        try:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        except OSError:
            pass


@attack("limit", "`limits.processes`", **_limit("processes"))
def fork_bomb(world: World) -> Optional[str]:
    """Start processes that start processes"""

    def work(number: int) -> None:
        for child in _children(4, lambda _: time.sleep(20)):
            pass
        time.sleep(20)

    made = _children(50, work)
    time.sleep(2.0)
    alive = _tasks()
    _end(made)
    return "%d processes at once" % alive if alive > SMALL["processes"] + 20 else None


def _tasks() -> int:
    """Count the processes that descend from this one."""
    count, waiting = 0, [os.getpid()]
    while waiting:
        pid = waiting.pop()
        try:
            with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
                found = [int(each) for each in file.read().split()]
        except OSError:
            continue
        count += len(found)
        waiting += found
    return count


@attack("limit", "`limits.processes`, which counts threads", **_limit("processes"))
def thread_bomb(world: World) -> Optional[str]:
    """Start threads without end"""
    over, threads = threading.Event(), []
    try:
        for _ in range(200):
            threads.append(threading.Thread(target=over.wait, daemon=True))
            threads[-1].start()
    except RuntimeError:
        threads.pop()
    time.sleep(2.0)  # a watching host needs a look
    over.set()
    return "%d threads at once" % len(threads) if len(threads) > SMALL["processes"] + 20 else None


@attack("limit", "`limits.memory_mib`", **_limit("memory_mib"))
def memory_hog(world: World) -> Optional[str]:
    """Fill the memory"""
    held = []
    for _ in range(0, 700, 50):
        held.append(bytearray(_PIECE * 50))
        time.sleep(0.05)
    time.sleep(2.0)
    return "held %d MiB" % (len(held) * 50)


@attack("limit", "`limits.memory_mib`, which counts all processes of the sandbox together", **_limit("memory_mib"))
def memory_of_children(world: World) -> Optional[str]:
    """Fill the memory with several processes, each below the limit"""

    def work(number: int) -> None:
        held = bytearray(_PIECE * 160)
        time.sleep(20)
        del held

    made = _children(5, work)
    time.sleep(3.0)
    ended = [child for child in made if os.waitpid(child, os.WNOHANG)[0]]
    _end([child for child in made if child not in ended])
    return "held %d MiB" % (160 * 5) if len(made) == 5 and not ended else None


@attack("limit", "`limits.memory_mib`: shared memory counts", **_limit("memory_mib"))
def memory_file_hog(world: World) -> Optional[str]:
    """Fill the memory with a file that is memory (`memfd_create`)"""
    descriptor = call("memfd_create", ctypes.c_char_p(b"hog"), 0)
    for _ in range(700):
        os.write(descriptor, _PIECE)
    time.sleep(5.0)  # such files are looked for every few seconds
    return "held %d MiB" % (os.fstat(descriptor).st_blocks * 512 // _MIB)


@attack("limit", "`limits.memory_mib`: shared memory counts", **_limit("memory_mib"))
def shared_memory_hog(world: World) -> Optional[str]:
    """Fill the memory with anonymous shared mappings"""
    held = mmap.mmap(-1, 700 * _MIB)
    for _ in range(700):
        held.write(_PIECE)
    time.sleep(2.0)
    return "held 700 MiB"


def _fill(folder: str, mib: int) -> int:
    """Write files of 4 MiB until `mib` are written or no more can be; return the MiB written."""
    os.makedirs(folder, exist_ok=True)
    written = 0
    try:
        for number in range(mib // 4):
            with open(os.path.join(folder, "fill-%d" % number), "wb", 0) as file:
                for _ in range(4):
                    file.write(_PIECE)
                    written += 1
    except OSError:
        pass
    time.sleep(2.5)
    for name in os.listdir(folder):
        if name.startswith("fill-"):
            os.unlink(os.path.join(folder, name))
    return written


@attack("limit", "`limits.scratch_mib`: the temporary folder is memory of a fixed size", **_limit("scratch_mib"))
def temporary_folder_fill(world: World) -> Optional[str]:
    """Fill the temporary folder"""
    written = _fill(os.environ.get("TMPDIR", "/tmp"), 2 * SMALL["scratch_mib"])
    return "wrote %d MiB" % written if written > SMALL["scratch_mib"] + 8 else None


@attack("limit", "`limits.scratch_mib`: HOME is memory of a fixed size", **_limit("scratch_mib"))
def home_fill(world: World) -> Optional[str]:
    """Fill HOME"""
    written = _fill(os.path.expanduser("~"), 2 * SMALL["scratch_mib"])
    return "wrote %d MiB" % written if written > SMALL["scratch_mib"] + 8 else None


@attack("limit", "`limits.scratch_mib`: shared memory is memory of a fixed size", **_limit("scratch_mib"))
def dev_shm_fill(world: World) -> Optional[str]:
    """Fill `/dev/shm`"""
    written = _fill("/dev/shm/af-fill-%d" % os.getpid(), 2 * SMALL["scratch_mib"])
    return "wrote %d MiB" % written if written > SMALL["scratch_mib"] + 8 else None


@attack("limit", "`limits.disk_mib`", **_limit("disk_mib"))
def disk_fill(world: World) -> Optional[str]:
    """Fill the disk through the workspace"""
    written = _fill(world.workspace, 3 * SMALL["disk_mib"])
    return "wrote %d MiB" % written if written > SMALL["disk_mib"] + 8 else None


def _fill_slowly(folder: str, mib: int) -> str:
    for number in range(mib // 4):
        with open(os.path.join(folder, "slow-%d" % number), "wb", 0) as file:
            file.write(_PIECE * 4)
        time.sleep(0.25)  # a watching host needs a look
    time.sleep(_LOOK_S)
    return "wrote %d MiB" % mib


_BESIDE: Dict[str, Any] = {"judge": "once-more", **_limit("disk_mib")}
_left: List[threading.Thread] = []


@attack("limit", "`limits.disk_mib`: what belongs to no run under way must not grow", **_BESIDE)
def disk_fill_next_door(world: World) -> Optional[str]:
    """Fill the disk through the workspace of an earlier run, which has ended"""
    if not world.get("earlier"):
        return str(world.workspace)
    return _fill_slowly(world.earlier, 3 * SMALL["disk_mib"])


@attack("limit", "`limits.disk_mib`: what belongs to no run under way must not grow", inside=True, **_BESIDE)
def disk_fill_afterwards(world: World) -> Optional[str]:
    """Fill the disk through the run's own workspace, by a thread that goes on when the run has ended"""
    if not world.get("earlier"):
        _left.append(threading.Thread(target=_fill_slowly, args=(world.workspace, 3 * SMALL["disk_mib"]), daemon=True))
        _left[0].start()
        return str(world.workspace)
    if not _left:
        raise Blocked("the worker that it was left in was ended")
    _left[0].join()
    return "wrote %d MiB" % (3 * SMALL["disk_mib"])


@attack("limit", "`limits.disk_mib`, which looks at the blocks of every file", **_limit("disk_mib"))
def inode_fill(world: World) -> Optional[str]:
    """Use up the disk's inodes with small files in the workspace"""
    count = 0
    try:
        for count in range(20_000):
            with open(os.path.join(world.workspace, "small-%d" % count), "wb") as file:
                file.write(b"x")
    except OSError:
        pass
    time.sleep(_LOOK_S)
    return "made %d files" % count if count > 15_000 else None


@attack("limit", "`limits.file_mib`", **_limit("file_mib"))
def large_file(world: World) -> Optional[str]:
    """Write one large file"""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN) if threading.current_thread() is threading.main_thread() else None
    with open(os.path.join(world.workspace, "large"), "wb", 0) as file:
        written = sum(file.write(_PIECE) for _ in range(2 * SMALL["file_mib"])) // _MIB
    time.sleep(1.0)
    return "wrote %d MiB" % written if written > SMALL["file_mib"] else None


@attack("limit", "`limits.file_mib`", **_limit("file_mib"))
def sparse_file(world: World) -> Optional[str]:
    """Make one large file that has no content yet"""
    with open(os.path.join(world.workspace, "sparse"), "wb", 0) as file:
        file.truncate(2 * SMALL["file_mib"] * _MIB)
    time.sleep(1.0)
    return "made a file of %d MiB" % (2 * SMALL["file_mib"])


@attack("limit", "`limits.open_files`", **_limit("open_files"))
def descriptor_hog(world: World) -> Optional[str]:
    """Open files without end"""
    held = []
    try:
        for _ in range(600):
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    count = len(held)
    for each in held:
        os.close(each)
    return "%d open files" % count if count > SMALL["open_files"] else None


@attack(
    "host", "connections of one worker are counted by the host", alone=True, timeout_s=30.0, judge="neighbours-model"
)
def socket_hog(world: World) -> Optional[str]:
    """Open connections to the host without end, to use up its descriptors"""
    held = []
    try:
        for _ in range(4000):
            held.append(socket.create_connection(guest.door(), timeout=0.5))
    except OSError:
        pass
    time.sleep(1.0)
    return None


@attack("limit", "`limits.cpus`", **_limit("cpus"))
def cpu_hog(world: World) -> Optional[str]:
    """Keep all processors busy"""
    seconds = 4.0

    def work(number: int) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass

    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for child in _children(8, work):
        os.waitpid(child, 0)
    after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    used = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / took
    if used <= 2 * SMALL["cpus"]:
        raise Blocked("it got %.2f processors" % used)
    return "%.2f processors" % used


@attack(
    "limit", "`limits.output_mib`: what goes beyond is not kept", inside=True, judge="kept-mib", **_limit("output_mib")
)
def output_flood(world: World) -> Optional[str]:
    """Print without end"""
    line = "x" * 8000 + "\n"
    for _ in range(6 * SMALL["output_mib"] * _MIB // len(line)):
        sys.stdout.write(line)
    return None


@attack("limit", "`limits.events`", inside=True, judge="kept-events", **_limit("events"))
def event_flood(world: World) -> Optional[str]:
    """Send events without end"""
    run = guest.own_run()
    for number in range(3 * SMALL["events"]):
        guest.tell("event.emit", kind="message.added", data={"role": "assistant", "content": str(number)}, **run)
    time.sleep(2.0)
    return None


@attack(
    "limit",
    "`limits.frames_per_s`",
    alone=True,
    inside=True,
    timeout_s=40.0,
    limits={"frames_per_s": _FRAMES_PER_S},
    judge="neighbours-model",
)
def frame_flood(world: World) -> Optional[str]:
    """Send messages faster than the host should read them"""
    body = b'{"jsonrpc":"2.0","method":"heartbeat","params":{"rss_mib":1}}'
    frame, count = len(body).to_bytes(4, "big") + b"\0" + body, 2000
    began = time.monotonic()
    guest.wire(frame * count)
    guest.ask("value.take", 35.0, kind="now", **guest.own_run())  # answered once all before it is read
    took = time.monotonic() - began
    return "%d messages in %.1f s" % (count, took) if took < count / _FRAMES_PER_S / 3 else None


@attack("limit", "`limits.requests_per_s`", alone=True, timeout_s=30.0, limits={"requests_per_s": 2})
def request_flood(world: World) -> Optional[str]:
    """Ask the model faster than it should be asked"""
    from .gateway import post

    began, answered = time.monotonic(), 0
    for _ in range(20):  # four at once, then two a second
        answered += post().startswith(b"HTTP/1.1 200")
    rate = answered / (time.monotonic() - began)
    return "%.0f answers a second" % rate if rate > 5 else None


@attack("host", "all processes of a sandbox end with its first one", fenced_only=True, **_LEAVING)
def outlive(world: World) -> Optional[str]:
    """Leave a process behind that goes on when the run, the worker and the host have ended"""
    return _leave("af-outlive")


def _leave(name: str) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(120)", name]
    child = os.fork()
    if not child:
        try:
            os.setsid()
            subprocess.Popen(command, start_new_session=True, close_fds=True, stdout=subprocess.DEVNULL)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return None


@attack("host", "the host ends the first process of a sandbox itself", fenced_only=True, **_LEAVING)
def outlive_by_the_fence(world: World) -> Optional[str]:
    """The same, after making the process that holds the sandbox forget to end with the host"""
    if held():
        with open("/proc/1/syscall") as file:
            place = int(file.read().split()[-1], 16)
        with open("/proc/1/mem", "r+b", 0) as memory:
            memory.seek(place)
            memory.write(_FORGET)
        child = os.fork()  # an orphan, whose end wakes that process
        if not child:
            if os.fork():
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(0.3)
    return _leave("af-outlive-by-the-fence")


@attack(
    "limit",
    "a run has a limit of time, and its worker is ended if it does not leave",
    alone=True,
    inside=True,
    timeout_s=60.0,
    limits={"time_s": 2},
)
def never_end(world: World) -> Optional[str]:
    """Never end, and ignore being told to"""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            pass
    return "it went on for 20 s"
