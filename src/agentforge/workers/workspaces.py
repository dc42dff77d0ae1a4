"""Where runs keep their files: `<root>/<group>/<run>`, a group being runs that may share a worker.

Where the host can give inmates a user id of their own, a group has one: the group folder is root's, and its group id
says which; each run's folder is that user's. So a worker can write into the folders of runs, and nowhere beside them.
"""

import contextlib
import os
import stat
from pathlib import Path

from agentforge.errors.sandbox import WorkspaceReplaced
from agentforge.sandbox import Sandbox

__all__ = ["Workspaces"]


class Workspaces:
    """The workspaces below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def group(self, name: str, sandbox: Sandbox, user: int | None = None) -> tuple[Path, int | None]:
        """Return the folder of a group, made if it is not there, and the user id of those who work in it.

        `user`: who it has to be, because of other folders that they work in; None: one of the group's own.
        """
        path = self._root / name
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        has = path.stat().st_gid
        if user is None:
            user = has if sandbox.owns(has) else sandbox.new_user()
        if user is not None and user != has:
            os.chown(path, -1, user)
            path.chmod(0o710)
        return path, user

    def open(self, name: str, run_id: str, sandbox: Sandbox, user: int | None = None) -> Path:
        """Return the workspace of a run, made if it is not there, and its user's in any case.

        Raises WorkspaceReplaced if an inmate has put something else there, OSError.
        """
        group, user = self.group(name, sandbox, user)
        path = group / run_id
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise WorkspaceReplaced(f"`{path}` is no folder any more")
        sandbox.take_over(path, user)
        return path
