"""Writing what is not the worker's."""

import glob
import os
from typing import Iterable, Optional

from .registry import MARK, World, attack

__all__ = ["leave_mark"]

_READ_ONLY = "what is mounted in the sandbox is read-only, but for HOME, `/tmp` and the workspaces"


def leave_mark(paths: Iterable[str]) -> Optional[str]:
    """Write the mark into each file, or into a file in each folder; return which ones took it."""
    refusal: Optional[OSError] = None
    done = []
    for path in paths:
        try:
            place = os.path.join(path, MARK) if os.path.isdir(path) else path
            with open(place, "a") as file:
                file.write("# %s\n" % MARK)
            done.append(path)
        except OSError as error:
            refusal = error
    if not done and refusal is not None:
        raise refusal
    return "wrote to " + ", ".join(done) if done else None


@attack("sandbox", _READ_ONLY + "; the worker has a user id of its own", who="root", changes="system")
def write_system(world: World) -> Optional[str]:
    """Write where the system looks for programs, jobs and libraries"""
    return leave_mark(world.system_folders)


@attack("sandbox", _READ_ONLY, changes="bashrc")
def write_shell_start(world: World) -> Optional[str]:
    """Add a line to the user's `~/.bashrc`"""
    return leave_mark([world.bashrc])


@attack("sandbox", _READ_ONLY, changes="site-packages")
def write_environment(world: World) -> Optional[str]:
    """Put a `.pth` file into the environment, for the next worker to run"""
    return leave_mark([world.site_packages])


@attack("sandbox", _READ_ONLY, changes="worker-zip")
def write_worker(world: World) -> Optional[str]:
    """Change the worker's own program"""
    for path in world.worker_zips:
        os.chmod(path, 0o644)
    return leave_mark(world.worker_zips)


@attack("sandbox", _READ_ONLY, changes="adapter")
def write_adapter(world: World) -> Optional[str]:
    """Change the framework's adapter"""
    for path in world.adapters:
        os.chmod(path, 0o644)
    return leave_mark(world.adapters)


@attack("sandbox", _READ_ONLY, changes="agent-version")
def write_agent_version(world: World) -> Optional[str]:
    """Change the recorded files of the agent's own version"""
    path = world.agent_version + "/attacker.py"
    os.chmod(path, 0o644)
    return leave_mark([path])


@attack("sandbox", _READ_ONLY, changes="project")
def write_project(world: World) -> Optional[str]:
    """Change the project's `agentforge.toml`, which says how agents are fenced in"""
    return leave_mark([world.project + "/agentforge.toml"])


@attack("sandbox", _READ_ONLY, changes="state")
def write_state(world: World) -> Optional[str]:
    """Write into the host's state folder"""
    return leave_mark([world.state])


@attack("sandbox", "only the workspaces of the worker's own agent version are mounted", changes="workspace")
def write_other_workspace(world: World) -> Optional[str]:
    """Write into the workspace of a run of another agent"""
    return leave_mark([world.victim["workspace"]])


@attack("sandbox", "the sandbox has a `/tmp` of its own", changes="tmp")
def write_tmp(world: World) -> Optional[str]:
    """Change a file of others in `/tmp`"""
    return leave_mark([world.tmp_file])


@attack(
    "sandbox",
    "`/proc` shows the sandbox's own processes only, and they hold no descriptor of the host's",
    changes="log",
)
def write_through_proc_fd(world: World) -> Optional[str]:
    """Write into the host's open files through `/proc/PID/fd`"""
    own = str(os.getpid())
    found = [each for each in glob.glob("/proc/[0-9]*/fd/*") if each.split("/")[2] != own and _is_log(each)]
    return leave_mark(found or ["/proc/%d/fd/1" % world.host_pid])


def _is_log(path: str) -> bool:
    try:
        return os.readlink(path).endswith("open.log")
    except OSError:
        return False


@attack("sandbox", "a link needs a file that can be seen, on the same mount", changes="bashrc")
def write_by_hard_link(world: World) -> Optional[str]:
    """Link a file of the user's into the workspace and write there"""
    place = os.path.join(world.workspace, "linked")
    os.link(world.bashrc, place)
    return leave_mark([place])


@attack("sandbox", _READ_ONLY, changes="bashrc")
def write_by_symlink(world: World) -> Optional[str]:
    """Write through a symbolic link in the workspace"""
    place = os.path.join(world.workspace, "link")
    os.symlink(world.bashrc, place)
    try:
        return leave_mark([place])
    finally:
        os.unlink(place)


@attack("sandbox", _READ_ONLY, who="root", changes="interpreter")
def write_interpreter(world: World) -> Optional[str]:
    """Change the standard library that the environment's interpreter uses"""
    return leave_mark([world.stdlib])
