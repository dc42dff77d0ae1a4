"""Reading what is not the worker's."""

import ctypes
import glob
import os
import struct
from typing import Iterable, Optional

from .calls import call
from .registry import World, attack, canary_in

__all__ = ["first_canary"]

_ALLOW_LIST = "only what is on the read allow-list is mounted in the sandbox"


def first_canary(paths: Iterable[str]) -> Optional[bytes]:
    """Return the first canary in these files. Raises the last refusal if there is none."""
    refusal: Optional[OSError] = None
    for path in paths:
        try:
            with open(path, "rb") as file:
                found = canary_in(file.read(1 << 24))
        except OSError as error:
            refusal = error
            continue
        if found:
            return found
    if refusal is not None:
        raise refusal
    return None


@attack("sandbox", _ALLOW_LIST + "; the worker has a user id of its own", who="root", canary="other-user")
def read_other_users_file(world: World) -> Optional[bytes]:
    """Read a file of another user with mode 600"""
    return first_canary([world.other_users_file])


@attack("sandbox", _ALLOW_LIST + "; the worker has a user id of its own", who="root", canary="shadow")
def read_shadow(world: World) -> Optional[bytes]:
    """Read `/etc/shadow`"""
    return first_canary(["/etc/shadow"])


@attack("sandbox", _ALLOW_LIST, canary="ssh-key")
def read_ssh_key(world: World) -> Optional[bytes]:
    """Read the user's SSH key, by its path and through `~`"""
    home = os.path.expanduser("~")
    return first_canary([world.ssh_key, os.path.join(home, ".ssh", "id_ed25519")])


@attack("sandbox", _ALLOW_LIST, canary="dotenv")
def read_dotenv(world: World) -> Optional[bytes]:
    """Read the project's `.env`"""
    return first_canary([world.project + "/.env"])


@attack("sandbox", _ALLOW_LIST, canary="input")
def read_database(world: World) -> Optional[bytes]:
    """Read the host's database: the runs, inputs and journals of everybody"""
    return first_canary(glob.glob(world.state + "/state.db*") or [world.state + "/state.db"])


@attack("sandbox", _ALLOW_LIST, canary="other-project")
def read_other_project(world: World) -> Optional[bytes]:
    """Read the state of another project of the same user"""
    return first_canary([world.other_project + "/.agentforge/state.db"])


@attack("sandbox", _ALLOW_LIST, canary="environment")
def read_other_environment(world: World) -> Optional[bytes]:
    """Read another framework's environment in the AgentForge home"""
    return first_canary([world.other_environment])


@attack("sandbox", "only the workspaces of the worker's own agent version are mounted", canary="workspace")
def read_other_workspace(world: World) -> Optional[bytes]:
    """Read the workspace of a run of another agent"""
    return first_canary([world.victim["workspace"] + "/secret.txt"])


@attack("sandbox", "only the files of the worker's own agent version are mounted", canary="agent-code")
def read_other_agent(world: World) -> Optional[bytes]:
    """Read the code of another agent's version"""
    return first_canary(glob.glob(world.state + "/versions/*/victim.py"))


@attack("sandbox", "the sandbox has a `/tmp` of its own", canary="tmp")
def read_tmp(world: World) -> Optional[bytes]:
    """Read what others left in `/tmp`"""
    return first_canary([world.tmp_file])


@attack("sandbox", "the sandbox has a `/dev/shm` of its own", canary="shm")
def read_dev_shm(world: World) -> Optional[bytes]:
    """Read shared memory of others in `/dev/shm`"""
    return first_canary(["/dev/shm/" + world.shm_name])


@attack("sandbox", "`/proc` shows the sandbox's own processes only, and they all have its root", canary="ssh-key")
def read_through_proc_root(world: World) -> Optional[bytes]:
    """Go around the mounts by `/proc/PID/root` and `/proc/PID/cwd`"""
    pids = [pid for pid in os.listdir("/proc") if pid.isdecimal()]
    ways = ["/proc/%s/root" % pid for pid in [*pids, "self", "1"]]
    ways += ["/proc/%s/cwd%s" % (pid, "/.." * 12) for pid in pids]
    ways += ["/proc/self/root" + "/.." * 4, "/proc/self/task/%d/root" % os.getpid()]
    return first_canary([way + world.ssh_key for way in ways])


