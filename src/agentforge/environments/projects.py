"""The register of projects below the data folder: whose locks and runs keep an environment from being removed.

One file a project, so that hosts never write the same one. A project that is gone (no `agentforge.lock` and no
`.agentforge/` in its folder any more) counts no more, and is dropped by the next who removes something.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from agentforge.config import STATE_DIR
from agentforge.environments.home import Home, write_atomically
from agentforge.environments.project_lock import LOCK_FILE

__all__ = ["Projects"]


class Projects:
    """Reads and writes the register. Many processes may use it at once."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def register(self, root: Path) -> None:
        """Note that a project uses the environments of this data folder."""
        file = self._file(root)
        if not file.is_file():
            write_atomically(file, json.dumps({"root": str(root.absolute())}) + "\n")
            self._drop(lambda other: other.is_dir())  # a new one has its folder, but may have nothing in it yet

    def forget(self, root: Path) -> bool:
        """Take a project off; returns whether it was there. Its next host registers it again."""
        file = self._file(root)
        try:
            file.unlink()
        except FileNotFoundError:
            return False
        return True

    def list(self) -> list[Path]:
        """Return the folders of the projects that are still there, sorted."""
        return sorted(root for _, root in self._entries() if root is not None and _exists(root))

    def drop_gone(self) -> None:
        """Take those off that are not there any more. Only while nothing can be pinned: a new one has no lock yet."""
        self._drop(_exists)

    def _drop(self, stays: Callable[[Path], bool]) -> None:
        for file, root in self._entries():
            with contextlib.suppress(OSError):  # it can't be looked into, so it stays
                if root is None or not stays(root):
                    file.unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[Path, Path | None]]:
        return ((file, _root(file)) for file in self._home.projects.glob("*.json"))

    def _file(self, root: Path) -> Path:
        digest = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
        return self._home.projects / f"{digest}.json"


def _root(file: Path) -> Path | None:
    try:
        return Path(json.loads(file.read_bytes())["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _exists(root: Path) -> bool:
    """Whether a project is there, or may be: one that can't be looked into counts."""
    for name in (LOCK_FILE, STATE_DIR):
        try:
            (root / name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass
        return True
    return False
