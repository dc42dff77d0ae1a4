"""What a Python interpreter is started from: the folders that a sandbox has to show for it to start."""

import os
import re
from pathlib import Path

__all__ = ["started_from"]

_MOST_LINKS = 16
_HOME = re.compile(r"^home\s*=\s*(.+?)\s*$", re.MULTILINE)


def started_from(python: Path) -> tuple[Path, ...]:
    """Return folders and files, each at the path by which the interpreter or its environment names it.

    Follows the links from an environment to the installation that it was made with. A link that stands in a folder
    which is no installation, `~/bin` for example, is returned by itself: the folder is nobody's business.
    """
    found: dict[Path, None] = {}
    for program in (python, *_base_programs(python)):
        for hop in _hops(program):
            prefix = hop.parent.parent
            found[prefix if _is_installation(prefix) else hop] = None
    return tuple(found)


def _base_programs(python: Path) -> list[Path]:
    """Return the program that `pyvenv.cfg` names, which is where an environment finds its standard library."""
    try:
        home = _HOME.search((python.parent.parent / "pyvenv.cfg").read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return []
    return [Path(home[1]) / python.resolve().name] if home else []


def _hops(program: Path) -> list[Path]:
    """Return the program and what it links to, step by step; with links among its folders, also without them."""
    hops = [program]
    while len(hops) < _MOST_LINKS and hops[-1].is_symlink():
        hops.append(Path(os.path.normpath(hops[-1].parent / hops[-1].readlink())))
    return [*hops, Path(os.path.realpath(program))]


def _is_installation(prefix: Path) -> bool:
    return (prefix / "pyvenv.cfg").is_file() or any((prefix / "lib").glob("python3*"))
