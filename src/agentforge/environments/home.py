"""The folder that holds a user's built environments and resolved locks, shared by all projects.

environments/<id>/venv, lock.txt, ready.json     built environments; without the marker it is none
environments/.staging/<id>.<token>/              builds and removals under way, or what a dead process left
environments/.staging/<id>~<token>.<token>/      an environment that was replaced and is still used
environments/.claims/<id>                        flock: exclusive to build or remove, shared to use; its time: last used
environments/.claims/.keeping                    flock: shared to pin, exclusive to decide what may be removed
projects/<digest>.json                           the projects that use this folder, one file each
locks/<digest>.txt, locks/by-input/<digest>      lock texts, and which one some requirements resolved to
wheels/<digest>/                                 wheels of local packages and of imported bundles
wheels/by-content/<digest>-<python>              which wheel the content of a local package was built to
wheels/by-content/<digest>-<lock>-<python>       the same, as a bundle brought it with a lock
wheels/by-source/<digest>-<lock>-<python>        which wheel a bundle brought for a source archive that its lock names
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

import platformdirs

from agentforge.errors.environments import DiskFull, HomeNotWritable

__all__ = ["CLOSED", "Home", "data_home", "storage_errors", "touched", "write_atomically"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST})
"""What the operating system says of a place where one may not write."""


def data_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `$AGENTFORGE_HOME`, else the user's data folder by the platform's convention (not created)."""
    chosen = environ.get("AGENTFORGE_HOME")
    if chosen:
        return Path(chosen).expanduser().resolve()
    return Path(platformdirs.user_data_dir("agentforge", appauthor=False))


class Home:
    """The layout of the data folder. Nothing is created before something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.environments = self.path / "environments"
        self.locks = self.path / "locks"
        self.wheels = self.path / "wheels"
        self.projects = self.path / "projects"

    def environment(self, id: str) -> Path:
        """Folder of a built environment."""
        return self.environments / id

    def claim(self, id: str) -> Path:
        """File whose flock says who builds, uses or removes an environment."""
        return self.claims / id

    @property
    def claims(self) -> Path:
        """Folder of the claims."""
        return self.environments / ".claims"

    @property
    def keeping(self) -> Path:
        """File whose flock keeps pins from being written while somebody decides what may be removed."""
        return self.environments / ".claims" / ".keeping"

    @property
    def staging(self) -> Path:
        """Folder of builds under way, on the same file system as the environments."""
        return self.environments / ".staging"

    def new_staging(self, id: str) -> Path:
        """Return a staging folder's path that nobody else uses."""
        return self.staging / f"{id}.{secrets.token_hex(4)}"

    def lock_text(self, digest: str) -> Path:
        """File of a lock's text."""
        return self.locks / f"{digest}.txt"

    def resolved(self, input_digest: str) -> Path:
        """File with the digest of the lock that some requirements resolved to."""
        return self.locks / "by-input" / input_digest


@contextlib.contextmanager
def storage_errors(home: Path) -> Iterator[None]:
    """Translate the operating system's refusals to write below `home` into our errors."""
    try:
        yield
    except OSError as error:
        place = error.filename or home
        if error.errno in _FULL:
            raise DiskFull(f"The disk is full: `{place}` can't be written") from error
        if error.errno in CLOSED:
            raise HomeNotWritable(f"`{place}` can't be written: {error.strerror}") from error
        raise


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that readers see the old or the new content, and power loss leaves one of them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with fresh.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def touched(file: Path) -> bool:
    """Whether a file is there; it counts as young from now on, so that no collection takes it for forgotten."""
    try:
        os.utime(file)
    except FileNotFoundError:
        return False
    except OSError:
        return file.is_file()  # somebody else's, or on a disk that only reads
    return True
