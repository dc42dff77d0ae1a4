"""Find the project that a folder belongs to. Imports nothing heavy: every command starts here."""

from pathlib import Path

__all__ = ["PROJECT_FILE", "PROJECT_LOCK", "STATE_DIR", "find_project"]

PROJECT_FILE = "agentforge.toml"
PROJECT_LOCK = "agentforge.lock"
STATE_DIR = ".agentforge"


def find_project(start: Path) -> Path:
    """Return the nearest folder upwards from `start` that has an `agentforge.toml`, else `start` itself (absolute)."""
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    return start
