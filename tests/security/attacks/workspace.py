"""The workspace as a trap: what it holds when the host looks into it."""

import os
import shutil
from typing import List, Optional

from . import guest
from .registry import MARK, World, attack

__all__: List[str] = []

_NOT_FOLLOWED = "the host follows no link that a worker made"


@attack("host", _NOT_FOLLOWED, judge="export", alone=True)
def links_in_workspace(world: World) -> Optional[str]:
    """Leave links to the user's secrets in the workspace, for the host to copy them out (`runs export`)"""
    for name, target in (("key", world.ssh_key), ("env", world.project + "/.env"), ("home", world.home), ("root", "/")):
        place = os.path.join(world.workspace, name)
        if not os.path.islink(place):
            os.symlink(target, place)
    return None


@attack("host", "file names are data", judge="export", alone=True)
def odd_file_names(world: World) -> Optional[str]:
    """Leave files with names that break out of lists, archives and terminals"""
    for name in (
        "a\nb",
        "\x1b[2J",
        "-rf",
        "..\\..\\x",
        "a" * 255,
        "\udcff\udcfe",
        "%2e%2e",
        "$(touch %s)" % MARK,
        "'; --",
    ):
        with open(os.path.join(world.workspace, name), "w") as file:
            file.write(MARK)
    return None


@attack("host", "a run whose workspace is no folder any more does not go on; a sandbox mounts no link in its place",
        judge="resumed", changes="outside-folder", alone=True, inside=True, timeout_s=20.0)  # fmt: skip
def workspace_by_link(world: World) -> Optional[str]:
    """Put a link to a folder outside in the workspace's place, before the run goes on in another worker"""
    if guest.own_run()["attempt"] == 1:
        shutil.rmtree(world.workspace, ignore_errors=True)
        try:
            os.rmdir(world.workspace)
        except OSError:
            pass
        if not os.path.lexists(world.workspace):
            os.symlink(world.outside_folder, world.workspace)
        guest.ask("question.ask", 15.0, question="go on?", **guest.own_run())
    with open(os.path.join(world.workspace, MARK), "w") as file:
        file.write(MARK)
    return "wrote in " + os.path.realpath(world.workspace)


@attack("host", _NOT_FOLLOWED, judge="resumed", changes="outside-owner", alone=True, inside=True, timeout_s=20.0)
def ownership_by_link(world: World) -> Optional[str]:
    """Have the host, which may be root, give the worker what links in the workspace lead to"""
    if guest.own_run()["attempt"] == 1:
        deep = os.path.join(world.workspace, "a", "b")
        os.makedirs(deep, exist_ok=True)
        os.symlink(world.outside_folder, os.path.join(deep, "folder"))
        os.symlink(os.path.join(world.outside_folder, "file.txt"), os.path.join(deep, "file"))
        try:
            os.link(os.path.join(world.outside_folder, "file.txt"), os.path.join(deep, "hard"))
        except OSError:
            pass
        guest.ask("question.ask", 15.0, question="go on?", **guest.own_run())
    return "the host went on"


@attack(
    "host",
    "the host counts a workspace without following links, and not for ever",
    alone=True,
    timeout_s=20.0,
    judge="neighbours-model",
)
def deep_folders(world: World) -> Optional[str]:
    """Make folders so deep that whoever walks through them fails"""
    here = os.open(world.workspace, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    return None


@attack("host", "the host opens no file of a workspace", alone=True, judge="export", timeout_s=20.0)
def fifo_and_socket(world: World) -> Optional[str]:
    """Leave pipes and sockets in the workspace, at which whoever opens them waits for ever"""
    for name in ("agent.yaml", "pipe", "log"):
        os.mkfifo(os.path.join(world.workspace, name))
    return None
