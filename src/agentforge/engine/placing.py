"""Folders that appear whole or not at all, whoever else makes the same one at the same time."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["place_folder"]


def place_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make `target` by filling a folder beside it and renaming that; equal names mean equal content.

    Raises OSError, and what `fill` raises; nothing half-made is left then.
    """
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".", dir=target.parent))
    try:
        fill(staging)
        staging.chmod(0o755)
        try:
            staging.rename(target)
        except OSError:
            if not target.is_dir():  # else somebody was faster
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
