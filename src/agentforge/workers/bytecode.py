"""Compiled modules of an environment: written by the first worker that imports them, kept for all that follow.

Environments are read-only to workers. So the worker that checks a new one has Python compile into a folder of the
worker's own, and what was compiled there of the environment's modules is put beside them when that worker is gone.
"""

import contextlib
import os
import shutil
import stat
from pathlib import Path

__all__ = ["compiling_into", "keep_bytecode"]

_LARGEST = 16 << 20


def compiling_into(folder: Path) -> dict[str, str]:
    """Return the variables that make Python write bytecode below `folder`."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}


def keep_bytecode(compiled: Path, environment: Path) -> None:
    """Put what was compiled of an environment's modules beside them.

    What is in `compiled` was made by foreign code: only plain files are taken, of modules that are there.
    """
    below = compiled / environment.relative_to("/")
    if below.resolve() != below:
        return
    for folder, _, names in os.walk(below):  # follows no links
        sources = environment / Path(folder).relative_to(below)
        if not (sources.is_dir() and sources.resolve().is_relative_to(environment.resolve())):
            continue
        for name in names:
            if name.endswith(".pyc") and (sources / f"{name.partition('.')[0]}.py").is_file():
                _take(Path(folder) / name, sources / "__pycache__" / name)


def _take(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
                return
            target.parent.mkdir(exist_ok=True)
            with target.open("wb") as written:
                shutil.copyfileobj(file, written)