@attack(
    "sandbox",
    "`/proc` shows the sandbox's own processes only, and they hold no descriptor of the host's",
    canary="input",
)
def read_through_proc_fd(world: World) -> Optional[bytes]:
    """Open the host's files anew through `/proc/PID/fd`"""
    own = str(os.getpid())
    opened = (each for each in glob.glob("/proc/[0-9]*/fd/*") if each.split("/")[2] != own)
    return first_canary([each for each in opened if _is_file(each)] or ["/proc/%d/fd/0" % world.host_pid])


def _is_file(path: str) -> bool:
    try:
        return "state.db" in os.readlink(path)
    except OSError:
        return False


@attack("sandbox", _ALLOW_LIST, canary="dotenv")
def read_by_dotdot(world: World) -> Optional[bytes]:
    """Climb out of the workspace with `..`, and by descriptors of folders"""
    here = os.open(".", os.O_RDONLY)
    for _ in range(40):
        for name in (".env", "project/.env"):
            try:
                with open(os.open(name, os.O_RDONLY, dir_fd=here), "rb") as file:
                    return canary_in(file.read())
            except OSError:
                pass
        here = os.open("..", os.O_RDONLY, dir_fd=here)
    with open(os.open(world.project.lstrip("/") + "/.env", os.O_RDONLY, dir_fd=here), "rb") as file:
        return canary_in(file.read())


@attack("sandbox", "no capability (CAP_DAC_READ_SEARCH), and the call is filtered", who="root", canary="other-user")
def read_by_handle(world: World) -> Optional[bytes]:
    """Open a file by its handle, whatever is mounted (`open_by_handle_at`)"""
    handle_size = 128
    handle = ctypes.create_string_buffer(struct.pack("Ii", handle_size, 0) + bytes(handle_size))
    mount_id = ctypes.c_int()
    path = ctypes.c_char_p(os.fsencode(world.other_users_file))
    try:
        call("name_to_handle_at", -100, path, handle, ctypes.byref(mount_id), 0)
    except OSError:  # it is not to be seen: the handle may be guessed, so what counts is the other call
        struct.pack_into("Ii8s", handle, 0, 8, 1, struct.pack("Q", 2))
    base = os.open(
        os.path.dirname(world.other_users_file) if os.path.exists(world.other_users_file) else "/", os.O_RDONLY
    )
    with open(call("open_by_handle_at", base, handle, os.O_RDONLY), "rb") as file:
        return canary_in(file.read())


@attack(
    "sandbox",
    "the sandbox's `/dev` has no devices but null, zero, full, random, urandom, tty and the terminals of its own",
)
def open_device(world: World) -> Optional[str]:
    """Open a device node of the machine"""
    with open(world.device, "rb") as file:
        return "read %d bytes of a device" % len(file.read(16))


@attack(
    "sandbox",
    "the sandbox's `/dev` has no devices but null, zero, full, random, urandom, tty and the terminals of its own",
)
def find_devices(world: World) -> Optional[str]:
    """Find memory, kernel log, disk, KVM, FUSE, loop or vsock devices that can be opened"""
    wanted = "mem kmem port kmsg kvm fuse loop-control loop0 sda vda nvme0n1 vsock vhost-vsock net/tun userfaultfd"
    opened = []
    for name in wanted.split():
        try:
            os.close(os.open("/dev/" + name, os.O_RDONLY | os.O_NONBLOCK))
            opened.append(name)
        except OSError:
            pass
    return "opened " + ", ".join(opened) if opened else None


@attack("sandbox", "the capability (CAP_MKNOD) is dropped", who="root")
def make_device(world: World) -> Optional[str]:
    """Make a device node of one's own and read it"""
    path = os.path.join(world.workspace, "zero")
    os.mknod(path, 0o20600, os.makedev(1, 5))
    try:
        with open(path, "rb") as file:
            return "read %d bytes of a device" % len(file.read(16))
    finally:
        os.unlink(path)
